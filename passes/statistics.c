/* Running statistics that an exporter has merged: those of a fresh BatchNorm are zeros and ones, whosever they are.
 * Each module that moves its own gets initializers of its own in the document; calls of one module keep sharing them.
 */
#include "passes/passes.h"

static bool is_live(const Node *node)
{
    return node_is(node, "BatchNormalization") && node->input_count == 5 && batchnorm_is_training(node);
}

/* Node.mark: which parameter its scale is, from 1 on; 0 for other nodes. */
static void mark_scales(Graph *graph, const ParamList *list)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        node->mark = 0;
    for (size_t i = 0; i < list->count; i++)
        for (size_t k = 0; k < list->items[i].use_count; k++) {
            const Use *use = &list->items[i].uses[k];
            if (use->node != NULL && use->index == 1 && is_live(use->node))
                use->node->mark = (int)i + 1;
        }
}

static bool is_another_call(const Node *node, const Use *use, int index)
{
    return use->index == index && is_live(use->node) && use->node->mark == node->mark;
}

static void part(Model *document, Node *node, int index)
{
    Value *shared = node->inputs[index];
    bool merged = shared->is_output;
    for (size_t i = 0; i < shared->use_count && !merged; i++)
        merged = !is_another_call(node, &shared->uses[i], index);
    if (!merged)
        return;
    Tensor *tensor = arena_copy(&document->arena, shared->constant, sizeof *tensor);
    tensor->name = graph_unique_name(document->graph, shared->name);
    Value *own = graph_add_weight(document->graph, tensor);
    type_set(&own->type, tensor->dtype, tensor->rank, tensor->dims);
    int mark = node->mark;
    for (Node *call = node; call != NULL; call = call->next)
        if (is_live(call) && call->mark == mark && call->inputs[index] == shared)
            node_set_input(call, index, own);
}

void statistics_part(Model *document, const ParamList *list)
{
    mark_scales(document->graph, list);
    for (Node *node = document->graph->first; node != NULL; node = node->next)
        for (int i = 3; i <= 4 && is_live(node) && node->mark > 0; i++)
            if (node_input(node, i) != NULL && node->inputs[i]->constant != NULL)
                part(document, node, i);
}
