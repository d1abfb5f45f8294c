/* Attributes of a node: reading with a default, setting, copying.
 *
 * An Attr may be shared by a node and its clones, so setting never writes into one: it puts a new Attr in its place. */
#include "onnx/onnx.h"

Attr *node_attr(const Node *node, const char *name)
{
    for (size_t i = 0; i < node->attr_count; i++)
        if (strcmp(node->attrs[i]->name, name) == 0)
            return node->attrs[i];
    return NULL;
}

static const Attr *typed(const Node *node, const char *name, AttrType type)
{
    const Attr *attr = node_attr(node, name);
    return attr != NULL && attr->type == type && attr->ref_attr_name == NULL ? attr : NULL;
}

int64_t node_int(const Node *node, const char *name, int64_t absent)
{
    const Attr *attr = typed(node, name, ATTR_INT);
    return attr == NULL ? absent : attr->i;
}

float node_float(const Node *node, const char *name, float absent)
{
    const Attr *attr = typed(node, name, ATTR_FLOAT);
    return attr == NULL ? absent : attr->f;
}

const char *node_string(const Node *node, const char *name, const char *absent)
{
    const Attr *attr = typed(node, name, ATTR_STRING);
    return attr == NULL ? absent : attr->s.data;
}

const int64_t *node_ints(const Node *node, const char *name, size_t *count)
{
    const Attr *attr = typed(node, name, ATTR_INTS);
    *count = attr == NULL ? 0 : attr->count;
    return attr == NULL ? NULL : attr->ints;
}

const float *node_floats(const Node *node, const char *name, size_t *count)
{
    const Attr *attr = typed(node, name, ATTR_FLOATS);
    *count = attr == NULL ? 0 : attr->count;
    return attr == NULL ? NULL : attr->floats;
}

Tensor *node_tensor(const Node *node, const char *name)
{
    const Attr *attr = typed(node, name, ATTR_TENSOR);
    return attr == NULL ? NULL : attr->t;
}

Graph *node_graph(const Node *node, const char *name)
{
    const Attr *attr = typed(node, name, ATTR_GRAPH);
    return attr == NULL ? NULL : attr->g;
}

static Arena *arena_of(const Node *node)
{
    return &node->graph->model->arena;
}

/* A new attribute in the place of the old one of that name, or at the end. */
static Attr *put(Node *node, const char *name, AttrType type)
{
    Attr *attr = arena_new(arena_of(node), Attr);
    attr->type = type;
    for (size_t i = 0; i < node->attr_count; i++) {
        if (strcmp(node->attrs[i]->name, name) == 0) {
            attr->name = node->attrs[i]->name;
            node->attrs[i] = attr;
            return attr;
        }
    }
    attr->name = arena_strdup(arena_of(node), name);
    node->attrs = arena_grow(arena_of(node), node->attrs, node->attr_count, &node->attr_capacity, sizeof(Attr *));
    node->attrs[node->attr_count++] = attr;
    return attr;
}

void node_set_int(Node *node, const char *name, int64_t value)
{
    put(node, name, ATTR_INT)->i = value;
}

void node_set_float(Node *node, const char *name, float value)
{
    put(node, name, ATTR_FLOAT)->f = value;
}

void node_set_string(Node *node, const char *name, const char *value)
{
    size_t length = strlen(value);
    put(node, name, ATTR_STRING)->s = (Bytes){arena_strndup(arena_of(node), value, length), length};
}

void node_set_ints(Node *node, const char *name, const int64_t *values, size_t count)
{
    int64_t *copy = arena_copy(arena_of(node), values, count * sizeof *values);
    Attr *attr = put(node, name, ATTR_INTS);
    attr->ints = copy;
    attr->count = count;
}

void node_set_floats(Node *node, const char *name, const float *values, size_t count)
{
    float *copy = arena_copy(arena_of(node), values, count * sizeof *values);
    Attr *attr = put(node, name, ATTR_FLOATS);
    attr->floats = copy;
    attr->count = count;
}

void node_set_tensor(Node *node, const char *name, Tensor *tensor)
{
    put(node, name, ATTR_TENSOR)->t = tensor;
}

void node_set_graph(Node *node, const char *name, Graph *graph)
{
    put(node, name, ATTR_GRAPH)->g = graph;
    graph->parent = node->graph;
    graph->parent_node = node;
}

void node_remove_attr(Node *node, const char *name)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        if (strcmp(node->attrs[i]->name, name) != 0)
            continue;
        memmove(node->attrs + i, node->attrs + i + 1, (node->attr_count - i - 1) * sizeof(Attr *));
        node->attr_count--;
        return;
    }
}

void node_copy_attrs(Node *to, const Node *from)
{
    to->attr_count = to->attr_capacity = from->attr_count;
    to->attrs = arena_copy(arena_of(to), from->attrs, from->attr_count * sizeof(Attr *));
}
