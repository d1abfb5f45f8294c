/* The loop over prepared steps, and what a caller sees of a plan. No decisions, no allocation (but for rows that only
 * have an eval). */
#include "runtime/plan.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include <time.h>

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- rows without prepare: eval on the slots ---------------------------------------------------------------- */

typedef struct EvalStep {
    EvalContext context;
    Array *in, *out;
    const Array **in_list;
    Array **place;
    Arena arena;
} EvalStep;

static void array_of_slot(Array *array, const Slot *slot)
{
    array->kind = ARRAY_TENSOR;
    array->dtype = slot->dtype;
    array->rank = slot->rank;
    memcpy(array->dims, slot->dims, sizeof array->dims);
    array->count = slot_count(slot);
    array->data = slot->data;
}

static Status run_eval(Step *step, Error *err)
{
    EvalStep *eval = step->state;
    for (int i = 0; i < step->in_count; i++)
        if (step->in[i] != NULL)
            array_of_slot(&eval->in[i], step->in[i]);
    for (int i = 0; i < step->out_count; i++)
        if (step->out[i] != NULL)
            array_of_slot(&eval->out[i], step->out[i]);
    arena_init(&eval->arena);
    eval->context.arena = &eval->arena;
    eval->context.seed = step->plan->seed;
    eval->context.step = step->plan->step;
    Array *results[16] = {0};
    eval->context.out = step->out_count <= 16 ? results : arena_array(&eval->arena, Array *, (size_t)step->out_count);
    Status status = node_eval(&eval->context, err);
    for (int i = 0; status == STATUS_OK && i < step->out_count; i++) {
        const Array *made = eval->context.out[i];
        if (step->out[i] != NULL && made != NULL && made->data != step->out[i]->data)
            memcpy(step->out[i]->data, made->data, step->out[i]->bytes);
    }
    arena_release(&eval->arena);
    return status;
}

Status plan_prepare_eval(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    if (node->op->eval == NULL || (node->op->traits & OP_BODY) != 0)
        return kernel_fail(context, err, "has no planned form; only the interpreter runs it");
    for (int i = 0; i < node->output_count; i++) /* their letters would end with the step */
        if (node->outputs[i] != NULL && node->outputs[i]->type.dtype == DTYPE_STRING)
            return kernel_fail(context, err, "makes strings; only the interpreter runs it");
    EvalStep *state = kernel_state(context, sizeof *state);
    Arena *arena = &context->plan->arena;
    state->in = arena_array(arena, Array, (size_t)node->input_count);
    state->out = arena_array(arena, Array, (size_t)node->output_count);
    state->in_list = arena_array(arena, const Array *, (size_t)node->input_count);
    state->place = arena_array(arena, Array *, (size_t)node->output_count);
    for (int i = 0; i < node->input_count; i++)
        if (kernel_input(context, i, LAYOUT_PLAIN) != NULL)
            state->in_list[i] = &state->in[i];
    for (int i = 0; i < node->output_count; i++)
        if (kernel_output(context, i, LAYOUT_PLAIN) != NULL)
            state->place[i] = &state->out[i];
    state->context = (EvalContext){.node = node,
                                   .in = state->in_list,
                                   .in_count = node->input_count,
                                   .out_count = node->output_count,
                                   .place = state->place,
                                   .training = context->training};
    kernel_run(context, run_eval, "eval");
    return STATUS_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------ */

static Status run_steps(Plan *plan, Error *err)
{
    for (size_t s = 0; s < plan->step_count; s++) {
        Step *step = plan->steps[s];
        double begin = plan->options.profile ? seconds_now() : 0;
        TRY(step->run(step, err));
        if (plan->hook != NULL)
            plan->hook->after(plan->hook->context, s);
        if (plan->options.profile) {
            step->begin = begin;
            step->took = seconds_now() - begin;
            step->seconds += step->took;
        }
    }
    plan->runs++;
    return STATUS_OK;
}

Status plan_run(Plan *plan, uint64_t seed, uint64_t step, bool accumulate, Error *err)
{
    assert(!accumulate || plan->options.accumulates);
    plan->seed = seed;
    plan->step = step;
    plan->adding = accumulate;
    if (plan->moved != plan->space->moved) /* another plan has made the workspace larger */
        plan_bind(plan);
    parallel_flush_denormals();
    const ParamStore *store = plan->store;
    if (!accumulate && store != NULL && plan->delivered > 0 && plan->delivered < store->count)
        memset(store->gradient, 0, store->total * sizeof(float));
    return run_steps(plan, err);
}

void plan_set_weight(Plan *plan, float weight)
{
    plan->weight = weight;
}

/* ---- a plan from outside ------------------------------------------------------------------------------------ */

PlanBill plan_bill(const Plan *plan)
{
    PlanBill bill = plan->bill;
    if (plan->store == NULL)
        return bill;
    size_t block = plan->store->total * sizeof(float);
    bill.parameters += block;
    bill.gradients += plan->options.training ? block : 0;
    for (int i = 0; i < 3; i++)
        bill.optimizer += plan->store->state[i] != NULL ? block : 0;
    return bill;
}

size_t bill_total(const PlanBill *bill)
{
    return bill->parameters + bill->optimizer + bill->activations + bill->gradients + bill->workspace +
           bill->constants + bill->inputs;
}

size_t plan_value_bytes(const Plan *plan, const char *name)
{
    const Value *value = graph_find(plan->graph, name);
    size_t bytes = 0;
    if (value == NULL || value->mark < 0 || (size_t)value->mark >= plan->home_count ||
        plan->homes[value->mark].value != value)
        return 0;
    const Home *home = &plan->homes[value->mark];
    for (int i = 0; i < home->count; i++)
        bytes += home->slots[i]->persistent ? 0 : home->slots[i]->bytes;
    return bytes;
}

void *plan_input(Plan *plan, size_t index)
{
    return plan->inputs[index] == NULL ? NULL : plan->inputs[index]->data;
}

void plan_bind_input(Plan *plan, size_t index, void *data)
{
    if (plan->inputs[index] == NULL || plan->inputs[index]->data == data)
        return;
    plan->inputs[index]->data = data;
    plan_bind(plan);
}

const void *plan_output(const Plan *plan, size_t index)
{
    return plan->outputs[index] == NULL ? NULL : plan->outputs[index]->data;
}

/* What a step reads and gives: "bf16", "f32", "f32>bf16", "bf16>f32"; "" where neither is a float. */
static const char *precision_text(const Step *step)
{
    static const char *const texts[3][3] = {
        {"", "f32", "bf16"}, {"f32", "f32", "f32>bf16"}, {"bf16", "bf16>f32", "bf16"}};
    int in = 0, out = 0;
    for (int i = 0; i < step->in_count; i++) {
        DType dtype = step->in[i] == NULL ? DTYPE_UNDEFINED : step->in[i]->dtype;
        int kind = dtype == DTYPE_BF16 ? 2 : dtype == DTYPE_F32;
        in = kind > in ? kind : in;
    }
    if (step->out_count > 0 && step->out[0] != NULL)
        out = step->out[0]->dtype == DTYPE_BF16 ? 2 : step->out[0]->dtype == DTYPE_F32;
    return texts[in][out];
}

void plan_describe(const Plan *plan, Str *out)
{
    static const char *const layouts[] = {"plain", "blocked", "nhwc", "opaque"};
    for (size_t s = 0; s < plan->step_count; s++) {
        const Step *step = plan->steps[s];
        const Slot *slot = step->out_count > 0 ? step->out[0] : NULL;
        str_printf(out, "%5zu  %-24s %-28s %-8s %-8s %10zu bytes", s,
                   step->node == NULL ? "(move)" : step->node->op_type, step->kernel, precision_text(step),
                   slot == NULL ? "" : layouts[slot->layout], slot == NULL ? (size_t)0 : slot->bytes);
        if (plan->options.profile)
            str_printf(out, " %9.3f ms", step->seconds * 1e3);
        str_printf(out, "  %s\n", step->node == NULL ? "" : step->node->name);
    }
}
