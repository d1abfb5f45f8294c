/* Family: pool. */
#include "runtime/ops/ops.h"

const OpDef ops_pool[] = {
    {0},
};
