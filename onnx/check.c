/* The invariants of docs/ir.md, checked after import and, in debug builds, between passes. The first offender is named.
 *
 * One walk over a graph and its bodies looks at lists, values and nodes; use lists are compared by number at the end:
 * every use must name an input that reads the value, and there must be as many uses as inputs. Numbers the nodes on the
 * way (Node.index); changes nothing else. */
#include "onnx/onnx.h"

typedef struct Checker {
    const Graph *root;
    size_t inputs, uses; /* counted over the root and its bodies */
    Error *err;
} Checker;

static Status reject(const Checker *checker, const Graph *graph, const char *what, const char *name)
{
    return fail(checker->err, STATUS_REJECTED, "graph '%s': value '%s' %s", graph->name, name, what);
}

static Status reject_node(const Checker *checker, const Node *node, const char *what, const char *name)
{
    return fail(checker->err, STATUS_REJECTED, "%s: %s '%s'", node_text(node), what, name);
}

/* ---- values ------------------------------------------------------------------------------------------ */

static bool listed(Value *const *list, size_t count, const Value *value)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == value)
            return true;
    return false;
}

/* No input is listed twice. */
static Status check_distinct(const Checker *checker, const Graph *graph)
{
    Map seen;
    map_init(&seen);
    const Value *twice = NULL;
    for (size_t i = 0; i < graph->input_count && twice == NULL; i++) {
        if (map_has(&seen, graph->inputs[i]->name))
            twice = graph->inputs[i];
        map_set(&seen, graph->inputs[i]->name, graph->inputs[i]);
    }
    map_release(&seen);
    return twice == NULL ? STATUS_OK : reject(checker, graph, "is listed as an input twice", twice->name);
}

/* Every listed value is one of the graph's own (outputs of a body may be outer values) and says that it is listed. */
static Status check_lists(const Checker *checker, const Graph *graph)
{
    TRY(check_distinct(checker, graph));
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *value = graph->inputs[i];
        if (!value->is_input || value->graph != graph || graph_find(graph, value->name) != value)
            return reject(checker, graph, "is a graph input that does not know it", value->name);
        if (value->producer != NULL)
            return reject(checker, graph, "is both a graph input and the output of a node", value->name);
    }
    for (size_t i = 0; i < graph->initializer_count; i++) {
        const Value *value = graph->initializers[i];
        if (!value->is_initializer || value->graph != graph || graph_find(graph, value->name) != value)
            return reject(checker, graph, "is an initializer that does not know it", value->name);
        if (value->producer != NULL)
            return reject(checker, graph, "is both an initializer and the output of a node", value->name);
        if (value->constant == NULL)
            return reject(checker, graph, "is an initializer without a tensor", value->name);
    }
    for (size_t i = 0; i < graph->output_count; i++) {
        const Value *value = graph->outputs[i];
        if (!value->is_output)
            return reject(checker, graph, "is a graph output that does not know it", value->name);
        if (value->producer == NULL && !value->is_input && value->constant == NULL)
            return reject(checker, graph, "is a graph output that nothing computes", value->name);
    }
    return STATUS_OK;
}

static Status check_tensor(const Checker *checker, const Graph *graph, const Value *value)
{
    const Tensor *tensor = value->constant;
    int64_t count = tensor_count(tensor);
    if (count < 0)
        return reject(checker, graph, "has a tensor of a shape that makes no sense", value->name);
    if (tensor->bytes != tensor_file_bytes(tensor->dtype, count))
        return reject(checker, graph, "has a tensor whose bytes do not match its shape", value->name);
    return STATUS_OK;
}

/* Names, constants, producers and uses of every value in the graph's map. */
static Status check_values(Checker *checker, const Graph *graph)
{
    size_t inputs = 0;
    for (size_t i = 0; i < graph->values.count; i++) {
        const MapEntry *entry = &graph->values.entries[i];
        if (entry->key == NULL)
            continue;
        const Value *value = entry->value;
        if (value->name[0] == '\0' || strcmp(entry->key, value->name) != 0 || value->graph != graph)
            return reject(checker, graph, "is filed under another name or graph", value->name);
        if (value->constant != NULL)
            TRY(check_tensor(checker, graph, value));
        const Node *producer = value->producer;
        if (producer != NULL && node_output(producer, value->producer_index) != value)
            return reject(checker, graph, "names a producer that does not make it", value->name);
        inputs += value->is_input;
        for (size_t u = 0; u < value->use_count; u++)
            if (node_input(value->uses[u].node, value->uses[u].index) != value)
                return reject(checker, graph, "has a use that does not read it", value->name);
        checker->uses += value->use_count;
    }
    for (size_t i = 0; i < graph->values.count && inputs > graph->input_count; i++) {
        const Value *value = graph->values.entries[i].value; /* all that are listed are inputs: this is one too many */
        if (graph->values.entries[i].key != NULL && value->is_input &&
            !listed(graph->inputs, graph->input_count, value))
            return reject(checker, graph, "thinks it is a graph input", value->name);
    }
    return STATUS_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------- */

static bool is_inside(const Graph *graph, const Graph *root)
{
    while (graph != NULL && graph != root)
        graph = graph->parent;
    return graph == root;
}

/* The node of `graph` inside of which `node` is; `node` itself when it is directly there. */
static const Node *ancestor_in(const Node *node, const Graph *graph)
{
    while (node != NULL && node->graph != graph)
        node = node->graph->parent_node;
    return node;
}

static Status check_input(Checker *checker, const Node *node, const Value *value)
{
    if (graph_find(value->graph, value->name) != value)
        return reject_node(checker, node, "reads a value that is not in its graph:", value->name);
    const Node *here = ancestor_in(node, value->graph);
    if (here == NULL)
        return reject_node(checker, node, "reads a value that its scope does not see:", value->name);
    if (is_inside(value->graph, checker->root))
        checker->inputs++;
    if (value->producer == NULL) {
        if (!value->is_input && value->constant == NULL)
            return reject_node(checker, node, "reads a value that nothing computes:", value->name);
        return STATUS_OK;
    }
    if (value->producer->graph != value->graph)
        return reject_node(checker, node, "reads a value made in another graph:", value->name);
    if (value->producer->index >= here->index)
        return reject_node(checker, node, "comes before the node that computes", value->name);
    return STATUS_OK;
}

static Status check_output(const Checker *checker, const Node *node, int index)
{
    const Value *value = node->outputs[index];
    if (value->producer != node || value->producer_index != index || value->graph != node->graph)
        return reject_node(checker, node, "does not own its output", value->name);
    if (graph_find(node->graph, value->name) != value)
        return reject_node(checker, node, "has an output whose name another value holds:", value->name);
    return STATUS_OK;
}

static bool attr_is_whole(const Attr *attr)
{
    if (attr->ref_attr_name != NULL)
        return true;
    bool some = attr->count > 0;
    switch (attr->type) {
    case ATTR_FLOAT:
    case ATTR_INT:
        return true;
    case ATTR_STRING:
        return attr->s.data != NULL;
    case ATTR_TENSOR:
        return attr->t != NULL;
    case ATTR_GRAPH:
        return attr->g != NULL;
    case ATTR_SPARSE:
        return attr->sparse != NULL;
    case ATTR_FLOATS:
        return !some || attr->floats != NULL;
    case ATTR_INTS:
        return !some || attr->ints != NULL;
    case ATTR_STRINGS:
        return !some || attr->strings != NULL;
    case ATTR_TENSORS:
        return !some || attr->tensors != NULL;
    case ATTR_GRAPHS:
        return !some || attr->graphs != NULL;
    case ATTR_SPARSES:
        return !some || attr->sparses != NULL;
    case ATTR_TYPE:
    case ATTR_TYPES:
        return !some || attr->types != NULL;
    case ATTR_UNDEFINED:
        return false;
    }
    return false;
}

static Status check_graph(Checker *checker, const Graph *graph);

static Status check_body(Checker *checker, const Node *node, const Attr *attr, const Graph *body)
{
    if (body->parent != node->graph || body->parent_node != node)
        return reject_node(checker, node, "does not own the body in attribute", attr->name);
    return check_graph(checker, body);
}

static Status check_attrs(Checker *checker, const Node *node)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        const Attr *attr = node->attrs[i];
        if (!attr_is_whole(attr))
            return reject_node(checker, node, "has an attribute whose value does not fit its type:", attr->name);
        if (node_attr(node, attr->name) != attr)
            return reject_node(checker, node, "has an attribute twice:", attr->name);
        if (attr->type == ATTR_GRAPH && attr->g != NULL)
            TRY(check_body(checker, node, attr, attr->g));
        for (size_t k = 0; attr->type == ATTR_GRAPHS && k < attr->count; k++)
            TRY(check_body(checker, node, attr, attr->graphs[k]));
    }
    return STATUS_OK;
}

static Status check_node(Checker *checker, const Node *node)
{
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != NULL)
            TRY(check_input(checker, node, node->inputs[i]));
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            TRY(check_output(checker, node, i));
    return check_attrs(checker, node);
}

/* The list of nodes itself, both ways; numbers them. */
static Status check_chain(const Checker *checker, const Graph *graph)
{
    int index = 0;
    const Node *previous = NULL;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        if (node->graph != graph || node->previous != previous)
            return reject_node(checker, node, "is linked wrongly in graph", graph->name);
        node->index = index++;
        previous = node;
    }
    if (graph->last != previous || graph->node_count != (size_t)index)
        return fail(checker->err, STATUS_REJECTED, "graph '%s' counts %zu nodes and has %d", graph->name,
                    graph->node_count, index);
    return STATUS_OK;
}

static Status check_graph(Checker *checker, const Graph *graph)
{
    TRY(check_chain(checker, graph));
    TRY(check_lists(checker, graph));
    TRY(check_values(checker, graph));
    for (const Node *node = graph->first; node != NULL; node = node->next)
        TRY(check_node(checker, node));
    return STATUS_OK;
}

Status graph_check(const Graph *graph, Error *err)
{
    Checker checker = {.root = graph, .err = err};
    TRY(check_graph(&checker, graph));
    if (checker.inputs != checker.uses)
        return fail(err, STATUS_REJECTED, "graph '%s': %zu inputs of nodes, but %zu uses of values", graph->name,
                    checker.inputs, checker.uses);
    return STATUS_OK;
}

Status model_check(const Model *model, Error *err)
{
    TRY(graph_check(model->graph, err));
    for (size_t i = 0; i < model->function_count; i++) {
        Status status = graph_check(model->functions[i]->graph, err);
        if (status != STATUS_OK) {
            error_prefix(err, "function '%s'", model->functions[i]->name);
            return status;
        }
    }
    return STATUS_OK;
}
