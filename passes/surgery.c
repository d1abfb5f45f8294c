/* Reachability over the document, and constants seen through the nodes that exporters put before them. Nothing here
 * changes the graph. */
#include "passes/surgery.h"

enum { WEIGHT_DEPTH = 16, SHAPE_MAX = 64 };

Node *node_within(const Graph *graph, Node *node)
{
    while (node != NULL && node->graph != graph)
        node = node->graph->parent_node;
    return node;
}

bool node_has_body(const Node *node)
{
    for (size_t i = 0; i < node->attr_count; i++)
        if (node->attrs[i]->g != NULL || node->attrs[i]->type == ATTR_GRAPHS)
            return true;
    return false;
}

/* ---- what a node reads --------------------------------------------------------------------------------- */

typedef struct Reader {
    const Graph *graph;
    void (*visit)(Value *value, void *context);
    void *context;
} Reader;

static void read_node(const Node *node, const Reader *reader);

static void read_value(Value *value, const Reader *reader)
{
    if (value != NULL && value->graph == reader->graph)
        reader->visit(value, reader->context);
}

static void read_body(const Graph *body, const Reader *reader)
{
    for (const Node *node = body->first; node != NULL; node = node->next)
        read_node(node, reader);
    for (size_t i = 0; i < body->output_count; i++)
        read_value(body->outputs[i], reader);
}

static void read_node(const Node *node, const Reader *reader)
{
    for (int i = 0; i < node->input_count; i++)
        read_value(node->inputs[i], reader);
    for (size_t i = 0; i < node->attr_count; i++) {
        const Attr *attr = node->attrs[i];
        if (attr->g != NULL)
            read_body(attr->g, reader);
        for (size_t k = 0; attr->type == ATTR_GRAPHS && k < attr->count; k++)
            read_body(attr->graphs[k], reader);
    }
}

void node_each_read(const Node *node, const Graph *graph, void (*visit)(Value *value, void *context), void *context)
{
    Reader reader = {graph, visit, context};
    read_node(node, &reader);
}

/* ---- reachability -------------------------------------------------------------------------------------- */

/* Nodes yet to be looked at. Each enters once, so the stack never holds more than the graph. */
typedef struct Stack {
    Arena arena;
    Node **items;
    size_t count;
} Stack;

static void stack_init(Stack *stack, const Graph *graph)
{
    arena_init(&stack->arena);
    stack->items = arena_array(&stack->arena, Node *, graph->node_count + 1);
    stack->count = 0;
}

static void stack_push(Stack *stack, Node *node)
{
    if (node == NULL || node->mark)
        return;
    node->mark = 1;
    stack->items[stack->count++] = node;
}

static void clear_node_marks(Graph *graph)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        node->mark = 0;
}

static void push_consumers(Stack *stack, const Value *value)
{
    for (size_t i = 0; i < value->use_count; i++)
        stack_push(stack, node_within(value->graph, value->uses[i].node));
}

static void run_forward(Stack *stack)
{
    while (stack->count > 0) {
        Node *node = stack->items[--stack->count];
        for (int i = 0; i < node->output_count; i++) {
            if (node->outputs[i] == NULL)
                continue;
            node->outputs[i]->mark = 1;
            push_consumers(stack, node->outputs[i]);
        }
    }
}

bool value_is_fed_input(const Value *value)
{
    return value->is_input && !value->is_initializer;
}

void graph_mark_fed(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
    clear_node_marks(graph);
    Stack stack;
    stack_init(&stack, graph);
    for (size_t i = 0; i < graph->input_count; i++) {
        if (!value_is_fed_input(graph->inputs[i]))
            continue;
        graph->inputs[i]->mark = 1;
        push_consumers(&stack, graph->inputs[i]);
    }
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (node_has_body(node))
            stack_push(&stack, node);
    run_forward(&stack);
    arena_release(&stack.arena);
}

static void spread(Stack *stack)
{
    while (stack->count > 0) {
        Node *node = stack->items[--stack->count];
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL)
                push_consumers(stack, node->outputs[i]);
    }
}

void graph_mark_behind(Graph *graph, Value *value)
{
    clear_node_marks(graph);
    Stack stack;
    stack_init(&stack, graph);
    push_consumers(&stack, value);
    spread(&stack);
    arena_release(&stack.arena);
}

void graph_mark_from(Graph *graph, Node *const *nodes, size_t count)
{
    clear_node_marks(graph);
    Stack stack;
    stack_init(&stack, graph);
    for (size_t i = 0; i < count; i++)
        stack_push(&stack, nodes[i]);
    spread(&stack);
    arena_release(&stack.arena);
}

bool value_reaches(Value *from, const Value *to)
{
    if (from == to)
        return true;
    graph_mark_behind(from->graph, from);
    return to->producer != NULL && to->producer->mark;
}

static void push_producer(Value *value, void *context)
{
    stack_push(context, value->producer);
}

void graph_mark_needed(Graph *graph, Value *const *values, size_t count)
{
    clear_node_marks(graph);
    Stack stack;
    stack_init(&stack, graph);
    for (size_t i = 0; i < count; i++)
        push_producer(values[i], &stack);
    while (stack.count > 0)
        node_each_read(stack.items[--stack.count], graph, push_producer, &stack);
    arena_release(&stack.arena);
}

/* ---- constants ----------------------------------------------------------------------------------------- */

static bool weight_set(Weight *weight, Tensor *tensor)
{
    if (tensor == NULL || tensor->rank > RANK_MAX)
        return false;
    weight->tensor = tensor;
    weight->rank = tensor->rank;
    for (int i = 0; i < tensor->rank; i++)
        weight->dims[i] = tensor->dims[i];
    return true;
}

static bool weight_transpose(const Node *node, Weight *weight)
{
    size_t count;
    const int64_t *perm = node_ints(node, "perm", &count);
    if (perm != NULL && count != (size_t)weight->rank)
        return false;
    Weight old = *weight;
    for (int i = 0; i < old.rank; i++) {
        int64_t from = perm != NULL ? perm[i] : old.rank - 1 - i;
        if (from < 0 || from >= old.rank)
            return false;
        weight->dims[i] = old.dims[from];
    }
    return true;
}

/* Only shapes that are written out: no 0, no -1. */
static bool weight_reshape(const Node *node, Weight *weight)
{
    const Value *shape = node_input(node, 1);
    const Tensor *tensor = shape == NULL ? NULL : shape->constant;
    if (tensor == NULL || tensor->dtype != DTYPE_I64 || tensor_count(tensor) > RANK_MAX)
        return false;
    weight->rank = (int)tensor_count(tensor);
    for (int i = 0; i < weight->rank; i++) {
        weight->dims[i] = tensor_i64_at(tensor, i);
        if (weight->dims[i] <= 0)
            return false;
    }
    return dims_count(weight->rank, weight->dims) == tensor_count(weight->tensor);
}

static bool resolve(const Value *value, Weight *weight, int depth)
{
    if (value == NULL || depth > WEIGHT_DEPTH)
        return false;
    if (value->constant != NULL)
        return weight_set(weight, value->constant);
    const Node *node = value->producer;
    if (node == NULL)
        return false;
    if (node_is(node, "Constant"))
        return weight_set(weight, node_tensor(node, "value"));
    if (node_is(node, "Identity") || node_is(node, "Cast") || node_is(node, "CastLike") ||
        node_is(node, "DequantizeLinear") || node_is(node, "QuantizeLinear"))
        return resolve(node_input(node, 0), weight, depth + 1);
    if (node_is(node, "Transpose"))
        return resolve(node_input(node, 0), weight, depth + 1) && weight_transpose(node, weight);
    if (node_is(node, "Reshape"))
        return resolve(node_input(node, 0), weight, depth + 1) && weight_reshape(node, weight);
    return false;
}

bool weight_resolve(const Value *value, Weight *weight)
{
    return resolve(value, weight, 0);
}

bool operand_ints(const Value *value, Arena *arena, int64_t **values, size_t *count)
{
    Weight weight;
    if (!weight_resolve(value, &weight)) {
        const Node *node = value == NULL ? NULL : value->producer;
        const int64_t *ints = node != NULL && node_is(node, "Constant") ? node_ints(node, "value_ints", count) : NULL;
        if (ints == NULL)
            return false;
        *values = arena_copy(arena, ints, *count * sizeof *ints);
        return true;
    }
    int64_t n = tensor_count(weight.tensor);
    DType dtype = weight.tensor->dtype;
    if (n < 0 || n > SHAPE_MAX || (dtype != DTYPE_I64 && dtype != DTYPE_I32))
        return false;
    *count = (size_t)n;
    *values = arena_array(arena, int64_t, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        (*values)[i] = tensor_i64_at(weight.tensor, i);
    return true;
}
