/* Gradient cases of runtime/ops/recurrent.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

const GradientCase cases_recurrent[] = {
    {0},
};
