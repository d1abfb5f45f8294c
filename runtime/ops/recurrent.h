/* What the rows (recurrent.c), the reference (recurrent_eval.c) and the planned kernels (recurrent_kernel.h) of RNN,
 * GRU and LSTM share: one description of a node, and the order of the inputs of the internal gradient operators. */
#ifndef REGRAFT_RUNTIME_RECURRENT_H
#define REGRAFT_RUNTIME_RECURRENT_H

#include "runtime/kernel.h"

typedef enum CellKind { CELL_RNN, CELL_GRU, CELL_LSTM } CellKind;

typedef enum ActivationKind {
    ACT_SIGMOID,
    ACT_TANH,
    ACT_RELU,
    ACT_AFFINE,
    ACT_LEAKY_RELU,
    ACT_THRESHOLDED_RELU,
    ACT_SCALED_TANH,
    ACT_HARD_SIGMOID,
    ACT_ELU,
    ACT_SOFTSIGN,
    ACT_SOFTPLUS
} ActivationKind;

typedef struct Activation {
    ActivationKind kind;
    double alpha, beta;
} Activation;

enum { RECURRENT_GATES_MAX = 4, RECURRENT_ACTIVATIONS_MAX = 3 };

/* T steps of a batch of B samples with I inputs and H hidden numbers, G gates, D directions. Samples are rows: X is [T,
 * B, I], or [B, T, I] with batch_first; row (t, b) of anything in X's order is t * row_t + b * row_b. */
typedef struct Recurrence {
    CellKind kind;
    int64_t steps, batch, inputs, hidden;
    int gates, directions;
    bool reverse[2];
    bool batch_first, coupled, linear_before_reset; /* coupled: input_forget */
    double clip;                                    /* 0: none */
    Activation activations[2][RECURRENT_ACTIVATIONS_MAX];
    int64_t row_t, row_b;     /* in rows of X */
    int64_t y_t, y_d, y_b;    /* in elements of Y: [T, D, B, H] or [B, T, D, H] */
    int64_t state_d, state_b; /* in elements of h and c: [D, B, H] or [B, D, H] */
    int64_t saved;            /* numbers saved a row, in multiples of H: LSTM i o f c C, GRU z r h n, RNN none */
} Recurrence;

/* From a node of RNN, GRU, LSTM or of their gradients, and the types of X, W and R. */
Status recurrence_init(const Node *node, CellKind kind, const Type *x, const Type *w, const Type *r, Recurrence *out,
                       Error *err);

/* Inputs of RNN, GRU, LSTM. Outputs: Y, Y_h, (LSTM: Y_c,) and what is saved for the gradient (GRU, LSTM). */
enum { IN_X, IN_W, IN_R, IN_B, IN_LENGTHS, IN_H, IN_C, IN_P, RECURRENT_INPUTS };
/* Inputs of RNNGrad, GRUGrad, LSTMGrad, then their outputs. */
enum {
    GRAD_DY,
    GRAD_DY_H,
    GRAD_DY_C,
    GRAD_INPUTS, /* the forward's inputs, in their order */
    GRAD_Y = GRAD_INPUTS + RECURRENT_INPUTS,
    GRAD_SAVED,
    GRAD_INPUT_COUNT
};
enum { GRAD_DX, GRAD_DW, GRAD_DR, GRAD_DB, GRAD_DH, GRAD_DC, GRAD_DP, GRAD_OUTPUT_COUNT };

/* recurrent_eval.c */
Status recurrent_forward_eval(EvalContext *context, CellKind kind, Error *err);
Status recurrent_backward_eval(EvalContext *context, CellKind kind, Error *err);
/* recurrent_forward.c, recurrent_backward.c */
Status recurrent_forward_prepare(PlanContext *context, CellKind kind, Error *err);
Status recurrent_backward_prepare(PlanContext *context, CellKind kind, Error *err);

#endif
