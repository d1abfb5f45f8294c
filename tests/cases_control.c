/* Gradient cases of runtime/ops/control.c: bodies that are written out; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_control[] = {
    {.name = "If: taken by data", .inputs = "T[2,3] x, T[2,3] z, bool c", .values = "c=1",
     .nodes = "y = If<then_branch = yes () => (T[2,3] a) { a = Mul(x, z) }, else_branch = no () => (T[2,3] b) { b = Sub(x, z) }>(c)", .wrt = "x z"},
    {.name = "If: not taken by data", .inputs = "T[2,3] x, T[2,3] z, bool[1] c", .values = "c=0",
     .nodes = "y = If<then_branch = yes () => (T[2,3] a) { a = Mul(x, z) }, else_branch = no () => (T[2,3] b) { b = Sub(x, z) }>(c)", .wrt = "x z"},
    {.name = "If: a guard of what is not taken", .inputs = "T[2,3] x, T[2,3] z, bool c", .values = "c=0 x=-2..-0.5 z=0..0",
     .nodes = "y = If<then_branch = yes () => (T[2,3] a) { r = Sqrt(x) a = Div(r, z) }, else_branch = no () => (T[2,3] b) { b = If<then_branch = yes2 () => (T[2,3] a2) { a2 = Log(x) }, else_branch = no2 () => (T[2,3] b2) { b2 = Mul(x, x) }>(c) }>(c)", .wrt = "x"},
    {.name = "If: constant condition", .inputs = "T[2,3] x", .constants = "bool c = {0}",
     .nodes = "y = If<then_branch = yes () => (T[2,3] a) { a = Neg(x) }, else_branch = no () => (T[2,3] b) { b = Mul(x, x) }>(c)", .wrt = "x"},
    {.name = "Loop: a power by repeated products, with a scan output", .inputs = "T[3] x, T[3] z", .constants = "int64 m = {4}, bool c = {1}",
     .nodes = "y, s = Loop<body = step (int64 i, bool go, T[3] h) => (bool stay, T[3] next, T[3] seen) { stay = Identity(go) next = Mul(h, x) seen = Add(next, h) }>(m, c, z)", .outputs = "y s", .wrt = "x z"},
    {.name = "Loop: no condition, turn number used", .inputs = "T[3,2] x", .constants = "int64 m = {3}, T[2] z = {0.5, -1}",
     .nodes = "y = Loop<body = step (int64 i, bool go, T[2] h) => (bool stay, T[2] next) { stay = Identity(go) r = Gather(x, i) next = Mul(r, h) }>(m, , z)", .wrt = "x"},
    {.name = "Scan: a recurrent cell", .inputs = "T[2,3] h0, T[5,2,3] x, T[3,3] w",
     .nodes = "hn, y = Scan<num_scan_inputs=1, body = cell (T[2,3] h, T[2,3] xt) => (T[2,3] next, T[2,3] out) { p = MatMul(h, w) q = Add(p, xt) next = Tanh(q) out = Identity(next) }>(h0, x)", .outputs = "hn y", .wrt = "h0 x w"},
    {.name = "Scan: backwards, other axes", .inputs = "T[2] s, T[2,4] x",
     .nodes = "sn, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[-1], scan_input_directions=[1], scan_output_directions=[1], body = cell (T[2] a, T[2] b) => (T[2] c, T[2] d) { c = Mul(a, b) d = Add(a, b) }>(s, x)", .outputs = "sn y", .wrt = "s x"},
    {.name = "Scan: every sample by itself, opset 8", .opsets = "\"\" : 8", .inputs = "T[2,3] h0, T[2,4,3] x, T[2,4] g, T[3,3] w",
     .nodes = "hn, y = Scan<num_scan_inputs=2, directions=[0, 1], body = cell (T[3] h, T[3] xt, T gt) => (T[3] next, T[3] out) { p = MatMul(h, w) q = Mul(xt, gt) r = Add(p, q) next = Tanh(r) out = Mul(next, gt) }>(, h0, x, g)", .outputs = "hn y", .wrt = "h0 x g w"},
    {.name = "Scan: shape arithmetic in the body", .inputs = "T[2,3] s, T[4,6] x",
     .nodes = "sn = Scan<num_scan_inputs=1, body = cell (T[2,3] a, T[6] b) => (T[2,3] c) { d = Shape(a) e = Reshape(b, d) c = Mul(a, e) }>(s, x)", .outputs = "sn", .wrt = "s x"},
    {0},
};
/* clang-format on */
