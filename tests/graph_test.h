/* For tests of passes: a model from text, its operators as one line, its outputs on random inputs. */
#ifndef REGRAFT_TESTS_GRAPH_TEST_H
#define REGRAFT_TESTS_GRAPH_TEST_H

#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/runtime.h"

#define NEWEST "<ir_version: 11, opset_import: [\"\" : 28, \"ai.regraft\" : 1]> "

static inline Model *parse_model(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

/* The same with every shape inferred; inputs must have concrete types. */
static inline Model *parse_inferred(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse_model(text);
    assert_ok(pass_infer_known(model->graph, &err), &err);
    return model;
}

/* "Conv Relu Gemm" */
static inline void assert_ops(const Graph *graph, const char *expected)
{
    Str found;
    str_init(&found);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        str_printf(&found, "%s%s", found.length > 0 ? " " : "", node->op_type);
    assert_string_equal(found.text, expected);
    str_release(&found);
}

static inline void assert_graph_text(const Graph *graph, const char *expected)
{
    Model *wanted = parse_model(expected);
    Str found, text;
    str_init(&found);
    str_init(&text);
    graph_print(graph, &found);
    graph_print(wanted->graph, &text);
    assert_string_equal(found.text, text.text);
    str_release(&found);
    str_release(&text);
    model_free(wanted);
}

static inline const Value *value_named(const Graph *graph, const char *name)
{
    const Value *value = graph_find(graph, name);
    if (value == NULL)
        fail_msg("no value '%s'", name);
    return value;
}

/* Every float input normal, every integer input in [0, 3). */
static inline const Array **random_inputs(const Graph *graph, uint64_t seed, Arena *arena)
{
    const Array **inputs = arena_array(arena, const Array *, graph->input_count + 1);
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        Array *array;
        Error err = {STATUS_OK, ""};
        Rng rng = rng_at(seed, i);
        assert_ok(array_new(arena, type->dtype, type->rank, type->dims, &array, &err), &err);
        for (int64_t k = 0; k < array->count; k++) {
            if (type->dtype == DTYPE_F32)
                ((float *)array->data)[k] = (float)rng_normal(&rng);
            else if (type->dtype == DTYPE_F64)
                ((double *)array->data)[k] = rng_normal(&rng);
            else if (type->dtype == DTYPE_I64)
                ((int64_t *)array->data)[k] = (int64_t)rng_below(&rng, 3);
            else
                fail_msg("no random numbers of type %s", dtype_name(type->dtype));
        }
        inputs[i] = array;
    }
    return inputs;
}

static inline Array **run_graph(const Graph *graph, const Array **inputs, Arena *arena)
{
    Error err = {STATUS_OK, ""};
    Array **outputs = arena_array(arena, Array *, graph->output_count + 1);
    assert_ok(interp_run(graph, inputs, outputs, arena, 0, &err), &err);
    return outputs;
}

static inline void assert_near(const Array *found, const Array *expected, double tolerance)
{
    assert_int_equal(found->count, expected->count);
    for (int64_t i = 0; i < found->count; i++) {
        double a = array_f64_at(found, i), b = array_f64_at(expected, i);
        if (!(fabs(a - b) <= tolerance * (1 + fabs(b))))
            fail_msg("element %lld: %.9g found, %.9g expected", (long long)i, a, b);
    }
}

#endif
