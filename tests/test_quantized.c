/* Quantised and optimised files (tests/make_quantized.py) against what ONNX Runtime computed: by the interpreter, as
 * the verb run plans them, and as a frozen trunk is planned, with plain kernels and with layouts and fast paths.
 *
 * Floats of two engines differ in their last bits, because sums have another order. Where such a float lies half way
 * between two quanta, one engine rounds up and the other down. That, and no more, is allowed: few quanta differ, each
 * by exactly one. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "data/data.h"
#include "passes/passes.h"
#include "runtime/runtime.h"

typedef enum Engine { INTERPRETER, RUN, FROZEN_PLAIN, FROZEN, ENGINES } Engine;
static const char *const engine_names[] = {"interpreter", "run", "frozen trunk, plain kernels", "frozen trunk"};

typedef struct Case {
    const char *name;
    bool inner; /* quanta inside of it were recorded */
} Case;

static const Case cases[] = {
    {"qdq_tensor", true},     {"qdq_channel", true},        {"qdq_attention", true},
    {"qoperator", true},      {"qoperator_channel", true},  {"qoperator_attention", true},
    {"qoperator_rest", true}, {"conv_extended", false},     {"attention_extended", false},
    {"dynamic_conv", false},  {"dynamic_attention", false},
};

typedef struct Trial {
    const Case *row;
    Npz npz;
    Arena arena;
    Model *document;
    const Array **inputs;
} Trial;

static void trial_open(Trial *t, const Case *row)
{
    char path[512];
    Error err = {STATUS_OK, ""};
    *t = (Trial){.row = row};
    arena_init(&t->arena);
    snprintf(path, sizeof path, "%s/quantized/%s.onnx", TESTS_FOLDER, row->name);
    assert_ok(model_import(path, &builtin_ops, &t->document, &err), &err);
    snprintf(path, sizeof path, "%s/quantized/%s.npz", TESTS_FOLDER, row->name);
    assert_ok(npz_open(&t->npz, path, &err), &err);
    const Graph *graph = t->document->graph;
    t->inputs = arena_array(&t->arena, const Array *, graph->input_count + 1);
    for (size_t i = 0; i < graph->input_count; i++) {
        t->inputs[i] = npz_find(&t->npz, graph->inputs[i]->name);
        assert_non_null(t->inputs[i]);
    }
}

static void trial_close(Trial *t)
{
    model_free(t->document);
    npz_release(&t->npz);
    arena_release(&t->arena);
}

/* Whatever quanta were recorded become outputs. */
static void show_quanta(Trial *t)
{
    Graph *graph = t->document->graph;
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (npz_find(&t->npz, node->outputs[0]->name) != NULL)
            graph_add_output(graph, node->outputs[0]);
}

static Status run_frozen(Trial *t, bool plain, Array **outputs, Error *err)
{
    Model *document = t->document, *working = NULL;
    Plan *plan = NULL;
    Binding *bindings = arena_array(&t->arena, Binding, document->graph->input_count + 1);
    WorkingOptions options = {.bindings = bindings, .binding_count = document->graph->input_count};
    for (size_t i = 0; i < options.binding_count; i++) {
        bindings[i] = (Binding){.input = document->graph->inputs[i]->name, .rank = t->inputs[i]->rank};
        memcpy(bindings[i].dims, t->inputs[i]->dims, sizeof bindings[i].dims);
    }
    TRY(working_build(document, &options, &working, err));
    const Graph *graph = working->graph;
    Status status = plan_build(working, NULL, &(PlanOptions){.plain_only = plain}, &plan, err);
    for (size_t i = 0; i < graph->input_count && status == STATUS_OK; i++)
        memcpy(plan_input(plan, i), t->inputs[i]->data, (size_t)t->inputs[i]->count * dtype_size(t->inputs[i]->dtype));
    if (status == STATUS_OK)
        status = plan_run(plan, 0, 1, false, err);
    for (size_t i = 0; i < graph->output_count && status == STATUS_OK; i++) {
        const Type *type = &graph->outputs[i]->type;
        status = array_new(&t->arena, type->dtype, type->rank, type->dims, &outputs[i], err);
        if (status == STATUS_OK)
            memcpy(outputs[i]->data, plan_output(plan, i), (size_t)outputs[i]->count * dtype_size(type->dtype));
    }
    plan_free(plan);
    model_free(working);
    return status;
}

static Status run_written(Trial *t, bool planned, Array **outputs, Error *err)
{
    Run run;
    TRY(run_build(&run, t->document, t->inputs, err));
    Status status =
        planned ? run_planned(&run, outputs, &t->arena, 0, err) : run_interpreted(&run, outputs, &t->arena, 0, err);
    model_free(run.working);
    return status;
}

/* The scale of the last DequantizeLinear before the output, 0 where there is none. */
static double output_quantum(const Graph *graph)
{
    const Node *last = graph->outputs[0]->producer;
    const Value *scale = last != NULL && node_is(last, "DequantizeLinear") ? last->inputs[1] : NULL;
    return scale != NULL && scale->constant != NULL ? tensor_f64_at(scale->constant, 0) : 0;
}

static void check_output(const Trial *t, Engine engine, const Array *found)
{
    const Array *wanted = npz_find(&t->npz, "expected");
    double quantum = 1.001 * output_quantum(t->document->graph), most = 1;
    for (int64_t i = 0; i < wanted->count; i++)
        most = fmax(most, fabs(array_f64_at(wanted, i)));
    assert_int_equal(found->count, wanted->count);
    for (int64_t i = 0; i < found->count; i++) {
        double a = array_f64_at(found, i), b = array_f64_at(wanted, i);
        if (!(fabs(a - b) <= fmax(1e-5 * most, quantum)))
            fail_msg("%s, %s: element %lld of the output is %.9g, ONNX Runtime has %.9g", t->row->name,
                     engine_names[engine], (long long)i, a, b);
    }
}

/* Every tensor of quanta: at most one in a thousand elements is another, by one. */
static size_t check_quanta(const Trial *t, Engine engine, Array *const *outputs)
{
    const Graph *graph = t->document->graph;
    size_t seen = 0;
    for (size_t i = 1; i < graph->output_count; i++) {
        const char *name = graph->outputs[i]->name;
        const Array *wanted = npz_find(&t->npz, name), *found = outputs[i];
        assert_int_equal(found->count, wanted->count);
        int64_t others = 0;
        for (int64_t k = 0; k < found->count; k++) {
            double off = fabs(array_f64_at(found, k) - array_f64_at(wanted, k));
            others += off > 0;
            if (off > 1 || others * 1000 > found->count + 999)
                fail_msg("%s, %s: element %lld of '%s' is %g, ONNX Runtime has %g; %lld others before", t->row->name,
                         engine_names[engine], (long long)k, name, array_f64_at(found, k), array_f64_at(wanted, k),
                         (long long)others - 1);
        }
        seen += (size_t)found->count;
    }
    return seen;
}

static void check(const Case *row, Engine engine, bool inner)
{
    Trial t;
    Error err = {STATUS_OK, ""};
    trial_open(&t, row);
    if (inner)
        show_quanta(&t);
    Array **outputs = arena_array(&t.arena, Array *, t.document->graph->output_count + 1);
    Status status = engine <= RUN ? run_written(&t, engine == RUN, outputs, &err)
                                  : run_frozen(&t, engine == FROZEN_PLAIN, outputs, &err);
    assert_ok(status, &err);
    check_output(&t, engine, outputs[0]);
    size_t seen = check_quanta(&t, engine, outputs);
    assert_true(seen > 10000 || !inner);
    trial_close(&t);
}

static void engines_agree_with_onnx_runtime(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (Engine engine = 0; engine < ENGINES; engine++)
            check(&cases[c], engine, false);
}

static void quanta_inside_are_those_of_onnx_runtime(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (Engine engine = 0; engine < ENGINES && cases[c].inner; engine++)
            check(&cases[c], engine, true);
}

/* onnxruntime documents it and runs it nowhere: the mean of (1, 3) is 2, of (10, 30) is 20, in units of 0.5. */
static void a_mean_of_quanta_is_quantised_anew(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Arena arena;
    Run run;
    Array *output;
    Model *model;
    arena_init(&arena);
    assert_ok(
        model_parse("<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]>\n"
                    "g () => (uint8[2] y) <uint8[2,2] x = {101, 103, 110, 130}, float s = {0.5}, uint8 z = {100}, "
                    "float t = {0.25}> {\n"
                    "    y = com.microsoft.QLinearReduceMean<axes=[1], keepdims=0>(x, s, z, t)\n}\n",
                    &builtin_ops, &model, &err),
        &err);
    assert_ok(run_build(&run, model, NULL, &err), &err);
    assert_ok(run_planned(&run, &output, &arena, 0, &err), &err);
    assert_int_equal(output->dtype, DTYPE_U8);
    assert_int_equal(output->count, 2);
    assert_int_equal(((uint8_t *)output->data)[0], 4);
    assert_int_equal(((uint8_t *)output->data)[1], 40);
    model_free(run.working);
    model_free(model);
    arena_release(&arena);
}

static void a_scale_that_is_missing_is_named(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model;
    Run run;
    assert_ok(model_parse("<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]>\n"
                          "g () => (uint8[2] y) <uint8[2] x = {1, 2}, float s = {0.5}> {\n"
                          "    y = com.microsoft.QLinearAdd(x, s, , x, s)\n}\n",
                          &builtin_ops, &model, &err),
              &err);
    assert_int_not_equal(run_build(&run, model, NULL, &err), STATUS_OK);
    assert_non_null(strstr(err.message, "input 6 is missing"));
    model_free(run.working);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_agree_with_onnx_runtime),
        cmocka_unit_test(quanta_inside_are_those_of_onnx_runtime),
        cmocka_unit_test(a_mean_of_quanta_is_quantised_anew),
        cmocka_unit_test(a_scale_that_is_missing_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
