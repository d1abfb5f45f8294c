/* runtime/optim.c and schedule.c against numbers recorded from torch.optim (PyTorch 2.13): three updates of w = [1, -2,
 * 0.5] with gradients [0.5, -1, 2] * update number, printed with 8 digits. The script is in the comment above the
 * table. */
#include "tests/graph_test.h"

#include "tests/torch_vectors.h"

/* for name, o in cases: p = torch.nn.Parameter(torch.tensor([1, -2, .5])); opt = o([p])
 *     for t in 1, 2, 3: p.grad = torch.tensor([.5, -1, 2]) * t; opt.step()        ->  p.data */
static const struct {
    const char *name;
    OptimizerSpec spec;
    float after[3];
} cases[] = {
    {"sgd", {.kind = OPTIMIZER_SGD, .lr = 0.1}, {0.69999999f, -1.39999998f, -0.69999999f}},
    {"momentum",
     {.kind = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.9, .weight_decay = 0.01},
     {0.51918477f, -1.03836954f, -1.40364289f}},
    {"nesterov",
     {.kind = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.9, .nesterov = true},
     {0.27204999f, -0.54409999f, -2.41180015f}},
    {"dampening",
     {.kind = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.9, .dampening = 0.5},
     {0.69449997f, -1.38899994f, -0.72200000f}},
    {"adagrad",
     {.kind = OPTIMIZER_ADAGRAD, .lr = 0.1, .epsilon = 1e-10, .weight_decay = 0.01},
     {0.73073959f, -1.73072386f, 0.23042813f}},
    {"rmsprop",
     {.kind = OPTIMIZER_RMSPROP, .lr = 0.01, .alpha = 0.99, .epsilon = 1e-8},
     {0.73011726f, -1.73011732f, 0.23011728f}},
    {"rmsprop momentum",
     {.kind = OPTIMIZER_RMSPROP, .lr = 0.01, .alpha = 0.99, .epsilon = 1e-8, .momentum = 0.9},
     {0.47853824f, -1.47853816f, -0.02146178f}},
    {"adam",
     {.kind = OPTIMIZER_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1},
     {0.97058600f, -1.97058690f, 0.47074181f}},
    {"adamw",
     {.kind = OPTIMIZER_ADAMW, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1},
     {0.96780086f, -1.96480393f, 0.46929935f}},
};

static void each_rule_gives_the_numbers_of_torch(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        Error err = {0};
        Tensor origin = {.name = "w", .dtype = DTYPE_F32, .rank = 1, .dims = (int64_t[]){3}, .bytes = 12};
        origin.data = (const float[]){1, -2, 0.5f};
        ParamInfo info = {.name = "w", .origin = &origin, .trainable = true, .tied_to = -1};
        ParamStore *store = NULL;
        assert_ok(params_new(&(ParamList){.items = &info, .count = 1}, &store, &err), &err);
        for (int t = 1; t <= 3; t++) {
            const float g[] = {0.5f * (float)t, -1.0f * (float)t, 2.0f * (float)t};
            double norm;
            memcpy(store->gradient, g, sizeof g);
            assert_ok(optimizer_step(&cases[c].spec, store, (uint64_t)t, cases[c].spec.lr, &norm, &err), &err);
            assert_true(fabs(norm - t * sqrt(5.25)) < 1e-6);
        }
        for (int i = 0; i < 3; i++)
            if (fabsf(store->data[i] - cases[c].after[i]) > 2e-6f)
                fail_msg("%s: w[%d] is %.8f, torch has %.8f", cases[c].name, i, (double)store->data[i],
                         (double)cases[c].after[i]);
        params_free(store);
    }
}

/* w after three clipped updates with momentum 0.9. */
static void check_clipped(OptimizerSpec spec, const double *wanted)
{
    Error err = {0};
    Tensor origin = {.name = "w", .dtype = DTYPE_F32, .rank = 1, .dims = (int64_t[]){3}, .bytes = 12};
    origin.data = (const float[]){1, -2, 0.5f};
    ParamInfo info = {.name = "w", .origin = &origin, .trainable = true, .tied_to = -1};
    ParamStore *store = NULL;
    assert_ok(params_new(&(ParamList){.items = &info, .count = 1}, &store, &err), &err);
    for (int t = 1; t <= 3; t++) {
        const float g[] = {0.5f * (float)t, -1.0f * (float)t, 2.0f * (float)t};
        double norm;
        memcpy(store->gradient, g, sizeof g);
        assert_ok(optimizer_step(&spec, store, (uint64_t)t, spec.lr, &norm, &err), &err);
    }
    for (int i = 0; i < 3; i++)
        if (fabs((double)store->data[i] - wanted[i]) > 2e-6)
            fail_msg("w[%d] is %.8f, torch has %.8f", i, (double)store->data[i], wanted[i]);
    params_free(store);
}

static void clipping_gives_the_numbers_of_torch(void **state)
{
    (void)state;
    OptimizerSpec spec = {.kind = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.9, .clip_norm = 1};
    check_clipped(spec, torch_clip_norm);
    spec.clip_norm = 0;
    spec.clip_value = 0.75;
    check_clipped(spec, torch_clip_value);
}

static void schedules_give_the_rates_of_torch(void **state)
{
    (void)state;
    const struct {
        ScheduleSpec spec;
        const double *rates;
    } all[] = {{{.kind = SCHEDULE_COSINE, .total = 12}, torch_cosine},
               {{.kind = SCHEDULE_LINEAR, .total = 12}, torch_linear},
               {{.kind = SCHEDULE_STEP, .every = 3, .factor = 0.1}, torch_step}};
    for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
        for (uint64_t step = 1; step <= 12; step++)
            if (fabs(schedule_at(&all[k].spec, step) - all[k].rates[step - 1]) > 1e-7)
                fail_msg("schedule %zu, update %d: %.9f, torch has %.9f", k, (int)step, schedule_at(&all[k].spec, step),
                         all[k].rates[step - 1]);
}

/* Plain, with class weights, with label smoothing, with both. */
static void cross_entropy_gives_the_numbers_of_torch(void **state)
{
    (void)state;
    static const char *const nodes[] = {"y = ai.regraft.SoftmaxCrossEntropyLoss(x, t)",
                                        "y = ai.regraft.SoftmaxCrossEntropyLoss(x, t, w)",
                                        "y = ai.regraft.SoftmaxCrossEntropyLoss<label_smoothing=0.1>(x, t)",
                                        "y = ai.regraft.SoftmaxCrossEntropyLoss<label_smoothing=0.1>(x, t, w)"};
    float x[12];
    int64_t t[4] = {2, 0, 1, 2};
    for (int i = 0; i < 12; i++)
        x[i] = (float)torch_logits[i];
    Array scores = {.dtype = DTYPE_F32, .rank = 2, .dims = {4, 3}, .count = 12, .data = x};
    Array labels = {.dtype = DTYPE_I64, .rank = 1, .dims = {4}, .count = 4, .data = t};
    for (int k = 0; k < 4; k++) {
        Str text;
        Arena arena;
        str_init(&text);
        arena_init(&arena);
        str_printf(&text, NEWEST "g (float[4,3] x, int64[4] t) => (float y) <float[3] w = {0.5, 1.0, 2.5}> { %s }",
                   nodes[k]);
        Model *model = parse_inferred(text.text);
        Array **out = run_graph(model->graph, (const Array *[]){&scores, &labels}, &arena);
        if (fabs(array_f64_at(out[0], 0) - torch_cross_entropy[k]) > 1e-6)
            fail_msg("%s: %.8f, torch has %.8f", nodes[k], array_f64_at(out[0], 0), torch_cross_entropy[k]);
        model_free(model);
        arena_release(&arena);
        str_release(&text);
    }
}

static void a_gradient_that_is_not_finite_stops_and_changes_nothing(void **state)
{
    (void)state;
    Error err = {0};
    Tensor origin = {
        .name = "w", .dtype = DTYPE_F32, .rank = 1, .dims = (int64_t[]){1}, .bytes = 4, .data = (const float[]){3}};
    ParamInfo info = {.name = "w", .origin = &origin, .trainable = true, .tied_to = -1};
    ParamStore *store = NULL;
    assert_ok(params_new(&(ParamList){.items = &info, .count = 1}, &store, &err), &err);
    store->gradient[0] = NAN;
    OptimizerSpec spec = optimizer_default(OPTIMIZER_ADAMW);
    double norm;
    assert_int_equal(optimizer_step(&spec, store, 1, spec.lr, &norm, &err), STATUS_DIVERGED);
    assert_true(store->data[0] == 3.0f);
    params_free(store);
}

static void schedules_warm_up_and_end_at_their_floor(void **state)
{
    (void)state;
    ScheduleSpec cosine = {.kind = SCHEDULE_COSINE, .warmup = 4, .total = 104, .floor = 0.1};
    assert_true(fabs(schedule_at(&cosine, 1) - 0.2) < 1e-12);
    assert_true(fabs(schedule_at(&cosine, 5) - 1.0) < 1e-12);
    assert_true(fabs(schedule_at(&cosine, 55) - 0.55) < 1e-12);
    assert_true(schedule_at(&cosine, 104) < 0.101);
    ScheduleSpec step = {.kind = SCHEDULE_STEP, .every = 10, .factor = 0.1};
    assert_true(fabs(schedule_at(&step, 10) - 1) < 1e-12 && fabs(schedule_at(&step, 11) - 0.1) < 1e-12);
}

static void a_frozen_neighbour_does_not_hide_a_trainable_parameter(void **state)
{
    (void)state;
    Error err = {0};
    Tensor a = {
        .name = "a", .dtype = DTYPE_F32, .rank = 1, .dims = (int64_t[]){1}, .bytes = 4, .data = (const float[]){1}};
    Tensor b = a;
    ParamInfo infos[] = {{.name = "a", .origin = &a, .tied_to = -1},
                         {.name = "b", .origin = &b, .trainable = true, .tied_to = -1}};
    ParamStore *store = NULL;
    assert_ok(params_new(&(ParamList){.items = infos, .count = 2}, &store, &err), &err);
    store->gradient[store->items[1].offset] = 1;
    OptimizerSpec spec = {.kind = OPTIMIZER_SGD, .lr = 0.5};
    double norm;
    assert_ok(optimizer_step(&spec, store, 1, spec.lr, &norm, &err), &err);
    assert_true(store->data[store->items[1].offset] == 0.5f);
    params_free(store);
}

/* A tied parameter has no numbers of its own: the run of joint updates must not end there. */
static void parameters_listed_after_a_tied_one_are_updated(void **state)
{
    (void)state;
    Error err = {0};
    Tensor a = {
        .name = "a", .dtype = DTYPE_F32, .rank = 1, .dims = (int64_t[]){1}, .bytes = 4, .data = (const float[]){1}};
    Tensor b = a, c = a, d = a;
    ParamInfo infos[] = {{.name = "a", .origin = &a, .trainable = true, .tied_to = -1},
                         {.name = "b", .origin = &b, .trainable = true, .tied_to = 0},
                         {.name = "c", .origin = &c, .trainable = true, .tied_to = -1},
                         {.name = "d", .origin = &d, .trainable = true, .tied_to = -1}};
    ParamStore *store = NULL;
    assert_ok(params_new(&(ParamList){.items = infos, .count = 4}, &store, &err), &err);
    assert_int_equal(store->items[1].count, 0);
    OptimizerSpec spec = {.kind = OPTIMIZER_SGD, .lr = 0.5};
    double norm;
    for (int i = 0; i < 4; i++)
        if (i != 1)
            store->gradient[store->items[i].offset] = 1;
    assert_ok(optimizer_step(&spec, store, 1, spec.lr, &norm, &err), &err);
    for (int i = 0; i < 4; i++)
        if (i != 1)
            assert_true(store->data[store->items[i].offset] == 0.5f);
    params_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_gives_the_numbers_of_torch),
        cmocka_unit_test(clipping_gives_the_numbers_of_torch),
        cmocka_unit_test(schedules_give_the_rates_of_torch),
        cmocka_unit_test(cross_entropy_gives_the_numbers_of_torch),
        cmocka_unit_test(a_gradient_that_is_not_finite_stops_and_changes_nothing),
        cmocka_unit_test(a_frozen_neighbour_does_not_hide_a_trainable_parameter),
        cmocka_unit_test(parameters_listed_after_a_tied_one_are_updated),
        cmocka_unit_test(schedules_warm_up_and_end_at_their_floor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
