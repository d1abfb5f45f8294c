/* Family: math. */
#include "runtime/ops/ops.h"

const OpDef ops_math[] = {
    {0},
};
