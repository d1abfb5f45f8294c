/* passes/cut: what only served the cut outputs goes, everything else stays as it was (hazards 10 to 14, 19, 26). */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, NULL, &model, &err), &err);
    return model;
}

/* Cuts `before` at `features` for `output` (NULL: all) and compares the graph with `after`. */
static void check_cut(const char *before, const char *features, const char *output, bool keep_inputs, const char *after)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse(before), *wanted = parse(after);
    Value *at = graph_find(model->graph, features);
    assert_non_null(at);
    assert_ok(pass_cut(model, at, output == NULL ? NULL : graph_find(model->graph, output), keep_inputs, &err), &err);
    assert_ok(model_check(model, &err), &err);
    Str found, expected;
    str_init(&found);
    str_init(&expected);
    graph_print(model->graph, &found);
    graph_print(wanted->graph, &expected);
    assert_string_equal(found.text, expected.text);
    str_release(&found);
    str_release(&expected);
    model_free(model);
    model_free(wanted);
}

static void cut_removes_the_layer_its_weights_and_what_follows(void **state)
{
    (void)state;
    check_cut(
        "g (float[N,4] x) => (float[N,2] y) <float[4,4] v={...}, float[2,4] w={...}, float[2] b={...}, float[N,4] h> {"
        "h = MatMul(x, v) r = Relu(h) l = Gemm<transB=1>(r, w, b) y = Softmax(l) }",
        "r", "y", false, "g (float[N,4] x) => (r) <float[4,4] v={...}, float[N,4] h> { h = MatMul(x, v) r = Relu(h) }");
}

static void cut_keeps_other_outputs_and_their_branch(void **state)
{
    (void)state;
    const char *two = "g (float[N,4] x) => (float[N,2] a, float[N,3] b) <float[2,4] v={...}, float[3,4] w={...}> {"
                      "h = Elu(x) a = Gemm<transB=1>(h, v) b = Gemm<transB=1>(h, w) }";
    check_cut(two, "h", "a", false,
              "g (float[N,4] x) => (h, float[N,3] b) <float[3,4] w={...}> { h = Elu(x) b = Gemm<transB=1>(h, w) }");
    check_cut(two, "h", NULL, false, "g (float[N,4] x) => (h) { h = Elu(x) }");
}

static void cut_takes_outputs_that_hang_on_the_same_layer(void **state)
{
    (void)state;
    const char *both = "g (float[N,4] x) => (float[N,2] s, float[N,2] p) <float[2,4] v={...}> {"
                       "h = Elu(x) s = Gemm<transB=1>(h, v) p = Softmax(s) }";
    check_cut(both, "h", "s", false, "g (float[N,4] x) => (h) { h = Elu(x) }");
    check_cut(both, "h", "p", false, "g (float[N,4] x) => (h) { h = Elu(x) }");
}

static void features_that_are_an_output_already_stay_where_they_are(void **state)
{
    (void)state;
    check_cut(
        "g (float[N,4] x) => (float[N,2] y, float[N,4] h) <float[2,4] v={...}> { h = Elu(x) y = Gemm<transB=1>(h, v) }",
        "h", "y", false, "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }");
}

static void inputs_that_lose_their_last_use_go_unless_kept(void **state)
{
    (void)state;
    const char *masked = "g (float[N,4] x, float[N,4] mask, float[N] unused) => (float[N,2] y) <float[4,2] v={...}> {"
                         "h = Elu(x) m = Mul(h, mask) y = MatMul(m, v) }";
    check_cut(masked, "h", NULL, false, "g (float[N,4] x, float[N] unused) => (h) { h = Elu(x) }");
    check_cut(masked, "h", NULL, true, "g (float[N,4] x, float[N,4] mask, float[N] unused) => (h) { h = Elu(x) }");
}

static void initializers_that_the_trunk_shares_stay(void **state)
{
    (void)state;
    check_cut("g (float[N,4] x) => (float[N,4] y) <float[4,4] v={...}, float[4] b={...}> {"
              "h = Gemm(x, v, b) y = Gemm(h, v, b) }",
              "h", NULL, false, "g (float[N,4] x) => (h) <float[4,4] v={...}, float[4] b={...}> { h = Gemm(x, v, b) }");
}

static void what_nobody_needed_before_stays(void **state)
{
    (void)state;
    check_cut("g (float[N,4] x) => (float[N,2] y) <float[4,2] v={...}, float d={2.0}> {"
              "h = Elu(x) dead = Mul(x, d) y = MatMul(h, v) }",
              "h", NULL, false, "g (float[N,4] x) => (h) <float d={2.0}> { h = Elu(x) dead = Mul(x, d) }");
}

static void dead_readers_of_what_goes_go_too(void **state)
{
    (void)state;
    check_cut("g (float[N,4] x) => (float[N,2] y) <float[4,2] v={...}> {"
              "h = Elu(x) z = MatMul(h, v) dead = Relu(z) y = Softmax(z) }",
              "h", NULL, false, "g (float[N,4] x) => (h) { h = Elu(x) }");
}

static void values_that_bodies_read_stay_with_them(void **state)
{
    (void)state;
    check_cut("g (float[N,4] x, bool c) => (float[N,4] y, float[N,4] z) <float[4] b={...}> {"
              "h = Elu(x) k = Relu(x)"
              "z = If <then_branch = t () => (u) { u = Add(k, b) }, else_branch = e () => (w) { w = Neg(k) }> (c)"
              "y = Add(h, b) }",
              "h", "y", false,
              "g (float[N,4] x, bool c) => (h, float[N,4] z) <float[4] b={...}> {"
              "h = Elu(x) k = Relu(x)"
              "z = If <then_branch = t () => (u) { u = Add(k, b) }, else_branch = e () => (w) { w = Neg(k) }> (c) }");
}

static void class_names_go_with_the_classes(void **state)
{
    (void)state;
    Model *model = parse("<metadata_props: [\"names\" : \"{0: 'cat'}\", \"author\" : \"me\"]>"
                         "g (float[N,4] x) => (float[N,2] y) <float[4,2] v={...}> { h = Elu(x) y = MatMul(h, v) }");
    Error err = {STATUS_OK, ""};
    assert_ok(pass_cut(model, graph_find(model->graph, "h"), NULL, false, &err), &err);
    assert_null(model_metadata(model, "names"));
    assert_string_equal(model_metadata(model, "author"), "me");
    assert_string_equal(model_metadata(model, "regraft.cut_output"), "y");
    model_free(model);
}

static void cutting_where_nothing_follows_is_refused(void **state)
{
    (void)state;
    Model *model = parse("g (float[N,4] x) => (float[N,2] y, float[N,4] k) <float[4,2] v={...}> {"
                         "h = Elu(x) y = MatMul(h, v) k = Relu(x) }");
    Graph *graph = model->graph;
    Error err = {STATUS_OK, ""};
    assert_int_equal(pass_cut(model, graph_find(graph, "k"), NULL, false, &err), STATUS_USAGE);
    assert_string_equal(err.message, "'k' does not lead to another output");
    error_clear(&err);
    assert_int_equal(pass_cut(model, graph_find(graph, "h"), graph_find(graph, "k"), false, &err), STATUS_USAGE);
    assert_string_equal(err.message, "'h' does not lead to output 'k'");
    error_clear(&err);
    assert_int_equal(pass_cut(model, graph_find(graph, "v"), NULL, false, &err), STATUS_USAGE);
    assert_string_equal(err.message, "'v' is a constant, not something computed");
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_removes_the_layer_its_weights_and_what_follows),
        cmocka_unit_test(cut_keeps_other_outputs_and_their_branch),
        cmocka_unit_test(cut_takes_outputs_that_hang_on_the_same_layer),
        cmocka_unit_test(features_that_are_an_output_already_stay_where_they_are),
        cmocka_unit_test(inputs_that_lose_their_last_use_go_unless_kept),
        cmocka_unit_test(initializers_that_the_trunk_shares_stay),
        cmocka_unit_test(what_nobody_needed_before_stays),
        cmocka_unit_test(dead_readers_of_what_goes_go_too),
        cmocka_unit_test(values_that_bodies_read_stay_with_them),
        cmocka_unit_test(class_names_go_with_the_classes),
        cmocka_unit_test(cutting_where_nothing_follows_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
