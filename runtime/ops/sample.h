/* Reading a plane between its pixels: along each axis a few taps (pixels with weights), together their product. Shared
 * by GridSample (grid_sample.c) and DeformConv (deform_conv.c). */
#ifndef REGRAFT_RUNTIME_OPS_SAMPLE_H
#define REGRAFT_RUNTIME_OPS_SAMPLE_H

#include "onnx/op.h"

typedef struct Tap {
    int64_t index;        /* -1: outside, reads zero */
    double weight, slope; /* slope: derivative of the weight by the coordinate */
} Tap;

typedef struct Taps { /* along one axis */
    Tap items[4];
    int count;
} Taps;

/* A pixel that takes part, and how. */
typedef struct Pixel {
    int64_t at;
    double weight, slope[RANK_MAX]; /* slope[d]: by the coordinate along axis d */
} Pixel;

/* Linear interpolation at `x` in [0, length); outside reads zero. */
Taps taps_linear(double x, int64_t length);
/* The product of `rank` axes over a plane of `dims`: returns how many pixels were written to `pixels`, which has room
 * for count^rank of them. */
int64_t taps_product(const Taps *axes, int rank, const int64_t *dims, Pixel *pixels);

#endif
