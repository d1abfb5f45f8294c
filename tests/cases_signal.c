/* Gradient cases of runtime/ops/signal.c and cumulate.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_signal[] = {
    {.name = "DFT: complex", .inputs = "T[2,6,2] x", .nodes = "y = DFT(x)", .wrt = "x"},
    {.name = "DFT: real", .inputs = "T[2,7,1] x", .nodes = "y = DFT(x)", .wrt = "x"},
    {.name = "DFT: real, one-sided, odd", .inputs = "T[2,7,1] x", .nodes = "y = DFT<onesided=1>(x)", .wrt = "x"},
    {.name = "DFT: real, one-sided, even", .inputs = "T[2,8,1] x", .nodes = "y = DFT<onesided=1>(x)", .wrt = "x"},
    {.name = "DFT: inverse", .inputs = "T[2,5,2] x", .nodes = "y = DFT<inverse=1>(x)", .wrt = "x"},
    {.name = "DFT: inverse of a half spectrum, even", .inputs = "T[2,5,2] x", .nodes = "y = DFT<inverse=1, onesided=1>(x)", .wrt = "x"},
    {.name = "DFT: inverse of a half spectrum, odd length", .inputs = "T[2,4,2] x", .constants = "int64 n = {7}", .nodes = "y = DFT<inverse=1, onesided=1>(x, n)", .wrt = "x"},
    {.name = "DFT: padded along axis 0", .inputs = "T[3,2,2] x", .constants = "int64 n = {5}, int64 a = {0}", .nodes = "y = DFT(x, n, a)", .wrt = "x"},
    {.name = "DFT: cut", .inputs = "T[2,6,1] x", .constants = "int64 n = {4}, int64 a = {1}", .nodes = "y = DFT(x, n, a)", .wrt = "x"},
    {.name = "DFT: opset 17 axis", .opsets = "\"\" : 17", .inputs = "T[2,4,3,1] x", .nodes = "y = DFT<axis=1>(x)", .wrt = "x"},
    {.name = "STFT: with a window", .inputs = "T[2,12,1] x, T[4] w", .constants = "int64 s = {3}", .nodes = "y = STFT(x, s, w)", .wrt = "x w"},
    {.name = "STFT: complex, frame length", .inputs = "T[1,9,2] x", .constants = "int64 s = {2}, int64 n = {5}", .nodes = "y = STFT<onesided=0>(x, s, , n)", .wrt = "x"},

    {.name = "CumSum: axis 0", .inputs = "T[4,3] x", .constants = "int64 a = {0}", .nodes = "y = CumSum(x, a)", .wrt = "x"},
    {.name = "CumSum: exclusive and reverse, negative axis", .inputs = "T[2,3,4] x", .constants = "int64 a = {-2}", .nodes = "y = CumSum<exclusive=1, reverse=1>(x, a)", .wrt = "x"},
    {.name = "CumSum: exclusive", .inputs = "T[5] x", .constants = "int64[1] a = {0}", .nodes = "y = CumSum<exclusive=1>(x, a)", .wrt = "x"},
    {.name = "CumSum: reverse, int32 axis", .inputs = "T[2,5] x", .constants = "int32 a = {1}", .nodes = "y = CumSum<reverse=1>(x, a)", .wrt = "x"},
    {.name = "CumSum: zero size", .inputs = "T[2,0] x", .constants = "int64 a = {1}", .nodes = "y = CumSum(x, a)", .wrt = "x"},
    {.name = "CumProd: inclusive", .inputs = "T[2,5] x", .constants = "int64 a = {1}", .nodes = "y = CumProd(x, a)", .wrt = "x"},
    {.name = "CumProd: with zeros", .inputs = "T[5] x", .values = "x={2,0,3,0,5}", .constants = "int64 a = {0}", .nodes = "y = CumProd(x, a)", .wrt = "x"},
    {.name = "CumProd: exclusive", .inputs = "T[4,2] x", .constants = "int64 a = {0}", .nodes = "y = CumProd<exclusive=1>(x, a)", .wrt = "x"},
    {.name = "CumProd: exclusive and reverse", .inputs = "T[3,4] x", .constants = "int64 a = {-1}", .nodes = "y = CumProd<exclusive=1, reverse=1>(x, a)", .wrt = "x"},
    {0},
};
/* clang-format on */
