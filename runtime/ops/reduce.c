/* Family: reduce. */
#include "runtime/ops/ops.h"

const OpDef ops_reduce[] = {
    {0},
};
