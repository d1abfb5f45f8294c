/* Gradient cases of runtime/ops/sequence.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_sequence[] = {
    {.name = "OptionalGetElement: of a tensor", .inputs = "T[2,3] x", .nodes = "y = OptionalGetElement(x)", .wrt = "x"},
    {.name = "SplitToSequence: pieces of three, the last of one", .inputs = "T[7,3] x", .constants = "int64 k = {3}, int64 i = {-1}, int64 j = {1}", .nodes = "s = SplitToSequence(x, k) a = SequenceAt(s, i) b = SequenceAt(s, j) c = Tanh(a) y = Mul(b, c)", .wrt = "x"},
    {.name = "SplitToSequence: pieces of one without their dim", .inputs = "T[2,3] x", .constants = "int64 i = {0}, int64 j = {2}", .nodes = "s = SplitToSequence<axis=-1, keepdims=0>(x) a = SequenceAt(s, i) b = SequenceAt(s, j) c = Tanh(a) y = Mul(b, c)", .wrt = "x"},
    {.name = "SplitToSequence: pieces of given lengths, joined again", .inputs = "T[2,6] x", .constants = "int64[3] k = {1, 2, 3}, int64 i = {1}", .nodes = "s = SplitToSequence<axis=1>(x, k) a = SequenceAt(s, i) b = ConcatFromSequence<axis=1>(s) c = Concat<axis=1>(a, b) y = Tanh(c)", .wrt = "x"},
    {0},
};
/* clang-format on */
