/* runtime/profile.c and peak.c: the table's numbers follow from rows and slots; the trace is what Perfetto reads. */
#include "tests/graph_test.h"

#include <jansson.h>

#include "runtime/plan.h"

static Plan *profiled(Model **model)
{
    Error err = {0};
    Plan *plan = NULL;
    *model =
        parse_inferred(NEWEST "g (float[64,128] x, float[128,32] w) => (y) {\n h = MatMul(x, w)\n y = Softmax(h)\n}");
    assert_ok(plan_build(*model, NULL, &(PlanOptions){.profile = true}, &plan, &err), &err);
    for (int i = 0; i < 3; i++)
        assert_ok(plan_run(plan, 0, 0, false, &err), &err);
    return plan;
}

static void peaks_are_measured(void **state)
{
    (void)state;
    Error err = {0};
    MachinePeak peak;
    assert_ok(peak_measure(&peak, &err), &err);
    assert_true(peak.f32_flops > 1e8 && peak.f32_flops < 1e15);
    assert_true(peak.bytes > 1e8 && peak.bytes < 1e14);
}

static void operations_are_counted_by_rows(void **state)
{
    (void)state;
    Model *model = parse_inferred(
        NEWEST "g (float[2,16,8,8] x, float[32,8,3,3] w, float[5,7] a, float[7,3] b, float[4] c) => (y, z, s) {\n"
               " y = Conv<group = 2, pads = [1,1,1,1]>(x, w)\n z = MatMul(a, b)\n s = Exp(c)\n}");
    const double expected[] = {2.0 * 2 * 32 * 8 * 8 * 8 * 9, 2.0 * 5 * 7 * 3, 4};
    int at = 0;
    for (const Node *node = model->graph->first; node != NULL; node = node->next)
        assert_true(fabs(node_flops(node) - expected[at++]) < 0.5);
    assert_int_equal(at, 3);
    model_free(model);
}

static void the_table_names_steps_and_rates(void **state)
{
    (void)state;
    Model *model;
    Plan *plan = profiled(&model);
    Str out;
    str_init(&out);
    plan_profile(plan, &(MachinePeak){1e11, 0, 1e10}, &out);
    assert_non_null(strstr(out.text, "3 runs of"));
    assert_non_null(strstr(out.text, "MatMul"));
    assert_non_null(strstr(out.text, "Softmax"));
    assert_non_null(strstr(out.text, "GFLOP/s"));
    str_release(&out);
    plan_free(plan);
    model_free(model);
}

static void the_trace_is_complete_events_in_order(void **state)
{
    (void)state;
    Model *model;
    Plan *plan = profiled(&model);
    Str out;
    str_init(&out);
    plan_trace(plan, &out);
    json_error_t fault;
    json_t *trace = json_loads(out.text, 0, &fault), *events = json_object_get(trace, "traceEvents");
    assert_int_equal(json_array_size(events), plan->step_count);
    double end = 0;
    bool product = false;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i), *args = json_object_get(event, "args");
        assert_string_equal(json_string_value(json_object_get(event, "ph")), "X");
        assert_true(json_is_integer(json_object_get(event, "pid")) && json_is_integer(json_object_get(event, "tid")));
        double begin = json_number_value(json_object_get(event, "ts"));
        double took = json_number_value(json_object_get(event, "dur"));
        assert_true(begin >= end - 0.01 && took >= 0);
        end = begin + took;
        assert_true(json_is_string(json_object_get(args, "kernel")) && json_is_string(json_object_get(args, "node")));
        if (strcmp(json_string_value(json_object_get(event, "name")), "MatMul") == 0) {
            product = true;
            assert_int_equal((long long)json_number_value(json_object_get(args, "flops")), 2 * 64 * 128 * 32);
        }
    }
    assert_true(product && end > 0);
    json_decref(trace);
    str_release(&out);
    plan_free(plan);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peaks_are_measured), cmocka_unit_test(operations_are_counted_by_rows),
        cmocka_unit_test(the_table_names_steps_and_rates), cmocka_unit_test(the_trace_is_complete_events_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
