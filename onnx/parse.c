/* Reads the text form of print.c (docs/ir.md): recursive descent over characters, no token list.
 *
 * The first failure sticks in the Parser with its line; every function then returns at once, so that the grammar reads
 * without error handling on each line. Meant for tests and small examples: text is trusted to be small, nesting is
 * bounded. */
#include "onnx/parse.h"

#include <ctype.h>
#include <inttypes.h>

enum { DEPTH_MAX = 64 };

/* ---- attributes ------------------------------------------------------------------------------------------- */

static Graph *parse_graph(Parser *p, Graph *parent, Node *parent_node);

static const char *const attr_types[] = {
    [ATTR_UNDEFINED] = "undefined",    [ATTR_FLOAT] = "float",     [ATTR_INT] = "int",
    [ATTR_STRING] = "string",          [ATTR_TENSOR] = "tensor",   [ATTR_GRAPH] = "graph",
    [ATTR_FLOATS] = "floats",          [ATTR_INTS] = "ints",       [ATTR_STRINGS] = "strings",
    [ATTR_TENSORS] = "tensors",        [ATTR_GRAPHS] = "graphs",   [ATTR_SPARSE] = "sparse_tensor",
    [ATTR_SPARSES] = "sparse_tensors", [ATTR_TYPE] = "type_proto", [ATTR_TYPES] = "type_protos",
};

static AttrType parse_attr_type(Parser *p)
{
    const char *word = parser_name(p);
    for (int i = ATTR_FLOAT; i <= ATTR_TYPES; i++)
        if (strcmp(word, attr_types[i]) == 0)
            return (AttrType)i;
    parser_bad(p, "unknown attribute type", word);
    return ATTR_UNDEFINED;
}

/* Whether what follows is `name (`: a graph; else it is a tensor literal, whose type is followed by `[`, `{` or a name.
 */
static bool at_graph(Parser *p)
{
    Parser ahead = *p;
    ahead.err = NULL;
    parser_name(&ahead);
    return parser_peek(&ahead) == '(';
}

/* One value of an attribute whose type it may decide itself. */
static void parse_one(Parser *p, Attr *attr, Node *node)
{
    bool open = attr->type == ATTR_UNDEFINED;
    char c = parser_peek(p);
    AttrType literal = ATTR_UNDEFINED;
    if (c == '"') {
        attr->s = parser_quoted(p);
        literal = ATTR_STRING;
    } else if (c == '-' || c == '+' || c == '.' || isdigit((unsigned char)c) || strncmp(p->at, "nan", 3) == 0 ||
               strncmp(p->at, "inf", 3) == 0) {
        bool whole = false;
        attr->f = (float)parser_number(p, &attr->i, &whole);
        literal = whole && attr->type != ATTR_FLOAT && attr->type != ATTR_FLOATS ? ATTR_INT : ATTR_FLOAT;
    } else if (node != NULL && at_graph(p)) {
        attr->g = parse_graph(p, node->graph, node);
        literal = ATTR_GRAPH;
    } else {
        attr->t = parse_tensor_literal(p);
        literal = ATTR_TENSOR;
    }
    if (open)
        attr->type = literal;
    else if (parser_ok(p) && attr->type != literal && attr->type != ATTR_TYPE)
        parser_bad(p, "the value does not have the type of attribute", attr->name);
}

static void append_item(Parser *p, Attr *list, const Attr *one, size_t *capacity)
{
    size_t n = list->count;
    switch (one->type) {
    case ATTR_FLOAT:
        list->floats = arena_grow(p->arena, list->floats, n, capacity, sizeof(float));
        list->floats[n] = one->f;
        break;
    case ATTR_INT:
        list->ints = arena_grow(p->arena, list->ints, n, capacity, sizeof(int64_t));
        list->ints[n] = one->i;
        break;
    case ATTR_STRING:
        list->strings = arena_grow(p->arena, list->strings, n, capacity, sizeof(Bytes));
        list->strings[n] = one->s;
        break;
    case ATTR_TENSOR:
        list->tensors = arena_grow(p->arena, list->tensors, n, capacity, sizeof(Tensor *));
        list->tensors[n] = one->t;
        break;
    default:
        list->graphs = arena_grow(p->arena, list->graphs, n, capacity, sizeof(Graph *));
        list->graphs[n] = one->g;
        break;
    }
    list->count++;
}

static bool is_list(AttrType type)
{
    return type >= ATTR_FLOATS && type <= ATTR_GRAPHS;
}

/* `[1, 2, 3]`: all of one type; a list without elements needs its type written. Mixed 1 and 2.5 are floats. */
static void parse_many(Parser *p, Attr *attr, Node *node)
{
    enum { TO_LIST = ATTR_FLOATS - ATTR_FLOAT };
    size_t capacity = 0;
    AttrType item = is_list(attr->type) ? (AttrType)(attr->type - TO_LIST) : ATTR_UNDEFINED;
    while (parser_ok(p) && parser_peek(p) != ']') {
        Attr one = {.name = attr->name, .type = item};
        parse_one(p, &one, node);
        item = one.type;
        append_item(p, attr, &one, &capacity);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, "]");
    if (parser_ok(p) && item == ATTR_UNDEFINED)
        parser_bad(p, "an empty list needs a type, as in `a: ints = []`: attribute", attr->name);
    attr->type = (AttrType)(item + TO_LIST);
    if (attr->count == 0) { /* present but empty: pointers that are not NULL */
        attr->ints = arena_new(p->arena, int64_t);
        attr->floats = arena_new(p->arena, float);
        attr->strings = arena_new(p->arena, Bytes);
    }
}

static void parse_wire_types(Parser *p, Attr *attr)
{
    size_t capacity = 0;
    bool many = parser_accept(p, "[");
    while (parser_ok(p) && parser_peek(p) == '"') {
        attr->types = arena_grow(p->arena, attr->types, attr->count, &capacity, sizeof(Bytes));
        attr->types[attr->count++] = parser_quoted(p);
        parser_accept(p, ",");
    }
    if (many)
        parser_expect(p, "]");
}

/* `name`, then `: type`, then `= value` or `= @reference`. Without a value: what a function declares. */
static Attr *parse_attr(Parser *p, Node *node)
{
    Attr *attr = arena_new(p->arena, Attr);
    attr->name = parser_name(p);
    if (parser_accept(p, ":"))
        attr->type = parse_attr_type(p);
    if (!parser_accept(p, "="))
        return attr;
    if (parser_accept(p, "@"))
        attr->ref_attr_name = parser_name(p);
    else if (attr->type == ATTR_TYPE || attr->type == ATTR_TYPES)
        parse_wire_types(p, attr);
    else if (attr->type >= ATTR_SPARSE)
        parser_bad(p, "sparse tensors have no text form: attribute", attr->name);
    else if (parser_peek(p) == '[' && parser_accept(p, "["))
        parse_many(p, attr, node);
    else
        parse_one(p, attr, node);
    return attr;
}

static void parse_attrs(Parser *p, Node *node)
{
    if (!parser_accept(p, "<"))
        return;
    do {
        Attr *attr = parse_attr(p, node);
        if (parser_ok(p) && attr->type == ATTR_UNDEFINED)
            parser_bad(p, "an attribute needs a value or a type:", attr->name);
        if (parser_ok(p) && node_attr(node, attr->name) != NULL)
            parser_bad(p, "an attribute given twice:", attr->name);
        node->attrs = arena_grow(p->arena, node->attrs, node->attr_count, &node->attr_capacity, sizeof(Attr *));
        node->attrs[node->attr_count++] = attr;
    } while (parser_ok(p) && parser_accept(p, ","));
    parser_expect(p, ">");
}

/* ---- nodes and graphs --------------------------------------------------------------------------------------- */

typedef struct Names {
    const char **items;
    size_t count, capacity;
} Names;

static Names parse_names(Parser *p)
{
    Names names = {0};
    char c = parser_peek(p);
    if (!parser_at_name(p) && c != ',')
        return names;
    do {
        names.items = arena_grow(p->arena, names.items, names.count, &names.capacity, sizeof(char *));
        c = parser_peek(p);
        names.items[names.count++] = c == ',' || c == ')' || c == '=' ? "" : parser_name(p);
    } while (parser_ok(p) && parser_accept(p, ","));
    return names;
}

static int opset_of(const Parser *p, const char *domain)
{
    if (strcmp(domain, DOMAIN_INTERNAL) == 0)
        return 0;
    if (strcmp(domain, "ai.onnx") == 0)
        domain = "";
    for (size_t i = 0; i < p->opset_count; i++)
        if (strcmp(p->opsets[i].domain, domain) == 0)
            return (int)p->opsets[i].version;
    return domain[0] == '\0' ? OPSET_NEWEST : 1;
}

/* The value a node reads: seen already, of an outer graph, or still to come. */
static Value *mention(Graph *graph, const char *value_name)
{
    if (value_name[0] == '\0')
        return NULL;
    Value *value = graph_resolve(graph, value_name);
    return value != NULL ? value : graph_add_value(graph, value_name);
}

static void define_outputs(Parser *p, Node *node, const Names *names)
{
    for (size_t i = 0; i < names->count && parser_ok(p); i++) {
        if (names->items[i][0] == '\0') {
            node_set_output(node, (int)i, NULL);
            continue;
        }
        const Value *old = graph_find(node->graph, names->items[i]);
        if (old != NULL && (old->producer != NULL || old->is_input || old->constant != NULL))
            parser_bad(p, "defined twice:", names->items[i]);
        else
            node_add_output(node, names->items[i]);
    }
}

static void parse_node(Parser *p, Graph *graph)
{
    const char *node_name = "";
    if (parser_accept(p, "[")) {
        node_name = parser_name(p);
        parser_expect(p, "]");
    }
    Names outputs = parse_names(p);
    parser_expect(p, "=");
    const char *qualified = parser_name_with(p, true), *dot = strrchr(qualified, '.');
    const char *domain = dot == NULL ? "" : arena_strndup(p->arena, qualified, (size_t)(dot - qualified));
    const char *op_type = dot == NULL ? qualified : dot + 1;
    const char *overload = parser_accept(p, ":") ? parser_name(p) : NULL;
    if (!parser_ok(p))
        return;
    Node *node = graph_add_node(graph, NULL, domain, op_type, opset_of(p, domain), node_name, NULL, 0, 0);
    node->overload = overload;
    parse_attrs(p, node);
    parser_expect(p, "(");
    Names inputs = parse_names(p);
    parser_expect(p, ")");
    if (parser_peek(p) == '<')
        parse_attrs(p, node);
    for (size_t i = 0; i < inputs.count && parser_ok(p); i++)
        node_add_input(node, mention(graph, inputs.items[i]));
    define_outputs(p, node, &outputs);
}

/* `[type] name [= {elements}]`. The value is found or made; an outer one may be listed as a body's output. */
static Value *parse_value(Parser *p, Graph *graph, bool may_be_outer)
{
    Type type;
    bool typed = false;
    const char *word = parser_name(p);
    if (parser_ok(p) && (parser_peek(p) == '[' || parser_peek(p) == '(' || parser_at_name(p))) {
        parse_type(p, word, &type);
        typed = true;
        word = parser_name(p);
    }
    if (!parser_ok(p))
        return NULL;
    Value *value = graph_find(graph, word);
    if (value == NULL && may_be_outer)
        value = graph_resolve(graph->parent, word);
    if (value == NULL)
        value = graph_add_value(graph, word);
    if (typed && value->graph == graph)
        value->type = type;
    if (!parser_accept(p, "="))
        return value;
    if (!typed)
        parser_bad(p, "an initializer needs a type:", word);
    Tensor *tensor = parse_tensor(p, word, &type);
    if (parser_ok(p) && value->constant == NULL)
        graph_add_initializer(graph, tensor);
    return value;
}

static void parse_inputs(Parser *p, Graph *graph)
{
    parser_expect(p, "(");
    while (parser_ok(p) && parser_peek(p) != ')') {
        Value *value = parse_value(p, graph, false);
        if (parser_ok(p) && value->is_input)
            parser_bad(p, "defined twice:", value->name);
        if (parser_ok(p))
            graph_add_input(graph, value);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, ")");
}

/* Outputs are named before the nodes are: remembers where they stand and comes back when the body has been read. */
static void skip_list(Parser *p)
{
    parser_expect(p, "(");
    for (int depth = 1; parser_ok(p) && depth > 0; p->at++) {
        char c = parser_peek(p);
        if (c == '"') {
            parser_quoted(p);
            p->at--;
        } else if (c == '(' || c == ')') {
            depth += c == '(' ? 1 : -1;
        } else if (c == '\0') {
            parser_bad(p, "a list does not end", "");
            return;
        }
    }
}

static void parse_outputs(Parser *p, Graph *graph)
{
    parser_expect(p, "(");
    while (parser_ok(p) && parser_peek(p) != ')') {
        Value *value = parse_value(p, graph, true);
        if (parser_ok(p))
            graph_add_output(graph, value);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, ")");
}

static void parse_inner_values(Parser *p, Graph *graph)
{
    if (!parser_accept(p, "<"))
        return;
    while (parser_ok(p) && parser_peek(p) != '>') {
        Value *value = parse_value(p, graph, false);
        if (parser_ok(p) && !value->is_initializer)
            value->has_info = true;
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, ">");
}

/* Reads a value that nothing defines: misspelt, most likely. */
static void check_defined(Parser *p, const Graph *graph)
{
    for (size_t i = 0; i < graph->values.count && parser_ok(p); i++) {
        const Value *value = graph->values.entries[i].value;
        if (graph->values.entries[i].key == NULL || value->producer != NULL || value->is_input ||
            value->constant != NULL)
            continue;
        if (value->use_count > 0 || value->is_output)
            parser_bad(p, "read but defined nowhere:", value->name);
    }
}

static void parse_graph_rest(Parser *p, Graph *graph)
{
    if (++p->depth > DEPTH_MAX)
        parser_bad(p, "graphs nested too deeply", "");
    parse_inputs(p, graph);
    parser_expect(p, "=>");
    Parser outputs = *p;
    skip_list(p);
    parse_inner_values(p, graph);
    parser_expect(p, "{");
    while (parser_ok(p) && parser_peek(p) != '}')
        parse_node(p, graph);
    parser_expect(p, "}");
    if (parser_ok(p)) {
        parse_outputs(&outputs, graph);
        p->status = outputs.status;
    }
    check_defined(p, graph);
    p->depth--;
}

static Graph *parse_graph(Parser *p, Graph *parent, Node *parent_node)
{
    Graph *graph = graph_new(p->model, parser_name(p), parent);
    graph->parent_node = parent_node;
    parse_graph_rest(p, graph);
    return graph;
}

/* ---- models -------------------------------------------------------------------------------------------------- */

static Pair parse_pair(Parser *p)
{
    Pair pair;
    pair.key = parser_quoted(p).data;
    parser_expect(p, ":");
    pair.value = parser_quoted(p).data;
    return pair;
}

static void parse_metadata(Parser *p)
{
    parser_expect(p, "[");
    while (parser_ok(p) && parser_peek(p) != ']') {
        Pair pair = parse_pair(p);
        model_set_metadata(p->model, pair.key, pair.value);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, "]");
}

static void parse_opsets(Parser *p, Opset **opsets, size_t *count)
{
    size_t capacity = 0;
    *opsets = NULL;
    *count = 0;
    parser_expect(p, "[");
    while (parser_ok(p) && parser_peek(p) != ']') {
        *opsets = arena_grow(p->arena, *opsets, *count, &capacity, sizeof(Opset));
        Opset *opset = &(*opsets)[(*count)++];
        opset->domain = parser_quoted(p).data;
        parser_expect(p, ":");
        opset->version = parser_integer(p);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, "]");
}

static void parse_model_field(Parser *p)
{
    Model *model = p->model;
    const char *field = parser_name(p);
    parser_expect(p, ":");
    if (strcmp(field, "ir_version") == 0) {
        model->ir_version = parser_integer(p);
    } else if (strcmp(field, "opset_import") == 0) {
        parse_opsets(p, &model->opsets, &model->opset_count);
        model->opset_capacity = model->opset_count;
    } else if (strcmp(field, "model_version") == 0) {
        model->model_version = parser_integer(p);
        model->has_model_version = true;
    } else if (strcmp(field, "metadata_props") == 0) {
        parse_metadata(p);
    } else if (strcmp(field, "producer_name") == 0) {
        model->producer_name = parser_quoted(p).data;
    } else if (strcmp(field, "producer_version") == 0) {
        model->producer_version = parser_quoted(p).data;
    } else if (strcmp(field, "domain") == 0) {
        model->domain = parser_quoted(p).data;
    } else if (strcmp(field, "doc_string") == 0) {
        model->doc_string = parser_quoted(p).data;
    } else {
        parser_bad(p, "unknown field", field);
    }
}

static void parse_header(Parser *p)
{
    if (!parser_accept(p, "<")) { /* a bare graph is written in the newest operators */
        model_set_opset(p->model, "", OPSET_NEWEST);
        return;
    }
    do
        parse_model_field(p);
    while (parser_ok(p) && parser_accept(p, ","));
    parser_expect(p, ">");
}

static void parse_function_attrs(Parser *p, Function *function)
{
    size_t attr_capacity = 0, default_capacity = 0;
    if (!parser_accept(p, "<"))
        return;
    do {
        Attr *attr = parse_attr(p, NULL);
        if (attr->type == ATTR_UNDEFINED) {
            function->attrs =
                arena_grow(p->arena, function->attrs, function->attr_count, &attr_capacity, sizeof(char *));
            function->attrs[function->attr_count++] = attr->name;
        } else {
            function->defaults =
                arena_grow(p->arena, function->defaults, function->default_count, &default_capacity, sizeof(Attr *));
            function->defaults[function->default_count++] = attr;
        }
    } while (parser_ok(p) && parser_accept(p, ","));
    parser_expect(p, ">");
}

static void parse_function_header(Parser *p, Function *function)
{
    function->domain = "";
    parser_expect(p, "<");
    do {
        const char *field = parser_name(p);
        parser_expect(p, ":");
        if (strcmp(field, "domain") == 0)
            function->domain = parser_quoted(p).data;
        else if (strcmp(field, "overload") == 0)
            function->overload = parser_quoted(p).data;
        else if (strcmp(field, "opset_import") == 0)
            parse_opsets(p, &function->opsets, &function->opset_count);
        else
            parser_bad(p, "unknown field", field);
    } while (parser_ok(p) && parser_accept(p, ","));
    parser_expect(p, ">");
}

static void parse_function(Parser *p)
{
    Function *function = arena_new(p->arena, Function);
    parse_function_header(p, function);
    function->name = parser_name(p);
    parse_function_attrs(p, function);
    p->opsets = function->opsets;
    p->opset_count = function->opset_count;
    function->graph = graph_new(p->model, function->name, NULL);
    parse_graph_rest(p, function->graph);
    Model *model = p->model;
    model->functions =
        arena_grow(p->arena, model->functions, model->function_count, &p->function_capacity, sizeof(Function *));
    model->functions[model->function_count++] = function;
}

Status model_parse(const char *text, const OpSet *ops, Model **model, Error *err)
{
    Error local = {STATUS_OK, ""};
    Model *made = model_new(ops);
    Parser p = {.text = text, .at = text, .model = made, .arena = &made->arena, .err = err != NULL ? err : &local};
    parse_header(&p);
    p.opsets = made->opsets;
    p.opset_count = made->opset_count;
    made->graph->name = parser_name(&p);
    parse_graph_rest(&p, made->graph);
    while (parser_ok(&p) && parser_peek(&p) != '\0')
        parse_function(&p);
    if (!parser_ok(&p)) {
        model_free(made);
        *model = NULL;
        return p.status;
    }
    *model = made;
    return STATUS_OK;
}
