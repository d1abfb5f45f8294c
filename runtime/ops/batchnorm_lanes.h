/* The loops of batchnorm_train.c over rows of sixteen channels in bf16, written with vectors of that width: there the
 * compiler's code, not the memory, is what takes time. Formulas and names are those of batchnorm_train.c. */
#ifndef REGRAFT_RUNTIME_OPS_BATCHNORM_LANES_H
#define REGRAFT_RUNTIME_OPS_BATCHNORM_LANES_H

#include "runtime/ops/batchnorm.h"

enum { LANES_BESIDE = 4 }; /* groups of sixteen channels that are taken together */

/* `count` rows that begin `step` numbers apart; coefficients of its sixteen channels. Where channels lie last, rows of
 * LANES_BESIDE groups lie side by side and are read in one run each, twice as fast as one group after the other: the
 * coefficients of the next group are `next` floats further, its sums sixteen. */
typedef struct LaneRows {
    const uint16_t *x, *dy;
    uint16_t *y; /* y or dx; may be dy */
    int64_t count, step, next;
    bool beside; /* LANES_BESIDE groups instead of one */
    bool stream; /* apply writes past the caches: rows without gaps, 32 bytes aligned */
    const float *k, *mean, *bias, *b, *share;
    float low, high;
} LaneRows;

/* False: take the other loops, this processor has no bf16 arithmetic. */
bool batchnorm_lanes_fit(void);

void batchnorm_lanes_moments(const LaneRows *rows, double *first, double *second);
void batchnorm_lanes_apply(BatchNormActivation activation, const LaneRows *rows);
void batchnorm_lanes_sums(BatchNormActivation activation, const LaneRows *rows, double *first, double *second);
void batchnorm_lanes_spread(BatchNormActivation activation, const LaneRows *rows);

#endif
