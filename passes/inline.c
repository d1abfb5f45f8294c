/* Model-local functions, inlined.
 * does: replaces every call by the function's body until no call is left; attribute references get the caller's value,
 * else the default. needs: nothing. keeps: names outside; inner names get the call's name as prefix. breaks: nothing
 * (bodies are inserted in order). Recursion and more than a million nodes are refused. */
#include <stdio.h>
#include <string.h>

#include "passes/passes.h"

enum { MOST_NODES = 1000000, DEEPEST = 100 };

typedef struct Inliner {
    Model *model;
    Map node_names; /* of all graphs: a name, any node of it */
    size_t nodes;
    unsigned next_name;
    int depth;
    Error *err;
} Inliner;

static Function *called(const Inliner *in, const Node *node)
{
    return in->model->function_count == 0 ? NULL
                                          : model_function(in->model, node->domain, node->op_type, node->overload);
}

static int opset_in(const Function *function, const char *domain, int absent)
{
    for (size_t i = 0; i < function->opset_count; i++)
        if (strcmp(function->opsets[i].domain, domain) == 0)
            return (int)function->opsets[i].version;
    return absent;
}

static const Attr *function_default(const Function *function, const char *name)
{
    for (size_t i = 0; i < function->default_count; i++)
        if (strcmp(function->defaults[i]->name, name) == 0)
            return function->defaults[i];
    return NULL;
}

static Status inline_graph(Inliner *in, Graph *graph);

/* What a body's attribute means in this call; NULL when it refers to something the caller left out. */
static Attr *resolve_attr(const Inliner *in, const Attr *attr, const Node *call, const Function *function)
{
    if (attr->ref_attr_name == NULL || attr->ref_attr_name[0] == '\0')
        return arena_copy(&in->model->arena, attr, sizeof *attr);
    const Attr *given = node_attr(call, attr->ref_attr_name);
    if (given == NULL)
        given = function_default(function, attr->ref_attr_name);
    if (given == NULL)
        return NULL;
    Attr *copy = arena_copy(&in->model->arena, given, sizeof *copy);
    copy->name = attr->name;
    return copy;
}

typedef struct Call {
    Inliner *in;
    const Node *node; /* the call */
    const Function *function;
    const char *prefix;
} Call;

static Status copy_body(const Call *call, const Graph *from, Graph *to, Node *before, Map *names);

/* A body of If, Loop or Scan inside a function: a graph of its own whose free names are resolved through `outer`. */
static Status copy_subgraph(const Call *call, const Graph *from, Graph *parent, Node *owner, const Map *outer,
                            Graph **out)
{
    Graph *graph = graph_new(parent->model, from->name, parent);
    graph->parent_node = owner;
    Map names;
    map_init(&names);
    for (size_t i = 0; i < outer->count; i++)
        if (outer->entries[i].key != NULL)
            map_set(&names, outer->entries[i].key, outer->entries[i].value);
    for (size_t i = 0; i < from->input_count; i++) {
        Value *value = graph_add_value(graph, graph_unique_name(graph, from->inputs[i]->name));
        value->type = from->inputs[i]->type;
        graph_add_input(graph, value);
        map_set(&names, from->inputs[i]->name, value);
    }
    Status status = copy_body(call, from, graph, NULL, &names);
    for (size_t i = 0; i < from->output_count && status == STATUS_OK; i++)
        graph_add_output(graph, map_get(&names, from->outputs[i]->name));
    map_release(&names);
    *out = graph;
    return status;
}

static Status copy_attrs(const Call *call, const Node *from, Node *to, Map *names)
{
    to->attrs = arena_array(&call->in->model->arena, Attr *, from->attr_count);
    to->attr_capacity = from->attr_count;
    for (size_t i = 0; i < from->attr_count; i++) {
        Attr *attr = resolve_attr(call->in, from->attrs[i], call->node, call->function);
        if (attr == NULL)
            continue;
        bool own_body = attr->g != NULL && from->attrs[i]->g == attr->g;
        if (own_body)
            TRY(copy_subgraph(call, attr->g, to->graph, to, names, &attr->g));
        to->attrs[to->attr_count++] = attr;
    }
    return STATUS_OK;
}

static Value *copied_output(const Call *call, Node *node, const Value *from, Map *names)
{
    Graph *graph = node->graph;
    const char *name = arena_printf(&graph->model->arena, "%s/%s", call->prefix, from->name);
    Value *value = node_add_output(node, graph_unique_name(graph, name));
    map_set(names, from->name, value);
    return value;
}

/* ONNX Runtime loads no graph in which two nodes bear one name; calls may share a name, and bodies need give none. */
static const char *free_node_name(const Call *call, Node *inner)
{
    Inliner *in = call->in;
    Arena *arena = &in->model->arena;
    const char *stem =
        arena_printf(arena, "%s/%s", call->prefix, inner->name[0] != '\0' ? inner->name : inner->op_type);
    const char *name = stem;
    while (map_get(&in->node_names, name) != NULL)
        name = arena_printf(arena, "%s_%u", stem, ++in->next_name);
    map_set(&in->node_names, name, inner);
    return name;
}

static Status copy_body(const Call *call, const Graph *from, Graph *to, Node *before, Map *names)
{
    for (size_t i = 0; i < from->initializer_count; i++) {
        Tensor *tensor = arena_copy(&to->model->arena, from->initializers[i]->constant, sizeof *tensor);
        tensor->name =
            graph_unique_name(to, arena_printf(&to->model->arena, "%s/%s", call->prefix, from->initializers[i]->name));
        map_set(names, from->initializers[i]->name, graph_add_weight(to, tensor));
    }
    for (Node *inner = from->first; inner != NULL; inner = inner->next) {
        if (++call->in->nodes > MOST_NODES)
            return fail(call->in->err, STATUS_REJECTED, "the model's functions expand to more than %d nodes",
                        MOST_NODES);
        int opset = opset_in(call->function, inner->domain, inner->opset);
        Node *node =
            graph_add_node(to, before, inner->domain, inner->op_type, opset, free_node_name(call, inner), NULL, 0, 0);
        node->overload = inner->overload;
        node->extra = inner->extra;
        node->document_node = call->node->document_node != NULL ? call->node->document_node : call->node;
        for (int i = 0; i < inner->input_count; i++)
            node_add_input(node, inner->inputs[i] == NULL ? NULL : map_get(names, inner->inputs[i]->name));
        for (int i = 0; i < inner->output_count; i++) {
            if (inner->outputs[i] == NULL)
                node_set_output(node, i, NULL);
            else
                copied_output(call, node, inner->outputs[i], names);
        }
        TRY(copy_attrs(call, inner, node, names));
    }
    return STATUS_OK;
}

static Status inline_call(Inliner *in, Node *node, const Function *function)
{
    if (in->depth >= DEEPEST)
        return fail(in->err, STATUS_REJECTED, "function %s.%s: calls are nested deeper than %d, or it calls itself",
                    function->domain, function->name, DEEPEST);
    const Graph *body = function->graph;
    Graph *graph = node->graph;
    Call call = {in, node, function, node->name[0] != '\0' ? node->name : node->op_type};
    Node *before_call = node->previous;
    Map names;
    map_init(&names);
    for (size_t i = 0; i < body->input_count; i++)
        map_set(&names, body->inputs[i]->name, node_input(node, (int)i));
    Status status = copy_body(&call, body, graph, node, &names);
    for (int i = 0; i < node->output_count && status == STATUS_OK; i++) {
        Value *old = node->outputs[i];
        Value *made = (size_t)i < body->output_count ? map_get(&names, body->outputs[i]->name) : NULL;
        if (old == NULL)
            continue;
        if (made == NULL) {
            status = fail(in->err, STATUS_REJECTED, "%s: function %s.%s has no output %d", node_text(node),
                          function->domain, function->name, i);
        } else if (made->producer != NULL && made->producer->graph == graph && old->is_output) {
            Node *producer = made->producer; /* the outer name survives */
            int index = made->producer_index;
            node_set_output(node, i, NULL);
            value_replace_uses(made, old);
            node_set_output(producer, index, old);
        } else if (old->is_output) { /* an input passed through: only Identity can give it the name */
            node_set_output(node, i, NULL);
            Node *same = graph_add_node(graph, node, "", "Identity", opset_in(function, "", OPSET_NEWEST), node->name,
                                        &made, 1, 0);
            node_set_output(same, 0, old);
        } else {
            value_replace_uses(old, made);
        }
    }
    map_release(&names);
    if (status != STATUS_OK)
        return status;
    node_remove(node);
    in->depth++;
    for (Node *n = before_call == NULL ? graph->first : before_call->next, *next; n != NULL && status == STATUS_OK;
         n = next) {
        next = n->next;
        const Function *inner = called(in, n);
        if (inner != NULL && inner->graph != NULL &&
            n->document_node == (node->document_node != NULL ? node->document_node : node))
            status = inline_call(in, n, inner);
        else if (n->document_node != (node->document_node != NULL ? node->document_node : node))
            break;
    }
    in->depth--;
    return status;
}

static Status inline_graph(Inliner *in, Graph *graph)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        for (size_t i = 0; i < node->attr_count; i++) {
            if (node->attrs[i]->g != NULL && node->attrs[i]->type == ATTR_GRAPH)
                TRY(inline_graph(in, node->attrs[i]->g));
        }
        const Function *function = called(in, node);
        if (function != NULL)
            TRY(inline_call(in, node, function));
    }
    return STATUS_OK;
}

static void collect_node_names(Inliner *in, Graph *graph)
{
    for (Node *node = graph->first; node != NULL; node = node->next) {
        map_set(&in->node_names, node->name, node);
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && node->attrs[i]->type == ATTR_GRAPH)
                collect_node_names(in, node->attrs[i]->g);
    }
}

Status pass_inline(Model *model, Error *err)
{
    if (model->function_count == 0)
        return STATUS_OK;
    Inliner in = {.model = model, .err = err};
    map_init(&in.node_names);
    collect_node_names(&in, model->graph);
    Status status = inline_graph(&in, model->graph);
    map_release(&in.node_names);
    return status;
}
