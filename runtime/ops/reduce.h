/* A reduction as its rows (reduce.c) and its planned kernels (reduce_kernel.c) see it. */
#ifndef REGRAFT_RUNTIME_REDUCE_H
#define REGRAFT_RUNTIME_REDUCE_H

#include "runtime/kernel.h"

typedef enum ReduceKind {
    REDUCE_SUM,
    REDUCE_MEAN,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_PROD,
    REDUCE_L1,
    REDUCE_L2,
    REDUCE_SUM_SQUARE,
    REDUCE_LOG_SUM,
    REDUCE_LOG_SUM_EXP
} ReduceKind;

typedef struct Reduction {
    ReduceKind kind;
    int rank; /* of the input */
    int64_t dims[RANK_MAX];
    bool reduced[RANK_MAX];
    int64_t kept[RANK_MAX]; /* the input's dims with 1 where reduced */
    int out_rank;
    int64_t out_dims[RANK_MAX];
    int64_t count; /* elements behind each output */
} Reduction;

/* Planned kernels: output 0 from input 0. */
Status reduction_prepare(const Reduction *r, PlanContext *context, Error *err);
/* The way back: input 0 (r->kept) times `scale` repeated to input 1's shape (r->dims), in the layout of input 1. */
Status spread_prepare(const Reduction *r, PlanContext *context, double scale, Error *err);

#endif
