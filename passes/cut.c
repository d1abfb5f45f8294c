/* Cutting the document at a value: what only served the outputs behind it goes, everything else stays byte for byte.
 *
 * Two walks back from the outputs, before and after, tell what goes: nodes needed before and not any more. Nodes that
 * nobody needed before the cut are not this pass's business and stay, unless they read something that goes. */
#include "passes/passes.h"
#include "passes/surgery.h"

#include <inttypes.h>

/* ---- which outputs go ---------------------------------------------------------------------------------- */

static bool produced_by_marked(const Value *value)
{
    return value->producer != NULL && value->producer->mark;
}

/* Marks nodes behind `features`, but only along consumers that lead (`leading`), or do not lead, to `output`. */
static void mark_along(Graph *graph, const Value *features, const Value *output, bool leading, Arena *scratch)
{
    Node **gates = arena_array(scratch, Node *, features->use_count + 1);
    size_t count = 0;
    graph_mark_needed(graph, &(Value *){(Value *)output}, 1);
    for (size_t i = 0; i < features->use_count; i++) {
        Node *node = node_within(graph, features->uses[i].node);
        if ((node->mark != 0) == leading)
            gates[count++] = node;
    }
    graph_mark_from(graph, gates, count);
}

/* dropped[i]: output i goes. Without `output`, all behind features; with it, `output` and those that hang on the same
 * consumers of features alone. */
static void choose_dropped(Graph *graph, Value *features, const Value *output, bool *dropped, Arena *scratch)
{
    if (output == NULL)
        graph_mark_behind(graph, features);
    else
        mark_along(graph, features, output, true, scratch);
    for (size_t i = 0; i < graph->output_count; i++)
        dropped[i] = graph->outputs[i] != features && produced_by_marked(graph->outputs[i]);
    if (output == NULL)
        return;
    mark_along(graph, features, output, false, scratch);
    for (size_t i = 0; i < graph->output_count; i++)
        dropped[i] = graph->outputs[i] == output || (dropped[i] && !produced_by_marked(graph->outputs[i]));
}

static void remove_output(Graph *graph, size_t index)
{
    Value *value = graph->outputs[index];
    memmove(&graph->outputs[index], &graph->outputs[index + 1],
            (graph->output_count - index - 1) * sizeof *graph->outputs);
    graph->output_count--;
    value->is_output = false;
    for (size_t i = 0; i < graph->output_count; i++)
        value->is_output = value->is_output || graph->outputs[i] == value;
}

/* The first dropped output's place becomes the features', unless they are an output already. */
static void replace_outputs(Graph *graph, Value *features, bool *dropped)
{
    bool placed = features->is_output;
    for (size_t i = 0; i < graph->output_count;) {
        if (!dropped[i]) {
            i++;
        } else if (!placed) {
            graph_replace_output(graph, i++, features);
            placed = true;
        } else {
            remove_output(graph, i);
            memmove(&dropped[i], &dropped[i + 1], (graph->output_count - i) * sizeof *dropped);
        }
    }
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

static void note_read(Value *value, void *context)
{
    (void)context;
    value->mark = 1;
}

static bool lost_its_readers(const Value *value)
{
    return value->mark && value->use_count == 0 && !value->is_output;
}

/* Values that removed nodes read and nobody reads any more: initializers, and inputs unless they are to stay. */
static void remove_unread(Graph *graph, bool keep_inputs)
{
    for (size_t i = graph->input_count; i-- > 0;)
        if (graph->inputs[i]->is_initializer && lost_its_readers(graph->inputs[i]))
            graph_remove_input(graph, graph->inputs[i]);
    graph_remove_initializers(graph, lost_its_readers);
    for (size_t i = graph->input_count; i-- > 0;) {
        Value *value = graph->inputs[i];
        if (keep_inputs || !lost_its_readers(value))
            continue;
        graph_remove_input(graph, value);
        graph_remove_value(graph, value);
    }
}

static void clear_value_marks(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
}

/* Removes `doomed` nodes, and with them whatever reads their results: dead branches that were never needed. */
static void remove_nodes(Graph *graph, Node **doomed, size_t count)
{
    clear_value_marks(graph);
    graph_mark_from(graph, doomed, count);
    for (Node *node = graph->last, *previous; node != NULL; node = previous) {
        previous = node->previous;
        if (!node->mark)
            continue;
        node_each_read(node, graph, note_read, NULL);
        node_remove(node);
    }
}

size_t graph_needed(Graph *graph, Node **nodes)
{
    graph_mark_needed(graph, graph->outputs, graph->output_count);
    size_t count = 0;
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (node->mark)
            nodes[count++] = node;
    return count;
}

/* value_info entries of values that are gone. */
static void remove_stale_infos(Graph *graph)
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->info_count; i++) {
        Value *value = graph->infos[i].value;
        if (value == NULL || graph_find(graph, value->name) == value)
            graph->infos[kept++] = graph->infos[i];
    }
    graph->info_count = kept;
}

/* Names of parameters that metadata `key` lists, one a line, without those that are gone: a new one may come to bear
 * the same name. */
static void prune_names(Model *document, const char *key)
{
    const char *lines = model_metadata(document, key);
    if (lines == NULL)
        return;
    Str kept;
    str_init(&kept);
    while (*lines != '\0') {
        size_t length = strcspn(lines, "\n");
        const Value *value = graph_find(document->graph, arena_strndup(&document->arena, lines, length));
        if (value != NULL) {
            str_append(&kept, kept.length > 0 ? "\n" : "");
            str_append_bytes(&kept, lines, length);
        }
        lines += length + (lines[length] == '\n');
    }
    model_set_metadata(document, key, kept.length > 0 ? arena_strdup(&document->arena, kept.text) : NULL);
    str_release(&kept);
}

void graph_drop_unneeded(Graph *graph, Node *const *nodes, size_t count, bool keep_inputs)
{
    Arena scratch;
    arena_init(&scratch);
    Node **doomed = arena_array(&scratch, Node *, count + 1);
    graph_mark_needed(graph, graph->outputs, graph->output_count);
    size_t doomed_count = 0;
    for (size_t i = 0; i < count; i++)
        if (!nodes[i]->mark)
            doomed[doomed_count++] = nodes[i];
    if (doomed_count > 0) {
        remove_nodes(graph, doomed, doomed_count);
        remove_unread(graph, keep_inputs);
        remove_stale_infos(graph);
        prune_names(graph->model, "regraft.head");
        prune_names(graph->model, "regraft.frozen");
    }
    arena_release(&scratch);
}

void metadata_drop_classes(Model *document)
{
    static const char *const keys[] = {"regraft.labels", "regraft.task", "labels",   "classes",
                                       "class_names",    "names",        "id2label", "label2id",
                                       "class_map",      "num_classes",  "classes_"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (model_metadata(document, keys[i]) != NULL)
            model_set_metadata(document, keys[i], NULL);
}

/* ---- the pass ------------------------------------------------------------------------------------------ */

Status pass_cut(Model *document, Value *features, Value *output, bool keep_inputs, Error *err)
{
    Graph *graph = document->graph;
    if (features->graph != graph)
        return fail(err, STATUS_USAGE, "'%s' lies inside a loop or branch; only values of the main graph can be cut at",
                    features->name);
    if (value_is_constant(features))
        return fail(err, STATUS_USAGE, "'%s' is a constant, not something computed", features->name);
    if (output != NULL && !output->is_output)
        return fail(err, STATUS_USAGE, "'%s' is not an output", output->name);
    Status status = STATUS_OK;
    Arena scratch;
    arena_init(&scratch);
    bool *dropped = arena_array(&scratch, bool, graph->output_count + 1);
    choose_dropped(graph, features, output, dropped, &scratch);
    size_t count = 0;
    const Value *first = NULL;
    for (size_t i = graph->output_count; i-- > 0;) {
        count += dropped[i];
        first = dropped[i] ? graph->outputs[i] : first;
    }
    if (count == 0 || (output != NULL && output != features && !value_reaches(features, output))) {
        status = fail(err, STATUS_USAGE, "'%s' does not lead to %s%s%s", features->name,
                      output != NULL ? "output '" : "another output", output != NULL ? output->name : "",
                      output != NULL ? "'" : "");
        goto done;
    }
    Node **needed = arena_array(&scratch, Node *, graph->node_count + 1);
    size_t needed_count = graph_needed(graph, needed);
    model_set_metadata(document, "regraft.cut_output", output != NULL ? output->name : first->name);
    model_set_metadata(document, "regraft.cut_at", features->name);
    replace_outputs(graph, features, dropped);
    graph_drop_unneeded(graph, needed, needed_count, keep_inputs);
    metadata_drop_classes(document);
done:
    arena_release(&scratch);
    return status;
}
