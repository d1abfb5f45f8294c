/* Family: join. */
#include "runtime/ops/ops.h"

const OpDef ops_join[] = {
    {0},
};
