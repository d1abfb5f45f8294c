/* Building a new head on a value of the document: linear, MLP, or 1x1 convolution with pooling, written in operators
 * that the document's opset has. Weights are drawn by (seed, parameter name), so the same command gives the same bytes.
 */
#include "passes/passes.h"
#include "passes/surgery.h"

#include "onnx/base/rng.h"

#include <inttypes.h>
#include <math.h>

typedef struct Build {
    Model *model;
    Graph *graph;
    Arena *arena;
    Node *before;
    const HeadSpec *spec;
    const char *stem; /* "head": of parameters (head.weight) and nodes (/head/Gemm) */
    const char *output_name;
    DType dtype;
    int opset;
    int rank;       /* of the features; -1: unknown */
    int64_t width;  /* of the features */
    Str parameters; /* names made here, one a line */
} Build;

/* ---- weights ------------------------------------------------------------------------------------------- */

static uint64_t name_stream(const char *name)
{
    uint64_t hash = 0;
    for (; *name != '\0'; name++)
        hash = rng_mix(hash, (unsigned char)*name);
    return hash;
}

static void store(void *data, DType dtype, size_t i, double value)
{
    if (dtype == DTYPE_F64)
        ((double *)data)[i] = value;
    else if (dtype == DTYPE_F16)
        ((uint16_t *)data)[i] = f32_to_f16((float)value);
    else if (dtype == DTYPE_BF16)
        ((uint16_t *)data)[i] = f32_to_bf16((float)value);
    else
        ((float *)data)[i] = (float)value;
}

/* Bounds of the uniform distributions:
 *     kaiming  b = 1 / sqrt(fan_in)              what PyTorch's nn.Linear and nn.Conv2d start with, biases too
 *     xavier   b = sqrt(6 / (fan_in + fan_out))  Glorot & Bengio 2010; biases 0
 *     normal   standard deviation 0.02           as BERT and GPT-2 start; biases 0 */
static double draw(Rng *rng, InitKind init, bool bias, int64_t fan_in, int64_t fan_out)
{
    double u = 2 * rng_uniform(rng) - 1;
    switch (init) {
    case INIT_ZERO:
        return 0;
    case INIT_KAIMING_UNIFORM:
        return u / sqrt((double)fan_in);
    case INIT_XAVIER_UNIFORM:
        return bias ? 0 : u * sqrt(6.0 / (double)(fan_in + fan_out));
    case INIT_NORMAL:
        return bias ? 0 : 0.02 * rng_normal(rng);
    }
    return 0;
}

static Value *new_parameter(Build *b, const char *name, bool bias, int rank, const int64_t *dims, int64_t fan_in,
                            int64_t fan_out)
{
    void *data;
    Tensor *tensor = tensor_new(b->arena, name, b->dtype, rank, dims, &data);
    Rng rng = rng_at(b->spec->seed, name_stream(name));
    int64_t count = tensor_count(tensor);
    for (int64_t i = 0; i < count; i++)
        store(data, b->dtype, (size_t)i, draw(&rng, b->spec->init, bias, fan_in, fan_out));
    str_printf(&b->parameters, "%s%s", b->parameters.length > 0 ? "\n" : "", name);
    return graph_add_weight(b->graph, tensor);
}

/* ---- nodes --------------------------------------------------------------------------------------------- */

static bool names_a_node(const Graph *graph, const char *name)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (strcmp(node->name, name) == 0)
            return true;
    return false;
}

/* ONNX Runtime loads no graph in which two nodes bear one name. */
static const char *free_node_name(const Build *b, const char *op_type)
{
    const char *name = arena_printf(b->arena, "/%s/%s", b->stem, op_type);
    for (int i = 1; names_a_node(b->graph, name); i++)
        name = arena_printf(b->arena, "/%s/%s_%d", b->stem, op_type, i);
    return name;
}

/* One node; its output is called `output_name` when it is the head's last, else after the node. */
static Value *add(Build *b, const char *op_type, Value *const *inputs, int count, bool last)
{
    const char *name = free_node_name(b, op_type);
    Node *node = graph_add_node(b->graph, b->before, "", op_type, b->opset, name, inputs, count, 0);
    const char *output = last ? b->output_name : arena_printf(b->arena, "%s_output_0", name);
    return node_add_output(node, graph_unique_name(b->graph, output));
}

static Value *add_ints(Build *b, const char *name, int64_t value, bool scalar)
{
    const char *unique = graph_unique_name(b->graph, arena_printf(b->arena, "/%s/%s", b->stem, name));
    const int64_t one = 1;
    return graph_add_weight(b->graph, tensor_new_i64(b->arena, unique, scalar ? 0 : 1, &one, &value));
}

/* [N, F] -> [N, C] by Gemm; [..., F] -> [..., C] by MatMul and Add when the rank is another or unknown. */
static Value *add_dense(Build *b, Value *x, const char *stem, int rank, int64_t in, int64_t out, bool last)
{
    bool gemm = rank == 2;
    int64_t dims[2] = {gemm ? out : in, gemm ? in : out};
    Value *weight = new_parameter(b, arena_printf(b->arena, "%s.weight", stem), false, 2, dims, in, out);
    Value *bias = new_parameter(b, arena_printf(b->arena, "%s.bias", stem), true, 1, &out, in, out);
    if (gemm) {
        Value *result = add(b, "Gemm", (Value *[]){x, weight, bias}, 3, last);
        node_set_int(result->producer, "transB", 1);
        return result;
    }
    Value *product = add(b, "MatMul", (Value *[]){x, weight}, 2, false);
    return add(b, "Add", (Value *[]){product, bias}, 2, last);
}

/* [N, F, ...] -> [N, C, ...] */
static Value *add_conv(Build *b, Value *x, const char *stem, int64_t in, int64_t out, bool last)
{
    int64_t dims[RANK_MAX] = {out, in};
    int64_t area = 1;
    for (int i = 2; i < b->rank; i++) {
        dims[i] = b->spec->kernel != NULL ? b->spec->kernel[i - 2] : 1;
        area *= dims[i];
    }
    Value *weight = new_parameter(b, arena_printf(b->arena, "%s.weight", stem), false, b->rank, dims, in * area, out);
    Value *bias = new_parameter(b, arena_printf(b->arena, "%s.bias", stem), true, 1, &out, in * area, out);
    Value *result = add(b, "Conv", (Value *[]){x, weight, bias}, 3, last);
    node_set_ints(result->producer, "kernel_shape", dims + 2, (size_t)b->rank - 2);
    return result;
}

/* [N, F, ...] -> [N, F] */
static Value *add_space_pool(Build *b, Value *x, bool last)
{
    Value *pooled = add(b, "GlobalAveragePool", &x, 1, false);
    return add(b, "Flatten", &pooled, 1, last);
}

/* [N, T, F] -> [N, F] */
static Value *add_token_pool(Build *b, Value *x)
{
    if (b->spec->pool == POOL_FIRST) {
        Value *first = add(b, "Gather", (Value *[]){x, add_ints(b, "first", 0, true)}, 2, false);
        node_set_int(first->producer, "axis", 1);
        return first;
    }
    bool as_input = b->opset >= 18; /* ReduceMean-18: axes became an input */
    Value *axes = as_input ? add_ints(b, "axes", 1, false) : NULL;
    Value *mean = add(b, "ReduceMean", (Value *[]){x, axes}, as_input ? 2 : 1, false);
    node_set_int(mean->producer, "keepdims", 0);
    if (!as_input)
        node_set_ints(mean->producer, "axes", &(int64_t){1}, 1);
    return mean;
}

/* ---- forms --------------------------------------------------------------------------------------------- */

static Value *build_conv_head(Build *b, Value *x)
{
    bool pool = b->spec->pool != POOL_NONE;
    if (b->spec->kind != HEAD_MLP) {
        Value *scores = add_conv(b, x, b->stem, b->width, b->spec->classes, !pool && !b->spec->flat);
        if (b->spec->flat)
            return add(b, "Flatten", &scores, 1, true);
        return pool ? add_space_pool(b, scores, true) : scores;
    }
    int64_t hidden = b->spec->hidden > 0 ? b->spec->hidden : b->width;
    Value *h = add_conv(b, x, arena_printf(b->arena, "%s.0", b->stem), b->width, hidden, false);
    h = add(b, "Relu", &h, 1, false);
    return add_conv(b, h, arena_printf(b->arena, "%s.2", b->stem), hidden, b->spec->classes, true);
}

static Value *build_dense_head(Build *b, Value *x)
{
    int rank = b->rank;
    if (rank >= 4 || (rank == 3 && (b->spec->pool == POOL_MEAN || b->spec->pool == POOL_FIRST))) {
        x = rank >= 4 ? add_space_pool(b, x, false) : add_token_pool(b, x);
        rank = 2;
    }
    if (b->spec->kind != HEAD_MLP)
        return add_dense(b, x, b->stem, rank, b->width, b->spec->classes, true);
    int64_t hidden = b->spec->hidden > 0 ? b->spec->hidden : b->width;
    Value *h = add_dense(b, x, arena_printf(b->arena, "%s.0", b->stem), rank, b->width, hidden, false);
    h = add(b, "Relu", &h, 1, false);
    return add_dense(b, h, arena_printf(b->arena, "%s.2", b->stem), rank, hidden, b->spec->classes, true);
}

static bool is_conv_head(const Build *b)
{
    return b->spec->kind == HEAD_CONV || (b->rank >= 4 && b->spec->pool == POOL_NONE);
}

/* The features' dims with the classes in their place, as far as known. */
static void set_scores_type(const Build *b, const Type *features, Value *scores)
{
    Type *type = &scores->type;
    *type = (Type){.kind = TYPE_TENSOR, .dtype = b->dtype, .rank = -1};
    if (b->rank < 0)
        return;
    bool every_position = is_conv_head(b) ? b->spec->pool == POOL_NONE
                                          : b->rank == 3 && b->spec->pool != POOL_MEAN && b->spec->pool != POOL_FIRST;
    type->rank = every_position && !b->spec->flat ? b->rank : 2;
    for (int i = 0; i < type->rank; i++) {
        type->dims[i] = features->dims[i];
        type->symbols[i] = features->symbols[i];
        if (i >= 2 && b->spec->kernel != NULL) { /* smaller by the kernel */
            type->dims[i] = -1;
            type->symbols[i] = NULL;
        }
    }
    int axis = is_conv_head(b) ? 1 : type->rank - 1;
    type->dims[axis] = b->spec->classes;
    type->symbols[axis] = NULL;
}

static const char *free_stem(const Build *b)
{
    for (int i = 1;; i++) {
        const char *stem = i == 1 ? "head" : arena_printf(b->arena, "head_%d", i);
        bool taken = false;
        static const char *const names[] = {"weight", "bias", "0.weight", "0.bias", "2.weight", "2.bias"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            const char *name = arena_printf(b->arena, "%s.%s", stem, names[k]);
            taken = taken || graph_find(b->graph, name) != NULL || strcmp(name, b->output_name) == 0;
        }
        if (!taken)
            return stem;
    }
}

/* ---- checks -------------------------------------------------------------------------------------------- */

static Status check_spec(const HeadSpec *spec, Error *err)
{
    if (spec->classes < 1 || spec->classes > 10000000)
        return fail(err, STATUS_USAGE, "a head needs 1 to 10,000,000 outputs, found %" PRId64, spec->classes);
    if (spec->hidden < 0 || spec->hidden > 10000000)
        return fail(err, STATUS_USAGE, "a hidden layer needs 1 to 10,000,000 units, found %" PRId64, spec->hidden);
    return STATUS_OK;
}

static Status find_width(Build *b, const Value *features, Error *err)
{
    const Type *type = &features->type;
    int axis = is_conv_head(b) || b->rank >= 4 ? 1 : b->rank - 1;
    int64_t known = b->rank > axis && axis >= 0 && type->dims[axis] > 0 ? type->dims[axis] : 0;
    b->width = b->spec->width > 0 ? b->spec->width : known;
    if (b->spec->width > 0 && known > 0 && known != b->spec->width)
        return fail(err, STATUS_USAGE, "features '%s' are %" PRId64 " wide, not %" PRId64, features->name, known,
                    b->spec->width);
    if (b->width == 0)
        return fail(err, STATUS_USAGE, "the width of '%s' (%s) is not known; give it with --width", features->name,
                    type_text(b->arena, type));
    return STATUS_OK;
}

static Status check_features(Build *b, const Value *features, Error *err)
{
    const Type *type = &features->type;
    if (value_is_constant(features))
        return fail(err, STATUS_USAGE, "'%s' is a constant, not something computed", features->name);
    if (type->kind != TYPE_TENSOR && type->kind != TYPE_UNKNOWN)
        return fail(err, STATUS_USAGE, "'%s' is not a tensor", features->name);
    b->rank = type->kind == TYPE_TENSOR ? type->rank : -1;
    b->dtype = type->kind == TYPE_TENSOR && type->dtype != DTYPE_UNDEFINED ? type->dtype : DTYPE_F32;
    bool stored = b->dtype == DTYPE_F32 || b->dtype == DTYPE_F16 || b->dtype == DTYPE_BF16 || b->dtype == DTYPE_F64;
    if (!stored)
        return fail(err, STATUS_USAGE, "a head reads floats; '%s' is %s", features->name, dtype_name(b->dtype));
    if (b->rank == 0 || b->rank == 1)
        return fail(err, STATUS_USAGE, "features '%s' (%s) need a batch and a width", features->name,
                    type_text(b->arena, type));
    if (b->spec->kind == HEAD_CONV && b->rank < 3)
        return fail(err, STATUS_USAGE, "a convolution head needs features [N,C,...]; '%s' is %s", features->name,
                    type_text(b->arena, type));
    if (b->spec->kind == HEAD_MLP && b->spec->pool != POOL_NONE && b->rank > 5)
        return fail(err, STATUS_USAGE, "features of rank %d cannot be pooled", b->rank);
    return find_width(b, features, err);
}

static Status check_opset(Build *b, Error *err)
{
    int64_t opset = model_opset(b->model, "");
    if (opset == 0) { /* a model of foreign operators alone */
        opset = 13;
        model_set_opset(b->model, "", opset);
        if (b->model->ir_version < 7)
            b->model->ir_version = 7;
    }
    if (opset < 7)
        return fail(err, STATUS_UNSUPPORTED, "a head needs opset 7 or newer (broadcasting), the model has %" PRId64,
                    opset);
    if (opset > OPSET_NEWEST)
        return fail(err, STATUS_UNSUPPORTED,
                    "a head cannot be written in opset %" PRId64 ": it is newer than the %d that this build has read",
                    opset, OPSET_NEWEST);
    b->opset = (int)opset;
    return STATUS_OK;
}

/* ---- features that are quanta ------------------------------------------------------------------------------ */

static bool is_named(const Node *node, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(node->op_type, names[i]) == 0)
            return true;
    return false;
}

/* The input of an operator on quanta that is its output's scale, the zero point behind it; -1: it is no such operator.
 */
static int output_scale(const Node *node)
{
    static const char *const at_six[] = {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"};
    static const char *const at_seven[] = {"QGemm", "QLinearWhere"};
    if (strcmp(node->op_type, "QuantizeLinear") == 0)
        return 1;
    if (is_named(node, at_six, sizeof at_six / sizeof *at_six))
        return 6;
    if (is_named(node, at_seven, sizeof at_seven / sizeof *at_seven))
        return 7;
    if (strcmp(node->op_type, "QLinearConcat") == 0)
        return 0;
    return strncmp(node->op_type, "QLinear", 7) == 0 ? 3 : -1;
}

/* Who made the quanta: back through what only moves them. */
static const Node *quantiser_of(const Value *quanta)
{
    static const char *const moves[] = {"Flatten",  "Reshape", "Squeeze", "Unsqueeze", "Transpose",
                                        "Identity", "MaxPool", "Slice",   "Gather"};
    const Node *node = quanta->producer;
    while (node != NULL && is_named(node, moves, sizeof moves / sizeof *moves) && node_input(node, 0) != NULL)
        node = node->inputs[0]->producer;
    return node != NULL && output_scale(node) >= 0 ? node : NULL;
}

/* A head reads floats: 8-bit features whose scale can be found are dequantised first. */
static Value *as_floats(Build *b, Value *features)
{
    DType dtype = features->type.kind == TYPE_TENSOR ? features->type.dtype : DTYPE_UNDEFINED;
    const Node *made_by = dtype == DTYPE_U8 || dtype == DTYPE_I8 ? quantiser_of(features) : NULL;
    if (made_by == NULL || node_input(made_by, output_scale(made_by)) == NULL)
        return features;
    Value *inputs[] = {features, node_input(made_by, output_scale(made_by)),
                       node_input(made_by, output_scale(made_by) + 1)};
    Value *floats = add(b, "DequantizeLinear", inputs, inputs[2] != NULL ? 3 : 2, false);
    floats->type = features->type;
    floats->type.dtype = DTYPE_F32;
    return floats;
}

/* ---- the pass ------------------------------------------------------------------------------------------ */

static void note_parameters(const Build *b)
{
    const char *old = model_metadata(b->model, "regraft.head");
    const char *all =
        old == NULL || old[0] == '\0' ? b->parameters.text : arena_printf(b->arena, "%s\n%s", old, b->parameters.text);
    model_set_metadata(b->model, "regraft.head", arena_strdup(b->arena, all));
}

Status head_build(Model *document, Value *features, const HeadSpec *spec, Node *before, const char *output_name,
                  Value **scores, Error *err)
{
    Build b = {.model = document, .graph = document->graph, .arena = &document->arena, .before = before, .spec = spec};
    TRY(check_spec(spec, err));
    TRY(check_opset(&b, err));
    b.output_name = output_name;
    b.stem = free_stem(&b);
    features = as_floats(&b, features);
    TRY(check_features(&b, features, err));
    str_init(&b.parameters);
    Type type = features->type;
    *scores = is_conv_head(&b) ? build_conv_head(&b, features) : build_dense_head(&b, features);
    set_scores_type(&b, &type, *scores);
    note_parameters(&b);
    str_release(&b.parameters);
    metadata_drop_classes(document);
    return STATUS_OK;
}

Status pass_attach(Model *document, Value *features, const HeadSpec *spec, Value **logits, Error *err)
{
    Graph *graph = document->graph;
    const char *old = model_metadata(document, "regraft.cut_output");
    if (spec->output_name != NULL && graph_find(graph, spec->output_name) != NULL)
        return fail(err, STATUS_USAGE, "the name '%s' is taken", spec->output_name);
    const char *name = spec->output_name != NULL ? spec->output_name : old != NULL ? old : "logits";
    TRY(head_build(document, features, spec, NULL, arena_strdup(&document->arena, name), logits, err));
    if (old != NULL)
        model_set_metadata(document, "regraft.cut_output", NULL);
    model_set_metadata(document, "regraft.cut_at", NULL);
    for (size_t i = 0; i < graph->output_count && !spec->keep_features; i++) {
        if (graph->outputs[i] == features) {
            graph_replace_output(graph, i, *logits);
            return STATUS_OK;
        }
    }
    graph_add_output(graph, *logits);
    return STATUS_OK;
}
