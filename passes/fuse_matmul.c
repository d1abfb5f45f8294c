/* Matrix products that take up what stands around them; before autodiff.
 * does: makes one internal MatMulStrided of a MatMul and the Transposes and multiplications by a number before and
 * behind it and the addition of a bias, so that attention moves no bytes and a linear layer adds its bias where it is
 * computed. needs: inferred shapes. keeps: names of results that something else reads. breaks: nothing; what is not
 * read any more goes with pass_clean.
 *
 * A Transpose is looked through only while one of the matrix's own dims stays contiguous; else moving bytes once is
 * cheaper than a product that jumps. */
#include <math.h>
#include <string.h>

#include "passes/passes.h"

/* perm_y(alpha perm_a(A) perm_b(B) + bias) */
typedef struct Product {
    Value *a, *b, *bias;
    int64_t perm_a[RANK_MAX], perm_b[RANK_MAX], perm_y[RANK_MAX];
    int rank; /* of the result */
    double alpha;
    Node *last;     /* gives the result so far */
    Node *taken[8]; /* what stood behind the product, in order */
    int taken_count;
    bool changed;
} Product;

static void identity(int rank, int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        perm[i] = i;
}

static bool is_product(const Node *node)
{
    return node_is(node, "MatMul") ||
           (strcmp(node->op_type, "MatMulStrided") == 0 && strcmp(node->domain, DOMAIN_INTERNAL) == 0);
}

/* ... or `passed`, which the product has looked through already. */
static bool only_products_read(const Value *value, const Node *passed)
{
    for (size_t i = 0; i < value->use_count; i++) {
        const Node *reader = value->uses[i].node;
        if ((reader != passed && !is_product(reader)) || reader->graph != value->graph)
            return false;
    }
    return !value->is_output;
}

static Node *only_reader(const Value *value)
{
    bool one = value->use_count == 1 && !value->is_output && value->uses[0].node->graph == value->graph;
    return one ? value->uses[0].node : NULL;
}

/* The number that `value` holds; NaN unless it is fixed and has one element. */
static double number_of(const Value *value)
{
    bool fixed = value != NULL && value->constant != NULL && value->role != ROLE_PARAMETER && value->role != ROLE_STATE;
    return fixed && dtype_is_float(value->type.dtype) && tensor_count(value->constant) == 1
               ? tensor_f64_at(value->constant, 0)
               : (double)NAN;
}

/* node = x * factor; NULL when it is something else, or changes the shape of x. */
static Value *scaled_by(const Node *node, double *factor)
{
    Value *x = NULL;
    if (node_is(node, "Mul") && !isnan(number_of(node->inputs[1]))) {
        x = node->inputs[0];
        *factor = number_of(node->inputs[1]);
    } else if (node_is(node, "Mul") && !isnan(number_of(node->inputs[0]))) {
        x = node->inputs[1];
        *factor = number_of(node->inputs[0]);
    } else if (node_is(node, "Div") && !isnan(number_of(node->inputs[1]))) {
        x = node->inputs[0];
        *factor = 1 / number_of(node->inputs[1]);
    }
    return x != NULL && x->type.rank == node->outputs[0]->type.rank && isfinite(*factor) ? x : NULL;
}

static bool transpose_perm(const Node *node, int64_t *perm)
{
    size_t count;
    const int64_t *given = node_ints(node, "perm", &count);
    int rank = node->inputs[0]->type.rank;
    if (!node_is(node, "Transpose") || (given != NULL && count != (size_t)rank))
        return false;
    for (int i = 0; i < rank; i++)
        perm[i] = given != NULL ? given[i] : rank - 1 - i;
    return true;
}

/* ---- before the product ------------------------------------------------------------------------------------- */

/* Looks through one node before an operand, which becomes *passed; false when there is nothing to look through. */
static bool look_through(Value **operand, int64_t *perm, double *alpha, Node **passed)
{
    Value *value = *operand;
    Node *node = value->producer;
    int64_t before[RANK_MAX], composed[RANK_MAX];
    double factor;
    if (node == NULL || !only_products_read(value, *passed))
        return false;
    Value *x = value->use_count == 1 ? scaled_by(node, &factor) : NULL;
    if (x != NULL) {
        *operand = x;
        *alpha *= factor;
        *passed = node;
        return true;
    }
    int rank = value->type.rank;
    if (!transpose_perm(node, before))
        return false;
    for (int i = 0; i < rank; i++)
        composed[i] = before[perm[i]];
    if (composed[rank - 1] != rank - 1 && composed[rank - 2] != rank - 1)
        return false;
    memcpy(perm, composed, sizeof composed);
    *operand = node->inputs[0];
    *passed = node;
    return true;
}

/* ---- behind the product ----------------------------------------------------------------------------------------- */

static bool take_transpose(Product *p, Node *reader)
{
    int64_t behind[RANK_MAX], composed[RANK_MAX];
    if (!transpose_perm(reader, behind))
        return false;
    for (int i = 0; i < p->rank; i++)
        composed[i] = p->perm_y[behind[i]];
    if (composed[p->rank - 1] < p->rank - 2)
        return false;
    memcpy(p->perm_y, composed, sizeof composed);
    return true;
}

static bool take_factor(Product *p, Node *reader)
{
    double factor;
    if (p->bias != NULL || scaled_by(reader, &factor) != p->last->outputs[0])
        return false;
    p->alpha *= factor;
    return true;
}

/* y + bias, the bias a vector along the columns. */
static bool take_bias(Product *p, Node *reader)
{
    const Value *y = p->last->outputs[0];
    if (p->bias != NULL || !node_is(reader, "Add") || p->perm_y[p->rank - 1] != p->rank - 1)
        return false;
    Value *bias = reader->inputs[0] == y ? reader->inputs[1] : reader->inputs[0];
    if (bias == y || bias->type.rank != 1 || bias->type.dims[0] != y->type.dims[p->rank - 1] || bias->type.dims[0] == 1)
        return false;
    p->bias = bias;
    return true;
}

static bool take_reader(Product *p)
{
    Node *reader = only_reader(p->last->outputs[0]);
    if (reader == NULL || p->taken_count == 8 || !type_known(&reader->outputs[0]->type) ||
        reader->outputs[0]->type.rank != p->rank)
        return false;
    if (!take_transpose(p, reader) && !take_factor(p, reader) && !take_bias(p, reader))
        return false;
    p->last = p->taken[p->taken_count++] = reader;
    return true;
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static void set_perm(Node *node, const char *name, int rank, const int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        if (perm[i] != i) {
            node_set_ints(node, name, perm, (size_t)rank);
            return;
        }
}

/* Stands where the last node stood that it replaces: there all its inputs are known. */
static Status product_write(const Product *p, Node *matmul, Error *err)
{
    Graph *graph = matmul->graph;
    Value *inputs[] = {p->a, p->b, p->bias}, *result = p->last->outputs[0];
    int count = p->bias != NULL ? 3 : 2;
    Node *node = graph_add_node(graph, p->last, DOMAIN_INTERNAL, "MatMulStrided", 0, matmul->name, inputs, count, 0);
    node->document_node = matmul->document_node;
    set_perm(node, "perm_a", p->a->type.rank, p->perm_a);
    set_perm(node, "perm_b", p->b->type.rank, p->perm_b);
    set_perm(node, "perm_y", p->rank, p->perm_y);
    if (p->alpha != 1)
        node_set_float(node, "alpha", (float)p->alpha);
    node_set_output(p->last, 0, NULL);
    node_set_output(node, 0, result);
    for (int i = p->taken_count - 1; i >= 0; i--)
        node_remove(p->taken[i]);
    node_remove(matmul);
    return node_infer(node, err);
}

static void product_read(Product *p, Node *node)
{
    *p = (Product){.a = node->inputs[0], .b = node->inputs[1], .alpha = 1, .last = node};
    p->rank = node->outputs[0]->type.rank;
    identity(p->a->type.rank, p->perm_a);
    identity(p->b->type.rank, p->perm_b);
    identity(p->rank, p->perm_y);
}

static bool fusible(const Node *node)
{
    bool known = node_is(node, "MatMul");
    for (int i = 0; known && i < 2; i++)
        known = type_known(&node->inputs[i]->type) && node->inputs[i]->type.rank >= 2;
    return known && type_known(&node->outputs[0]->type) && node->inputs[0]->type.dtype == DTYPE_F32;
}

Status pass_fuse_matmul(Graph *graph, Error *err)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        Product p;
        next = node->next;
        if (!fusible(node))
            continue;
        product_read(&p, node);
        Node *passed = NULL;
        while (look_through(&p.a, p.perm_a, &p.alpha, &passed))
            p.changed = true;
        for (passed = NULL; look_through(&p.b, p.perm_b, &p.alpha, &passed);)
            p.changed = true;
        while (take_reader(&p))
            p.changed = true;
        if (!p.changed)
            continue;
        for (int i = 0; i < p.taken_count; i++) /* in order, as the nodes are */
            next = next == p.taken[i] ? next->next : next;
        TRY(product_write(&p, node, err));
    }
    return pass_clean(graph, err);
}
