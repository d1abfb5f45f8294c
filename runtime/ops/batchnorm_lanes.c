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

/* ---- loops: `kind` and `groups` are constants in each ----------------------------------------------------------- */

LANES_INLINE void read_coefficients(int groups, const LaneRows *rows, const float *from, Floats to[LANES_BESIDE])
{
    for (int g = 0; g < groups; g++)
        to[g] = coefficients(from + g * rows->next);
}

LANES_INLINE void moments(int groups, const LaneRows *rows, double *first, double *second)
{
    Floats mean[LANES_BESIDE];
    read_coefficients(groups, rows, rows->mean, mean);
    for (int64_t begin = 0; begin < rows->count; begin += RUN) {
        int64_t end = begin + RUN < rows->count ? begin + RUN : rows->count;
        Floats one[LANES_BESIDE] = {{0}}, two[LANES_BESIDE] = {{0}};
        for (int64_t r = begin; r < end; r++)
            for (int g = 0; g < groups; g++) {
                const Floats d = load(rows->x + r * rows->step + g * LANES) - mean[g];
                one[g] += d;
                two[g] += d * d;
            }
        for (int g = 0; g < groups; g++) {
            add_up(one[g], first + g * LANES);
            add_up(two[g], second + g * LANES);
        }
    }
}

BF16_TARGET void batchnorm_lanes_moments(const LaneRows *rows, double *first, double *second)
{
    if (rows->beside)
        moments(LANES_BESIDE, rows, first, second);
    else
        moments(1, rows, first, second);
}

/* One block's rows without gaps. */
LANES_INLINE void apply_stream(BatchNormActivation kind, const LaneRows *rows)
{
    const Floats k = coefficients(rows->k), mean = coefficients(rows->mean), bias = coefficients(rows->bias);
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    for (int64_t r = 0; r < rows->count; r++) {
        const Floats z = k * (load(rows->x + r * LANES) - mean) + bias;
        const __m256i y = (__m256i)_mm512_cvtneps_pbh((__m512)activate(kind, z, low, high));
        _mm256_stream_si256((__m256i *)(void *)(rows->y + r * LANES), y);
    }
    _mm_sfence();
}

LANES_INLINE void apply(BatchNormActivation kind, int groups, const LaneRows *rows)
{
    Floats k[LANES_BESIDE], mean[LANES_BESIDE], bias[LANES_BESIDE];
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    read_coefficients(groups, rows, rows->k, k);
    read_coefficients(groups, rows, rows->mean, mean);
    read_coefficients(groups, rows, rows->bias, bias);
    for (int64_t r = 0; r < rows->count; r++)
        for (int g = 0; g < groups; g++) {
            const int64_t at = r * rows->step + g * LANES;
            const Floats z = k[g] * (load(rows->x + at) - mean[g]) + bias[g];
            store(rows->y + at, activate(kind, z, low, high));
        }
}

LANES_INLINE void sums(BatchNormActivation kind, int groups, const LaneRows *rows, double *first, double *second)
{
    Floats k[LANES_BESIDE], mean[LANES_BESIDE], bias[LANES_BESIDE];
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    read_coefficients(groups, rows, rows->k, k);
    read_coefficients(groups, rows, rows->mean, mean);
    read_coefficients(groups, rows, rows->bias, bias);
    for (int64_t begin = 0; begin < rows->count; begin += RUN) {
        int64_t end = begin + RUN < rows->count ? begin + RUN : rows->count;
        Floats one[LANES_BESIDE] = {{0}}, two[LANES_BESIDE] = {{0}};
        for (int64_t r = begin; r < end; r++)
            for (int g = 0; g < groups; g++) {
                const int64_t at = r * rows->step + g * LANES;
                const Floats d = load(rows->x + at) - mean[g];
                const Floats dz = through(kind, load(rows->dy + at), k[g] * d + bias[g], low, high);
                if (kind == BATCHNORM_SWISH)
                    store(rows->y + at, dz);
                one[g] += dz;
                two[g] += dz * d;
            }
        for (int g = 0; g < groups; g++) {
            add_up(one[g], first + g * LANES);
            add_up(two[g], second + g * LANES);
        }
    }
}

LANES_INLINE void spread(BatchNormActivation kind, int groups, const LaneRows *rows)
{
    Floats k[LANES_BESIDE], mean[LANES_BESIDE], bias[LANES_BESIDE], b[LANES_BESIDE], share[LANES_BESIDE];
    const Floats zero = {0}, low = zero + rows->low, high = zero + rows->high;
    read_coefficients(groups, rows, rows->k, k);
    read_coefficients(groups, rows, rows->mean, mean);
    read_coefficients(groups, rows, rows->bias, bias);
    read_coefficients(groups, rows, rows->b, b);
    read_coefficients(groups, rows, rows->share, share);
    for (int64_t r = 0; r < rows->count; r++)
        for (int g = 0; g < groups; g++) {
            const int64_t at = r * rows->step + g * LANES;
            const Floats d = load(rows->x + at) - mean[g];
            const Floats dz = through(kind, load(rows->dy + at), k[g] * d + bias[g], low, high);
            store(rows->y + at, k[g] * (dz - share[g]) + b[g] * d);
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

BF16_TARGET void batchnorm_lanes_apply(BatchNormActivation activation, const LaneRows *rows)
{
    if (rows->stream)
        WITH_KIND(apply_stream, rows)
    else if (rows->beside)
        WITH_KIND(apply, LANES_BESIDE, rows)
    else
        WITH_KIND(apply, 1, rows)
}

BF16_TARGET void batchnorm_lanes_sums(BatchNormActivation activation, const LaneRows *rows, double *first,
                                      double *second)
{
    if (rows->beside)
        WITH_KIND(sums, LANES_BESIDE, rows, first, second)
    else
        WITH_KIND(sums, 1, rows, first, second)
}

/* Where the activation's slope is dear, the sums left dz in the place of dx. */
BF16_TARGET void batchnorm_lanes_spread(BatchNormActivation activation, const LaneRows *rows)
{
    LaneRows kept = *rows;
    if (activation == BATCHNORM_SWISH) {
        kept.dy = rows->y;
        activation = BATCHNORM_LINEAR;
    }
    if (rows->beside)
        WITH_KIND(spread, LANES_BESIDE, &kept)
    else
        WITH_KIND(spread, 1, &kept)
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
