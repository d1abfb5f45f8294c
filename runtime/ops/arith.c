/* Family: arith. */
#include "runtime/ops/ops.h"

const OpDef ops_arith[] = {
    {0},
};
