/* Family: fused. One internal operator, Fused: elementwise nodes that passes/fuse_elementwise.c put into a body, run in
 * one pass over memory. What it computes is what its body says; the kernel is the parts' kernels over chunks that stay
 * in cache. */
#include "runtime/ops/elementwise.h"

static const Graph *body_of(const Node *node)
{
    return node_graph(node, "body");
}

static Status fused_infer(Node *node, Error *err)
{
    const Graph *body = body_of(node);
    if (body == NULL || body->output_count != 1 || body->input_count != (size_t)node->input_count)
        return infer_fail(node, err, "its body does not fit");
    node->outputs[0]->type = body->outputs[0]->type;
    return STATUS_OK;
}

/* Arrays of the body's values, while it is evaluated. */
typedef struct Known {
    const Value *value;
    const Array *array;
} Known;

static Status find_known(EvalContext *context, const Known *known, size_t count, const Value *value,
                         const Array **array, Error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (known[i].value != value)
            continue;
        *array = known[i].array;
        return STATUS_OK;
    }
    if (value->constant == NULL)
        return eval_fail(context, err, "nothing computes '%s'", value->name);
    Array *made;
    TRY(array_from_tensor(context->arena, value->constant, &made, err));
    *array = made;
    return STATUS_OK;
}

static Status fused_eval(EvalContext *context, Error *err)
{
    const Graph *body = body_of(context->node);
    Known *known = arena_array(context->arena, Known, body->input_count + body->node_count);
    size_t count = 0;
    for (size_t i = 0; i < body->input_count; i++)
        known[count++] = (Known){body->inputs[i], context->in[i]};
    for (const Node *node = body->first; node != NULL; node = node->next) {
        const Array **in = arena_array(context->arena, const Array *, (size_t)node->input_count + 1);
        Array *out = NULL;
        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != NULL)
                TRY(find_known(context, known, count, node->inputs[i], &in[i], err));
        EvalContext inner = *context;
        inner.node = node;
        inner.in = in;
        inner.in_count = node->input_count;
        inner.out = &out;
        inner.out_count = 1;
        inner.place = NULL;
        TRY(node_eval(&inner, err));
        known[count++] = (Known){node->outputs[0], out};
    }
    context->out[0] = (Array *)(uintptr_t)known[count - 1].array;
    return STATUS_OK;
}

static Status fused_node_prepare(PlanContext *context, Error *err)
{
    return fused_prepare(context, body_of(context->node), err);
}

const OpDef ops_fused[] = {
    {.domain = DOMAIN_INTERNAL,
     .name = "Fused",
     .min_inputs = 1,
     .max_inputs = ELEMENTWISE_INPUTS,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ELEMENTWISE | OP_IN_PLACE | OP_BODY | OP_ANY_DTYPE,
     .infer = fused_infer,
     .eval = fused_eval,
     .prepare = fused_node_prepare,
     .no_gradient = "made after autodiff",
     .no_case = "made of other rows; tests/test_fuse_elementwise.c"},
    {0},
};
