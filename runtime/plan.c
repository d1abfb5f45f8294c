/* plan_build: the working graph, walked once in order, becomes a list of steps. Everything that can fail or choose
 * happens here and in the rows' prepare functions; exec.c only runs the list. The parts: slots for values (here), what
 * rows ask for (kernel.c), where bytes live (memory.c). */
#include "runtime/plan.h"

#include <string.h>

Slot *slot_root(Slot *slot)
{
    while (slot->base != NULL)
        slot = slot->base;
    return slot;
}

Slot *plan_slot(Plan *plan, const Value *value, DType dtype, int rank, const int64_t *dims)
{
    Slot *slot = arena_new(&plan->arena, Slot);
    slot->value = value;
    slot->dtype = dtype;
    slot->rank = rank;
    if (rank > 0)
        memcpy(slot->dims, dims, (size_t)rank * sizeof dims[0]);
    plan->slots = arena_grow(&plan->arena, plan->slots, plan->slot_count, &plan->slot_capacity, sizeof plan->slots[0]);
    plan->slots[plan->slot_count++] = slot;
    return slot;
}

Home *plan_home(Plan *plan, const Value *value)
{
    return &plan->homes[value->mark];
}

Step *plan_add_step(Plan *plan, const Node *node)
{
    Step *step = arena_new(&plan->arena, Step);
    step->plan = plan;
    step->node = node;
    step->position = -1;
    if (node == NULL)
        return step;
    step->in_count = node->input_count;
    step->out_count = node->output_count;
    step->in = arena_array(&plan->arena, Slot *, (size_t)node->input_count);
    step->out = arena_array(&plan->arena, Slot *, (size_t)node->output_count);
    step->stream = (uint64_t)node->index;
    return step;
}

void plan_push_step(Plan *plan, Step *step)
{
    plan->steps = arena_grow(&plan->arena, plan->steps, plan->step_count, &plan->step_capacity, sizeof plan->steps[0]);
    plan->steps[plan->step_count++] = step;
}

/* ---- values that no step computes --------------------------------------------------------------------------- */

static ParamUse *param_use(Plan *plan, int parameter, int gradient, int state)
{
    ParamUse *use = arena_new(&plan->arena, ParamUse);
    *use = (ParamUse){parameter, gradient, state};
    return use;
}

/* Running statistics of any BatchNormalization live in the store, so that training plans and evaluation plans share
 * them. */
static bool is_statistic(const Value *value)
{
    if (value->role == ROLE_STATE)
        return true;
    for (size_t i = 0; i < value->use_count; i++) {
        const Use *use = &value->uses[i];
        if (use->index >= 3 && use->index <= 4 && strcmp(use->node->op_type, "BatchNormalization") == 0)
            return true;
    }
    return false;
}

enum { CHANCE = 1 << 20 };

/* Kernels want aligned numbers; a mapped file gives any address. */
static void *aligned_constant(Plan *plan, const Tensor *tensor, size_t bytes)
{
    Array *array = NULL;
    const void *data = tensor->data;
    if (dtype_bits(tensor->dtype) < 8 && tensor->dtype != DTYPE_STRING) {
        Status status = array_from_tensor(&plan->arena, tensor, &array, plan->err);
        if (status != STATUS_OK)
            plan->status = (int)status;
        return array == NULL ? NULL : array->data;
    }
    bool as_it_lies = (uintptr_t)data % 64 == 0 && data != NULL;
    if (!as_it_lies || bytes < CHANCE) /* where small ones lie is chance: a bill must not depend on it */
        plan->bill.constants += bytes;
    if (as_it_lies)
        return (void *)(uintptr_t)data;
    void *block = NULL;
    if (plan->options.measure)
        return (void *)(uintptr_t)data;
    Status status = block_alloc(&block, bytes, "constants", plan->err);
    if (status != STATUS_OK) {
        plan->status = (int)status;
        return NULL;
    }
    if (tensor->bytes > 0)
        memcpy(block, data, tensor->bytes < bytes ? tensor->bytes : bytes);
    plan->constants = arena_grow(&plan->arena, plan->constants, plan->constant_count, &plan->constant_capacity,
                                 sizeof plan->constants[0]);
    plan->constants[plan->constant_count++] = block;
    return block;
}

static void fill_parameter(Plan *plan, Slot *slot, int parameter)
{
    Param *item = &plan->store->items[parameter];
    slot->parameter = param_use(plan, parameter, -1, -1);
    slot_set_layout(plan, slot, item->home == NULL ? LAYOUT_PLAIN : LAYOUT_OPAQUE, item->home);
}

Slot *plan_primary(Plan *plan, const Value *value)
{
    Home *home = plan_home(plan, value);
    if (home->count > 0)
        return home->slots[0];
    if (value->producer != NULL && value->constant == NULL) {
        plan->status = (int)fail(plan->err, STATUS_UNSUPPORTED, "%s is used before it is computed", value->name);
        return NULL;
    }
    Slot *slot = plan_slot(plan, value, value->type.dtype, value->type.rank, value->type.dims);
    slot->persistent = true;
    home->slots[0] = slot;
    home->count = 1;
    if (value->role == ROLE_PARAMETER && plan->store != NULL) {
        fill_parameter(plan, slot, value->parameter);
        return slot;
    }
    slot_set_layout(plan, slot, LAYOUT_PLAIN, NULL);
    if (value->constant != NULL && plan->store != NULL && value->origin != NULL && is_statistic(value)) {
        int state = params_state(plan->store, value->origin, plan->err);
        slot->parameter = param_use(plan, -1, -1, state);
        if (state < 0)
            plan->status = STATUS_ENVIRONMENT;
    } else if (value->constant != NULL) {
        slot->data = aligned_constant(plan, value->constant, slot->bytes);
    }
    return slot;
}

/* ---- the walk --------------------------------------------------------------------------------------------- */

static void number_value(Plan *plan, Value *value)
{
    value->mark = (int)plan->home_count++;
}

static void await_gradient(Plan *plan, const Value *value)
{
    Home *home = plan_home(plan, value->gradient);
    home->uses++;
    home->exact = true;
    if (value->role != ROLE_PARAMETER || plan->store == NULL)
        return;
    Delivery *delivery = arena_new(&plan->arena, Delivery);
    *delivery = (Delivery){value, home->deliveries};
    home->deliveries = delivery;
}

/* Every value of the graph gets a number and its count of uses. */
static void number_values(Plan *plan)
{
    const Graph *graph = plan->graph;
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            number_value(plan, graph->values.entries[i].value);
    plan->homes = arena_array(&plan->arena, Home, plan->home_count);
    for (size_t i = 0; i < graph->values.count; i++) {
        if (graph->values.entries[i].key == NULL)
            continue;
        const Value *value = graph->values.entries[i].value;
        Home *home = plan_home(plan, value);
        home->value = value;
        home->uses = (int)value->use_count + (value->is_output ? 1 : 0);
        home->exact = value->is_output;
    }
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (graph->initializers[i]->gradient != NULL)
            await_gradient(plan, graph->initializers[i]);
}

/* What is only added up or looked at on its way to an exact value is exact too: the parts of a shared parameter's
 * gradient. */
static void spread_exact(Plan *plan)
{
    for (const Node *node = plan->graph->last; node != NULL; node = node->previous) {
        if (node->op == NULL || (node->op->traits & (OP_ELEMENTWISE | OP_VIEW)) == 0 || node->output_count != 1 ||
            node->outputs[0] == NULL || !plan_home(plan, node->outputs[0])->exact || node->outputs[0]->is_output)
            continue;
        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != NULL)
                plan_home(plan, node->inputs[i])->exact = true;
    }
}

static Status check_known(const Plan *plan, Error *err)
{
    for (const Node *node = plan->graph->first; node != NULL; node = node->next) {
        for (int i = 0; i < node->output_count; i++) {
            const Value *value = node->outputs[i];
            bool known = value == NULL || value->constant != NULL || type_known(&value->type);
            if (!known && node->op == NULL)
                return node_refuse(node, err);
            if (!known)
                return fail(err, STATUS_UNSUPPORTED,
                            "%s: the shape of '%s' depends on data, this graph cannot be planned", node_text(node),
                            value->name);
        }
    }
    return STATUS_OK;
}

static bool all_constant(const Node *node)
{
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL && node->outputs[i]->constant == NULL)
            return false;
    return true;
}

static void consume_inputs(Plan *plan, const Node *node)
{
    for (int i = 0; i < node->input_count; i++) {
        if (node->inputs[i] == NULL)
            continue;
        Home *home = plan_home(plan, node->inputs[i]);
        home->uses--;
        for (int k = 0; k < home->count; k++)
            slot_root(home->slots[k])->pending--;
    }
}

/* ---- what leaves the graph ---------------------------------------------------------------------------------- */

static Status run_copy(Step *step, Error *err)
{
    (void)err;
    memcpy(step->out[0]->data, step->in[0]->data, step->out[0]->bytes);
    return STATUS_OK;
}

static void push_move(Plan *plan, Slot *from, Slot *to, Status (*run)(Step *step, Error *err), const char *kernel)
{
    Step *step = plan_add_step(plan, NULL);
    step->in = arena_array(&plan->arena, Slot *, 1);
    step->out = arena_array(&plan->arena, Slot *, 1);
    step->in_count = step->out_count = 1;
    step->in[0] = from;
    step->out[0] = to;
    step->run = run;
    step->kernel = kernel;
    plan_push_step(plan, step);
}

static bool same_layout(Slot *a, Slot *b)
{
    if (a->dtype != b->dtype)
        return false;
    if (a->layout == LAYOUT_PLAIN && b->layout == LAYOUT_PLAIN)
        return true;
    return slot_md(a) != NULL && slot_md(b) != NULL && dnnl_md_same(a->md, b->md);
}

/* What arrives from one part of a batch: put in the store, or added to what is there. */
static void accumulate_range(int64_t begin, int64_t end, void *context)
{
    const Step *step = context;
    const float weight = step->plan->weight, *from = step->in[0]->data;
    float *to = step->out[0]->data;
    if (step->plan->adding)
        for (int64_t i = begin; i < end; i++)
            to[i] += weight * from[i];
    else
        for (int64_t i = begin; i < end; i++)
            to[i] = weight * from[i];
}

static Status run_accumulate(Step *step, Error *err)
{
    (void)err;
    parallel_for((int64_t)(step->out[0]->bytes / sizeof(float)), 1 << 14, accumulate_range, step);
    return STATUS_OK;
}

/* The gradient's own buffer becomes its place in the store when nothing stands against it; else it is copied,
 * reordered or added. */
static void deliver_gradient(Plan *plan, const Value *parameter)
{
    Slot *slot = plan_primary(plan, parameter->gradient);
    if (slot == NULL)
        return;
    plan->delivered++;
    Slot *target = plan_slot(plan, NULL, DTYPE_F32, parameter->type.rank, parameter->type.dims);
    Param *item = &plan->store->items[parameter->parameter];
    slot_set_layout(plan, target, item->home == NULL ? LAYOUT_PLAIN : LAYOUT_OPAQUE, item->home);
    target->persistent = true;
    target->parameter = param_use(plan, -1, parameter->parameter, -1);
    bool adds = plan->options.accumulates, same = same_layout(slot, target);
    if (!same)
        slot = plan_reorder(plan, slot, target->layout, target->layout == LAYOUT_PLAIN ? NULL : target->md, DTYPE_F32,
                            NULL);
    if (!adds && (!same || (slot->base == NULL && !slot->persistent))) {
        slot->persistent = true;
        slot->parameter = target->parameter;
    } else {
        push_move(plan, slot, target, adds ? run_accumulate : run_copy, adds ? "own:accumulate" : "own:copy");
    }
}

/* As soon as the node that makes them is planned: they need not live longer. */
static void deliver_gradients(Plan *plan, const Value *value)
{
    Home *home = plan_home(plan, value);
    for (; home->deliveries != NULL && plan->status == STATUS_OK; home->deliveries = home->deliveries->next)
        deliver_gradient(plan, home->deliveries->parameter);
}

static void deliver_outputs(Plan *plan)
{
    const Graph *graph = plan->graph;
    for (size_t i = 0; i < graph->output_count && plan->status == STATUS_OK; i++) {
        const Value *value = graph->outputs[i];
        Slot *slot = plan_primary(plan, value);
        if (slot != NULL && (slot->layout != LAYOUT_PLAIN || slot->dtype != value->type.dtype))
            slot = plan_reorder(plan, slot, LAYOUT_PLAIN, NULL, value->type.dtype, NULL);
        plan->outputs[i] = slot;
    }
    for (size_t i = 0; i < graph->initializer_count && plan->status == STATUS_OK; i++) {
        const Value *value = graph->initializers[i];
        if (value->gradient != NULL) /* one that no node makes */
            deliver_gradients(plan, value->gradient);
    }
}

/* Kernels are written for float32 unless the row says OP_ANY_DTYPE; a node of other floats, or of integers where floats
 * are meant, runs `eval`. */
static bool suits_kernel(const Node *node)
{
    const Value *first = node_input(node, 0), *y = node_output(node, 0);
    if ((node->op->traits & OP_ANY_DTYPE) != 0 || node->op->eval == NULL)
        return true;
    for (int i = 0; i < node->input_count; i++) {
        DType dtype = node->inputs[i] == NULL ? DTYPE_F32 : node->inputs[i]->type.dtype;
        if (dtype_is_float(dtype) && dtype != DTYPE_F32)
            return false;
    }
    return first == NULL || y == NULL || first->type.dtype == DTYPE_F32 || y->type.dtype != DTYPE_F32;
}

static Status prepare_node(Plan *plan, const Node *node, Error *err)
{
    if (node->op == NULL)
        return node_refuse(node, err);
    PlanContext context = {.plan = plan,
                           .node = node,
                           .step = plan_add_step(plan, node),
                           .training = plan->options.training,
                           .plain_only = plan->options.plain_only,
                           .dnnl = &plan->dnnl,
                           .family = plan->family,
                           .block = plan->dnnl.block,
                           .compute = plan->compute,
                           .winograd = plan->options.winograd && !plan->options.plain_only};
    bool kernel = node->op->prepare != NULL && suits_kernel(node);
    Status status = kernel ? node->op->prepare(&context, err) : plan_prepare_eval(&context, err);
    if (status == STATUS_OK)
        status = (Status)plan->status;
    if (status != STATUS_OK) {
        fail(err, status, "%s: cannot be planned", node_text(node));
        return status;
    }
    if (context.step->run != NULL) /* views need no step */
        plan_push_step(plan, context.step);
    consume_inputs(plan, node);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            deliver_gradients(plan, node->outputs[i]);
    return STATUS_OK;
}

static Status plan_walk(Plan *plan, Error *err)
{
    graph_number((Graph *)(uintptr_t)plan->graph);
    graph_mark_forward((Graph *)(uintptr_t)plan->graph);
    number_values(plan);
    spread_exact(plan);
    TRY(check_known(plan, err));
    for (size_t i = 0; i < plan->graph->input_count; i++)
        if (plan->graph->inputs[i]->use_count > 0 || plan->graph->inputs[i]->is_output)
            plan->inputs[i] = plan_primary(plan, plan->graph->inputs[i]);
    for (const Node *node = plan->graph->first; node != NULL; node = node->next)
        if (!all_constant(node))
            TRY(prepare_node(plan, node, err));
    deliver_outputs(plan);
    return (Status)plan->status;
}

Status plan_build(const Model *working, ParamStore *store, const PlanOptions *options, Plan **out, Error *err)
{
    static const PlanOptions none;
    Plan *plan = calloc(1, sizeof *plan);
    *out = NULL;
    if (plan == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a plan");
    plan->working = working;
    plan->graph = working->graph;
    plan->store = store;
    plan->options = options == NULL ? none : *options;
    plan->space = plan->options.workspace != NULL ? plan->options.workspace : &plan->own;
    plan->weight = 1;
    arena_init(&plan->arena);
    Error own = {0};
    plan->err = err == NULL ? &own : err;
    plan->inputs = arena_array(&plan->arena, Slot *, plan->graph->input_count);
    plan->outputs = arena_array(&plan->arena, Slot *, plan->graph->output_count);
    bool narrow = plan->options.precision == PRECISION_BF16 && !plan->options.plain_only;
    plan->compute = narrow ? DTYPE_BF16 : DTYPE_F32;
    Status status = precision_check(plan->options.precision, plan->err);
    if (status == STATUS_OK)
        status = dnnl_engine_open(&plan->dnnl, plan->compute, plan->err);
    if (plan->options.channels_last)
        plan->dnnl.block = 0;
    plan->family = plan->options.plain_only ? LAYOUT_PLAIN : plan->dnnl.block > 0 ? LAYOUT_BLOCKED : LAYOUT_NHWC;
    if (status == STATUS_OK)
        status = plan_walk(plan, plan->err);
    if (status == STATUS_OK && store != NULL)
        status = params_seal(store, plan->err);
    if (status == STATUS_OK)
        status = plan_place(plan, plan->err);
    plan->err = NULL;
    if (status != STATUS_OK) {
        plan_free(plan);
        return status;
    }
    *out = plan;
    return STATUS_OK;
}

void plan_free(Plan *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; i < plan->call_count; i++)
        dnnl_call_free(plan->calls[i].call);
    for (size_t i = 0; i < plan->slot_count; i++)
        if (plan->slots[i]->md != NULL)
            dnnl_memory_desc_destroy(plan->slots[i]->md);
    for (size_t i = 0; i < plan->constant_count; i++)
        block_free(plan->constants[i]);
    workspace_release(&plan->own);
    dnnl_engine_close(&plan->dnnl);
    arena_release(&plan->arena);
    free(plan);
}
