/* Runs of elementwise nodes become one node that goes over memory once.
 * does: replaces a tree of nodes with OP_FUSES, all of the same output shape and each read by the next one alone, by
 * one `Fused` node whose body holds them; the root's output stays. needs: inferred shapes; comes after autodiff, since
 * a fused node has no gradient. keeps: graph outputs and gradients with their names. breaks: nothing.
 *
 * Each node of a tree reads and writes whole tensors; the fused node reads each input once and writes once. Tensors of
 * a few numbers are left alone. */
#include "passes/passes.h"

enum { PARTS_MAX = 6, OPERANDS_MAX = 8, ELEMENTS_MIN = 1024 };

typedef struct Tree {
    Node *parts[PARTS_MAX]; /* the root first */
    int count;
    Value *inputs[OPERANDS_MAX];
    int input_count, constant_count; /* at most OPERANDS_MAX together */
} Tree;

static bool is_scalar_constant(const Value *value)
{
    return value_is_constant(value) && value->role != ROLE_PARAMETER && type_count(&value->type) == 1;
}

static bool can_be_part(const Node *node)
{
    if (node->op == NULL || (node->op->traits & OP_FUSES) == 0 || node->op->prepare == NULL ||
        node->output_count != 1 || node->outputs[0] == NULL)
        return false;
    const Type *type = &node->outputs[0]->type;
    if (!type_known(type) || type->dtype != DTYPE_F32 || type_count(type) < ELEMENTS_MIN ||
        node->input_count > OPERANDS_MAX)
        return false;
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != NULL &&
            (!type_known(&node->inputs[i]->type) || node->inputs[i]->type.dtype != DTYPE_F32))
            return false;
    return true;
}

static bool same_shape(const Type *a, const Type *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

static bool holds(const Tree *tree, const Node *node)
{
    for (int i = 0; i < tree->count; i++)
        if (tree->parts[i] == node)
            return true;
    return false;
}

/* Adds what the node reads from outside to the tree's inputs; false when they are too many. */
static bool add_inputs(Tree *tree, const Node *node)
{
    for (int i = 0; i < node->input_count; i++) {
        Value *value = node->inputs[i];
        bool constant = value != NULL && is_scalar_constant(value);
        bool known = value == NULL || constant || holds(tree, value->producer);
        for (int k = 0; k < tree->input_count && !known; k++)
            known = tree->inputs[k] == value;
        tree->constant_count += constant;
        if (!known && tree->input_count < OPERANDS_MAX)
            tree->inputs[tree->input_count++] = value;
        else if (!known)
            return false;
    }
    return tree->input_count + tree->constant_count <= OPERANDS_MAX;
}

static bool list_inputs(Tree *tree)
{
    tree->input_count = tree->constant_count = 0;
    for (int i = 0; i < tree->count; i++)
        if (!add_inputs(tree, tree->parts[i]))
            return false;
    return tree->input_count > 0;
}

/* Only the tree reads it, so that it need not exist. Value.mark: somebody's gradient, read by the optimizer. */
static bool is_private(const Tree *tree, const Value *value)
{
    if (value->is_output || value->mark != 0)
        return false;
    for (size_t i = 0; i < value->use_count; i++)
        if (!holds(tree, value->uses[i].node))
            return false;
    return true;
}

/* Takes the producer of one of the tree's inputs in; false when none fits. */
static bool grow(Tree *tree)
{
    const Type *type = &tree->parts[0]->outputs[0]->type;
    for (int i = 0; i < tree->input_count && tree->count < PARTS_MAX; i++) {
        Node *producer = tree->inputs[i]->producer;
        if (producer == NULL || producer->graph != tree->parts[0]->graph || !can_be_part(producer) ||
            !same_shape(&producer->outputs[0]->type, type) || !is_private(tree, producer->outputs[0]))
            continue;
        Tree larger = *tree;
        larger.parts[larger.count++] = producer;
        if (list_inputs(&larger)) {
            *tree = larger;
            return true;
        }
    }
    return false;
}

static void sort_parts(Tree *tree) /* by position, the root last */
{
    for (int i = 1; i < tree->count; i++)
        for (int k = i; k > 0 && tree->parts[k]->index < tree->parts[k - 1]->index; k--) {
            Node *other = tree->parts[k];
            tree->parts[k] = tree->parts[k - 1];
            tree->parts[k - 1] = other;
        }
}

/* The body's value for one that a part reads. */
static Value *inner_value(const Tree *tree, const Graph *body, Value *value)
{
    if (value == NULL || is_scalar_constant(value))
        return value;
    for (int i = 0; i < tree->input_count; i++)
        if (tree->inputs[i] == value)
            return body->inputs[i];
    return value->note; /* set by the part that made it */
}

static void move_part(const Tree *tree, Graph *body, Node *part)
{
    Value *inputs[OPERANDS_MAX];
    for (int i = 0; i < part->input_count; i++)
        inputs[i] = inner_value(tree, body, part->inputs[i]);
    Node *copy =
        graph_add_node(body, NULL, part->domain, part->op_type, part->opset, part->name, inputs, part->input_count, 1);
    node_copy_attrs(copy, part);
    copy->document_node = part->document_node;
    copy->outputs[0]->type = part->outputs[0]->type;
    part->outputs[0]->note = copy->outputs[0];
}

static Node *fuse(Tree *tree)
{
    Node *root = tree->parts[0];
    Graph *graph = root->graph;
    sort_parts(tree);
    Graph *body = graph_new(graph->model, "fused", graph);
    for (int i = 0; i < tree->input_count; i++) {
        Value *input = graph_add_value(body, NULL);
        input->type = tree->inputs[i]->type;
        graph_add_input(body, input);
    }
    for (int i = 0; i < tree->count; i++)
        move_part(tree, body, tree->parts[i]);
    graph_add_output(body, root->outputs[0]->note);
    Node *fused =
        graph_add_node(graph, root, DOMAIN_INTERNAL, "Fused", 0, root->name, tree->inputs, tree->input_count, 0);
    fused->document_node = root->document_node;
    node_set_graph(fused, "body", body);
    Value *output = root->outputs[0];
    root->outputs[0] = NULL;
    output->producer = NULL;
    node_set_output(fused, 0, output);
    for (int i = tree->count - 1; i >= 0; i--)
        node_remove(tree->parts[i]);
    return fused;
}

static void mark_gradients(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
    for (size_t i = 0; i < graph->values.count; i++) {
        const Value *value = graph->values.entries[i].key == NULL ? NULL : graph->values.entries[i].value;
        if (value != NULL && value->gradient != NULL)
            value->gradient->mark = 1;
    }
}

Status pass_fuse_elementwise(Graph *graph, Error *err)
{
    (void)err;
    if (opset_find(graph->model->ops, DOMAIN_INTERNAL, "Fused", 0) == NULL)
        return STATUS_OK; /* a table without the operator, as tests have */
    mark_gradients(graph);
    graph_number(graph);
    for (Node *node = graph->last, *previous; node != NULL; node = previous) {
        Tree tree = {.parts = {node}, .count = 1};
        previous = node->previous;
        if (!can_be_part(node) || !list_inputs(&tree))
            continue;
        while (grow(&tree)) {
        }
        if (tree.count > 1)
            previous = fuse(&tree)->previous;
    }
    return STATUS_OK;
}
