/* Gradients of a model's inputs (saliency, style transfer): of the sum over the samples of one score each, or of a
 * loss. Nodes do what their attributes say, as in the run whose results they stand beside. */
#include <string.h>

#include "cli/run.h"

static const char target_name[] = "regraft_target";

static Status find_output(const RunFields *fields, const Graph *graph, size_t *output, Error *err)
{
    *output = 0;
    for (size_t i = 0; i < graph->output_count && fields->of != NULL; i++) {
        *output = i;
        if (strcmp(graph->outputs[i]->name, fields->of) == 0)
            return STATUS_OK;
    }
    if (graph->output_count > 0 && fields->of == NULL)
        return STATUS_OK;
    return fail(err, STATUS_USAGE, "--of: the model has no output '%s'", fields->of == NULL ? "" : fields->of);
}

Status run_check_gradient(const RunFields *fields, const Graph *graph, Error *err)
{
    size_t output;
    bool other = fields->of != NULL || fields->klass >= 0 || fields->loss != NULL;
    if (fields->gradients.count == 0)
        return other ? fail(err, STATUS_USAGE, "--of, --class and --loss say what --gradient is of") : STATUS_OK;
    if (fields->loss != NULL && fields->klass >= 0)
        return fail(err, STATUS_USAGE, "--gradient is of a class or of a loss, not of both");
    for (size_t i = 0; i < fields->gradients.count; i++) {
        const char *name = fields->gradients.items[i];
        const Value *value = graph_find(graph, name);
        if (value == NULL || !value->is_input)
            return fail(err, STATUS_USAGE, "--gradient: the model has no input '%s'", name);
        if (!dtype_is_float(value->type.dtype))
            return fail(err, STATUS_USAGE, "--gradient: input '%s' is %s, only floats have a gradient", name,
                        dtype_name(value->type.dtype));
    }
    return find_output(fields, graph, &output, err);
}

/* ---- what it is the gradient of ---------------------------------------------------------------------------------- */

/* Ones where the chosen class is, zeros elsewhere; all ones when there are no classes to choose from. */
static Status choose_scores(const RunFields *fields, const Array *scores, const char *name, Arena *arena,
                            Array **target, Error *err)
{
    int64_t classes = scores->rank >= 2 ? scores->dims[1] : 1;
    if (fields->klass >= classes)
        return fail(err, STATUS_USAGE, "--class: output '%s' has %lld classes", name, (long long)classes);
    TRY(array_new(arena, DTYPE_F32, scores->rank, scores->dims, target, err));
    float *weights = (*target)->data;
    if (scores->count > 0)
        memset(weights, 0, (size_t)scores->count * sizeof *weights);
    int64_t samples = scores->rank >= 1 ? scores->dims[0] : 1;
    int64_t inner = samples * classes > 0 ? scores->count / (samples * classes) : 0;
    for (int64_t n = 0; n < samples; n++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t base = n * classes * inner + i, best = fields->klass < 0 ? 0 : fields->klass;
            for (int64_t c = 1; c < classes && fields->klass < 0; c++)
                if (array_f64_at(scores, base + c * inner) > array_f64_at(scores, base + best * inner))
                    best = c;
            weights[base + best * inner] = 1;
        }
    return STATUS_OK;
}

static Status choose_loss(const RunFields *fields, const Npz *npz, LossSpec *loss, Arena *arena, Array **target,
                          Error *err)
{
    static const char *const names[] = {"softmax_ce", "lm", "bce", "mse", "l1", "huber", "dice"};
    size_t kind = 0, count = sizeof names / sizeof names[0];
    while (kind < count && strcmp(names[kind], fields->loss) != 0)
        kind++;
    const Array *y = npz_find(npz, "y");
    if (kind == count)
        return fail(err, STATUS_USAGE, "--loss: '%s' is none of softmax_ce, lm, bce, mse, l1, huber, dice",
                    fields->loss);
    if (y == NULL)
        return fail(err, STATUS_REJECTED, "%s: --loss needs the targets as array 'y'", fields->input);
    loss->kind = (LossKind)kind;
    bool classes = loss->kind == LOSS_SOFTMAX_CE || loss->kind == LOSS_LM || loss->kind == LOSS_DICE;
    return array_convert(arena, y, classes ? DTYPE_I64 : DTYPE_F32, target, err);
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static const Array *array_for(const Model *model, const Array *const *inputs, const Array *target, const char *name)
{
    for (size_t k = 0; k < model->graph->input_count; k++)
        if (strcmp(model->graph->inputs[k]->name, name) == 0)
            return inputs[k];
    return strcmp(name, target_name) == 0 ? target : NULL;
}

static Status feed(Plan *plan, const Graph *graph, const Model *model, const Array *const *inputs, const Array *target,
                   Arena *arena, Error *err)
{
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *value = graph->inputs[i];
        const Array *given = array_for(model, inputs, target, value->name);
        void *to = plan_input(plan, i);
        Array *array;
        if (to == NULL || given == NULL)
            continue;
        if (given->count != type_count(&value->type))
            return fail(err, STATUS_REJECTED, "array '%s' has %lld elements, %lld are needed",
                        given == target ? "y" : value->name, (long long)given->count,
                        (long long)type_count(&value->type));
        TRY(array_convert(arena, given, value->type.dtype, &array, err));
        if (array->count > 0)
            memcpy(to, array->data, (size_t)array->count * dtype_size(array->dtype));
    }
    return STATUS_OK;
}

/* Vectors and single numbers that nobody differentiates by (the shape that a Reshape takes, a Resize's scales) are what
 * was given, once and for all: shapes may follow from them. `undo` takes that back. */
static bool is_setting(const RunFields *fields, const Value *input, const Array *given)
{
    bool asked = false;
    for (size_t i = 0; i < fields->gradients.count; i++)
        asked = asked || strcmp(fields->gradients.items[i], input->name) == 0;
    return !asked && given != NULL && given->kind == ARRAY_TENSOR && given->rank <= 1 && given->dtype != DTYPE_STRING;
}

static void hold_settings(const RunFields *fields, Model *model, const Array *const *inputs, bool undo)
{
    for (size_t i = 0; i < model->graph->input_count; i++) {
        Value *input = model->graph->inputs[i];
        if (!input->is_initializer && is_setting(fields, input, inputs[i]))
            input->constant = undo ? NULL : tensor_from_array(&model->arena, input->name, inputs[i]);
    }
}

static Status build(const RunFields *fields, Model *model, const Array *const *inputs, const LossSpec *loss,
                    Arena *arena, Model **working, Error *err)
{
    const Graph *graph = model->graph;
    Binding *bindings = arena_array(arena, Binding, graph->input_count + 1);
    const char **names = arena_array(arena, const char *, fields->gradients.count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        if (inputs[i] == NULL)
            continue;
        bindings[count] = (Binding){.input = graph->inputs[i]->name, .rank = inputs[i]->rank};
        memcpy(bindings[count++].dims, inputs[i]->dims, sizeof bindings[0].dims);
    }
    memcpy(names, fields->gradients.items, fields->gradients.count * sizeof *names);
    WorkingOptions options = {.bindings = bindings,
                              .binding_count = count,
                              .losses = loss,
                              .loss_count = 1,
                              .gradients = true,
                              .live = true,
                              .input_gradients = names};
    hold_settings(fields, model, inputs, false);
    Status status = working_build(model, &options, working, err);
    hold_settings(fields, model, inputs, true);
    return status;
}

/* Does a way of floats lead from the input to the output? One without a gradient passes a step function (Round, Sign),
 * whose derivative is 0 wherever it has one. */
static bool leads_to(Graph *graph, const Value *input, const Value *output)
{
    for (Node *node = graph->first; node != NULL; node = node->next) {
        node->mark = 0;
        for (int i = 0; i < node->input_count; i++) {
            const Value *value = node->inputs[i];
            bool on = value != NULL && (value == input || (value->producer != NULL && value->producer->mark != 0 &&
                                                           dtype_is_float(value->type.dtype)));
            node->mark = node->mark || on;
        }
    }
    return output->producer != NULL && output->producer->mark != 0;
}

/* The gradients that there are become outputs; where there is none, it is zero. */
static Status ask_for(const RunFields *fields, Graph *graph, size_t output, Error *err)
{
    for (size_t i = 0; i < fields->gradients.count; i++) {
        const char *name = fields->gradients.items[i];
        const Value *input = graph_find(graph, name);
        if (input != NULL && input->gradient != NULL)
            graph_add_output(graph, input->gradient);
        else if (input == NULL || !leads_to(graph, input, graph->outputs[output]))
            return fail(err, STATUS_USAGE, "--gradient: output '%s' does not depend on input '%s'",
                        graph->outputs[output]->name, name);
    }
    return STATUS_OK;
}

static Status copy_gradients(const RunFields *fields, const Plan *plan, const Graph *graph, size_t first,
                             Array **gradients, Arena *arena, Error *err)
{
    for (size_t i = 0; i < fields->gradients.count; i++) {
        const Value *input = graph_find(graph, fields->gradients.items[i]);
        const Type *type = input->gradient != NULL ? &graph->outputs[first]->type : &input->type;
        TRY(array_new(arena, type->dtype, type->rank, type->dims, &gradients[i], err));
        size_t size = (size_t)gradients[i]->count * dtype_size(type->dtype);
        if (size > 0 && input->gradient != NULL)
            memcpy(gradients[i]->data, plan_output(plan, first), size);
        else if (size > 0)
            memset(gradients[i]->data, 0, size);
        first += input->gradient != NULL;
    }
    return STATUS_OK;
}

Status run_gradient(const RunFields *fields, Model *model, const Npz *npz, const Array *const *inputs,
                    Array *const *outputs, Array **gradients, Arena *arena, Error *err)
{
    size_t output;
    Array *target = NULL;
    Model *working = NULL;
    Plan *plan = NULL;
    if (fields->gradients.count == 0)
        return STATUS_OK;
    TRY(find_output(fields, model->graph, &output, err));
    const char *name = model->graph->outputs[output]->name;
    LossSpec loss = {.kind = LOSS_LINEAR,
                     .output = output,
                     .weight = 1,
                     .ignore_index = fields->ignore_index,
                     .target_name = target_name};
    if (fields->loss != NULL)
        TRY(choose_loss(fields, npz, &loss, arena, &target, err));
    else
        TRY(choose_scores(fields, outputs[output], name, arena, &target, err));
    Status status;
    TRY_DONE(build(fields, model, inputs, &loss, arena, &working, err));
    size_t first = working->graph->output_count;
    TRY_DONE(ask_for(fields, working->graph, output, err));
    TRY_DONE(plan_build(working, NULL, &(PlanOptions){0}, &plan, err));
    TRY_DONE(feed(plan, working->graph, model, inputs, target, arena, err));
    TRY_DONE(plan_run(plan, (uint64_t)fields->seed, 1, false, err));
    status = copy_gradients(fields, plan, working->graph, first, gradients, arena, err);
done:
    plan_free(plan);
    model_free(working);
    return status;
}
