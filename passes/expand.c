/* Composites become the operators they are made of.
 * does: rewrites every node whose row has an `expand` and no planned kernel of its own, in bodies too; an expansion may
 * contain composites again. An expansion that leaves the outputs as they are has declined. needs: inferred shapes.
 * keeps: graph outputs with their names. breaks: nothing. */
#include "passes/passes.h"

static bool is_composite(const Node *node)
{
    return node->op != NULL && node->op->expand != NULL && node->op->prepare == NULL;
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

/* The node is replaced by what was put before it, where the walk goes on, so that composites within are met. */
static Status expand_node(Node *node, Node **next, Error *err)
{
    Graph *graph = node->graph;
    Node *previous = node->previous;
    Builder b = builder_at(graph, node, node->name, err);
    TRY(node->op->expand(node, &b, err));
    TRY(b.status);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL && (node->outputs[i]->use_count > 0 || node->outputs[i]->is_output))
            return STATUS_OK;
    node_remove(node);
    *next = previous != NULL ? previous->next : graph->first;
    return STATUS_OK;
}

Status pass_expand(Graph *graph, Error *err)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        TRY(expand_bodies(node, err));
        bool known = true;
        for (int i = 0; i < node->input_count; i++)
            known = known && (node->inputs[i] == NULL || type_known(&node->inputs[i]->type));
        if (known && is_composite(node))
            TRY(expand_node(node, &next, err));
    }
    return STATUS_OK;
}
