/* The operator families, and what several of them share. One family a file; a family includes no other. */
#ifndef REGRAFT_RUNTIME_OPS_H
#define REGRAFT_RUNTIME_OPS_H

#include "onnx/op.h"
#include "runtime/kernel.h"

extern const OpDef ops_activation[], ops_arith[], ops_attention[], ops_cast[], ops_control[], ops_conv[], ops_generate[],
    ops_index[], ops_join[], ops_logic[], ops_math[], ops_matmul[], ops_norm[], ops_pool[], ops_recurrent[], ops_reduce[],
    ops_resize[], ops_sequence[], ops_shape[], ops_signal[], ops_softmax[];

#endif
