/* RNN, GRU and LSTM against PyTorch: outputs, last states and every gradient of nn.RNN, nn.GRU and nn.LSTM,
 * bidirectional, on a packed batch of lengths 3 and 2 (torch 2.13; gates put into ONNX's order). Three steps, two
 * samples, two inputs, two hidden numbers. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

/* clang-format off */
static const double lstm_values[] = {
        /* x */ 0.81, -1.17, 0.39, -1.36, 0.53, -1.14, 0.18, -0.09, -1.14, 0.94, -1.6, 0.55,
        /* w */ 0.28, -0.15, 0.39, 0.11, 0.34, 0.11, 0.15, 0.72, -0.57, 0.41, -0.87, -1.18, -1.13, 0.75, -0.32,
        0.44, -0.56, 0.32, -0.48, -0.14, -0.36, 0.34, -1.06, -0.55, 0.41, 0.93, -0.23, -0.23, -0.11, -0.39, 0.01,
        0.76,
        /* r */ 0.22, -1.62, -1.22, 0.92, -0.29, -0.88, -0.35, -0.3, 0, 0.02, 0.13, 0.86, -0.72, 0.1, 0, -0.32,
        -0.07, -1.16, -0.19, -0.34, -0.04, 0.65, -0.49, -1.05, 1.44, -0.25, 0.11, -0.19, 0.78, 0.4, 0.37, 0.22,
        /* b */ -0.35, -0.38, 0.06, 0.45, -0.15, -0.79, -0.36, 0.05, 0.18, 0.32, -0.08, -1.01, -0.1, -0.76, -0.23,
        -1.07, 0.38, -0.01, -0.52, -0.77, 0.78, 0.87, 0.29, -0.16, -0.47, -0.63, -0.11, 0.11, 0.75, 1.56, 1.72,
        1.74,
        /* h */ -0.49, 0.55, -0.68, 0.18, 0.22, -0.56, 0.06, 0.12,
        /* c */ 0.05, 0.86, -0.47, -0.08, -0.09, -0.09, -0.2, -0.03,
        /* dy */ 0.7, 0.77, -0.25, -0.94, -0.73, 0.95, -0.8, -0.94, -0.5, -0.94, -0.51, -1.01, -0.01, -0.04, 0.2,
        -1.84, -1.56, -1.96, 1.12, -1.05, -0.08, 0.27, 0.3, -0.25,
        /* dh */ -0.68, 0.26, -1.35, 1.33, -0.85, 0.3, -0.49, -1.76,
};
static const double lstm_expected[] = {
        /* y */ -0.1273843, -0.08537126, -0.2362799, -0.1319464, 0.1494663, 0.1517034, 0.09765294, 0.1574534,
        -0.2958897, -0.1245557, -0.2639625, -0.1875626, 0.1634766, 0.1416725, 0.07845976, 0.07138573, -0.0359259,
        -0.09230056, 0, 0, 0.2561194, 0.2302717, 0, 0,
        /* yh */ -0.0359259, -0.09230056, -0.2639625, -0.1875626, 0.1494663, 0.1517034, 0.09765294, 0.1574534,
        /* dx */ -0.1167773, -0.1862787, 0.4536951, 0.01630659, 0.149628, -0.03258105, 0.5417261, -0.1261494,
        -0.01461093, -0.1577843, 0, 0,
        /* dw */ 0.4249277, -0.5768257, -0.01772437, -0.04954906, -0.002454236, -0.02572088, -0.03613319,
        -0.1353673, -0.1015118, 0.0185404, -0.06276437, 0.03490855, -0.008983711, 0.04607233, 0.4260409, -0.3282739,
        -0.0466336, 0.1316264, -0.1367974, 0.1822354, -0.1751233, 0.3464173, -0.04657644, 0.2494085, -0.04186678,
        0.07899129, 0.004848005, 0.004936652, 0.01383966, -0.008624003, -0.06667098, 0.244395,
        /* dr */ -0.03848884, 0.003639613, -0.03487786, -0.00175506, -0.05611635, -0.06644225, -0.1027294,
        0.003691627, -0.09336453, -0.02921289, -0.02252416, -0.006459389, 0.1002858, 0.04097727, 0.1180723,
        0.04412342, -0.02353752, -0.006784579, 0.001845401, -0.06945083, -0.04296315, -0.02675204, -0.002523966,
        -0.03006404, -0.01117466, -0.01051099, 0.0007753065, 0.002121884, -0.003744749, 0.007273401, -0.009179659,
        -0.01755104,
        /* db */ 0.1853174, 0.09790815, 0.3015148, 0.1948452, 0.3247031, 0.07809082, -0.382544, -0.3867526,
        0.1853174, 0.09790815, 0.3015148, 0.1948452, 0.3247031, 0.07809082, -0.382544, -0.3867526, -0.1574084,
        -0.2346637, -0.292809, -0.1959101, -0.06215848, -0.002234264, -0.01951162, -0.2208027, -0.1574084,
        -0.2346637, -0.292809, -0.1959101, -0.06215848, -0.002234264, -0.01951162, -0.2208027,
        /* dh0 */ 0.02350338, 0.06183789, -0.05632855, -0.1400625, -0.03311753, -0.04362124, 0.06573839, 0.1817227,
        /* dc0 */ 0.007843068, 0.004297597, -0.09151105, -0.07548962, -0.1315175, 0.27525, -0.06098552, -1.134142,
};
static const double gru_values[] = {
        /* x */ 0.79, -0.86, -0.67, 0.22, -0.88, 1.31, -1.26, -0.06, -0.02, -2.47, -0.18, -0.01,
        /* w */ 0.74, -0.01, 0.73, -0.42, 1.18, 0.92, -0.76, 0.35, -0.37, -0.28, 0.05, 0.38, 0.07, 1.99, 0.23,
        -0.82, 0.2, -0.2, -0.13, 0.26, -1.86, -0.5, 0.09, -0.6,
        /* r */ -0.76, 0.79, 0.27, -1.28, -0.01, -0.46, 0.78, 0.35, 0.47, -0.13, -0.22, 0.28, -0.78, 0.22, -0.21,
        -1.17, 0.63, 0.64, 0.74, -0.4, -1.02, 1.33, -0.46, 0.52,
        /* b */ 1.4, -0.32, -0.39, -0.56, -0.75, 0.17, 0.57, 0.69, -0.68, -0.13, 0.49, -0.35, -2.05, -0.12, -0.12,
        0.16, -1.05, -0.66, -1.36, 0.08, 1.98, -0.75, 1.33, 0.06,
        /* h */ 0.4, -0.14, -0.17, 0.31, 0.18, 0.03, -0.45, 0.34,
        /* dy */ -0.66, 1.13, 1.38, 1.29, -2.43, 1.96, 0.51, -1.59, -0.46, 0.6, -0.57, 0.57, 1.49, 0.22, 1.26, 1.75,
        1.82, -0.23, -1.32, -1.23, 0.03, -0.41, -0.79, -0.2,
        /* dh */ -0.25, 0.08, -0.49, -0.17, 0.71, 0.78, 0.07, 1.93,
};
static const double gru_expected[] = {
        /* y */ 0.3024311, -0.1524617, -0.2110197, 0.1809837, -0.9735591, -0.689973, 0.1641612, -0.5652698,
        0.07039979, 0.1430222, -0.2168203, 0.02000363, 0.508907, -0.7633778, 0.9394023, -0.2276242, 0.05824246,
        -0.0436894, 0, 0, 0.8659037, 0.1132422, 0, 0,
        /* yh */ 0.05824246, -0.0436894, -0.2168203, 0.02000363, -0.9735591, -0.689973, 0.1641612, -0.5652698,
        /* dx */ 0.1682655, -0.01884596, -0.8850489, -0.04649066, -1.613209, -0.7178104, 0.3048422, -1.015907,
        0.2929167, 0.07374328, 0, 0,
        /* dw */ -0.1527703, 0.1761985, -0.004130644, -0.02175349, -0.01945021, 0.02835995, 0.06861971, -0.0366034,
        0.05179427, -0.1724463, -1.033526, 0.4089619, -0.04657648, 0.135772, -1.156707, 0.7991097, -0.05537155,
        0.1194413, -0.1532959, 0.01610382, -1.29335, 1.9643, -1.417755, -0.1784112,
        /* dr */ 0.03955341, -0.01427269, -0.02711748, 0.0263463, 0.007565095, -0.003240699, -0.004684588,
        -0.01163082, 0.01701278, -0.007104865, -0.02567583, 0.1235923, 0.1043144, 0.001844937, 0.05800353,
        0.3343965, 0.0520687, 0.00479579, -0.09947218, 0.07821509, 1.149777, 0.02943563, 0.135546, -0.01310352,
        /* db */ 0.1678044, 0.02023748, 0.02377377, -0.1191311, 0.1951396, 1.728212, 0.1678044, 0.02023748,
        0.02377377, -0.1191311, 0.05120849, 0.8229646, 0.05533102, 0.7220725, 0.04939816, 0.01968151, 1.267623,
        1.961375, 0.05533102, 0.7220725, 0.04939816, 0.01968151, 1.118783, 0.736348,
        /* dh0 */ -0.1671933, 1.256874, 0.3001636, 0.5210794, 0.1846426, 0.6017695, -0.1249009, 0.4299227,
};
static const double rnn_values[] = {
        /* x */ -0.94, -0.06, -0.39, -0.97, 0.47, 0.2, 0.13, 0.04, -0.24, -1.78, 0.18, 0.51,
        /* w */ -0.21, 0.73, -0.71, -1.57, 0.8, -2.02, -0.21, -0.14,
        /* r */ -0.4, 0.14, -0.51, 0.86, 0.17, 1.7, 0.55, -0.27,
        /* b */ 0.51, -0.01, 0.47, 0.92, 0.02, 0.66, -1.88, 0.08,
        /* h */ -0.49, 0.77, 0.23, -1.27, -0.06, -0.41, 0.35, -1.11,
        /* dy */ 0.89, 0.39, 0.99, -1.56, 1.4, 0.28, 1.11, 0.03, 0.41, -0.11, 0.1, 0.7, -1.6, 1.77, -1.27, 0.57,
        1.22, 0.78, 1.33, 0.31, -0.09, 1.12, 1.09, 0.05,
        /* dh */ 0.61, 0.58, -0.66, -0.39, 2.17, -0.51, 0.88, 1.47,
};
static const double rnn_expected[] = {
        /* y */ 0.8931731, 0.9886659, 0.08380299, 0.9052025, -0.8964901, 0.5092202, 0.775696, 0.1813639, 0.668731,
        0.5763864, 0.7913776, 0.9034414, -0.3803513, 0.6478903, -0.9986879, 0.833441, -0.4266535, 0.9993679, 0, 0,
        0.6838976, 0.8066277, 0, 0,
        /* yh */ -0.4266535, 0.9993679, 0.7913776, 0.9034414, -0.8964901, 0.5092202, 0.775696, 0.1813639,
        /* dx */ 0.5513709, -1.274616, 0.3091269, -0.6101581, -1.46976, 2.293726, -0.09505637, -0.3056725,
        0.07766854, 0.4812747, 0, 0,
        /* dw */ -1.010906, -3.710872, 0.1380198, 0.2819738, -1.682838, -1.687401, 0.612659, -0.009043755,
        /* dr */ 1.039483, -0.6079301, -0.002580755, 0.4800981, -1.999952, -0.1105662, 0.006901975, 2.224044,
        /* db */ 2.401604, -0.1422557, 2.401604, -0.1422557, 0.4868468, 2.918056, 0.4868468, 2.918056,
        /* dh0 */ -0.07758786, 0.03381241, -0.2730501, -0.09401989, -0.2572581, 0.7346003, 0.2561108, -0.1273052,
};
/* clang-format on */

typedef struct Recorded {
    const char *text;   /* the graph; its float inputs come in the order of `values` */
    const char *wrt[6]; /* differentiated inputs, in the order of `expected` */
    const double *values, *expected;
    size_t expected_count;
} Recorded;

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define GRAPH(INPUTS, CALL)                                                                                            \
    "<ir_version: 10, opset_import: [\"\" : 22]>\n"                                                                    \
    "g (float[3,2,2] x, " INPUTS ", float[3,2,2,2] dy, float[2,2,2] dh)"                                               \
    " => (float[3,2,2,2] y, float[2,2,2] yh) <int32[2] n = {3, 2}> {\n"                                                \
    "    " CALL "\n    a = Mul(y, dy)\n    b1 = Mul(yh, dh)\n"                                                         \
    "    a1 = ReduceSum<keepdims=0>(a)\n    b2 = ReduceSum<keepdims=0>(b1)\n    loss = Add(a1, b2)\n}\n"

static const Recorded recorded_lstm = {
    GRAPH("float[2,8,2] w, float[2,8,2] r, float[2,16] b, float[2,2,2] h, float[2,2,2] c",
          "y, yh = LSTM<hidden_size=2, direction=\"bidirectional\">(x, w, r, b, n, h, c)"),
    {"x", "w", "r", "b", "h", "c"},
    lstm_values,
    lstm_expected,
    COUNT(lstm_expected)};

static const Recorded recorded_gru = {
    GRAPH("float[2,6,2] w, float[2,6,2] r, float[2,12] b, float[2,2,2] h",
          "y, yh = GRU<hidden_size=2, direction=\"bidirectional\", linear_before_reset=1>(x, w, r, b, n, h)"),
    {"x", "w", "r", "b", "h"},
    gru_values,
    gru_expected,
    COUNT(gru_expected)};

static const Recorded recorded_rnn = {
    GRAPH("float[2,2,2] w, float[2,2,2] r, float[2,4] b, float[2,2,2] h",
          "y, yh = RNN<hidden_size=2, direction=\"bidirectional\">(x, w, r, b, n, h)"),
    {"x", "w", "r", "b", "h"},
    rnn_values,
    rnn_expected,
    COUNT(rnn_expected)};

/* The graph with its gradients as further outputs. */
static Model *build(const Recorded *recorded, Error *err)
{
    Model *model = NULL;
    Value *wrt[6];
    size_t count = 0;
    assert_ok(model_parse(recorded->text, &builtin_ops, &model, err), err);
    Graph *graph = model->graph;
    assert_ok(pass_upgrade(graph, err), err);
    assert_ok(pass_infer_known(graph, err), err);
    for (; count < 6 && recorded->wrt[count] != NULL; count++)
        wrt[count] = graph_find(graph, recorded->wrt[count]);
    assert_ok(pass_autodiff(graph, graph_find(graph, "loss"), wrt, count, err), err);
    for (size_t i = 0; i < count; i++)
        graph_add_output(graph, wrt[i]->gradient);
    return model;
}

static void compare(const char *what, const float *found, const double *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)found[i] - expected[i]) <= 2e-6 + 2e-6 * fabs(expected[i])))
            fail_msg("%s: element %zu is %.8g, torch has %.8g", what, i, (double)found[i], expected[i]);
}

static void check_plan(const Model *model, const Recorded *recorded, Error *err)
{
    Plan *plan = NULL;
    PlanOptions options = {.training = true};
    const Graph *graph = model->graph;
    size_t at = 0;
    assert_ok(plan_build(model, NULL, &options, &plan, err), err);
    for (size_t i = 0; i < graph->input_count; i++) {
        size_t n = (size_t)type_count(&graph->inputs[i]->type);
        float *place = plan_input(plan, i);
        for (size_t k = 0; place != NULL && k < n; k++)
            place[k] = (float)recorded->values[at + k];
        at += n;
    }
    assert_ok(plan_run(plan, 0, 1, false, err), err);
    at = 0;
    for (size_t i = 0; i < graph->output_count; i++) {
        size_t n = (size_t)type_count(&graph->outputs[i]->type);
        compare(graph->outputs[i]->name, plan_output(plan, i), recorded->expected + at, n);
        at += n;
    }
    assert_int_equal(at, recorded->expected_count);
    plan_free(plan);
}

static void check_interpreter(const Model *model, const Recorded *recorded, Error *err)
{
    const Graph *graph = model->graph;
    Arena arena;
    arena_init(&arena);
    Array **in = arena_array(&arena, Array *, graph->input_count), **out = arena_array(&arena, Array *, 16);
    size_t at = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        assert_ok(array_new(&arena, DTYPE_F32, type->rank, type->dims, &in[i], err), err);
        for (int64_t k = 0; k < in[i]->count; k++)
            ((float *)in[i]->data)[k] = (float)recorded->values[at + (size_t)k];
        at += (size_t)in[i]->count;
    }
    assert_ok(interp_run(graph, (const Array *const *)in, out, &arena, 0, err), err);
    at = 0;
    for (size_t i = 0; i < graph->output_count; i++) {
        compare(graph->outputs[i]->name, out[i]->data, recorded->expected + at, (size_t)out[i]->count);
        at += (size_t)out[i]->count;
    }
    arena_release(&arena);
}

static void check(const Recorded *recorded)
{
    Error err = {0};
    Model *model = build(recorded, &err);
    check_plan(model, recorded, &err);
    check_interpreter(model, recorded, &err);
    model_free(model);
}

static void lstm_does_what_torch_does(void **state)
{
    (void)state;
    check(&recorded_lstm);
}

static void gru_does_what_torch_does(void **state)
{
    (void)state;
    check(&recorded_gru);
}

static void rnn_does_what_torch_does(void **state)
{
    (void)state;
    check(&recorded_rnn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lstm_does_what_torch_does),
        cmocka_unit_test(gru_does_what_torch_does),
        cmocka_unit_test(rnn_does_what_torch_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
