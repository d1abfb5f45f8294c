/* Family: softmax. */
#include "runtime/ops/ops.h"

const OpDef ops_softmax[] = {
    {0},
};
