/* Cut and attach in one, in the form that the old head had.
 *
 * Most heads are vectors: [N, F] -> [N, C]. They are cut off and a new one is put in their place. Where the old layer
 * scores every token or pixel and steps behind it select or resize (GPT-2's last token, a segmentation net's Resize),
 * those steps are not the head's: the new layer takes the old one's place before them, and Reshape shapes that count
 * the classes are rewritten. Post-ops (Softmax, ArgMax) go in both cases: the new output is scores. */
#include "passes/passes.h"
#include "passes/surgery.h"

#include <inttypes.h>

/* ---- steps that stay ----------------------------------------------------------------------------------- */

/* The same integers with the last `from` made `to`; NULL when there is none. */
static Tensor *recount(Graph *graph, const Value *value, int64_t from, int64_t to)
{
    Arena *arena = &graph->model->arena;
    int64_t *ints;
    size_t count;
    if (!operand_ints(value, arena, &ints, &count))
        return NULL;
    for (size_t i = count; i-- > 0;) {
        if (ints[i] != from)
            continue;
        ints[i] = to;
        const char *name = graph_unique_name(graph, arena_printf(arena, "%s_classes", value->name));
        int64_t length = (int64_t)count;
        Weight weight;
        int rank = weight_resolve(value, &weight) ? weight.tensor->rank : 1;
        return tensor_new_i64(arena, name, rank, &length, ints);
    }
    return NULL;
}

static bool recount_input(Node *node, int index, int64_t from, int64_t to)
{
    Tensor *tensor = recount(node->graph, node_input(node, index), from, to);
    if (tensor == NULL)
        return false;
    Value *old = node_input(node, index);
    node_set_input(node, index, graph_add_weight(node->graph, tensor));
    if (old->use_count > 0 || old->is_output || old->is_input)
        return true;
    if (old->is_initializer)
        graph_remove_initializer(node->graph, old);
    else if (old->producer != NULL && node_is(old->producer, "Constant"))
        node_remove(old->producer);
    return true;
}

/* A Reshape's target counts the classes as a constant, or as one part of a Concat. */
static void recount_reshape(Node *node, int64_t from, int64_t to)
{
    if (recount_input(node, 1, from, to))
        return;
    Value *shape = node_input(node, 1);
    Node *concat = shape == NULL ? NULL : shape->producer;
    if (concat == NULL || !node_is(concat, "Concat"))
        return;
    for (int i = concat->input_count; i-- > 0;)
        if (recount_input(concat, i, from, to))
            return;
}

/* Types behind the new layer no longer hold: the file's value_info there goes, outputs get the new count. */
static void retype(Value *value, const Head *head, const HeadSpec *spec)
{
    value->has_info = false;
    Type *type = &value->type;
    if (!value->is_output || type->kind != TYPE_TENSOR) {
        *type = (Type){.kind = TYPE_UNKNOWN, .rank = -1};
        return;
    }
    int axis = head->spatial ? 1 : type->rank - 1;
    if (type->rank >= 2 && (type->dims[axis] == head->class_count || type->dims[axis] < 0)) {
        type->dims[axis] = spec->classes;
        type->symbols[axis] = NULL;
    } else {
        type->rank = -1;
    }
}

static void refit_tail(Graph *graph, Value *scores, const Head *head, const HeadSpec *spec)
{
    graph_mark_behind(graph, scores);
    size_t kept = 0;
    for (size_t i = 0; i < graph->info_count; i++) {
        const Value *value = graph->infos[i].value;
        if (value == NULL || value->producer == NULL || !value->producer->mark)
            graph->infos[kept++] = graph->infos[i];
    }
    graph->info_count = kept;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        if (!node->mark)
            continue;
        if (node_is(node, "Reshape"))
            recount_reshape(node, head->class_count, spec->classes);
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL)
                retype(node->outputs[i], head, spec);
    }
}

static size_t output_index(const Graph *graph, const Value *value)
{
    size_t i = 0;
    while (i < graph->output_count && graph->outputs[i] != value)
        i++;
    return i;
}

/* The step the tail ends in becomes the output. */
static void end_tail(Graph *graph, const Head *head)
{
    Value *end = head->tail_end;
    if (end != head->output) {
        end->type = head->output->type;
        if (text_glob("*Arg*", head->post_ops) || end->type.kind != TYPE_TENSOR) /* scores, not indices */
            end->type = (Type){.kind = TYPE_TENSOR, .dtype = head->features->type.dtype, .rank = -1};
        graph_replace_output(graph, output_index(graph, head->output), end);
    }
}

static Status replace_before_tail(Model *document, const Head *head, const HeadSpec *spec, bool keep_inputs,
                                  Value **logits, Error *err)
{
    Graph *graph = document->graph;
    HeadSpec layer = *spec;
    layer.pool = POOL_NONE;
    layer.width = head->feature_width;
    if (head->spatial && layer.kind == HEAD_LINEAR)
        layer.kind = HEAD_CONV;
    Value *old = head->scores, *scores;
    const char *inner = arena_printf(&document->arena, "%s_new", old->name);
    TRY(head_build(document, head->features, &layer, old->producer->next, inner, &scores, err));
    Node **needed = arena_array(&document->arena, Node *, graph->node_count + 1);
    size_t needed_count = graph_needed(graph, needed);
    Type scores_type = scores->type;
    const char *name = spec->output_name != NULL ? spec->output_name : head->output->name;
    value_replace_uses(old, scores);
    end_tail(graph, head);
    graph_drop_unneeded(graph, needed, needed_count, keep_inputs);
    if (strcmp(head->tail_end->name, name) != 0 && graph_find(graph, name) == NULL)
        graph_rename_value(graph, head->tail_end, name);
    refit_tail(graph, scores, head, spec);
    scores->type = scores_type;
    *logits = head->tail_end;
    return STATUS_OK;
}

/* ---- a convolution as large as its map ------------------------------------------------------------------ */

static bool all_are(const Node *node, const char *attribute, int64_t wanted)
{
    size_t count;
    const int64_t *values = node_ints(node, attribute, &count);
    for (size_t i = 0; values != NULL && i < count; i++)
        if (values[i] != wanted)
            return false;
    return true;
}

/* A dense layer written as a convolution over the whole map (MATLAB, VGG in FCN form): larger than 1, without padding,
 * strides or groups. */
static const int64_t *whole_kernel(const Head *head)
{
    const Node *node = head->node;
    size_t count;
    const int64_t *kernel = node_is(node, "Conv") ? node_ints(node, "kernel_shape", &count) : NULL;
    if (kernel == NULL || (int)count != head->features->type.rank - 2 || all_are(node, "kernel_shape", 1))
        return NULL;
    bool plain = all_are(node, "pads", 0) && all_are(node, "strides", 1) && all_are(node, "dilations", 1) &&
                 node_int(node, "group", 1) == 1 && strcmp(node_string(node, "auto_pad", "NOTSET"), "NOTSET") == 0;
    return plain ? kernel : NULL;
}

/* ---- vector heads -------------------------------------------------------------------------------------- */

Status pass_replace_head(Model *document, const Head *head, const HeadSpec *spec, bool keep_inputs, Value **logits,
                         Error *err)
{
    bool own_pool = spec->pool == POOL_MEAN || spec->pool == POOL_FIRST;
    if (head->tail_end != NULL && !own_pool)
        return replace_before_tail(document, head, spec, keep_inputs, logits, err);
    HeadSpec fitted = *spec;
    if (fitted.output_name == NULL)
        fitted.output_name = head->output->name;
    if (head->spatial && fitted.kind == HEAD_LINEAR)
        fitted.kind = HEAD_CONV;
    if (head->spatial && !head->pooled && fitted.pool == POOL_AUTO)
        fitted.pool = POOL_NONE;
    const int64_t *kernel = head->spatial && !head->pooled && fitted.kind == HEAD_CONV ? whole_kernel(head) : NULL;
    if (kernel != NULL && fitted.pool == POOL_NONE) {
        fitted.flat = head->output->type.kind == TYPE_TENSOR && head->output->type.rank == 2;
        fitted.kernel = arena_copy(&document->arena, kernel, (size_t)(head->features->type.rank - 2) * sizeof *kernel);
    }
    if (fitted.width == 0)
        fitted.width = head->feature_width;
    fitted.keep_features = fitted.keep_features || head->features->is_output;
    size_t index = output_index(document->graph, head->output);
    TRY(pass_cut(document, head->features, head->output, keep_inputs, err));
    if (graph_find(document->graph, fitted.output_name) != NULL)
        fitted.output_name = NULL;
    TRY(pass_attach(document, head->features, &fitted, logits, err));
    Graph *graph = document->graph; /* features that stay an output: scores take the old place among the outputs */
    size_t last = graph->output_count - 1;
    if (graph->outputs[last] == *logits && index < last) {
        memmove(&graph->outputs[index + 1], &graph->outputs[index], (last - index) * sizeof *graph->outputs);
        graph->outputs[index] = *logits;
    }
    return STATUS_OK;
}
