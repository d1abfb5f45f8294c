/* Building and editing graphs: values, nodes, use lists, order, copies.
 *
 * Every edit keeps the invariants of docs/ir.md: a use list names exactly the inputs that read a value, also those in
 * bodies; producer and outputs point at each other; is_input, is_output and is_initializer agree with the lists. All
 * memory is the model's arena; what is unlinked stays there until the model ends. */
#include "onnx/onnx.h"

#include <assert.h>

#include "onnx/op.h"

/* ---- values ------------------------------------------------------------------------------------------ */

Graph *graph_new(Model *model, const char *name, Graph *parent)
{
    Graph *graph = arena_new(&model->arena, Graph);
    graph->model = model;
    graph->name = arena_strdup(&model->arena, name == NULL ? "" : name);
    graph->parent = parent;
    map_init(&graph->values);
    graph->made_before = model->last_made;
    model->last_made = graph;
    return graph;
}

static Arena *arena_of(const Graph *graph)
{
    return &graph->model->arena;
}

Value *graph_find(const Graph *graph, const char *name)
{
    return map_get(&graph->values, name);
}

Value *graph_resolve(const Graph *graph, const char *name)
{
    for (; graph != NULL; graph = graph->parent) {
        Value *value = graph_find(graph, name);
        if (value != NULL)
            return value;
    }
    return NULL;
}

const char *graph_unique_name(Graph *graph, const char *stem)
{
    const char *name = stem == NULL || stem[0] == '\0' ? "value" : stem;
    if (graph_resolve(graph, name) == NULL)
        return arena_strdup(arena_of(graph), name);
    size_t room = strlen(name) + 16;
    char *text = arena_alloc(arena_of(graph), room);
    do
        snprintf(text, room, "%s_%u", name, ++graph->next_name);
    while (graph_resolve(graph, text) != NULL);
    return text;
}

static Value *value_make(Graph *graph, const char *owned_name)
{
    Value *value = arena_new(arena_of(graph), Value);
    value->name = owned_name;
    value->graph = graph;
    value->type.kind = TYPE_UNKNOWN;
    value->type.rank = -1;
    value->parameter = -1;
    map_set(&graph->values, value->name, value);
    return value;
}

Value *graph_add_value(Graph *graph, const char *name)
{
    bool taken = name == NULL || name[0] == '\0' || graph_find(graph, name) != NULL;
    return value_make(graph, taken ? graph_unique_name(graph, name) : arena_strdup(arena_of(graph), name));
}

static void list_add(Graph *graph, Value ***list, size_t *count, size_t *capacity, Value *value)
{
    *list = arena_grow(arena_of(graph), *list, *count, capacity, sizeof(Value *));
    (*list)[(*count)++] = value;
}

/* From the end: who removes many takes the last first. */
static bool list_remove(Value **list, size_t *count, const Value *value)
{
    for (size_t i = *count; i-- > 0;) {
        if (list[i] != value)
            continue;
        memmove(list + i, list + i + 1, (*count - i - 1) * sizeof *list);
        (*count)--;
        return true;
    }
    return false;
}

void graph_add_input(Graph *graph, Value *value)
{
    list_add(graph, &graph->inputs, &graph->input_count, &graph->input_capacity, value);
    value->is_input = true;
}

void graph_remove_input(Graph *graph, Value *value)
{
    list_remove(graph->inputs, &graph->input_count, value);
    value->is_input = false;
}

void graph_add_output(Graph *graph, Value *value)
{
    list_add(graph, &graph->outputs, &graph->output_count, &graph->output_capacity, value);
    value->is_output = true;
    value->body_outputs += value->graph != graph;
}

/* Calls `visit` for every body of the node. */
static void node_each_body(const Node *node, void (*visit)(Graph *body, void *context), void *context)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        const Attr *attr = node->attrs[i];
        if (attr->g != NULL)
            visit(attr->g, context);
        for (size_t k = 0; attr->type == ATTR_GRAPHS && k < attr->count; k++)
            visit(attr->graphs[k], context);
    }
}

/* Whether the value is an output of its graph or of a body in it. */
static bool value_listed(const Value *value)
{
    const Graph *graph = value->graph;
    bool listed = value->body_outputs > 0;
    for (size_t i = 0; i < graph->output_count && !listed; i++)
        listed = graph->outputs[i] == value;
    return listed;
}

/* `graph` does not list the value any more. */
static void value_unlist(Value *value, const Graph *graph)
{
    value->body_outputs -= value->graph != graph;
    value->is_output = value_listed(value);
}

void graph_clear_outputs(Graph *graph)
{
    size_t count = graph->output_count;
    graph->output_count = 0;
    for (size_t i = 0; i < count; i++)
        value_unlist(graph->outputs[i], graph);
}

typedef struct Relisting {
    Value *from, *to;
} Relisting;

/* Where `from` is listed, in `graph` and the bodies in it, `to` is listed. */
static void relist(Graph *graph, void *context)
{
    const Relisting *relisting = context;
    for (size_t i = 0; i < graph->output_count; i++) {
        if (graph->outputs[i] != relisting->from)
            continue;
        graph->outputs[i] = relisting->to;
        relisting->to->is_output = true;
        relisting->to->body_outputs += relisting->to->graph != graph;
    }
    for (const Node *node = graph->first; node != NULL && relisting->from->body_outputs > 0; node = node->next)
        node_each_body(node, relist, context);
}

void graph_replace_output(Graph *graph, size_t index, Value *value)
{
    Value *old = graph->outputs[index];
    if (old == value)
        return;
    graph->outputs[index] = value;
    value->is_output = true;
    value->body_outputs += value->graph != graph;
    value_unlist(old, graph);
}

Value *graph_add_initializer(Graph *graph, Tensor *tensor)
{
    Value *value = tensor->name == NULL ? NULL : graph_find(graph, tensor->name);
    if (value == NULL || value->producer != NULL || value->constant != NULL)
        value = graph_add_value(graph, tensor->name);
    value->constant = tensor;
    value->is_initializer = true;
    if (value->type.kind == TYPE_UNKNOWN && tensor->rank <= RANK_MAX)
        type_set(&value->type, tensor->dtype, tensor->rank, tensor->dims);
    list_add(graph, &graph->initializers, &graph->initializer_count, &graph->initializer_capacity, value);
    return value;
}

Value *graph_add_weight(Graph *graph, Tensor *tensor)
{
    if (graph->model->ir_version > 0 && graph->model->ir_version < 4)
        graph->model->ir_version = 4;
    return graph_add_initializer(graph, tensor);
}

static void initializer_drop(Graph *graph, Value *value)
{
    assert(value->use_count == 0);
    value->is_initializer = false;
    value->constant = NULL;
    if (!value->is_input && !value->is_output)
        graph_remove_value(graph, value);
}

void graph_remove_initializer(Graph *graph, Value *value)
{
    list_remove(graph->initializers, &graph->initializer_count, value);
    initializer_drop(graph, value);
}

void graph_remove_initializers(Graph *graph, bool (*remove)(const Value *value))
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->initializer_count; i++) {
        Value *value = graph->initializers[i];
        if (remove(value))
            initializer_drop(graph, value);
        else
            graph->initializers[kept++] = value;
    }
    graph->initializer_count = kept;
}

void graph_rename_value(Graph *graph, Value *value, const char *name)
{
    assert(graph_find(graph, name) == NULL);
    map_remove(&graph->values, value->name);
    value->name = arena_strdup(arena_of(graph), name);
    map_set(&graph->values, value->name, value);
}

void graph_remove_value(Graph *graph, Value *value)
{
    assert(value->producer == NULL && value->use_count == 0);
    if (graph_find(graph, value->name) == value)
        map_remove(&graph->values, value->name);
}

static void value_add_use(Value *value, Node *node, int index)
{
    value->uses =
        arena_grow(&node->graph->model->arena, value->uses, value->use_count, &value->use_capacity, sizeof(Use));
    value->uses[value->use_count++] = (Use){node, index};
}

/* Uses keep their order. The search goes from both ends and the shorter side moves, so that dropping all uses in order,
 * or in the opposite one, takes a step each. */
static void value_drop_use(Value *value, const Node *node, int index)
{
    Use *uses = value->uses;
    for (size_t low = 0, high = value->use_count; low < high; low++) {
        if (uses[low].node == node && uses[low].index == index) {
            memmove(uses + 1, uses, low * sizeof *uses);
            value->uses++;
            value->use_capacity--;
            value->use_count--;
            return;
        }
        high--;
        if (uses[high].node == node && uses[high].index == index) {
            memmove(uses + high, uses + high + 1, (value->use_count - high - 1) * sizeof *uses);
            value->use_count--;
            return;
        }
    }
}

void value_replace_uses(Value *from, Value *to)
{
    if (from == to)
        return;
    for (size_t i = 0; i < from->use_count; i++) {
        Use use = from->uses[i];
        use.node->inputs[use.index] = to;
        value_add_use(to, use.node, use.index);
    }
    from->use_count = 0;
    if (!from->is_output)
        return;
    Relisting relisting = {from, to};
    relist(from->graph, &relisting);
    from->is_output = false;
    from->body_outputs = 0;
}

bool value_is_constant(const Value *value)
{
    return value->constant != NULL && !value->is_input;
}

/* ---- nodes ------------------------------------------------------------------------------------------- */

static void node_link(Node *node, Node *before)
{
    Graph *graph = node->graph;
    node->next = before;
    node->previous = before == NULL ? graph->last : before->previous;
    if (node->previous == NULL)
        graph->first = node;
    else
        node->previous->next = node;
    if (before == NULL)
        graph->last = node;
    else
        before->previous = node;
    graph->node_count++;
}

static void node_unlink(Node *node)
{
    Graph *graph = node->graph;
    if (node->previous == NULL)
        graph->first = node->next;
    else
        node->previous->next = node->next;
    if (node->next == NULL)
        graph->last = node->previous;
    else
        node->next->previous = node->previous;
    node->previous = node->next = NULL;
    graph->node_count--;
}

void node_set_op(Node *node, const char *domain, const char *op_type, int opset)
{
    Arena *arena = arena_of(node->graph);
    node->domain = arena_strdup(arena, domain == NULL ? "" : domain);
    node->op_type = arena_strdup(arena, op_type);
    node->opset = opset;
    node->op = opset_find(node->graph->model->ops, node->domain, node->op_type, opset);
}

Node *graph_add_node(Graph *graph, Node *before, const char *domain, const char *op_type, int opset, const char *name,
                     Value *const *inputs, int input_count, int output_count)
{
    Node *node = arena_new(arena_of(graph), Node);
    node->graph = graph;
    node->name = arena_strdup(arena_of(graph), name == NULL ? "" : name);
    node_set_op(node, domain, op_type, opset);
    node_link(node, before);
    for (int i = 0; i < input_count; i++)
        node_add_input(node, inputs[i]);
    for (int i = 0; i < output_count; i++)
        node_set_output(node, i, graph_add_value(graph, graph_unique_name(graph, name == NULL ? op_type : name)));
    return node;
}

void node_set_input(Node *node, int index, Value *value)
{
    while (node->input_count <= index) {
        node->inputs = arena_grow(arena_of(node->graph), node->inputs, (size_t)node->input_count, &node->input_capacity,
                                  sizeof(Value *));
        node->inputs[node->input_count++] = NULL;
    }
    if (node->inputs[index] != NULL)
        value_drop_use(node->inputs[index], node, index);
    node->inputs[index] = value;
    if (value != NULL)
        value_add_use(value, node, index);
}

void node_add_input(Node *node, Value *value)
{
    node_set_input(node, node->input_count, value);
}

/* A value that lost its producer: gone, unless somebody still means it. */
static void value_orphan(Value *value)
{
    value->producer = NULL;
    value->producer_index = 0;
    bool meant = value->use_count > 0 || value->is_output || value->is_input || value->is_initializer;
    if (!meant)
        graph_remove_value(value->graph, value);
}

void node_set_output(Node *node, int index, Value *value)
{
    while (node->output_count <= index) {
        node->outputs = arena_grow(arena_of(node->graph), node->outputs, (size_t)node->output_count,
                                   &node->output_capacity, sizeof(Value *));
        node->outputs[node->output_count++] = NULL;
    }
    Value *old = node->outputs[index];
    node->outputs[index] = value;
    if (old != NULL && old != value)
        value_orphan(old);
    if (value == NULL)
        return;
    assert(value->producer == NULL || value->producer == node);
    value->producer = node;
    value->producer_index = index;
}

Value *node_add_output(Node *node, const char *value_name)
{
    Value *value = value_name == NULL ? NULL : graph_find(node->graph, value_name);
    if (value == NULL || value->producer != NULL || value->is_input || value->constant != NULL)
        value = graph_add_value(node->graph, value_name);
    node_set_output(node, node->output_count, value);
    return value;
}

void node_move_before(Node *node, Node *before)
{
    if (node == before)
        return;
    node_unlink(node);
    node_link(node, before);
}

/* Takes back the uses that a removed node and the nodes of its bodies have. */
static void body_drop_uses(Graph *body, void *context);

static void node_drop_uses(Node *node)
{
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != NULL)
            value_drop_use(node->inputs[i], node, i);
    node_each_body(node, body_drop_uses, NULL);
}

static void body_drop_uses(Graph *body, void *context)
{
    (void)context;
    for (Node *node = body->first; node != NULL; node = node->next)
        node_drop_uses(node);
}

static void body_unlist_outer(Graph *body, void *context)
{
    (void)context;
    for (size_t i = 0; i < body->output_count; i++)
        if (body->outputs[i]->graph != body)
            value_unlist(body->outputs[i], body);
    for (Node *node = body->first; node != NULL; node = node->next)
        node_each_body(node, body_unlist_outer, NULL);
}

void node_remove(Node *node)
{
    node_drop_uses(node);
    node_unlink(node);
    node_each_body(node, body_unlist_outer, NULL);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            value_orphan(node->outputs[i]);
}

bool node_is(const Node *node, const char *op_type)
{
    return strcmp(node->op_type, op_type) == 0 && domain_key(node->domain)[0] == '\0';
}

Value *node_input(const Node *node, int index)
{
    return index >= 0 && index < node->input_count ? node->inputs[index] : NULL;
}

Value *node_output(const Node *node, int index)
{
    return index >= 0 && index < node->output_count ? node->outputs[index] : NULL;
}

const char *node_text(const Node *node)
{
    Arena *arena = arena_of(node->graph);
    if (node->name[0] != '\0')
        return arena_printf(arena, "%s '%s'", node->op_type, node->name);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            return arena_printf(arena, "%s (output '%s')", node->op_type, node->outputs[i]->name);
    return arena_printf(arena, "%s (unnamed)", node->op_type);
}

/* ---- order --------------------------------------------------------------------------------------------- */

void graph_number(Graph *graph)
{
    int index = 0;
    for (Node *node = graph->first; node != NULL; node = node->next)
        node->index = index++;
}

typedef struct Sorter {
    const Graph *graph;
    Arena arena;
    Node **stack; /* a node is pushed again by everything that waits for it; `state` says what is left to do */
    size_t depth, capacity;
    char *state; /* by Node.index: 0 new, 1 waiting for its inputs, 2 placed */
} Sorter;

static void sorter_push(Sorter *sorter, const Value *value)
{
    if (value == NULL || value->producer == NULL || value->graph != sorter->graph)
        return;
    if (sorter->state[value->producer->index] == 2)
        return;
    sorter->stack = arena_grow(&sorter->arena, sorter->stack, sorter->depth, &sorter->capacity, sizeof(Node *));
    sorter->stack[sorter->depth++] = value->producer;
}

/* Values of the sorted graph that a body reads, at any depth. */
static void sorter_push_body(Graph *body, void *context)
{
    Sorter *sorter = context;
    for (size_t i = body->output_count; i-- > 0;)
        sorter_push(sorter, body->outputs[i]);
    for (const Node *node = body->last; node != NULL; node = node->previous) {
        node_each_body(node, sorter_push_body, sorter);
        for (int i = node->input_count; i-- > 0;)
            sorter_push(sorter, node->inputs[i]);
    }
}

/* Places everything that `root` waits for, then `root`, at the end of the list. */
static Status sorter_place(Sorter *sorter, Node *root, Error *err)
{
    sorter->stack = arena_grow(&sorter->arena, sorter->stack, sorter->depth, &sorter->capacity, sizeof(Node *));
    sorter->stack[sorter->depth++] = root;
    while (sorter->depth > 0) {
        Node *node = sorter->stack[sorter->depth - 1];
        char *state = &sorter->state[node->index];
        if (*state == 2) {
            sorter->depth--;
            continue;
        }
        if (*state == 1) { /* everything above it is placed */
            *state = 2;
            sorter->depth--;
            node_move_before(node, NULL);
            continue;
        }
        *state = 1;
        size_t below = sorter->depth;
        node_each_body(node, sorter_push_body, sorter);
        for (int i = node->input_count; i-- > 0;)
            sorter_push(sorter, node->inputs[i]);
        for (size_t i = below; i < sorter->depth; i++)
            if (sorter->state[sorter->stack[i]->index] == 1)
                return fail(err, STATUS_REJECTED, "the graph has a cycle through %s", node_text(sorter->stack[i]));
    }
    return STATUS_OK;
}

Status graph_sort(Graph *graph, Error *err)
{
    Sorter sorter = {.graph = graph};
    arena_init(&sorter.arena);
    graph_number(graph);
    sorter.state = arena_array(&sorter.arena, char, graph->node_count + 1);
    Node **order = arena_array(&sorter.arena, Node *, graph->node_count + 1);
    size_t count = 0;
    for (Node *node = graph->first; node != NULL; node = node->next)
        order[count++] = node;
    Status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = sorter_place(&sorter, order[i], err);
    arena_release(&sorter.arena);
    graph_number(graph);
    return status;
}

/* ---- copies -------------------------------------------------------------------------------------------- */

/* The graphs being copied, innermost first: where an input's value is looked up. */
typedef struct CloneScope {
    const Graph *from;
    Graph *to;
    const struct CloneScope *outer;
} CloneScope;

static Graph *clone_graph(Model *model, const Graph *from, Graph *parent, const CloneScope *outer);

static Value *cloned(const CloneScope *scope, Value *value)
{
    for (; value != NULL && scope != NULL; scope = scope->outer)
        if (value->graph == scope->from)
            return graph_find(scope->to, value->name);
    return value; /* of a graph around the copied one */
}

static Value *clone_value(Graph *graph, const Value *from)
{
    Value *value = value_make(graph, from->name);
    Value fresh = *value;
    *value = *from;
    value->graph = graph;
    value->producer = NULL;
    value->is_input = value->is_output = value->is_initializer = false;
    value->uses = fresh.uses;
    value->use_count = value->use_capacity = 0;
    value->body_outputs = 0;
    value->gradient = NULL;
    value->mark = 0;
    value->note = NULL;
    return value;
}

static Attr *clone_attr(const Attr *from, Node *node, const CloneScope *scope)
{
    if (from->g == NULL && from->type != ATTR_GRAPHS)
        return (Attr *)(uintptr_t)from; /* shared: setters replace, they never write */
    Graph *graph = node->graph;
    Attr *attr = arena_copy(arena_of(graph), from, sizeof *from);
    if (from->g != NULL) {
        attr->g = clone_graph(graph->model, from->g, graph, scope);
        attr->g->parent_node = node;
    }
    if (from->type == ATTR_GRAPHS) {
        attr->graphs = arena_array(arena_of(graph), Graph *, from->count);
        for (size_t i = 0; i < from->count; i++) {
            attr->graphs[i] = clone_graph(graph->model, from->graphs[i], graph, scope);
            attr->graphs[i]->parent_node = node;
        }
    }
    return attr;
}

static void clone_node(Graph *graph, const Node *from, const CloneScope *scope)
{
    Node *node = graph_add_node(graph, NULL, from->domain, from->op_type, from->opset, from->name, NULL, 0, 0);
    node->overload = from->overload;
    node->extra = from->extra;
    if (from->graph->model != graph->model)
        node->document_node = from->document_node != NULL ? from->document_node : from;
    else
        node->document_node = from->document_node;
    for (int i = 0; i < from->input_count; i++)
        node_add_input(node, cloned(scope, from->inputs[i]));
    for (int i = 0; i < from->output_count; i++)
        node_set_output(node, i, cloned(scope, from->outputs[i]));
    node->attrs = arena_array(arena_of(graph), Attr *, from->attr_count);
    node->attr_count = node->attr_capacity = from->attr_count;
    for (size_t i = 0; i < from->attr_count; i++)
        node->attrs[i] = clone_attr(from->attrs[i], node, scope);
}

static void clone_lists(const Graph *from, Graph *to, const CloneScope *scope)
{
    for (size_t i = 0; i < from->input_count; i++)
        graph_add_input(to, cloned(scope, from->inputs[i]));
    for (size_t i = 0; i < from->output_count; i++)
        graph_add_output(to, cloned(scope, from->outputs[i]));
    for (size_t i = 0; i < from->initializer_count; i++) {
        Value *value = cloned(scope, from->initializers[i]);
        value->is_initializer = true;
        list_add(to, &to->initializers, &to->initializer_count, &to->initializer_capacity, value);
    }
}

static Graph *clone_graph(Model *model, const Graph *from, Graph *parent, const CloneScope *outer)
{
    Graph *graph = graph_new(model, from->name, parent);
    CloneScope scope = {from, graph, outer};
    graph->sparse_initializers = from->sparse_initializers;
    graph->sparse_names = from->sparse_names;
    graph->sparse_count = from->sparse_count;
    graph->quantization = from->quantization;
    graph->extra = from->extra;
    graph->next_name = from->next_name;
    for (size_t i = 0; i < from->values.count; i++)
        if (from->values.entries[i].key != NULL)
            clone_value(graph, from->values.entries[i].value);
    for (const Node *node = from->first; node != NULL; node = node->next)
        clone_node(graph, node, &scope);
    clone_lists(from, graph, &scope);
    return graph;
}

Graph *graph_clone(Model *model, const Graph *graph)
{
    return clone_graph(model, graph, model == graph->model ? graph->parent : NULL, NULL);
}
