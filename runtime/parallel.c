/* The one thread pool: OpenMP's. Loops are split into contiguous ranges, the same at the same thread count. */
#include <stdlib.h>

#include "runtime/plan.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

int parallel_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

void parallel_for(int64_t n, int64_t grain, void (*body)(int64_t begin, int64_t end, void *context), void *context)
{
    if (n <= 0)
        return;
#ifdef _OPENMP
    int64_t parts = grain > 0 ? n / grain : n, threads = omp_get_max_threads();
    if (parts > threads)
        parts = threads;
    if (parts > 1 && !omp_in_parallel()) {
#pragma omp parallel num_threads((int)parts)
        {
            int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
            int64_t begin = n * me / team, end = n * (me + 1) / team;
            if (begin < end)
                body(begin, end, context);
        }
        return;
    }
#else
    (void)grain;
#endif
    body(0, n, context);
}

/* Denormal weights and gradients make x86 kernels 20 to 50 times slower; nothing of value lies there. */
static void flush_denormals_here(void)
{
#if defined(__x86_64__)
    enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
#endif
}

void parallel_flush_denormals(void)
{
#ifdef _OPENMP
#pragma omp parallel
    flush_denormals_here();
#endif
    flush_denormals_here();
}

void runtime_set_threads(int threads)
{
#ifdef _OPENMP
    if (threads == 0 && getenv("OMP_NUM_THREADS") == NULL) {
        int cores = process_cores(false);
        threads = cores < omp_get_max_threads() ? cores : 0;
    }
    if (threads > 0)
        omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}
