/* A document made ready for inference: what an exported model has. */
#include "tests/graph_test.h"

static void live_batchnorms_of_every_opset_get_inference_form(void **state)
{
    (void)state;
    static const char *const heads[] = {"<ir_version: 7, opset_import: [\"\" : 13]> ",
                                        "<ir_version: 8, opset_import: [\"\" : 15]> "};
    static const char *const nodes[] = {"y, m1, v1, m2, v2 = BatchNormalization (x, s, b, m, v)",
                                        "y, m1, v1 = BatchNormalization <training_mode = 1> (x, s, b, m, v)"};
    for (int i = 0; i < 2; i++) {
        Str text;
        Error err = {STATUS_OK, ""};
        str_init(&text);
        str_printf(&text,
                   "%s g (float[N,2,3] x) => (float[N,2,3] z) <float[2] s = {1.0, ...}, float[2] b = {0.0, ...}, "
                   "float[2] m = {0.0, ...}, float[2] v = {1.0, ...}> { %s z = Relu (y) }",
                   heads[i], nodes[i]);
        Model *model = parse_model(text.text);
        document_to_inference(model);
        const Node *node = model->graph->first;
        assert_int_equal(node->output_count, 1);
        assert_int_equal(node_int(node, "training_mode", 0), 0);
        assert_null(graph_find(model->graph, "m1"));
        assert_ok(model_check(model, &err), &err);
        model_free(model);
        str_release(&text);
    }
}

static void statistics_that_somebody_reads_stay_as_written(void **state)
{
    (void)state;
    Model *model = parse_model(
        "<ir_version: 8, opset_import: [\"\" : 15]> g (float[N,2,3] x) => (float[N,2,3] y, float[2] m1) "
        "<float[2] s = {1.0, ...}, float[2] b = {0.0, ...}, float[2] m = {0.0, ...}, float[2] v = {1.0, ...}> "
        "{ y, m1, v1 = BatchNormalization <training_mode = 1> (x, s, b, m, v) }");
    document_to_inference(model);
    assert_int_equal(node_int(model->graph->first, "training_mode", 0), 1);
    assert_int_equal(model->graph->first->output_count, 3);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_batchnorms_of_every_opset_get_inference_form),
        cmocka_unit_test(statistics_that_somebody_reads_stay_as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
