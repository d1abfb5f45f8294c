/* Gradient cases of runtime/ops/cast.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_cast[] = {
    {0},
};
