/* Family: sequence. */
#include "runtime/ops/ops.h"

const OpDef ops_sequence[] = {
    {0},
};
