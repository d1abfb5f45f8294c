/* Gradient cases of runtime/ops/sequence.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_sequence[] = {
    {.name = "OptionalGetElement: of a tensor", .inputs = "T[2,3] x", .nodes = "y = OptionalGetElement(x)", .wrt = "x"},
    {0},
};
/* clang-format on */
