/* One inference on host arrays: what the verb `run` and the conformance suite do with a model, each engine apart. */
#include "runtime/runtime.h"

static void override_initializers(Model *document, const Array *const *inputs)
{
    const Graph *graph = document->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        Value *value = graph->inputs[i];
        if (value->constant != NULL && inputs[i] != NULL && inputs[i]->kind == ARRAY_TENSOR)
            value->constant = tensor_from_array(&document->arena, value->name, inputs[i]);
    }
}

static Status check_input(const Value *value, const Array *array, Error *err)
{
    if (array == NULL)
        return value->constant != NULL ? STATUS_OK
                                       : fail(err, STATUS_USAGE, "no value given for the input '%s'", value->name);
    bool typed = value->type.kind == TYPE_TENSOR && value->type.dtype != DTYPE_UNDEFINED && array->kind == ARRAY_TENSOR;
    if (typed && value->type.dtype != array->dtype)
        return fail(err, STATUS_USAGE, "input '%s' is %s, found %s", value->name, dtype_name(value->type.dtype),
                    dtype_name(array->dtype));
    return STATUS_OK;
}

Status run_build(Run *run, Model *document, const Array **inputs, Error *err)
{
    *run = (Run){.document = document, .inputs = inputs};
    const Graph *graph = document->graph;
    Binding *bindings = arena_array(&document->arena, Binding, graph->input_count);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Array *array = inputs[i];
        TRY(check_input(graph->inputs[i], array, err));
        if (array == NULL || array->kind != ARRAY_TENSOR)
            continue;
        Binding *binding = &bindings[count++];
        *binding = (Binding){.input = graph->inputs[i]->name, .rank = array->rank};
        memcpy(binding->dims, array->dims, sizeof binding->dims);
    }
    override_initializers(document, inputs);
    WorkingOptions options = {.bindings = bindings, .binding_count = count, .as_written = true, .no_expand = true};
    return working_build(document, &options, &run->working, err);
}

/* The array for input `i` of the working graph, which may have fewer inputs than the document. */
static const Array *input_of(const Run *run, size_t i)
{
    const char *name = run->working->graph->inputs[i]->name;
    const Graph *graph = run->document->graph;
    for (size_t k = 0; k < graph->input_count; k++)
        if (strcmp(graph->inputs[k]->name, name) == 0)
            return run->inputs[k];
    return NULL;
}

Status run_interpreted(const Run *run, Array **outputs, Arena *arena, uint64_t seed, Error *err)
{
    const Graph *graph = run->working->graph;
    const Array **inputs = arena_array(arena, const Array *, graph->input_count);
    for (size_t i = 0; i < graph->input_count; i++)
        inputs[i] = input_of(run, i);
    return interp_run(graph, inputs, outputs, arena, seed, err);
}

/* Plans hold dense numbers only. */
static Status check_plannable(const Run *run, Error *err)
{
    const Graph *graph = run->working->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Array *array = input_of(run, i);
        if (array == NULL || array->kind != ARRAY_TENSOR || array->dtype == DTYPE_STRING)
            return fail(err, STATUS_UNSUPPORTED, "input '%s' is no tensor of numbers", graph->inputs[i]->name);
    }
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node->op == NULL)
            return node_refuse(node, err);
    for (size_t i = 0; i < graph->output_count; i++)
        if (!type_known(&graph->outputs[i]->type) || graph->outputs[i]->type.dtype == DTYPE_STRING)
            return fail(err, STATUS_UNSUPPORTED, "the shape of output '%s' depends on data", graph->outputs[i]->name);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != NULL && !type_known(&node->inputs[i]->type))
                return fail(err, STATUS_UNSUPPORTED, "%s: the shape of '%s' depends on data", node_text(node),
                            node->inputs[i]->name);
    return STATUS_OK;
}

static Status copy_output(const Plan *plan, const Graph *graph, size_t i, Arena *arena, Array **output, Error *err)
{
    const Type *type = &graph->outputs[i]->type;
    TRY(array_new(arena, type->dtype, type->rank, type->dims, output, err));
    if ((*output)->count > 0)
        memcpy((*output)->data, plan_output(plan, i), (size_t)(*output)->count * dtype_size(type->dtype));
    return STATUS_OK;
}

Status run_planned(const Run *run, Array **outputs, Arena *arena, uint64_t seed, Error *err)
{
    const Graph *graph = run->working->graph;
    TRY(pass_unroll(run->working->graph, err));
    TRY(pass_expand(run->working->graph, err));
    TRY(check_plannable(run, err));
    Plan *plan;
    PlanOptions options = {.profile = run->profile != NULL || run->trace != NULL};
    MachinePeak peak = {0};
    if (run->profile != NULL)
        TRY(peak_measure(&peak, err));
    TRY(plan_build(run->working, NULL, &options, &plan, err));
    for (size_t i = 0; i < graph->input_count; i++) {
        const Array *array = input_of(run, i);
        void *to = plan_input(plan, i);
        if (to != NULL && array->count > 0)
            memcpy(to, array->data, (size_t)array->count * dtype_size(array->dtype));
    }
    Status status = plan_run(plan, seed, 1, false, err);
    for (size_t i = 0; i < graph->output_count && status == STATUS_OK; i++)
        status = copy_output(plan, graph, i, arena, &outputs[i], err);
    if (status == STATUS_OK && run->profile != NULL)
        plan_profile(plan, &peak, run->profile);
    if (status == STATUS_OK && run->trace != NULL)
        plan_trace(plan, run->trace);
    plan_free(plan);
    return status;
}
