/* Family: cast. */
#include "runtime/ops/ops.h"

const OpDef ops_cast[] = {
    {0},
};
