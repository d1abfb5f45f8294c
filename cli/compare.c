/* Comparing two models; see compare.h. Both are read only; everything made here is in the comparison's arena. */
#include "cli/compare.h"

#include <inttypes.h>
#include <math.h>

typedef struct Side {
    const Model *model;
    const Graph *graph;
    Node **nodes; /* in order */
    Node **match; /* of the other side, by position */
    uint64_t *hash;
    size_t count;
    Map by_output, values; /* first output -> number + 1; value -> hash */
} Side;

typedef struct Compare {
    Side a, b;
    CompareIgnore ignore;
    Comparison *out;
    Arena *arena;
    Map renamed; /* value name in a -> name in b */
} Compare;

static void add_change(Compare *c, char sign, const char *what, const char *name, const char *text)
{
    Comparison *out = c->out;
    out->items = arena_grow(c->arena, out->items, out->count, &out->capacity, sizeof *out->items);
    out->items[out->count++] = (Change){sign, what, name, text};
}

static bool text_equal(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

/* ---- hashes -------------------------------------------------------------------------------------------- */

/* One multiply-and-fold step a word (the mixer of splitmix64); no cryptography. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

static uint64_t mix_bytes(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = mix(hash, word);
    }
    uint64_t rest = size;
    for (size_t i = 0; i < size; i++)
        rest = rest << 8 | bytes[i];
    return mix(hash, rest);
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    return text == NULL ? mix(hash, 0) : mix_bytes(hash, text, strlen(text));
}

uint64_t tensor_hash(const Tensor *tensor)
{
    uint64_t hash = mix(1, (uint64_t)tensor->dtype);
    for (int i = 0; i < tensor->rank; i++)
        hash = mix(hash, (uint64_t)tensor->dims[i]);
    if (tensor->dtype != DTYPE_STRING)
        return mix_bytes(hash, tensor->data, tensor->bytes);
    const Bytes *strings = tensor->data;
    for (int64_t i = 0; i < tensor_count(tensor); i++)
        hash = mix_bytes(hash, strings[i].data, strings[i].length);
    return hash;
}

static const char *body_text(Arena *arena, const Graph *graph)
{
    Str text;
    str_init(&text);
    graph_print(graph, &text);
    const char *copy = arena_strdup(arena, text.text);
    str_release(&text);
    return copy;
}

static uint64_t attr_hash(Arena *arena, const Attr *attr)
{
    uint64_t hash = mix(mix_text(2, attr->name), (uint64_t)attr->type);
    hash = mix_bytes(mix_text(hash, attr->ref_attr_name), &attr->f, sizeof attr->f);
    hash = mix_bytes(mix(hash, (uint64_t)attr->i), attr->s.data, attr->s.length);
    hash = attr->t != NULL ? mix(hash, tensor_hash(attr->t)) : hash;
    hash = attr->g != NULL ? mix_text(hash, body_text(arena, attr->g)) : hash;
    for (size_t i = 0; i < attr->count; i++) {
        if (attr->floats != NULL)
            hash = mix_bytes(hash, &attr->floats[i], sizeof *attr->floats);
        if (attr->ints != NULL)
            hash = mix(hash, (uint64_t)attr->ints[i]);
        if (attr->strings != NULL)
            hash = mix_bytes(hash, attr->strings[i].data, attr->strings[i].length);
        if (attr->tensors != NULL)
            hash = mix(hash, tensor_hash(attr->tensors[i]));
        if (attr->graphs != NULL)
            hash = mix_text(hash, body_text(arena, attr->graphs[i]));
        if (attr->types != NULL)
            hash = mix_bytes(hash, attr->types[i].data, attr->types[i].length);
    }
    return hash;
}

/* Attributes count in any order. */
static uint64_t node_own_hash(Arena *arena, const Node *node)
{
    uint64_t hash = mix_text(mix_text(3, node->op_type), node->domain), attrs = 0;
    for (size_t i = 0; i < node->attr_count; i++)
        attrs += attr_hash(arena, node->attrs[i]);
    return mix(hash, attrs);
}

/* ---- text ---------------------------------------------------------------------------------------------- */

static const char *tensor_text(Arena *arena, const Tensor *tensor)
{
    return arena_printf(arena, "%s%s", dtype_name(tensor->dtype), dims_text(arena, tensor->rank, tensor->dims));
}

static const char *node_line(Arena *arena, const Node *node)
{
    Str line;
    str_init(&line);
    str_printf(&line, "%s(", node->op_type);
    for (int i = 0; i < node->input_count && i < 6; i++)
        str_printf(&line, "%s%s", i > 0 ? ", " : "", node->inputs[i] != NULL ? node->inputs[i]->name : "");
    str_append(&line, node->input_count > 6 ? ", ...) -> " : ") -> ");
    for (int i = 0; i < node->output_count && i < 3; i++)
        str_printf(&line, "%s%s", i > 0 ? ", " : "", node->outputs[i] != NULL ? node->outputs[i]->name : "");
    const char *copy = arena_strdup(arena, line.text);
    str_release(&line);
    return copy;
}

static const char *node_called(const Node *node)
{
    return node->name[0] != '\0'                                ? node->name
           : node->output_count > 0 && node->outputs[0] != NULL ? node->outputs[0]->name
                                                                : node->op_type;
}

/* ---- matching nodes ------------------------------------------------------------------------------------ */

static const char *first_output(const Node *node)
{
    return node->output_count > 0 && node->outputs[0] != NULL ? node->outputs[0]->name : "";
}

static void side_init(Side *side, const Model *model, Arena *arena)
{
    const Graph *graph = model->graph;
    *side = (Side){.model = model, .graph = graph};
    side->nodes = arena_array(arena, Node *, graph->node_count + 1);
    side->match = arena_array(arena, Node *, graph->node_count + 1);
    side->hash = arena_array(arena, uint64_t, graph->node_count + 1);
    map_init(&side->by_output);
    for (Node *node = graph->first; node != NULL; node = node->next) {
        map_set(&side->by_output, first_output(node), (void *)(uintptr_t)(side->count + 1));
        side->nodes[side->count++] = node;
    }
}

static void match_pair(Compare *c, size_t i, size_t k)
{
    c->a.match[i] = c->b.nodes[k];
    c->b.match[k] = c->a.nodes[i];
    const Node *a = c->a.nodes[i], *b = c->b.nodes[k];
    for (int n = 0; n < a->output_count && n < b->output_count; n++)
        if (a->outputs[n] != NULL && b->outputs[n] != NULL)
            map_set(&c->renamed, a->outputs[n]->name, (void *)b->outputs[n]->name);
}

static void match_by_output(Compare *c)
{
    for (size_t i = 0; i < c->a.count; i++) {
        size_t k = (size_t)(uintptr_t)map_get(&c->b.by_output, first_output(c->a.nodes[i]));
        if (k > 0 && strcmp(c->a.nodes[i]->op_type, c->b.nodes[k - 1]->op_type) == 0)
            match_pair(c, i, k - 1);
    }
}

static void match_by_name(Compare *c)
{
    Map names;
    map_init(&names);
    for (size_t k = 0; k < c->b.count; k++)
        if (c->b.match[k] == NULL && c->b.nodes[k]->name[0] != '\0')
            map_set(&names, c->b.nodes[k]->name, (void *)(uintptr_t)(k + 1));
    for (size_t i = 0; i < c->a.count; i++) {
        size_t k = c->a.match[i] != NULL ? 0 : (size_t)(uintptr_t)map_get(&names, c->a.nodes[i]->name);
        if (k > 0 && c->b.match[k - 1] == NULL && strcmp(c->a.nodes[i]->op_type, c->b.nodes[k - 1]->op_type) == 0)
            match_pair(c, i, k - 1);
    }
    map_release(&names);
}

/* What a value is, apart from its name: a position among the inputs, the bytes of a constant, or an output of a node
 * that is the same. */
static uint64_t value_hash(const Side *side, const Value *value)
{
    if (value == NULL)
        return 4;
    if (value->constant != NULL && value->producer == NULL)
        return tensor_hash(value->constant);
    for (size_t i = 0; value->producer == NULL && i < side->graph->input_count; i++)
        if (side->graph->inputs[i] == value)
            return mix(5, i);
    size_t k =
        value->producer == NULL ? 0 : (size_t)(uintptr_t)map_get(&side->by_output, first_output(value->producer));
    return k == 0 ? mix_text(6, value->name) : mix(side->hash[k - 1], (uint64_t)value->producer_index);
}

static void hash_side(Side *side, Arena *arena)
{
    for (size_t i = 0; i < side->count; i++) {
        uint64_t hash = node_own_hash(arena, side->nodes[i]);
        for (int n = 0; n < side->nodes[i]->input_count; n++)
            hash = mix(hash, value_hash(side, side->nodes[i]->inputs[n]));
        side->hash[i] = hash;
    }
}

static bool any_left(const Side *side)
{
    for (size_t i = 0; i < side->count; i++)
        if (side->match[i] == NULL)
            return true;
    return false;
}

/* By what they compute. It reads every constant, hence only where there is something to find on both sides. */
static void match_by_structure(Compare *c)
{
    if (!any_left(&c->a) || !any_left(&c->b))
        return;
    hash_side(&c->a, c->arena);
    hash_side(&c->b, c->arena);
    Map hashes;
    map_init(&hashes);
    for (size_t k = c->b.count; k-- > 0;)
        if (c->b.match[k] == NULL)
            map_set(&hashes, arena_printf(c->arena, "%" PRIx64, c->b.hash[k]), (void *)(uintptr_t)(k + 1));
    for (size_t i = 0; i < c->a.count; i++) {
        if (c->a.match[i] != NULL)
            continue;
        const char *key = arena_printf(c->arena, "%" PRIx64, c->a.hash[i]);
        size_t k = (size_t)(uintptr_t)map_get(&hashes, key);
        if (k > 0 && c->b.match[k - 1] == NULL)
            match_pair(c, i, k - 1);
    }
    map_release(&hashes);
}

/* ---- comparing nodes ----------------------------------------------------------------------------------- */

static const char *attr_difference(Compare *c, const Node *a, const Node *b)
{
    for (size_t i = 0; i < a->attr_count; i++) {
        const Attr *other = node_attr(b, a->attrs[i]->name);
        if (other == NULL || attr_hash(c->arena, a->attrs[i]) != attr_hash(c->arena, other)) {
            if (other != NULL && other->type == ATTR_INT && a->attrs[i]->type == ATTR_INT)
                return arena_printf(c->arena, "attribute %s: %" PRId64 " -> %" PRId64, other->name, a->attrs[i]->i,
                                    other->i);
            return arena_printf(c->arena, "attribute %s %s", a->attrs[i]->name, other == NULL ? "is gone" : "differs");
        }
    }
    for (size_t i = 0; i < b->attr_count; i++)
        if (node_attr(a, b->attrs[i]->name) == NULL)
            return arena_printf(c->arena, "attribute %s is new", b->attrs[i]->name);
    return NULL;
}

static bool same_value(const Compare *c, const Value *a, const Value *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    if (strcmp(a->name, b->name) == 0)
        return true;
    const char *renamed = map_get(&c->renamed, a->name);
    return renamed != NULL && strcmp(renamed, b->name) == 0;
}

static const char *input_difference(Compare *c, const Node *a, const Node *b)
{
    if (a->input_count != b->input_count)
        return arena_printf(c->arena, "%d inputs -> %d", a->input_count, b->input_count);
    const char *all = NULL;
    for (int i = 0; i < a->input_count; i++)
        if (!same_value(c, a->inputs[i], b->inputs[i]))
            all = arena_printf(c->arena, "%s%s'%s' -> '%s'", all != NULL ? all : "input ", all != NULL ? ", " : "",
                               a->inputs[i] ? a->inputs[i]->name : "", b->inputs[i] ? b->inputs[i]->name : "");
    return all;
}

static void compare_pair(Compare *c, const Node *a, const Node *b)
{
    const char *attrs = attr_difference(c, a, b), *inputs = input_difference(c, a, b);
    if (attrs != NULL || inputs != NULL) {
        c->out->nodes_changed++;
        add_change(c, '~', "node", node_called(a),
                   arena_printf(c->arena, "%s: %s%s%s", a->op_type, attrs != NULL ? attrs : "",
                                attrs != NULL && inputs != NULL ? "; " : "", inputs != NULL ? inputs : ""));
        return;
    }
    c->out->nodes_same++;
    if (strcmp(first_output(a), first_output(b)) == 0 && strcmp(a->name, b->name) == 0)
        return;
    c->out->nodes_renamed++;
    if (!c->ignore.names)
        add_change(c, '~', "name", node_called(a), arena_printf(c->arena, "now '%s'", node_called(b)));
}

static void compare_nodes(Compare *c)
{
    match_by_output(c);
    match_by_name(c);
    match_by_structure(c);
    for (size_t i = 0; i < c->a.count; i++) {
        if (c->a.match[i] != NULL) {
            compare_pair(c, c->a.nodes[i], c->a.match[i]);
            continue;
        }
        c->out->nodes_removed++;
        add_change(c, '-', "node", node_called(c->a.nodes[i]), node_line(c->arena, c->a.nodes[i]));
    }
    for (size_t k = 0; k < c->b.count; k++) {
        if (c->b.match[k] != NULL)
            continue;
        c->out->nodes_added++;
        add_change(c, '+', "node", node_called(c->b.nodes[k]), node_line(c->arena, c->b.nodes[k]));
    }
}

/* ---- initializers -------------------------------------------------------------------------------------- */

static const char *tensor_difference(Compare *c, const Tensor *a, const Tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank) != 0)
        return arena_printf(c->arena, "%s -> %s", tensor_text(c->arena, a), tensor_text(c->arena, b));
    if (a->dtype == DTYPE_STRING)
        return "other strings";
    double largest = 0, scale = 0;
    int64_t count = tensor_count(a), differ = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = tensor_f64_at(a, i), y = tensor_f64_at(b, i), d = fabs(x - y);
        differ += d > 0 || isnan(d);
        largest = d > largest || isnan(d) ? d : largest;
        scale = fabs(x) > scale ? fabs(x) : scale;
    }
    return arena_printf(c->arena, "%s, max |difference| %.3g (largest value %.3g), %" PRId64 " of %" PRId64 " differ",
                        tensor_text(c->arena, a), largest, scale, differ, count);
}

static void add_same(Compare *c, const Tensor *tensor, const char *name)
{
    Comparison *out = c->out;
    out->same = arena_grow(c->arena, out->same, out->same_count, &out->same_capacity, sizeof *out->same);
    out->same[out->same_count++] = (Same){name, tensor_text(c->arena, tensor), tensor};
    out->same_bytes += tensor->bytes;
}

static const Tensor *initializer_named(const Graph *graph, const char *name)
{
    const Value *value = graph_find(graph, name);
    return value != NULL && value->is_initializer ? value->constant : NULL;
}

/* Initializers of b whose name a does not have, by content. */
static void index_leftovers(Compare *c, Map *by_hash)
{
    for (size_t k = 0; k < c->b.graph->initializer_count; k++) {
        Value *value = c->b.graph->initializers[k];
        if (value->constant == NULL || initializer_named(c->a.graph, value->name) != NULL)
            continue;
        const char *key = arena_printf(c->arena, "%" PRIx64, tensor_hash(value->constant));
        if (!map_has(by_hash, key))
            map_set(by_hash, key, value);
    }
}

/* True when the content goes on under another name. */
static bool compare_renamed(Compare *c, Map *by_hash, Map *renamed, const Value *a)
{
    if (by_hash->count == 0)
        return false;
    const char *key = arena_printf(c->arena, "%" PRIx64, tensor_hash(a->constant));
    const Value *b = map_get(by_hash, key);
    if (b == NULL || !tensor_equal(a->constant, b->constant) || tensor_count(a->constant) < 2)
        return false;
    map_remove(by_hash, key);
    map_set(renamed, b->name, (void *)a);
    map_set(&c->renamed, a->name, (void *)b->name);
    c->out->weights_renamed++;
    add_same(c, a->constant, b->name);
    if (!c->ignore.names)
        add_change(c, '~', "name", a->name, arena_printf(c->arena, "now '%s', same bytes", b->name));
    return true;
}

static void compare_initializers(Compare *c)
{
    Map leftovers, renamed;
    map_init(&leftovers);
    map_init(&renamed);
    index_leftovers(c, &leftovers);
    for (size_t i = 0; i < c->a.graph->initializer_count; i++) {
        const Value *a = c->a.graph->initializers[i];
        const Tensor *b = initializer_named(c->b.graph, a->name);
        if (a->constant == NULL)
            continue;
        if (b != NULL && tensor_equal(a->constant, b)) {
            add_same(c, a->constant, a->name);
        } else if (b != NULL) {
            c->out->weights_changed++;
            add_change(c, '~', "initializer", a->name, tensor_difference(c, a->constant, b));
        } else if (!compare_renamed(c, &leftovers, &renamed, a)) {
            c->out->weights_removed++;
            add_change(c, '-', "initializer", a->name, tensor_text(c->arena, a->constant));
        }
    }
    for (size_t k = 0; k < c->b.graph->initializer_count; k++) {
        const Value *b = c->b.graph->initializers[k];
        if (b->constant == NULL || initializer_named(c->a.graph, b->name) != NULL || map_has(&renamed, b->name))
            continue;
        c->out->weights_added++;
        add_change(c, '+', "initializer", b->name, tensor_text(c->arena, b->constant));
    }
    map_release(&leftovers);
    map_release(&renamed);
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

static void compare_values(Compare *c, const char *what, Value *const *a, size_t a_count, Value *const *b,
                           size_t b_count)
{
    for (size_t i = 0; i < a_count || i < b_count; i++) {
        const char *x = i < a_count ? type_text(c->arena, &a[i]->type) : "";
        const char *y = i < b_count ? type_text(c->arena, &b[i]->type) : "";
        bool same_name = i < a_count && i < b_count && strcmp(a[i]->name, b[i]->name) == 0;
        if (same_name && strcmp(x, y) == 0)
            continue;
        if (same_name) {
            add_change(c, '~', what, a[i]->name, arena_printf(c->arena, "%s -> %s", x, y));
            continue;
        }
        if (i < a_count)
            add_change(c, '-', what, a[i]->name, x);
        if (i < b_count)
            add_change(c, '+', what, b[i]->name, y);
    }
}

static const char *short_text(Arena *arena, const char *text)
{
    size_t length = strcspn(text, "\n");
    bool whole = text[length] == '\0' && length <= 60;
    return whole ? text : arena_printf(arena, "%.*s...", (int)(length > 60 ? 60 : length), text);
}

static void compare_metadata(Compare *c)
{
    const Model *a = c->a.model, *b = c->b.model;
    for (size_t i = 0; i < a->metadata_count; i++) {
        const char *key = a->metadata[i].key, *old = a->metadata[i].value, *new = model_metadata(b, key);
        if (new == NULL)
            add_change(c, '-', "metadata", key, short_text(c->arena, old != NULL ? old : ""));
        else if (!text_equal(old, new))
            add_change(c, '~', "metadata", key,
                       arena_printf(c->arena, "%s -> %s", short_text(c->arena, old), short_text(c->arena, new)));
    }
    for (size_t i = 0; i < b->metadata_count; i++)
        if (model_metadata(a, b->metadata[i].key) == NULL)
            add_change(c, '+', "metadata", b->metadata[i].key, short_text(c->arena, b->metadata[i].value));
}

static void compare_doc(Compare *c)
{
    const Model *a = c->a.model, *b = c->b.model;
    const struct {
        const char *name, *a, *b;
    } texts[] = {
        {"doc_string", a->doc_string, b->doc_string},
        {"producer", a->producer_name, b->producer_name},
        {"producer version", a->producer_version, b->producer_version},
        {"domain", a->domain, b->domain},
        {"graph name", a->graph->name, b->graph->name},
        {"graph doc_string", a->graph->extra.doc_string, b->graph->extra.doc_string},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!text_equal(texts[i].a, texts[i].b))
            add_change(c, '~', "doc", texts[i].name,
                       arena_printf(c->arena, "'%s' -> '%s'", short_text(c->arena, texts[i].a ? texts[i].a : ""),
                                    short_text(c->arena, texts[i].b ? texts[i].b : "")));
}

static void compare_opsets(Compare *c)
{
    const Model *a = c->a.model, *b = c->b.model;
    if (a->ir_version != b->ir_version)
        add_change(c, '~', "opset", "ir_version",
                   arena_printf(c->arena, "%" PRId64 " -> %" PRId64, a->ir_version, b->ir_version));
    for (size_t i = 0; i < a->opset_count; i++) {
        const char *domain = a->opsets[i].domain, *name = domain[0] != '\0' ? domain : "ai.onnx";
        int64_t other = model_opset(b, domain);
        if (other == 0)
            add_change(c, '-', "opset", name, arena_printf(c->arena, "%" PRId64, a->opsets[i].version));
        else if (other != a->opsets[i].version)
            add_change(c, '~', "opset", name,
                       arena_printf(c->arena, "%" PRId64 " -> %" PRId64, a->opsets[i].version, other));
    }
    for (size_t i = 0; i < b->opset_count; i++)
        if (model_opset(a, b->opsets[i].domain) == 0)
            add_change(c, '+', "opset", b->opsets[i].domain, arena_printf(c->arena, "%" PRId64, b->opsets[i].version));
}

static void compare_functions(Compare *c)
{
    const Model *a = c->a.model, *b = c->b.model;
    for (size_t i = 0; i < a->function_count; i++) {
        const Function *f = a->functions[i], *g = model_function(b, f->domain, f->name, f->overload);
        if (g == NULL)
            add_change(c, '-', "function", f->name, f->domain);
        else if (strcmp(body_text(c->arena, f->graph), body_text(c->arena, g->graph)) != 0)
            add_change(c, '~', "function", f->name, "the body differs");
    }
    for (size_t i = 0; i < b->function_count; i++) {
        const Function *g = b->functions[i];
        if (model_function(a, g->domain, g->name, g->overload) == NULL)
            add_change(c, '+', "function", g->name, g->domain);
    }
}

static void count_frozen(Compare *c)
{
    const char *lines = model_metadata(c->a.model, "regraft.frozen");
    lines = lines != NULL ? lines : model_metadata(c->b.model, "regraft.frozen");
    Map same;
    map_init(&same);
    for (size_t i = 0; i < c->out->same_count; i++)
        map_set(&same, c->out->same[i].name, c->out);
    while (lines != NULL && *lines != '\0') {
        size_t length = strcspn(lines, "\n");
        c->out->frozen++;
        c->out->frozen_same += map_has(&same, arena_strndup(c->arena, lines, length));
        lines += length + (lines[length] == '\n');
    }
    map_release(&same);
}

void compare_models(const Model *a, const Model *b, CompareIgnore ignore, Comparison *result)
{
    *result = (Comparison){0};
    arena_init(&result->arena);
    Compare c = {.ignore = ignore, .out = result, .arena = &result->arena};
    map_init(&c.renamed);
    side_init(&c.a, a, c.arena);
    side_init(&c.b, b, c.arena);
    compare_opsets(&c);
    compare_values(&c, "input", a->graph->inputs, a->graph->input_count, b->graph->inputs, b->graph->input_count);
    compare_values(&c, "output", a->graph->outputs, a->graph->output_count, b->graph->outputs, b->graph->output_count);
    compare_initializers(&c);
    compare_nodes(&c);
    compare_functions(&c);
    if (!ignore.metadata)
        compare_metadata(&c);
    if (!ignore.doc)
        compare_doc(&c);
    count_frozen(&c);
    map_release(&c.a.by_output);
    map_release(&c.b.by_output);
    map_release(&c.renamed);
}

void comparison_release(Comparison *comparison)
{
    arena_release(&comparison->arena);
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

static Style sign_style(char sign)
{
    return sign == '-' ? STYLE_RED : sign == '+' ? STYLE_GREEN : STYLE_YELLOW;
}

static void print_renamed(size_t count)
{
    if (count > 0)
        printf(", %zu renamed", count);
    putchar('\n');
}

void comparison_print(const Comparison *comparison, size_t limit)
{
    size_t printed = 0, hidden = 0;
    const Change *last = NULL;
    for (size_t i = 0; i < comparison->count; i++) {
        const Change *change = &comparison->items[i];
        bool same_kind = last != NULL && last->sign == change->sign && strcmp(last->what, change->what) == 0;
        if (!same_kind && hidden > 0)
            printf("  ... and %zu more\n", hidden);
        hidden = same_kind ? hidden : 0;
        printed = same_kind ? printed + 1 : 1;
        last = change;
        if (limit > 0 && printed > limit) {
            hidden++;
            continue;
        }
        printf("%s%c %-11s %s%s  %s\n", style_on(stdout, sign_style(change->sign)), change->sign, change->what,
               change->name, style_off(stdout), change->text);
    }
    if (hidden > 0)
        printf("  ... and %zu more\n", hidden);
    printf("nodes: %zu the same, %zu changed, %zu removed, %zu added", comparison->nodes_same,
           comparison->nodes_changed, comparison->nodes_removed, comparison->nodes_added);
    print_renamed(comparison->nodes_renamed);
    printf("initializers: %zu identical byte for byte (%s), %zu changed, %zu removed, %zu added",
           comparison->same_count, human_bytes(comparison->same_bytes).text, comparison->weights_changed,
           comparison->weights_removed, comparison->weights_added);
    print_renamed(comparison->weights_renamed);
    if (comparison->frozen > 0)
        printf("frozen: %zu of %zu marked parameters are identical byte for byte\n", comparison->frozen_same,
               comparison->frozen);
}

void comparison_json(const Comparison *comparison, Json *json)
{
    json_put_bool(json, "same", comparison->count == 0);
    json_put_open(json, "changes", '[');
    for (size_t i = 0; i < comparison->count; i++) {
        const Change *change = &comparison->items[i];
        json_open(json, '{');
        json_put_string(json, "sign", (char[]){change->sign, '\0'});
        json_put_string(json, "what", change->what);
        json_put_string(json, "name", change->name);
        json_put_string(json, "text", change->text);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_put_open(json, "nodes", '{');
    json_put_int(json, "same", (int64_t)comparison->nodes_same);
    json_put_int(json, "changed", (int64_t)comparison->nodes_changed);
    json_put_int(json, "removed", (int64_t)comparison->nodes_removed);
    json_put_int(json, "added", (int64_t)comparison->nodes_added);
    json_put_int(json, "renamed", (int64_t)comparison->nodes_renamed);
    json_close(json, '}');
    json_put_open(json, "identical_initializers", '[');
    for (size_t i = 0; i < comparison->same_count; i++) {
        char hash[20];
        snprintf(hash, sizeof hash, "%016" PRIx64, tensor_hash(comparison->same[i].tensor));
        json_open(json, '{');
        json_put_string(json, "name", comparison->same[i].name);
        json_put_string(json, "shape", comparison->same[i].shape);
        json_put_string(json, "hash", hash);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_put_int(json, "frozen", (int64_t)comparison->frozen);
    json_put_int(json, "frozen_identical", (int64_t)comparison->frozen_same);
}
