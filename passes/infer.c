/* Types, shapes and folding.
 * does: binds the graph inputs' shapes, then walks in order: infers each node from the types and constants before it,
 * and evaluates nodes whose inputs are all constant, so that shape arithmetic disappears. An If whose condition became
 * constant is replaced by the branch taken. needs: topological order, newest forms. keeps: names, parameters (never
 * folded through). breaks: nothing; folded nodes stay until pass_clean removes them. */
#include <string.h>

#include "passes/passes.h"

enum { FOLD_LIMIT = 16 << 20 }; /* elements */

/* ---- inputs ------------------------------------------------------------------------------------------------- */

/* Searched from `at` on, around the end: callers mostly bind in the order of the inputs, and then the next one is it.
 */
static const Binding *binding_of_input(const Binding *bindings, size_t count, const char *name, size_t *at)
{
    for (size_t k = 0; k < count; k++) {
        size_t i = (*at + k) % count;
        if (bindings[i].input == NULL || strcmp(bindings[i].input, name) != 0)
            continue;
        *at = i + 1;
        return &bindings[i];
    }
    return NULL;
}

static const Binding *binding_of_symbol(const Binding *bindings, size_t count, const char *symbol)
{
    for (size_t i = 0; i < count; i++)
        if (bindings[i].input == NULL && bindings[i].symbol != NULL && strcmp(bindings[i].symbol, symbol) == 0)
            return &bindings[i];
    return NULL;
}

static Status bind_dim(Value *input, int axis, const Binding *bindings, size_t count, Error *err)
{
    Type *type = &input->type;
    const char *symbol = type->symbols[axis];
    const Binding *binding = symbol == NULL ? NULL : binding_of_symbol(bindings, count, symbol);
    if (binding == NULL && axis == 0)
        binding = binding_of_symbol(bindings, count, "batch");
    if (binding == NULL)
        return fail(err, STATUS_REJECTED, "input '%s': dim %d (%s) has no value; give the input's shape", input->name,
                    axis, symbol == NULL ? "unnamed" : symbol);
    type->dims[axis] = binding->value;
    return STATUS_OK;
}

static Status bind_input(Value *input, const Binding *bindings, size_t count, size_t *at, Error *err)
{
    Type *type = &input->type;
    const Binding *whole = binding_of_input(bindings, count, input->name, at);
    if (type->kind != TYPE_TENSOR)
        return STATUS_OK;
    if (whole != NULL) {
        if (type->rank >= 0 && type->rank != whole->rank)
            return fail(err, STATUS_REJECTED, "input '%s' has %d dims, data with %d dims was given", input->name,
                        type->rank, whole->rank);
        type_set(type, type->dtype, whole->rank, whole->dims);
        return STATUS_OK;
    }
    if (type->rank < 0)
        return fail(err, STATUS_REJECTED, "input '%s' has no shape in the file; give one", input->name);
    for (int axis = 0; axis < type->rank; axis++)
        if (type->dims[axis] < 0)
            TRY(bind_dim(input, axis, bindings, count, err));
    return STATUS_OK;
}

/* ---- folding ------------------------------------------------------------------------------------------------- */

static bool is_fixed(const Value *value)
{
    return value->constant != NULL && value->role != ROLE_PARAMETER && value->role != ROLE_STATE;
}

static bool can_fold(const Node *node)
{
    const unsigned never = OP_RANDOM | OP_BODY | OP_STATE;
    if (node->op == NULL || node->op->eval == NULL || (node->op->traits & never) != 0)
        return false;
    bool shape_only = (node->op->traits & OP_SHAPE_ONLY) != 0;
    for (int i = 0; i < node->input_count; i++) {
        const Value *input = node->inputs[i];
        if (input != NULL && !is_fixed(input) && !(shape_only && i == 0 && type_known(&input->type)))
            return false;
    }
    for (int i = 0; i < node->output_count; i++) {
        const Value *output = node->outputs[i];
        if (output != NULL && (output->role == ROLE_PARAMETER || output->type.kind != TYPE_TENSOR ||
                               type_count(&output->type) > FOLD_LIMIT))
            return false;
    }
    return true;
}

static Status fold_input(const Value *value, Arena *arena, const Array **array, Error *err)
{
    *array = NULL;
    if (value == NULL)
        return STATUS_OK;
    Array *made;
    if (is_fixed(value)) {
        TRY(array_from_tensor(arena, value->constant, &made, err));
    } else { /* only its shape is read */
        made = arena_new(arena, Array);
        made->dtype = value->type.dtype;
        made->rank = value->type.rank;
        memcpy(made->dims, value->type.dims, sizeof made->dims);
        made->count = type_count(&value->type);
    }
    *array = made;
    return STATUS_OK;
}

static void keep_results(Node *node, Array *const *out)
{
    Arena *arena = &node->graph->model->arena;
    for (int i = 0; i < node->output_count; i++) {
        Value *value = node->outputs[i];
        if (value == NULL || out[i] == NULL || out[i]->kind != ARRAY_TENSOR)
            continue;
        value->constant = tensor_from_array(arena, value->name, out[i]);
        value->role = ROLE_CONSTANT;
        type_set(&value->type, out[i]->dtype, out[i]->rank, out[i]->dims);
    }
}

static Status fold(Node *node, Error *err)
{
    Arena scratch;
    arena_init(&scratch);
    const Array **in = arena_array(&scratch, const Array *, (size_t)node->input_count + 1);
    Array **out = arena_array(&scratch, Array *, (size_t)node->output_count + 1);
    Status status = STATUS_OK;
    for (int i = 0; i < node->input_count && status == STATUS_OK; i++)
        status = fold_input(node->inputs[i], &scratch, &in[i], err);
    EvalContext context = {.node = node,
                           .in = in,
                           .in_count = node->input_count,
                           .out = out,
                           .out_count = node->output_count,
                           .arena = &scratch};
    if (status == STATUS_OK)
        status = node_eval(&context, err);
    if (status == STATUS_OK)
        keep_results(node, out);
    arena_release(&scratch);
    return status;
}

/* What cannot be evaluated here (a type that nobody computes with) is left for whoever runs it. */
Status node_fold(Node *node, Error *err)
{
    if (!can_fold(node))
        return STATUS_OK;
    Error own = {0};
    Status status = fold(node, &own);
    return status == STATUS_OK || status == STATUS_UNSUPPORTED ? STATUS_OK : fail(err, status, "%s", own.message);
}

/* ---- If with a known condition ---------------------------------------------------------------------------------- */

/* The row of If writes out the branch that a constant condition takes. */
static bool is_settled(const Node *node)
{
    return node_is(node, "If") && node->op != NULL && node->op->expand != NULL && node->input_count == 1 &&
           node->inputs[0] != NULL && is_fixed(node->inputs[0]);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static void type_of_constant(Value *value)
{
    const Tensor *tensor = value->constant;
    if (tensor != NULL && tensor->rank <= RANK_MAX)
        type_set(&value->type, tensor->dtype, tensor->rank, tensor->dims);
}

static void forget_outputs(Node *node)
{
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            node->outputs[i]->type.rank = -1;
}

static bool known_already(const Node *node)
{
    bool known = false;
    for (int i = 0; i < node->output_count; i++) {
        if (node->outputs[i] != NULL && node->outputs[i]->constant == NULL)
            return false;
        known |= node->outputs[i] != NULL;
    }
    return known;
}

void infer_constants(Graph *graph)
{
    for (size_t i = 0; i < graph->initializer_count; i++)
        type_of_constant(graph->initializers[i]);
}

Status infer_node(Node *node, Node **next, Error *err)
{
    if (known_already(node))
        return STATUS_OK;
    if (is_settled(node))
        return node_expand(node, next, err);
    if (node->op == NULL) {
        forget_outputs(node);
        return STATUS_OK;
    }
    TRY(node_infer(node, err));
    return node_fold(node, err);
}

Status pass_infer_known(Graph *graph, Error *err)
{
    infer_constants(graph);
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        TRY(infer_node(node, &next, err));
    }
    return STATUS_OK;
}

static Status check_input(const Value *input, Error *err)
{
    if (type_fits(&input->type))
        return STATUS_OK;
    Arena scratch;
    arena_init(&scratch);
    Status status = fail(err, STATUS_REJECTED, "input '%s': the shape %s is beyond any memory", input->name,
                         dims_text(&scratch, input->type.rank, input->type.dims));
    arena_release(&scratch);
    return status;
}

Status pass_infer(Graph *graph, const Binding *bindings, size_t count, Error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL) {
            TRY(bind_input(graph->inputs[i], bindings, count, &at, err));
            TRY(check_input(graph->inputs[i], err));
        }
    return pass_infer_known(graph, err);
}
