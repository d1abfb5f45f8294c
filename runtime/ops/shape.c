/* Family: shape. */
#include "runtime/ops/ops.h"

const OpDef ops_shape[] = {
    {0},
};
