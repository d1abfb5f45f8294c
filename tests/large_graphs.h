/* Graphs of any size in text form, each large in another way: what must cost no more than its size. test_scale.c
 * measures them, write_large.c makes files of them. */
#ifndef REGRAFT_TESTS_LARGE_GRAPHS_H
#define REGRAFT_TESTS_LARGE_GRAPHS_H

#include <string.h>

#include "onnx/base/str.h"

#define LARGE_HEADER "<ir_version: 8, opset_import: [\"\" : 17]> g "
#define LARGE_INPUT "(float[N,4] x) => (float[N,4] y) "

/* x -> Mul by a weight -> Relu -> Mul ...: every second node has an initializer of its own. */
static inline void large_chain(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER LARGE_INPUT "<float[4,4] v = {1, 0.5, ...}");
    for (size_t i = 0; i < nodes / 2; i++)
        str_printf(out, ", float[4] w%zu = {1, 0.5, 0.25, %zu}", i, i % 7);
    str_append(out, "> { r0 = MatMul(x, v)\n");
    for (size_t i = 0; i < nodes / 2; i++) {
        str_printf(out, "[\"/layer/%zu/Mul\"] m%zu = Mul(r%zu, w%zu)\n", i, i, i, i);
        str_printf(out, "[\"/layer/%zu/Relu\"] r%zu = Relu(m%zu)\n", i, i + 1, i);
    }
    str_printf(out, "y = Abs(r%zu) }", nodes / 2);
}

/* One value read by half of the nodes, and one node that reads the results of all of them. */
static inline void large_fan(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER LARGE_INPUT
               "<float[4,4] v = {1, 0.5, ...}, float[4] w = {1, 2, 3, 4}> { h = MatMul(x, v)\n");
    for (size_t i = 0; i < nodes / 2; i++)
        str_printf(out, "a%zu = Sigmoid(h) b%zu = Add(a%zu, w)\n", i, i, i);
    str_append(out, "s = Sum(b0");
    for (size_t i = 1; i < nodes / 2; i++)
        str_printf(out, ", b%zu", i);
    str_append(out, ") y = Relu(s) }");
}

/* Every node's result is an output of the graph as well. */
static inline void large_outputs(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER "(float[N,4] x) => (float[N,4] y");
    for (size_t i = 0; i < nodes; i++)
        str_printf(out, ", float[N,4] y%zu", i);
    str_append(out, ") <float[4,4] v = {1, 0.5, ...}> { y = MatMul(x, v)\n");
    for (size_t i = 0; i < nodes; i++)
        str_printf(out, "y%zu = %s(%s)\n", i, i % 2 == 0 ? "Relu" : "Identity", i % 2 == 0 ? "y" : "x");
    str_append(out, "}");
}

/* Linear layers: all initializers, hardly any node between them. Weights are transposed copies of each other in pairs.
 */
static inline void large_linears(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER LARGE_INPUT "< ");
    for (size_t i = 0; i < nodes; i++)
        str_printf(out, "%sfloat[4,4] w%zu = {1, 0, 0, %zu.5, ...}, float[4] b%zu = {0.5, 1, 2, %zu}",
                   i > 0 ? ", " : "", i, i / 2, i, i % 11);
    str_append(out, "> { h0 = Relu(x)\n");
    for (size_t i = 0; i < nodes; i++)
        str_printf(out, "h%zu = Gemm(h%zu, w%zu, b%zu)\n", i + 1, i, i, i);
    str_printf(out, "y = Relu(h%zu) }", nodes);
}

/* Blocks of a transformer as exporters write them: shape arithmetic, decomposed normalisation, Constant nodes. */
static inline void large_block(size_t i, Str *out)
{
    str_printf(out,
               "[\"/b%zu/Shape\"] s%zu = Shape(h%zu) i%zu = Constant<value = int64 {0}>() n%zu = Gather(s%zu, i%zu)\n"
               "u%zu = Unsqueeze(n%zu, zero) c%zu = Concat<axis = 0>(u%zu, two) v%zu = Reshape(h%zu, c%zu)\n"
               "q%zu = MatMul(v%zu, wq%zu) k%zu = MatMul(v%zu, wk%zu) t%zu = Transpose<perm = [0, 2, 1]>(k%zu)\n",
               i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i);
    str_printf(
        out,
        "p%zu = MatMul(q%zu, t%zu) d%zu = Div(p%zu, scale) e%zu = Softmax<axis = -1>(d%zu) o%zu = MatMul(e%zu, v%zu)\n"
        "f%zu = Reshape(o%zu, flat) r%zu = Add(f%zu, h%zu) m%zu = ReduceMean<axes = [-1]>(r%zu) z%zu = Sub(r%zu, "
        "m%zu)\n",
        i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i);
    str_printf(
        out,
        "pw%zu = Pow(z%zu, square) va%zu = ReduceMean<axes = [-1]>(pw%zu) ve%zu = Add(va%zu, eps) sd%zu = Sqrt(ve%zu)\n"
        "no%zu = Div(z%zu, sd%zu) ga%zu = Mul(no%zu, g%zu) h%zu = Add(ga%zu, b%zu)\n",
        i, i, i, i, i, i, i, i, i, i, i, i, i, i, i + 1, i, i);
}

static inline void large_blocks(size_t nodes, Str *out)
{
    size_t count = nodes / 24 + 1;
    str_append(out, LARGE_HEADER LARGE_INPUT "< int64[1] zero = {0}, int64[2] two = {2, 2}, int64[2] flat = {-1, 4}, "
                                             "float scale = {1.4}, float square = {2}, float eps = {0.001}");
    for (size_t i = 0; i < count; i++)
        str_printf(out,
                   ", float[2,2] wq%zu = {1, 0.5, 0.25, %zu}, float[2,2] wk%zu = {%zu.5, 1, 2, 3}, "
                   "float[4] g%zu = {1, ...}, float[4] b%zu = {0, ...}",
                   i, i, i, i, i, i);
    str_append(out, "> { h0 = Relu(x)\n");
    for (size_t i = 0; i < count; i++)
        large_block(i, out);
    str_printf(out, "y = Identity(h%zu) }", count);
}

/* Values that Constant nodes hold, all equal, all shared by one kind of reader. */
static inline void large_constants(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER LARGE_INPUT
               "<float[4,4] v = {1, 0.5, ...}, float[4] w = {1, 2, 3, 4}> { h0 = MatMul(x, v)\n");
    for (size_t i = 0; i < nodes / 2; i++)
        str_printf(out, "c%zu = Constant<value = float[4] {1, 2, 3, 4}>() h%zu = Add(h%zu, c%zu)\n", i, i + 1, i, i);
    str_printf(out, "y = Mul(h%zu, w) }", nodes / 2);
}

/* Bodies that read and return values around them. */
static inline void large_bodies(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER
               "(float[N,4] x, bool p) => (float[N,4] y) <bool yes = {1}, float[4] w = {1, 2, 3, 4}> { h0 = Relu(x)\n");
    for (size_t i = 0; i < nodes / 4; i++)
        str_printf(out,
                   "m%zu = Mul(h%zu, w) h%zu = If<then_branch = t%zu () => (t%zu_y) { t%zu_y = Relu(m%zu) }, "
                   "else_branch = e%zu () => (m%zu) {}>(%s)\n",
                   i, i, i + 1, i, i, i, i, i, i, i % 2 == 0 ? "p" : "yes");
    str_printf(out, "y = Relu(h%zu) }", nodes / 4);
}

/* Convolutions with normalisation and residual additions; every BatchNormalization has statistics of its own. */
static inline void large_convolutions(size_t nodes, Str *out)
{
    size_t count = nodes / 4;
    str_append(out, LARGE_HEADER "(float[N,4,2,2] x) => (float[N,4,2,2] y) <float eps = {0.1}");
    for (size_t i = 0; i < count; i++)
        str_printf(out,
                   ", float[4,4,1,1] k%zu = {1, 0.5, %zu, ...}, float[4] s%zu = {1, ...}, float[4] b%zu = {0, ...}, "
                   "float[4] m%zu = {0, 0.%zu, ...}, float[4] v%zu = {1, 2, 3, 4.%zu}",
                   i, i % 13, i, i, i, i, i, i);
    str_append(out, "> { h0 = Relu(x)\n");
    for (size_t i = 0; i < count; i++)
        str_printf(out,
                   "c%zu = Conv(h%zu, k%zu) n%zu = BatchNormalization(c%zu, s%zu, b%zu, m%zu, v%zu)\n"
                   "a%zu = Add(n%zu, h%zu) h%zu = Relu(a%zu)\n",
                   i, i, i, i, i, i, i, i, i, i, i, i, i + 1, i);
    str_printf(out, "y = Relu(h%zu) }", count);
}

/* Inputs of the graph, all read, half of them by one node. */
static inline void large_inputs(size_t nodes, Str *out)
{
    str_append(out, LARGE_HEADER "(float[N,4] x0");
    for (size_t i = 1; i < nodes; i++)
        str_printf(out, ", float[N,4] x%zu", i);
    str_append(out, ") => (float[N,4] y) <float[4,4] v = {1, 0.5, ...}> { s0 = MatMul(x0, v)\n");
    for (size_t i = 1; i < nodes / 2; i++)
        str_printf(out, "s%zu = Add(s%zu, x%zu)\n", i, i - 1, i);
    str_printf(out, "y = Sum(s%zu", nodes / 2 - 1);
    for (size_t i = nodes / 2; i < nodes; i++)
        str_printf(out, ", x%zu", i);
    str_append(out, ") }");
}

/* One node with many outputs, each read apart; the results joined in an order that leaves holes in memory. */
static inline void large_split(size_t nodes, Str *out)
{
    size_t count = nodes / 2;
    str_printf(out, LARGE_HEADER "(float[N,%zu] x) => (float[N,%zu] y) { ", count, count);
    for (size_t i = 0; i < count; i++)
        str_printf(out, "%ss%zu", i > 0 ? ", " : "", i);
    str_append(out, " = Split<axis = 1>(x)\n");
    for (size_t i = 0; i < count; i++)
        str_printf(out, "r%zu = Sigmoid(s%zu)\n", i, i);
    str_append(out, "even = Concat<axis = 1>(r0");
    for (size_t i = 2; i < count; i += 2)
        str_printf(out, ", r%zu", i);
    str_append(out, ") odd = Concat<axis = 1>(r1");
    for (size_t i = 3; i < count; i += 2)
        str_printf(out, ", r%zu", i);
    str_append(out, ") y = Concat<axis = 1>(even, odd) }");
}

/* Calls of functions, each with a name of its own. */
static inline void large_functions(size_t nodes, Str *out)
{
    size_t count = nodes / 3;
    str_append(out, "<ir_version: 8, opset_import: [\"\" : 17, \"own\" : 1]> g " LARGE_INPUT
                    "<float[4,4] v = {1, 0.5, ...}, float[4] w = {1, 2, 3, 4}> { h0 = MatMul(x, v)\n");
    for (size_t i = 0; i < count; i++)
        str_printf(out, "h%zu = own.f%zu(h%zu, w)\n", i + 1, i, i);
    str_printf(out, "y = Relu(h%zu) }\n", count);
    for (size_t i = 0; i < count; i++)
        str_printf(
            out, "<domain: \"own\", opset_import: [\"\" : 17]> f%zu (a, b) => (c) { t = Mul(a, b) c = Relu(t) }\n", i);
}

typedef struct LargeKind {
    const char *name;
    void (*write)(size_t nodes, Str *out);
    bool trains; /* a plan with gradients can be made of it */
} LargeKind;

static const LargeKind large_kinds[] = {
    {"chain", large_chain, true},
    {"fan", large_fan, true},
    {"outputs", large_outputs, true},
    {"linears", large_linears, true},
    {"blocks", large_blocks, true},
    {"constants", large_constants, true},
    {"convolutions", large_convolutions, true},
    {"inputs", large_inputs, true},
    {"split", large_split, true},
    {"functions", large_functions, true},
    {"bodies", large_bodies, false},
};
enum { LARGE_KINDS = sizeof large_kinds / sizeof large_kinds[0] };

#endif
