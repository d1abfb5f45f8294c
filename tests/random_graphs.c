/* Random small graphs of mixed operators, mostly on channel-shaped tensors: see random_graphs.h. A graph grows node by
 * node; each reads values that are there, by shapes that fit. */
#include "tests/random_graphs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/runtime.h"

enum { OPSET = 21, ELEMENTS_MAX = 6000, STEPS_LEAST = 4, STEPS_MOST = 14 };

typedef struct Maker {
    Rng rng;
    Model *model;
    Graph *graph;
    DType dtype;
    Value *values[VALUES_MAX]; /* what a next node may read */
    int count, initializers;
    Error err;
    Status status;
} Maker;

bool random_graph_tells;

static int64_t between(Rng *rng, int64_t low, int64_t high)
{
    return low + (int64_t)rng_below(rng, (uint64_t)(high - low + 1));
}

static bool chance(Maker *m, int percent)
{
    return between(&m->rng, 0, 99) < percent;
}

/* ---- building blocks --------------------------------------------------------------------------------------------- */

static Value *add_initializer(Maker *m, DType dtype, int rank, const int64_t *dims, const double *given, double low,
                              double high)
{
    Array *wide, *array;
    Arena *arena = &m->model->arena;
    char name[32];
    if (m->status == STATUS_OK)
        m->status = array_new(arena, DTYPE_F64, rank, dims, &wide, &m->err);
    if (m->status != STATUS_OK)
        return NULL;
    for (int64_t i = 0; i < wide->count; i++)
        ((double *)wide->data)[i] =
            given != NULL ? given[i] : (double)(float)(low + (high - low) * rng_uniform(&m->rng));
    m->status = array_convert(arena, wide, dtype, &array, &m->err);
    snprintf(name, sizeof name, given != NULL ? "fixed%d" : "c%d", m->initializers++);
    Value *value = graph_add_initializer(m->graph, tensor_from_array(arena, arena_strdup(arena, name), array));
    type_set(&value->type, dtype, rank, dims);
    return value;
}

static Value *weights(Maker *m, int rank, const int64_t *dims)
{
    double fan = 1;
    for (int i = 1; i < rank; i++)
        fan *= (double)dims[i];
    return add_initializer(m, m->dtype, rank, dims, NULL, -1.5 / sqrt(fan), 1.5 / sqrt(fan));
}

static Value *vector_in(Maker *m, int64_t n, double low, double high)
{
    return add_initializer(m, m->dtype, 1, &n, NULL, low, high);
}

static Value *ints(Maker *m, int64_t n, const int64_t *values)
{
    double wide[16];
    for (int64_t i = 0; i < n; i++)
        wide[i] = (double)values[i];
    return add_initializer(m, DTYPE_I64, 1, &n, wide, 0, 0);
}

static Node *add_node(Maker *m, const char *op, Value *const *inputs, int count)
{
    char name[48];
    snprintf(name, sizeof name, "%s_%zu", op, m->graph->node_count);
    return m->status != STATUS_OK
               ? NULL
               : graph_add_node(m->graph, NULL, "", op, OPSET, arena_strdup(&m->model->arena, name), inputs, count, 1);
}

/* Infers; a node that came out too large or refused is taken away again. */
static Value *finish(Node *node)
{
    if (node == NULL)
        return NULL;
    Error err = {0};
    bool good = node_infer(node, &err) == STATUS_OK && type_known(&node->outputs[0]->type) &&
                type_count(&node->outputs[0]->type) <= ELEMENTS_MAX && type_count(&node->outputs[0]->type) > 0;
    if (!good) {
        if (random_graph_tells && err.message[0] != '\0')
            printf("  not taken: %s\n", err.message);
        node_remove(node);
        return NULL;
    }
    return node->outputs[0];
}

static Value *unary(Maker *m, const char *op, Value *x)
{
    return finish(add_node(m, op, &x, 1));
}

static Value *binary(Maker *m, const char *op, Value *x, Value *y)
{
    Value *inputs[] = {x, y};
    return finish(add_node(m, op, inputs, 2));
}

static int64_t dim(const Value *x, int axis)
{
    return x->type.dims[axis];
}

/* Later values more often than early ones. */
static Value *pick(Maker *m, int rank)
{
    for (int tries = 0; tries < 20; tries++) {
        int64_t at = m->count - 1 - between(&m->rng, 0, chance(m, 70) && m->count > 3 ? 2 : m->count - 1);
        if (rank < 0 || m->values[at]->type.rank == rank)
            return m->values[at];
    }
    return NULL;
}

static Value *pick_like(Maker *m, const Value *x)
{
    for (int i = m->count - 1; i >= 0; i--) {
        Value *y = m->values[i];
        bool same = y != x && y->type.rank == x->type.rank &&
                    memcmp(y->type.dims, x->type.dims, (size_t)x->type.rank * sizeof(int64_t)) == 0;
        if (same)
            return y;
    }
    return NULL;
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static Value *make_conv(Maker *m)
{
    static const int64_t widths[] = {3, 8, 16, 17, 24, 5, 32};
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    const int64_t c = dim(x, 1), k = chance(m, 40) ? 1 : 3, stride = chance(m, 25) ? 2 : 1, pad = k / 2;
    const bool depthwise = chance(m, 25);
    const int64_t out = depthwise ? c : widths[between(&m->rng, 0, 6)];
    const int64_t dims[4] = {out, depthwise ? 1 : c, k, k}, strides[2] = {stride, stride};
    const int64_t pads[4] = {pad, pad, pad, pad};
    Value *inputs[] = {x, weights(m, 4, dims), chance(m, 60) ? vector_in(m, out, -0.5, 0.5) : NULL};
    Node *node = add_node(m, "Conv", inputs, inputs[2] != NULL ? 3 : 2);
    if (node == NULL)
        return NULL;
    node_set_ints(node, "pads", pads, 4);
    node_set_ints(node, "strides", strides, 2);
    node_set_int(node, "group", depthwise ? c : 1);
    return finish(node);
}

static Value *make_transposed_conv(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    const int64_t dims[4] = {dim(x, 1), between(&m->rng, 1, 18), 2, 2}, strides[2] = {2, 2};
    Value *inputs[] = {x, weights(m, 4, dims)};
    Node *node = add_node(m, "ConvTranspose", inputs, 2);
    if (node != NULL)
        node_set_ints(node, "strides", strides, 2);
    return finish(node);
}

static Value *make_norm(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    const int64_t c = dim(x, 1);
    if (chance(m, 30) && dim(x, 2) * dim(x, 3) > 3) {
        Value *inputs[] = {x, vector_in(m, c, 0.5, 1.5), vector_in(m, c, -0.5, 0.5)};
        Node *node = add_node(m, "InstanceNormalization", inputs, 3);
        if (node != NULL)
            node_set_float(node, "epsilon", 0.1f);
        return finish(node);
    }
    Value *inputs[] = {x, vector_in(m, c, 0.5, 1.5), vector_in(m, c, -0.5, 0.5), vector_in(m, c, -0.5, 0.5),
                       vector_in(m, c, 0.5, 2)};
    return finish(add_node(m, "BatchNormalization", inputs, 5));
}

static Value *make_layer_norm(Maker *m)
{
    Value *x = pick(m, -1);
    const int rank = x->type.rank;
    if (rank < 2 || dim(x, rank - 1) < 3)
        return NULL;
    Value *inputs[] = {x, vector_in(m, dim(x, rank - 1), 0.5, 1.5), vector_in(m, dim(x, rank - 1), -0.5, 0.5)};
    Node *node = add_node(m, "LayerNormalization", inputs, 3);
    if (node != NULL)
        node_set_float(node, "epsilon", 0.1f);
    return finish(node);
}

static Value *make_activation(Maker *m)
{
    static const char *const names[] = {"Relu",     "Sigmoid",  "Tanh",        "HardSwish", "LeakyRelu", "Elu",
                                        "Softplus", "Neg",      "Identity",    "Abs",       "Erf",       "Gelu",
                                        "Mish",     "Softsign", "HardSigmoid", "Relu"};
    return unary(m, names[between(&m->rng, 0, 15)], pick(m, -1));
}

static Value *make_clip(Maker *m)
{
    const double low = -0.7, high = 0.9;
    Value *inputs[] = {pick(m, -1), add_initializer(m, m->dtype, 0, NULL, &low, 0, 0),
                       chance(m, 70) ? add_initializer(m, m->dtype, 0, NULL, &high, 0, 0) : NULL};
    return finish(add_node(m, "Clip", inputs, inputs[2] != NULL ? 3 : 2));
}

static Value *make_prelu(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    const int64_t dims[3] = {dim(x, 1), 1, 1};
    return binary(m, "PRelu", x, add_initializer(m, m->dtype, 3, dims, NULL, 0.1, 0.5));
}

/* With a value of the same shape, or a constant that broadcasts somehow. */
static Value *make_arithmetic(Maker *m)
{
    static const char *const names[] = {"Add", "Mul", "Sub", "Max", "Min", "Add"};
    const char *op = names[between(&m->rng, 0, 5)];
    Value *x = pick(m, -1), *y = pick_like(m, x);
    if (y != NULL && chance(m, 65))
        return chance(m, 50) ? binary(m, op, x, y) : binary(m, op, y, x);
    int64_t dims[RANK_MAX];
    int skip = (int)between(&m->rng, 0, x->type.rank), rank = x->type.rank - skip;
    for (int i = 0; i < rank; i++)
        dims[i] = chance(m, 50) ? 1 : dim(x, skip + i);
    y = add_initializer(m, m->dtype, rank, dims, NULL, -1, 1);
    return chance(m, 50) ? binary(m, op, x, y) : binary(m, op, y, x);
}

static Value *make_gate(Maker *m) /* squeeze and excite: a value of [N, C, 1, 1] */
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    Value *pooled = unary(m, "GlobalAveragePool", x);
    Value *gate = pooled == NULL ? NULL : unary(m, "Sigmoid", pooled);
    return gate == NULL ? NULL : binary(m, "Mul", x, gate);
}

static Value *make_pool(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    if (chance(m, 15))
        return unary(m, chance(m, 50) ? "GlobalAveragePool" : "GlobalMaxPool", x);
    const int64_t k = between(&m->rng, 2, 3), kernel[2] = {k, k}, stride = between(&m->rng, 1, 2);
    const int64_t strides[2] = {stride, stride}, pads[4] = {k / 2, k / 2, k / 2, k / 2};
    const bool average = chance(m, 50);
    Node *node = add_node(m, average ? "AveragePool" : "MaxPool", &x, 1);
    if (node == NULL)
        return NULL;
    node_set_ints(node, "kernel_shape", kernel, 2);
    node_set_ints(node, "strides", strides, 2);
    if (chance(m, 60))
        node_set_ints(node, "pads", pads, 4);
    if (chance(m, 30))
        node_set_int(node, "ceil_mode", 1);
    if (average && chance(m, 40))
        node_set_int(node, "count_include_pad", 1);
    return finish(node);
}

static Value *make_concat(Maker *m)
{
    Value *x = pick(m, -1), *y = pick(m, x->type.rank);
    if (y == NULL || x->type.rank == 0)
        return NULL;
    Value *inputs[] = {x, y, chance(m, 30) ? x : y};
    Node *node = add_node(m, "Concat", inputs, chance(m, 30) ? 3 : 2);
    if (node != NULL)
        node_set_int(node, "axis",
                     chance(m, 70) && x->type.rank > 1 ? 1 : between(&m->rng, -x->type.rank, x->type.rank - 1));
    return finish(node);
}

static Value *make_slice(Maker *m)
{
    Value *x = pick(m, -1);
    if (x->type.rank == 0)
        return NULL;
    const int64_t axis = chance(m, 60) && x->type.rank > 1 ? 1 : between(&m->rng, 0, x->type.rank - 1),
                  n = dim(x, (int)axis);
    int64_t begin = between(&m->rng, 0, n - 1), end = between(&m->rng, begin + 1, n), step = 1;
    if (chance(m, 15)) {
        const int64_t kept = begin;
        begin = end - 1, end = kept - 1 - n - (kept == 0), step = -1; /* backwards */
    }
    Value *inputs[] = {x, ints(m, 1, &begin), ints(m, 1, &end), ints(m, 1, &axis), ints(m, 1, &step)};
    return finish(add_node(m, "Slice", inputs, 5));
}

static Value *make_transpose(Maker *m)
{
    Value *x = pick(m, -1);
    int64_t perm[RANK_MAX];
    const int rank = x->type.rank;
    for (int i = 0; i < rank; i++)
        perm[i] = i;
    for (int i = rank - 1; i > 0; i--) {
        int64_t k = between(&m->rng, 0, i), kept = perm[i];
        perm[i] = perm[k];
        perm[k] = kept;
    }
    Node *node = rank < 2 ? NULL : add_node(m, "Transpose", &x, 1);
    if (node != NULL)
        node_set_ints(node, "perm", perm, (size_t)rank);
    return finish(node);
}

static Value *reshaped(Maker *m, Value *x, int64_t rank, const int64_t *dims)
{
    return binary(m, "Reshape", x, ints(m, rank, dims));
}

static Value *make_reshape(Maker *m)
{
    Value *x = pick(m, -1);
    const int rank = x->type.rank;
    if (rank == 4 && dim(x, 1) % 2 == 0 && chance(m, 40)) { /* a channel shuffle */
        const int64_t split[5] = {dim(x, 0), 2, dim(x, 1) / 2, dim(x, 2), dim(x, 3)}, perm[5] = {0, 2, 1, 3, 4};
        const int64_t back[4] = {dim(x, 0), dim(x, 1), dim(x, 2), dim(x, 3)};
        Value *groups = reshaped(m, x, 5, split);
        Node *node = groups == NULL ? NULL : add_node(m, "Transpose", &groups, 1);
        if (node == NULL)
            return NULL;
        node_set_ints(node, "perm", perm, 5);
        Value *turned = finish(node);
        return turned == NULL ? NULL : reshaped(m, turned, 4, back);
    }
    if (rank == 4 && chance(m, 50)) {
        const int64_t tokens[3] = {dim(x, 0), dim(x, 1), -1};
        return reshaped(m, x, 3, tokens);
    }
    const int64_t flat[2] = {rank > 0 ? dim(x, 0) : 1, -1}, channels[4] = {rank > 0 ? dim(x, 0) : 1, -1, 1, 1};
    return chance(m, 30) ? reshaped(m, x, 4, channels) : reshaped(m, x, 2, flat);
}

static Value *make_resize(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    const int64_t four = 4;
    const double scales[4] = {1, 1, 2, chance(m, 50) ? 2 : 1.5};
    Value *inputs[] = {x, NULL, add_initializer(m, DTYPE_F32, 1, &four, scales, 0, 0)};
    Node *node = add_node(m, "Resize", inputs, 3);
    if (node == NULL)
        return NULL;
    const bool linear = chance(m, 50);
    node_set_string(node, "mode", linear ? "linear" : "nearest");
    if (!linear) {
        node_set_string(node, "coordinate_transformation_mode", "asymmetric");
        node_set_string(node, "nearest_mode", "floor");
    }
    return finish(node);
}

static Value *make_pad(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    static const char *const modes[] = {"constant", "edge", "reflect"};
    int64_t pads[8] = {0};
    for (int i = 1; i < 8; i++)
        pads[i] = i == 4 ? 0 : chance(m, i == 1 || i == 5 ? 20 : 50);
    for (int axis = 1; axis < 4; axis++) { /* a shift: the shape stays */
        if (dim(x, axis) == 1 || !chance(m, 15))
            continue;
        pads[axis] = chance(m, 50) ? 1 : -1;
        pads[axis + 4] = -pads[axis];
    }
    Node *node = add_node(m, "Pad", (Value *[]){x, ints(m, 8, pads)}, 2);
    if (node == NULL)
        return NULL;
    bool room = dim(x, 1) > 1 && dim(x, 2) > 1 && dim(x, 3) > 1;
    node_set_string(node, "mode", modes[room ? between(&m->rng, 0, 2) : 0]);
    return finish(node);
}

static Value *make_reduce(Maker *m)
{
    static const char *const names[] = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"};
    Value *x = pick(m, -1);
    if (x->type.rank == 0)
        return NULL;
    const int64_t axis = between(&m->rng, -x->type.rank, x->type.rank - 1);
    Node *node = add_node(m, names[between(&m->rng, 0, 3)], (Value *[]){x, ints(m, 1, &axis)}, 2);
    if (node != NULL)
        node_set_int(node, "keepdims", chance(m, 70));
    return finish(node);
}

static Value *make_softmax(Maker *m)
{
    Value *x = pick(m, -1);
    Node *node = x->type.rank == 0 ? NULL : add_node(m, chance(m, 70) ? "Softmax" : "LogSoftmax", &x, 1);
    if (node != NULL)
        node_set_int(node, "axis", between(&m->rng, -x->type.rank, x->type.rank - 1));
    return finish(node);
}

static Value *make_product(Maker *m)
{
    Value *x = pick(m, -1);
    const int rank = x->type.rank;
    const int64_t wide = between(&m->rng, 2, 20);
    if (rank < 2)
        return NULL;
    const bool turned = rank == 2 && chance(m, 40);
    const int64_t dims[2] = {turned ? wide : dim(x, rank - 1), turned ? dim(x, rank - 1) : wide};
    if (rank != 2 || chance(m, 40))
        return turned ? NULL : binary(m, "MatMul", x, weights(m, 2, dims));
    Node *node = add_node(m, "Gemm", (Value *[]){x, weights(m, 2, dims), vector_in(m, wide, -0.5, 0.5)}, 3);
    if (node != NULL)
        node_set_int(node, "transB", turned);
    return finish(node);
}

static Value *make_gather(Maker *m)
{
    Value *x = pick(m, -1);
    if (x->type.rank == 0)
        return NULL;
    const int64_t axis = between(&m->rng, 0, x->type.rank - 1);
    int64_t at[3];
    for (int i = 0; i < 3; i++)
        at[i] = between(&m->rng, -dim(x, (int)axis), dim(x, (int)axis) - 1);
    Node *node = add_node(m, "Gather", (Value *[]){x, ints(m, 3, at)}, 2);
    if (node != NULL)
        node_set_int(node, "axis", axis);
    return finish(node);
}

static Value *make_depth(Maker *m)
{
    Value *x = pick(m, 4);
    if (x == NULL)
        return NULL;
    Node *node = add_node(m, dim(x, 1) % 4 == 0 && chance(m, 60) ? "DepthToSpace" : "SpaceToDepth", &x, 1);
    if (node != NULL)
        node_set_int(node, "blocksize", 2);
    return finish(node);
}

static Value *make_expand(Maker *m)
{
    Value *x = pick(m, -1);
    int64_t dims[RANK_MAX];
    for (int i = 0; i < x->type.rank; i++)
        dims[i] = dim(x, i) == 1 ? between(&m->rng, 1, 3) : chance(m, 50) ? 1 : dim(x, i);
    return x->type.rank == 0 ? NULL : binary(m, "Expand", x, ints(m, x->type.rank, dims));
}

typedef Value *Make(Maker *m);

static void grow(Maker *m)
{
    static Make *const makes[] = {make_conv,       make_conv,       make_conv,       make_conv,
                                  make_norm,       make_norm,       make_activation, make_activation,
                                  make_activation, make_clip,       make_prelu,      make_arithmetic,
                                  make_arithmetic, make_arithmetic, make_gate,       make_pool,
                                  make_pool,       make_concat,     make_concat,     make_slice,
                                  make_slice,      make_transpose,  make_reshape,    make_resize,
                                  make_pad,        make_reduce,     make_softmax,    make_product,
                                  make_gather,     make_depth,      make_expand,     make_transposed_conv,
                                  make_layer_norm};
    Value *made = makes[between(&m->rng, 0, (int64_t)(sizeof makes / sizeof *makes) - 1)](m);
    if (made != NULL && m->count < VALUES_MAX)
        m->values[m->count++] = made;
}

/* What nobody reads is an output, and some of what somebody reads. */
static void list_outputs(Maker *m)
{
    for (Node *node = m->graph->first; node != NULL; node = node->next)
        if (node->outputs[0]->use_count == 0 || chance(m, 10))
            graph_add_output(m->graph, node->outputs[0]);
}

Model *random_graph(uint64_t seed, uint64_t number, DType dtype)
{
    static const int64_t channels[] = {3, 17, 24, 16, 8, 1};
    Maker m = {.rng = rng_at(seed, number), .model = model_new(&builtin_ops), .dtype = dtype};
    m.graph = m.model->graph;
    m.model->ir_version = 10;
    model_set_opset(m.model, "", OPSET);
    for (int64_t i = between(&m.rng, 1, 2); i > 0; i--) {
        char name[16];
        snprintf(name, sizeof name, "x%d", m.count);
        Value *x = graph_add_value(m.graph, name);
        const int64_t dims[4] = {between(&m.rng, 1, 2), channels[between(&m.rng, 0, 5)], between(&m.rng, 2, 7),
                                 between(&m.rng, 2, 7)};
        type_set(&x->type, dtype, 4, dims);
        graph_add_input(m.graph, x);
        m.values[m.count++] = x;
    }
    for (int64_t steps = between(&m.rng, STEPS_LEAST, STEPS_MOST); steps > 0; steps--)
        grow(&m);
    list_outputs(&m);
    for (size_t i = m.graph->initializer_count; i-- > 0;)
        if (m.graph->initializers[i]->use_count == 0)
            graph_remove_initializer(m.graph, m.graph->initializers[i]);
    return m.model;
}
