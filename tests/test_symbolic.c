/* passes/symbolic: open types are filled in with what each dim depends on; what the file says stays. */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

#define HEADER "<ir_version: 8, opset_import: [\"\" : 17]> "

static void dims_say_what_they_depend_on(void **state)
{
    (void)state;
    static const struct {
        const char *text, *value, *type;
    } cases[] = {
        {"g (float[batch,4] x) => (float[] y) { h = Relu(x) y = Abs(h) }", "h", "float32[batch,4]"},
        {"g (float[N,T,8] x) => (y) <int64[2] s={-1,8}> { y = Reshape(x, s) }", "y", "float32[N*T,8]"},
        {"g (float[N,T,8] x) => (y) <int64[2] s={0,-1}> { y = Reshape(x, s) }", "y", "float32[N,8*T]"},
        {"g (float[N,3,H,W] x) => (y) <float[4,3,3,3] k={0.5,...}> { y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, k) }",
         "y", "float32[N,4,H/2,W/2]"},
        {"g (float[N,3,H,H] x) => (y) <float[4,3,3,3] k={0.5,...}> { y = Conv(x, k) }", "y", "float32[N,4,H-2,H-2]"},
        {"g (float[?,4] x) => (y) { y = Relu(x) }", "y", "float32[?,4]"},
        {"g (float[N,4] x) => (y) { y = Concat<axis=0>(x, x) }", "y", "float32[2*N,4]"},
        {"g (float[N,4] x) => (float[M,4] y) { y = Relu(x) }", "y", "float32[M,4]"}, /* the file's word */
        {"g (float[2,4] x) => (y) { y = Flatten(x) }", "y", "float32[2,4]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[600];
        snprintf(text, sizeof text, HEADER "%s", cases[i].text);
        Error err = {STATUS_OK, ""};
        Model *model = NULL;
        assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
        assert_ok(shapes_symbolic(model, NULL, &err), &err);
        const Value *value = graph_find(model->graph, cases[i].value);
        assert_string_equal(type_text(&model->arena, &value->type), cases[i].type);
        model_free(model);
    }
}

static void a_baked_batch_is_found_with_its_node(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(HEADER "g (float[N,4] x) => (y) <int64[2] s={1,4}> { h = Relu(x) [bad] y = Reshape(h, s) }",
                          &builtin_ops, &model, &err),
              &err);
    const Node *baked = NULL;
    assert_ok(shapes_symbolic(model, &baked, &err), &err);
    assert_non_null(baked);
    assert_string_equal(baked->name, "bad");
    model_free(model);
}

static void shapes_that_never_fit_are_refused(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(HEADER "g (float[N,4] x) => (y) <float[5,2] w={0.5,...}> { [mm] y = MatMul(x, w) }",
                          &builtin_ops, &model, &err),
              &err);
    assert_int_equal(shapes_symbolic(model, NULL, &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "MatMul 'mm'"));
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dims_say_what_they_depend_on),
        cmocka_unit_test(a_baked_batch_is_found_with_its_node),
        cmocka_unit_test(shapes_that_never_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
