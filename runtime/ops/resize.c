/* Family: resize. */
#include "runtime/ops/ops.h"

const OpDef ops_resize[] = {
    {0},
};
