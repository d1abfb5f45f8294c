/* passes/recompute*.c and runtime/budget.c: a plan within a limit trains exactly as one without. Losses, parameters,
 * gradients and running statistics are compared bit by bit on real exports, with Dropout put in. */
#include "tests/graph_test.h"

#include "data/data.h"
#include "runtime/plan.h"
#include "tests/test.h"

/* ---- a net, trained ------------------------------------------------------------------------------------------ */

enum { STEPS = 5, BATCH = 8 };

typedef struct Net {
    const char *name;
    LossKind loss;
    bool dropout;
} Net;

typedef struct Training {
    const Net *net;
    Model *document, *working;
    ParamList params;
    ParamStore *store;
    Plan *plan;
    PlanBudget budget;
    PlanOptions options;
    Npz data;
    LossSpec loss;
    Binding bindings[4];
    size_t binding_count;
    float losses[STEPS];
    Error err;
} Training;

/* Behind every activation. */
static void put_dropout_in(Model *document)
{
    Graph *graph = document->graph;
    Tensor *ratio = tensor_new_scalar(&document->arena, "drop_ratio", DTYPE_F32, 0.25);
    Tensor *live = tensor_new_scalar(&document->arena, "drop_live", DTYPE_BOOL, 1);
    Value *ratio_value = graph_add_initializer(graph, ratio), *live_value = graph_add_initializer(graph, live);
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        if (!node_is(node, "Relu") && !node_is(node, "Gelu"))
            continue;
        Value *inputs[] = {node->outputs[0], ratio_value, live_value};
        Node *drop =
            graph_add_node(graph, next, "", "Dropout", 13, "drop", (Value *[]){NULL, ratio_value, live_value}, 3, 1);
        value_replace_uses(node->outputs[0], drop->outputs[0]);
        node_set_input(drop, 0, inputs[0]);
    }
}

static Status make(void *context, Model **working, Error *err)
{
    Training *t = context;
    WorkingOptions options = {.bindings = t->bindings,
                              .binding_count = t->binding_count,
                              .training = true,
                              .params = &t->params,
                              .losses = &t->loss,
                              .loss_count = 1,
                              .gradients = true};
    return working_build(t->document, &options, working, err);
}

static void open_net(Training *t, const Net *net)
{
    char path[512];
    *t = (Training){.net = net};
    t->options.training = true;
    t->loss = (LossSpec){.kind = net->loss, .weight = 1, .ignore_index = -1, .delta = 1, .target_name = "y"};
    snprintf(path, sizeof path, TESTS_FOLDER "/parity_cases/%s/model.onnx", net->name);
    assert_ok(model_import(path, &builtin_ops, &t->document, &t->err), &t->err);
    snprintf(path, sizeof path, TESTS_FOLDER "/parity_cases/%s/train.npz", net->name);
    assert_ok(npz_open(&t->data, path, &t->err), &t->err);
    if (net->dropout)
        put_dropout_in(t->document);
    assert_ok(params_find(t->document, false, &t->params, &t->err), &t->err);
    assert_ok(params_new(&t->params, &t->store, &t->err), &t->err);
    for (size_t i = 0; i < t->document->graph->input_count; i++) {
        const Array *array = npz_find(&t->data, t->document->graph->inputs[i]->name);
        Binding *binding = &t->bindings[t->binding_count++];
        *binding = (Binding){.input = t->document->graph->inputs[i]->name, .rank = array->rank};
        memcpy(binding->dims, array->dims, sizeof binding->dims);
        binding->dims[0] = BATCH;
    }
}

static Status build(Training *t, size_t limit)
{
    PlanMaker maker = {.make = make, .context = t};
    return plan_build_within(&maker, t->store, &t->options, limit, &t->working, &t->plan, &t->budget, &t->err);
}

static void feed(Training *t, int64_t step)
{
    for (size_t i = 0; i < t->working->graph->input_count; i++) {
        const Array *all = npz_find(&t->data, t->working->graph->inputs[i]->name);
        size_t row = (size_t)(all->count / all->dims[0]) * dtype_size(all->dtype);
        memcpy(plan_input(t->plan, i),
               (const char *)all->data + (size_t)(step * BATCH % (all->dims[0] - BATCH + 1)) * row, BATCH * row);
    }
}

static void train(Training *t)
{
    OptimizerSpec sgd = optimizer_default(OPTIMIZER_SGD);
    sgd.lr = 0.05;
    double norm;
    for (int64_t step = 0; step < STEPS; step++) {
        feed(t, step);
        assert_ok(plan_run(t->plan, 7, (uint64_t)step + 1, false, &t->err), &t->err);
        t->losses[step] = *(const float *)plan_output(t->plan, t->working->graph->output_count - 1);
        assert_ok(optimizer_step(&sgd, t->store, (uint64_t)step + 1, sgd.lr, &norm, &t->err), &t->err);
    }
}

static void close_net(Training *t)
{
    plan_free(t->plan);
    params_free(t->store);
    model_free(t->working);
    npz_release(&t->data);
    model_free(t->document);
}

/* What a step takes when everything is kept, and when as little as possible is. */
static void find_range(const Net *net, const PlanOptions *options, size_t *most, size_t *least)
{
    Training t;
    open_net(&t, net);
    t.options = *options;
    assert_ok(build(&t, 0), &t.err);
    *most = t.budget.needed;
    close_net(&t);
    open_net(&t, net);
    t.options = *options;
    assert_int_equal(build(&t, 1), STATUS_ENVIRONMENT);
    assert_non_null(strstr(t.err.message, "at least"));
    assert_null(t.plan);
    *least = t.budget.needed;
    close_net(&t);
}

static void assert_same(const Training *a, const Training *b)
{
    assert_memory_equal(a->losses, b->losses, sizeof a->losses);
    assert_int_equal(a->store->total, b->store->total);
    assert_memory_equal(a->store->data, b->store->data, a->store->total * sizeof(float));
    assert_memory_equal(a->store->gradient, b->store->gradient, a->store->total * sizeof(float));
    for (size_t i = 0; i < a->store->state_count; i++)
        assert_memory_equal(a->store->state_data[i], b->store->state_data[i],
                            (size_t)tensor_count(a->store->state_origins[i]) * sizeof(float));
}

/* At `points` limits from the smallest upwards. */
static void compare(const Net *net, const PlanOptions *options, int points)
{
    size_t most, least;
    find_range(net, options, &most, &least);
    assert_true(least <= most);
    Training whole;
    open_net(&whole, net);
    whole.options = *options;
    assert_ok(build(&whole, 0), &whole.err);
    assert_int_equal(whole.budget.copies, 0);
    train(&whole);
    for (int i = 0; i < points; i++) {
        size_t limit = least + (most - least) / 4 * (size_t)i;
        Training t;
        open_net(&t, net);
        t.options = *options;
        assert_ok(build(&t, limit), &t.err);
        PlanBill bill = plan_bill(t.plan);
        assert_true(bill_total(&bill) <= limit);
        assert_int_equal(bill_total(&bill), t.budget.needed);
        assert_true(t.budget.copies > 0 || least == most);
        train(&t);
        assert_same(&whole, &t);
        close_net(&t);
    }
    close_net(&whole);
}

static const Net nets[] = {{"resnet-live-bn", LOSS_SOFTMAX_CE, true},
                           {"unet", LOSS_SOFTMAX_CE, true},
                           {"bert", LOSS_SOFTMAX_CE, true},
                           {"lenet", LOSS_SOFTMAX_CE, true},
                           {"lstm-bi", LOSS_SOFTMAX_CE, false}};

static void training_within_a_limit_gives_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++)
        compare(&nets[i], &(PlanOptions){.training = true}, 3);
}

static void so_do_plain_kernels(void **state)
{
    (void)state;
    compare(&nets[0], &(PlanOptions){.training = true, .plain_only = true}, 1);
    compare(&nets[2], &(PlanOptions){.training = true, .plain_only = true}, 1);
}

/* ---- what is chosen ---------------------------------------------------------------------------------------------- */

static size_t count_again(const Graph *graph, const char *op_type)
{
    size_t count = 0;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        count += node->again && (op_type == NULL || strcmp(node->op_type, op_type) == 0);
    return count;
}

static void nothing_is_made_again_when_all_fits(void **state)
{
    (void)state;
    Training t;
    open_net(&t, &nets[2]);
    assert_ok(build(&t, (size_t)1 << 40), &t.err);
    assert_int_equal(count_again(t.working->graph, NULL), 0);
    close_net(&t);
}

/* Thirty layers of products and `op`, with the gradient of w. */
static Model *chain(const char *op, int width, Error *err)
{
    Str text;
    str_init(&text);
    str_printf(&text, NEWEST "g (float[1024,%d] x, float[%d,%d] w) => (y) {\n h0 = MatMul(x, w)\n", width, width,
               width);
    for (int i = 1; i <= 30; i++)
        str_printf(&text, " t%d = %s(h%d)\n h%d = MatMul(t%d, w)\n", i, op, i - 1, i, i);
    str_append(&text, " y = ReduceMean<keepdims = 0>(h30)\n}\n");
    Model *model = parse_inferred(text.text);
    Value *w = graph_find(model->graph, "w");
    assert_ok(pass_autodiff(model->graph, graph_find(model->graph, "y"), &w, 1, err), err);
    str_release(&text);
    return model;
}

/* Gelu's gradient reads its input, the product's its output: one of them is enough. */
static void cheap_results_go_before_products(void **state)
{
    (void)state;
    Error err = {0};
    RecomputeReport report;
    Model *model = chain("Gelu", 256, &err);
    RecomputeOptions options = {.target = SIZE_MAX};
    assert_ok(pass_recompute(model->graph, &options, &report, &err), &err);
    assert_int_equal(report.copies, 0);
    options.target = report.before / 10 * 7;
    assert_ok(pass_recompute(model->graph, &options, &report, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    assert_true(report.fits && report.after <= options.target && report.copies < 30);
    assert_int_equal(count_again(model->graph, "Gelu"), report.copies);
    model_free(model);
}

static void a_deep_chain_is_cut_into_segments(void **state)
{
    (void)state;
    Error err = {0};
    RecomputeReport report;
    Model *model = chain("Tanh", 64, &err);
    RecomputeOptions options = {.target = 0};
    assert_ok(pass_recompute(model->graph, &options, &report, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    assert_false(report.fits);
    assert_true(report.after * 2 < report.before);
    assert_true(report.extra_cost <= report.forward_cost * 1.01);
    model_free(model);
}

/* ---- the bill ---------------------------------------------------------------------------------------------------- */

static void the_bill_is_what_is_allocated(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        Training t;
        open_net(&t, &nets[i]);
        assert_ok(build(&t, 0), &t.err);
        PlanBill bill = plan_bill(t.plan);
        size_t params = t.store->total * sizeof(float);
        assert_int_equal(bill.parameters, params);
        assert_int_equal(bill.activations + (bill.gradients - params) + bill.workspace,
                         t.plan->block_bytes + t.plan->scratch_bytes);
        assert_true(bill.activations > 0 && bill.gradients > params);
        size_t inputs = 0;
        for (size_t k = 0; k < t.working->graph->input_count; k++)
            inputs += t.plan->inputs[k] == NULL ? 0 : t.plan->inputs[k]->bytes;
        assert_true(bill.inputs >= inputs);
        close_net(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(training_within_a_limit_gives_the_same_bits),
                                       cmocka_unit_test(so_do_plain_kernels),
                                       cmocka_unit_test(cheap_results_go_before_products),
                                       cmocka_unit_test(nothing_is_made_again_when_all_fits),
                                       cmocka_unit_test(a_deep_chain_is_cut_into_segments),
                                       cmocka_unit_test(the_bill_is_what_is_allocated)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
