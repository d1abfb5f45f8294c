/* What stops a model: its working graphs are built, for inference and for training, with a small batch and nothing run;
 * every node without a way to run, and every node on the trained path without a gradient, is a finding. When none is
 * found the gradients are appended too, which settles what no table tells. */
#include "cli/check.h"
#include "onnx/op.h"

/* ---- building ------------------------------------------------------------------------------------------ */

static int64_t guess_dim(const Check *check, const Type *type, int axis)
{
    const char *symbol = type->symbols[axis];
    for (size_t i = 0; symbol != NULL && i < check->dim_count; i++)
        if (strcmp(check->dims[i].name, symbol) == 0)
            return check->dims[i].value;
    if (type->dims[axis] >= 0)
        return type->dims[axis];
    if (axis == 0)
        return check->batch;
    return type->rank == 4 ? (axis == 1 ? 3 : 224) : 16;
}

/* One binding an input: its whole shape. `batch` 0: a fixed first dim stays. */
static size_t bind_inputs(const Check *check, int64_t batch, Binding **bindings)
{
    const Graph *graph = check->document->graph;
    *bindings = arena_array(check->arena, Binding, graph->input_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *input = graph->inputs[i];
        if (input->is_initializer || input->type.kind != TYPE_TENSOR || input->type.rank < 0)
            continue;
        Binding *binding = &(*bindings)[count++];
        *binding = (Binding){.input = input->name, .rank = input->type.rank};
        for (int axis = 0; axis < input->type.rank; axis++)
            binding->dims[axis] = guess_dim(check, &input->type, axis);
        if (batch > 0 && input->type.rank > 0)
            binding->dims[0] = batch;
    }
    return count;
}

static Status build(const Check *check, int64_t batch, WorkingOptions options, Model **working, Error *err)
{
    Binding *bindings;
    options.binding_count = bind_inputs(check, batch, &bindings);
    options.bindings = bindings;
    options.no_fuse = true; /* findings name the file's own operators */
    return working_build(check->document, &options, working, err);
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static const Node *in_document(const Node *node)
{
    return node->document_node != NULL ? node->document_node : node;
}

static const char *domain_text(const char *domain)
{
    return domain[0] != '\0' ? domain : "ai.onnx";
}

static void look_at_row(Check *check, const Node *node)
{
    const Node *shown = in_document(node);
    const OpDef *any = opset_find_any(check->document->ops, node->domain, node->op_type);
    if (node->op == NULL && any != NULL)
        check_add(check, CODE_OPSET, shown, "opset %d of %s is newer than the %d that this build has read", node->opset,
                  domain_text(node->domain), any->last);
    else if (node->op == NULL)
        check_add(check, CODE_UNKNOWN_OPERATOR, shown, "operator %s.%s (opset %d) is not known",
                  domain_text(node->domain), node->op_type, node->opset);
    else if (node->op->eval == NULL && node->op->prepare == NULL && node->op->expand == NULL)
        check_add(check, CODE_CANNOT_RUN, shown, "operator %s is known, but this build cannot run it", node->op_type);
}

static void look_at_graph(Check *check, const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        look_at_row(check, node);
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL)
                look_at_graph(check, node->attrs[i]->g);
    }
}

static bool unknown_type(const Value *value)
{
    return value != NULL && !type_known(&value->type);
}

/* A result of the node whose shape is not known, and read by somebody. */
static const Value *shapeless(const Node *node)
{
    for (int i = 0; i < node->output_count; i++)
        if (unknown_type(node->outputs[i]) && (node->outputs[i]->use_count > 0 || node->outputs[i]->is_output))
            return node->outputs[i];
    return NULL;
}

static const Node *shapeless_before(const Node *node)
{
    for (int i = 0; i < node->input_count; i++)
        if (unknown_type(node->inputs[i]) && node->inputs[i]->producer != NULL)
            return node->inputs[i]->producer;
    return NULL;
}

/* Results whose shape depends on data, though their inputs are known: what a plan cannot hold. */
static void look_at_shapes(Check *check, const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node->op != NULL && shapeless(node) != NULL && shapeless_before(node) == NULL)
            check_add(check, CODE_INTERPRETED, in_document(node),
                      "the shape of '%s' depends on data: from there on the model runs in the interpreter",
                      shapeless(node)->name);
}

/* The first of them that a trained node depends on; the rest follows from it. */
static void look_at_trained_shapes(Check *check, const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        if (node->op == NULL || !node->mark || shapeless(node) == NULL)
            continue;
        const Node *lost = node;
        while (shapeless_before(lost) != NULL)
            lost = shapeless_before(lost);
        check_add(check, CODE_DATA_DEPENDENT, in_document(lost),
                  "the shape of '%s' depends on data: gradients cannot be planned through it", shapeless(lost)->name);
        return;
    }
}

/* Node.mark: a float result that a trained parameter reaches, be it in a body. Is there any? */
static bool mark_trained(Graph *graph)
{
    bool any = false;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        bool stops = node->op != NULL && (node->op->traits & OP_SHAPE_ONLY) != 0;
        node->mark = 0;
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && mark_trained(node->attrs[i]->g))
                node->mark = 1;
        for (int i = 0; i < node->input_count && !stops; i++) {
            const Value *value = node->inputs[i];
            bool carries =
                value != NULL && (value->role == ROLE_PARAMETER || (value->producer && value->producer->mark));
            node->mark = node->mark || carries;
        }
        bool floats = false;
        for (int i = 0; i < node->output_count; i++)
            floats = floats || (node->outputs[i] != NULL && (dtype_is_float(node->outputs[i]->type.dtype) ||
                                                             node->outputs[i]->type.dtype == DTYPE_UNDEFINED));
        node->mark = node->mark && floats;
        any = any || node->mark;
    }
    return any;
}

static void look_at_gradients(Check *check, Graph *graph)
{
    mark_trained(graph);
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        if (!node->mark || node->op == NULL || node->op->grad != NULL || node->op->expand != NULL)
            continue;
        const char *reason = node->op->no_gradient != NULL ? node->op->no_gradient : "no gradient rule in this build";
        check_add(check, CODE_NO_GRADIENT, in_document(node), "on the trained path, and has no gradient: %s", reason);
    }
}

static void look_at_kernels(Check *check, const Graph *graph)
{
    size_t count = 0;
    const Node *first = NULL;
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        bool slow = node->mark && node->op != NULL && node->op->prepare == NULL && node->op->expand == NULL;
        first = slow && count == 0 ? in_document(node) : first;
        count += slow;
    }
    if (count > 0)
        check_add(check, CODE_INTERPRETED, first,
                  "nodes on the trained path without a planned kernel: %zu; right, but slower", count);
}

/* ---- inference --------------------------------------------------------------------------------------------------- */

static bool builds_for(const Check *check, int64_t batch, Error *err)
{
    Model *working = NULL;
    Status status = build(check, batch, (WorkingOptions){0}, &working, err);
    model_free(working);
    return status == STATUS_OK;
}

/* A batch that the exporter baked in; what follows looks at the graph as a run would have it. */
static void look_at_batch(Check *check)
{
    BatchReport report;
    Error own = {STATUS_OK, ""}, found = {STATUS_OK, ""};
    if (builds_for(check, check->batch, &own))
        return;
    Status status = pass_batch(check->document, &report, &found);
    if (status == STATUS_OK && report.rewritten > 0)
        check_add(check, CODE_BAKED_BATCH, NULL,
                  "a batch of %lld is baked into %zu nodes, first %s: rewritten where another is run",
                  (long long)report.baked, report.rewritten, report.first);
    else if (status == STATUS_UNSUPPORTED) {
        check_add(check, CODE_BAKED_BATCH, NULL, "%s", found.message);
        check->batch = report.baked > 0 ? report.baked : check->batch; /* what it runs with */
    } else if (builds_for(check, 1, NULL))
        check_add(check, CODE_BAKED_BATCH, NULL, "only a batch of 1 fits: %s; export again with a dynamic batch",
                  own.message);
}

static bool look_at_inference(Check *check)
{
    Model *working = NULL;
    Error err = {STATUS_OK, ""};
    size_t before = check_level_count(check, LEVEL_ERROR);
    look_at_batch(check);
    Status status = build(check, 0, (WorkingOptions){0}, &working, &err);
    if (status != STATUS_OK) {
        look_at_graph(check, check->document->graph);
        if (check_level_count(check, LEVEL_ERROR) == before)
            check_add(check, status == STATUS_UNSUPPORTED ? CODE_CANNOT_RUN : CODE_SHAPES, NULL, "%s", err.message);
        return false;
    }
    look_at_graph(check, working->graph);
    look_at_shapes(check, working->graph);
    model_free(working);
    if (check_level_count(check, LEVEL_ERROR) > before)
        return false;
    return check_level_count(check, LEVEL_ERROR) == before;
}

/* ---- training ------------------------------------------------------------------------------------------ */

/* A squared error on every output that can carry one: any loss asks for the same gradients. */
static size_t make_losses(const Check *check, const Graph *working, LossSpec **losses)
{
    *losses = arena_array(check->arena, LossSpec, working->output_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < working->output_count; i++) {
        const Value *output = working->outputs[i];
        if (!dtype_is_float(output->type.dtype) || output->producer == NULL || !output->producer->mark)
            continue;
        const char *target = arena_printf(check->arena, "check.target_%zu", i);
        (*losses)[count++] =
            (LossSpec){.kind = LOSS_MSE, .output = i, .weight = 1, .ignore_index = -1, .target_name = target};
    }
    return count;
}

static void look_at_reach(Check *check, const Graph *working)
{
    size_t missed = 0;
    const char *first = NULL;
    for (size_t i = 0; i < working->initializer_count; i++) {
        const Value *value = working->initializers[i];
        if (value->role != ROLE_PARAMETER)
            continue;
        bool reached = value->gradient != NULL;
        const ParamInfo *info = &check->params.items[value->parameter];
        check->trained_tensors += reached;
        check->trained_numbers += reached ? tensor_count(info->origin) : 0;
        first = !reached && missed == 0 ? info->name : first;
        missed += !reached;
    }
    if (missed > 0 && check->trained_tensors == 0)
        check_add(check, CODE_NOTHING_TRAINS, NULL, "no parameter that may be trained reaches an output ('%s'%s)",
                  first, missed > 1 ? ", ..." : "");
    else if (missed > 0)
        check_add(check, CODE_UNREACHED, NULL,
                  "parameters that do not reach an output: %zu ('%s'%s); they stay as they are", missed, first,
                  missed > 1 ? ", ..." : "");
}

static void append_gradients(Check *check, const LossSpec *losses, size_t count)
{
    Model *working = NULL;
    Error err = {STATUS_OK, ""};
    WorkingOptions options = {
        .training = true, .params = &check->params, .losses = losses, .loss_count = count, .gradients = true};
    if (build(check, 0, options, &working, &err) != STATUS_OK) {
        check_add(check, CODE_BUILD, NULL, "%s", err.message);
        return;
    }
    look_at_reach(check, working->graph);
    model_free(working);
}

static void look_at_training(Check *check)
{
    Model *working = NULL;
    Error err = {STATUS_OK, ""};
    size_t before = check_level_count(check, LEVEL_ERROR);
    WorkingOptions options = {.training = true, .params = &check->params, .for_split = true};
    if (build(check, 0, options, &working, &err) != STATUS_OK) {
        check_add(check, CODE_BUILD, NULL, "%s", err.message);
        return;
    }
    look_at_gradients(check, working->graph);
    look_at_trained_shapes(check, working->graph);
    LossSpec *losses;
    size_t count = make_losses(check, working->graph, &losses);
    if (count == 0 && check_level_count(check, LEVEL_ERROR) == before)
        check_add(check, CODE_NOTHING_TRAINS, NULL, "no trained parameter reaches an output of floats");
    if (check_level_count(check, LEVEL_ERROR) == before) {
        look_at_kernels(check, working->graph);
        append_gradients(check, losses, count);
    }
    check->trains = check_level_count(check, LEVEL_ERROR) == before;
    model_free(working);
}

void check_plan(Check *check)
{
    check->runs = look_at_inference(check);
    bool any = false;
    for (size_t i = 0; i < check->params.count; i++)
        any = any || check->params.items[i].trainable;
    if (check->train && check->runs && any)
        look_at_training(check);
    else if (check->train && check->runs)
        check_add(check, CODE_NOTHING_TRAINS, NULL, "no parameter is left to train");
}
