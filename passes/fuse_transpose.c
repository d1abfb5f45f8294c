/* Transposes that move towards the matrix products that read through them; before pass_fuse_matmul.
 * does: takes a Transpose past what stands between it and a product: a Reshape, Squeeze or Unsqueeze that splits dims
 * (`[S, N H, D]` transposed, then split into heads), a Split, and the Gathers of single numbers that take a packed
 * projection of query, key and value apart, which become one Split where the numbers lie. needs: inferred shapes.
 * keeps: names of results that something else reads. breaks: nothing; what is not read any more goes with pass_clean.
 *
 * A Transpose only moves where it ends in a product, or in nothing because it orders nothing any more. So fewer bytes
 * move than before, and the gradients of what it passed are simpler: of a Split one Concat, of n Gathers n tensors of
 * zeros and their sum. */
#include <string.h>

#include "passes/passes.h"

enum {
    DEPTH_MOST = 8,  /* nodes between a Transpose and its product */
    PIECES_MOST = 16 /* numbers that Gathers may pick */
};

/* What lies at `x`, read in another order: dim i of the result is dim perm[i] of x, whose extents are dims[perm[i]]. */
typedef struct Ordered {
    int rank;
    int64_t dims[RANK_MAX], perm[RANK_MAX];
} Ordered;

static bool concrete(const Value *value)
{
    for (int i = 0; value != NULL && type_known(&value->type) && i < value->type.rank; i++)
        if (value->type.dims[i] <= 0)
            return false;
    return value != NULL && type_known(&value->type);
}

static bool transpose_read(const Node *node, Ordered *t)
{
    size_t count = 0;
    if (!node_is(node, "Transpose") || !concrete(node->inputs[0]) || !concrete(node->outputs[0]))
        return false;
    const int64_t *given = node_ints(node, "perm", &count);
    t->rank = node->inputs[0]->type.rank;
    if (given != NULL && count != (size_t)t->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        t->dims[i] = node->inputs[0]->type.dims[i];
        t->perm[i] = given != NULL ? given[i] : t->rank - 1 - i;
    }
    return true;
}

/* Dims of one element aside, nothing changes its place. */
static bool moves_nothing(const Ordered *t)
{
    int64_t last = -1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dims[t->perm[i]] == 1)
            continue;
        if (t->perm[i] < last)
            return false;
        last = t->perm[i];
    }
    return true;
}

/* ---- what a Transpose passes --------------------------------------------------------------------------------- */

/* *behind: the reshape's result as the reshaped x in another order. False unless each dim is split, if anything. */
static bool past_reshape(const Ordered *t, const Value *result, Ordered *behind)
{
    const Type *to = &result->type;
    int first[RANK_MAX], end[RANK_MAX], at = 0; /* result dims that x's dim d becomes */
    for (int i = 0; i < t->rank; i++) {
        int64_t left = t->dims[t->perm[i]];
        first[t->perm[i]] = at;
        while (left > 1 && at < to->rank && left % to->dims[at] == 0)
            left /= to->dims[at++];
        if (left != 1)
            return false;
        end[t->perm[i]] = at;
    }
    for (; at < to->rank; at++) /* ones at the end */
        end[t->perm[t->rank - 1]] = at + 1;
    behind->rank = 0;
    for (int d = 0; d < t->rank; d++)
        for (int i = first[d]; i < end[d]; i++) {
            behind->dims[behind->rank] = to->dims[i];
            behind->perm[i] = behind->rank++;
        }
    return behind->rank == to->rank;
}

/* Dim `axis` of the result is taken away. */
static void without_axis(const Ordered *t, int axis, Ordered *behind)
{
    int64_t gone = t->perm[axis];
    behind->rank = 0;
    for (int i = 0; i < t->rank; i++)
        if (i != axis)
            behind->perm[behind->rank++] = t->perm[i] - (t->perm[i] > gone);
    for (int d = 0, to = 0; d < t->rank; d++)
        if (d != gone)
            behind->dims[to++] = t->dims[d];
}

static bool is_reshape(const Node *node)
{
    return node_is(node, "Reshape") || node_is(node, "Squeeze") || node_is(node, "Unsqueeze");
}

static bool is_fixed(const Value *value)
{
    return value != NULL && value->constant != NULL && value->role != ROLE_PARAMETER && value->role != ROLE_STATE;
}

static int axis_of(const Node *node, int rank)
{
    int64_t axis = node_int(node, "axis", 0);
    return (int)(axis < 0 ? axis + rank : axis);
}

/* A Gather of one number along an axis of `value`, which its result lacks. */
static bool picks_one(const Node *node, const Value *value, int *axis, int64_t *number)
{
    if (!node_is(node, "Gather") || node->inputs[0] != value || !is_fixed(node->inputs[1]) ||
        node->inputs[1]->constant->rank != 0)
        return false;
    *axis = axis_of(node, value->type.rank);
    *number = (int64_t)tensor_f64_at(node->inputs[1]->constant, 0);
    if (*number < 0)
        *number += value->type.dims[*axis];
    return true;
}

/* x times a number. */
static bool scales(const Node *node, const Value *x)
{
    if (!node_is(node, "Mul") && !(node_is(node, "Div") && node->inputs[0] == x))
        return false;
    const Value *factor = node->inputs[node->inputs[0] == x];
    return is_fixed(factor) && tensor_count(factor->constant) == 1 && x->use_count == 1 &&
           node->outputs[0]->type.rank == x->type.rank;
}

static bool pays(const Value *value, const Ordered *t, int depth);

/* Does `reader`, which finds x in the order of `t` in `value`, hand the Transpose on to a product? */
static bool reader_pays(const Node *reader, const Value *value, const Ordered *t, int depth)
{
    Ordered behind, next;
    int axis;
    int64_t number;
    if (node_is(reader, "MatMul"))
        return t->rank >= 2 && (t->perm[t->rank - 1] == t->rank - 1 || t->perm[t->rank - 2] == t->rank - 1);
    if (scales(reader, value))
        return pays(reader->outputs[0], t, depth);
    if (is_reshape(reader))
        return reader->inputs[0] == value && concrete(reader->outputs[0]) &&
               past_reshape(t, reader->outputs[0], &behind) && pays(reader->outputs[0], &behind, depth);
    if (picks_one(reader, value, &axis, &number)) {
        without_axis(t, axis, &behind);
        return pays(reader->outputs[0], &behind, depth);
    }
    if (!transpose_read(reader, &next))
        return false;
    behind = *t;
    for (int i = 0; i < t->rank; i++)
        behind.perm[i] = t->perm[next.perm[i]];
    return pays(reader->outputs[0], &behind, depth);
}

static bool pays(const Value *value, const Ordered *t, int depth)
{
    if (moves_nothing(t))
        return true;
    if (depth == DEPTH_MOST || value->is_output || value->use_count == 0)
        return false;
    for (size_t i = 0; i < value->use_count; i++)
        if (value->uses[i].node->graph != value->graph || !reader_pays(value->uses[i].node, value, t, depth + 1))
            return false;
    return true;
}

/* ---- taking it past ------------------------------------------------------------------------------------------- */

static Value *reshaped(Builder *b, Value *x, int rank, const int64_t *dims)
{
    return build2(b, "Reshape", x, build_ints(b, dims, (size_t)rank));
}

/* `result`, so far output `index` of `old`, is x (with t->dims already) in the order of `t`. */
static void give_result(Builder *b, Value *x, const Ordered *t, Node *old, int index)
{
    Value *result = old->outputs[index];
    Value *ordered;
    if (moves_nothing(t)) {
        ordered = reshaped(b, x, result->type.rank, result->type.dims);
    } else {
        Node *node = build_node(b, "", "Transpose", &x, 1, 1);
        if (node != NULL)
            node_set_ints(node, "perm", t->perm, (size_t)t->rank);
        ordered = build_finish(b, node);
    }
    if (ordered == NULL)
        return;
    Node *last = ordered->producer;
    last->document_node = old->document_node;
    node_set_output(old, index, NULL);
    node_set_output(last, 0, NULL);
    node_set_output(last, 0, result);
    b->status = node_infer(last, b->err);
}

/* Transpose, then reshape: reshape x, then transpose. */
static Status take_past_reshape(Node *transpose, const Ordered *t, Node *reshape, Error *err)
{
    Ordered behind;
    Builder b = builder_at(transpose->graph, reshape, reshape->name, err);
    if (!past_reshape(t, reshape->outputs[0], &behind))
        return STATUS_OK;
    Value *x = transpose->inputs[0];
    if (!moves_nothing(&behind))
        x = reshaped(&b, x, behind.rank, behind.dims);
    if (x != NULL)
        give_result(&b, x, &behind, reshape, 0);
    if (b.status == STATUS_OK)
        node_remove(reshape);
    return b.status;
}

/* The Split of x along the dim that is `axis` of the transposed. */
static Node *split_before(Builder *b, Value *x, const Ordered *t, int axis, const int64_t *sizes, int count)
{
    Node *split = build_node(b, "", "Split", (Value *[]){x, build_ints(b, sizes, (size_t)count)}, 2, count);
    if (split != NULL)
        node_set_int(split, "axis", t->perm[axis]);
    return build_finish(b, split) != NULL ? split : NULL;
}

/* All readers of `value` pick one number each along one axis, every number once: readers[number]. Returns how many. */
static int pickers(const Value *value, int *axis, Node *readers[PIECES_MOST])
{
    int at;
    int64_t number;
    memset(readers, 0, PIECES_MOST * sizeof *readers);
    for (size_t i = 0; i < value->use_count; i++) {
        Node *reader = value->uses[i].node;
        if (reader->graph != value->graph || !picks_one(reader, value, &at, &number) || (i > 0 && at != *axis) ||
            number >= PIECES_MOST || number < 0 || readers[number] != NULL)
            return 0;
        *axis = at;
        readers[number] = reader;
    }
    bool all = value->use_count > 1 && (int64_t)value->use_count == value->type.dims[*axis];
    return all ? (int)value->use_count : 0;
}

/* Transpose, then n Gathers: Split x, then transpose the pieces. */
static Status take_past_gathers(Node *transpose, const Ordered *t, int axis, Node **gathers, int count, Error *err)
{
    int64_t ones[PIECES_MOST];
    Ordered behind;
    Builder b = builder_at(transpose->graph, transpose->next, transpose->name, err);
    for (int i = 0; i < count; i++)
        ones[i] = 1;
    Node *split = split_before(&b, transpose->inputs[0], t, axis, ones, count);
    without_axis(t, axis, &behind);
    for (int i = 0; i < count && b.status == STATUS_OK; i++) {
        Value *piece = split->outputs[i];
        if (!moves_nothing(&behind))
            piece = reshaped(&b, piece, behind.rank, behind.dims);
        if (piece != NULL)
            give_result(&b, piece, &behind, gathers[i], 0);
    }
    for (int i = 0; i < count && b.status == STATUS_OK; i++)
        node_remove(gathers[i]);
    return b.status;
}

/* Transpose, then Split: Split x, then transpose the pieces. */
static Status take_past_split(Node *transpose, const Ordered *t, Node *old, Error *err)
{
    int64_t sizes[PIECES_MOST];
    int axis = axis_of(old, t->rank);
    Builder b = builder_at(transpose->graph, old, old->name, err);
    for (int i = 0; i < old->output_count; i++)
        sizes[i] = old->outputs[i]->type.dims[axis];
    Node *split = split_before(&b, transpose->inputs[0], t, axis, sizes, old->output_count);
    for (int i = 0; i < old->output_count && b.status == STATUS_OK; i++) {
        Ordered piece = *t;
        piece.dims[t->perm[axis]] = sizes[i];
        give_result(&b, split->outputs[i], &piece, old, i);
    }
    if (b.status == STATUS_OK)
        node_remove(old);
    return b.status;
}

static bool split_pays(const Node *split, const Ordered *t)
{
    bool all = node_is(split, "Split") && split->output_count <= PIECES_MOST;
    for (int i = 0; all && i < split->output_count; i++) {
        Ordered piece = *t;
        all = concrete(split->outputs[i]);
        if (all)
            piece.dims[t->perm[axis_of(split, t->rank)]] = split->outputs[i]->type.dims[axis_of(split, t->rank)];
        all = all && pays(split->outputs[i], &piece, 0);
    }
    return all;
}

static Status consider(Node *transpose, Error *err)
{
    Ordered t;
    int axis = 0;
    Node *gathers[PIECES_MOST];
    const Value *y = transpose->outputs[0];
    if (!transpose_read(transpose, &t) || is_fixed(transpose->inputs[0]) || y->is_output || y->use_count == 0)
        return STATUS_OK;
    Node *reader = y->use_count == 1 && y->uses[0].node->graph == y->graph ? y->uses[0].node : NULL;
    if (reader != NULL && is_reshape(reader) && reader_pays(reader, y, &t, 0))
        return take_past_reshape(transpose, &t, reader, err);
    if (reader != NULL && split_pays(reader, &t))
        return take_past_split(transpose, &t, reader, err);
    int count = pickers(y, &axis, gathers);
    for (int i = 0; i < count; i++)
        if (!reader_pays(gathers[i], y, &t, 0))
            return STATUS_OK;
    return count > 0 ? take_past_gathers(transpose, &t, axis, gathers, count, err) : STATUS_OK;
}

/* What a Transpose passed stands before the new one, which comes behind it in the walk and may go on. */
Status pass_fuse_transpose(Graph *graph, Error *err)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        TRY(consider(node, err));
    return pass_clean(graph, err);
}
