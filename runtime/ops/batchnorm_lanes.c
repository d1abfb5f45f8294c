/* See batchnorm_lanes.h. A bf16 plan exists only where the processor has AVX-512 with bf16 arithmetic, so one version
 * is enough; elsewhere batchnorm_lanes_fit says no. */
#include "runtime/ops/batchnorm_lanes.h"

#include "runtime/ops/bf16.h"

#if BF16_INSTRUCTIONS

enum { LANES = 16, RUN = 512 }; /* RUN: rows added in float before the sum moves into a double */

typedef float Floats __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t)), aligned(2), may_alias));

#define LANES_INLINE BF16_TARGET static inline __attribute__((always_inline))

LANES_INLINE Floats load(const uint16_t *from)
{
    return (Floats)(__builtin_convertvector(*(const Halves *)from, Words) << 16);
}

LANES_INLINE void store(uint16_t *to, Floats value)
{
    *(Halves *)to = (Halves)_mm512_cvtneps_pbh((__m512)value);
}

LANES_INLINE Floats coefficients(const float *from)
{
    return *(const Floats *)from;
}

LANES_INLINE Floats choose(Ints where, Floats yes, Floats no)
{
    return (Floats)(((Ints)yes & where) | ((Ints)no & ~where));
}

LANES_INLINE void add_up(Floats sum, double *total)
{
    for (int i = 0; i < LANES; i++)
        total[i] += (double)sum[i];
}

/* ---- activations: as in batchnorm_train.c ---------------------------------------------------------------------- */

/* 1 / (1 + e^-z), with the steps of vector_exp_inner. */
LANES_INLINE Floats sigmoid(Floats z)
{
    const Floats zero = {0}, most = zero + 87.0F;
    const Floats x = choose(z > most, -most, choose(z < -most, most, -z));
    const Floats shifted = x * 1.44269504F + 12582912.0F, n = shifted - 12582912.0F;
    const Floats r = x - n * 0.693359375F + n * 2.12194440e-4F;
    Floats p = zero + 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    return 1.0F / (1.0F + (Floats)((Words)p + (((Words)shifted - 0x4B400000U) << 23)));
}

LANES_INLINE Floats activate(BatchNormActivation kind, Floats z, Floats low, Floats high)
{
    const Floats zero = {0};
    if (kind == BATCHNORM_RELU)
        return choose(z < zero, zero, z);
    if (kind == BATCHNORM_CLIP)
        return choose(z < low, low, choose(z > high, high, z));
    if (kind == BATCHNORM_HARD_SWISH) {
        const Floats one = zero + 1.0F, ramp = z * (1.0F / 6.0F) + 0.5F;
        return z * choose(ramp < zero, zero, choose(ramp > one, one, ramp));
    }
    if (kind == BATCHNORM_SWISH)
        return z * sigmoid(z);
    return z;
}

LANES_INLINE Floats through(BatchNormActivation kind, Floats dy, Floats z, Floats low, Floats high)
{
    const Floats zero = {0};
    if (kind == BATCHNORM_RELU)
        return choose(z > zero, dy, zero);
    if (kind == BATCHNORM_CLIP)
        return choose((z > low) & (z < high), dy, zero);
    if (kind == BATCHNORM_HARD_SWISH) {
        const Floats three = zero + 3.0F;
        return choose(z <= -three, zero, choose(z < three, dy * (z * (1.0F / 3.0F) + 0.5F), dy));
    }
    if (kind == BATCHNORM_SWISH) {
        const Floats s = sigmoid(z);
        return dy * (s + z * s * (1.0F - s));
    }
    return dy;
}

/* ---- loops: `kind` is a constant in each ------------------------------------------------------------------------ */

BF16_TARGET void batchnorm_lanes_moments(const LaneRows *rows, double *first, double *second)
{
    const Floats mean = coefficients(rows->mean);
    for (int64_t begin = 0; begin < rows->count; begin += RUN) {
        int64_t end = begin + RUN < rows->count ? begin + RUN : rows->count;
        Floats one = {0}, two = {0};
        for (int64_t r = begin; r < end; r++) {
            const Floats d = load(rows->x + r * rows->step) - mean;
            one += d;
            two += d * d;
        }
        add_up(one, first);
        add_up(two, second);
    }
}

LANES_INLINE void apply(BatchNormActivation kind, const LaneRows *rows)
{
    const Floats k = coefficients(rows->k), mean = coefficients(rows->mean), bias = coefficients(rows->bias);
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    if (rows->stream) {
        for (int64_t r = 0; r < rows->count; r++) {
            const Floats z = k * (load(rows->x + r * LANES) - mean) + bias;
            const __m256i y = (__m256i)_mm512_cvtneps_pbh((__m512)activate(kind, z, low, high));
            _mm256_stream_si256((__m256i *)(void *)(rows->y + r * LANES), y);
        }
        _mm_sfence();
        return;
    }
    for (int64_t r = 0; r < rows->count; r++) {
        const Floats z = k * (load(rows->x + r * rows->step) - mean) + bias;
        store(rows->y + r * rows->step, activate(kind, z, low, high));
    }
}

LANES_INLINE void sums(BatchNormActivation kind, const LaneRows *rows, double *first, double *second)
{
    const Floats k = coefficients(rows->k), mean = coefficients(rows->mean), bias = coefficients(rows->bias);
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    for (int64_t begin = 0; begin < rows->count; begin += RUN) {
        int64_t end = begin + RUN < rows->count ? begin + RUN : rows->count;
        Floats one = {0}, two = {0};
        for (int64_t r = begin; r < end; r++) {
            const Floats d = load(rows->x + r * rows->step) - mean;
            const Floats dz = through(kind, load(rows->dy + r * rows->step), k * d + bias, low, high);
            if (kind == BATCHNORM_SWISH)
                store(rows->y + r * rows->step, dz);
            one += dz;
            two += dz * d;
        }
        add_up(one, first);
        add_up(two, second);
    }
}

LANES_INLINE void spread(BatchNormActivation kind, const LaneRows *rows)
{
    const Floats k = coefficients(rows->k), mean = coefficients(rows->mean), bias = coefficients(rows->bias);
    const Floats b = coefficients(rows->b), share = coefficients(rows->share);
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    for (int64_t r = 0; r < rows->count; r++) {
        const Floats d = load(rows->x + r * rows->step) - mean;
        const Floats dz = through(kind, load(rows->dy + r * rows->step), k * d + bias, low, high);
        store(rows->y + r * rows->step, k * (dz - share) + b * d);
    }
}

#define WITH_KIND(body, ...)                                                                                           \
    switch (activation) {                                                                                              \
    case BATCHNORM_RELU:                                                                                               \
        body(BATCHNORM_RELU, __VA_ARGS__);                                                                             \
        break;                                                                                                         \
    case BATCHNORM_CLIP:                                                                                               \
        body(BATCHNORM_CLIP, __VA_ARGS__);                                                                             \
        break;                                                                                                         \
    case BATCHNORM_HARD_SWISH:                                                                                         \
        body(BATCHNORM_HARD_SWISH, __VA_ARGS__);                                                                       \
        break;                                                                                                         \
    case BATCHNORM_SWISH:                                                                                              \
        body(BATCHNORM_SWISH, __VA_ARGS__);                                                                            \
        break;                                                                                                         \
    case BATCHNORM_LINEAR:                                                                                             \
        body(BATCHNORM_LINEAR, __VA_ARGS__);                                                                           \
        break;                                                                                                         \
    }

BF16_TARGET void batchnorm_lanes_apply(BatchNormActivation activation, const LaneRows *rows){WITH_KIND(apply, rows)}

BF16_TARGET void batchnorm_lanes_sums(BatchNormActivation activation, const LaneRows *rows, double *first,
                                      double *second){WITH_KIND(sums, rows, first, second)}

/* Where the activation's slope is dear, the sums left dz in the place of dx. */
BF16_TARGET void batchnorm_lanes_spread(BatchNormActivation activation, const LaneRows *rows)
{
    LaneRows kept = *rows;
    if (activation == BATCHNORM_SWISH) {
        kept.dy = rows->y;
        spread(BATCHNORM_LINEAR, &kept);
        return;
    }
    WITH_KIND(spread, rows)
}

bool batchnorm_lanes_fit(void)
{
    return bf16_instructions();
}

#else

bool batchnorm_lanes_fit(void)
{
    return false;
}

void batchnorm_lanes_moments(const LaneRows *rows, double *first, double *second)
{
    (void)rows, (void)first, (void)second;
}

void batchnorm_lanes_apply(BatchNormActivation activation, const LaneRows *rows)
{
    (void)activation, (void)rows;
}

void batchnorm_lanes_sums(BatchNormActivation activation, const LaneRows *rows, double *first, double *second)
{
    (void)activation, (void)rows, (void)first, (void)second;
}

void batchnorm_lanes_spread(BatchNormActivation activation, const LaneRows *rows)
{
    (void)activation, (void)rows;
}

#endif
