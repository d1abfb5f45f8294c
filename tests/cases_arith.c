/* Gradient cases of runtime/ops/arith.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_arith[] = {
    {0},
};
