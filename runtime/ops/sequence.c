/* Sequences and optionals. Items are shared, never copied: a sequence is a list of pointers. None of it is planned;
 * only the interpreter runs it. */
#include "runtime/ops/ops.h"

#include <string.h>

static Array *sequence_new(EvalContext *context, int index, DType dtype, size_t count)
{
    Array *sequence = arena_new(context->arena, Array);
    sequence->kind = ARRAY_SEQUENCE;
    sequence->dtype = dtype;
    sequence->items = arena_array(context->arena, Array *, count + 1);
    sequence->item_count = count;
    if (index < context->out_count)
        context->out[index] = sequence;
    return sequence;
}

static Status expect_sequence(EvalContext *context, const Array *x, Error *err)
{
    return x->kind == ARRAY_SEQUENCE ? STATUS_OK : eval_fail(context, err, "input 0 is not a sequence");
}

/* A position in a sequence; `end`: one behind the last is allowed too. */
static Status sequence_position(EvalContext *context, int input, size_t count, bool end, size_t absent, size_t *at,
                                Error *err)
{
    const Array *position = eval_input(context, input);
    *at = absent;
    if (!position)
        return STATUS_OK;
    const int64_t n = (int64_t)count, wanted = position->count == 1 ? array_i64_at(position, 0) : INT64_MAX;
    if (wanted < -n || wanted >= n + (end ? 1 : 0))
        return eval_fail(context, err, "position %lld in a sequence of %lld", (long long)wanted, (long long)n);
    *at = (size_t)(wanted < 0 ? wanted + n : wanted);
    return STATUS_OK;
}

static Array *shared(EvalContext *context, const Array *x)
{
    return arena_copy(context->arena, x, sizeof *x);
}

/* ---- Sequence* ---------------------------------------------------------------------------------------- */

static Status construct_eval(EvalContext *context, Error *err)
{
    Array *out = sequence_new(context, 0, context->in[0]->dtype, (size_t)context->in_count);
    for (int i = 0; i < context->in_count; i++) {
        if (context->in[i]->dtype != out->dtype)
            return eval_fail(context, err, "input %d is %s, the first %s", i, dtype_name(context->in[i]->dtype),
                             dtype_name(out->dtype));
        out->items[i] = shared(context, context->in[i]);
    }
    return STATUS_OK;
}

static Status empty_eval(EvalContext *context, Error *err)
{
    (void)err;
    sequence_new(context, 0, (DType)node_int(context->node, "dtype", DTYPE_F32), 0);
    return STATUS_OK;
}

static Status length_eval(EvalContext *context, Error *err)
{
    Array *out;
    TRY(expect_sequence(context, context->in[0], err));
    TRY(eval_output(context, 0, DTYPE_I64, 0, NULL, &out, err));
    *(int64_t *)out->data = (int64_t)context->in[0]->item_count;
    return STATUS_OK;
}

static Status at_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    size_t at = 0;
    TRY(expect_sequence(context, x, err));
    TRY(sequence_position(context, 1, x->item_count, false, 0, &at, err));
    return eval_output_same(context, 0, x->items[at], err);
}

static Status insert_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    size_t at = 0;
    TRY(expect_sequence(context, x, err));
    TRY(sequence_position(context, 2, x->item_count, true, x->item_count, &at, err));
    Array *out = sequence_new(context, 0, context->in[1]->dtype, x->item_count + 1);
    for (size_t i = 0; i < out->item_count; i++)
        out->items[i] = i < at ? x->items[i] : i == at ? shared(context, context->in[1]) : x->items[i - 1];
    return STATUS_OK;
}

static Status erase_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    size_t at = 0;
    TRY(expect_sequence(context, x, err));
    if (x->item_count == 0)
        return eval_fail(context, err, "the sequence is empty");
    TRY(sequence_position(context, 1, x->item_count, false, x->item_count - 1, &at, err));
    Array *out = sequence_new(context, 0, x->dtype, x->item_count - 1);
    for (size_t i = 0; i < out->item_count; i++)
        out->items[i] = x->items[i < at ? i : i + 1];
    return STATUS_OK;
}

/* ---- between tensors and sequences -------------------------------------------------------------------- */

/* Elements [begin, begin + size) of `x` along `axis`. */
static Status array_part(EvalContext *context, const Array *x, int axis, int64_t begin, int64_t size, Array **out,
                         Error *err)
{
    int64_t dims[RANK_MAX], from[RANK_MAX], to[RANK_MAX];
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = size;
    TRY(array_new(context->arena, x->dtype, x->rank, dims, out, err));
    strides_dense(x->rank, x->dims, from);
    strides_dense(x->rank, dims, to);
    StridedCopy copy = strided_make(x->rank, dims, from, to, dtype_size(x->dtype));
    strided_run(&copy, (const char *)x->data + (size_t)(begin * from[axis]) * dtype_size(x->dtype), (*out)->data);
    return STATUS_OK;
}

/* Lengths of the parts: one each, all `split` but the last, or as listed. */
static Status part_sizes(EvalContext *context, int64_t dim, int64_t **sizes, size_t *count, Error *err)
{
    const Array *split = eval_input(context, 1);
    const int64_t chunk = !split ? 1 : split->rank == 0 ? array_i64_at(split, 0) : 0;
    int64_t total = 0;
    if (split && split->rank > 1)
        return eval_fail(context, err, "split has rank %d", split->rank);
    if (split && split->rank == 1) {
        TRY(eval_ints(context, 1, (const int64_t **)sizes, count, err));
    } else if (chunk < 1) {
        return eval_fail(context, err, "split is %lld", (long long)chunk);
    } else {
        *count = (size_t)((dim + chunk - 1) / chunk);
        *sizes = arena_array(context->arena, int64_t, *count + 1);
        for (size_t i = 0; i < *count; i++)
            (*sizes)[i] = dim - (int64_t)i * chunk < chunk ? dim - (int64_t)i * chunk : chunk;
    }
    for (size_t i = 0; i < *count; i++)
        if ((*sizes)[i] < 0 || __builtin_add_overflow(total, (*sizes)[i], &total))
            return eval_fail(context, err, "part %zu of %lld", i, (long long)(*sizes)[i]);
    if (total != dim)
        return eval_fail(context, err, "parts sum to %lld, the axis has %lld", (long long)total, (long long)dim);
    return STATUS_OK;
}

static Status split_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const bool drop = !eval_input(context, 1) && node_int(context->node, "keepdims", 1) == 0;
    int64_t *sizes = NULL, begin = 0;
    size_t count = 0;
    int axis = 0;
    TRY(axis_normalize(context->node, node_int(context->node, "axis", 0), x->rank, &axis, err));
    TRY(part_sizes(context, x->dims[axis], &sizes, &count, err));
    Array *out = sequence_new(context, 0, x->dtype, count);
    for (size_t i = 0; i < count; i++) {
        TRY(array_part(context, x, axis, begin, sizes[i], &out->items[i], err));
        begin += sizes[i];
        if (drop) {
            Array *item = out->items[i];
            item->rank--;
            memmove(item->dims + axis, item->dims + axis + 1, (size_t)(item->rank - axis) * sizeof item->dims[0]);
        }
    }
    return STATUS_OK;
}

/* Shape of the joined items; with a new axis each has one element along it. */
static Status joined_dims(EvalContext *context, const Array *x, bool new_axis, int *axis, int *rank, int64_t *dims,
                          Error *err)
{
    if (x->item_count == 0)
        return eval_fail(context, err, "the sequence is empty");
    const Array *first = x->items[0];
    *rank = first->rank + (new_axis ? 1 : 0);
    if (*rank > RANK_MAX)
        return eval_fail(context, err, "result would have more than %d dims", RANK_MAX);
    TRY(axis_normalize(context->node, node_int(context->node, "axis", 0), *rank, axis, err));
    for (int d = 0; d < *rank; d++)
        dims[d] = !new_axis || d < *axis ? first->dims[d] : d == *axis ? 1 : first->dims[d - 1];
    dims[*axis] = 0;
    for (size_t i = 0; i < x->item_count; i++) {
        const Array *item = x->items[i];
        bool fits = item->rank == first->rank && item->dtype == first->dtype;
        for (int d = 0; d < first->rank && fits; d++)
            fits = (!new_axis && d == *axis) || item->dims[d] == first->dims[d];
        if (!fits)
            return eval_fail(context, err, "item %zu has shape %s, the first %s", i,
                             dims_text(context->arena, item->rank, item->dims),
                             dims_text(context->arena, first->rank, first->dims));
        dims[*axis] += new_axis ? 1 : item->dims[*axis];
    }
    return STATUS_OK;
}

static Status concat_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const bool new_axis = node_int(context->node, "new_axis", 0) != 0;
    int axis = 0, rank = 0;
    int64_t dims[RANK_MAX], at = 0;
    Array *out;
    TRY(expect_sequence(context, x, err));
    TRY(joined_dims(context, x, new_axis, &axis, &rank, dims, err));
    TRY(eval_output(context, 0, x->items[0]->dtype, rank, dims, &out, err));
    const int64_t outer = dims_count(axis, dims), inner = dims_count(rank - axis - 1, dims + axis + 1);
    const size_t size = dtype_size(out->dtype);
    for (size_t i = 0; i < x->item_count; i++) {
        const Array *item = x->items[i];
        const int64_t length = new_axis ? 1 : item->dims[axis];
        const size_t run = (size_t)(length * inner) * size;
        for (int64_t o = 0; o < outer; o++)
            memcpy((char *)out->data + (size_t)((o * dims[axis] + at) * inner) * size,
                   (const char *)item->data + (size_t)o * run, run);
        at += length;
    }
    return STATUS_OK;
}

/* ---- optionals ---------------------------------------------------------------------------------------- */

static Status optional_eval(EvalContext *context, Error *err)
{
    (void)err;
    const Array *x = eval_input(context, 0);
    Array *out = arena_new(context->arena, Array);
    out->kind = ARRAY_OPTIONAL;
    out->items = arena_array(context->arena, Array *, 1);
    out->item_count = x ? 1 : 0;
    out->dtype = x ? x->dtype : DTYPE_UNDEFINED;
    out->items[0] = x ? shared(context, x) : NULL;
    context->out[0] = out;
    return STATUS_OK;
}

static Status has_element_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    Array *out;
    TRY(eval_output(context, 0, DTYPE_BOOL, 0, NULL, &out, err));
    *(uint8_t *)out->data = x && (x->kind != ARRAY_OPTIONAL || x->item_count > 0);
    return STATUS_OK;
}

static Status get_element_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    if (x->kind == ARRAY_OPTIONAL && x->item_count == 0)
        return eval_fail(context, err, "the optional is empty");
    return eval_output_same(context, 0, x->kind == ARRAY_OPTIONAL ? x->items[0] : x, err);
}

static Status get_element_infer(Node *node, Error *err)
{
    return infer_same(node, err); /* only known when the input is a tensor, which it then passes on */
}

static Status get_element_grad(GradContext *context, Error *err)
{
    (void)err;
    context->dx[0] = context->dy[0];
    return STATUS_OK;
}

static Status scalar_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, node_is(node, "SequenceLength") ? DTYPE_I64 : DTYPE_BOOL, 0, NULL);
    return STATUS_OK;
}

static Status sequence_infer(Node *node, Error *err)
{
    (void)err;
    const Value *item = node_input(node, node_is(node, "SequenceInsert") ? 1 : 0);
    DType dtype = item != NULL ? item->type.dtype : node->outputs[0]->type.dtype;
    node->outputs[0]->type = (Type){.kind = TYPE_SEQUENCE, .dtype = dtype, .rank = -1};
    return STATUS_OK;
}

/* ---- sequences written out: a list of values that is known without running anything -------------------------- */

enum { ITEMS_MAX = 1024 };

/* The items of a sequence that is made of SequenceConstruct, or of SequenceEmpty and items put at its end; their count,
 * or -1. */
static int items_of(const Value *sequence, Value **items)
{
    const Node *node = sequence->producer;
    int count = 0;
    while (node != NULL && node_is(node, "SequenceInsert") && node_input(node, 2) == NULL && count < ITEMS_MAX) {
        items[count++] = node->inputs[1];
        node = node->inputs[0]->producer;
    }
    while (node != NULL && node_is(node, "Identity"))
        node = node->inputs[0]->producer;
    if (node == NULL || !(node_is(node, "SequenceEmpty") || node_is(node, "SequenceConstruct")))
        return -1;
    for (int i = node->input_count - 1; i >= 0; i--) {
        if (count == ITEMS_MAX)
            return -1;
        items[count++] = node->inputs[i];
    }
    for (int i = 0; i < count / 2; i++) {
        Value *other = items[i];
        items[i] = items[count - 1 - i];
        items[count - 1 - i] = other;
    }
    return count;
}

static Status concat_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    Value **items = arena_array(&node->graph->model->arena, Value *, ITEMS_MAX + 1);
    int count = items_of(node->inputs[0], items);
    bool new_axis = node_int(node, "new_axis", 0) != 0;
    int64_t axis = node_int(node, "axis", 0);
    for (int i = 0; i < count; i++)
        if (!type_known(&items[i]->type))
            return STATUS_OK;
    if (count < 1)
        return STATUS_OK;
    for (int i = 0; i < count && new_axis; i++)
        items[i] = build2(b, "Unsqueeze", items[i], build_ints(b, &axis, 1));
    Node *join = build_node(b, "", "Concat", items, count, 1);
    if (join == NULL)
        return b->status;
    node_set_int(join, "axis", axis);
    Value *made = build_finish(b, join);
    if (made != NULL)
        value_replace_uses(node->outputs[0], made);
    return b->status;
}

static Status at_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    (void)b;
    Value **items = arena_array(&node->graph->model->arena, Value *, ITEMS_MAX + 1);
    const Value *position = node->inputs[1];
    int count = items_of(node->inputs[0], items);
    if (count < 1 || position->constant == NULL)
        return STATUS_OK;
    int64_t at = tensor_i64_at(position->constant, 0);
    at += at < 0 ? count : 0;
    if (at >= 0 && at < count)
        value_replace_uses(node->outputs[0], items[at]);
    return STATUS_OK;
}

/* The pieces that SplitToSequence makes: how many, and their lengths; -1 when that is not known beforehand. Without an
 * operand `split` all are of length 1, with one number all but the last are as long as that. */
static int split_lengths(const Node *node, int64_t length, int64_t *lengths)
{
    const Value *split = node_input(node, 1);
    const Tensor *given = split == NULL ? NULL : split->constant;
    if (length < 0 || (split != NULL && given == NULL))
        return -1;
    if (given != NULL && given->rank > 0) {
        for (int64_t i = 0; i < given->dims[0] && i < ITEMS_MAX; i++)
            lengths[i] = tensor_i64_at(given, i);
        return given->dims[0] <= ITEMS_MAX ? (int)given->dims[0] : -1;
    }
    int64_t each = given == NULL ? 1 : tensor_i64_at(given, 0), count = each > 0 ? (length + each - 1) / each : 0;
    if (count < 1 || count > ITEMS_MAX)
        return -1;
    for (int64_t i = 0; i < count; i++)
        lengths[i] = i < count - 1 ? each : length - each * (count - 1);
    return (int)count;
}

/* -> Split, and Squeeze where pieces of length 1 lose the dim, -> SequenceConstruct, whose items are known. */
static Status split_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    Value *x = node->inputs[0];
    int64_t axis = node_int(node, "axis", 0), *lengths = arena_array(&node->graph->model->arena, int64_t, ITEMS_MAX);
    axis += axis < 0 ? x->type.rank : 0;
    int count = axis >= 0 && axis < x->type.rank ? split_lengths(node, x->type.dims[axis], lengths) : -1;
    if (count < 1)
        return STATUS_OK;
    Node *split = build_node(b, "", "Split", (Value *[]){x, build_ints(b, lengths, (size_t)count)}, 2, count);
    if (split == NULL)
        return b->status;
    node_set_int(split, "axis", axis);
    if (build_finish(b, split) == NULL)
        return b->status;
    Value **items = arena_array(&node->graph->model->arena, Value *, (size_t)count);
    bool squeezed = node_input(node, 1) == NULL && node_int(node, "keepdims", 1) == 0;
    for (int i = 0; i < count; i++)
        items[i] = squeezed ? build2(b, "Squeeze", split->outputs[i], build_ints(b, &axis, 1)) : split->outputs[i];
    Node *list = build_node(b, "", "SequenceConstruct", items, count, 1);
    Value *made = list == NULL ? NULL : build_finish(b, list);
    if (made != NULL)
        value_replace_uses(node->outputs[0], made);
    return b->status;
}

#define NO_GRADIENT "sequences carry no gradient where their items are not known beforehand"

/* clang-format off */
const OpDef ops_sequence[] = {
    {.name = "SequenceConstruct", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = -1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = sequence_infer, .eval = construct_eval, .no_gradient = NO_GRADIENT},
    {.name = "SequenceEmpty", .since = 11, .last = 28, .min_inputs = 0, .max_inputs = 0, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = sequence_infer, .eval = empty_eval, .no_gradient = NO_GRADIENT},
    {.name = "SequenceLength", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = scalar_infer, .eval = length_eval,
     .no_gradient = NO_GRADIENT},
    {.name = "SequenceAt", .since = 11, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = at_eval, .expand = at_expand, .no_gradient = NO_GRADIENT},
    {.name = "SequenceInsert", .since = 11, .last = 28, .min_inputs = 2, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = sequence_infer, .eval = insert_eval, .no_gradient = NO_GRADIENT},
    {.name = "SequenceErase", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = erase_eval, .no_gradient = NO_GRADIENT},
    {.name = "SplitToSequence", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = sequence_infer, .eval = split_eval, .expand = split_expand,
     .no_gradient = NO_GRADIENT},
    {.name = "ConcatFromSequence", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = concat_eval, .expand = concat_expand, .no_gradient = NO_GRADIENT},
    {.name = "Optional", .since = 15, .last = 28, .min_inputs = 0, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = optional_eval, .no_gradient = NO_GRADIENT},
    {.name = "OptionalHasElement", .since = 15, .last = 28, .min_inputs = 0, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = scalar_infer, .eval = has_element_eval},
    {.name = "OptionalGetElement", .since = 15, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = get_element_infer, .eval = get_element_eval,
     .grad = get_element_grad},
    {0},
};
/* clang-format on */
