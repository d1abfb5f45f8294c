/* passes/gradient: Gradient nodes of ai.onnx.preview.training, run by both engines. */
#include "tests/graph_test.h"

#define HEAD "<ir_version: 11, opset_import: [\"\" : 28, \"ai.onnx.preview.training\" : 1]> "
#define GRADIENT "ai.onnx.preview.training.Gradient"

/* Scalars in, scalars out: every output against `expected`. */
static void check(const char *text, const float *values, const double *expected)
{
    Arena arena;
    Error err = {0};
    Array arrays[4];
    const Array *inputs[4];
    Array *outputs[4] = {NULL};
    float data[4];
    arena_init(&arena);
    for (int planned = 0; planned < 2; planned++) {
        Model *model = parse_model(text);
        Run run;
        for (size_t i = 0; i < model->graph->input_count; i++) {
            data[i] = values[i];
            arrays[i] = (Array){.dtype = DTYPE_F32, .rank = 0, .count = 1, .data = &data[i]};
            inputs[i] = &arrays[i];
        }
        assert_ok(run_build(&run, model, inputs, &err), &err);
        assert_ok((planned ? run_planned : run_interpreted)(&run, outputs, &arena, 0, &err), &err);
        for (size_t i = 0; i < model->graph->output_count; i++)
            if (fabs(array_f64_at(outputs[i], 0) - expected[i]) > 1e-5)
                fail_msg("output %zu is %g, %g expected", i, array_f64_at(outputs[i], 0), expected[i]);
        model_free(run.working);
        model_free(model);
    }
    arena_release(&arena);
}

static void a_function_is_differentiated_where_it_stands(void **state)
{
    (void)state; /* y = (a + b) a */
    check(HEAD "g (float a, float b) => (float y, float da, float db) { c = Add(a, b) y = Mul(c, a) "
               "da, db = " GRADIENT "<xs = [\"a\", \"b\"], y = \"y\">(a, b) }",
          (float[]){3, 5}, (double[]){24, 11, 3});
}

static void what_only_the_gradient_reads_is_no_dead_code(void **state)
{
    (void)state; /* y = exp(a); the node comes before what it names */
    check(HEAD "g (float a) => (float da) { da = " GRADIENT "<xs = [\"a\"], y = \"y\">(a) y = Exp(a) }", (float[]){1},
          (double[]){2.718281828});
}

static void other_values_may_be_put_in(void **state)
{
    (void)state; /* h = w x, y = h h z, at h = 7 instead: dy/dh = 2 h z, dy/dz = h h */
    check(HEAD "g (float w, float x, float z, float h1) => (float y, float dh, float dz) { h = Mul(w, x) s = Mul(h, h) "
               "y = Mul(s, z) dh, dz = " GRADIENT "<xs = [\"h\", \"z\"], y = \"y\">(h1, z) }",
          (float[]){2, 3, 5, 7}, (double[]){180, 70, 49});
}

static void zs_are_given_and_not_differentiated(void **state)
{
    (void)state; /* y = w x at x = 4 */
    check(HEAD "g (float w, float x, float other) => (float dw) { y = Mul(w, x) "
               "dw = " GRADIENT "<xs = [\"w\"], zs = [\"x\"], y = \"y\">(w, other) }",
          (float[]){2, 3, 4}, (double[]){4});
}

static void an_output_may_be_left_out_and_what_has_no_part_is_zero(void **state)
{
    (void)state;
    check(HEAD "g (float a, float b, float c) => (float db, float dc) { y = Mul(a, b) "
               ", db, dc = " GRADIENT "<xs = [\"a\", \"b\", \"c\"], y = \"y\">(a, b, c) }",
          (float[]){2, 3, 4}, (double[]){2, 0});
}

static void a_gradient_of_a_gradient(void **state)
{
    (void)state; /* y = a a a: 3 a a, then 6 a */
    check(HEAD "g (float a) => (float d, float dd) { s = Mul(a, a) y = Mul(s, a) "
               "d = " GRADIENT "<xs = [\"a\"], y = \"y\">(a) dd = " GRADIENT "<xs = [\"a\"], y = \"d\">(a) }",
          (float[]){2}, (double[]){12, 12});
}

static void refused(const char *text, const char *part)
{
    Error err = {0};
    Model *model = parse_model(text);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    assert_int_not_equal(pass_gradient(model->graph, &err), STATUS_OK);
    if (strstr(err.message, part) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, part);
    model_free(model);
}

static void names_and_inputs_must_fit(void **state)
{
    (void)state;
    refused(HEAD "g (float a) => (float d) { y = Exp(a) d = " GRADIENT "<xs = [\"b\"], y = \"y\">(a) }",
            "names 'b', which its graph does not hold");
    refused(HEAD "g (float a) => (float d) { y = Exp(a) d = " GRADIENT "<xs = [\"a\"], y = \"z\">(a) }",
            "names 'z', which its graph does not hold");
    refused(HEAD "g (float a) => (float d) { y = Exp(a) d = " GRADIENT "<xs = [\"a\", \"a\"], y = \"y\">(a) }",
            "names more values than its 1 inputs");
    refused(HEAD "g (float a, float[2] b) => (float d) { y = Exp(a) d = " GRADIENT "<xs = [\"a\"], y = \"y\">(b) }",
            "input 0 is float32[2], 'a' is float32[]");
    refused(HEAD "g (float a) => (float d) { y = Exp(a) d, e = " GRADIENT "<xs = [\"a\"], y = \"y\">(a) }",
            "1 xs and 2 outputs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_function_is_differentiated_where_it_stands),
        cmocka_unit_test(what_only_the_gradient_reads_is_no_dead_code),
        cmocka_unit_test(other_values_may_be_put_in),
        cmocka_unit_test(zs_are_given_and_not_differentiated),
        cmocka_unit_test(an_output_may_be_left_out_and_what_has_no_part_is_zero),
        cmocka_unit_test(a_gradient_of_a_gradient),
        cmocka_unit_test(names_and_inputs_must_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
