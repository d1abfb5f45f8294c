/* Small steps that gradient rules and expansions take often. See compose.h. */
#include "runtime/ops/compose.h"

#include <string.h>

#include "passes/passes.h"

Value *compose_reshape(Builder *b, Value *x, int rank, const int64_t *dims)
{
    if (b->status != STATUS_OK || x == NULL)
        return NULL;
    bool same = x->type.rank == rank, zero = false;
    for (int i = 0; i < rank; i++) {
        same = same && x->type.dims[i] == dims[i];
        zero = zero || dims[i] == 0;
    }
    if (same)
        return x;
    Value *inputs[] = {x, build_ints(b, dims, (size_t)rank)};
    Node *node = build_node(b, "", "Reshape", inputs, 2, 1);
    if (node != NULL && zero)
        node_set_int(node, "allowzero", 1);
    return build_finish(b, node);
}

Value *compose_like(Builder *b, Value *x, const Value *like)
{
    return compose_reshape(b, x, like->type.rank, like->type.dims);
}

Value *compose_transpose(Builder *b, Value *x, const int64_t *perm)
{
    if (b->status != STATUS_OK || x == NULL || perm_is_identity(x->type.rank, perm))
        return b->status == STATUS_OK ? x : NULL;
    Node *node = build_node(b, "", "Transpose", &x, 1, 1);
    if (node != NULL)
        node_set_ints(node, "perm", perm, (size_t)x->type.rank);
    return build_finish(b, node);
}

Value *compose_expand(Builder *b, Value *x, int rank, const int64_t *dims)
{
    if (b->status != STATUS_OK || x == NULL)
        return NULL;
    bool same = x->type.rank == rank;
    for (int i = 0; i < rank && same; i++)
        same = x->type.dims[i] == dims[i];
    return same ? x : build2(b, "Expand", x, build_ints(b, dims, (size_t)rank));
}

Value *compose_cast(Builder *b, Value *x, DType dtype)
{
    if (b->status != STATUS_OK || x == NULL || x->type.dtype == dtype)
        return b->status == STATUS_OK ? x : NULL;
    Node *node = build_node(b, "", "Cast", &x, 1, 1);
    if (node != NULL)
        node_set_int(node, "to", (int64_t)dtype);
    return build_finish(b, node);
}

Value *compose_widen(Builder *b, Value *x)
{
    bool narrow = x != NULL && (x->type.dtype == DTYPE_F16 || x->type.dtype == DTYPE_BF16);
    return narrow ? compose_cast(b, x, DTYPE_F32) : b->status == STATUS_OK ? x : NULL;
}

Value *compose_scale(Builder *b, Value *x, double factor)
{
    if (b->status != STATUS_OK || x == NULL || factor == 1)
        return b->status == STATUS_OK ? x : NULL;
    return build2(b, "Mul", x, build_scalar(b, x->type.dtype, factor));
}

Value *compose_slice(Builder *b, Value *x, int axis, int64_t begin, int64_t end)
{
    if (b->status != STATUS_OK || x == NULL || (begin == 0 && end == x->type.dims[axis]))
        return b->status == STATUS_OK ? x : NULL;
    int64_t which = axis;
    Value *inputs[] = {x, build_ints(b, &begin, 1), build_ints(b, &end, 1), build_ints(b, &which, 1)};
    return build_finish(b, build_node(b, "", "Slice", inputs, 4, 1));
}

Value *compose_concat(Builder *b, Value *const *parts, int count, int axis)
{
    return count == 1 ? parts[0] : compose_axis(b, "", "Concat", parts, count, axis);
}

Value *compose_reduce(Builder *b, const char *op_type, Value *x, const int64_t *axes, size_t count, bool keepdims)
{
    if (b->status != STATUS_OK || x == NULL || count == 0)
        return b->status == STATUS_OK ? x : NULL;
    Value *inputs[] = {x, build_ints(b, axes, count)};
    Node *node = build_node(b, "", op_type, inputs, 2, 1);
    if (node != NULL)
        node_set_int(node, "keepdims", keepdims);
    return build_finish(b, node);
}

Value *compose_axis(Builder *b, const char *domain, const char *op_type, Value *const *inputs, int count, int axis)
{
    Node *node = build_node(b, domain, op_type, inputs, count, 1);
    if (node != NULL)
        node_set_int(node, "axis", axis);
    return build_finish(b, node);
}

Value *compose_strided(Builder *b, Value *x, const int64_t *perm_x, Value *y, const int64_t *perm_y,
                       const int64_t *perm_out, int out_rank, double alpha)
{
    Value *inputs[] = {x, y};
    Node *node = build_node(b, DOMAIN_INTERNAL, "MatMulStrided", inputs, 2, 1);
    if (node == NULL)
        return NULL;
    if (perm_x != NULL && !perm_is_identity(x->type.rank, perm_x))
        node_set_ints(node, "perm_a", perm_x, (size_t)x->type.rank);
    if (perm_y != NULL && !perm_is_identity(y->type.rank, perm_y))
        node_set_ints(node, "perm_b", perm_y, (size_t)y->type.rank);
    if (perm_out != NULL && !perm_is_identity(out_rank, perm_out))
        node_set_ints(node, "perm_y", perm_out, (size_t)out_rank);
    if (alpha != 1)
        node_set_float(node, "alpha", (float)alpha);
    return build_finish(b, node);
}

void compose_replace(Builder *b, Value *old, Value *made)
{
    if (b->status == STATUS_OK && old != NULL && old->type.dtype != DTYPE_UNDEFINED)
        made = compose_cast(b, made, old->type.dtype);
    if (b->status == STATUS_OK && old != NULL && old->is_output &&
        (made->is_output || made->is_input || made->producer == NULL))
        made = build1(b, "Identity", made);
    if (b->status != STATUS_OK || old == NULL)
        return;
    bool named = old->is_output;
    value_replace_uses(old, made);
    if (!named)
        return;
    const char *name = old->name;
    graph_rename_value(old->graph, old, graph_unique_name(old->graph, name));
    graph_rename_value(made->graph, made, name);
}

void perm_identity(int rank, int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        perm[i] = i;
}

bool perm_is_identity(int rank, const int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        if (perm[i] != i)
            return false;
    return true;
}

void perm_invert(int rank, const int64_t *perm, int64_t *inverse)
{
    for (int i = 0; i < rank; i++)
        inverse[perm[i]] = i;
}

/* ---- bodies written out where they stand ------------------------------------------------------------------------- */

/* A node of the body's copy, again in the outer graph; uses of the old results follow. */
static Status inline_node(Builder *b, Node *from, Error *err)
{
    Node *node = graph_add_node(b->graph, b->before, from->domain, from->op_type, from->opset, b->stem, from->inputs,
                                from->input_count, 0);
    node->document_node = from->document_node;
    node_copy_attrs(node, from);
    for (size_t i = 0; i < from->attr_count; i++) /* bodies within move along: their uses stay when `from` goes */
        if (from->attrs[i]->g)
            node_set_graph(node, from->attrs[i]->name, from->attrs[i]->g);
    from->attr_count = 0;
    for (int i = 0; i < from->output_count; i++) {
        Value *old = from->outputs[i];
        if (!old) {
            node_set_output(node, i, NULL);
            continue;
        }
        Value *value = node_add_output(node, graph_unique_name(b->graph, old->name));
        value_replace_uses(old, value);
        old->note = value;
    }
    TRY(node_infer(node, err));
    return node_fold(node, err); /* shape arithmetic of the body */
}

Status compose_body(Builder *b, Graph *body, Value *const *in, Value **out, Error *err)
{
    if (b->status != STATUS_OK)
        return b->status;
    Graph *copy = graph_clone(b->graph->model, body);
    const size_t outputs = copy->output_count;
    for (size_t i = 0; i < outputs; i++) {
        out[i] = copy->outputs[i];
        out[i]->note = NULL;
    }
    graph_clear_outputs(copy);
    for (size_t i = 0; i < copy->input_count; i++) {
        value_replace_uses(copy->inputs[i], in[i]);
        copy->inputs[i]->note = in[i];
    }
    for (size_t i = 0; i < copy->initializer_count; i++) {
        Tensor *tensor = arena_copy(&b->graph->model->arena, copy->initializers[i]->constant, sizeof(Tensor));
        tensor->name = graph_unique_name(b->graph, copy->initializers[i]->name);
        Value *value = graph_add_initializer(b->graph, tensor);
        value->role = copy->initializers[i]->role;
        value->parameter = copy->initializers[i]->parameter;
        value->origin = copy->initializers[i]->origin;
        value_replace_uses(copy->initializers[i], value);
        copy->initializers[i]->note = value;
    }
    for (Node *node = copy->first; node; node = node->next)
        TRY(inline_node(b, node, err));
    while (copy->last)
        node_remove(copy->last);
    for (size_t i = 0; i < outputs; i++)
        if (out[i]->graph == copy)
            out[i] = out[i]->note;
    return STATUS_OK;
}

/* ---- eval by expansion -------------------------------------------------------------------------------------- */

static Value *copy_input(Graph *graph, const Node *from, int index, const Array *array)
{
    if (array == NULL)
        return NULL;
    const Value *original = node_input(from, index);
    if (original != NULL && value_is_constant(original)) {
        Tensor *tensor = tensor_from_array(&graph->model->arena, graph_unique_name(graph, "constant"), array);
        Value *value = graph_add_initializer(graph, tensor);
        type_set(&value->type, array->dtype, array->rank, array->dims);
        return value;
    }
    Value *value = graph_add_value(graph, NULL);
    type_set(&value->type, array->dtype, array->rank, array->dims);
    graph_add_input(graph, value);
    return value;
}

static Node *copy_node(Graph *graph, EvalContext *context, const Array **fed, int *fed_count)
{
    const Node *from = context->node;
    Value **inputs = arena_array(&graph->model->arena, Value *, (size_t)context->in_count + 1);
    for (int i = 0; i < context->in_count; i++) {
        inputs[i] = copy_input(graph, from, i, eval_input(context, i));
        if (inputs[i] != NULL && inputs[i]->is_input)
            fed[(*fed_count)++] = context->in[i];
    }
    Node *node = graph_add_node(graph, NULL, from->domain, from->op_type, from->opset, from->name, inputs,
                                context->in_count, from->output_count);
    node_copy_attrs(node, from);
    for (int i = 0; i < from->output_count; i++) {
        if (from->outputs[i] == NULL)
            node_set_output(node, i, NULL);
        else
            graph_add_output(graph, node->outputs[i]);
    }
    return node;
}

static Status run_expanded(Graph *graph, EvalContext *context, Error *err)
{
    const Array **fed = arena_array(context->arena, const Array *, (size_t)context->in_count + 1);
    Array **results = arena_array(context->arena, Array *, (size_t)context->out_count + 1);
    int fed_count = 0, result = 0;
    Node *node = copy_node(graph, context, fed, &fed_count);
    TRY(node_infer(node, err));
    Builder b = builder_at(graph, node, node->op_type, err);
    TRY(node->op->expand(node, &b, err));
    node_remove(node);
    TRY(context->run_graph(context, graph, fed, fed_count, results, (int)graph->output_count, err));
    for (int i = 0; i < context->node->output_count; i++) {
        Array *out = NULL;
        if (context->node->outputs[i] == NULL)
            continue;
        const Array *from = results[result++];
        TRY(eval_output_like(context, i, from, &out, err));
        memcpy(out->data, from->data, (size_t)from->count * dtype_size(from->dtype));
    }
    return STATUS_OK;
}

Status eval_expanded(EvalContext *context, Error *err)
{
    if (context->run_graph == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: is a composite that only the interpreter evaluates whole",
                    node_text(context->node));
    const Model *from = context->node->graph->model;
    Model *model = model_new(from->ops);
    model_set_opset(model, "", OPSET_NEWEST);
    Status status = run_expanded(model->graph, context, err);
    model_free(model);
    return status;
}

static Status expanded_types(Graph *graph, Node *from, Error *err)
{
    Arena *arena = &graph->model->arena;
    Value **inputs = arena_array(arena, Value *, (size_t)from->input_count + 1);
    for (int i = 0; i < from->input_count; i++) {
        if (from->inputs[i] == NULL)
            continue;
        const Type *type = &from->inputs[i]->type;
        inputs[i] = graph_add_value(graph, NULL);
        type_set(&inputs[i]->type, type->dtype, type->rank, type->dims);
        graph_add_input(graph, inputs[i]);
    }
    Node *node = graph_add_node(graph, NULL, from->domain, from->op_type, from->opset, from->name, inputs,
                                from->input_count, from->output_count);
    node_copy_attrs(node, from);
    for (int i = 0; i < node->output_count; i++)
        graph_add_output(graph, node->outputs[i]);
    Builder b = builder_at(graph, node, node->op_type, err);
    TRY(node->op->expand(node, &b, err));
    for (int i = 0; i < from->output_count; i++) {
        const Type *type = &graph->outputs[i]->type;
        if (from->outputs[i] != NULL)
            type_set(&from->outputs[i]->type, type->dtype, type->rank, type->dims);
    }
    return STATUS_OK;
}

Status infer_expanded(Node *node, Error *err)
{
    Model *model = model_new(node->graph->model->ops);
    model_set_opset(model, "", OPSET_NEWEST);
    Status status = expanded_types(model->graph, node, err);
    model_free(model);
    return status;
}
