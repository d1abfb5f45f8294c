/* Composites become the operators they are made of.
 * does: rewrites every node whose row has an `expand` and no planned kernel of its own, in bodies too; an expansion may
 * contain composites again. An expansion that leaves the outputs as they are has declined. needs: inferred shapes.
 * keeps: graph outputs with their names. breaks: nothing. */
#include <string.h>

#include "passes/passes.h"

static bool is_composite(const Node *node)
{
    return node->op != NULL && node->op->expand != NULL && node->op->prepare == NULL;
}

/* Lists of values have no shape; their items have. */
static bool inputs_known(const Node *node)
{
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != NULL && node->inputs[i]->type.kind == TYPE_TENSOR && !type_known(&node->inputs[i]->type))
            return false;
    return true;
}

static Status expand_bodies(Node *node, Error *err)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        Attr *attr = node->attrs[i];
        if (attr->type == ATTR_GRAPH && attr->g != NULL)
            TRY(pass_expand(attr->g, err));
        for (size_t k = 0; attr->type == ATTR_GRAPHS && k < attr->count; k++)
            TRY(pass_expand(attr->graphs[k], err));
    }
    return STATUS_OK;
}

/* Graph output `index`, once named `name`, is computed by another value now: that one takes the name if it is new
 * (its producer stands between `previous` and `end`), else it is passed on under it. */
static Status keep_name(Graph *graph, size_t index, const char *name, const Node *previous, Node *end, Error *err)
{
    Value *value = graph->outputs[index];
    if (strcmp(value->name, name) == 0 || graph_find(graph, name) != NULL)
        return STATUS_OK;
    for (const Node *node = previous != NULL ? previous->next : graph->first; node != end; node = node->next)
        if (value->producer == node) {
            graph_rename_value(graph, value, name);
            return STATUS_OK;
        }
    Node *same = graph_add_node(graph, end, "", "Identity", OPSET_NEWEST, name, &value, 1, 0);
    graph_replace_output(graph, index, node_add_output(same, name));
    return node_infer(same, err);
}

/* The node is replaced by what was put before it, where the walk goes on, so that composites within are met. */
Status node_expand(Node *node, Node **next, Error *err)
{
    Graph *graph = node->graph;
    Node *previous = node->previous;
    Node *end = node->next;
    Builder b = builder_at(graph, node, node->name, err);
    const char **names = arena_array(&graph->model->arena, const char *, graph->output_count + 1);
    for (size_t i = 0; i < graph->output_count; i++)
        names[i] = graph->outputs[i]->name;
    TRY(node->op->expand(node, &b, err));
    TRY(b.status);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL && (node->outputs[i]->use_count > 0 || node->outputs[i]->is_output))
            return STATUS_OK;
    node_remove(node);
    for (size_t i = 0; i < graph->output_count; i++)
        TRY(keep_name(graph, i, names[i], previous, end, err));
    *next = previous != NULL ? previous->next : graph->first;
    return STATUS_OK;
}

/* Lists of values that nobody reads any more: no plan could hold them. */
static void drop_lists(Graph *graph)
{
    for (Node *node = graph->last, *previous; node != NULL; node = previous) {
        previous = node->previous;
        const Value *list = node->output_count == 1 ? node->outputs[0] : NULL;
        if (list != NULL && list->type.kind == TYPE_SEQUENCE && list->use_count == 0 && !list->is_output)
            node_remove(node);
    }
}

Status pass_expand(Graph *graph, Error *err)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        TRY(expand_bodies(node, err));
        if (is_composite(node) && inputs_known(node))
            TRY(node_expand(node, &next, err));
    }
    drop_lists(graph);
    return STATUS_OK;
}

/* Bodies, and what reads lists of values that bodies have left. */
static bool is_unrolled(const Node *node)
{
    if (node->op == NULL || node->op->expand == NULL)
        return false;
    return (node->op->traits & OP_BODY) != 0 || node_is(node, "SplitToSequence") ||
           node_is(node, "ConcatFromSequence") || node_is(node, "SequenceAt");
}

Status pass_unroll(Graph *graph, Error *err)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (Node *node = graph->first, *next; node != NULL; node = next) {
            next = node->next;
            if (changed && !is_unrolled(node)) /* what a body has left may tell its type */
                TRY(infer_node(node, &next, err));
            if (!is_unrolled(node) || !inputs_known(node))
                continue;
            size_t before = graph->node_count;
            TRY(node_expand(node, &next, err));
            changed |= graph->node_count != before;
        }
        if (changed)
            TRY(pass_infer_known(graph, err));
    }
    drop_lists(graph);
    return STATUS_OK;
}
