/* Gradient cases of runtime/ops/index.c, scatter.c and select.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_index[] = {
    {.name = "Gather: axis 0", .inputs = "T[5,4,3,2] x, int64[2] i", .values = "i={3,1}", .nodes = "y = Gather<axis=0>(x, i)", .wrt = "x"},
    {.name = "Gather: repeated indices", .inputs = "T[5,4,3,2] x, int64[10] i", .values = "i=0..4", .nodes = "y = Gather<axis=0>(x, i)", .wrt = "x"},
    {.name = "Gather: axis 1", .inputs = "T[5,4,3,2] x, int64[8] i", .values = "i=0..3", .nodes = "y = Gather<axis=1>(x, i)", .wrt = "x"},
    {.name = "Gather: 2-D indices", .inputs = "T[5,4,3,2] x, int64[2,3] i", .values = "i=0..4", .nodes = "y = Gather(x, i)", .wrt = "x"},
    {.name = "Gather: negative axis and indices, int32", .inputs = "T[3,4] x, int32[3] i", .values = "i=-4..3", .nodes = "y = Gather<axis=-1>(x, i)", .wrt = "x"},
    {.name = "Gather: a scalar index drops the axis", .inputs = "T[3,4] x", .constants = "int64 i = {-1}", .nodes = "y = Gather<axis=1>(x, i)", .wrt = "x"},
    {.name = "Gather: no indices", .inputs = "T[3,4] x, int64[0] i", .nodes = "y = Gather(x, i)", .wrt = "x"},
    {.name = "Gather: an embedding", .inputs = "T[11,160] x, int64[2,7] i", .values = "i=0..10", .nodes = "y = Gather(x, i)", .wrt = "x"},
    {.name = "GatherElements: axis 0", .inputs = "T[3,4] x, int64[2,4] i", .values = "i=0..2", .nodes = "y = GatherElements(x, i)", .wrt = "x"},
    {.name = "GatherElements: last axis, smaller elsewhere", .inputs = "T[3,4,5] x, int64[2,3,6] i", .values = "i=-5..4", .nodes = "y = GatherElements<axis=-1>(x, i)", .wrt = "x"},
    {.name = "GatherND: repeated", .inputs = "T[2,2] x, int64[2,2] i", .values = "i={1,1,1,1}", .nodes = "y = GatherND(x, i)", .wrt = "x"},
    {.name = "GatherND: unique", .inputs = "T[2,2] x, int64[2,2] i", .values = "i={0,1,1,0}", .nodes = "y = GatherND(x, i)", .wrt = "x"},
    {.name = "GatherND: batch dims 1", .inputs = "T[2,2,3] x, int64[2,1] i", .values = "i={1,0}", .nodes = "y = GatherND<batch_dims=1>(x, i)", .wrt = "x"},
    {.name = "GatherND: batch dims 2", .inputs = "T[2,2,3] x, int64[2,2,1] i", .values = "i={1,0,2,1}", .nodes = "y = GatherND<batch_dims=2>(x, i)", .wrt = "x"},
    {.name = "GatherND: slices, negative indices", .inputs = "T[3,4,2] x, int64[2,2,1] i", .values = "i=-3..2", .nodes = "y = GatherND(x, i)", .wrt = "x"},

    {.name = "ScatterElements: none", .inputs = "T[4,3] x, T[2,3] u, int64[2,3] i", .values = "i={0,3,1,2,1,0}", .nodes = "y = ScatterElements<axis=0>(x, i, u)", .wrt = "x u"},
    {.name = "ScatterElements: add, repeated", .inputs = "T[3,5] x, T[3,4] u, int64[3,4] i", .values = "i=-5..4", .nodes = "y = ScatterElements<axis=1, reduction=\"add\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterElements: mul, repeated", .inputs = "T[3,5] x, T[3,4] u, int64[3,4] i", .values = "i=0..4 u=0.5..2", .nodes = "y = ScatterElements<axis=-1, reduction=\"mul\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterElements: max", .inputs = "T[3,5] x, T[3,4] u, int64[3,4] i", .values = "i=0..4", .nodes = "y = ScatterElements<axis=1, reduction=\"max\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterElements: min", .inputs = "T[3,5] x, T[2,5] u, int64[2,5] i", .values = "i=0..2", .nodes = "y = ScatterElements<reduction=\"min\">(x, i, u)", .wrt = "x u"},
    {.name = "Scatter: opset 9", .opsets = "\"\" : 9", .inputs = "T[3,3] x, T[1,3] u, int64[1,3] i", .values = "i={2,0,1}", .nodes = "y = Scatter<axis=0>(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: none", .inputs = "T[4,3] x, T[2,3] u, int64[2,1] i", .values = "i={3,0}", .nodes = "y = ScatterND(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: none, single elements", .inputs = "T[4,3] x, T[3] u, int64[3,2] i", .values = "i={3,0,1,-1,0,0}", .nodes = "y = ScatterND(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: add", .inputs = "T[4,3,2] x, T[3,3,2] u, int64[3,1] i", .values = "i=0..3", .nodes = "y = ScatterND<reduction=\"add\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: mul", .inputs = "T[4,2] x, T[3,2] u, int64[3,1] i", .values = "i=0..3 u=0.5..2", .nodes = "y = ScatterND<reduction=\"mul\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: max", .inputs = "T[4,2] x, T[3,2] u, int64[3,1] i", .values = "i=0..3", .nodes = "y = ScatterND<reduction=\"max\">(x, i, u)", .wrt = "x u"},
    {.name = "ScatterND: min", .inputs = "T[4,2] x, T[5] u, int64[5,2] i", .values = "i=0..1", .nodes = "y = ScatterND<reduction=\"min\">(x, i, u)", .wrt = "x u"},

    {.name = "TopK: largest", .inputs = "T[3,6] x", .constants = "int64[1] k = {3}", .nodes = "y, i = TopK(x, k)", .wrt = "x"},
    {.name = "TopK: smallest along axis 0, indices unused", .inputs = "T[5,3] x", .constants = "int64[1] k = {2}", .nodes = "y, i = TopK<axis=0, largest=0>(x, k)", .wrt = "x"},
    {.name = "TopK: nothing", .inputs = "T[3,4] x", .constants = "int64[1] k = {0}", .nodes = "y, i = TopK(x, k)", .wrt = "x"},
    {.name = "TopK: opset 1 attribute", .opsets = "\"\" : 1", .inputs = "T[3,4] x", .nodes = "y, i = TopK<k=2>(x)", .wrt = "x"},
    {.name = "OneHot: values", .inputs = "T[2] v, int64[2,3] i", .constants = "int64 d = {4}", .values = "i=-4..5", .nodes = "y = OneHot(i, d, v)", .wrt = "v"},
    {.name = "OneHot: axis 0", .inputs = "T[2] v, int64[5] i", .constants = "int64[1] d = {3}", .values = "i=0..2", .nodes = "y = OneHot<axis=0>(i, d, v)", .wrt = "v"},
    {.name = "Compress: an axis, constant condition", .inputs = "T[3,4] x", .constants = "bool[3] c = {1, 0, 1}", .nodes = "y = Compress<axis=1>(x, c)", .wrt = "x"},
    {.name = "Compress: flattened", .inputs = "T[2,3] x", .constants = "bool[6] c = {0, 1, 1, 0, 0, 1}", .nodes = "y = Compress(x, c)", .wrt = "x"},
    {0},
};
/* clang-format on */
