/* A batch size that an exporter baked in, made the run's own (hazard 23).
 *
 * Tracing a model at one batch writes that number into shapes: Reshape [197,12,64] where 12 is batch times heads, an
 * expanded class token [1,1,768], an initial state [2,1,20]. Two copies are inferred side by side, one at the file's
 * batch and one at another. A value's batch lies where their shapes differ; how it passes through a Reshape follows
 * from the order of elements, which a Reshape keeps. Where the target says otherwise, the dim that holds the batch
 * becomes -1 in the document; constants that meet the batch are expanded to it. */
#include <inttypes.h>
#include <string.h>

#include "passes/batch.h"

enum { LARGE = 4096, CANDIDATES = 65 };

/* ---- copies at a batch ------------------------------------------------------------------------------------- */

static bool is_batch_dim(const Value *input)
{
    return value_is_fed_input(input) && input->type.kind == TYPE_TENSOR && input->type.rank > 0;
}

/* Binds the inputs: those whose first dim is open or `from` get `batch` there. */
static void bind_inputs(const Rebatch *r, Graph *graph, int64_t batch)
{
    for (size_t i = 0; i < graph->input_count; i++) {
        Type *type = &graph->inputs[i]->type;
        int64_t dims[RANK_MAX];
        if (!value_is_fed_input(graph->inputs[i]) || type->kind != TYPE_TENSOR || type->rank < 0)
            continue;
        for (int axis = 0; axis < type->rank; axis++) {
            bool first = axis == 0 && (type->dims[0] < 0 || type->dims[0] == r->from);
            int64_t usual = type->rank >= 4 ? (axis > 1 ? 224 : 3) : 12;
            dims[axis] = first ? batch : type->dims[axis] < 0 ? usual : type->dims[axis];
        }
        type_set(type, type->dtype, type->rank, dims);
    }
}

static Status copy_at(const Rebatch *r, int64_t batch, Model **copy, Error *err)
{
    TRY(working_copy(r->document, copy, err));
    Graph *graph = (*copy)->graph;
    for (size_t i = 0; i < graph->initializer_count; i++) /* computing with weights tells nothing about shapes */
        if (graph->initializers[i]->constant != NULL && tensor_count(graph->initializers[i]->constant) > LARGE)
            graph->initializers[i]->role = ROLE_PARAMETER;
    bind_inputs(r, graph, batch);
    infer_constants(graph);
    return STATUS_OK;
}

/* The dim that the batch moves. */
int batch_axis(const Value *base, const Value *other)
{
    const Type *a = &base->type, *b = &other->type;
    int found = BATCH_NONE;
    if (a->kind != TYPE_TENSOR || a->rank < 0 || a->rank != b->rank)
        return BATCH_NONE;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            found = found == BATCH_NONE ? i : BATCH_SEVERAL;
    return found;
}

/* Inference goes through, and samples come out where samples would: first, or in a dim of their own, as far as
 * shapes are known. */
static bool fits_at(const Rebatch *r, int64_t batch, const Model *base, Error *err)
{
    Model *copy = NULL;
    Status status = copy_at(r, batch, &copy, err);
    if (status == STATUS_OK)
        status = pass_infer_known(copy->graph, err);
    bool moves = base == NULL || base->graph->output_count == 0;
    for (size_t i = 0; status == STATUS_OK && base != NULL && i < copy->graph->output_count; i++) {
        const Value *output = base->graph->outputs[i];
        int axis = batch_axis(output, copy->graph->outputs[i]);
        moves = moves || !type_known(&output->type) || axis == 0 || (axis > 0 && output->type.dims[axis] == r->from);
    }
    model_free(copy);
    return status == STATUS_OK && moves;
}

/* ---- nodes of the document ---------------------------------------------------------------------------------- */

Status batch_refuse(const Rebatch *r, const Node *node, const char *why, Error *err)
{
    return fail(err, STATUS_UNSUPPORTED,
                "%s: only a batch of %" PRId64 " fits, %s; export again with a dynamic batch (dynamic_axes or "
                "dynamic_shapes), or train with --batch %" PRId64,
                node_text(node), r->from, why, r->from);
}

/* The node to edit; NULL when it is not in the main graph or was another operator there. */
Node *batch_editable(const Rebatch *r, const Node *node)
{
    Node *found = (Node *)(uintptr_t)node->document_node;
    bool same = found != NULL && found->graph == r->document->graph && strcmp(found->op_type, node->op_type) == 0;
    return same ? found : NULL;
}

void batch_count(Rebatch *r, const Node *node)
{
    if (r->report->rewritten++ == 0)
        r->report->first = arena_strdup(&r->document->arena, node_text(node));
}

Value *batch_ints(Graph *graph, const char *stem, int rank, const int64_t *dims, const int64_t *values)
{
    const char *name = graph_unique_name(graph, stem);
    Value *value = graph_add_weight(graph, tensor_new_i64(&graph->model->arena, name, rank, dims, values));
    type_set(&value->type, DTYPE_I64, rank, dims);
    return value;
}

static Value *new_ints(Graph *graph, const char *stem, size_t count, const int64_t *values)
{
    return batch_ints(graph, stem, 1, (int64_t[]){(int64_t)count}, values);
}

Value *batch_node(Rebatch *r, Node *before, const char *op_type, const char *name, Value *const *inputs, int count)
{
    Graph *graph = r->document->graph;
    int opset = (int)model_opset(r->document, "");
    return graph_add_node(graph, before, "", op_type, opset, graph_unique_name(graph, name), inputs, count, 1)
        ->outputs[0];
}

void batch_set_input(Node *node, int index, Value *value)
{
    Value *old = node->inputs[index];
    node_set_input(node, index, value);
    if (old == NULL || old->use_count > 0 || old->is_output || old->is_input)
        return;
    if (old->is_initializer)
        graph_remove_initializer(node->graph, old);
    else if (old->producer != NULL && node_is(old->producer, "Constant"))
        node_remove(old->producer);
}

/* The batch of the run as a value: the first dim of an input. */
static Value *batch_value(Rebatch *r)
{
    Graph *graph = r->document->graph;
    if (r->batch != NULL)
        return r->batch;
    Value *input = graph_find(graph, r->input->name);
    Value *shape = batch_node(r, graph->first, "Shape", "regraft_shape", &input, 1);
    Value *range[] = {shape, new_ints(graph, "regraft_zero", 1, (int64_t[]){0}),
                      new_ints(graph, "regraft_one", 1, (int64_t[]){1})};
    r->batch = batch_node(r, shape->producer->next, "Slice", "regraft_batch", range, 3);
    return r->batch;
}

/* [dims before, batch, dims behind] for `node`. */
Value *batch_shape(Rebatch *r, Node *node, int rank, int axis, const int64_t *dims)
{
    Graph *graph = r->document->graph;
    Value *parts[3];
    int count = 0;
    if (axis > 0)
        parts[count++] = new_ints(graph, "regraft_dims", (size_t)axis, dims);
    parts[count++] = batch_value(r);
    if (axis + 1 < rank)
        parts[count++] = new_ints(graph, "regraft_dims", (size_t)(rank - axis - 1), dims + axis + 1);
    Value *shape = batch_node(r, node, "Concat", "regraft_target", parts, count);
    node_set_int(shape->producer, "axis", 0);
    return shape;
}

/* ---- Reshape ------------------------------------------------------------------------------------------------ */

/* Value.mark of the other copy: one more than the elements that lie inside of the batch in its dim; 0: all that are not
 * the batch (batch*heads). */
int64_t batch_inner_part(const Rebatch *r, const Value *other, int64_t dim)
{
    return other->mark > 0 ? other->mark - 1 : dim / r->from;
}

/* A constant target, the same at both batches. */
bool batch_baked_ints(const Node *base, const Node *other, int index, Arena *arena, int64_t **values, size_t *count)
{
    const Value *a = node_input(base, index), *b = node_input(other, index);
    if (a == NULL || b == NULL || a->constant == NULL || b->constant == NULL || !tensor_equal(a->constant, b->constant))
        return false;
    int64_t length = tensor_count(a->constant);
    *values = arena_array(arena, int64_t, (size_t)length + 1);
    *count = (size_t)length;
    for (int64_t i = 0; i < length; i++)
        (*values)[i] = tensor_i64_at(a->constant, i);
    return true;
}

/* Which dim of `out` holds the batch when `before` elements lie outside of it: a dim of its own, else one whose outer
 * part it is, else one whose inner part; the last dim, which a layer's weight asks for, only where nothing else is
 * left. */
static int place_of_batch(const Rebatch *r, const Type *out, int64_t before, int64_t *inner)
{
    int found = BATCH_NONE, best = -1;
    int64_t prefix = 1;
    for (int d = 0; d < out->rank && prefix > 0; prefix *= out->dims[d++]) {
        int64_t outer = before / prefix, dim = out->dims[d];
        if (before % prefix != 0 || outer == 0 || dim % (outer * r->from) != 0)
            continue;
        bool own = dim == r->from && outer == 1, last = d == out->rank - 1;
        int score = own ? 4 : last && out->rank > 1 ? 0 : outer == 1 ? 3 : dim == outer * r->from ? 2 : 1;
        if (score > best) {
            found = d;
            best = score;
            *inner = dim / (outer * r->from);
        }
    }
    return found;
}

static bool same_but_batch(const Rebatch *r, const Type *base, const Type *other, int axis)
{
    if (base->rank != other->rank)
        return false;
    for (int i = 0; i < base->rank; i++)
        if (other->dims[i] != (i == axis ? base->dims[i] / r->from * r->to : base->dims[i]))
            return false;
    return true;
}

static Status rewrite_target(Rebatch *r, const Node *base, Node *other, int axis, const int64_t *target, Error *err)
{
    const Type *in = &base->inputs[0]->type, *out = &base->outputs[0]->type;
    int64_t dims[RANK_MAX];
    Node *node = batch_editable(r, other);
    Weight constant;
    if (node == NULL || node->input_count < 2)
        return batch_refuse(r, other, "and its target is not a tensor of the main graph", err);
    if (r->open_dims && !weight_resolve(node->inputs[1], &constant))
        return batch_refuse(r, other, "and its target is computed from other open dims", err);
    for (int i = 0; i < out->rank; i++) {
        bool copies =
            target[i] == 0 && i < in->rank && in->dims[i] == out->dims[i] && node_int(base, "allowzero", 0) == 0;
        if (i != axis && target[i] == -1 && r->open_dims)
            return batch_refuse(r, other, "and its target has an open dim already", err);
        dims[i] = i == axis ? -1 : copies ? 0 : out->dims[i];
    }
    batch_set_input(node, 1, new_ints(node->graph, "regraft_target", (size_t)out->rank, dims));
    node_set_input(other, 1, new_ints(other->graph, "regraft_target", (size_t)out->rank, dims));
    batch_count(r, node);
    return node_infer(other, err);
}

static Status settle_reshape(Rebatch *r, const Node *base, Node *other, Error *err)
{
    const Value *x = base->inputs[0];
    int axis = batch_axis(x, other->inputs[0]);
    int64_t *target, inner = 0;
    size_t count;
    Error ignored = {STATUS_OK, ""};
    if (axis == BATCH_NONE || !batch_baked_ints(base, other, 1, &r->other->arena, &target, &count))
        return STATUS_OK;
    if (axis == BATCH_SEVERAL)
        return batch_refuse(r, other, "and the batch lies in several dims", err);
    int64_t before = x->type.dims[axis] / (r->from * batch_inner_part(r, other->inputs[0], x->type.dims[axis]));
    for (int i = 0; i < axis; i++)
        before *= x->type.dims[i];
    int place = place_of_batch(r, &base->outputs[0]->type, before, &inner);
    if (place == BATCH_NONE || (int)count != base->outputs[0]->type.rank)
        return batch_refuse(r, other, "and no dim of its target can hold another", err);
    bool fits = node_infer(other, &ignored) == STATUS_OK &&
                same_but_batch(r, &base->outputs[0]->type, &other->outputs[0]->type, place);
    if (!fits)
        TRY(rewrite_target(r, base, other, place, target, err));
    other->outputs[0]->mark = (int)inner + 1;
    return STATUS_OK;
}

/* ---- constants that meet the batch ----------------------------------------------------------------------------- */

static bool rows_are_equal(const Tensor *tensor, int axis)
{
    int64_t outer = 1, inner = tensor->bytes > 0 ? (int64_t)dtype_size(tensor->dtype) : 0;
    for (int i = 0; i < tensor->rank; i++)
        if (i < axis)
            outer *= tensor->dims[i];
        else if (i > axis)
            inner *= tensor->dims[i];
    const char *bytes = tensor->data;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t row = 1; row < tensor->dims[axis]; row++) {
            const char *first = bytes + o * tensor->dims[axis] * inner;
            if (memcmp(first, first + row * inner, (size_t)inner) != 0)
                return false;
        }
    return true;
}

/* The first row of `value` along `axis`: what is there already at a batch of 1. */
static Value *first_row(Rebatch *r, Node *before, Value *value, int axis)
{
    Graph *graph = before->graph;
    if (r->from == 1)
        return value;
    Value *range[] = {value, new_ints(graph, "regraft_zero", 1, (int64_t[]){0}),
                      new_ints(graph, "regraft_one", 1, (int64_t[]){1}),
                      new_ints(graph, "regraft_axis", 1, (int64_t[]){axis})};
    return batch_node(r, before, "Slice", "regraft_row", range, 4);
}

/* Input `index` is the same for every sample: it is expanded to the batch along `axis`. */
static Status expand_input(Rebatch *r, const Node *base, Node *other, int index, int axis, Error *err)
{
    Node *node = batch_editable(r, other);
    const Value *value = base->inputs[index];
    const Tensor *numbers = value->constant;
    int64_t dims[RANK_MAX];
    if (node == NULL || index >= node->input_count || node->inputs[index] == NULL)
        return batch_refuse(r, other, "and what it reads is not in the main graph", err);
    if (r->from > 1 && (numbers == NULL || !rows_are_equal(numbers, axis)))
        return batch_refuse(r, other, "and it reads a constant that differs from sample to sample", err);
    for (int i = 0; i < value->type.rank; i++)
        dims[i] = 1;
    Value *shape = batch_shape(r, node, value->type.rank, axis, dims);
    Value *row = first_row(r, node, node->inputs[index], axis);
    node_set_input(node, index, batch_node(r, node, "Expand", "regraft_expanded", (Value *[]){row, shape}, 2));
    batch_count(r, node);
    Value *expanded = graph_add_value(other->graph, "regraft_expanded"); /* in the copy only its type matters */
    memcpy(dims, value->type.dims, sizeof dims);
    dims[axis] = r->to;
    type_set(&expanded->type, value->type.dtype, value->type.rank, dims);
    node_set_input(other, index, expanded);
    return STATUS_OK;
}

/* The axis of an input without batch that lies along the batch of `partner`. */
static int axis_beside(const Node *node, const Value *value, const Value *partner, int axis)
{
    bool by_index = node_is(node, "Concat") || node_is(node, "Einsum") || value->type.rank == partner->type.rank;
    return by_index ? axis : axis + value->type.rank - partner->type.rank;
}

/* Where the node does not fit, its inputs that have the file's batch in the right place are expanded. */
static Status expand_inputs(Rebatch *r, const Node *base, Node *other, bool *any, Error *err)
{
    const Value *partner = NULL;
    int axis = BATCH_NONE;
    for (int i = 0; i < base->input_count && axis < 0; i++)
        if (base->inputs[i] != NULL) {
            partner = base->inputs[i];
            axis = batch_axis(partner, other->inputs[i]);
        }
    for (int i = 0; i < base->input_count && axis >= 0; i++) {
        const Value *value = base->inputs[i];
        if (value == NULL || value == partner || !type_known(&value->type) ||
            batch_axis(value, other->inputs[i]) != BATCH_NONE)
            continue;
        int beside = axis_beside(base, value, partner, axis);
        if (beside < 0 || beside >= value->type.rank || value->type.dims[beside] != r->from)
            continue;
        TRY(expand_input(r, base, other, i, beside, err));
        *any = true;
    }
    return STATUS_OK;
}

static Status settle_states(Rebatch *r, const Node *base, Node *other, Error *err)
{
    int batch = node_int(base, "layout", 0) == 0 ? 1 : 0;
    if (batch_axis(base->inputs[0], other->inputs[0]) != batch)
        return STATUS_OK;
    for (int i = 5; i <= 6 && i < base->input_count; i++) {
        const Value *value = base->inputs[i];
        if (value != NULL && value->type.rank == 3 && value->type.dims[batch] == r->from &&
            batch_axis(value, other->inputs[i]) == BATCH_NONE)
            TRY(expand_input(r, base, other, i, batch, err));
    }
    return STATUS_OK;
}

/* ---- targets of Expand and Resize ------------------------------------------------------------------------------ */

static Status settle_expand(Rebatch *r, const Node *base, Node *other, Error *err)
{
    const Type *in = &base->inputs[0]->type;
    int64_t *target;
    size_t count;
    int axis = batch_axis(base->inputs[0], other->inputs[0]);
    if (axis < 0 || !batch_baked_ints(base, other, 1, &r->other->arena, &target, &count))
        return STATUS_OK;
    int place = axis + (int)count - in->rank;
    if (place < 0 || target[place] == 1 || target[place] != in->dims[axis])
        return STATUS_OK;
    Node *node = batch_editable(r, other);
    if (node == NULL)
        return batch_refuse(r, other, "and its target is not in the main graph", err);
    target[place] = 1; /* as wide as the input */
    batch_set_input(node, 1, new_ints(node->graph, "regraft_target", count, target));
    node_set_input(other, 1, new_ints(other->graph, "regraft_target", count, target));
    batch_count(r, node);
    return STATUS_OK;
}

static Status settle_resize(Rebatch *r, const Node *base, Node *other, Error *err)
{
    int64_t *sizes;
    size_t count;
    const Type *in = &base->inputs[0]->type;
    if (batch_axis(base->inputs[0], other->inputs[0]) != 0 || node_attr(base, "axes") != NULL ||
        !batch_baked_ints(base, other, 3, &r->other->arena, &sizes, &count) || (int)count != in->rank)
        return STATUS_OK;
    Node *node = batch_editable(r, other);
    if (node == NULL || node->input_count < 4 || in->dims[0] != r->from)
        return batch_refuse(r, other, "and its sizes cannot be rewritten", err);
    batch_set_input(node, 3, batch_shape(r, node, in->rank, 0, sizes));
    sizes[0] = r->to;
    node_set_input(other, 3, new_ints(other->graph, "regraft_sizes", count, sizes));
    batch_count(r, node);
    return STATUS_OK;
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

static Status prepare_node(Rebatch *r, const Node *base, Node *other, Error *err)
{
    bool recurrent = node_is(base, "LSTM") || node_is(base, "GRU") || node_is(base, "RNN");
    if (base->input_count == 0 || base->inputs[0] == NULL)
        return STATUS_OK;
    if (node_is(base, "Reshape"))
        return settle_reshape(r, base, other, err);
    if (node_is(base, "Expand"))
        return settle_expand(r, base, other, err);
    if (node_is(base, "Resize"))
        return settle_resize(r, base, other, err);
    if (node_is(base, "Gather"))
        return batch_settle_gather(r, base, other, err);
    if (node_is(base, "GatherND"))
        return batch_settle_gather_nd(r, base, other, err);
    return recurrent ? settle_states(r, base, other, err) : STATUS_OK;
}

/* The place of the batch inside a joined dim (batch*heads) stays what it was where the dim does. */
static void pass_place_on(const Node *base, Node *other)
{
    for (int o = 0; o < other->output_count; o++) {
        int axis = other->outputs[o] == NULL ? BATCH_NONE : batch_axis(base->outputs[o], other->outputs[o]);
        for (int i = 0; i < other->input_count && axis >= 0 && other->outputs[o]->mark == 0; i++) {
            int from = other->inputs[i] == NULL ? BATCH_NONE : batch_axis(base->inputs[i], other->inputs[i]);
            if (from >= 0 && base->inputs[i]->type.dims[from] == base->outputs[o]->type.dims[axis])
                other->outputs[o]->mark = other->inputs[i]->mark;
        }
    }
}

/* Samples go in and none come out. */
static bool loses_batch(const Node *base, const Node *other)
{
    bool in = false, out = false, shapes = base->op != NULL && (base->op->traits & OP_SHAPE_ONLY) != 0;
    for (int i = 0; i < base->input_count && i < other->input_count; i++)
        in = in || (base->inputs[i] != NULL && batch_axis(base->inputs[i], other->inputs[i]) != BATCH_NONE);
    for (int i = 0; i < base->output_count && i < other->output_count; i++)
        out = out || (base->outputs[i] != NULL && batch_axis(base->outputs[i], other->outputs[i]) != BATCH_NONE);
    return in && !out && !shapes;
}

static Status settle_node(Rebatch *r, const Node *base, Node *other, Node **next, Error *err)
{
    Error first = {STATUS_OK, ""};
    bool expanded = false;
    TRY(prepare_node(r, base, other, err));
    if (infer_node(other, next, &first) != STATUS_OK) {
        TRY(expand_inputs(r, base, other, &expanded, err));
        if (!expanded || infer_node(other, next, NULL) != STATUS_OK)
            return batch_refuse(r, other, first.message, err);
    }
    if (base->output_count == other->output_count && base->input_count == other->input_count)
        pass_place_on(base, other);
    r->lost = loses_batch(base, other) ? other : r->lost;
    return STATUS_OK;
}

/* Both copies in step. */
static Status walk(Rebatch *r, Error *err)
{
    Node *base = r->base->graph->first;
    for (Node *other = r->other->graph->first, *next; other != NULL && base != NULL; other = next, base = base->next) {
        next = other->next;
        while (next != NULL && node_is(other, "If") &&
               !node_is(base, "If")) { /* its branch stands in its place there */
            TRY(infer_node(other, &next, err));
            other = next;
            next = other->next;
        }
        if (strcmp(base->op_type, other->op_type) != 0)
            return batch_refuse(r, other, "and the graph changes with the batch", err);
        TRY(settle_node(r, base, other, &next, err));
    }
    for (size_t i = 0; i < r->base->graph->output_count; i++)
        if (batch_axis(r->base->graph->outputs[i], r->other->graph->outputs[i]) >= 0)
            return STATUS_OK;
    if (r->lost != NULL)
        return batch_refuse(r, r->lost, "and there the samples of any other are lost", err);
    return fail(err, STATUS_UNSUPPORTED, "only a batch of %" PRId64 " fits: no output grows with the batch", r->from);
}

static void note_candidate(int64_t number, bool candidates[CANDIDATES])
{
    if (number > 0 && number < CANDIDATES)
        candidates[number] = true;
}

static void note_tensor(const Tensor *tensor, bool candidates[CANDIDATES])
{
    if (tensor == NULL)
        return;
    for (int axis = 0; axis < tensor->rank; axis++)
        note_candidate(tensor->dims[axis], candidates);
    bool list = tensor->dtype == DTYPE_I64 && tensor->rank == 1 && tensor->dims[0] <= RANK_MAX;
    for (int64_t i = 0; list && i < tensor->dims[0]; i++)
        note_candidate(tensor_i64_at(tensor, i), candidates);
}

/* Numbers that may be a batch: those the file holds as dims and in lists of integers, and powers of two, for what was
 * multiplied. */
static void find_candidates(const Graph *graph, bool candidates[CANDIDATES])
{
    for (int64_t number = 1; number < CANDIDATES; number *= 2)
        candidates[number] = true;
    for (size_t i = 0; i < graph->initializer_count; i++)
        note_tensor(graph->initializers[i]->constant, candidates);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->output_count; i++)
            note_tensor(node->outputs[i] == NULL ? NULL : node->outputs[i]->constant, candidates);
}

/* At this batch shapes fit, and an output has one row a sample. */
static bool gives_rows(const Rebatch *r, int64_t batch)
{
    Model *copy = NULL;
    bool rows = false,
         fits = copy_at(r, batch, &copy, NULL) == STATUS_OK && pass_infer_known(copy->graph, NULL) == STATUS_OK;
    for (size_t i = 0; fits && i < copy->graph->output_count; i++) {
        const Type *type = &copy->graph->outputs[i]->type;
        rows = rows || (type_known(type) && type->rank > 0 && type->dims[0] == batch);
    }
    model_free(copy);
    return rows;
}

/* The smallest batch that fits while three times as much does not. One also fits where it is broadcast to the batch
 * that is baked in: then that one gives as many rows as it has samples, which 2 does not where 1 is baked in. */
static bool guess_batch(Rebatch *r)
{
    bool candidates[CANDIDATES] = {false};
    Model *base = NULL;
    r->from = 1;
    bool one = copy_at(r, 1, &base, NULL) == STATUS_OK && pass_infer_known(base->graph, NULL) == STATUS_OK;
    if (one && fits_at(r, 3, base, NULL)) {
        model_free(base);
        return true;
    }
    find_candidates(base != NULL ? base->graph : r->document->graph, candidates);
    model_free(base);
    for (r->from = 2; r->from < CANDIDATES; r->from++)
        if (candidates[r->from] && gives_rows(r, r->from))
            return true;
    for (r->from = one ? 1 : 2; r->from < CANDIDATES; r->from *= 2)
        if (one || fits_at(r, r->from, NULL, NULL))
            return true;
    return false;
}

/* The batch of the export: a number in the file, else a guess. */
static bool find_batch(Rebatch *r)
{
    const Graph *graph = r->document->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *input = graph->inputs[i];
        if (!is_batch_dim(input))
            continue;
        if (r->input == NULL || (r->input->type.rank < 2 && input->type.rank >= 2))
            r->input = input;
        for (int axis = 1; axis < input->type.rank; axis++)
            r->open_dims = r->open_dims || input->type.dims[axis] < 0;
    }
    if (r->input == NULL)
        return false;
    if (r->input->type.dims[0] > 0) {
        r->from = r->input->type.dims[0];
        return true;
    }
    return guess_batch(r);
}

Status pass_batch(Model *document, BatchReport *report, Error *err)
{
    Rebatch r = {.document = document, .report = report};
    *report = (BatchReport){0};
    if (!find_batch(&r))
        return STATUS_OK;
    r.to = 3 * r.from;
    Status status = copy_at(&r, r.from, &r.base, NULL);
    bool fits = status == STATUS_OK && pass_infer_known(r.base->graph, NULL) == STATUS_OK;
    if (fits && !fits_at(&r, r.to, r.base, NULL)) {
        report->baked = r.from;
        status = document->function_count > 0 ? pass_inline(document, err) : STATUS_OK;
        if (status == STATUS_OK)
            status = copy_at(&r, r.to, &r.other, err);
        if (status == STATUS_OK)
            status = walk(&r, err);
    } else {
        status = STATUS_OK; /* nothing is baked in, or nothing fits at all, which others say */
    }
    model_free(r.base);
    model_free(r.other);
    return status;
}
