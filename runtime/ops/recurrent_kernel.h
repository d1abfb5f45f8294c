/* What the planned kernels of RNN, GRU and LSTM share: how the work is cut into units, their buffers, products on one
 * thread (recurrent_units.c), and the loops over one sample's gates (recurrent_cells.c). The time loops are in
 * recurrent_forward.c and recurrent_backward.c. */
#ifndef REGRAFT_RUNTIME_RECURRENT_KERNEL_H
#define REGRAFT_RUNTIME_RECURRENT_KERNEL_H

#include <stdatomic.h>

#include "runtime/ops/recurrent.h"
#include "runtime/ops/recurrent_panels.h"

/* Buffers in the step's scratch, in floats; D directions. */
typedef struct RecurrentPlaces {
    int64_t gates;     /* forward that saves nothing: [units, block_steps, samples of a unit, stride], sums, then gates;
                          backward: [D, back_steps * B, gradient_stride], gradients of the sums */
    int64_t h, c;      /* [D, B, H] */
    int64_t extra;     /* [D, B, 3H]: R h of GRU; products on the way back */
    int64_t bias;      /* [D, 2GH] */
    int64_t before;    /* [D, back_steps * B, before_stride]: h before each step, backward */
    int64_t zeros;     /* [3H]: stands in for peepholes and cells that are not there */
    int64_t weights_w; /* forward: W and R of every direction, in panels or transposed [D, I or H, turned_stride] */
    int64_t weights_r; /* backward: R in panels */
    int64_t total;
} RecurrentPlaces;

typedef struct RecurrentState {
    Recurrence r;
    RecurrentPlaces at;
    bool relu;             /* RNN with Relu */
    bool saves;            /* the gates are an output */
    bool panels;           /* W and R are packed first, for recurrent_panels.c */
    bool turned;           /* W and R are transposed first, for the library */
    bool team;             /* one unit, large enough that all threads work on each of its steps */
    int64_t chunks;        /* of samples a direction has; a unit is one chunk of one direction */
    int64_t chunk_samples; /* of the largest chunk */
    int64_t block_steps;   /* whose inputs meet W at once */
    int64_t back_steps;    /* of a block on the way back; all of them where rows lie sample by sample */
    int64_t stride;        /* floats a row of gates: r.saved * H, RNN H */
    int64_t gradient_stride, before_stride, turned_stride;
} RecurrentState;

/* A chunk of samples of one direction at one step. */
typedef struct Unit {
    const RecurrentState *state;
    const Recurrence *r;
    atomic_int *failed; /* dnnl_status_t of a product that failed */
    int d;
    int64_t begin, end; /* samples */
    int64_t t;
    const int32_t *lengths;
    float *h, *c, *extra; /* of the direction */
    const float *p;       /* [3, H] */
    const float *zeros;
    int phase; /* GRU takes two passes a step */
} Unit;

/* ---- recurrent_units.c ---------------------------------------------------------------------------------------- */

/* The node's inputs X, W and R begin at `first`. */
Status recurrent_state_make(PlanContext *context, CellKind kind, int first, RecurrentState **out, Error *err);
/* Sigmoid for gates and Tanh (RNN: or Relu) for the rest, without clip or coupling: what the kernels do. */
bool recurrent_is_usual(const Recurrence *r);
int recurrent_saved_index(CellKind kind); /* which output of the forward */
/* Rows next to each other in memory, but never a power of two apart: those would share few sets of the caches. */
int64_t recurrent_padded(int64_t width);
/* The place of `count` floats in a scratch of *total. */
int64_t recurrent_take(int64_t *total, int64_t count);

const void *recurrent_input(const Step *step, int index); /* NULL when absent */
Slot *recurrent_output(const Step *step, int index);
/* [B, H] of one direction from, or to, a state tensor; absent states are zero. */
void recurrent_state_load(const Recurrence *r, int d, const float *state, float *to);
void recurrent_state_store(const Recurrence *r, int d, const float *from, Slot *slot);

/* Unit number `index` of the step with its buffers; `first`: where the forward's inputs begin. */
Unit recurrent_unit(const Step *step, int first, int64_t index, atomic_int *failed);
int64_t recurrent_unit_count(const RecurrentState *state);
bool unit_is_active(const Unit *u, int64_t b); /* step t belongs to sample b */
int64_t recurrent_row(const Recurrence *r, int64_t t, int64_t b);
int64_t recurrent_y_at(const Recurrence *r, int d, int64_t t, int64_t b);

/* Runs body(begin, end, context) over [0, n) on the pool, or on this thread when its `work` (multiply-adds) is too
 * little. Either way every product of the library inside runs on one thread, so that its bits do not depend on the
 * pool. */
void recurrent_tasks(int64_t n, double work, void (*body)(int64_t begin, int64_t end, void *context), void *context);

/* C [m, n] = A' B' + beta C, rows lda, ldb, ldc apart; 'T': the operand is stored transposed. */
typedef struct Gemm {
    char trans_a, trans_b;
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    float beta;
    float *c;
    int64_t ldc;
} Gemm;

void gemm_run(const Gemm *g, atomic_int *failed);
/* For a team: columns in blocks that depend on the sizes alone. Else gemm_run. */
void unit_gemm(const Unit *u, const Gemm *g);

/* Packs the matrix whose element (k, n) is from[k * k_stride + n * n_stride], on the pool; returns its end in `to`. */
float *recurrent_pack(const Panels *panels, const float *from, int64_t k_stride, int64_t n_stride, float *to);
const char *recurrent_kernel_name(const RecurrentState *state);

/* ---- recurrent_backward.c, recurrent_gather.c -------------------------------------------------------------------- */

/* A unit on its way back through a block of steps. */
typedef struct Backward {
    Unit u;
    const float *rec;    /* [GH, H] of the direction */
    Panels panels[2];    /* R in its parts, see part_gates */
    const float *y, *dy; /* of the whole node; dy may be NULL */
    const float *saved, *c0, *h0;
    float *dgates, *before; /* of the direction and the block */
    int64_t first, steps;   /* the block; rows in the buffers count from its first step */
    int64_t stride, gradient_stride, before_stride;
} Backward;

int64_t backward_row(const Backward *w, int64_t t, int64_t b); /* of step t and sample b in the buffers of the block */
int64_t step_before(const Unit *u, int64_t b); /* the step done before step t of sample b; -1 when t was its first */
const float *cell_before(const Backward *w, int64_t before, int64_t b); /* c before step t, `before`: that step */
/* Adds what a block gives; w: of the first and the last direction, the same where there is one. The first block, which
 * adds to nothing, overwrites. */
void recurrent_gather(const Step *step, const Backward *w, int directions, bool add);

/* ---- recurrent_cells.c: one sample ------------------------------------------------------------------------------ */

void lstm_cell(int64_t n, float *g, const float *bias, const float *p, float *h, float *c);
/* `rh` is R h for all gates, `wb` and `rb` are the biases: with linear_before_reset all in one pass. */
void gru_cell_linear(int64_t n, float *g, const float *rh, const float *wb, const float *rb, float *h);
/* The gates, and r (.) h for the product that follows; then the rest. */
void gru_cell_gates(int64_t n, float *g, const float *wb, const float *rb, const float *h);
void gru_cell_candidate(int64_t n, float *g, const float *wb, const float *rb, float *h);
void rnn_cell(int64_t n, const float *g, const float *wb, const float *rb, float *h, bool relu);

/* In: dh, dc of this step. Out: gradients of the gate sums, dc of the step before; see recurrent_eval.c for the
 * formulas. */
void lstm_cell_back(int64_t n, const float *g, const float *c_prev, const float *p, const float *dh, float *dc,
                    float *da);
/* da is [dz, dr, dh~, dn]; dh becomes the part of the step before that needs no product. Without linear_before_reset dr
 * (anew) and the rest of dh follow from `through` = R_h^T dh~ in a second pass. */
void gru_cell_back(int64_t n, const float *g, const float *h_prev, float *dh, float *da, bool linear);
void gru_cell_back_reset(int64_t n, const float *g, const float *h_prev, const float *through, float *dh, float *da);
void rnn_cell_back(int64_t n, const float *y, const float *dh, float *da, bool relu);
void cell_add(int64_t n, const float *x, float *y); /* y += x */

enum { CELL_GRAIN = 2048 }; /* hidden numbers a thread of a team takes at least */

#endif
