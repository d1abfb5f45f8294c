/* Family: signal. */
#include "runtime/ops/ops.h"

const OpDef ops_signal[] = {
    {0},
};
