/* Gradient cases of runtime/ops/logic.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_logic[] = {
    {0},
};
