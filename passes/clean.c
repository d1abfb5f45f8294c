/* Removes what does nothing.
 * does: turns results that inference has folded into initializers; removes Identity, Dropout in inference form,
 * Reshape, Transpose, Cast, Expand and Pad that change nothing, nodes that reach no output, and initializers nobody
 * reads. Repeats until nothing moves. needs: nothing; knows more after pass_infer. keeps: graph inputs and outputs with
 * their names, parameters, gradients (they count as outputs), nodes that write state. breaks: nothing. */
#include <string.h>

#include "passes/passes.h"

/* ---- folded results ---------------------------------------------------------------------------------------- */

static bool all_folded(const Node *node)
{
    bool any = false;
    for (int i = 0; i < node->output_count; i++) {
        if (node->outputs[i] == NULL)
            continue;
        any = true;
        if (node->outputs[i]->constant == NULL)
            return false;
    }
    return any;
}

static void become_initializer(Graph *graph, Value *value)
{
    graph->initializers = arena_grow(&graph->model->arena, graph->initializers, graph->initializer_count,
                                     &graph->initializer_capacity, sizeof graph->initializers[0]);
    graph->initializers[graph->initializer_count++] = value;
    value->is_initializer = true;
}

static void keep_folded(Graph *graph, Node *node)
{
    for (int i = 0; i < node->output_count; i++) {
        Value *value = node->outputs[i];
        if (value == NULL)
            continue;
        if (value->use_count > 0 || value->is_output)
            become_initializer(graph, value);
        node_set_output(node, i, NULL);
    }
    node_remove(node);
}

/* ---- nodes that change nothing --------------------------------------------------------------------------------- */

static bool same_type(const Value *a, const Value *b)
{
    if (!type_known(&a->type) || !type_known(&b->type) || a->type.dtype != b->type.dtype ||
        a->type.rank != b->type.rank)
        return false;
    return memcmp(a->type.dims, b->type.dims, (size_t)a->type.rank * sizeof a->type.dims[0]) == 0;
}

static bool is_inference_dropout(const Node *node)
{
    const Value *live = node_input(node, 2), *ratio = node_input(node, 1), *mask = node_output(node, 1);
    if (!node_is(node, "Dropout") || (mask != NULL && (mask->use_count > 0 || mask->is_output)))
        return false;
    bool off = live == NULL ||
               (live->constant != NULL && tensor_count(live->constant) > 0 && tensor_i64_at(live->constant, 0) == 0);
    bool nothing = ratio != NULL && ratio->constant != NULL && tensor_count(ratio->constant) > 0 &&
                   tensor_f64_at(ratio->constant, 0) == 0;
    return off || nothing;
}

static bool is_identity_order(const Node *node, int rank)
{
    size_t count;
    const int64_t *perm = node_ints(node, "perm", &count);
    if (perm == NULL || (int)count != rank)
        return rank <= 1;
    for (int i = 0; i < rank; i++)
        if (perm[i] != i)
            return false;
    return true;
}

/* What is cut at one end and added at the other keeps the shape and moves everything. */
static bool pads_nothing(const Node *node)
{
    const Value *pads = node_input(node, 1);
    if (pads == NULL || pads->constant == NULL)
        return false;
    for (int64_t i = 0; i < tensor_count(pads->constant); i++)
        if (tensor_i64_at(pads->constant, i) != 0)
            return false;
    return true;
}

static bool changes_nothing(const Node *node)
{
    static const char *const by_type[] = {"Reshape", "Cast", "Expand", "Flatten", "Squeeze", "Unsqueeze", "Tile"};
    const Value *x = node_input(node, 0), *y = node_output(node, 0);
    if (x == NULL || y == NULL || node->domain[0] != '\0')
        return false;
    if (node_is(node, "Identity") || is_inference_dropout(node))
        return x->type.kind == TYPE_TENSOR;
    if (!same_type(x, y))
        return false;
    if (node_is(node, "Transpose"))
        return is_identity_order(node, x->type.rank);
    if (node_is(node, "Pad"))
        return pads_nothing(node);
    for (size_t i = 0; i < sizeof by_type / sizeof by_type[0]; i++)
        if (node_is(node, by_type[i]))
            return true;
    return false;
}

/* Uses of the output become uses of the input. A graph output keeps its name, so its node stays unless the input can
 * take the name over: then the input's producer writes the output directly. What is somebody's gradient (mark 1) stays:
 * it is looked for by its value. */
static bool bypass(Node *node)
{
    Value *x = node->inputs[0], *y = node->outputs[0];
    if (y->mark == 1)
        return false;
    if (!y->is_output) {
        value_replace_uses(y, x);
        node_remove(node);
        return true;
    }
    Node *producer = x->producer;
    if (producer == NULL || x->is_output || x->constant != NULL || producer->graph != node->graph)
        return false;
    int index = x->producer_index;
    node_remove(node); /* y has no producer now */
    value_replace_uses(x, y);
    node_set_output(producer, index, y);
    return true;
}

/* ---- what nobody reads ------------------------------------------------------------------------------------------- */

static bool has_effect(const Node *node)
{
    return node->op != NULL && (node->op->traits & OP_STATE) != 0;
}

static bool is_read(const Value *value)
{
    return value != NULL && (value->use_count > 0 || value->is_output || value->mark == 1);
}

static void mark_gradients(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
    for (size_t i = 0; i < graph->values.count; i++) {
        Value *value = graph->values.entries[i].key == NULL ? NULL : graph->values.entries[i].value;
        if (value != NULL && value->gradient != NULL)
            value->gradient->mark = 1;
    }
}

static bool remove_dead_nodes(Graph *graph)
{
    bool changed = false;
    for (Node *node = graph->last, *previous; node != NULL; node = previous) {
        previous = node->previous;
        bool live = has_effect(node);
        for (int i = 0; i < node->output_count && !live; i++)
            live = is_read(node->outputs[i]);
        if (!live) {
            node_remove(node);
            changed = true;
        }
    }
    return changed;
}

static bool is_unread(const Value *value)
{
    return !is_read(value) && !value->is_input && value->gradient == NULL && value->role != ROLE_PARAMETER;
}

Status pass_clean(Graph *graph, Error *err)
{
    (void)err;
    mark_gradients(graph);
    for (bool changed = true; changed;) {
        changed = false;
        for (Node *node = graph->first, *next; node != NULL; node = next) {
            next = node->next;
            if (all_folded(node)) {
                keep_folded(graph, node);
                changed = true;
            } else if (changes_nothing(node) && bypass(node)) {
                changed = true;
            }
        }
        mark_gradients(graph);
        changed |= remove_dead_nodes(graph);
    }
    graph_remove_initializers(graph, is_unread);
    return STATUS_OK;
}
