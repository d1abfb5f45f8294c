/* Family: generate. */
#include "runtime/ops/ops.h"

const OpDef ops_generate[] = {
    {0},
};
