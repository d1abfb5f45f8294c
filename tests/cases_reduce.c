/* Gradient cases of runtime/ops/reduce.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

#define INTERNAL "\"\" : 28, \"ai.regraft\" : 1"
#define ALL_AXES(OP, VALUES)                                                                                           \
    {.name = OP ": all", .inputs = "T[2,3,4] x", .nodes = "y = " OP "(x)", .wrt = "x", .values = VALUES},              \
        {.name = OP ": all, no dims kept",                                                                             \
         .inputs = "T[2,3,4] x",                                                                                       \
         .nodes = "y = " OP "<keepdims=0>(x)",                                                                         \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
        {.name = OP ": last axis",                                                                                     \
         .inputs = "T[3,5,7] x",                                                                                       \
         .constants = "int64[1] a = {-1}",                                                                             \
         .nodes = "y = " OP "(x, a)",                                                                                  \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
        {.name = OP ": first axis",                                                                                    \
         .inputs = "T[7,3,5] x",                                                                                       \
         .constants = "int64[1] a = {0}",                                                                              \
         .nodes = "y = " OP "<keepdims=0>(x, a)",                                                                      \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
        {.name = OP ": middle axis",                                                                                   \
         .inputs = "T[3,5,4] x",                                                                                       \
         .constants = "int64[1] a = {1}",                                                                              \
         .nodes = "y = " OP "<keepdims=0>(x, a)",                                                                      \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
        {.name = OP ": outer axes",                                                                                    \
         .inputs = "T[3,2,4,5] x",                                                                                     \
         .constants = "int64[3] a = {0, -1, 2}",                                                                       \
         .nodes = "y = " OP "(x, a)",                                                                                  \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
        {.name = OP ": no axes, noop",                                                                                 \
         .inputs = "T[2,3] x",                                                                                         \
         .constants = "int64[0] a = {}",                                                                               \
         .nodes = "y = " OP "<noop_with_empty_axes=1>(x, a)",                                                          \
         .wrt = "x",                                                                                                   \
         .values = VALUES},                                                                                            \
    {                                                                                                                  \
        .name = OP ": rank 0", .inputs = "T x", .nodes = "y = " OP "(x)", .wrt = "x", .values = VALUES                 \
    }

/* clang-format off */
const GradientCase cases_reduce[] = {
    ALL_AXES("ReduceSum", NULL),
    ALL_AXES("ReduceMean", NULL),
    ALL_AXES("ReduceMax", NULL),
    ALL_AXES("ReduceMin", NULL),
    ALL_AXES("ReduceProd", "x=0.5..1.5"),
    ALL_AXES("ReduceL1", NULL),
    ALL_AXES("ReduceL2", NULL),
    ALL_AXES("ReduceSumSquare", NULL),
    ALL_AXES("ReduceLogSum", "x=0.5..1.5"),
    ALL_AXES("ReduceLogSumExp", NULL),
    {.name = "ReduceProd: with zeros", .inputs = "T[3,3] x", .constants = "int64[1] a = {1}", .nodes = "y = ReduceProd(x, a)", .wrt = "x", .values = "x={1,0,2,0,0,3,2,-1,0.5}"},
    {.name = "ReduceSum: opset 11 attribute", .opsets = "\"\" : 11", .inputs = "T[2,3,4] x", .nodes = "y = ReduceSum<axes=[-1,0], keepdims=0>(x)", .wrt = "x"},
    {.name = "ReduceMean: opset 17 attribute", .opsets = "\"\" : 17", .inputs = "T[2,3,4] x", .nodes = "y = ReduceMean<axes=[1]>(x)", .wrt = "x"},
    {.name = "ReduceSum: an empty tensor", .inputs = "T[2,0,3] x", .constants = "int64[1] a = {1}", .nodes = "y = ReduceSum(x, a)", .wrt = "x"},

    {.name = "ReduceSum: long runs in pieces", .inputs = "T[2,20000] x", .constants = "int64[1] a = {1}", .nodes = "y = ReduceSum(x, a)", .wrt = "x", .plan_tolerance = 1e-4, .reason = "float sums of 20,000 numbers that cancel"},
    {.name = "ReduceMean: everything", .inputs = "T[37,41,13] x", .nodes = "y = ReduceMean(x)", .wrt = "x", .plan_tolerance = 1e-4, .reason = "a mean of 20,000 numbers that cancel"},
    {.name = "ReduceSum: rows of a bias gradient", .inputs = "T[700,70] x", .constants = "int64[1] a = {0}", .nodes = "y = ReduceSum<keepdims=0>(x, a)", .wrt = "x"},
    {.name = "ReduceSum: wide rows", .inputs = "T[9,1100] x", .constants = "int64[1] a = {0}", .nodes = "y = ReduceSum<keepdims=0>(x, a)", .wrt = "x"},
    {.name = "ReduceMax: long runs", .inputs = "T[2,9000] x", .constants = "int64[1] a = {1}", .nodes = "y = ReduceMax(x, a)", .wrt = "x"},
    {.name = "ReduceMin: many rows", .inputs = "T[600,20] x", .constants = "int64[1] a = {0}", .nodes = "y = ReduceMin(x, a)", .wrt = "x"},
    {.name = "ReduceSum: alternating axes", .inputs = "T[5,300,3,4] x", .constants = "int64[2] a = {1, 3}", .nodes = "y = ReduceSum<keepdims=0>(x, a)", .wrt = "x"},
    {.name = "ReduceSum: alternating axes, last kept", .inputs = "T[30,3,20,4] x", .constants = "int64[2] a = {0, 2}", .nodes = "y = ReduceSum<keepdims=0>(x, a)", .wrt = "x"},

    {.name = "ReduceMean: pooling of a channel tensor", .inputs = "T[2,32,5,5] x, T[32,32,1,1] w", .constants = "int64[2] a = {2, 3}", .nodes = "h = Conv(x, w) y = ReduceMean<keepdims=0>(h, a)", .wrt = "x w"},
    {.name = "ReduceMean: pooling of padded channels", .inputs = "T[2,32,5,5] x, T[20,32,1,1] w", .constants = "int64[2] a = {-1, -2}", .nodes = "h = Conv(x, w) y = ReduceMean(h, a)", .wrt = "x w"},
    {.name = "ReduceMax: pooling of padded channels", .inputs = "T[2,32,5,5] x, T[20,32,1,1] w", .constants = "int64[2] a = {2, 3}", .nodes = "h = Conv(x, w) y = ReduceMax(h, a)", .wrt = "x w"},
    {.name = "ReduceSum: per channel over batch and space", .inputs = "T[3,32,4,4] x, T[20,32,1,1] w", .constants = "int64[3] a = {0, 2, 3}", .nodes = "h = Conv(x, w) y = ReduceSum<keepdims=0>(h, a)", .wrt = "x w"},
    {.name = "ReduceMean: over channels", .inputs = "T[2,32,4,4] x, T[20,32,1,1] w", .constants = "int64[1] a = {1}", .nodes = "h = Conv(x, w) y = ReduceMean(h, a)", .wrt = "x w"},
    {.name = "ReduceMax: over padded channels", .inputs = "T[2,32,4,4] x, T[20,32,1,1] w", .constants = "int64[1] a = {1}", .nodes = "h = Conv(x, w) y = ReduceMax(h, a)", .wrt = "x w",
     .narrow_tolerance = 0.2,
     .reason = "bf16: the two largest elements become equal"},
    {.name = "ReduceMean: all of a channel tensor", .inputs = "T[2,32,4,4] x, T[20,32,1,1] w", .nodes = "h = Conv(x, w) y = ReduceMean(h)", .wrt = "x w"},
    {.name = "ReduceSum: columns of a channel tensor", .inputs = "T[2,32,4,6] x, T[32,32,1,1] w", .constants = "int64[1] a = {3}", .nodes = "h = Conv(x, w) y = ReduceSum(h, a)", .wrt = "x w"},
    {.name = "ReduceL2: of a channel tensor", .inputs = "T[2,32,4,4] x, T[20,32,1,1] w", .constants = "int64[1] a = {1}", .nodes = "h = Conv(x, w) y = ReduceL2(h, a)", .wrt = "x w"},

    {.name = "ReduceTo: lower rank and ones", .opsets = INTERNAL, .inputs = "T[2,3,4,5] x", .constants = "int64[3] s = {3, 1, 5}", .nodes = "y = ai.regraft.ReduceTo(x, s)", .wrt = "x"},
    {.name = "ReduceTo: a scalar", .opsets = INTERNAL, .inputs = "T[2,3] x", .constants = "int64[0] s = {}", .nodes = "y = ai.regraft.ReduceTo(x, s)", .wrt = "x"},
    {.name = "ReduceSpread: rows and runs", .opsets = INTERNAL, .inputs = "T[2,1,4] x, T[2,1,3,1] z, T[2,3,4] a, T[2,5,3,6] b", .nodes = "y = ai.regraft.ReduceSpread<mean=1>(x, a) v = ai.regraft.ReduceSpread(z, b)", .outputs = "y v", .wrt = "x z"},
    {0},
};
