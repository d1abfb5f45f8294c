/* One run of a parity case inside this process: working graph, plan (or interpreter), optimizer. What `regraft tune`
 * does with --recipe plain, without the tool around it; so that a difference can be told from one of the tool's. */
#include <math.h>
#include <string.h>

#include "runtime/runtime.h"
#include "tests/parity.h"

typedef struct Direct {
    const ParityCase *c;
    const json_t *run;
    ParityEngine engine;
    Model *document, *training, *inference;
    ParamList params;
    ParamStore *store;
    Plan *train_plan, *probe_plan;
    LossSpec losses[PARITY_OUTPUTS_MAX];
    size_t loss_count;
    OptimizerSpec optimizer;
    Arena arena;
} Direct;

const char *parity_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

bool parity_listed(const json_t *names, const char *name)
{
    for (size_t i = 0; i < json_array_size(names); i++)
        if (strcmp(json_string_value(json_array_get(names, i)), name) == 0)
            return true;
    return false;
}

static double number(const json_t *object, const char *key, double absent)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : absent;
}

/* ---- what the run asks for ------------------------------------------------------------------------------ */

static Status read_optimizer(Direct *d, Error *err)
{
    OptimizerKind kind;
    if (!optimizer_parse(parity_string(d->run, "optimizer"), &kind))
        return fail(err, STATUS_USAGE, "no optimizer '%s'", parity_string(d->run, "optimizer"));
    d->optimizer = optimizer_default(kind);
    d->optimizer.lr = number(d->run, "lr", d->optimizer.lr);
    d->optimizer.momentum = number(d->run, "momentum", d->optimizer.momentum);
    d->optimizer.weight_decay = number(d->run, "weight_decay", kind == OPTIMIZER_ADAMW ? d->optimizer.weight_decay : 0);
    d->optimizer.epsilon = number(d->run, "eps", d->optimizer.epsilon);
    d->optimizer.alpha = number(d->run, "alpha", d->optimizer.alpha);
    const json_t *betas = json_object_get(d->run, "betas");
    if (json_array_size(betas) == 2) {
        d->optimizer.beta1 = json_number_value(json_array_get(betas, 0));
        d->optimizer.beta2 = json_number_value(json_array_get(betas, 1));
    }
    return STATUS_OK;
}

static Status read_losses(Direct *d, Error *err)
{
    static const char *const names[] = {"y_0", "y_1", "y_2", "y_3", "y_4", "y_5", "y_6", "y_7"};
    const char *kind = parity_string(d->c->json, "loss");
    LossSpec loss = {.weight = 1, .ignore_index = -100, .delta = 1, .target_name = "y"};
    if (strcmp(kind, "lm") == 0)
        loss.kind = LOSS_LM;
    else if (strcmp(kind, "bce") == 0)
        loss.kind = LOSS_BCE;
    else if (strcmp(kind, "mse") == 0)
        loss.kind = LOSS_MSE;
    else if (strcmp(kind, "softmax_ce") == 0 || strcmp(kind, "multi") == 0)
        loss.kind = LOSS_SOFTMAX_CE;
    else
        return fail(err, STATUS_USAGE, "no loss '%s'", kind);
    bool several = strcmp(kind, "multi") == 0;
    d->loss_count = several ? d->document->graph->output_count : 1;
    for (size_t i = 0; i < d->loss_count && i < PARITY_OUTPUTS_MAX; i++) {
        d->losses[i] = loss;
        d->losses[i].output = i;
        if (several)
            d->losses[i].target_name = names[i];
    }
    return STATUS_OK;
}

/* Exporting in training mode has moved the file's running statistics once; the reference started before that. */
static Status untrace(Direct *d, Error *err)
{
    size_t moved;
    if (strcmp(parity_string(d->c->json, "mode"), "train") != 0)
        return STATUS_OK;
    return statistics_untrace(d->document, &d->params, d->c->probe.names, (const Array *const *)d->c->probe.arrays,
                              d->c->probe.count, &moved, err);
}

bool parity_in_module(const json_t *names, const char *name)
{
    const char *first = json_string_value(json_array_get(names, 0)), *dot = first == NULL ? NULL : strrchr(first, '.');
    size_t length = dot == NULL ? 0 : (size_t)(dot - first);
    for (size_t i = 1; i < json_array_size(names) && length > 0; i++) {
        const char *other = json_string_value(json_array_get(names, i));
        while (length > 0 && (strncmp(first, other, length) != 0 || first[length] != '.' || other[length] != '.'))
            length--;
    }
    return length > 0 && strncmp(first, name, length) == 0 && name[length] == '.';
}

/* All but what the case lists as constants, or the parameters that the run names; by the head where names did not
 * survive the exporter, and what is left of that module's names. */
static Status choose(Direct *d, Error *err)
{
    const json_t *names = json_object_get(d->run, "trainable");
    if (json_is_string(names)) {
        const json_t *constants = json_object_get(d->c->json, "constants");
        const json_t *own = json_object_get(d->c->json, "parameters");
        for (size_t i = 0; i < d->params.count; i++)
            if (parity_listed(constants, d->params.items[i].name))
                d->params.items[i].trainable = false;
            else if (d->params.items[i].looks_folded && parity_listed(own, d->params.items[i].name))
                d->params.items[i].trainable = true;
        return STATUS_OK;
    }
    const char **patterns = arena_array(&d->arena, const char *, json_array_size(names) + d->params.count + 1);
    size_t count = 0;
    if (json_is_true(json_object_get(d->run, "names_in_export"))) {
        for (; count < json_array_size(names); count++)
            patterns[count] = json_string_value(json_array_get(names, count));
    } else {
        patterns[count++] = "head";
        for (size_t i = 0; i < d->params.count; i++)
            if (parity_in_module(names, d->params.items[i].name))
                patterns[count++] = d->params.items[i].name;
    }
    bool *selected = arena_array(&d->arena, bool, d->params.count + 1);
    TRY(params_select(d->document, &d->params, patterns, count, selected, err));
    for (size_t i = 0; i < d->params.count; i++)
        d->params.items[i].trainable = selected[i];
    return STATUS_OK;
}

/* ---- graphs ---------------------------------------------------------------------------------------------- */

static Status build(Direct *d, bool training, Model **model, Error *err)
{
    const Graph *graph = d->document->graph;
    Binding *bindings = arena_array(&d->arena, Binding, graph->input_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Array *array = npz_find(&d->c->probe, graph->inputs[i]->name);
        if (array == NULL)
            continue;
        Binding *binding = &bindings[count++];
        *binding = (Binding){.input = graph->inputs[i]->name, .rank = array->rank};
        memcpy(binding->dims, array->dims, sizeof binding->dims);
    }
    WorkingOptions options = {.bindings = bindings,
                              .binding_count = count,
                              .training = training,
                              .running_statistics = json_is_array(json_object_get(d->run, "trainable")),
                              .params = &d->params,
                              .losses = d->losses,
                              .loss_count = training ? d->loss_count : 0,
                              .gradients = training};
    return working_build(d->document, &options, model, err);
}

/* Rows [first, first + batch) of what the case feeds to this input. */
static Status feed(const Direct *d, const Npz *from, const Value *input, int64_t first, Array *out, Error *err)
{
    const Array *all = npz_find(from, input->name);
    if (all == NULL)
        return fail(err, STATUS_REJECTED, "the case has no array '%s'", input->name);
    *out = *all;
    if (all->dtype != input->type.dtype)
        return fail(err, STATUS_REJECTED, "'%s' is %s in the data, %s in the graph", input->name,
                    dtype_name(all->dtype), dtype_name(input->type.dtype));
    int64_t row = all->count / (all->dims[0] > 0 ? all->dims[0] : 1);
    out->dims[0] = d->c->batch;
    out->count = row * d->c->batch;
    out->data = (char *)all->data + (size_t)(first * row) * dtype_size(all->dtype);
    return STATUS_OK;
}

/* ---- the interpreter as engine ---------------------------------------------------------------------------- */

/* Gradients and batch statistics become outputs, parameters and statistics read the store. */
static Status open_interpreter(Direct *d, Model *model, Error *err)
{
    Graph *graph = model->graph;
    for (size_t i = 0; i < graph->initializer_count; i++) {
        Value *value = graph->initializers[i];
        if (value->role != ROLE_PARAMETER)
            continue;
        Tensor *tensor = arena_copy(&model->arena, value->constant, sizeof *tensor);
        tensor->data = d->store->data + d->store->items[value->parameter].offset;
        value->constant = tensor;
        if (value->gradient != NULL)
            graph_add_output(graph, value->gradient);
    }
    for (Node *node = graph->first; node != NULL; node = node->next) {
        if (strncmp(node->op_type, "BatchNormTrain", 14) != 0 || strstr(node->op_type, "Grad") != NULL)
            continue;
        for (int i = 1; i <= 2; i++) {
            Value *state = node->inputs[i + 2];
            void *data;
            Tensor *tensor = tensor_new(&model->arena, state->name, DTYPE_F32, 1, state->constant->dims, &data);
            memcpy(data, state->constant->data, state->constant->bytes);
            state->constant = tensor;
            graph_add_output(graph, node->outputs[i]);
        }
    }
    (void)err;
    return STATUS_OK;
}

static void take_outputs(Direct *d, Array *const *outputs)
{
    Graph *graph = d->training->graph;
    for (size_t o = 0; o < graph->output_count; o++) {
        const Value *value = graph->outputs[o];
        for (size_t i = 0; i < graph->initializer_count; i++) {
            const Value *parameter = graph->initializers[i];
            if (parameter->role == ROLE_PARAMETER && parameter->gradient == value)
                memcpy(d->store->gradient + d->store->items[parameter->parameter].offset, outputs[o]->data,
                       (size_t)outputs[o]->count * sizeof(float));
        }
        const Node *node = value->producer;
        bool statistic = node != NULL && strncmp(node->op_type, "BatchNormTrain", 14) == 0 &&
                         strstr(node->op_type, "Grad") == NULL && value->producer_index > 0;
        if (!statistic)
            continue;
        float keep = node_float(node, "momentum", 0.9f);
        const Tensor *state = node->inputs[value->producer_index + 2]->constant;
        float *running = (float *)(uintptr_t)state->data;
        for (int64_t k = 0; k < outputs[o]->count; k++)
            running[k] = running[k] * keep + ((const float *)outputs[o]->data)[k] * (1 - keep);
    }
}

/* Statistics by origin, from the training graph to the one that is evaluated. */
static void copy_statistics(Direct *d)
{
    Graph *from = d->training->graph, *to = d->inference->graph;
    for (size_t i = 0; i < to->initializer_count; i++)
        for (size_t k = 0; k < from->initializer_count; k++)
            if (from->initializers[k]->role == ROLE_STATE && to->initializers[i]->origin != NULL &&
                to->initializers[i]->origin == from->initializers[k]->origin &&
                to->initializers[i]->role != ROLE_PARAMETER)
                to->initializers[i]->constant = from->initializers[k]->constant;
}

static Status run_interpreter(Direct *d, Model *model, const Npz *from, int64_t first, Array **outputs, Arena *arena,
                              Error *err)
{
    const Graph *graph = model->graph;
    Array *inputs = arena_array(arena, Array, graph->input_count + 1);
    const Array **list = arena_array(arena, const Array *, graph->input_count + 1);
    for (size_t i = 0; i < graph->input_count; i++) {
        TRY(feed(d, from, graph->inputs[i], first, &inputs[i], err));
        list[i] = &inputs[i];
    }
    return interp_run(graph, list, outputs, arena, 0, err);
}

/* ---- engines ---------------------------------------------------------------------------------------------- */

static Status open_engine(Direct *d, Error *err)
{
    if (d->engine == PARITY_INTERP) {
        TRY(open_interpreter(d, d->training, err));
        return open_interpreter(d, d->inference, err);
    }
    bool narrow = d->engine == PARITY_NARROW_PLAN;
    PlanOptions options = {.training = true,
                           .plain_only = d->engine == PARITY_PLAIN_PLAN,
                           .precision = narrow ? PRECISION_BF16 : PRECISION_F32};
    TRY(plan_build(d->training, d->store, &options, &d->train_plan, err));
    options.training = false;
    options.precision = PRECISION_F32; /* as the tool evaluates */
    return plan_build(d->inference, d->store, &options, &d->probe_plan, err);
}

static Status feed_plan(const Direct *d, Plan *plan, const Graph *graph, const Npz *from, int64_t first, Error *err)
{
    for (size_t i = 0; i < graph->input_count; i++) {
        Array array = {.count = 0};
        if (plan_input(plan, i) == NULL)
            continue;
        TRY(feed(d, from, graph->inputs[i], first, &array, err));
        memcpy(plan_input(plan, i), array.data, (size_t)array.count * dtype_size(array.dtype));
    }
    return STATUS_OK;
}

static Status train_step(Direct *d, int64_t step, double *loss, Error *err)
{
    const Graph *graph = d->training->graph;
    size_t loss_index = d->document->graph->output_count;
    double norm;
    if (d->engine == PARITY_INTERP) {
        Arena arena;
        arena_init(&arena);
        Array **outputs = arena_array(&arena, Array *, graph->output_count);
        Status status = run_interpreter(d, d->training, &d->c->train, step * d->c->batch, outputs, &arena, err);
        if (status == STATUS_OK) {
            *loss = array_f64_at(outputs[loss_index], 0);
            take_outputs(d, outputs);
        }
        arena_release(&arena);
        TRY(status);
    } else {
        TRY(feed_plan(d, d->train_plan, graph, &d->c->train, step * d->c->batch, err));
        TRY(plan_run(d->train_plan, 0, (uint64_t)step, false, err));
        *loss = (double)*(const float *)plan_output(d->train_plan, loss_index);
    }
    return optimizer_step(&d->optimizer, d->store, (uint64_t)step + 1, d->optimizer.lr, &norm, err);
}

static Status probe(Direct *d, ParityResult *result, Error *err)
{
    const Graph *graph = d->inference->graph;
    result->output_count = graph->output_count < PARITY_OUTPUTS_MAX ? graph->output_count : PARITY_OUTPUTS_MAX;
    Array *outputs[PARITY_OUTPUTS_MAX];
    if (d->engine == PARITY_INTERP) {
        copy_statistics(d);
        TRY(run_interpreter(d, d->inference, &d->c->probe, 0, outputs, &result->arena, err));
    } else {
        TRY(feed_plan(d, d->probe_plan, graph, &d->c->probe, 0, err));
        TRY(plan_run(d->probe_plan, 0, 0, false, err));
    }
    for (size_t i = 0; i < result->output_count; i++) {
        if (d->engine != PARITY_INTERP) {
            const Type *type = &graph->outputs[i]->type;
            TRY(array_new(&result->arena, type->dtype, type->rank, type->dims, &outputs[i], err));
            memcpy(outputs[i]->data, plan_output(d->probe_plan, i),
                   (size_t)outputs[i]->count * dtype_size(type->dtype));
        }
        result->outputs[i] = outputs[i];
    }
    return STATUS_OK;
}

/* A batch that is baked in and cannot be rewritten is the one that the case has. */
static Status free_batch(Direct *d, const char *path, Error *err)
{
    BatchReport report;
    Error ignored = {0};
    if (pass_batch(d->document, &report, &ignored) == STATUS_OK)
        return STATUS_OK;
    model_free(d->document);
    d->document = NULL;
    return model_import(path, &builtin_ops, &d->document, err);
}

static Status run(Direct *d, ParityResult *result, Error *err)
{
    const char *path = arena_printf(&d->arena, "%s/model.onnx", d->c->folder);
    TRY(model_import(path, &builtin_ops, &d->document, err));
    TRY(read_optimizer(d, err));
    TRY(read_losses(d, err));
    TRY(free_batch(d, path, err));
    TRY(params_find(d->document, false, &d->params, err));
    statistics_part(d->document, &d->params);
    TRY(untrace(d, err));
    TRY(choose(d, err));
    TRY(params_new(&d->params, &d->store, err));
    TRY(build(d, true, &d->training, err));
    TRY(build(d, false, &d->inference, err));
    TRY(open_engine(d, err));
    for (int64_t step = 0; step < d->c->steps; step++)
        TRY(train_step(d, step, &result->loss[step], err));
    return probe(d, result, err);
}

Status parity_direct(const ParityCase *c, const json_t *json, ParityEngine engine, ParityResult *result, Error *err)
{
    Direct d = {.c = c, .run = json, .engine = engine};
    arena_init(&d.arena);
    Status status = run(&d, result, err);
    plan_free(d.train_plan);
    plan_free(d.probe_plan);
    model_free(d.training);
    model_free(d.inference);
    params_free(d.store);
    model_free(d.document);
    arena_release(&d.arena);
    return status;
}

/* ---- what is a parameter ------------------------------------------------------------------------------------ */

static const ParamInfo *info_of(const ParamList *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static int compare_parameters(const ParityCase *c, const ParamList *list)
{
    const json_t *expected = json_object_get(c->json, "parameters"), *constants = json_object_get(c->json, "constants");
    int differences = 0;
    for (size_t i = 0; i < json_array_size(expected); i++) {
        const char *name = json_string_value(json_array_get(expected, i));
        const ParamInfo *info = info_of(list, name);
        if (info == NULL || !info->trainable) {
            printf("  %s: parameter '%s' is %s\n", c->folder, name, info == NULL ? "not found" : "taken as folded");
            differences++;
        }
    }
    for (size_t i = 0; i < list->count; i++) {
        const ParamInfo *info = &list->items[i];
        if (info->trainable && !parity_listed(expected, info->name)) {
            printf("  %s: '%s' is no parameter%s\n", c->folder, info->name,
                   parity_listed(constants, info->name) ? " but a constant" : "");
            differences++;
        }
    }
    return differences;
}

Status parity_parameters(const ParityCase *c, int *differences, Error *err)
{
    Arena arena;
    arena_init(&arena);
    Model *document = NULL;
    ParamList list;
    Status status = model_import(arena_printf(&arena, "%s/model.onnx", c->folder), &builtin_ops, &document, err);
    if (status == STATUS_OK)
        status = params_find(document, false, &list, err);
    if (status == STATUS_OK)
        *differences += compare_parameters(c, &list);
    size_t ties = 0;
    for (size_t i = 0; status == STATUS_OK && i < list.count; i++)
        ties += list.items[i].tied_to >= 0;
    size_t expected = 0, group; /* a group of n tensors is n - 1 ties */
    const json_t *names;
    json_array_foreach(json_object_get(c->json, "ties"), group, names) expected += json_array_size(names) - 1;
    if (status == STATUS_OK && ties != expected) {
        printf("  %s: %zu ties found\n", c->folder, ties);
        ++*differences;
    }
    model_free(document);
    arena_release(&arena);
    return status;
}
