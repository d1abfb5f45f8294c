/* Family: recurrent. */
#include "runtime/ops/ops.h"

const OpDef ops_recurrent[] = {
    {0},
};
