/* Builder: appends nodes to a working graph and infers each at once, so that a gradient rule reads like its formula.
 * The first failure sticks; what is called afterwards does nothing and returns NULL. */
#include "onnx/op.h"

Builder builder_at(Graph *graph, Node *before, const char *stem, Error *err)
{
    return (Builder){.graph = graph, .before = before, .stem = stem, .status = STATUS_OK, .err = err};
}

Node *build_node(Builder *b, const char *domain, const char *op_type, Value *const *inputs, int input_count,
                 int output_count)
{
    if (b->status != STATUS_OK)
        return NULL;
    int opset = strcmp(domain, DOMAIN_INTERNAL) == 0 ? 0 : domain[0] == '\0' ? OPSET_NEWEST : 1;
    while (input_count > 0 && inputs[input_count - 1] == NULL)
        input_count--;
    Node *node =
        graph_add_node(b->graph, b->before, domain, op_type, opset, b->stem, inputs, input_count, output_count);
    if (node->op == NULL)
        b->status = fail(b->err, STATUS_UNSUPPORTED, "%s: no operator %s%s%s to build it with", node_text(node), domain,
                         domain[0] != '\0' ? "." : "", op_type);
    return b->status == STATUS_OK ? node : NULL;
}

Value *build_finish(Builder *b, Node *node)
{
    if (b->status != STATUS_OK || node == NULL)
        return NULL;
    b->status = node_infer(node, b->err);
    return b->status == STATUS_OK ? node_output(node, 0) : NULL;
}

Value *build1(Builder *b, const char *op_type, Value *x)
{
    return build_finish(b, build_node(b, "", op_type, (Value *[]){x}, 1, 1));
}

Value *build2(Builder *b, const char *op_type, Value *x, Value *y)
{
    return build_finish(b, build_node(b, "", op_type, (Value *[]){x, y}, 2, 1));
}

Value *build3(Builder *b, const char *op_type, Value *x, Value *y, Value *z)
{
    return build_finish(b, build_node(b, "", op_type, (Value *[]){x, y, z}, 3, 1));
}

Value *build_constant(Builder *b, Tensor *tensor)
{
    if (b->status != STATUS_OK)
        return NULL;
    if (tensor->name == NULL)
        tensor->name = graph_unique_name(b->graph, "constant");
    Value *value = graph_add_initializer(b->graph, tensor);
    value->role = ROLE_CONSTANT;
    return value;
}

Value *build_scalar(Builder *b, DType dtype, double value)
{
    if (b->status == STATUS_OK && (dtype == DTYPE_STRING || dtype == DTYPE_UNDEFINED))
        b->status = fail(b->err, STATUS_UNSUPPORTED, "%s: no number is %s", b->stem, dtype_name(dtype));
    if (b->status != STATUS_OK)
        return NULL;
    return build_constant(b, tensor_new_scalar(&b->graph->model->arena, NULL, dtype, value));
}

Value *build_ints(Builder *b, const int64_t *values, size_t count)
{
    int64_t dims[1] = {(int64_t)count};
    return build_constant(b, tensor_new_i64(&b->graph->model->arena, NULL, 1, dims, values));
}

Value *build_reduce_to(Builder *b, Value *x, Value *like)
{
    if (b->status != STATUS_OK || x == NULL || like == NULL)
        return NULL;
    const Type *from = &x->type, *to = &like->type;
    bool same = from->rank == to->rank;
    for (int i = 0; i < from->rank && same; i++)
        same = from->dims[i] == to->dims[i];
    if (same)
        return x;
    Value *shape = build_ints(b, to->dims, (size_t)to->rank);
    return build_finish(b, build_node(b, DOMAIN_INTERNAL, "ReduceTo", (Value *[]){x, shape}, 2, 1));
}
