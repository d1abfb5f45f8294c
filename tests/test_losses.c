/* Every loss means the same in training (nodes of the graph) and in validation (sums on the host), whatever the model's
 * last node is; metrics by hand; tasks with data of their own are trained as one sum of losses. */
#include "tests/graph_test.h"

#include <stdlib.h>

#include "runtime/train.h"

enum { SAMPLES = 12, FEATURES = 5, CLASSES = 3, POSITIONS = 4, BATCH = 4 };

typedef struct Case {
    const char *what, *graph;
    LossKind kind;
    bool classes;
    int target_rank;
    int64_t target_dims[3]; /* without the batch */
} Case;

/* A layer to train, then what the case adds: scores `s` are [batch, 3, 4]. */
#define LAYER                                                                                                          \
    NEWEST "g (float[batch,5] x) => (y) <float[5,12] w={"                                                              \
           "0.1,-0.2,0.3,0.4,-0.5,0.6,0.7,-0.8,0.9,1.0,-1.1,1.2,0.2,0.1,-0.3,0.5,0.4,-0.6,0.8,0.7,-0.9,0.1,1.2,-1.0,"  \
           "-0.3,0.4,0.2,-0.1,0.6,0.5,-0.7,0.9,0.8,-1.1,1.0,0.3,0.5,-0.6,0.1,0.2,0.3,-0.4,0.9,-0.8,0.7,1.1,-1.2,0.6,"  \
           "0.7,0.8,-0.9,0.1,-0.2,0.3,0.4,0.5,-0.6,1.0,0.2,-0.1}, int64[3] shape={0,3,4}> "                            \
           "{ m = MatMul(x, w) s = Reshape(m, shape) "

static const Case cases[] = {
    {"scores of positions", LAYER "y = Identity(s) }", LOSS_SOFTMAX_CE, true, 1, {POSITIONS}},
    {"scores behind a Softmax", LAYER "y = Softmax<axis=1>(s) }", LOSS_SOFTMAX_CE, true, 1, {POSITIONS}},
    {"scores behind a LogSoftmax", LAYER "y = LogSoftmax<axis=1>(s) }", LOSS_SOFTMAX_CE, true, 1, {POSITIONS}},
    {"scores behind a Softmax over the positions",
     LAYER "y = Softmax<axis=2>(s) }",
     LOSS_SOFTMAX_CE,
     true,
     1,
     {POSITIONS}},
    {"tokens behind a Softmax", LAYER "y = Softmax<axis=-1>(s) }", LOSS_LM, true, 1, {CLASSES}},
    {"overlap behind a Softmax", LAYER "y = Softmax<axis=1>(s) }", LOSS_DICE, true, 1, {POSITIONS}},
    {"overlap behind a LogSoftmax", LAYER "y = LogSoftmax<axis=1>(s) }", LOSS_DICE, true, 1, {POSITIONS}},
    {"tokens", LAYER "y = Identity(s) }", LOSS_LM, true, 1, {CLASSES}},
    {"overlap", LAYER "y = Identity(s) }", LOSS_DICE, true, 1, {POSITIONS}},
    {"labels", LAYER "y = Identity(s) }", LOSS_BCE, false, 2, {CLASSES, POSITIONS}},
    {"labels behind a Sigmoid", LAYER "y = Sigmoid(s) }", LOSS_BCE, false, 2, {CLASSES, POSITIONS}},
    {"squares", LAYER "y = Identity(s) }", LOSS_MSE, false, 2, {CLASSES, POSITIONS}},
    {"distances", LAYER "y = Identity(s) }", LOSS_L1, false, 2, {CLASSES, POSITIONS}},
    {"both", LAYER "y = Identity(s) }", LOSS_HUBER, false, 2, {CLASSES, POSITIONS}},
};

typedef struct Data {
    float x[SAMPLES * FEATURES], numbers[SAMPLES * CLASSES * POSITIONS];
    int64_t labels[SAMPLES * POSITIONS];
} Data;

static void fill(Data *data, const Case *c)
{
    Rng rng = rng_at(11, 0);
    for (size_t i = 0; i < SAMPLES * FEATURES; i++)
        data->x[i] = (float)rng_normal(&rng);
    for (size_t i = 0; i < SAMPLES * CLASSES * POSITIONS; i++)
        data->numbers[i] = c->kind == LOSS_BCE ? (float)rng_below(&rng, 2) : 2 * (float)rng_normal(&rng);
    int64_t values = c->kind == LOSS_LM ? POSITIONS : CLASSES;
    for (size_t i = 0; i < SAMPLES * POSITIONS; i++)
        data->labels[i] = (int64_t)rng_below(&rng, (uint64_t)values);
    for (size_t i = 0; i < SAMPLES * POSITIONS; i += 7)
        data->labels[i] = -100;
}

static void make_source(ArraySource *source, const Data *data, const Case *c)
{
    Error err = {STATUS_OK, ""};
    assert_ok(array_source_init(source, SAMPLES, &err), &err);
    source->input_count = source->target_count = 1;
    source->keep_order = true;
    source->inputs[0] = data->x;
    type_set(&source->input_types[0], DTYPE_F32, 2, (const int64_t[]){1, FEATURES});
    int64_t dims[3] = {1, c->target_dims[0], c->target_dims[1]};
    type_set(&source->target_types[0], c->classes ? DTYPE_I64 : DTYPE_F32, c->target_rank + 1, dims);
    source->targets[0] = c->classes ? (const void *)data->labels : data->numbers;
}

static void keep_first_loss(const TrainEvent *event, void *context)
{
    double *first = context;
    if (event->kind == EVENT_STEP && isnan(*first))
        *first = event->loss;
}

static void losses_in_training_and_validation_are_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Case *c = &cases[i];
        Error err = {STATUS_OK, ""};
        Data data;
        ArraySource source;
        ParamList params;
        Trainer *trainer;
        TargetScore score;
        double trained = NAN, measured;
        fill(&data, c);
        make_source(&source, &data, c);
        Model *model = parse_model(c->graph);
        LossSpec loss = {.kind = c->kind, .weight = 0.5, .ignore_index = -100, .target_name = "t"};
        TrainOptions options = {.losses = &loss,
                                .loss_count = 1,
                                .optimizer = optimizer_default(OPTIMIZER_SGD),
                                .epochs = 1,
                                .batch = SAMPLES,
                                .on_event = keep_first_loss,
                                .context = &trained};
        assert_ok(params_find(model, false, &params, &err), &err);
        assert_ok(trainer_new(model, &params, NULL, &options, &trainer, &err), &err);
        assert_ok(trainer_score(trainer, &source.source, &score, &measured, &err), &err);
        assert_ok(trainer_run(trainer, &source.source, NULL, &err), &err);
        if (!(fabs(measured / trained - 1) < 1e-5))
            fail_msg("%s: %.9g in training, %.9g measured", c->what, trained, measured);
        assert_true(fabs(0.5 * score.loss - measured) < 1e-12);
        assert_true(isnan(score.accuracy) == (c->kind == LOSS_MSE || c->kind == LOSS_L1 || c->kind == LOSS_HUBER));
        trainer_free(trainer);
        array_source_release(&source);
        model_free(model);
    }
}

static void metrics_are_those_of_the_whole_data(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Type type, numbers;
    type_set(&type, DTYPE_F32, 3, (const int64_t[]){1, 2, 4});
    type_set(&numbers, DTYPE_F32, 2, (const int64_t[]){1, 2});
    /* predicted 0 0 1 1, truth 0 1 1 ignored; then all right: IoU of class 0: (1 + 4) / (2 + 4), of class 1: 1 / 2 */
    const float first[] = {2, 2, 0, 0, 1, 1, 3, 3}, second[] = {2, 2, 2, 2, 1, 1, 1, 1};
    const int64_t one[] = {0, 1, 1, -100}, two[] = {0, 0, 0, 0};
    LossSpec loss = {.kind = LOSS_SOFTMAX_CE, .weight = 1, .ignore_index = -100};
    Tally tally = {.both = NULL};
    assert_ok(tally_add(&tally, &loss, first, &type, OUTPUT_SCORES, one, &err), &err);
    assert_ok(tally_add(&tally, &loss, second, &type, OUTPUT_SCORES, two, &err), &err);
    TargetScore score = tally_score(&tally);
    assert_true(fabs(score.accuracy - 6.0 / 7) < 1e-12);
    assert_true(fabs(score.mean_iou - (5.0 / 6 + 1.0 / 2) / 2) < 1e-12);
    double right = log(1 + exp(-1.0)), sure = log(1 + exp(-3.0));
    assert_true(fabs(score.loss - (5 * right + (right + 1) + sure) / 7) < 1e-6);
    assert_true(isnan(score.absolute_error));
    tally_release(&tally);
    const int64_t stray[] = {0, 1, 2, -100};
    for (int kind = 0; kind < 2; kind++) {
        loss.kind = kind == 0 ? LOSS_SOFTMAX_CE : LOSS_DICE;
        assert_int_equal(tally_add(&tally, &loss, first, &type, OUTPUT_SCORES, stray, &err), STATUS_REJECTED);
        tally_release(&tally);
    }
    err = (Error){STATUS_OK, ""};
    loss.kind = LOSS_L1;
    assert_ok(tally_add(&tally, &loss, (const float[]){1, 2}, &numbers, OUTPUT_SCORES, (const float[]){3, -1}, &err),
              &err);
    score = tally_score(&tally);
    assert_true(fabs(score.absolute_error - 2.5) < 1e-12 && fabs(score.squared_error - 6.5) < 1e-12 &&
                isnan(score.accuracy));
    tally_release(&tally);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

#define TWO                                                                                                            \
    NEWEST                                                                                                             \
    "g (float[batch,5] x) => (a, b) <float[5,4] w={0.1,-0.2,0.3,0.4,-0.5,0.6,0.7,-0.8,0.9,1.0,-1.1,1.2,0.2,0.1,"       \
    "-0.3,0.5,0.4,-0.6,0.8,0.7}, float[4,3] p={0.2,0.1,-0.3,0.5,0.4,-0.6,0.8,0.7,-0.9,0.1,1.2,-1.0}, "                 \
    "float[4,2] q={-0.3,0.4,0.2,-0.1,0.6,0.5,-0.7,0.9}> { h = MatMul(x, w) t = Tanh(h) a = MatMul(t, p) b = "          \
    "MatMul(t, q) }"

typedef struct Tasks {
    float x[SAMPLES * FEATURES];
    int64_t a[SAMPLES], b[SAMPLES];
    ArraySource sources[3]; /* a alone, b alone, both */
    LossSpec losses[2];
} Tasks;

static void make_tasks(Tasks *t)
{
    Error err = {STATUS_OK, ""};
    Rng rng = rng_at(5, 0);
    for (size_t i = 0; i < SAMPLES * FEATURES; i++)
        t->x[i] = (float)rng_normal(&rng);
    for (size_t i = 0; i < SAMPLES; i++) {
        t->a[i] = (int64_t)rng_below(&rng, 3);
        t->b[i] = (int64_t)rng_below(&rng, 2);
    }
    for (int s = 0; s < 3; s++) {
        ArraySource *source = &t->sources[s];
        assert_ok(array_source_init(source, SAMPLES, &err), &err);
        source->input_count = 1;
        source->target_count = s == 2 ? 2 : 1;
        source->keep_order = true;
        source->inputs[0] = t->x;
        source->targets[0] = s == 1 ? t->b : t->a;
        source->targets[1] = t->b;
        type_set(&source->input_types[0], DTYPE_F32, 2, (const int64_t[]){1, FEATURES});
        type_set(&source->target_types[0], DTYPE_I64, 1, (const int64_t[]){1});
        source->target_types[1] = source->target_types[0];
    }
    t->losses[0] = (LossSpec){.output = 0, .weight = 0.7, .ignore_index = -100, .target_name = "ta"};
    t->losses[1] = (LossSpec){.output = 1, .weight = 2, .ignore_index = -100, .target_name = "tb"};
}

/* The parameters after two epochs of AdamW, and the scores. */
static void train_tasks(Tasks *t, Source *source, bool apart, float *parameters, TargetScore *scores)
{
    Error err = {STATUS_OK, ""};
    ParamList params;
    Trainer *trainer;
    Model *model = parse_model(TWO);
    TrainOptions options = {.losses = t->losses,
                            .loss_count = 2,
                            .optimizer = optimizer_default(OPTIMIZER_ADAMW),
                            .epochs = 2,
                            .batch = BATCH,
                            .accumulate = apart ? 2 : 1,
                            .sum_parts = apart};
    options.optimizer.lr = 0.05;
    assert_ok(params_find(model, false, &params, &err), &err);
    assert_int_equal(params.count, 3);
    assert_ok(trainer_new(model, &params, NULL, &options, &trainer, &err), &err);
    assert_ok(trainer_run(trainer, source, NULL, &err), &err);
    assert_ok(trainer_score(trainer, source, scores, NULL, &err), &err);
    ParamStore *store = trainer_store(trainer);
    assert_int_equal(params_plain_total(store), 40);
    assert_ok(params_get_block(store, store->data, parameters, &err), &err);
    trainer_free(trainer);
    model_free(model);
}

static void tasks_on_the_same_samples_are_trained_as_the_sum_of_their_losses(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Tasks t;
    TaskSource tasks;
    float together[40], apart[40];
    TargetScore scores[2][2];
    make_tasks(&t);
    Source *two[] = {&t.sources[0].source, &t.sources[1].source};
    assert_ok(task_source_init(&tasks, two, 2, &err), &err);
    train_tasks(&t, &t.sources[2].source, false, together, scores[0]);
    train_tasks(&t, &tasks.source, true, apart, scores[1]);
    for (size_t i = 0; i < 40; i++)
        assert_true(fabsf(together[i] - apart[i]) < 1e-5f);
    for (size_t i = 0; i < 2; i++) {
        assert_true(fabs(scores[0][i].loss - scores[1][i].loss) < 1e-5);
        assert_true(fabs(scores[0][i].accuracy - scores[1][i].accuracy) < 1e-12);
    }
    for (int s = 0; s < 3; s++)
        array_source_release(&t.sources[s]);
}

static void a_pass_is_over_the_largest_task_and_shorter_ones_begin_anew(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Tasks t;
    TaskSource tasks;
    Batch batch;
    size_t samples[2] = {0, 0};
    make_tasks(&t);
    t.sources[1].source.count = 5; /* a batch of 4, one of 1, and 4 again */
    Source *two[] = {&t.sources[0].source, &t.sources[1].source};
    assert_ok(task_source_init(&tasks, two, 2, &err), &err);
    assert_ok(tasks.source.start(&tasks.source, 1, true, BATCH, &err), &err);
    for (size_t i = 0; i < 6; i++) {
        assert_ok(tasks.source.next(&tasks.source, &batch, &err), &err);
        assert_int_equal(batch.only, i % 2 + 1);
        samples[i % 2] += batch.size;
    }
    assert_ok(tasks.source.next(&tasks.source, &batch, &err), &err);
    assert_int_equal(batch.size, 0);
    assert_int_equal(samples[0], SAMPLES);
    assert_int_equal(samples[1], 9);
    for (int s = 0; s < 3; s++)
        array_source_release(&t.sources[s]);
}

/* ---- gradients of inputs ----------------------------------------------------------------------------------------- */

static double linear_loss(const float *x, const float *weights)
{
    Error err = {STATUS_OK, ""};
    Arena arena;
    arena_init(&arena);
    Model *model = parse_model(TWO);
    type_set(&model->graph->inputs[0]->type, DTYPE_F32, 2, (const int64_t[]){2, FEATURES});
    assert_ok(pass_infer_known(model->graph, &err), &err);
    Array *input;
    assert_ok(array_new(&arena, DTYPE_F32, 2, (const int64_t[]){2, FEATURES}, &input, &err), &err);
    memcpy(input->data, x, 2 * FEATURES * sizeof *x);
    Array **outputs = run_graph(model->graph, (const Array *[]){input}, &arena);
    double sum = 0;
    for (int64_t i = 0; i < 4; i++)
        sum += array_f64_at(outputs[1], i) * (double)weights[i];
    model_free(model);
    arena_release(&arena);
    return sum;
}

static void gradients_of_inputs_are_those_of_differences(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    float x[2 * FEATURES], weights[4] = {1, -2, 0.5f, 3};
    Rng rng = rng_at(8, 0);
    for (size_t i = 0; i < 2 * FEATURES; i++)
        x[i] = (float)rng_normal(&rng);
    Model *model = parse_model(TWO), *working;
    LossSpec loss = {.kind = LOSS_LINEAR, .output = 1, .weight = 1, .target_name = "t"};
    Binding binding = {.input = "x", .rank = 2, .dims = {2, FEATURES}};
    const char *names[] = {"x", NULL};
    WorkingOptions options = {.bindings = &binding,
                              .binding_count = 1,
                              .losses = &loss,
                              .loss_count = 1,
                              .gradients = true,
                              .input_gradients = names};
    assert_ok(working_build(model, &options, &working, &err), &err);
    Graph *graph = working->graph;
    const Value *input = graph_find(graph, "x");
    assert_non_null(input->gradient);
    graph_add_output(graph, input->gradient);
    Plan *plan;
    assert_ok(plan_build(working, NULL, &(PlanOptions){0}, &plan, &err), &err);
    memcpy(plan_input(plan, 0), x, sizeof x);
    memcpy(plan_input(plan, 1), weights, sizeof weights);
    assert_ok(plan_run(plan, 0, 1, false, &err), &err);
    const float *gradient = plan_output(plan, graph->output_count - 1);
    for (size_t i = 0; i < 2 * FEATURES; i++) {
        float kept = x[i];
        x[i] = kept + 1e-2f;
        double above = linear_loss(x, weights);
        x[i] = kept - 1e-2f;
        double below = linear_loss(x, weights);
        x[i] = kept;
        assert_true(fabs((above - below) / 2e-2 - (double)gradient[i]) < 2e-3);
    }
    plan_free(plan);
    model_free(working);
    model_free(model);
}

static void a_gradient_that_only_passes_through_a_reshape_is_kept(void **state)
{
    (void)state;
    static const char *const moves[] = {"Flatten(x)", "Transpose<perm=[0,1]>(x)", "Reshape(x, s)"};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,2] x) => (y) <int64[2] s={0,-1}> { y = %s }",
                 moves[i]);
        Error err = {STATUS_OK, ""};
        Model *model = parse_model(text), *working;
        LossSpec loss = {.kind = LOSS_LINEAR, .weight = 1, .target_name = "t"};
        const char *names[] = {"x", NULL};
        WorkingOptions options = {.losses = &loss, .loss_count = 1, .gradients = true, .input_gradients = names};
        assert_ok(working_build(model, &options, &working, &err), &err);
        Plan *plan;
        graph_add_output(working->graph, graph_find(working->graph, "x")->gradient);
        assert_ok(plan_build(working, NULL, &(PlanOptions){0}, &plan, &err), &err);
        const float x[4] = {1, 2, 3, 4}, weights[4] = {5, -6, 7, -8}; /* y * t, summed: its gradient is t */
        memcpy(plan_input(plan, 0), x, sizeof x);
        memcpy(plan_input(plan, 1), weights, sizeof weights);
        assert_ok(plan_run(plan, 0, 1, false, &err), &err);
        assert_memory_equal(plan_output(plan, working->graph->output_count - 1), weights, sizeof weights);
        plan_free(plan);
        model_free(working);
        model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_in_training_and_validation_are_the_same),
        cmocka_unit_test(metrics_are_those_of_the_whole_data),
        cmocka_unit_test(tasks_on_the_same_samples_are_trained_as_the_sum_of_their_losses),
        cmocka_unit_test(gradients_of_inputs_are_those_of_differences),
        cmocka_unit_test(a_gradient_that_only_passes_through_a_reshape_is_kept),
        cmocka_unit_test(a_pass_is_over_the_largest_task_and_shorter_ones_begin_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
