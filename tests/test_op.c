/* Rows: lookup, inference and its helpers, evaluation with widening, building. */
#include "tests/test.h"

#include <string.h>

#include "onnx/op.h"

/* y = x + 1, in f32 alone */
static Status increment(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    if (x->dtype != DTYPE_F32)
        return eval_fail(context, err, "%s arrived", dtype_name(x->dtype));
    Array *y;
    TRY(eval_output_like(context, 0, x, &y, err));
    for (int64_t i = 0; i < x->count; i++)
        ((float *)y->data)[i] = ((const float *)x->data)[i] + 1;
    return STATUS_OK;
}

static Status reduce_infer(Node *node, Error *err)
{
    const int64_t *dims;
    size_t rank;
    TRY(infer_ints(node, 1, &dims, &rank, err));
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, (int)rank, dims);
    return STATUS_OK;
}

static const OpDef rows[] = {
    {.name = "Increment", .since = 1, .last = 6, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1},
    {.name = "Increment",
     .since = 7,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = infer_same,
     .eval = increment},
    {.name = "Add",
     .since = 7,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = infer_broadcast},
    {0},
};
static const OpDef more_rows[] = {
    {.domain = DOMAIN_INTERNAL,
     .name = "ReduceTo",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = reduce_infer},
    {0},
};
static const OpDef *const families[] = {rows, more_rows};
static const OpSet ops = {families, 2};

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &ops, &model, &err), &err);
    return model;
}

static void rows_are_found_by_domain_name_and_opset(void **state)
{
    (void)state;
    assert_ptr_equal(opset_find(&ops, "", "Increment", 6), &rows[0]);
    assert_ptr_equal(opset_find(&ops, "ai.onnx", "Increment", 7), &rows[1]);
    assert_null(opset_find(&ops, "", "Increment", 29));
    assert_ptr_equal(opset_find_any(&ops, "", "Increment"), &rows[0]);
    assert_null(opset_find_any(&ops, "com.microsoft", "Increment"));
    assert_ptr_equal(opset_find(&ops, DOMAIN_INTERNAL, "ReduceTo", 0), &more_rows[0]);
    assert_null(opset_find(NULL, "", "Increment", 7));
}

static void shapes_broadcast_as_numpy_has_it(void **state)
{
    (void)state;
    int rank;
    int64_t out[RANK_MAX];
    assert_true(dims_broadcast(3, (int64_t[]){8, 1, 5}, 2, (int64_t[]){4, 1}, &rank, out));
    assert_int_equal(rank, 3);
    assert_memory_equal(out, ((int64_t[]){8, 4, 5}), 3 * sizeof *out);
    assert_true(dims_broadcast(1, (int64_t[]){0}, 1, (int64_t[]){1}, &rank, out));
    assert_int_equal(out[0], 0);
    assert_false(dims_broadcast(1, (int64_t[]){2}, 1, (int64_t[]){3}, &rank, out));
}

static void inference_names_node_and_shapes_that_do_not_fit(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[2,3] a, float[4] b) => (y) { [\"/add\"] y = Add (a, b) }");
    assert_int_equal(node_infer(model->graph->first, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Add '/add': shapes [2,3] and [4] do not broadcast");
    model_free(model);
}

static void unknown_inputs_make_unknown_outputs(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[N] a, float[2] b) => (float[7] y, float[7] z) { y = Add (a, b) z = Odd (b) }");
    assert_ok(node_infer(model->graph->first, &err), &err);
    assert_ok(node_infer(model->graph->last, &err), &err);
    assert_int_equal(model->graph->outputs[0]->type.rank, -1);
    assert_int_equal(model->graph->outputs[1]->type.rank, -1);
    model_free(model);
}

static void inputs_are_counted(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[2] a) => (y) { [n] y = Add (a) }");
    assert_int_equal(node_infer(model->graph->first, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Add 'n': 1 inputs, at least 2 expected");
    error_clear(&err);
    node_set_input(model->graph->first, 2, graph_find(model->graph, "a"));
    assert_int_equal(node_infer(model->graph->first, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Add 'n': 3 inputs, at most 2 expected");
    error_clear(&err);
    model->graph->first->input_count = 2;
    assert_int_equal(node_infer(model->graph->first, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Add 'n': input 1 is missing");
    model_free(model);
}

static void axes_and_shape_inputs_are_read_or_refused(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[2] a, int64[2] s) => (y) <int64[2] c = {3, -4}> { [n] y = Op (a, c, , s) }");
    const Node *node = model->graph->first;
    int axis;
    assert_ok(axis_normalize(node, -1, 3, &axis, &err), &err);
    assert_int_equal(axis, 2);
    assert_int_equal(axis_normalize(node, 3, 3, &axis, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Op 'n': axis 3 is outside [-3, 3)");
    error_clear(&err);
    const int64_t *values;
    size_t count;
    assert_ok(infer_ints(node, 1, &values, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_int_equal(values[1], -4);
    assert_ok(infer_ints(node, 2, &values, &count, &err), &err);
    assert_null(values);
    assert_true(infer_has_ints(node, 9) && infer_has_ints(node, 1) && !infer_has_ints(node, 3));
    assert_int_equal(infer_ints(node, 3, &values, &count, &err), STATUS_UNSUPPORTED);
    assert_string_equal(err.message, "Op 'n': input 3 ('s') must be known before running");
    model_free(model);
}

/* Evaluates the graph's first node on one input. */
static Status eval_one(const Node *node, Arena *arena, const Array *in, Array **place, Array **out, Error *err)
{
    EvalContext context = {
        .node = node, .in = &in, .in_count = 1, .out = out, .out_count = 1, .arena = arena, .place = place};
    return node_eval(&context, err);
}

static void narrow_floats_are_widened_around_a_row(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Arena arena;
    arena_init(&arena);
    Model *model = parse("g (bfloat16[2] x) => (bfloat16[2] y) { y = Increment (x) }");
    uint16_t x[2] = {f32_to_bf16(1.5f), f32_to_bf16(-1)}, y[2] = {0};
    Array in = {.dtype = DTYPE_BF16, .rank = 1, .dims = {2}, .count = 2, .data = x}, *out;
    Array place = {.dtype = DTYPE_BF16, .rank = 1, .dims = {2}, .count = 2, .data = y}, *places[1] = {&place};
    assert_ok(eval_one(model->graph->first, &arena, &in, NULL, &out, &err), &err);
    assert_int_equal(out->dtype, DTYPE_BF16);
    assert_true(array_f64_at(out, 0) == 2.5 && array_f64_at(out, 1) == 0);
    assert_ok(eval_one(model->graph->first, &arena, &in, places, &out, &err), &err);
    assert_true(bf16_to_f32(y[0]) == 2.5f);
    place.dims[0] = 3;
    assert_int_equal(eval_one(model->graph->first, &arena, &in, places, &out, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "Increment (output 'y'): output 0 is bfloat16[2], planned as bfloat16[3]");
    arena_release(&arena);
    model_free(model);
}

static void a_node_without_eval_is_refused_by_name(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Arena arena;
    arena_init(&arena);
    Model *model = parse("<ir_version: 8, opset_import: [\"odd\" : 3]> g (float[2] x) => (y) { [n] y = odd.Op (x) }");
    Array in = {.dtype = DTYPE_F32}, *out;
    assert_int_equal(eval_one(model->graph->first, &arena, &in, NULL, &out, &err), STATUS_UNSUPPORTED);
    assert_string_equal(err.message, "Op 'n': operator odd.Op (opset 3) is not known");
    arena_release(&arena);
    model_free(model);
}

static void building_infers_and_the_first_failure_sticks(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[2,3] a, float[3] b, float[7] c) => (a) {}");
    Graph *graph = model->graph;
    Builder b = builder_at(graph, NULL, "grad", &err);
    Value *sum = build2(&b, "Add", graph_find(graph, "a"), graph_find(graph, "b"));
    assert_int_equal(sum->type.rank, 2);
    Value *reduced = build_reduce_to(&b, sum, graph_find(graph, "b"));
    assert_int_equal(reduced->type.rank, 1);
    assert_int_equal(reduced->type.dims[0], 3);
    assert_ptr_equal(build_reduce_to(&b, reduced, graph_find(graph, "b")), reduced);
    assert_int_equal(build_scalar(&b, DTYPE_F32, 2)->type.rank, 0);
    assert_null(build2(&b, "Add", sum, graph_find(graph, "c")));
    assert_null(build1(&b, "Increment", sum));
    assert_int_equal(b.status, STATUS_REJECTED);
    assert_string_equal(err.message, "Add 'grad': shapes [2,3] and [7] do not broadcast");
    model_free(model);
}

static void types_print_for_people(void **state)
{
    (void)state;
    Model *model = parse("g (float[N,3,?] a, seq(int64[]) s) => (a) {}");
    assert_string_equal(type_text(&model->arena, &model->graph->inputs[0]->type), "float32[N,3,?]");
    assert_string_equal(type_text(&model->arena, &model->graph->inputs[1]->type), "sequence of int64[...]");
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_found_by_domain_name_and_opset),
        cmocka_unit_test(shapes_broadcast_as_numpy_has_it),
        cmocka_unit_test(inference_names_node_and_shapes_that_do_not_fit),
        cmocka_unit_test(unknown_inputs_make_unknown_outputs),
        cmocka_unit_test(inputs_are_counted),
        cmocka_unit_test(axes_and_shape_inputs_are_read_or_refused),
        cmocka_unit_test(narrow_floats_are_widened_around_a_row),
        cmocka_unit_test(a_node_without_eval_is_refused_by_name),
        cmocka_unit_test(building_infers_and_the_first_failure_sticks),
        cmocka_unit_test(types_print_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
