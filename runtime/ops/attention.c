/* Family: attention. */
#include "runtime/ops/ops.h"

const OpDef ops_attention[] = {
    {0},
};
