/* Runs of bfloat16 to and from float, as vector instructions. */
#include "runtime/ops/bf16.h"

VECTOR_CLONES
void bf16_widen(const uint16_t *from, float *to, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_to_float(from[i]);
}

VECTOR_CLONES
void bf16_narrow(const float *from, uint16_t *to, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = bf16_from_float(from[i]);
}

const float *bf16_read(const void *x, bool narrow, int64_t at, int64_t n, float *buffer)
{
    if (!narrow)
        return (const float *)x + at;
    bf16_widen((const uint16_t *)x + at, buffer, n);
    return buffer;
}
