/* Indices that name the samples of the exported batch by number, for a batch of 1: "sample 0" becomes "each sample".
 *
 * PyTorch writes advanced indexing and as_strided this way: a mask read at [0, position] (GatherND), or flattened first
 * and read at 0 * length + position (Gather). The first index goes; what is left is looked up in every sample. */
#include <string.h>

#include "passes/batch.h"

/* The first dim of the indices stands for the batch. */
static bool leads_with_one(const Node *base)
{
    const Type *type = &base->inputs[1]->type;
    return type->rank >= 1 && type->dims[0] == 1;
}

/* [batch*n, rest] read at constant places of one sample -> [batch, n, rest] read at them along n. */
Status batch_settle_gather(Rebatch *r, const Node *base, Node *other, Error *err)
{
    const Type *data = &base->inputs[0]->type, *places = &base->inputs[1]->type;
    int64_t *at, dims[RANK_MAX];
    size_t count;
    bool first = node_int(base, "axis", 0) == 0 && batch_axis(base->inputs[0], other->inputs[0]) == 0;
    if (!first || r->from != 1 || !leads_with_one(base) || data->rank + 1 > RANK_MAX || data->dims[0] < 2 ||
        !batch_baked_ints(base, other, 1, &r->other->arena, &at, &count) ||
        batch_inner_part(r, other->inputs[0], data->dims[0]) != data->dims[0])
        return STATUS_OK;
    Node *node = batch_editable(r, other);
    if (node == NULL)
        return batch_refuse(r, other, "and its indices name samples by number", err);
    dims[0] = -1;
    memcpy(dims + 1, data->dims, (size_t)data->rank * sizeof dims[0]);
    Value *target = batch_ints(node->graph, "regraft_target", 1, (int64_t[]){data->rank + 1}, dims);
    node_set_input(node, 0, batch_node(r, node, "Reshape", "regraft_samples", (Value *[]){node->inputs[0], target}, 2));
    batch_set_input(node, 1, batch_ints(node->graph, "regraft_places", places->rank - 1, places->dims + 1, at));
    node_set_int(node, "axis", 1);
    dims[0] = r->to;
    Value *samples = graph_add_value(other->graph, "regraft_samples");
    type_set(&samples->type, data->dtype, data->rank + 1, dims);
    node_set_input(other, 0, samples);
    node_set_input(other, 1, batch_ints(other->graph, "regraft_places", places->rank - 1, places->dims + 1, at));
    node_set_int(other, "axis", 1);
    batch_count(r, node);
    return STATUS_OK;
}

/* Indices [1, .., k] that begin with 0 -> [batch, .., k - 1], one dim of the data a batch. */
Status batch_settle_gather_nd(Rebatch *r, const Node *base, Node *other, Error *err)
{
    const Type *places = &base->inputs[1]->type;
    int64_t *at, dims[RANK_MAX], ones[RANK_MAX], depth = places->rank < 1 ? 0 : places->dims[places->rank - 1];
    size_t count, kept = 0;
    if (node_int(base, "batch_dims", 0) != 0 || batch_axis(base->inputs[0], other->inputs[0]) != 0 || r->from != 1 ||
        base->inputs[0]->type.dims[0] != 1 || places->rank < 2 || depth < 2 || !leads_with_one(base) ||
        !batch_baked_ints(base, other, 1, &r->other->arena, &at, &count))
        return STATUS_OK;
    Node *node = batch_editable(r, other);
    if (node == NULL)
        return batch_refuse(r, other, "and its indices name samples by number", err);
    for (size_t i = 0; i < count; i++)
        if (i % (size_t)depth != 0)
            at[kept++] = at[i];
    for (int i = 0; i < places->rank; i++) {
        ones[i] = 1;
        dims[i] = i == places->rank - 1 ? depth - 1 : places->dims[i];
    }
    Value *rest = batch_ints(node->graph, "regraft_places", places->rank, dims, at);
    Value *shape = batch_shape(r, node, places->rank, 0, ones);
    batch_set_input(node, 1, batch_node(r, node, "Expand", "regraft_expanded", (Value *[]){rest, shape}, 2));
    node_set_int(node, "batch_dims", 1);
    dims[0] = r->to;
    Value *expanded = graph_add_value(other->graph, "regraft_expanded");
    type_set(&expanded->type, DTYPE_I64, places->rank, dims);
    node_set_input(other, 1, expanded);
    node_set_int(other, "batch_dims", 1);
    batch_count(r, node);
    return STATUS_OK;
}
