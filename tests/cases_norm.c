/* Gradient cases of runtime/ops/norm.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_norm[] = {
    {0},
};
