/* Matrix products: what they take up, text to text; what their gradients are made of (runtime/ops/matmul.c) and which
 * kernels they get (product_kernel.c). The numbers are compared in suite_gradients.c. */
#include "tests/graph_test.h"

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

/* A model of this product and the gradient of `w` in the sum of its results. */
static Model *gradient_of(const char *inputs, const char *product)
{
    Error err = {STATUS_OK, ""};
    Str text;
    str_init(&text);
    str_printf(&text, NEWEST "g (%s) => (float s) { y = ai.regraft.%s s = ReduceSum<keepdims = 0>(y) }", inputs,
               product);
    Model *model = parse_inferred(text.text);
    Value *w = graph_find(model->graph, "w");
    assert_ok(pass_autodiff(model->graph, graph_find(model->graph, "s"), &w, 1, &err), &err);
    graph_add_output(model->graph, w->gradient);
    assert_ok(pass_clean(model->graph, &err), &err);
    str_release(&text);
    return model;
}

/* Operators behind the sum that do something to numbers of the product; the first spreads its gradient. */
static void expect_gradient(const char *inputs, const char *product, const char *expected)
{
    Model *model = gradient_of(inputs, product);
    Str found;
    str_init(&found);
    for (const Node *node = graph_find(model->graph, "s")->producer->next; node != NULL; node = node->next)
        if (!node_is(node, "Reshape"))
            str_printf(&found, " %s", node->op_type);
    assert_string_equal(found.text, expected);
    str_release(&found);
    model_free(model);
}

static void a_weight_of_all_tokens_has_a_gradient_of_one_product(void **state)
{
    (void)state;
    expect_gradient("float[3,20,24] x, float[24,36] w", "MatMulStrided(x, w)", " ReduceSpread MatMulStrided");
}

static void rows_in_another_order_are_moved_rather_than_summed(void **state)
{
    (void)state; /* sequence first, as multi-head attention takes it */
    expect_gradient("float[3,20,24] x, float[24,36] w", "MatMulStrided<perm_a = [1,0,2]>(x, w)",
                    " ReduceSpread Transpose MatMulStrided");
    expect_gradient("float[3,20,24] x, float[24,36] w", "MatMulStrided<perm_y = [1,0,2]>(x, w)",
                    " ReduceSpread Transpose MatMulStrided");
    expect_gradient("float[3,20,24] x, float[24,36] w", "MatMulStrided<perm_a = [1,0,2], perm_y = [1,0,2]>(x, w)",
                    " ReduceSpread MatMulStrided");
}

static void the_smaller_operand_moves(void **state)
{
    (void)state;
    static const char *const inputs[] = {"float[3,20,24] x, float[24,36] w", "float[3,20,24] x, float[24,8] w"};
    for (int i = 0; i < 2; i++) {
        Model *model = gradient_of(inputs[i], "MatMulStrided<perm_a = [1,0,2]>(x, w)");
        const Node *node = model->graph->first;
        while (node != NULL && !node_is(node, "Transpose"))
            node = node->next;
        assert_non_null(node);
        assert_int_equal(node->inputs[0] == graph_find(model->graph, "x"), i == 0);
        model_free(model);
    }
}

static void many_rows_of_a_small_weight_are_summed_over_batches(void **state)
{
    (void)state;
    expect_gradient("float[3,200,24] x, float[24,36] w", "MatMulStrided<perm_a = [0,1,2], perm_y = [0,2,1]>(x, w)",
                    " ReduceSpread MatMulStrided ReduceSum");
    expect_gradient("float[3,24,20] x, float[24,36] w", "MatMulStrided<perm_a = [0,2,1], perm_y = [0,2,1]>(x, w)",
                    " ReduceSpread MatMulStrided ReduceSum");
}

/* The kernel of the one product in `nodes`. */
static void product_kernel(const char *nodes, char kernel[64])
{
    Error err = {STATUS_OK, ""};
    Plan *plan = NULL;
    Str text, steps;
    str_init(&text);
    str_init(&steps);
    str_printf(&text,
               NEWEST "g (float[6,40,32] a, float[6,32,48] b, float[40,6,32] ra, float[32,6,48] rb, float[32,48] w, "
                      "float[48] c) => (y) { y = %s }",
               nodes);
    Model *model = parse_inferred(text.text);
    assert_ok(plan_build(model, NULL, &(PlanOptions){0}, &plan, &err), &err);
    plan_describe(plan, &steps);
    const char *line = strstr(steps.text, " MatMul");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " %*s %63s", kernel), 1);
    str_release(&text);
    str_release(&steps);
    plan_free(plan);
    model_free(model);
}

static void rows_between_batches_get_the_kernel_of_rows_within_them(void **state)
{
    (void)state;
    static const char *const between[] = {
        "ai.regraft.MatMulStrided<perm_a = [1,0,2]>(ra, b)",
        "ai.regraft.MatMulStrided<perm_b = [1,0,2]>(a, rb)",
        "ai.regraft.MatMulStrided<perm_y = [1,0,2]>(a, b)",
        "ai.regraft.MatMulStrided<perm_a = [1,0,2], perm_b = [1,0,2], perm_y = [1,0,2]>(ra, rb)",
        "ai.regraft.MatMulStrided<perm_a = [1,0,2]>(a, w, c)", /* six rows that forty batches repeat w for */
        "ai.regraft.MatMulStrided<perm_a = [1,0,2]>(ra, w, c)",
    };
    char within[64], kernel[64];
    product_kernel("MatMul(a, b)", within);
    for (size_t i = 0; i < sizeof between / sizeof between[0]; i++) {
        product_kernel(between[i], kernel);
        if (strcmp(kernel, within) != 0)
            fail_msg("%s: %s, %s expected", between[i], kernel, within);
    }
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
        cmocka_unit_test(a_weight_of_all_tokens_has_a_gradient_of_one_product),
        cmocka_unit_test(rows_in_another_order_are_moved_rather_than_summed),
        cmocka_unit_test(the_smaller_operand_moves),
        cmocka_unit_test(many_rows_of_a_small_weight_are_summed_over_batches),
        cmocka_unit_test(rows_between_batches_get_the_kernel_of_rows_within_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
