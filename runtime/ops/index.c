/* Family: index. */
#include "runtime/ops/ops.h"

const OpDef ops_index[] = {
    {0},
};
