/* The interpreter over toy rows: order, memory that outlives its node, bodies that see outer values, messages. */
#include "tests/test.h"

#include <string.h>

#include "runtime/runtime.h"

static Status add_eval(EvalContext *context, Error *err)
{
    const Array *a = eval_input(context, 0), *b = eval_input(context, 1);
    Array *y;
    TRY(eval_output_like(context, 0, a, &y, err));
    for (int64_t i = 0; i < a->count; i++)
        ((float *)y->data)[i] = ((const float *)a->data)[i] + ((const float *)b->data)[b->count == 1 ? 0 : i];
    return STATUS_OK;
}

/* Gives its input's own bytes away, as Reshape may. */
static Status alias_eval(EvalContext *context, Error *err)
{
    (void)err;
    context->out[0] = arena_copy(context->arena, context->in[0], sizeof(Array));
    return STATUS_OK;
}

static Status pack_eval(EvalContext *context, Error *err)
{
    (void)err;
    Array *sequence = arena_new(context->arena, Array);
    sequence->kind = ARRAY_SEQUENCE;
    sequence->item_count = (size_t)context->in_count;
    sequence->items = arena_array(context->arena, Array *, (size_t)context->in_count);
    for (int i = 0; i < context->in_count; i++)
        sequence->items[i] = (Array *)(uintptr_t)context->in[i];
    context->out[0] = sequence;
    return STATUS_OK;
}

static Status last_eval(EvalContext *context, Error *err)
{
    (void)err;
    const Array *sequence = context->in[0];
    context->out[0] = sequence->items[sequence->item_count - 1];
    return STATUS_OK;
}

/* Runs its body `n` times on a running value. */
static Status repeat_eval(EvalContext *context, Error *err)
{
    const Graph *body = node_graph(context->node, "body");
    const Array *value = context->in[0];
    for (int64_t i = 0; i < node_int(context->node, "n", 1); i++) {
        Array *next;
        TRY(context->run_graph(context, body, &value, 1, &next, 1, err));
        value = next;
    }
    context->out[0] = (Array *)(uintptr_t)value;
    return STATUS_OK;
}

#define ROW(op, count, function)                                                                                       \
    {                                                                                                                  \
        .name = op, .since = 1, .last = 28, .min_inputs = 1, .max_inputs = (count), .min_outputs = 1,                  \
        .max_outputs = 1, .traits = OP_ANY_DTYPE, .eval = (function)                                                   \
    }

static const OpDef rows[] = {ROW("Add", 2, add_eval),   ROW("Alias", 1, alias_eval),   ROW("Pack", -1, pack_eval),
                             ROW("Last", 1, last_eval), ROW("Repeat", 1, repeat_eval), {0}};
static const OpDef *const families[] = {rows};
static const OpSet ops = {families, 1};

/* Runs the text on x = {1, 2}; the first output's two numbers. */
static Status run(const char *text, float out[2], Error *err)
{
    Model *model = NULL;
    Arena arena;
    arena_init(&arena);
    assert_ok(model_parse(text, &ops, &model, err), err);
    float x[2] = {1, 2};
    Array in = {.dtype = DTYPE_F32, .rank = 1, .dims = {2}, .count = 2, .data = x};
    const Array *inputs[1] = {&in};
    Array *outputs[2] = {NULL, NULL};
    Status status = interp_run(model->graph, inputs, outputs, &arena, 1, err);
    if (status == STATUS_OK)
        memcpy(out, outputs[0]->data, 2 * sizeof *out);
    model_free(model);
    arena_release(&arena);
    return status;
}

static void expect(const char *text, float a, float b)
{
    Error err = {STATUS_OK, ""};
    float out[2];
    assert_ok(run(text, out, &err), &err);
    assert_true(out[0] == a && out[1] == b);
}

static void nodes_run_in_order_over_constants_and_inputs(void **state)
{
    (void)state;
    expect("g (float[2] x) => (y) <float[2] w = {10, 20}> { a = Add (x, w) b = Add (a, x) y = Add (b, a) }", 23, 46);
}

static void an_output_may_be_an_input_or_a_constant(void **state)
{
    (void)state;
    expect("g (float[2] x) => (x) {}", 1, 2);
    expect("g (float[2] x) => (w) <float[2] w = {3, 4}> {}", 3, 4);
}

static void results_that_share_bytes_outlive_their_node(void **state)
{
    (void)state;
    expect("g (float[2] x) => (y) { a = Add (x, x) b = Alias (a) c = Alias (b) d = Add (x, x) e = Add (d, d) y = Add "
           "(c, e) }",
           6, 12);
    expect("g (float[2] x) => (y) { a = Add (x, x) s = Pack (x, a) b = Add (x, x) l = Last (s) c = Add (b, b) y = Add "
           "(l, c) }",
           6, 12);
}

static void bodies_see_outer_values_and_may_list_them(void **state)
{
    (void)state;
    expect("g (float[2] x) => (y) <float w = {1}> { a = Add (x, w)\n"
           "  y = Repeat <n = 3, body = b (v) => (u) { t = Add (a, w) u = Add (v, t) }> (x) }",
           10, 14);
    expect("g (float[2] x) => (y) { a = Add (x, x) y = Repeat <body = b (v) => (a) {}> (x) }", 2, 4);
    expect("g (float[2] x) => (y) { a = Add (x, x)\n y = Repeat <body = b (v) => (u) {\n"
           "  u = Repeat <n = 2, body = c (v2) => (w) { w = Add (v2, a) }> (v) }> (x) }",
           5, 10);
}

static void what_cannot_run_is_named(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    float out[2];
    assert_int_equal(run("g (float[2] x) => (y) { [odd] y = Odd (x) }", out, &err), STATUS_UNSUPPORTED);
    assert_string_equal(err.message, "Odd 'odd': operator ai.onnx.Odd (opset 28) is not known");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_run_in_order_over_constants_and_inputs),
        cmocka_unit_test(an_output_may_be_an_input_or_a_constant),
        cmocka_unit_test(results_that_share_bytes_outlive_their_node),
        cmocka_unit_test(bodies_see_outer_values_and_may_list_them),
        cmocka_unit_test(what_cannot_run_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
