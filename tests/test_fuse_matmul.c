/* What matrix products take up, text to text. */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

/* The nodes of `text` after the pass, without names of values that the pass made up: graphs are written so that there
 * are none. */
static void expect(const char *text, const char *nodes)
{
    Error err = {0};
    Model *model = NULL;
    Str full, printed;
    str_init(&full);
    str_init(&printed);
    str_printf(&full, "<ir_version: 10, opset_import: [\"\" : 28]>\n%s", text);
    assert_ok(model_parse(full.text, &builtin_ops, &model, &err), &err);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    assert_ok(pass_fuse_matmul(model->graph, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    graph_print(model->graph, &printed);
    if (strstr(printed.text, nodes) == NULL)
        fail_msg("expected\n%s\nfound\n%s", nodes, printed.text);
    str_release(&full);
    str_release(&printed);
    model_free(model);
}

static void a_bias_is_added_where_the_product_is_computed(void **state)
{
    (void)state;
    expect("g (float[2,3,4] x, float[4,5] w, float[5] b) => (float[2,3,5] y) {\n"
           "    h = MatMul(x, w)\n    y = Add(b, h)\n}\n",
           "y = ai.regraft.MatMulStrided (x, w, b)");
}

static void transposes_and_factors_before_attention_scores_are_read_through(void **state)
{
    (void)state;
    expect("g (float[2,5,3,4] q, float[2,6,3,4] k) => (float[2,3,5,6] y) <float s = {0.5}> {\n"
           "    a = Transpose<perm=[0,2,1,3]>(q)\n    b = Transpose<perm=[0,2,3,1]>(k)\n"
           "    c = Mul(a, s)\n    d = Mul(s, b)\n    y = MatMul(c, d)\n}\n",
           "y = ai.regraft.MatMulStrided <perm_a = [0, 2, 1, 3], perm_b = [0, 2, 3, 1], alpha = 0.25> (q, k)");
}

static void a_transpose_behind_becomes_the_order_of_the_result(void **state)
{
    (void)state;
    expect("g (float[2,3,5,6] p, float[2,6,3,4] v) => (float[2,5,3,4] y) {\n"
           "    a = Transpose<perm=[0,2,1,3]>(v)\n    b = MatMul(p, a)\n    y = Transpose<perm=[0,2,1,3]>(b)\n}\n",
           "y = ai.regraft.MatMulStrided <perm_b = [0, 2, 1, 3], perm_y = [0, 2, 1, 3]> (p, v)");
}

static void what_somebody_else_reads_stays(void **state)
{
    (void)state;
    expect("g (float[2,3] x, float[4,3] w, float[4] b) => (float[2,4] y, float[2,4] h) {\n"
           "    t = Transpose(w)\n    h = MatMul(x, t)\n    y = Add(h, b)\n}\n",
           "h = ai.regraft.MatMulStrided <perm_b = [1, 0]> (x, w)\n");
    expect("g (float[2,3] x, float[4,3] w) => (float[2,4] y, float[3,4] z) {\n"
           "    t = Transpose(w)\n    y = MatMul(x, t)\n    z = Relu(t)\n}\n",
           "y = MatMul (x, t)");
}

static void a_transpose_that_breaks_up_the_matrix_stays(void **state)
{
    (void)state;
    expect("g (float[2,3,4] x, float[4,3,5] w) => (float[4,2,5] y) {\n"
           "    t = Transpose<perm=[2,0,1]>(x)\n    y = MatMul(t, w)\n}\n",
           "y = MatMul (t, w)");
}

static void a_vector_that_is_no_bias_of_columns_is_left_alone(void **state)
{
    (void)state;
    expect("g (float[2,3] x, float[3,4] w, float[1] b) => (float[2,4] y) {\n"
           "    h = MatMul(x, w)\n    y = Add(h, b)\n}\n",
           "h = MatMul (x, w)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bias_is_added_where_the_product_is_computed),
        cmocka_unit_test(transposes_and_factors_before_attention_scores_are_read_through),
        cmocka_unit_test(a_transpose_behind_becomes_the_order_of_the_result),
        cmocka_unit_test(what_somebody_else_reads_stays),
        cmocka_unit_test(a_transpose_that_breaks_up_the_matrix_stays),
        cmocka_unit_test(a_vector_that_is_no_bias_of_columns_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
