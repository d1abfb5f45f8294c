/* Family: conv. */
#include "runtime/ops/ops.h"

const OpDef ops_conv[] = {
    {0},
};
