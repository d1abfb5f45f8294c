/* runtime/plan.c, kernel.c, memory.c, exec.c with a table of toy operators: order, views, work in place, layouts,
 * delivery of gradients, binding of inputs. Real kernels are compared with their eval in suite_gradients.c. */
#include "tests/test.h"

#include <string.h>

#include "runtime/plan.h"

/* ---- toy rows ------------------------------------------------------------------------------------------------ */

static Status double_run(Step *step, Error *err)
{
    (void)err;
    const float *x = step->in[0]->data;
    float *y = step->out[0]->data;
    for (size_t i = 0; i < step->out[0]->bytes / sizeof *y; i++)
        y[i] = 2 * x[i];
    return STATUS_OK;
}

static Status double_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_output_in_place(context, 0, 0, kernel_follow(context));
    kernel_run(context, double_run, "toy");
    return STATUS_OK;
}

static Status sum_eval(EvalContext *context, Error *err)
{
    Array *out;
    TRY(eval_output_like(context, 0, context->in[0], &out, err));
    for (int64_t i = 0; i < out->count; i++)
        ((float *)out->data)[i] = ((const float *)context->in[0]->data)[i] + ((const float *)context->in[1]->data)[i];
    return STATUS_OK;
}

static Status view_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_output_view(context, 0, 0);
    return STATUS_OK;
}

static Status flatten_infer(Node *node, Error *err)
{
    (void)err;
    int64_t count = type_count(&node->inputs[0]->type);
    type_set(&node->outputs[0]->type, DTYPE_F32, 1, &count);
    return STATUS_OK;
}

/* Stands for a convolution: gives its output in the plan's channel family. */
static Status blocked_prepare(PlanContext *context, Error *err)
{
    (void)err;
    Slot *in = kernel_input(context, 0, context->family), *out = kernel_output(context, 0, context->family);
    (void)in;
    (void)out;
    kernel_run(context, double_run, "toy");
    return STATUS_OK;
}

#define TOY(n, ins, inf, ...)                                                                                          \
    {                                                                                                                  \
        .name = n, .since = 1, .last = 28, .min_inputs = ins, .max_inputs = ins, .min_outputs = 1, .max_outputs = 1,   \
        .infer = inf, __VA_ARGS__                                                                                      \
    }
static const OpDef toys[] = {
    TOY("Double", 1, infer_same, .prepare = double_prepare, .traits = OP_ELEMENTWISE | OP_IN_PLACE),
    TOY("Plus", 2, infer_same, .eval = sum_eval),
    TOY("Flat", 1, flatten_infer, .prepare = view_prepare),
    TOY("Blocked", 1, infer_same, .prepare = blocked_prepare),
    TOY("Mute", 1, infer_same, .traits = 0),
    {0},
};
static const OpDef *const families[] = {toys};
static const OpSet toy_ops = {families, 1};

typedef struct World {
    Model *model;
    Graph *graph;
    Value *x;
    Error err;
} World;

static World world_new(int rank, const int64_t *dims)
{
    World w = {0};
    w.model = model_new(&toy_ops);
    w.graph = w.model->graph != NULL ? w.model->graph : graph_new(w.model, "g", NULL);
    w.model->graph = w.graph;
    w.x = graph_add_value(w.graph, "x");
    type_set(&w.x->type, DTYPE_F32, rank, dims);
    graph_add_input(w.graph, w.x);
    return w;
}

static Value *add(World *w, const char *op, Value *a, Value *b)
{
    Value *in[] = {a, b};
    Node *node = graph_add_node(w->graph, NULL, "", op, OPSET_NEWEST, op, in, b == NULL ? 1 : 2, 1);
    assert_ok(node_infer(node, &w->err), &w->err);
    return node->outputs[0];
}

static Plan *plan_of(World *w, ParamStore *store)
{
    Plan *plan = NULL;
    assert_ok(plan_build(w->model, store, NULL, &plan, &w->err), &w->err);
    return plan;
}

static void run_with(World *w, Plan *plan, const float *x, size_t n)
{
    memcpy(plan_input(plan, 0), x, n * sizeof *x);
    assert_ok(plan_run(plan, 0, 0, false, &w->err), &w->err);
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void work_in_place_spares_values_that_are_read_again(void **state)
{
    (void)state;
    World w = world_new(1, (const int64_t[]){3});
    Value *a = add(&w, "Double", w.x, NULL);          /* 2x, read twice */
    Value *b = add(&w, "Double", a, NULL);            /* 4x must not overwrite a */
    Value *c = add(&w, "Double", b, NULL);            /* 8x may overwrite b */
    graph_add_output(w.graph, add(&w, "Plus", a, c)); /* 10x */
    Plan *plan = plan_of(&w, NULL);
    run_with(&w, plan, (const float[]){1, 2, 3}, 3);
    assert_memory_equal(plan_output(plan, 0), ((const float[]){10, 20, 30}), 3 * sizeof(float));
    assert_memory_equal(plan_input(plan, 0), ((const float[]){1, 2, 3}), 3 * sizeof(float));
    plan_free(plan);
    model_free(w.model);
}

static void views_share_bytes_and_keep_them_alive(void **state)
{
    (void)state;
    World w = world_new(2, (const int64_t[]){2, 2});
    Value *a = add(&w, "Double", w.x, NULL);
    Value *flat = add(&w, "Flat", a, NULL);
    Value *b = add(&w, "Double", flat, NULL); /* a is still read below: no work in place through the view */
    Value *later = add(&w, "Flat", a, NULL);
    graph_add_output(w.graph, add(&w, "Plus", b, later)); /* 4x + 2x */
    Plan *plan = plan_of(&w, NULL);
    run_with(&w, plan, (const float[]){1, 2, 3, 4}, 4);
    assert_memory_equal(plan_output(plan, 0), ((const float[]){6, 12, 18, 24}), 4 * sizeof(float));
    plan_free(plan);
    model_free(w.model);
}

static void channel_layouts_spread_and_end_plain(void **state)
{
    (void)state;
    const int64_t dims[] = {2, 3, 2, 2}; /* 3 channels: padding */
    World w = world_new(4, dims);
    Value *y = add(&w, "Double", add(&w, "Blocked", w.x, NULL), NULL);
    graph_add_output(w.graph, y);
    graph_add_output(w.graph, add(&w, "Flat", y, NULL));
    Plan *plan = plan_of(&w, NULL);
    float x[24], expect[24];
    for (int i = 0; i < 24; i++) {
        x[i] = (float)i;
        expect[i] = 4 * (float)i;
    }
    run_with(&w, plan, x, 24);
    assert_memory_equal(plan_output(plan, 0), expect, sizeof expect);
    assert_memory_equal(plan_output(plan, 1), expect, sizeof expect);
    Str text;
    str_init(&text);
    plan_describe(plan, &text);
    assert_non_null(strstr(text.text, plan->family == LAYOUT_BLOCKED ? "blocked" : "nhwc"));
    str_release(&text);
    plan_free(plan);
    model_free(w.model);
}

static void gradients_land_in_the_store_and_accumulate(void **state)
{
    (void)state;
    World w = world_new(1, (const int64_t[]){2});
    void *data;
    Tensor *origin = tensor_new(&w.model->arena, "p", DTYPE_F32, 1, (const int64_t[]){2}, &data);
    memcpy(data, (const float[]){5, 7}, 2 * sizeof(float));
    Value *p = graph_add_initializer(w.graph, origin);
    type_set(&p->type, DTYPE_F32, 1, (const int64_t[]){2});
    p->role = ROLE_PARAMETER;
    p->parameter = 0;
    p->origin = origin;
    Value *y = add(&w, "Plus", w.x, p);
    graph_add_output(w.graph, y);
    p->gradient = add(&w, "Double", y, NULL); /* any function will do */
    ParamInfo info = {.name = "p", .origin = origin, .trainable = true, .tied_to = -1};
    ParamStore *store = NULL;
    assert_ok(params_new(&(ParamList){.items = &info, .count = 1}, &store, &w.err), &w.err);
    Plan *plan = plan_of(&w, store);
    run_with(&w, plan, (const float[]){1, 2}, 2);
    assert_memory_equal(plan_output(plan, 0), ((const float[]){6, 9}), 2 * sizeof(float));
    assert_memory_equal(store->gradient, ((const float[]){12, 18}), 2 * sizeof(float));
    plan_free(plan);
    PlanOptions options = {.training = true, .accumulates = true};
    assert_ok(plan_build(w.model, store, &options, &plan, &w.err), &w.err);
    run_with(&w, plan, (const float[]){1, 2}, 2);
    assert_memory_equal(store->gradient, ((const float[]){12, 18}), 2 * sizeof(float));
    plan_set_weight(plan, 0.5F);
    assert_ok(plan_run(plan, 0, 0, true, &w.err), &w.err);
    assert_memory_equal(store->gradient, ((const float[]){18, 27}), 2 * sizeof(float));
    plan_free(plan);
    params_free(store);
    model_free(w.model);
}

static void plans_of_one_workspace_run_in_turn(void **state)
{
    (void)state;
    Workspace space = {0};
    PlanOptions options = {.workspace = &space};
    Plan *plans[2];
    World worlds[2];
    for (int i = 0; i < 2; i++) { /* the second is larger: the first one's bytes move */
        World *w = &worlds[i];
        *w = world_new(1, (const int64_t[]){i == 0 ? 2 : 5000});
        Value *a = add(w, "Double", w->x, NULL);
        graph_add_output(w->graph, add(w, "Plus", a, add(w, "Double", a, NULL)));
        assert_ok(plan_build(w->model, NULL, &options, &plans[i], &w->err), &w->err);
    }
    for (int i = 1; i >= 0; i--) {
        run_with(&worlds[i], plans[i], (const float[]){1, 2}, 2);
        assert_memory_equal(plan_output(plans[i], 0), ((const float[]){6, 12}), 2 * sizeof(float));
        assert_true((const char *)plan_output(plans[i], 0) >= (const char *)space.block &&
                    (const char *)plan_output(plans[i], 0) < (const char *)space.block + space.bytes);
    }
    for (int i = 0; i < 2; i++) {
        plan_free(plans[i]);
        model_free(worlds[i].model);
    }
    workspace_release(&space);
}

static void an_operator_without_kernel_and_eval_is_refused_by_name(void **state)
{
    (void)state;
    World w = world_new(1, (const int64_t[]){2});
    graph_add_output(w.graph, add(&w, "Mute", w.x, NULL));
    Plan *plan = NULL;
    assert_int_equal(plan_build(w.model, NULL, NULL, &plan, &w.err), STATUS_UNSUPPORTED);
    assert_null(plan);
    assert_non_null(strstr(w.err.message, "Mute"));
    model_free(w.model);
}

static void callers_may_bind_their_own_input_bytes(void **state)
{
    (void)state;
    World w = world_new(1, (const int64_t[]){2});
    graph_add_output(w.graph, add(&w, "Double", w.x, NULL));
    Plan *plan = plan_of(&w, NULL);
    float mine[] = {4, 5};
    plan_bind_input(plan, 0, mine);
    assert_ok(plan_run(plan, 0, 0, false, &w.err), &w.err);
    assert_memory_equal(plan_output(plan, 0), ((const float[]){8, 10}), sizeof mine);
    plan_free(plan);
    model_free(w.model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_in_place_spares_values_that_are_read_again),
        cmocka_unit_test(views_share_bytes_and_keep_them_alive),
        cmocka_unit_test(channel_layouts_spread_and_end_plain),
        cmocka_unit_test(gradients_land_in_the_store_and_accumulate),
        cmocka_unit_test(plans_of_one_workspace_run_in_turn),
        cmocka_unit_test(an_operator_without_kernel_and_eval_is_refused_by_name),
        cmocka_unit_test(callers_may_bind_their_own_input_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
