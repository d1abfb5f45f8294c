/* Gradient cases of runtime/ops/activation.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_activation[] = {
    {0},
};
