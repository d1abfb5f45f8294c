/* The gradient of a quantised pair: straight through where nothing was clipped. */
#include "tests/test.h"

#include "passes/passes.h"
#include "runtime/runtime.h"

/* d sum(y) / dx of the text's graph at x, in double; x has four elements. */
static void gradient(const char *text, double x[4], double dx[4])
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    Arena arena;
    arena_init(&arena);
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    assert_ok(pass_expand(model->graph, &err), &err);
    assert_ok(pass_clean(model->graph, &err), &err);
    Value *input = graph_find(model->graph, "x");
    assert_ok(pass_autodiff(model->graph, model->graph->outputs[0], &input, 1, &err), &err);
    assert_non_null(input->gradient);
    graph_add_output(model->graph, input->gradient);
    Array in = {.dtype = DTYPE_F64, .rank = 1, .dims = {4}, .count = 4, .data = x};
    const Array *inputs[1] = {&in};
    Array *outputs[2];
    assert_ok(interp_run(model->graph, inputs, outputs, &arena, 0, &err), &err);
    for (int64_t i = 0; i < 4; i++)
        dx[i] = array_f64_at(outputs[1], i);
    arena_release(&arena);
    model_free(model);
}

static void the_gradient_passes_where_nothing_was_clipped(void **state)
{
    (void)state;
    double x[4] = {-0.5, 0.04, 25.1, 25.6}, dx[4];
    gradient("g (double[4] x) => (double y) <double s = {0.1}, uint8 z = {3}>\n"
             "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = ReduceSum<keepdims=0>(d) }",
             x, dx);
    assert_true(dx[0] == 0 && dx[1] == 1 && dx[2] == 1 && dx[3] == 0);
}

static void eight_bit_floats_clip_beyond_their_largest_number(void **state)
{
    (void)state;
    double x[4] = {-449, 447, 3, 1e6}, dx[4];
    gradient("g (double[4] x) => (double y) <double s = {1}>\n"
             "{ q = QuantizeLinear<output_dtype=17>(x, s) d = DequantizeLinear(q, s) y = ReduceSum<keepdims=0>(d) }",
             x, dx);
    assert_true(dx[0] == 0 && dx[1] == 1 && dx[2] == 1 && dx[3] == 0);
}

/* Expanded, its own quantising ends are halves of pairs with what stands beside it. */
static void the_gradient_passes_through_an_operator_on_quanta(void **state)
{
    (void)state;
    double x[4] = {-1, 2, 5, 30}, dx[4]; /* the last one is clipped */
    gradient("<ir_version: 8, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>\n"
             "g (double[4] x) => (double y) <double s = {0.1}, uint8 z = {20}, double t = {0.2}, uint8 u = {30}>\n"
             "{ q = QuantizeLinear(x, s, z) r = com.microsoft.QLinearLeakyRelu<alpha = 0.25>(q, s, z, t, u)\n"
             "  d = DequantizeLinear(r, t, u) y = ReduceSum<keepdims=0>(d) }",
             x, dx);
    assert_true(dx[0] == 0.25 && dx[1] == 1 && dx[2] == 1 && dx[3] == 0);
}

static void a_pair_of_other_scales_stays_a_pair(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse("g (float[4] x) => (y) <float s = {1}, float t = {2}>\n"
                          "{ q = QuantizeLinear(x, s) y = DequantizeLinear(q, t) }",
                          &builtin_ops, &model, &err),
              &err);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    assert_ok(pass_expand(model->graph, &err), &err);
    assert_true(node_is(model->graph->last, "DequantizeLinear"));
    assert_int_equal(model->graph->node_count, 2);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_passes_where_nothing_was_clipped),
        cmocka_unit_test(eight_bit_floats_clip_beyond_their_largest_number),
        cmocka_unit_test(the_gradient_passes_through_an_operator_on_quanta),
        cmocka_unit_test(a_pair_of_other_scales_stays_a_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
