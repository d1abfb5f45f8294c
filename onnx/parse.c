/* Reads the text form of print.c (docs/ir.md): recursive descent over characters, no token list.
 *
 * The first failure sticks in the Parser with its line; every function then returns at once, so that the grammar reads
 * without error handling on each line. Meant for tests and small examples: text is trusted to be small, nesting is
 * bounded. */
#include "onnx/op.h"

#include <ctype.h>
#include <inttypes.h>

enum { DEPTH_MAX = 64 };

typedef struct Parser {
    const char *text, *at;
    int depth;
    Model *model;
    Arena *arena;
    size_t function_capacity;
    const Opset *opsets; /* of the model or the function at hand */
    size_t opset_count;
    Status status;
    Error *err;
} Parser;

/* ---- characters and words ------------------------------------------------------------------------------- */

/* The line of the last thing that was read. */
static int line_of(const Parser *p)
{
    const char *end = p->at;
    while (end > p->text && isspace((unsigned char)end[-1]))
        end--;
    int line = 1;
    for (const char *c = p->text; c < end; c++)
        line += *c == '\n';
    return line;
}

static void bad(Parser *p, const char *what, const char *which)
{
    if (p->status == STATUS_OK)
        p->status = fail(p->err, STATUS_REJECTED, "line %d: %s%s%s%s", line_of(p), what, which[0] != '\0' ? " '" : "",
                         which, which[0] != '\0' ? "'" : "");
}

static bool ok(const Parser *p)
{
    return p->status == STATUS_OK;
}

/* The next character that means something. */
static char peek(Parser *p)
{
    for (;; p->at++) {
        if (*p->at == '#')
            while (*p->at != '\0' && *p->at != '\n')
                p->at++;
        if (*p->at == '\0' || !isspace((unsigned char)*p->at))
            return *p->at;
    }
}

static bool accept(Parser *p, const char *word)
{
    size_t length = strlen(word);
    peek(p);
    if (!ok(p) || strncmp(p->at, word, length) != 0)
        return false;
    p->at += length;
    return true;
}

static void expect(Parser *p, const char *word)
{
    if (!ok(p) || accept(p, word))
        return;
    char found[24] = "";
    for (size_t i = 0; i < sizeof found - 1 && p->at[i] != '\0' && p->at[i] != '\n'; i++)
        found[i] = p->at[i];
    char what[80];
    snprintf(what, sizeof what, "'%s' expected, found", word);
    bad(p, what, found[0] != '\0' ? found : "the end");
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c == '\0' ? NULL : strchr(digits, tolower((unsigned char)c));
    return found == NULL ? -1 : (int)(found - digits);
}

static Bytes quoted(Parser *p)
{
    Str text;
    str_init(&text);
    expect(p, "\"");
    while (ok(p) && *p->at != '"') {
        char c = *p->at++;
        if (c == '\0') {
            bad(p, "a string does not end", "");
            break;
        }
        if (c == '\\' && *p->at == 'x' && hex_digit(p->at[1]) >= 0 && hex_digit(p->at[2]) >= 0) {
            c = (char)(hex_digit(p->at[1]) * 16 + hex_digit(p->at[2]));
            p->at += 3;
        } else if (c == '\\' && *p->at != '\0') {
            c = *p->at == 'n' ? '\n' : *p->at;
            p->at++;
        }
        str_append_bytes(&text, &c, 1);
    }
    if (ok(p))
        p->at++;
    Bytes bytes = {arena_strndup(p->arena, text.text, text.length), text.length};
    str_release(&text);
    return bytes;
}

static bool at_name(Parser *p)
{
    char c = peek(p);
    return c == '"' || c == '_' || isalpha((unsigned char)c);
}

/* An identifier or a quoted name; `dots` for operators with their domain. */
static const char *name_with(Parser *p, bool dots)
{
    if (!ok(p))
        return "";
    if (peek(p) == '"')
        return quoted(p).data;
    const char *begin = p->at;
    if (isalpha((unsigned char)*p->at) || *p->at == '_')
        while (isalnum((unsigned char)*p->at) || *p->at == '_' || (dots && *p->at == '.'))
            p->at++;
    if (p->at == begin)
        expect(p, "a name");
    return arena_strndup(p->arena, begin, (size_t)(p->at - begin));
}

static const char *name(Parser *p)
{
    return name_with(p, false);
}

/* A number; *whole tells whether it was written as an integer. */
static double number(Parser *p, int64_t *integer, bool *whole)
{
    char *end_int = NULL, *end_float = NULL;
    peek(p);
    double value = strtod(p->at, &end_float);
    *integer = *p->at == '-' ? (int64_t)strtoll(p->at, &end_int, 10) : (int64_t)strtoull(p->at, &end_int, 10);
    *whole = end_int == end_float && end_int != p->at;
    if (end_float == p->at)
        expect(p, "a number");
    p->at = end_float;
    return value;
}

static int64_t integer(Parser *p)
{
    int64_t value = 0;
    bool whole = false;
    number(p, &value, &whole);
    if (!whole)
        bad(p, "an integer expected", "");
    return value;
}

/* ---- types ------------------------------------------------------------------------------------------------ */

static void parse_dim(Parser *p, Type *type)
{
    if (type->rank == RANK_MAX) {
        bad(p, "more dims than a Type holds", "");
        return;
    }
    int i = type->rank++;
    type->dims[i] = -1;
    if (accept(p, "?"))
        return;
    if (at_name(p))
        type->symbols[i] = name(p);
    else
        type->dims[i] = integer(p);
}

static void parse_tensor_type(Parser *p, const char *element, Type *type)
{
    type->dtype = dtype_from_name(element);
    type->rank = 0;
    if (type->dtype == DTYPE_UNDEFINED)
        bad(p, "unknown element type", element);
    if (!accept(p, "["))
        return;
    if (accept(p, "]")) {
        type->rank = -1;
        return;
    }
    do
        parse_dim(p, type);
    while (ok(p) && accept(p, ","));
    expect(p, "]");
}

static void parse_type(Parser *p, const char *word, Type *type)
{
    static const char *const kinds[] = {
        [TYPE_SEQUENCE] = "seq", [TYPE_OPTIONAL] = "optional", [TYPE_MAP] = "map", [TYPE_SPARSE] = "sparse_tensor"};
    memset(type, 0, sizeof *type);
    type->kind = TYPE_TENSOR;
    for (int kind = TYPE_SEQUENCE; kind <= TYPE_SPARSE; kind++)
        if (strcmp(word, kinds[kind]) == 0)
            type->kind = (TypeKind)kind;
    if (type->kind == TYPE_TENSOR) {
        parse_tensor_type(p, word, type);
        return;
    }
    expect(p, "(");
    parse_tensor_type(p, name(p), type);
    expect(p, ")");
}

/* ---- tensors ---------------------------------------------------------------------------------------------- */

/* Elements in both readings; which counts is the dtype's affair. */
typedef struct Elements {
    double *floats;
    int64_t *ints;
    Bytes *strings;
    size_t count, wanted;
} Elements;

static void parse_element(Parser *p, DType dtype, Elements *e)
{
    if (e->count >= e->wanted) {
        bad(p, "more elements than the shape has", "");
        return;
    }
    size_t i = e->count++;
    if (dtype == DTYPE_STRING) {
        e->strings[i] = quoted(p);
    } else if (accept(p, "true")) {
        e->floats[i] = 1, e->ints[i] = 1;
    } else if (accept(p, "false")) {
        e->floats[i] = 0, e->ints[i] = 0;
    } else {
        bool whole = false;
        e->floats[i] = number(p, &e->ints[i], &whole);
        if (!whole && (dtype_is_integer(dtype) || dtype == DTYPE_BOOL))
            bad(p, "an integer expected in a tensor of", dtype_name(dtype));
    }
}

/* `{1, 2, 3}`; `...` repeats the last element to the end (zero when there is none), and may be followed by a hash. */
static void parse_elements(Parser *p, DType dtype, Elements *e)
{
    expect(p, "{");
    while (ok(p) && peek(p) != '}') {
        if (!accept(p, "...")) {
            parse_element(p, dtype, e);
        } else {
            size_t last = e->count;
            for (; e->count < e->wanted; e->count++) {
                e->floats[e->count] = last > 0 ? e->floats[last - 1] : 0;
                e->ints[e->count] = last > 0 ? e->ints[last - 1] : 0;
                e->strings[e->count] = last > 0 ? e->strings[last - 1] : (Bytes){"", 0};
            }
            for (peek(p); hex_digit(*p->at) >= 0;)
                p->at++;
        }
        if (!accept(p, ","))
            break;
    }
    expect(p, "}");
    if (ok(p) && e->count != e->wanted)
        bad(p, "fewer elements than the shape has", "");
}

static Tensor *tensor_of(Parser *p, const char *tensor_name, const Type *type, const Elements *e)
{
    void *data;
    bool is_complex = type->dtype == DTYPE_C64 || type->dtype == DTYPE_C128;
    if (type->dtype == DTYPE_STRING || is_complex) {
        Tensor *tensor = tensor_new(p->arena, tensor_name, type->dtype, type->rank, type->dims, &data);
        for (size_t i = 0; i < e->count; i++) {
            if (type->dtype == DTYPE_STRING)
                ((Bytes *)data)[i] = e->strings[i];
            else if (type->dtype == DTYPE_C64)
                ((float *)data)[i] = (float)e->floats[i];
            else
                ((double *)data)[i] = e->floats[i];
        }
        return tensor;
    }
    bool is_float = dtype_is_float(type->dtype);
    Array array = {.dtype = is_float ? DTYPE_F64 : DTYPE_I64, .rank = type->rank, .count = (int64_t)e->count};
    memcpy(array.dims, type->dims, sizeof array.dims);
    array.data = is_float ? (void *)e->floats : (void *)e->ints;
    Array *converted = NULL;
    if (array_convert(p->arena, &array, type->dtype, &converted, p->err) != STATUS_OK) {
        p->status = STATUS_REJECTED;
        return NULL;
    }
    return tensor_from_array(p->arena, tensor_name, converted);
}

static Tensor *parse_tensor(Parser *p, const char *tensor_name, const Type *type)
{
    int64_t count = type->kind == TYPE_TENSOR ? type_count(type) : -1;
    if (ok(p) && (count < 0 || count > INT32_MAX))
        bad(p, "a tensor needs a shape of small numbers", "");
    if (!ok(p))
        return NULL;
    bool is_complex = type->dtype == DTYPE_C64 || type->dtype == DTYPE_C128;
    Elements e = {.wanted = (size_t)count * (is_complex ? 2 : 1)};
    e.floats = arena_array(p->arena, double, e.wanted + 1);
    e.ints = arena_array(p->arena, int64_t, e.wanted + 1);
    e.strings = arena_array(p->arena, Bytes, e.wanted + 1);
    parse_elements(p, type->dtype, &e);
    return ok(p) ? tensor_of(p, tensor_name, type, &e) : NULL;
}

/* `float[2] name {1, 2}`, the name optional. */
static Tensor *parse_tensor_literal(Parser *p)
{
    Type type;
    parse_type(p, name(p), &type);
    const char *tensor_name = ok(p) && at_name(p) ? name(p) : NULL;
    return parse_tensor(p, tensor_name, &type);
}

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
    const char *word = name(p);
    for (int i = ATTR_FLOAT; i <= ATTR_TYPES; i++)
        if (strcmp(word, attr_types[i]) == 0)
            return (AttrType)i;
    bad(p, "unknown attribute type", word);
    return ATTR_UNDEFINED;
}

/* Whether what follows is `name (`: a graph; else it is a tensor literal, whose type is followed by `[`, `{` or a name.
 */
static bool at_graph(Parser *p)
{
    Parser ahead = *p;
    ahead.err = NULL;
    name(&ahead);
    return peek(&ahead) == '(';
}

/* One value of an attribute whose type it may decide itself. */
static void parse_one(Parser *p, Attr *attr, Node *node)
{
    bool open = attr->type == ATTR_UNDEFINED;
    char c = peek(p);
    AttrType literal = ATTR_UNDEFINED;
    if (c == '"') {
        attr->s = quoted(p);
        literal = ATTR_STRING;
    } else if (c == '-' || c == '+' || c == '.' || isdigit((unsigned char)c) || strncmp(p->at, "nan", 3) == 0 ||
               strncmp(p->at, "inf", 3) == 0) {
        bool whole = false;
        attr->f = (float)number(p, &attr->i, &whole);
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
    else if (ok(p) && attr->type != literal && attr->type != ATTR_TYPE)
        bad(p, "the value does not have the type of attribute", attr->name);
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
    while (ok(p) && peek(p) != ']') {
        Attr one = {.name = attr->name, .type = item};
        parse_one(p, &one, node);
        item = one.type;
        append_item(p, attr, &one, &capacity);
        if (!accept(p, ","))
            break;
    }
    expect(p, "]");
    if (ok(p) && item == ATTR_UNDEFINED)
        bad(p, "an empty list needs a type, as in `a: ints = []`: attribute", attr->name);
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
    bool many = accept(p, "[");
    while (ok(p) && peek(p) == '"') {
        attr->types = arena_grow(p->arena, attr->types, attr->count, &capacity, sizeof(Bytes));
        attr->types[attr->count++] = quoted(p);
        accept(p, ",");
    }
    if (many)
        expect(p, "]");
}

/* `name`, then `: type`, then `= value` or `= @reference`. Without a value: what a function declares. */
static Attr *parse_attr(Parser *p, Node *node)
{
    Attr *attr = arena_new(p->arena, Attr);
    attr->name = name(p);
    if (accept(p, ":"))
        attr->type = parse_attr_type(p);
    if (!accept(p, "="))
        return attr;
    if (accept(p, "@"))
        attr->ref_attr_name = name(p);
    else if (attr->type == ATTR_TYPE || attr->type == ATTR_TYPES)
        parse_wire_types(p, attr);
    else if (attr->type >= ATTR_SPARSE)
        bad(p, "sparse tensors have no text form: attribute", attr->name);
    else if (peek(p) == '[' && accept(p, "["))
        parse_many(p, attr, node);
    else
        parse_one(p, attr, node);
    return attr;
}

static void parse_attrs(Parser *p, Node *node)
{
    if (!accept(p, "<"))
        return;
    do {
        Attr *attr = parse_attr(p, node);
        if (ok(p) && attr->type == ATTR_UNDEFINED)
            bad(p, "an attribute needs a value or a type:", attr->name);
        if (ok(p) && node_attr(node, attr->name) != NULL)
            bad(p, "an attribute given twice:", attr->name);
        node->attrs = arena_grow(p->arena, node->attrs, node->attr_count, &node->attr_capacity, sizeof(Attr *));
        node->attrs[node->attr_count++] = attr;
    } while (ok(p) && accept(p, ","));
    expect(p, ">");
}

/* ---- nodes and graphs --------------------------------------------------------------------------------------- */

typedef struct Names {
    const char **items;
    size_t count, capacity;
} Names;

static Names parse_names(Parser *p)
{
    Names names = {0};
    char c = peek(p);
    if (!at_name(p) && c != ',')
        return names;
    do {
        names.items = arena_grow(p->arena, names.items, names.count, &names.capacity, sizeof(char *));
        c = peek(p);
        names.items[names.count++] = c == ',' || c == ')' || c == '=' ? "" : name(p);
    } while (ok(p) && accept(p, ","));
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
    for (size_t i = 0; i < names->count && ok(p); i++) {
        if (names->items[i][0] == '\0') {
            node_set_output(node, (int)i, NULL);
            continue;
        }
        const Value *old = graph_find(node->graph, names->items[i]);
        if (old != NULL && (old->producer != NULL || old->is_input || old->constant != NULL))
            bad(p, "defined twice:", names->items[i]);
        else
            node_add_output(node, names->items[i]);
    }
}

static void parse_node(Parser *p, Graph *graph)
{
    const char *node_name = "";
    if (accept(p, "[")) {
        node_name = name(p);
        expect(p, "]");
    }
    Names outputs = parse_names(p);
    expect(p, "=");
    const char *qualified = name_with(p, true), *dot = strrchr(qualified, '.');
    const char *domain = dot == NULL ? "" : arena_strndup(p->arena, qualified, (size_t)(dot - qualified));
    const char *op_type = dot == NULL ? qualified : dot + 1;
    const char *overload = accept(p, ":") ? name(p) : NULL;
    if (!ok(p))
        return;
    Node *node = graph_add_node(graph, NULL, domain, op_type, opset_of(p, domain), node_name, NULL, 0, 0);
    node->overload = overload;
    parse_attrs(p, node);
    expect(p, "(");
    Names inputs = parse_names(p);
    expect(p, ")");
    if (peek(p) == '<')
        parse_attrs(p, node);
    for (size_t i = 0; i < inputs.count && ok(p); i++)
        node_add_input(node, mention(graph, inputs.items[i]));
    define_outputs(p, node, &outputs);
}

/* `[type] name [= {elements}]`. The value is found or made; an outer one may be listed as a body's output. */
static Value *parse_value(Parser *p, Graph *graph, bool may_be_outer)
{
    Type type;
    bool typed = false;
    const char *word = name(p);
    if (ok(p) && (peek(p) == '[' || peek(p) == '(' || at_name(p))) {
        parse_type(p, word, &type);
        typed = true;
        word = name(p);
    }
    if (!ok(p))
        return NULL;
    Value *value = graph_find(graph, word);
    if (value == NULL && may_be_outer)
        value = graph_resolve(graph->parent, word);
    if (value == NULL)
        value = graph_add_value(graph, word);
    if (typed && value->graph == graph)
        value->type = type;
    if (!accept(p, "="))
        return value;
    if (!typed)
        bad(p, "an initializer needs a type:", word);
    Tensor *tensor = parse_tensor(p, word, &type);
    if (ok(p) && value->constant == NULL)
        graph_add_initializer(graph, tensor);
    return value;
}

static void parse_inputs(Parser *p, Graph *graph)
{
    expect(p, "(");
    while (ok(p) && peek(p) != ')') {
        Value *value = parse_value(p, graph, false);
        if (ok(p) && value->is_input)
            bad(p, "defined twice:", value->name);
        if (ok(p))
            graph_add_input(graph, value);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")");
}

/* Outputs are named before the nodes are: remembers where they stand and comes back when the body has been read. */
static void skip_list(Parser *p)
{
    expect(p, "(");
    for (int depth = 1; ok(p) && depth > 0; p->at++) {
        char c = peek(p);
        if (c == '"') {
            quoted(p);
            p->at--;
        } else if (c == '(' || c == ')') {
            depth += c == '(' ? 1 : -1;
        } else if (c == '\0') {
            bad(p, "a list does not end", "");
            return;
        }
    }
}

static void parse_outputs(Parser *p, Graph *graph)
{
    expect(p, "(");
    while (ok(p) && peek(p) != ')') {
        Value *value = parse_value(p, graph, true);
        if (ok(p))
            graph_add_output(graph, value);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")");
}

static void parse_inner_values(Parser *p, Graph *graph)
{
    if (!accept(p, "<"))
        return;
    while (ok(p) && peek(p) != '>') {
        Value *value = parse_value(p, graph, false);
        if (ok(p) && !value->is_initializer)
            value->has_info = true;
        if (!accept(p, ","))
            break;
    }
    expect(p, ">");
}

/* Reads a value that nothing defines: misspelt, most likely. */
static void check_defined(Parser *p, const Graph *graph)
{
    for (size_t i = 0; i < graph->values.count && ok(p); i++) {
        const Value *value = graph->values.entries[i].value;
        if (graph->values.entries[i].key == NULL || value->producer != NULL || value->is_input ||
            value->constant != NULL)
            continue;
        if (value->use_count > 0 || value->is_output)
            bad(p, "read but defined nowhere:", value->name);
    }
}

static void parse_graph_rest(Parser *p, Graph *graph)
{
    if (++p->depth > DEPTH_MAX)
        bad(p, "graphs nested too deeply", "");
    parse_inputs(p, graph);
    expect(p, "=>");
    Parser outputs = *p;
    skip_list(p);
    parse_inner_values(p, graph);
    expect(p, "{");
    while (ok(p) && peek(p) != '}')
        parse_node(p, graph);
    expect(p, "}");
    if (ok(p)) {
        parse_outputs(&outputs, graph);
        p->status = outputs.status;
    }
    check_defined(p, graph);
    p->depth--;
}

static Graph *parse_graph(Parser *p, Graph *parent, Node *parent_node)
{
    Graph *graph = graph_new(p->model, name(p), parent);
    graph->parent_node = parent_node;
    parse_graph_rest(p, graph);
    return graph;
}

/* ---- models -------------------------------------------------------------------------------------------------- */

static Pair parse_pair(Parser *p)
{
    Pair pair;
    pair.key = quoted(p).data;
    expect(p, ":");
    pair.value = quoted(p).data;
    return pair;
}

static void parse_metadata(Parser *p)
{
    expect(p, "[");
    while (ok(p) && peek(p) != ']') {
        Pair pair = parse_pair(p);
        model_set_metadata(p->model, pair.key, pair.value);
        if (!accept(p, ","))
            break;
    }
    expect(p, "]");
}

static void parse_opsets(Parser *p, Opset **opsets, size_t *count)
{
    size_t capacity = 0;
    *opsets = NULL;
    *count = 0;
    expect(p, "[");
    while (ok(p) && peek(p) != ']') {
        *opsets = arena_grow(p->arena, *opsets, *count, &capacity, sizeof(Opset));
        Opset *opset = &(*opsets)[(*count)++];
        opset->domain = quoted(p).data;
        expect(p, ":");
        opset->version = integer(p);
        if (!accept(p, ","))
            break;
    }
    expect(p, "]");
}

static void parse_model_field(Parser *p)
{
    Model *model = p->model;
    const char *field = name(p);
    expect(p, ":");
    if (strcmp(field, "ir_version") == 0) {
        model->ir_version = integer(p);
    } else if (strcmp(field, "opset_import") == 0) {
        parse_opsets(p, &model->opsets, &model->opset_count);
        model->opset_capacity = model->opset_count;
    } else if (strcmp(field, "model_version") == 0) {
        model->model_version = integer(p);
        model->has_model_version = true;
    } else if (strcmp(field, "metadata_props") == 0) {
        parse_metadata(p);
    } else if (strcmp(field, "producer_name") == 0) {
        model->producer_name = quoted(p).data;
    } else if (strcmp(field, "producer_version") == 0) {
        model->producer_version = quoted(p).data;
    } else if (strcmp(field, "domain") == 0) {
        model->domain = quoted(p).data;
    } else if (strcmp(field, "doc_string") == 0) {
        model->doc_string = quoted(p).data;
    } else {
        bad(p, "unknown field", field);
    }
}

static void parse_header(Parser *p)
{
    if (!accept(p, "<")) { /* a bare graph is written in the newest operators */
        model_set_opset(p->model, "", OPSET_NEWEST);
        return;
    }
    do
        parse_model_field(p);
    while (ok(p) && accept(p, ","));
    expect(p, ">");
}

static void parse_function_attrs(Parser *p, Function *function)
{
    size_t attr_capacity = 0, default_capacity = 0;
    if (!accept(p, "<"))
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
    } while (ok(p) && accept(p, ","));
    expect(p, ">");
}

static void parse_function_header(Parser *p, Function *function)
{
    function->domain = "";
    expect(p, "<");
    do {
        const char *field = name(p);
        expect(p, ":");
        if (strcmp(field, "domain") == 0)
            function->domain = quoted(p).data;
        else if (strcmp(field, "overload") == 0)
            function->overload = quoted(p).data;
        else if (strcmp(field, "opset_import") == 0)
            parse_opsets(p, &function->opsets, &function->opset_count);
        else
            bad(p, "unknown field", field);
    } while (ok(p) && accept(p, ","));
    expect(p, ">");
}

static void parse_function(Parser *p)
{
    Function *function = arena_new(p->arena, Function);
    parse_function_header(p, function);
    function->name = name(p);
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
    made->graph->name = name(&p);
    parse_graph_rest(&p, made->graph);
    while (ok(&p) && peek(&p) != '\0')
        parse_function(&p);
    if (!ok(&p)) {
        model_free(made);
        *model = NULL;
        return p.status;
    }
    *model = made;
    return STATUS_OK;
}
