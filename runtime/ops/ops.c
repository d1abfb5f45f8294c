/* The list of operator families: the whole table that the tool hands to model_import. */
#include "runtime/ops/ops.h"

#include "runtime/runtime.h"

/* One a line, so that two people can add one each. */
/* clang-format off */
static const OpDef *const families[] = {
    ops_activation,
    ops_arith,
    ops_attention,
    ops_batchnorm,
    ops_cast,
    ops_control,
    ops_conv, ops_detection,
    ops_conv_integer,
    ops_cumulate,
    ops_deform_conv,
    ops_det,
    ops_dropout,
    ops_einsum,
    ops_flex_attention,
    ops_fold,
    ops_fused,
    ops_generate,
    ops_grid_sample,
    ops_image,
    ops_index,
    ops_join,
    ops_layernorm,
    ops_linear_attention,
    ops_logic,
    ops_losses,
    ops_losses_bce,
    ops_lrn,
    ops_math,
    ops_matmul,
    ops_matmul_integer,
    ops_ml,
    ops_norm,
    ops_pad,
    ops_pool,
    ops_qoperator,
    ops_quantize,
    ops_random,
    ops_rearrange,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_roi,
    ops_scatter,
    ops_select,
    ops_sequence,
    ops_shape,
    ops_signal,
    ops_softmax,
    ops_text,
    ops_training,
    ops_transpose,
};
/* clang-format on */

const OpSet builtin_ops = {families, sizeof families / sizeof families[0]};
