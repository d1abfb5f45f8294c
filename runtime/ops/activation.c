/* Family: activation. */
#include "runtime/ops/ops.h"

const OpDef ops_activation[] = {
    {0},
};
