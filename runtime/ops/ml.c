/* The operators of ai.onnx.ml that classifiers exported from scikit-learn put around a network: ArrayFeatureExtractor,
 * Binarizer, LabelEncoder, Normalizer, Scaler, TreeEnsemble. */
#include "runtime/ops/ops.h"

#include <math.h>
#include <string.h>

#define ML_DOMAIN "ai.onnx.ml"

/* ---- ArrayFeatureExtractor: x[.., y] along the last axis; a 1-D x counts as one row ------------------- */

static Status extract_shape(const Node *node, int rank, const int64_t *dims, int64_t count, int *out_rank, int64_t *out,
                            Error *err)
{
    if (rank < 1)
        return infer_fail(node, err, "input of rank 0");
    *out_rank = rank == 1 ? 2 : rank;
    out[0] = 1;
    if (rank > 1)
        memcpy(out, dims, (size_t)rank * sizeof *out);
    out[*out_rank - 1] = count;
    return STATUS_OK;
}

static Status extract_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int rank = 0;
    int64_t dims[RANK_MAX];
    TRY(extract_shape(node, x->rank, x->dims, type_count(&node->inputs[1]->type), &rank, dims, err));
    type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    return STATUS_OK;
}

static Status extract_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *indices = context->in[1];
    int rank = 0;
    int64_t dims[RANK_MAX];
    Array *out;
    TRY(extract_shape(context->node, x->rank, x->dims, indices->count, &rank, dims, err));
    const int64_t features = x->dims[x->rank - 1], rows = features > 0 ? x->count / features : 0;
    int64_t *list = arena_array(context->arena, int64_t, (size_t)indices->count + 1);
    TRY(index_list(context->node, indices->dtype, indices->data, indices->count, features, list, err));
    TRY(eval_output(context, 0, x->dtype, rank, dims, &out, err));
    const size_t size = dtype_size(x->dtype);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < indices->count; i++)
            memcpy((char *)out->data + (size_t)(r * indices->count + i) * size,
                   (const char *)x->data + (size_t)(r * features + list[i]) * size, size);
    return STATUS_OK;
}

/* ---- Binarizer, Scaler, Normalizer: element by element or row by row in double ------------------------ */

static Status real_input(EvalContext *context, Array **values, Error *err)
{
    return array_convert(context->arena, context->in[0], DTYPE_F64, values, err);
}

static Status real_store(EvalContext *context, const Array *values, DType dtype, Error *err)
{
    Array *converted;
    TRY(array_convert(context->arena, values, dtype, &converted, err));
    return eval_output_same(context, 0, converted, err);
}

static Status binarizer_eval(EvalContext *context, Error *err)
{
    const double threshold = (double)node_float(context->node, "threshold", 0);
    Array *values;
    TRY(real_input(context, &values, err));
    double *x = values->data;
    for (int64_t i = 0; i < values->count; i++)
        x[i] = x[i] > threshold ? 1 : 0;
    return real_store(context, values, context->in[0]->dtype, err);
}

static Status real_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    (void)err;
    type_set(&node->outputs[0]->type, DTYPE_F32, x->rank, x->dims);
    return STATUS_OK;
}

/* Element `i` of an attribute that has one number for all features or one for each. */
static double feature_number(const float *values, size_t count, int64_t i, double absent)
{
    return count == 0 ? absent : (double)values[count == 1 ? 0 : (size_t)i % count];
}

static Status scaler_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    size_t offsets, scales;
    const float *offset = node_floats(context->node, "offset", &offsets);
    const float *scale = node_floats(context->node, "scale", &scales);
    const int64_t features = x->rank > 0 ? x->dims[x->rank - 1] : 1;
    Array *values;
    if ((offsets > 1 && (int64_t)offsets != features) || (scales > 1 && (int64_t)scales != features))
        return eval_fail(context, err, "%zu offsets and %zu scales for %lld features", offsets, scales,
                         (long long)features);
    TRY(real_input(context, &values, err));
    double *y = values->data;
    for (int64_t i = 0; i < values->count; i++)
        y[i] = (y[i] - feature_number(offset, offsets, i, 0)) * feature_number(scale, scales, i, 1);
    return real_store(context, values, DTYPE_F32, err);
}

static Value *feature_constant(Builder *b, const float *values, size_t count)
{
    const int64_t dim = (int64_t)count;
    void *data;
    Tensor *tensor = tensor_new(&b->graph->model->arena, NULL, DTYPE_F32, 1, &dim, &data);
    memcpy(data, values, count * sizeof *values);
    return build_constant(b, tensor);
}

/* y = (x - offset) * scale */
static Status scaler_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    size_t offsets, scales;
    const float *offset = node_floats(node, "offset", &offsets), *scale = node_floats(node, "scale", &scales);
    Value *y = node->inputs[0];
    if (y->type.dtype != DTYPE_F32 || (offsets == 0 && scales == 0))
        return STATUS_OK;
    if (offsets > 0)
        y = build2(b, "Sub", y, feature_constant(b, offset, offsets));
    if (scales > 0)
        y = build2(b, "Mul", y, feature_constant(b, scale, scales));
    if (y)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

static double row_norm(const double *row, int64_t n, const char *norm)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (strcmp(norm, "MAX") == 0)
            sum = fmax(sum, row[i]);
        else
            sum += strcmp(norm, "L1") == 0 ? fabs(row[i]) : row[i] * row[i];
    }
    return strcmp(norm, "L2") == 0 ? sqrt(sum) : sum;
}

static Status normalizer_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const char *norm = node_string(context->node, "norm", "MAX");
    const int64_t features = x->rank > 0 ? x->dims[x->rank - 1] : 1;
    Array *values;
    if (strcmp(norm, "MAX") != 0 && strcmp(norm, "L1") != 0 && strcmp(norm, "L2") != 0)
        return eval_fail(context, err, "norm '%s'", norm);
    TRY(real_input(context, &values, err));
    for (int64_t r = 0; features > 0 && r < values->count / features; r++) {
        double *row = (double *)values->data + r * features, length = row_norm(row, features, norm);
        for (int64_t i = 0; i < features && length != 0; i++)
            row[i] /= length;
    }
    return real_store(context, values, DTYPE_F32, err);
}

/* ---- LabelEncoder: a table from keys to values -------------------------------------------------------- */

/* keys_* or values_* as an array: strings, int64s, floats or a tensor. NULL when there is none. */
static Status label_list(EvalContext *context, const char *prefix, Array **out, Error *err)
{
    static const char *const kinds[] = {"strings", "int64s", "floats", "tensor"};
    static const DType dtypes[] = {DTYPE_STRING, DTYPE_I64, DTYPE_F32};
    *out = NULL;
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s_%s", prefix, kinds[i]);
        const Attr *attr = node_attr(context->node, name);
        if (!attr)
            continue;
        if (i == 3)
            return array_from_tensor(context->arena, attr->t, out, err);
        const int64_t count = (int64_t)attr->count;
        TRY(array_new(context->arena, dtypes[i], 1, &count, out, err));
        const void *from = i == 0 ? (const void *)attr->strings : i == 1 ? (const void *)attr->ints : attr->floats;
        if (count > 0)
            memcpy((*out)->data, from, attr->count * dtype_size(dtypes[i]));
        return STATUS_OK;
    }
    return STATUS_OK;
}

/* What keys that are not in the table become, in the values' type. */
static Status label_default(EvalContext *context, DType dtype, const void **value, Error *err)
{
    const Node *node = context->node;
    const Tensor *tensor = node_tensor(node, "default_tensor");
    const Attr *text = node_attr(node, "default_string");
    Array *made, *converted;
    if (dtype == DTYPE_STRING && !tensor) {
        *value = arena_copy(context->arena, text ? &text->s : &(Bytes){"_Unused", 7}, sizeof(Bytes));
        return STATUS_OK;
    }
    if (tensor) {
        TRY(array_from_tensor(context->arena, tensor, &made, err));
    } else {
        TRY(array_new(context->arena, DTYPE_F64, 0, NULL, &made, err));
        *(double *)made->data = dtype_is_float(dtype) ? (double)node_float(node, "default_float", -0.0f)
                                                      : (double)node_int(node, "default_int64", -1);
    }
    converted = made;
    if (made->dtype != dtype)
        TRY(array_convert(context->arena, made, dtype, &converted, err));
    *value = converted->data;
    return made->count == 1 ? STATUS_OK
                            : eval_fail(context, err, "default_tensor has %lld elements", (long long)made->count);
}

static Status labels_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    Array *keys, *values, *out;
    const void *absent;
    TRY(label_list(context, "keys", &keys, err));
    TRY(label_list(context, "values", &values, err));
    if (!keys || !values || keys->count != values->count || keys->dtype != x->dtype)
        return eval_fail(context, err, "%lld keys of %s and %lld values for %s", keys ? (long long)keys->count : 0LL,
                         keys ? dtype_name(keys->dtype) : "nothing", values ? (long long)values->count : 0LL,
                         dtype_name(x->dtype));
    TRY(label_default(context, values->dtype, &absent, err));
    TRY(eval_output(context, 0, values->dtype, x->rank, x->dims, &out, err));
    const size_t size = dtype_size(x->dtype), out_size = dtype_size(values->dtype);
    for (int64_t i = 0; i < x->count; i++) {
        const void *found = absent;
        for (int64_t k = keys->count - 1; k >= 0 && found == absent; k--) /* the last of equal keys counts */
            if (element_compare(x->dtype, (const char *)x->data + (size_t)i * size,
                                (const char *)keys->data + (size_t)k * size) == 0)
                found = (const char *)values->data + (size_t)k * out_size;
        memcpy((char *)out->data + (size_t)i * out_size, found, out_size);
    }
    return STATUS_OK;
}

/* Version 1 knew strings and their positions only: classes_strings. */
static Status classes_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const Attr *classes = node_attr(context->node, "classes_strings"),
               *text = node_attr(context->node, "default_string");
    const int64_t count = classes ? (int64_t)classes->count : 0;
    Array *out;
    TRY(eval_output(context, 0, x->dtype == DTYPE_STRING ? DTYPE_I64 : DTYPE_STRING, x->rank, x->dims, &out, err));
    for (int64_t i = 0; i < x->count; i++) {
        if (x->dtype != DTYPE_STRING) {
            const int64_t at = array_i64_at(x, i);
            ((Bytes *)out->data)[i] = at >= 0 && at < count ? classes->strings[at]
                                      : text                ? text->s
                                                            : (Bytes){"_Unused", 7};
            continue;
        }
        int64_t found = node_int(context->node, "default_int64", -1);
        for (int64_t k = 0; k < count; k++)
            if (element_compare(DTYPE_STRING, (const Bytes *)x->data + i, &classes->strings[k]) == 0)
                found = k;
        ((int64_t *)out->data)[i] = found;
    }
    return STATUS_OK;
}

/* ---- TreeEnsemble ------------------------------------------------------------------------------------- */

enum { BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ, BRANCH_MEMBER };
enum { SUM_AVERAGE, SUM_SUM, SUM_MIN, SUM_MAX };

typedef struct Forest {
    const int64_t *roots, *features, *true_ids, *false_ids, *true_leafs, *false_leafs, *targets, *missing;
    const Tensor *modes, *splits, *weights, *members;
    int64_t *member_first; /* of each node with BRANCH_MEMBER: its first member */
    size_t trees, nodes, leaves;
    int64_t target_count;
} Forest;

static Status forest_check(const Node *node, const Forest *f, Error *err)
{
    bool good = f->modes && f->splits && f->weights && f->features && f->true_ids && f->false_ids && f->true_leafs &&
                f->false_leafs && f->targets && f->target_count > 0;
    if (!good || tensor_count(f->modes) != (int64_t)f->nodes || tensor_count(f->splits) != (int64_t)f->nodes ||
        tensor_count(f->weights) != (int64_t)f->leaves)
        return infer_fail(node, err, "%zu nodes and %zu leaves with attributes that are missing or of other lengths",
                          f->nodes, f->leaves);
    for (size_t i = 0; i < f->nodes && good; i++) {
        good = f->features[i] >= 0 && f->true_ids[i] >= 0 && f->false_ids[i] >= 0;
        good = good && f->true_ids[i] < (int64_t)(f->true_leafs[i] ? f->leaves : f->nodes);
        good = good && f->false_ids[i] < (int64_t)(f->false_leafs[i] ? f->leaves : f->nodes);
    }
    for (size_t i = 0; i < f->trees && good; i++)
        good = f->roots[i] >= 0 && f->roots[i] < (int64_t)f->nodes;
    for (size_t i = 0; i < f->leaves && good; i++)
        good = f->targets[i] >= 0 && f->targets[i] < f->target_count;
    return good ? STATUS_OK : infer_fail(node, err, "a tree points outside the ensemble");
}

static Status forest_read(const Node *node, Arena *arena, Forest *f, Error *err)
{
    size_t counts[6];
    f->roots = node_ints(node, "tree_roots", &f->trees);
    f->features = node_ints(node, "nodes_featureids", &f->nodes);
    f->true_ids = node_ints(node, "nodes_truenodeids", &counts[0]);
    f->false_ids = node_ints(node, "nodes_falsenodeids", &counts[1]);
    f->true_leafs = node_ints(node, "nodes_trueleafs", &counts[2]);
    f->false_leafs = node_ints(node, "nodes_falseleafs", &counts[3]);
    f->targets = node_ints(node, "leaf_targetids", &f->leaves);
    f->missing = node_ints(node, "nodes_missing_value_tracks_true", &counts[4]);
    f->modes = node_tensor(node, "nodes_modes");
    f->splits = node_tensor(node, "nodes_splits");
    f->weights = node_tensor(node, "leaf_weights");
    f->members = node_tensor(node, "membership_values");
    f->target_count = node_int(node, "n_targets", 0);
    for (int i = 0; i < 4; i++)
        if (counts[i] != f->nodes)
            return infer_fail(node, err, "%zu and %zu entries for as many nodes", f->nodes, counts[i]);
    if (f->missing && counts[4] != f->nodes)
        f->missing = NULL;
    TRY(forest_check(node, f, err));
    f->member_first = arena_array(arena, int64_t, f->nodes + 1);
    int64_t at = 0, members = f->members ? tensor_count(f->members) : 0;
    for (size_t i = 0; i < f->nodes; i++) {
        if (tensor_i64_at(f->modes, (int64_t)i) != BRANCH_MEMBER)
            continue;
        f->member_first[i] = at;
        while (at < members && !isnan(tensor_f64_at(f->members, at)))
            at++;
        if (at++ >= members)
            return infer_fail(node, err, "node %zu tests membership and has no members", i);
    }
    return STATUS_OK;
}

static bool goes_true(const Forest *f, size_t node, double x)
{
    const double split = tensor_f64_at(f->splits, (int64_t)node);
    if (isnan(x))
        return f->missing && f->missing[node];
    switch (tensor_i64_at(f->modes, (int64_t)node)) {
    case BRANCH_LEQ:
        return x <= split;
    case BRANCH_LT:
        return x < split;
    case BRANCH_GTE:
        return x >= split;
    case BRANCH_GT:
        return x > split;
    case BRANCH_EQ:
        return x == split;
    case BRANCH_NEQ:
        return x != split;
    default:
        for (int64_t i = f->member_first[node]; !isnan(tensor_f64_at(f->members, i)); i++)
            if (tensor_f64_at(f->members, i) == x)
                return true;
        return false;
    }
}

/* The leaf that row `x` ends in; a tree can be no deeper than it has nodes. */
static Status forest_leaf(EvalContext *context, const Forest *f, int64_t root, const double *x, int64_t features,
                          int64_t *leaf, Error *err)
{
    size_t at = (size_t)root;
    for (size_t depth = 0; depth <= f->nodes; depth++) {
        if (f->features[at] >= features)
            return eval_fail(context, err, "node %zu reads feature %lld of %lld", at, (long long)f->features[at],
                             (long long)features);
        const bool yes = goes_true(f, at, x[f->features[at]]);
        *leaf = yes ? f->true_ids[at] : f->false_ids[at];
        if (yes ? f->true_leafs[at] : f->false_leafs[at])
            return STATUS_OK;
        at = (size_t)*leaf;
    }
    return eval_fail(context, err, "a tree runs in a circle");
}

static void forest_add(double *y, double weight, int64_t aggregate, size_t trees)
{
    if (aggregate == SUM_MIN)
        *y = fmin(*y, weight);
    else if (aggregate == SUM_MAX)
        *y = fmax(*y, weight);
    else
        *y += aggregate == SUM_AVERAGE ? weight / (double)trees : weight;
}

static Status forest_transform(EvalContext *context, double *row, int64_t n, Error *err)
{
    const int64_t transform = node_int(context->node, "post_transform", 0);
    double top = row[0], sum = 0;
    if (transform == 0)
        return STATUS_OK;
    if (transform == 4 || transform < 0 || transform > 4)
        return fail(err, STATUS_UNSUPPORTED, "%s: post_transform %lld", node_text(context->node), (long long)transform);
    for (int64_t i = 0; i < n; i++)
        top = fmax(top, row[i]);
    for (int64_t i = 0; i < n; i++) {
        bool skip = transform == 3 && row[i] == 0; /* SOFTMAX_ZERO leaves zeros out */
        row[i] = transform == 2 ? 1 / (1 + exp(-row[i])) : skip ? 0 : exp(row[i] - top);
        sum += row[i];
    }
    for (int64_t i = 0; i < n && transform != 2; i++)
        row[i] = sum > 0 ? row[i] / sum : row[i];
    return STATUS_OK;
}

static Status forest_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    if (x->rank != 2)
        return infer_fail(node, err, "input of rank %d", x->rank);
    type_set(&node->outputs[0]->type, x->dtype, 2, (int64_t[]){x->dims[0], node_int(node, "n_targets", 0)});
    return STATUS_OK;
}

static Status forest_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t aggregate = node_int(context->node, "aggregate_function", SUM_SUM);
    Forest f = {0};
    Array *rows, *out, *converted;
    if (x->rank != 2 || aggregate < SUM_AVERAGE || aggregate > SUM_MAX)
        return eval_fail(context, err, "input of rank %d, aggregate_function %lld", x->rank, (long long)aggregate);
    TRY(forest_read(context->node, context->arena, &f, err));
    TRY(array_convert(context->arena, x, DTYPE_F64, &rows, err));
    TRY(array_new(context->arena, DTYPE_F64, 2, (int64_t[]){x->dims[0], f.target_count}, &out, err));
    const double start = aggregate == SUM_MIN ? INFINITY : aggregate == SUM_MAX ? -INFINITY : 0;
    for (int64_t r = 0; r < x->dims[0]; r++) {
        double *y = (double *)out->data + r * f.target_count;
        for (int64_t t = 0; t < f.target_count; t++)
            y[t] = start;
        for (size_t t = 0; t < f.trees; t++) {
            int64_t leaf = 0;
            TRY(forest_leaf(context, &f, f.roots[t], (const double *)rows->data + r * x->dims[1], x->dims[1], &leaf,
                            err));
            forest_add(&y[f.targets[leaf]], tensor_f64_at(f.weights, leaf), aggregate, f.trees);
        }
        TRY(forest_transform(context, y, f.target_count, err));
    }
    TRY(array_convert(context->arena, out, x->dtype, &converted, err));
    return eval_output_same(context, 0, converted, err);
}

/* clang-format off */
const OpDef ops_ml[] = {
    {.domain = ML_DOMAIN, .name = "ArrayFeatureExtractor", .since = 1, .last = 5, .min_inputs = 2, .max_inputs = 2,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = extract_infer, .eval = extract_eval},
    {.domain = ML_DOMAIN, .name = "Binarizer", .since = 1, .last = 5, .min_inputs = 1, .max_inputs = 1,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = infer_same, .eval = binarizer_eval,
     .no_gradient = "its result is a step"},
    {.domain = ML_DOMAIN, .name = "Scaler", .since = 1, .last = 5, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = real_infer, .eval = scaler_eval, .expand = scaler_expand,
     .no_case = "not among the node tests; tests/test_ops_move.c checks it"},
    {.domain = ML_DOMAIN, .name = "Normalizer", .since = 1, .last = 5, .min_inputs = 1, .max_inputs = 1,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = real_infer, .eval = normalizer_eval,
     .no_case = "not among the node tests; tests/test_ops_move.c checks it"},
    {.domain = ML_DOMAIN, .name = "LabelEncoder", .since = 1, .last = 1, .min_inputs = 1, .max_inputs = 1,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = classes_eval,
     .no_gradient = "labels carry no gradient", .no_case = "version 1 is not among the node tests"},
    {.domain = ML_DOMAIN, .name = "LabelEncoder", .since = 2, .last = 5, .min_inputs = 1, .max_inputs = 1,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = labels_eval,
     .no_gradient = "labels carry no gradient"},
    {.domain = ML_DOMAIN, .name = "TreeEnsemble", .since = 5, .last = 5, .min_inputs = 1, .max_inputs = 1,
     .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = forest_infer, .eval = forest_eval,
     .no_gradient = "trees are steps"},
    {0},
};
/* clang-format on */
