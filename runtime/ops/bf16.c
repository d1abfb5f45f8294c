/* Runs of bfloat16 to and from float, as vector instructions. */
#include "runtime/ops/bf16.h"

VECTOR_CLONES
void bf16_widen(const uint16_t *from, float *to, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_to_float(from[i]);
}

#if BF16_INSTRUCTIONS
bool bf16_instructions(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
}

BF16_TARGET static int64_t narrow_vectors(const float *from, uint16_t *to, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
    return i;
}
#else
bool bf16_instructions(void)
{
    return false;
}

static int64_t narrow_vectors(const float *from, uint16_t *to, int64_t n)
{
    (void)from, (void)to, (void)n;
    return 0;
}
#endif

VECTOR_CLONES
static void narrow_rest(const float *from, uint16_t *to, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_from_float(from[i]);
}

void bf16_narrow(const float *from, uint16_t *to, int64_t n)
{
    int64_t done = bf16_instructions() ? narrow_vectors(from, to, n) : 0;
    if (done < n)
        narrow_rest(from + done, to + done, n - done);
}

const float *bf16_read(const void *x, bool narrow, int64_t at, int64_t n, float *buffer)
{
    if (!narrow)
        return (const float *)x + at;
    bf16_widen((const uint16_t *)x + at, buffer, n);
    return buffer;
}
