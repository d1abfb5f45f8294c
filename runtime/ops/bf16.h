/* Tensors in bfloat16: the upper half of a float. Own kernels compute in float and only read and write it: runs that
 * lie in cache are widened and narrowed by bf16_widen and bf16_narrow, loops that go over memory once read through
 * bf16_at. Narrowing rounds to nearest, ties to even; NaN stays NaN. */
#ifndef REGRAFT_RUNTIME_OPS_BF16_H
#define REGRAFT_RUNTIME_OPS_BF16_H

#include <stdbool.h>

#include "runtime/ops/vector.h"

/* Functions marked BF16_TARGET may use the processor's own conversion; ask bf16_instructions before calling one. */
#if defined(__x86_64__) && defined(__gnu_linux__)
#include <immintrin.h>
#define BF16_INSTRUCTIONS 1
#define BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#else
#define BF16_INSTRUCTIONS 0
#endif

bool bf16_instructions(void);

VECTOR_INLINE float bf16_to_float(uint16_t x)
{
    return vector_from_bits((uint32_t)x << 16);
}

VECTOR_INLINE uint16_t bf16_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1), nan = bits | 0x400000;
    return (uint16_t)((x != x ? nan : rounded) >> 16);
}

/* Element i of numbers that are bf16 or f32. `narrow` is a constant wherever this is in a loop. */
VECTOR_INLINE float bf16_at(const void *x, int64_t i, bool narrow)
{
    return narrow ? bf16_to_float(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

VECTOR_INLINE void bf16_put(void *y, int64_t i, float value, bool narrow)
{
    if (narrow)
        ((uint16_t *)y)[i] = bf16_from_float(value);
    else
        ((float *)y)[i] = value;
}

void bf16_widen(const uint16_t *from, float *to, int64_t n);
void bf16_narrow(const float *from, uint16_t *to, int64_t n);

enum { BF16_ROW = 4096 }; /* numbers of a row that kernels widen as a whole; longer ones are taken in f32 */

/* `n` numbers from element `at` on as floats: where they lie, or widened into `buffer`. */
const float *bf16_read(const void *x, bool narrow, int64_t at, int64_t n, float *buffer);

#endif
