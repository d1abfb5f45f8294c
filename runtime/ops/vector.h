/* Loops that the compiler turns into vector instructions, compiled once per instruction set and chosen by the loader.
 * Mark the function that holds the loop VECTOR_CLONES; helpers it calls are VECTOR_INLINE. Floating-point contraction
 * is off in the whole build, so elementwise results have the same bits on every instruction set. */
#ifndef REGRAFT_RUNTIME_VECTOR_H
#define REGRAFT_RUNTIME_VECTOR_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* Levels, not names of processors: gcc asks for a name with __builtin_cpu_is, which is true of that one processor
 * alone. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR_CLONES
#endif
#define VECTOR_INLINE static inline __attribute__((always_inline))

/* Stores `count` floats (a multiple of 4, `to` at a multiple of 16 bytes) past the caches; vector_stream_end makes them
 * visible to other threads. */
VECTOR_INLINE void vector_stream(float *to, const float *from, int64_t count)
{
#if defined(__SSE__)
    for (int64_t i = 0; i < count; i += 4)
        _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#else
    memcpy(to, from, (size_t)count * sizeof *to);
#endif
}

VECTOR_INLINE void vector_stream_end(void)
{
#if defined(__SSE__)
    _mm_sfence();
#endif
}

/* Asks for `count` floats that will be read soon; nothing waits. */
VECTOR_INLINE void vector_ask(const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 16)
        __builtin_prefetch(from + i, 0, 2);
}

VECTOR_INLINE float vector_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* x = n ln2 + r with |r| <= ln2/2: e^r by its polynomial (coefficients of Cephes' expf), and n in the low bits of
 * *bits. */
VECTOR_INLINE float vector_exp_parts(float x, uint32_t *bits)
{
    const float magic = 12582912.0F; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    float shifted = x * 1.44269504F + magic;
    float n = shifted - magic;
    float r = x - n * 0.693359375F + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    memcpy(bits, &shifted, sizeof *bits);
    return p;
}

/* e^x within 2 ulp for -87.3 <= x <= 88.7, which nobody checks: 2^n comes through the exponent bits. */
VECTOR_INLINE float vector_exp_inner(float x)
{
    uint32_t bits, exponent;
    float p = vector_exp_parts(x, &bits);
    memcpy(&exponent, &p, sizeof exponent);
    return vector_from_bits(exponent + ((bits - 0x4B400000U) << 23));
}

/* e^x within 2 ulp; 0 below -87.3, infinity above 88.7, NaN stays NaN. */
VECTOR_INLINE float vector_exp(float x)
{
    float clamped = x > 88.72283F ? 88.72283F : x;
    clamped = clamped < -87.33654F ? -87.33654F : clamped;
    float y = vector_exp_inner(clamped);
    y = x > 88.72283F ? __builtin_inff() : y;
    y = x < -87.33654F ? 0.0F : y;
    return x != x ? x : y;
}

/* e^x where the rest of a formula takes care of the ends: 1.2e-38 below -87.3, infinity above 88.4, NaN stays NaN; in
 * between the bits of vector_exp for two thirds of the instructions. 2^n is multiplied, not added to the exponent's
 * bits, which would turn NaN into a number. */
VECTOR_INLINE float vector_exp_bounded(float x)
{
    uint32_t bits;
    float clamped = x > 89.0F ? 89.0F : x;
    clamped = clamped < -87.33654F ? -87.33654F : clamped;
    float p = vector_exp_parts(clamped, &bits);
    return p * vector_from_bits((bits << 23) + 0x3F800000U);
}

/* tanh x within 3 ulp: (1 - e^-2|x|) / (1 + e^-2|x|), and its odd polynomial (Cephes' tanhf) near 0 where that cancels.
 */
VECTOR_INLINE float vector_tanh(float x)
{
    float a = x < 0 ? -x : x;
    float e = vector_exp_bounded(-2.0F * a);
    float far = (1.0F - e) / (1.0F + e);
    far = x < 0 ? -far : far;
    float s = x * x;
    float p = -5.70498872745e-3F;
    p = p * s + 2.06390887954e-2F;
    p = p * s - 5.37397155531e-2F;
    p = p * s + 1.33314422036e-1F;
    p = p * s - 3.33332819422e-1F;
    float near = p * s * x + x;
    return a < 0.625F ? near : far;
}

/* ln x within 1 ulp for normal x > 0; -infinity at 0, NaN below. x = 2^e m with m in [sqrt 1/2, sqrt 2) and the
 * polynomial of Cephes' logf for ln m. Denormals count as 0. */
VECTOR_INLINE float vector_log(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t shifted = bits - 0x3F3504F3U; /* sqrt 1/2 */
    float e = (float)((int32_t)shifted >> 23);
    float m = vector_from_bits((shifted & 0x007FFFFFU) + 0x3F3504F3U) - 1.0F;
    float z = m * m;
    float p = 7.0376836292e-2F;
    p = p * m - 1.1514610310e-1F;
    p = p * m + 1.1676998740e-1F;
    p = p * m - 1.2420140846e-1F;
    p = p * m + 1.4249322787e-1F;
    p = p * m - 1.6668057665e-1F;
    p = p * m + 2.0000714765e-1F;
    p = p * m - 2.4999993993e-1F;
    p = p * m + 3.3333331174e-1F;
    float y = p * m * z - 2.12194440e-4F * e - 0.5F * z;
    y = m + y + 0.693359375F * e;
    y = x < 1.17549435e-38F ? -__builtin_inff() : y;
    y = x > 3.4028235e38F ? x : y;
    return x < 0 || x != x ? __builtin_nanf("") : y;
}

VECTOR_INLINE float vector_sigmoid(float x)
{
    return 1.0F / (1.0F + vector_exp_bounded(-x));
}

#endif
