/* RNN, GRU and LSTM cut into units of samples and directions: every way of cutting gives what the interpreter gives,
 * with the same bits at any number of threads, whether or not the gates are saved for a gradient. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "runtime/ops/recurrent_panels.h"
#include "runtime/runtime.h"

typedef struct Case {
    const char *kind, *options; /* LSTM, further attributes */
    int gates, steps, batch, inputs, hidden, directions, layout;
    bool lengths;
    enum { SHARED, UNITS, TEAM } way; /* how the plan runs it; SHARED: weights are packed (or transposed) first */
} Case;

static const char *kernel_of(const Case *c)
{
    return c->way == TEAM ? "own:steps" : c->way == SHARED && panels_usable() ? "own:panels" : "own:units";
}

static const Case cases[] = {
    /* several chunks a direction, weights packed or transposed, several blocks of steps on the way back */
    {"LSTM", "", 4, 70, 20, 12, 24, 2, 0, false, SHARED},
    {"LSTM", "", 4, 70, 20, 12, 24, 2, 0, true, SHARED},
    {"LSTM", "", 4, 40, 20, 12, 24, 2, 1, true, SHARED},
    {"GRU", ", linear_before_reset=1", 3, 70, 20, 12, 24, 2, 0, true, SHARED},
    {"GRU", ", linear_before_reset=1", 3, 40, 20, 12, 24, 2, 1, false, SHARED},
    {"GRU", "", 3, 70, 20, 12, 24, 2, 0, true, SHARED},
    {"GRU", "", 3, 40, 20, 12, 24, 2, 1, false, SHARED},
    {"RNN", "", 1, 70, 33, 12, 40, 1, 0, true, SHARED},
    {"RNN", ", activations=[\"Relu\"]", 1, 40, 33, 12, 40, 1, 1, false, SHARED},
    /* few samples: weights as they are */
    {"LSTM", "", 4, 9, 3, 5, 7, 2, 0, true, UNITS},
    /* one unit: all threads at each step */
    {"LSTM", "", 4, 5, 5, 40, 260, 1, 0, false, TEAM},
    {"GRU", "", 3, 5, 6, 40, 260, 1, 0, true, TEAM},
};
enum { CASE_COUNT = sizeof cases / sizeof cases[0], GRADIENTS_MAX = 6, OUTPUTS_MAX = 8 };

/* The node, and a loss over all it gives. */
static void graph_text(const Case *c, Str *text)
{
    int d = c->directions, b = c->batch, h = c->hidden, all = c->gates * h;
    bool first = c->layout != 0, lstm = strcmp(c->kind, "LSTM") == 0;
    str_printf(text, "<ir_version: 10, opset_import: [\"\" : 22]>\ng (float[%d,%d,%d] x, float[%d,%d,%d] w, ",
               first ? b : c->steps, first ? c->steps : b, c->inputs, d, all, c->inputs);
    str_printf(text, "float[%d,%d,%d] r, float[%d,%d] b, float[%d,%d,%d] h", d, all, h, d, 2 * all, first ? b : d,
               first ? d : b, h);
    if (lstm)
        str_printf(text, ", float[%d,%d,%d] c", first ? b : d, first ? d : b, h);
    const int dims[2][4] = {{c->steps, d, b, h}, {b, c->steps, d, h}};
    const int *y = dims[first];
    str_printf(text, ", float[%d,%d,%d,%d] dy) => (float[%d,%d,%d,%d] y) <int32[%d] n = {", y[0], y[1], y[2], y[3],
               y[0], y[1], y[2], y[3], b);
    for (int i = 0; i < b; i++) /* one sample has no steps at all */
        str_printf(text, "%s%d", i == 0 ? "" : ", ", i == 1 ? 0 : 1 + (i * 7 + c->steps - 1) % c->steps);
    str_printf(text, "}> {\n    y, yh = %s<hidden_size=%d, layout=%d, direction=\"%s\"%s>(x, w, r, b, %s, h%s)\n",
               c->kind, h, c->layout, d == 2 ? "bidirectional" : "reverse", c->options, c->lengths ? "n" : "",
               lstm ? ", c" : "");
    str_printf(text, "    a = Mul(y, dy)\n    a1 = ReduceSum<keepdims=0>(a)\n    b2 = ReduceSum<keepdims=0>(yh)\n"
                     "    loss = Add(a1, b2)\n}\n");
}

static Model *build(const Case *c, bool gradients, Error *err)
{
    static const char *const names[] = {"x", "w", "r", "b", "h", "c"};
    Model *model = NULL;
    Value *wrt[GRADIENTS_MAX];
    Str text;
    str_init(&text);
    graph_text(c, &text);
    assert_ok(model_parse(text.text, &builtin_ops, &model, err), err);
    str_release(&text);
    Graph *graph = model->graph;
    size_t count = strcmp(c->kind, "LSTM") == 0 ? 6 : 5;
    assert_ok(pass_upgrade(graph, err), err);
    assert_ok(pass_infer_known(graph, err), err);
    if (!gradients)
        return model;
    for (size_t i = 0; i < count; i++)
        wrt[i] = graph_find(graph, names[i]);
    assert_ok(pass_autodiff(graph, graph_find(graph, "loss"), wrt, count, err), err);
    for (size_t i = 0; i < count; i++)
        graph_add_output(graph, wrt[i]->gradient);
    return model;
}

/* The same numbers in [-0.3, 0.3) for input `index` of any graph of a case. */
static float number(size_t index, size_t k)
{
    uint32_t x = (uint32_t)(index * 40503 + k + 1) * 2654435761U;
    x ^= x >> 15;
    x *= 2246822519U;
    x ^= x >> 13;
    return ((float)(x >> 8) / 16777216.0F - 0.5F) * 0.6F;
}

typedef struct Results {
    float *values[OUTPUTS_MAX];
    size_t counts[OUTPUTS_MAX], count;
} Results;

static void results_release(Results *results)
{
    for (size_t i = 0; i < results->count; i++)
        free(results->values[i]);
    *results = (Results){0};
}

static Results results_of(const Case *c, const Model *model, int threads, Error *err)
{
    Plan *plan = NULL;
    PlanOptions options = {.training = true};
    Results results = {0};
    Str text;
    runtime_set_threads(threads);
    assert_ok(plan_build(model, NULL, &options, &plan, err), err);
    str_init(&text);
    plan_describe(plan, &text);
    if (strstr(text.text, kernel_of(c)) == NULL)
        fail_msg("%s%s: no %s in\n%s", c->kind, c->options, kernel_of(c), text.text);
    str_release(&text);
    for (size_t i = 0; i < model->graph->input_count; i++) {
        float *place = plan_input(plan, i);
        size_t n = (size_t)type_count(&model->graph->inputs[i]->type);
        for (size_t k = 0; place != NULL && k < n; k++)
            place[k] = number(i, k);
    }
    assert_ok(plan_run(plan, 0, 1, false, err), err);
    results.count = model->graph->output_count;
    for (size_t i = 0; i < results.count; i++) {
        results.counts[i] = (size_t)type_count(&model->graph->outputs[i]->type);
        results.values[i] = malloc(results.counts[i] * sizeof(float));
        memcpy(results.values[i], plan_output(plan, i), results.counts[i] * sizeof(float));
    }
    plan_free(plan);
    return results;
}

static void assert_same_bits(const Case *c, const Results *a, const Results *b, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(a->values[i], b->values[i], a->counts[i] * sizeof(float)) != 0)
            fail_msg("%s%s, layout %d: output %zu differs %s", c->kind, c->options, c->layout, i, what);
}

static void compare_interpreter(const Case *c, const Model *model, const Results *results, Error *err)
{
    const Graph *graph = model->graph;
    Arena arena;
    arena_init(&arena);
    Array **in = arena_array(&arena, Array *, graph->input_count), **out = arena_array(&arena, Array *, OUTPUTS_MAX);
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        assert_ok(array_new(&arena, DTYPE_F32, type->rank, type->dims, &in[i], err), err);
        for (int64_t k = 0; k < in[i]->count; k++)
            ((float *)in[i]->data)[k] = number(i, (size_t)k);
    }
    assert_ok(interp_run(graph, (const Array *const *)in, out, &arena, 0, err), err);
    for (size_t i = 0; i < results->count; i++) {
        const float *expected = out[i]->data, *found = results->values[i];
        double largest = 0;
        for (size_t k = 0; k < results->counts[i]; k++)
            largest = fmax(largest, fabs((double)expected[k]));
        for (size_t k = 0; k < results->counts[i]; k++)
            if (!(fabs((double)found[k] - (double)expected[k]) <= 1e-5 * largest + 1e-6))
                fail_msg("%s%s, layout %d: output %zu, element %zu is %.8g, the interpreter has %.8g", c->kind,
                         c->options, c->layout, i, k, (double)found[k], (double)expected[k]);
    }
    arena_release(&arena);
}

static void units_do_what_the_interpreter_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        Error err = {0};
        Model *model = build(&cases[i], true, &err);
        Results results = results_of(&cases[i], model, 2, &err);
        compare_interpreter(&cases[i], model, &results, &err);
        results_release(&results);
        model_free(model);
    }
}

static void bits_are_the_same_at_any_number_of_threads(void **state)
{
    (void)state;
    static const int threads[] = {2, 3, 8};
    for (size_t i = 0; i < CASE_COUNT; i++) {
        Error err = {0};
        Model *model = build(&cases[i], true, &err);
        Results one = results_of(&cases[i], model, 1, &err);
        for (size_t k = 0; k < sizeof threads / sizeof threads[0]; k++) {
            Results more = results_of(&cases[i], model, threads[k], &err);
            assert_same_bits(&cases[i], &one, &more, one.count, "with more threads");
            results_release(&more);
        }
        results_release(&one);
        model_free(model);
    }
}

static void a_forward_that_saves_nothing_has_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        Error err = {0};
        Model *trained = build(&cases[i], true, &err), *plain = build(&cases[i], false, &err);
        Results saved = results_of(&cases[i], trained, 2, &err), forward = results_of(&cases[i], plain, 2, &err);
        assert_same_bits(&cases[i], &forward, &saved, forward.count, "where the gates are saved");
        results_release(&saved);
        results_release(&forward);
        model_free(trained);
        model_free(plain);
    }
}

/* Every remainder of rows and columns, one and two terms, onto zeros and onto what is there. */
static void panels_multiply_as_plain_loops_do(void **state)
{
    (void)state;
    enum { M = 13, N = 100, K = 21 };
    float a[M * K], b[K * N], turned[N * K], packed[2][K * (N + 16)], c[M * (N + 3)], expected;
    for (size_t i = 0; i < M * K; i++)
        a[i] = number(0, i);
    for (size_t i = 0; i < K * N; i++)
        turned[i % N * K + i / N] = b[i] = number(1, i);
    for (int64_t m = 1; m <= M; m++)
        for (int64_t n = 1; n <= N; n += n < 60 ? 1 : 13)
            for (int way = 0; way < 4; way++) {
                Panels panels[2] = {{K, n, packed[0]}, {K, n, packed[1]}};
                panels_pack(&panels[0], 0, panels_count(n), b, N, 1, packed[0]);
                panels_pack(&panels[1], 0, panels_count(n), turned, 1, K, packed[1]);
                PanelTerm terms[2] = {{a, K, &panels[0]}, {a, K, &panels[1]}};
                for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
                    c[i] = 0.5F;
                panels_multiply(m, terms, 1 + way % 2, way > 1, c, N + 3);
                for (int64_t i = 0; i < m * (N + 3); i++) {
                    int64_t row = i / (N + 3), column = i % (N + 3);
                    double sum = 0;
                    for (int64_t l = 0; l < K; l++)
                        sum += (double)a[row * K + l] * (double)b[l * N + (column < n ? column : 0)];
                    expected = column < n ? (float)((way > 1 ? 0.5 : 0) + (1 + way % 2) * sum) : 0.5F;
                    if (!(fabsf(c[i] - expected) <= 1e-6F))
                        fail_msg("%d x %d, way %d: (%d, %d) is %g, not %g", (int)m, (int)n, way, (int)row, (int)column,
                                 (double)c[i], (double)expected);
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_multiply_as_plain_loops_do),
        cmocka_unit_test(units_do_what_the_interpreter_does),
        cmocka_unit_test(bits_are_the_same_at_any_number_of_threads),
        cmocka_unit_test(a_forward_that_saves_nothing_has_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
