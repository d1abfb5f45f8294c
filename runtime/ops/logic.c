/* Family: logic. */
#include "runtime/ops/ops.h"

const OpDef ops_logic[] = {
    {0},
};
