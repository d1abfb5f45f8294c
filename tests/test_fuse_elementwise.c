/* Elementwise trees become one node, and only where nobody else looks at what is between. */
#include "tests/test.h"

#include "passes/passes.h"
#include "runtime/runtime.h"

static Model *fused(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    assert_ok(pass_fuse_elementwise(model->graph, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    return model;
}

static void assert_count(const char *text, size_t nodes)
{
    Model *model = fused(text);
    assert_int_equal(model->graph->node_count, nodes);
    model_free(model);
}

static void a_chain_becomes_one_node_with_the_chain_as_its_body(void **state)
{
    (void)state;
    Model *model = fused("g (float[40,50] x, float[50] b) => (float[40,50] y) <float k = {2.0}> {\n"
                         "    s = Add (x, b)\n    m = Mul (s, k)\n    y = Relu (m)\n}\n");
    Str out;
    str_init(&out);
    graph_print(model->graph, &out);
    assert_string_equal(out.text, "g (float[40,50] x, float[50] b) => (float[40,50] y) <\n    float k = {2.0}\n>\n{\n"
                                  "    y = ai.regraft.Fused <body = fused (float[40,50] value, float[50] value_1) => "
                                  "(float[40,50] value_4) {\n"
                                  "            value_2 = Add (value, value_1) # float[40,50]\n"
                                  "            value_3 = Mul (value_2, k) # float[40,50]\n"
                                  "            value_4 = Relu (value_3)\n"
                                  "        }> (x, b)\n}\n");
    str_release(&out);
    model_free(model);
}

static void what_somebody_else_reads_stays(void **state)
{
    (void)state;
    assert_count("g (float[40,50] x) => (y) { a = Exp(x) b = Neg(a) c = Transpose(a) y = MatMul(b, c) }", 4);
    assert_count("g (float[40,50] x) => (a, y) { a = Exp(x) y = Neg(a) }", 2);
    assert_count("g (float[40,50] x) => (y) { a = Exp(x) b = Neg(a) y = Add(a, b) }", 1);
}

static void gradients_are_kept(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse("g (float[40,50] x) => (y) { a = Exp(x) y = Neg(a) }", &builtin_ops, &model, &err), &err);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    graph_find(model->graph, "x")->gradient = graph_find(model->graph, "a");
    assert_ok(pass_fuse_elementwise(model->graph, &err), &err);
    assert_int_equal(model->graph->node_count, 2);
    model_free(model);
}

static void small_or_other_shapes_and_types_stay(void **state)
{
    (void)state;
    assert_count("g (float[4,5] x) => (y) { a = Exp(x) y = Neg(a) }", 2);
    assert_count("g (float[40,1] x, float[40,50] z) => (y) { a = Exp(x) y = Mul(a, z) }", 2);
    assert_count("g (double[40,50] x) => (y) { a = Exp(x) y = Neg(a) }", 2);
}

static void trees_are_bounded(void **state)
{
    (void)state;
    assert_count("g (float[40,50] x) => (y) { a = Exp(x) b = Neg(a) c = Exp(b) d = Neg(c) e = Exp(d) f = Neg(e)\n"
                 " h = Exp(f) y = Neg(h) }",
                 2);
    assert_count(
        "g (float[40,50] a, float[40,50] b, float[40,50] c, float[40,50] d, float[40,50] e, float[40,50] f,\n"
        " float[40,50] h, float[40,50] i, float[40,50] j) => (y) { s = Sum(a, b, c, d) t = Sum(e, f, h, i, j)\n"
        " y = Add(s, t) }",
        2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_becomes_one_node_with_the_chain_as_its_body),
        cmocka_unit_test(what_somebody_else_reads_stays),
        cmocka_unit_test(gradients_are_kept),
        cmocka_unit_test(small_or_other_shapes_and_types_stay),
        cmocka_unit_test(trees_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
