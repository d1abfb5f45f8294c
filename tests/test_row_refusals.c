/* Nodes that mean nothing are refused by their row, by name, before anything runs on them. All were crashes, hangs or
 * wrong shapes once, found by suite_abuse; Scan-8 is refused by what upgrades it, RoiAlign when it sees its regions. */
#include "tests/graph_test.h"

static const struct Refusal {
    const char *graph, *says;
} refusals[] = {
    {"g (float x) => (y) <float[0] s = {}> { y = QuantizeLinear(x, s) }", "axis 1 is outside"},
    {"g (string[3] x, string[3] s, string[3] z) => (y) { y = QuantizeLinear<axis=0>(x, s, z) }", "string with scales"},
    {"g (string[3] x, float s) => (y) { y = DequantizeLinear(x, s) }", "quantised as string"},
    {"g (string[2,3] x) => (y) <int64 a = {1}> { y = CumSum(x, a) }", "string cannot be cumulated"},
    {"g (bool[2,3] x) => (y) <int64 a = {1}> { y = CumSum(x, a) }", "bool cannot be cumulated"},
    {"g (float[2,3,5] x, float[3,1,4] w, float[3] b, float[2,3,2] s) => (y, z) { y, z = CausalConvWithState(x, w, b, "
     "s) }",
     "[2,3,3] expected"},
    {"g (int64[2,3] x, int64[3] s) => (y) { y = RMSNormalization(x, s) }", "floats are expected"},
    {"g (int64[2,3] x) => (y) { y = LpNormalization(x) }", "floats are expected"},
};

static void refused(const char *graph, const char *says, Status status, const Error *err)
{
    if (status == STATUS_OK || strstr(err->message, says) == NULL)
        fail_msg("%s: '%s' is not said: %s", graph, says, status == STATUS_OK ? "it is taken" : err->message);
}

static void inference_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        Error err = {STATUS_OK, ""};
        char text[400];
        snprintf(text, sizeof text, NEWEST "%s", refusals[i].graph);
        Model *model = parse_model(text);
        Status status = pass_infer_known(model->graph, &err);
        refused(refusals[i].graph, refusals[i].says, status, &err);
        model_free(model);
    }
}

static void scan_8_needs_its_first_input(void **state)
{
    (void)state;
    const char *text = "<ir_version: 3, opset_import: [\"\" : 8]> g (float[2] x) => (y) {"
                       "y = Scan<num_scan_inputs = 0, body = b () => (float[2] z) { z = Relu(x) }>() }";
    Error err = {STATUS_OK, ""};
    Model *model = parse_model(text);
    refused(text, "Scan-8 without inputs", pass_upgrade(model->graph, &err), &err);
    model_free(model);
}

static void regions_beyond_any_image_are_not_sampled(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    const char *text =
        NEWEST "g () => (y) <float[1,1,2,2] x = {1, 2, 3, 4}, float[1,4] r = {0, -1e30, 1, 1}, int64[1] b = {0}>"
               "{ y = RoiAlign(x, r, b) }";
    Model *model = parse_model(text);
    Arena arena;
    Run run;
    Array *outputs[1];
    arena_init(&arena);
    Status status = run_build(&run, model, (const Array *[]){NULL}, &err);
    if (status == STATUS_OK)
        status = run_planned(&run, outputs, &arena, 0, &err);
    refused(text, "pixels a bin", status, &err);
    model_free(run.working);
    model_free(model);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inference_refuses),
        cmocka_unit_test(scan_8_needs_its_first_input),
        cmocka_unit_test(regions_beyond_any_image_are_not_sampled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
