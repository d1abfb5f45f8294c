/* Brings every node to its newest form.
 * does: calls the row's `upgrade` on nodes of older opsets and marks them as newest. needs: nothing. keeps: values,
 * names. breaks: node->opset says OPSET_NEWEST for every node with a row of the default domain. Nodes without a row
 * stay as they are: only running them is refused. */
#include "passes/passes.h"

static Status upgrade_bodies(Node *node, Error *err)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        Attr *attr = node->attrs[i];
        if (attr->type == ATTR_GRAPH && attr->g != NULL)
            TRY(pass_upgrade(attr->g, err));
        for (size_t k = 0; attr->type == ATTR_GRAPHS && k < attr->count; k++)
            TRY(pass_upgrade(attr->graphs[k], err));
    }
    return STATUS_OK;
}

Status pass_upgrade(Graph *graph, Error *err)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        TRY(upgrade_bodies(node, err));
        if (node->op == NULL || node->domain[0] != '\0' || node->opset == OPSET_NEWEST)
            continue;
        if (node->op->upgrade != NULL)
            TRY(node->op->upgrade(node, err)); /* may replace the node; what it leaves behind is marked below */
        if (node->graph == graph && node->op != NULL)
            node->opset = OPSET_NEWEST;
    }
    return STATUS_OK;
}
