/* Activations computed a second time instead of being kept for the gradient.
 *
 * does: chooses results of the forward pass that are not kept, and puts copies of the nodes that make them right before
 * the first gradient node that reads them; so that what lives at one time fits `target` bytes, at the least cost.
 * needs: gradients appended and every fusion made (a copy then runs the very kernel of the original, so results are
 * equal bit by bit), shapes inferred, topological order. keeps: the forward pass, outputs, gradients. breaks: nothing.
 *
 * Random nodes draw the same numbers again (the copy carries the original's stream); a node with an effect is copied
 * through its row's `replay`. What is chosen is decided in recompute_choose.c on the tables made here (recompute.h);
 * Chen et al. 2016, "Training deep nets with sublinear memory cost". */
#include "passes/recompute.h"

#include <string.h>

enum { BALANCE = 8 }; /* floating-point operations in the time of one byte from memory */

/* ---- tables ------------------------------------------------------------------------------------------------- */

static size_t type_bytes(const Value *value)
{
    return type_known(&value->type) ? (size_t)type_count(&value->type) * dtype_size(value->type.dtype) : 0;
}

static double node_cost(const Node *node)
{
    double by_flops = node_flops(node) / (double)BALANCE, by_bytes = node_bytes(node);
    return by_flops > by_bytes ? by_flops : by_bytes;
}

void graph_mark_forward(Graph *graph)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        node->mark = node->op != NULL && (node->op->traits & OP_STATE) != 0;
    for (size_t i = 0; i < graph->output_count; i++)
        if (graph->outputs[i]->producer != NULL)
            graph->outputs[i]->producer->mark = 1;
    for (Node *node = graph->last; node != NULL; node = node->previous)
        for (int k = 0; k < node->input_count && node->mark; k++)
            if (node->inputs[k] != NULL && node->inputs[k]->producer != NULL && node->inputs[k]->graph == graph)
                node->inputs[k]->producer->mark = 1;
}

static bool is_view(const Node *node)
{
    return node->op != NULL && (node->op->traits & OP_VIEW) != 0 && node_input(node, 0) != NULL &&
           node->output_count == 1;
}

static bool can_copy(const Node *node)
{
    if (node->op == NULL)
        return false;
    unsigned traits = node->op->traits;
    bool body = (traits & OP_BODY) != 0 && (traits & OP_ELEMENTWISE) == 0; /* reads what it does not list */
    return !body && ((traits & OP_STATE) == 0 || node->op->replay != NULL);
}

static void add_place(Study *s, Value *value, bool can)
{
    size_t bytes = s->options->bytes != NULL ? s->options->bytes(value, s->options->context) : type_bytes(value);
    value->mark = (int)s->place_count;
    s->places[s->place_count++] = (Place){.bytes = bytes, .maker = value->producer->index, .can = can};
}

/* Every result gets the place its bytes lie in; number 0 stands for what is there anyway: inputs, constants, parameters
 * and their gradients. */
static void find_places(Study *s)
{
    const Map *values = &s->graph->values;
    for (size_t i = 0; i < values->count; i++)
        if (values->entries[i].key != NULL)
            ((Value *)values->entries[i].value)->mark = 0;
    s->place_count = 1;
    for (size_t i = 0; i < s->node_count; i++) {
        const Node *node = s->nodes[i];
        for (int k = 0; k < node->output_count; k++) {
            Value *value = node->outputs[k];
            if (value == NULL || value->constant != NULL)
                continue;
            if (is_view(node))
                value->mark = node->inputs[0]->mark;
            else
                add_place(s, value, s->forward[i] && can_copy(node) && (k == 0 || node->op->replay == NULL));
        }
    }
    for (size_t i = 0; i < s->graph->initializer_count; i++)
        if (s->graph->initializers[i]->gradient != NULL)
            s->graph->initializers[i]->gradient->mark = 0;
}

static void note_uses(Study *s)
{
    for (size_t i = 0; i < s->node_count; i++) {
        const Node *node = s->nodes[i];
        for (int k = 0; k < node->input_count; k++) {
            if (node->inputs[k] == NULL || node->inputs[k]->mark == 0)
                continue;
            Place *place = &s->places[node->inputs[k]->mark];
            place->saved |= !s->forward[i];
            if (s->forward[i])
                place->forward_last = (int)i;
        }
        for (int k = 0; k < node->output_count; k++) {
            const Value *value = node->outputs[k];
            if (value == NULL)
                continue;
            s->places[value->mark].output |= value->is_output;
            for (size_t u = 0; u < value->use_count; u++)
                s->places[value->mark].output |= value->uses[u].node->graph != s->graph; /* a body reads it */
        }
    }
}

/* What it costs to make a place's bytes again from what is saved. Things too small to matter are always kept. */
static void price_places(Study *s)
{
    size_t total = 0;
    for (size_t i = 1; i < s->place_count; i++)
        total += s->places[i].bytes;
    for (size_t i = 1; i < s->place_count; i++) {
        Place *place = &s->places[i];
        const Node *maker = s->nodes[place->maker];
        place->can = place->can && !place->output && place->bytes > total / 20000 && place->bytes >= 1024;
        place->cost = place->chain = node_cost(maker);
        for (int k = 0; k < maker->input_count; k++) {
            const Place *from = maker->inputs[k] == NULL ? &s->places[0] : &s->places[maker->inputs[k]->mark];
            if (from->can && !from->saved)
                place->chain += from->chain;
        }
    }
}

/* ---- the schedule that a choice leads to --------------------------------------------------------------------- */

static void touch(int *first, int *last, int time)
{
    if (*first < 0)
        *first = time;
    *last = time;
}

static void touch_place(Place *place, int time, bool copy)
{
    if (copy)
        touch(&place->copy_first, &place->copy_last, time);
    else
        touch(&place->first, &place->last, time);
}

static bool lacks_copy(const Study *s, const Value *value)
{
    return value != NULL && s->places[value->mark].dropped && !s->copied[value->producer->index];
}

static int by_number(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

static void want_copies(Study *s, const Node *node, size_t *count)
{
    for (int i = 0; i < node->input_count; i++) {
        if (!lacks_copy(s, node->inputs[i]))
            continue;
        int maker = node->inputs[i]->producer->index;
        s->copied[maker] = true;
        s->wanted[(*count)++] = maker;
    }
}

/* Copies that `node` needs and that do not exist yet, in order. Their makers' results that are kept are made in
 * passing. */
static void emit_copies(Study *s, const Node *node, Schedule *out)
{
    size_t count = 0;
    want_copies(s, node, &count);
    for (size_t i = 0; i < count; i++)
        want_copies(s, s->nodes[s->wanted[i]], &count);
    qsort(s->wanted, count, sizeof s->wanted[0], by_number);
    for (size_t i = 0; i < count; i++, out->time++) {
        const Node *maker = s->nodes[s->wanted[i]];
        for (int k = 0; k < maker->input_count; k++)
            if (maker->inputs[k] != NULL)
                touch_place(&s->places[maker->inputs[k]->mark], out->time, s->places[maker->inputs[k]->mark].dropped);
        for (int k = 0; k < maker->output_count; k++) {
            Place *place = maker->outputs[k] == NULL ? &s->places[0] : &s->places[maker->outputs[k]->mark];
            if (place->dropped)
                touch_place(place, out->time, true);
            else
                s->change[out->time] += place->bytes, s->change[out->time + 1] -= place->bytes;
        }
        out->cost += is_view(maker) ? 0 : node_cost(maker);
        s->at[out->time] = maker;
        s->made[out->copies] = (Copy){maker, node};
        out->copies++;
    }
}

/* A result that takes the place of an input which dies there lives in the same bytes. Copies come first: an input of a
 * copied or a gradient node is the copy when there is one. */
static void share_bytes(Study *s, int time)
{
    const Node *node = s->at[time];
    const Place *to = node_output(node, 0) == NULL ? &s->places[0] : &s->places[node->outputs[0]->mark];
    if (node->op == NULL || (node->op->traits & OP_IN_PLACE) == 0)
        return;
    bool again = s->forward[node->index] && time != to->first;
    for (int i = 0; i < node->input_count; i++) {
        const Place *from = node->inputs[i] == NULL ? &s->places[0] : &s->places[node->inputs[i]->mark];
        bool copy = from->dropped && (again || !s->forward[node->index]);
        int last = copy ? from->copy_last : from->last;
        bool fits = i == 0 || (node->op->traits & OP_ELEMENTWISE) != 0;
        if (!fits || last != time || from->output || from->bytes == 0 || from->bytes < to->bytes)
            continue;
        s->change[time] -= to->bytes;
        s->change[time + 1] += to->bytes;
        return;
    }
}

static void live(Study *s, size_t bytes, int first, int last)
{
    if (first < 0)
        return;
    s->change[first] += bytes;
    s->change[last + 1] -= bytes;
}

Schedule recompute_schedule(Study *s)
{
    Schedule out = {0};
    for (size_t i = 0; i < s->place_count; i++)
        s->places[i].first = s->places[i].last = s->places[i].copy_first = s->places[i].copy_last = -1;
    memset(s->copied, 0, s->node_count * sizeof s->copied[0]);
    memset(s->change, 0, (2 * s->node_count + 3) * sizeof s->change[0]);
    for (size_t i = 0; i < s->node_count; i++, out.time++) {
        const Node *node = s->nodes[i];
        if (!s->forward[i])
            emit_copies(s, node, &out);
        s->at[out.time] = node;
        for (int k = 0; k < node->input_count; k++) {
            Place *place = node->inputs[k] == NULL ? &s->places[0] : &s->places[node->inputs[k]->mark];
            touch_place(place, out.time, place->dropped && !s->forward[i]);
        }
        for (int k = 0; k < node->output_count; k++)
            if (node->outputs[k] != NULL)
                touch_place(&s->places[node->outputs[k]->mark], out.time, false);
    }
    for (size_t i = 1; i < s->place_count; i++) {
        const Place *place = &s->places[i];
        live(s, place->bytes, place->first, place->output ? out.time : place->last);
        live(s, place->bytes, place->copy_first, place->copy_last);
    }
    for (int t = 0; t < out.time; t++)
        share_bytes(s, t);
    size_t now = 0;
    for (int t = 0; t <= out.time; t++) {
        now += s->change[t]; /* modulo 2^64: a sum that never falls below zero */
        out.peak = now > out.peak ? now : out.peak;
    }
    return out;
}

/* ---- doing it ------------------------------------------------------------------------------------------------- */

/* Value.note: the copy that gradients read. */
static Value *seen_from_gradient(const Study *s, Value *value)
{
    return value != NULL && s->places[value->mark].dropped ? value->note : value;
}

static Status copy_node(Study *s, const Node *node, Node *before, Error *err)
{
    Value **inputs = arena_array(&s->arena, Value *, (size_t)node->input_count + 1);
    for (int i = 0; i < node->input_count; i++)
        inputs[i] = seen_from_gradient(s, node->inputs[i]);
    Node *copy = graph_add_node(s->graph, before, node->domain, node->op_type, node->opset,
                                arena_printf(&s->graph->model->arena, "again/%s", node->name), inputs,
                                node->input_count, node->output_count);
    node_copy_attrs(copy, node);
    copy->document_node = node->document_node;
    copy->again = true;
    if ((node->op->traits & OP_RANDOM) != 0 && node_string(node, "stream", NULL) == NULL)
        node_set_string(copy, "stream", node->outputs[0]->name);
    for (int i = 0; i < node->output_count; i++) {
        if (node->outputs[i] == NULL) {
            Value *unwanted = copy->outputs[i];
            node_set_output(copy, i, NULL);
            graph_remove_value(s->graph, unwanted);
            continue;
        }
        copy->outputs[i]->type = node->outputs[i]->type;
        node->outputs[i]->note = copy->outputs[i];
    }
    return (node->op->traits & OP_STATE) != 0 ? node->op->replay(node, copy, err) : STATUS_OK;
}

static Status insert_copies(Study *s, size_t count, Error *err)
{
    for (size_t i = 0; i < count; i++)
        TRY(copy_node(s, s->made[i].node, (Node *)(uintptr_t)s->made[i].before, err));
    for (size_t i = 0; i < s->node_count; i++)
        for (int k = 0; k < s->nodes[i]->input_count && !s->forward[i]; k++) {
            Value *value = s->nodes[i]->inputs[k];
            if (seen_from_gradient(s, value) != value)
                node_set_input(s->nodes[i], k, value->note);
        }
    return STATUS_OK;
}

static void study(Study *s)
{
    graph_number(s->graph);
    s->node_count = s->graph->node_count;
    size_t values = 1;
    s->nodes = arena_array(&s->arena, Node *, s->node_count + 1);
    for (Node *node = s->graph->first; node != NULL; node = node->next) {
        s->nodes[node->index] = node;
        values += (size_t)node->output_count;
    }
    s->forward = arena_array(&s->arena, bool, s->node_count + 1);
    s->copied = arena_array(&s->arena, bool, s->node_count + 1);
    s->wanted = arena_array(&s->arena, int, s->node_count + 1);
    s->made = arena_array(&s->arena, Copy, s->node_count + 1);
    s->at = arena_array(&s->arena, const Node *, 2 * s->node_count + 1);
    s->change = arena_array(&s->arena, size_t, 2 * s->node_count + 3);
    s->places = arena_array(&s->arena, Place, values + 1);
    graph_mark_forward(s->graph);
    for (size_t i = 0; i < s->node_count; i++)
        s->forward[i] = s->nodes[i]->mark;
    find_places(s);
    note_uses(s);
    s->places[0] = (Place){0};
    price_places(s);
}

Status pass_recompute(Graph *graph, const RecomputeOptions *options, RecomputeReport *report, Error *err)
{
    Study s = {.graph = graph, .options = options};
    arena_init(&s.arena);
    study(&s);
    *report = (RecomputeReport){0};
    for (size_t i = 0; i < s.node_count; i++)
        report->forward_cost += s.forward[i] ? node_cost(s.nodes[i]) : 0;
    report->before = recompute_schedule(&s).peak;
    report->fits = recompute_choose(&s, options->target);
    Schedule chosen = recompute_schedule(&s);
    report->after = chosen.peak;
    report->copies = chosen.copies;
    report->extra_cost = chosen.cost;
    Status status = insert_copies(&s, chosen.copies, err);
    arena_release(&s.arena);
    return status;
}
