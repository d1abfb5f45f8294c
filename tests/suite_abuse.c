/* What operators do with nodes that make no sense: never crash, never hang, never contradict themselves.
 *
 * Two kinds of trials, both from a printed seed. Random nodes: every row with random counts of inputs and outputs, some
 * omitted, of any type, rank and size (zero, one, beyond memory), and random attributes. Bent cases: the graphs of the
 * gradient cases with one thing changed: an input dropped or exchanged, a type, a dim, a constant, an attribute. Each
 * is upgraded, inferred, interpreted, differentiated, expanded, planned and run as far as it goes. An error is a good
 * end. What must hold: results have the types that inference promised, and the plan gives what the interpreter gives.
 *
 * `suite_abuse [-v] [SEED [TRIALS [WORD..]]]`: TRIALS (20; 200 of --full) a row and a tenth of it a case; words choose
 * rows and cases by name; -v prints each trial before it runs. */
#include "tests/test.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "onnx/base/rng.h"
#include "runtime/kernel.h"
#include "runtime/runtime.h"
#include "tests/gradient_cases.h"

#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { VALUES_MAX = 24, ELEMENTS_MAX = 20000, TRIAL_SECONDS = 60 };
#define MEMORY_MOST ((rlim_t)4 << 30)

static char trial_name[200]; /* what runs now, for the signal handler */
static int failures;
static bool verbose;

/* Sizes beyond memory must come back as errors of ours, not of the sanitizer's. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* Called by the sanitizer before it reports. */
void __asan_on_error(void);
void __asan_on_error(void)
{
    fprintf(stderr, "in %s\n", trial_name);
}

static void on_alarm(int signal)
{
    (void)signal;
    static const char text[] = "hangs: ";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    written = write(STDERR_FILENO, trial_name, strlen(trial_name));
    (void)written;
    _exit(1);
}

static void on_crash(int signal)
{
    static const char text[] = "crashes: ";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    written = write(STDERR_FILENO, trial_name, strlen(trial_name));
    written = write(STDERR_FILENO, "\n", 1);
    (void)written;
    _exit(128 + signal);
}

/* ---- random things -------------------------------------------------------------------------------------------- */

static int64_t between(Rng *rng, int64_t low, int64_t high)
{
    return low + (int64_t)rng_below(rng, (uint64_t)(high - low + 1));
}

static bool chance(Rng *rng, int percent)
{
    return between(rng, 0, 99) < percent;
}

static DType random_dtype(Rng *rng)
{
    static const DType often[] = {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_I64, DTYPE_I64, DTYPE_F64};
    static const DType rare[] = {DTYPE_I32, DTYPE_BOOL, DTYPE_U8,  DTYPE_I8,  DTYPE_F16,   DTYPE_BF16,
                                 DTYPE_I16, DTYPE_U16,  DTYPE_U32, DTYPE_U64, DTYPE_STRING};
    return chance(rng, 75) ? often[between(rng, 0, 6)] : rare[between(rng, 0, 10)];
}

static int64_t random_dim(Rng *rng, bool huge)
{
    static const int64_t large[] = {1 << 16, (int64_t)1 << 31, (int64_t)1 << 40, INT64_MAX};
    return huge && chance(rng, 10) ? large[between(rng, 0, 3)] : chance(rng, 8) ? 0 : between(rng, 1, 5);
}

static int64_t random_int(Rng *rng, bool extreme)
{
    static const int64_t far[] = {INT64_MIN, INT64_MAX, INT32_MAX, INT32_MIN, (int64_t)1 << 32, 1000};
    return extreme && chance(rng, 8) ? far[between(rng, 0, 5)]
           : chance(rng, 70)         ? between(rng, 0, 3)
                                     : between(rng, -6, 8);
}

static double random_number(Rng *rng, DType dtype, bool extreme)
{
    const double large = test_size() == TEST_ALL ? 1e18 : 1e30; /* squares of 1e30 are too large for float */
    const double far[] = {INFINITY, -INFINITY, NAN, large, -large, 0};
    if (!dtype_is_float(dtype))
        return (double)between(rng, 0, 3) - (chance(rng, 20) ? 3 : 0);
    return extreme && chance(rng, 2) ? far[between(rng, 0, 5)] : rng_uniform(rng) * 4 - 2;
}

/* ---- arrays ----------------------------------------------------------------------------------------------------- */

static Status random_array(Rng *rng, Arena *arena, DType dtype, int rank, const int64_t *dims, bool extreme,
                           Array **array, Error *err)
{
    Array *wide;
    if (dtype == DTYPE_STRING) {
        static const char *const words[] = {"", "a", "Zebra", "\xc3\xa4rger", "1.5"};
        TRY(array_new(arena, dtype, rank, dims, array, err));
        for (int64_t i = 0; i < (*array)->count; i++) {
            const char *word = words[between(rng, 0, 4)];
            ((Bytes *)(*array)->data)[i] = (Bytes){(void *)(uintptr_t)word, strlen(word)};
        }
        return STATUS_OK;
    }
    TRY(array_new(arena, DTYPE_F64, rank, dims, &wide, err));
    for (int64_t i = 0; i < wide->count; i++)
        ((double *)wide->data)[i] = random_number(rng, dtype, extreme);
    TRY(array_convert(arena, wide, dtype, array, err));
    for (int64_t i = 0; i < (*array)->count && dtype == DTYPE_I64; i++)
        ((int64_t *)(*array)->data)[i] = random_int(rng, extreme);
    return STATUS_OK;
}

static bool is_small(const Type *type)
{
    int64_t count = 1, whole = 1;
    for (int i = 0; i < type->rank; i++) {
        if (type->dims[i] < 0 || type->dims[i] > ELEMENTS_MAX)
            return false;
        count *= type->dims[i];
        whole *= type->dims[i] > 0 ? type->dims[i] : 1;
        if (whole > ELEMENTS_MAX)
            return false;
    }
    return count <= ELEMENTS_MAX;
}

/* ---- random nodes ------------------------------------------------------------------------------------------------ */

/* clang-format off */
static const char *const int_attrs[] = {
    "axis", "keepdims", "group", "ceil_mode", "to", "transA", "transB", "batch_dims", "largest", "sorted", "exclusive",
    "reverse", "hidden_size", "layout", "num_outputs", "blocksize", "start", "end", "num_heads", "q_num_heads",
    "kv_num_heads", "is_causal", "noop_with_empty_axes", "select_last_index", "training_mode", "allowzero", "upper",
    "num_groups", "storage_order", "count_include_pad", "align_corners", "p", "ignore_index", "dtype", "seed",
    "sample_size", "exclude_outside", "output_height", "offset_group", "onesided", "inverse", "fmod", "saturate",
    "block_size", "stash_type", "size", "periodic", "new_axis", "keep_aspect_ratio", "unidirectional", "interleaved",
    "rotary_embedding_dim", "left_window_size", "right_window_size", "softmax_precision", "detect_negative",
    "linear_before_reset", "input_forget", "min_gram_length", "max_gram_length", "max_skip_count", "k",
    "zero_interpolated", "antialias", "sampling_ratio", "num_scan_inputs", "qk_matmul_output_mode", "n_targets", "axes",
    "split", "perm"};
static const char *const ints_attrs[] = {
    "axes", "kernel_shape", "strides", "pads", "dilations", "output_padding", "output_shape", "perm", "split", "shape",
    "starts", "ends", "steps", "qkv_hidden_sizes", "scan_input_axes", "keys_int64s", "value_ints", "ngram_counts",
    "ngram_indexes", "pool_int64s", "nodes_treeids", "class_ids", "repeats", "activations"};
static const char *const float_attrs[] = {
    "epsilon", "alpha", "beta", "gamma", "momentum", "scale", "spatial_scale", "value", "bias", "lambd", "clip",
    "softcap", "mean", "low", "high", "ratio", "cubic_coeff_a", "extrapolation_value", "threshold", "norm_coefficient",
    "value_float"};
static const char *const string_attrs[] = {
    "mode", "auto_pad", "equation", "reduction", "direction", "coordinate_transformation_mode", "nearest_mode",
    "padding_mode", "approximate", "rounding_mode", "keep_aspect_ratio_policy", "activation", "update_rule",
    "case_change_action", "delimiter", "pattern", "pixel_format", "body", "then_branch", "value_string", "norm"};
static const char *const words[] = {
    "", "constant", "reflect", "edge", "wrap", "linear", "nearest", "cubic", "SAME_UPPER", "SAME_LOWER", "VALID",
    "NOTSET", "ij,jk->ik", "...i->i...", "ii", "i,i->", "mean", "sum", "none", "add", "mul", "max", "min",
    "bidirectional", "reverse", "forward", "align_corners", "half_pixel", "asymmetric", "tf_crop_and_resize", "zeros",
    "border", "reflection", "tanh", "gated", "delta", "standard", "nesterov", "DCR", "CRD", "LEFT", "RIGHT", "[a-z]+",
    "(", "Relu", "floor", "TF", "IDF", "L1"};
/* clang-format on */

#define COUNT(list) ((int64_t)(sizeof(list) / sizeof(list)[0]))

static void random_ints(Rng *rng, Node *node, const char *name)
{
    int64_t values[8];
    size_t count = (size_t)between(rng, 0, 6);
    for (size_t i = 0; i < count; i++)
        values[i] = random_int(rng, true);
    node_set_ints(node, name, values, count);
}

/* A random value under a name of the list, by type. */
static void random_attr(Rng *rng, Node *node, int64_t which)
{
    if (which < COUNT(int_attrs)) {
        node_set_int(node, int_attrs[which], random_int(rng, true));
        return;
    }
    which -= COUNT(int_attrs);
    if (which < COUNT(ints_attrs)) {
        random_ints(rng, node, ints_attrs[which]);
        return;
    }
    which -= COUNT(ints_attrs);
    if (which < COUNT(float_attrs))
        node_set_float(node, float_attrs[which], (float)random_number(rng, DTYPE_F32, true));
    else
        node_set_string(node, string_attrs[which - COUNT(float_attrs)], words[between(rng, 0, COUNT(words) - 1)]);
}

static void random_attrs(Rng *rng, Node *node)
{
    const int64_t all = COUNT(int_attrs) + COUNT(ints_attrs) + COUNT(float_attrs) + COUNT(string_attrs);
    const int percent = (int)between(rng, 0, 35);
    for (int64_t i = 0; i < all; i++)
        if (chance(rng, percent))
            random_attr(rng, node, i);
}

/* Types of one node's inputs mostly resemble each other: else nothing gets past the first check. */
typedef struct Style {
    DType dtype;
    int rank;
    int64_t dims[6];
    bool huge;
} Style;

static Style random_style(Rng *rng)
{
    Style style = {random_dtype(rng), (int)between(rng, 0, 5), {0}, chance(rng, 10)};
    for (int i = 0; i < 6; i++)
        style.dims[i] = random_dim(rng, style.huge);
    return style;
}

static Value *random_value(Rng *rng, Graph *graph, const Style *common, int number)
{
    Error err = {0};
    Style own = chance(rng, 60) ? *common : random_style(rng);
    Array *array;
    if (chance(rng, 15))
        own.dims[between(rng, 0, 5)] = random_dim(rng, own.huge);
    if (chance(rng, 15)) { /* a list: axes, shapes, indices */
        own.dtype = DTYPE_I64;
        own.rank = 1;
    }
    char name[16];
    snprintf(name, sizeof name, "x%d", number);
    Type type = {0};
    type_set(&type, own.dtype, own.rank, own.dims);
    bool constant = is_small(&type) && chance(rng, own.dtype == DTYPE_I64 ? 70 : 20);
    if (constant &&
        random_array(rng, &graph->model->arena, own.dtype, own.rank, own.dims, true, &array, &err) == STATUS_OK) {
        Value *value = graph_add_initializer(
            graph, tensor_from_array(&graph->model->arena, arena_strdup(&graph->model->arena, name), array));
        value->type = type;
        return value;
    }
    Value *value = graph_add_value(graph, name);
    value->type = type;
    graph_add_input(graph, value);
    return value;
}

static Model *random_node(Rng *rng, const OpDef *row)
{
    Model *model = model_new(&builtin_ops);
    Graph *graph = model->graph;
    Value *inputs[VALUES_MAX];
    const Style style = random_style(rng);
    const char *domain = row->domain == NULL ? "" : row->domain;
    int most = row->max_inputs < 0 ? row->min_inputs + 3 : row->max_inputs;
    int count = (int)between(rng, chance(rng, 5) ? 0 : row->min_inputs, most < 14 ? most : 14);
    int least = row->min_outputs > 1 ? row->min_outputs : 1, more = row->max_outputs < 0 ? least + 3 : row->max_outputs;
    int outputs = chance(rng, 60) ? least : (int)between(rng, least, more > least ? more : least);
    model_set_opset(model, "", OPSET_NEWEST);
    model_set_opset(model, domain, domain[0] == '\0' ? OPSET_NEWEST : 1);
    for (int i = 0; i < count; i++)
        inputs[i] = chance(rng, 7) ? NULL : random_value(rng, graph, &style, i);
    int opset = row->since == 0 ? 0 : chance(rng, 60) ? row->last : (int)between(rng, row->since, row->last);
    Node *node =
        graph_add_node(graph, NULL, domain, row->name, opset, "node", inputs, count, outputs < 8 ? outputs : 8);
    random_attrs(rng, node);
    for (int i = 0; i < node->output_count; i++) {
        if (chance(rng, 5))
            node_set_output(node, i, NULL);
        else
            graph_add_output(graph, node->outputs[i]);
    }
    return model;
}

/* ---- bent cases -------------------------------------------------------------------------------------------------- */

static void append_typed(Str *out, const char *text)
{
    for (const char *c = text; c && *c; c++) {
        bool starts = c == text || !(isalnum((unsigned char)c[-1]) || c[-1] == '_');
        bool ends = !(isalnum((unsigned char)c[1]) || c[1] == '_');
        if (*c == 'T' && starts && ends)
            str_append(out, "float");
        else
            str_append_bytes(out, c, 1);
    }
}

static Model *parse_case(const GradientCase *c)
{
    Str text;
    Error err = {0};
    Model *model = NULL;
    str_init(&text);
    str_printf(&text, "<ir_version: 11, opset_import: [%s]>\ng (", c->opsets ? c->opsets : "\"\" : 28");
    append_typed(&text, c->inputs);
    str_append(&text, ") => ()");
    if (c->constants) {
        str_append(&text, " <");
        append_typed(&text, c->constants);
        str_append(&text, ">");
    }
    str_append(&text, " {\n");
    append_typed(&text, c->nodes);
    str_append(&text, "\n}\n");
    if (model_parse(text.text, &builtin_ops, &model, &err) != STATUS_OK)
        model = NULL;
    str_release(&text);
    for (Node *node = model == NULL ? NULL : model->graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL && node->outputs[i]->use_count == 0)
                graph_add_output(model->graph, node->outputs[i]);
    return model;
}

static Node *pick_node(Rng *rng, const Graph *graph)
{
    int64_t at = graph->node_count > 0 ? between(rng, 0, (int64_t)graph->node_count - 1) : 0;
    Node *node = graph->first;
    while (node != NULL && at-- > 0)
        node = node->next;
    return node;
}

static void bend_input(Rng *rng, Graph *graph, Node *node)
{
    if (node->input_count == 0)
        return;
    int at = (int)between(rng, 0, node->input_count - 1);
    if (node_is(node, "Loop") && at < 2) /* without a count it may turn for ever, as it should */
        return;
    Value *other = graph->input_count > 0 ? graph->inputs[between(rng, 0, (int64_t)graph->input_count - 1)] : NULL;
    if (chance(rng, 50) && node->inputs[at] != NULL)
        node_set_input(node, at, NULL);
    else if (other != NULL)
        node_set_input(node, at, other);
    if (chance(rng, 20) && node->input_count > 1 && node->inputs[node->input_count - 1] == NULL)
        node->input_count--;
}

static void bend_type(Rng *rng, Graph *graph)
{
    if (graph->input_count == 0)
        return;
    Type *type = &graph->inputs[between(rng, 0, (int64_t)graph->input_count - 1)]->type;
    switch (between(rng, 0, 3)) {
    case 0:
        type->dtype = random_dtype(rng);
        break;
    case 1:
        type->rank = (int)between(rng, 0, type->rank);
        break;
    case 2:
        type->dims[type->rank] = random_dim(rng, false);
        type->rank += type->rank < RANK_MAX - 1;
        break;
    default:
        if (type->rank > 0)
            type->dims[between(rng, 0, type->rank - 1)] = random_dim(rng, true);
    }
}

static void bend_constant(Rng *rng, Graph *graph, bool extreme)
{
    Error err = {0};
    Array *array;
    if (graph->initializer_count == 0)
        return;
    Value *value = graph->initializers[between(rng, 0, (int64_t)graph->initializer_count - 1)];
    int64_t dims[RANK_MAX];
    int rank = value->constant->rank;
    for (int i = 0; i < rank && i < RANK_MAX; i++)
        dims[i] = chance(rng, 20) ? random_dim(rng, false) : value->constant->dims[i];
    if (random_array(rng, &graph->model->arena, value->constant->dtype, rank, dims, extreme, &array, &err) == STATUS_OK)
        value->constant = tensor_from_array(&graph->model->arena, value->name, array);
}

static void bend_attr(Rng *rng, Node *node)
{
    if (node->attr_count == 0 || chance(rng, 20)) {
        random_attrs(rng, node);
        return;
    }
    const Attr *attr = node->attrs[between(rng, 0, (int64_t)node->attr_count - 1)];
    const char *name = attr->name;
    if (chance(rng, 25))
        node_remove_attr(node, name);
    else if (attr->type == ATTR_INT)
        node_set_int(node, name, random_int(rng, true));
    else if (attr->type == ATTR_INTS)
        random_ints(rng, node, name);
    else if (attr->type == ATTR_FLOAT)
        node_set_float(node, name, (float)random_number(rng, DTYPE_F32, true));
    else if (attr->type == ATTR_STRING)
        node_set_string(node, name, words[between(rng, 0, COUNT(words) - 1)]);
}

static bool has_loop(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node_is(node, "Loop"))
            return true;
    return false;
}

/* Internal operators are written by passes alone: files cannot hold them. */
static void bend(Rng *rng, Graph *graph)
{
    for (int64_t times = between(rng, 1, 2); times > 0; times--) {
        Node *node = pick_node(rng, graph);
        if (node == NULL || strcmp(node->domain, DOMAIN_INTERNAL) == 0)
            continue;
        switch (between(rng, 0, 4)) {
        case 0:
            bend_input(rng, graph, node);
            break;
        case 1:
            bend_type(rng, graph);
            break;
        case 2:
            bend_constant(rng, graph, !has_loop(graph));
            break;
        case 3:
            bend_attr(rng, node);
            break;
        default:
            if (node->output_count > 0) {
                int at = (int)between(rng, 0, node->output_count - 1);
                Value *output = node->outputs[at];
                if (output != NULL && !output->is_output && output->use_count == 0)
                    node_set_output(node, at, NULL);
            }
        }
    }
}

/* ---- what is done with a graph ----------------------------------------------------------------------------------- */

static void wrong(const char *what, const char *detail)
{
    printf("FAIL %s: %s: %s\n", trial_name, what, detail);
    failures++;
}

static bool all_small(const Graph *graph)
{
    for (size_t i = 0; i < graph->input_count; i++)
        if (!is_small(&graph->inputs[i]->type))
            return false;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL && node->outputs[i]->type.rank > 0 && !is_small(&node->outputs[i]->type))
                return false;
    return true;
}

static bool draws(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node->op == NULL || (node->op->traits & (OP_RANDOM | OP_STATE)) != 0)
            return true;
    return false;
}

static Status fill_inputs(Rng *rng, const Graph *graph, Arena *arena, Array **in, Error *err)
{
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        in[i] = NULL;
        TRY(random_array(rng, arena, type->dtype, type->rank, type->dims, false, &in[i], err));
    }
    return STATUS_OK;
}

/* What inference promised of the outputs. What an If gives has the types that its branches declare: the file's word,
 * which a bent input makes untrue. */
static void check_types(const Graph *graph, Array *const *out)
{
    Arena arena;
    arena_init(&arena);
    for (size_t i = 0; i < graph->output_count; i++) {
        const Type *type = &graph->outputs[i]->type;
        const Node *producer = graph->outputs[i]->producer;
        if (producer != NULL && node_is(producer, "If"))
            continue;
        if (!type_known(type) || out[i] == NULL || out[i]->kind != ARRAY_TENSOR)
            continue;
        bool same = out[i]->rank == type->rank && out[i]->dtype == type->dtype;
        for (int d = 0; same && d < type->rank; d++)
            same = out[i]->dims[d] == type->dims[d];
        if (!same)
            wrong("a result is not as inferred",
                  arena_printf(&arena, "%s%s, inferred %s", dtype_name(out[i]->dtype),
                               dims_text(&arena, out[i]->rank, out[i]->dims), type_text(&arena, type)));
    }
    arena_release(&arena);
}

static bool comparable(const Array *array)
{
    if (array->kind != ARRAY_TENSOR || array->dtype == DTYPE_STRING)
        return false;
    for (int64_t i = 0; i < array->count; i++)
        if (!(fabs(array_f64_at(array, i)) < 1e6))
            return false;
    return true;
}

static void check_plan_output(const Plan *plan, const Graph *graph, size_t index, const Array *expected)
{
    const Type *type = &graph->outputs[index]->type;
    Array found = {.dtype = type->dtype, .count = expected->count, .data = (void *)(uintptr_t)plan_output(plan, index)};
    double scale = 0.1;
    char text[160];
    bool same = type_count(type) == expected->count && type->dtype == expected->dtype && type->dtype != DTYPE_BOOL;
    if (!same || found.data == NULL || !comparable(expected))
        return;
    for (int64_t i = 0; i < expected->count; i++)
        scale = fmax(scale, fabs(array_f64_at(expected, i)));
    for (int64_t i = 0; i < expected->count; i++) {
        double a = array_f64_at(expected, i), b = array_f64_at(&found, i);
        if (fabs(a - b) <= 2e-3 * scale)
            continue;
        snprintf(text, sizeof text, "output %zu[%lld] is %.9g, interpreted %.9g", index, (long long)i, b, a);
        wrong("plan", text);
        return;
    }
}

/* Every value a plan can hold; it says so itself when not. */
static void run_plan(const Model *model, Array *const *in, Array *const *expected, bool compare)
{
    const Graph *graph = model->graph;
    const PlanOptions options = {.training = true};
    Error err = {0};
    Plan *plan = NULL;
    for (size_t i = 0; i < graph->output_count; i++)
        if (!type_known(&graph->outputs[i]->type) || graph->outputs[i]->type.dtype == DTYPE_STRING)
            return;
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->type.dtype == DTYPE_STRING)
            return;
    if (plan_build(model, NULL, &options, &plan, &err) != STATUS_OK)
        return;
    for (size_t i = 0; i < graph->input_count; i++) {
        void *to = plan_input(plan, i);
        if (to != NULL && in[i]->count > 0)
            memcpy(to, in[i]->data, (size_t)in[i]->count * dtype_size(in[i]->dtype));
    }
    if (plan_run(plan, 1, 0, false, &err) == STATUS_OK && compare)
        for (size_t i = 0; i < graph->output_count; i++)
            check_plan_output(plan, graph, i, expected[i]);
    plan_free(plan);
}

/* A loss on the first output that can have one, and gradients of every float input. */
static Status differentiate(Graph *graph, Error *err)
{
    Value *wrt[VALUES_MAX], *y = NULL;
    size_t count = 0;
    for (size_t i = 0; i < graph->output_count && y == NULL; i++)
        if (type_known(&graph->outputs[i]->type) && graph->outputs[i]->type.dtype == DTYPE_F32)
            y = graph->outputs[i];
    for (size_t i = 0; i < graph->input_count && count < VALUES_MAX; i++)
        if (graph->inputs[i]->type.dtype == DTYPE_F32)
            wrt[count++] = graph->inputs[i];
    if (y == NULL || count == 0)
        return STATUS_OK;
    Builder b = builder_at(graph, NULL, "loss", err);
    Node *sum = build_node(&b, "", "ReduceSum", &y, 1, 1);
    if (sum == NULL)
        return b.status;
    node_set_int(sum, "keepdims", 0);
    Value *loss = build_finish(&b, sum);
    TRY(b.status);
    TRY(pass_autodiff(graph, loss, wrt, count, err));
    for (size_t i = 0; i < count; i++)
        if (wrt[i]->gradient != NULL && !wrt[i]->gradient->is_output && wrt[i]->gradient->producer != NULL)
            graph_add_output(graph, wrt[i]->gradient);
    return STATUS_OK;
}

static Status exercise(Model *model, Rng *rng, Arena *arena, Error *err)
{
    Graph *graph = model->graph;
    Array *in[VALUES_MAX], *out[2 * VALUES_MAX] = {NULL};
    TRY(graph_check(graph, err));
    TRY(pass_upgrade(graph, err));
    TRY(pass_infer_known(graph, err));
    if (!all_small(graph) || graph->input_count > VALUES_MAX || graph->output_count > VALUES_MAX)
        return STATUS_OK;
    TRY(fill_inputs(rng, graph, arena, in, err));
    TRY(interp_run(graph, (const Array *const *)in, out, arena, 1, err));
    check_types(graph, out);
    TRY(pass_unroll(graph, err));
    TRY(differentiate(graph, err));
    TRY(pass_expand(graph, err));
    TRY(graph_check(graph, err));
    if (!all_small(graph))
        return STATUS_OK;
    TRY(interp_run(graph, (const Array *const *)in, out, arena, 1, err));
    check_types(graph, out);
    run_plan(model, in, out, !draws(graph));
    return STATUS_OK;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static bool chosen(const char *name, int count, char **chosen_words)
{
    for (int i = 0; i < count; i++)
        if (strstr(name, chosen_words[i]) != NULL)
            return true;
    return count == 0;
}

/* 1 when the graph went all the way. */
static int run_trial(Model *model, Rng *rng)
{
    Arena arena;
    Error err = {0};
    arena_init(&arena);
    alarm(TRIAL_SECONDS);
    if (verbose) {
        Str text;
        str_init(&text);
        graph_print(model->graph, &text);
        printf("%s\n", text.text);
        str_release(&text);
    }
    Status status = exercise(model, rng, &arena, &err);
    if (verbose)
        printf("%s: %s\n", trial_name, status == STATUS_OK ? "ran" : err.message);
    if (status != STATUS_OK && err.message[0] == '\0')
        wrong("an error without a message", "");
    arena_release(&arena);
    model_free(model);
    return status == STATUS_OK;
}

static void begin(const char *kind, const char *name, uint64_t seed, int trial)
{
    snprintf(trial_name, sizeof trial_name, "%s %s, seed %llu, trial %d", kind, name, (unsigned long long)seed, trial);
    if (verbose)
        fprintf(stderr, "%s\n", trial_name);
}

/* The trials of a family of rows, or of a table of cases when `rows` is NULL. */
typedef struct Batch {
    const OpDef *rows;
    const GradientCase *cases;
    const char *name;
    uint64_t seed, number;
    int trials, word_count;
    char **words;
} Batch;

typedef struct Report {
    int run, whole, failed;
} Report;

/* `row` or `c` is what is tried; the numbers drawn depend on seed, its place and the trial alone. */
static void try_one(const Batch *batch, const OpDef *row, const GradientCase *c, uint64_t place, Report *report)
{
    const char *name = row != NULL ? row->name : c->name;
    for (int trial = 0; trial < batch->trials && chosen(name, batch->word_count, batch->words); trial++) {
        Rng rng = rng_at(batch->seed, rng_mix(place, (uint64_t)trial));
        begin(row != NULL ? "row" : "case", name, batch->seed, trial);
        Model *model = row != NULL ? random_node(&rng, row) : parse_case(c);
        if (model == NULL)
            continue;
        if (row == NULL)
            bend(&rng, model->graph);
        report->whole += run_trial(model, &rng);
        report->run++;
    }
}

static void try_all(const Batch *batch, Report *report)
{
    uint64_t place = batch->number << 16;
    for (const OpDef *row = batch->rows; row != NULL && row->name != NULL; row++, place++)
        if (row->domain == NULL || strcmp(row->domain, DOMAIN_INTERNAL) != 0)
            try_one(batch, row, NULL, place, report);
    for (const GradientCase *c = batch->cases; c != NULL && c->name != NULL; c++, place++)
        try_one(batch, NULL, c, place, report);
    report->failed = failures;
}

/* In a process of its own, so that a crash is one failure and the rest still runs. */
static void run_batch(const Batch *batch, Report *total)
{
    int ends[2], end = 0;
    Report report = {0};
    fflush(stdout);
    if (pipe(ends) != 0)
        abort();
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit memory = {MEMORY_MOST, MEMORY_MOST}; /* shapes that data gives may want all there is */
        if (!SANITIZED)
            setrlimit(RLIMIT_AS, &memory);
        try_all(batch, &report);
        fflush(stdout);
        bool told = write(ends[1], &report, sizeof report) == (ssize_t)sizeof report;
        exit(told ? 0 : 1); /* not _exit: leaks are looked for */
    }
    close(ends[1]);
    bool whole = child > 0 && read(ends[0], &report, sizeof report) == (ssize_t)sizeof report;
    close(ends[0]);
    if (child > 0)
        waitpid(child, &end, 0);
    if (!whole || end != 0)
        printf("FAIL %s %s ends by itself\n", batch->rows != NULL ? "rows like" : "cases of", batch->name);
    total->run += report.run;
    total->whole += report.whole;
    total->failed += report.failed + (!whole || end != 0);
}

int main(int argc, char **argv)
{
    int at = 1;
    Report total = {0};
    Batch batch = {.seed = 1, .trials = test_size() == TEST_ALL ? 200 : 20};
    if (at < argc && strcmp(argv[at], "-v") == 0) {
        verbose = true;
        at++;
    }
    if (at < argc)
        batch.seed = strtoull(argv[at++], NULL, 10);
    if (at < argc)
        batch.trials = (int)strtol(argv[at++], NULL, 10);
    batch.words = argv + at;
    batch.word_count = argc - at;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, on_alarm);
    signal(SIGABRT, on_crash);
    if (!SANITIZED) {
        signal(SIGSEGV, on_crash);
        signal(SIGFPE, on_crash);
    }
    for (size_t f = 0; f < builtin_ops.count; f++, batch.number++) {
        batch.rows = builtin_ops.families[f];
        batch.name = batch.rows->name;
        run_batch(&batch, &total);
    }
    batch.rows = NULL;
    batch.trials = (batch.trials + 9) / 10;
    for (const CaseFamily *family = case_families; family->name != NULL; family++, batch.number++) {
        batch.cases = family->cases;
        batch.name = family->name;
        run_batch(&batch, &total);
    }
    printf("seed %llu: %d trials, %d ran through, %d failed\n", (unsigned long long)batch.seed, total.run, total.whole,
           total.failed);
    return total.failed > 0;
}
