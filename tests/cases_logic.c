/* Gradient cases of runtime/ops/logic.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_logic[] = {
    {.name = "Equal: chooses a branch", .inputs = "T[3,5] x, T[5] z", .nodes = "m = Equal(x, z) y = Where(m, x, z)", .wrt = "x z"},
    {.name = "Equal: integers", .inputs = "T[3,5] x, int64[3,5] a, int64[5] b", .nodes = "m = Equal(a, b) n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "a=0..2 b=0..2"},
    {.name = "Greater: chooses a branch", .inputs = "T[3,5] x, T[5] z", .nodes = "m = Greater(x, z) y = Where(m, x, z)", .wrt = "x z"},
    {.name = "Greater: integers", .inputs = "T[3,5] x, int64[3,5] a, int64[5] b", .nodes = "m = Greater(a, b) n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "a=0..2 b=0..2"},
    {.name = "Less: chooses a branch", .inputs = "T[3,5] x, T[5] z", .nodes = "m = Less(x, z) y = Where(m, x, z)", .wrt = "x z"},
    {.name = "Less: integers", .inputs = "T[3,5] x, int64[3,5] a, int64[5] b", .nodes = "m = Less(a, b) n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "a=0..2 b=0..2"},
    {.name = "GreaterOrEqual: chooses a branch", .inputs = "T[3,5] x, T[5] z", .nodes = "m = GreaterOrEqual(x, z) y = Where(m, x, z)", .wrt = "x z"},
    {.name = "GreaterOrEqual: integers", .inputs = "T[3,5] x, int64[3,5] a, int64[5] b", .nodes = "m = GreaterOrEqual(a, b) n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "a=0..2 b=0..2"},
    {.name = "LessOrEqual: chooses a branch", .inputs = "T[3,5] x, T[5] z", .nodes = "m = LessOrEqual(x, z) y = Where(m, x, z)", .wrt = "x z"},
    {.name = "LessOrEqual: integers", .inputs = "T[3,5] x, int64[3,5] a, int64[5] b", .nodes = "m = LessOrEqual(a, b) n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "a=0..2 b=0..2"},
    {.name = "And: mask", .inputs = "T[3,5] x, bool[3,5] a, bool[5] b", .nodes = "m = And(a, b) y = Where(m, x, zero)", .wrt = "x", .constants = "T zero = {0}"},
    {.name = "Or: mask", .inputs = "T[3,5] x, bool[3,5] a, bool[5] b", .nodes = "m = Or(a, b) y = Where(m, x, zero)", .wrt = "x", .constants = "T zero = {0}"},
    {.name = "Xor: mask", .inputs = "T[3,5] x, bool[3,5] a, bool[5] b", .nodes = "m = Xor(a, b) y = Where(m, x, zero)", .wrt = "x", .constants = "T zero = {0}"},
    {.name = "Not: mask", .inputs = "T[3,5] x, bool[3,5] a", .nodes = "m = Not(a) y = Where(m, x, zero)", .wrt = "x", .constants = "T zero = {0}"},
    {.name = "Less: behind a convolution", .inputs = "T[2,20,4,3] x, T[20,20,1,1] w", .nodes = "h = Conv(x, w) m = Less(h, zero) y = Where(m, h, x)", .wrt = "x w", .constants = "T zero = {0}"},
    {.name = "Equal: opset 6, axis", .inputs = "T[2,3,4] x, int64[2,3,4] a, int64[3] b", .outputs = "y", .nodes = "m = Equal<broadcast=1, axis=1>(a, b) n = Not(m) y = Identity(x)", .wrt = "x", .values = "a=0..2 b=0..2", .opsets = "\"\" : 6"},
    {0},
};
