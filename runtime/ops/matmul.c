/* Family: matmul. */
#include "runtime/ops/ops.h"

const OpDef ops_matmul[] = {
    {0},
};
