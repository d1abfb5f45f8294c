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

/* What a row's `upgrade` may rely on. Counts are those of the newest form and are looked at later. */
static Status check_required(const Node *node, Error *err)
{
    const OpDef *op = node->op;
    for (int i = 0; i < op->min_inputs && (op->traits & OP_BODY) == 0; i++)
        if (node_input(node, i) == NULL)
            return infer_fail(node, err, "input %d is missing", i);
    if (op->min_outputs > 0 && op->max_outputs >= 0 && node_output(node, 0) == NULL)
        return infer_fail(node, err, "output 0 has no name");
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
            TRY(check_required(node, err));
        if (node->op->upgrade != NULL)
            TRY(node->op->upgrade(node, err)); /* may replace the node; what it leaves behind is marked below */
        if (node->graph == graph && node->op != NULL)
            node->opset = OPSET_NEWEST;
    }
    return STATUS_OK;
}
