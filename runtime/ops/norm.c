/* Family: norm. */
#include "runtime/ops/ops.h"

const OpDef ops_norm[] = {
    {0},
};
