/* Family: control. */
#include "runtime/ops/ops.h"

const OpDef ops_control[] = {
    {0},
};
