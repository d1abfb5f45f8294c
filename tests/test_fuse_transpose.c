/* passes/fuse_transpose.c: where transposes go, by operators and by the numbers that come out. */
#include "tests/graph_test.h"

#include "passes/passes.h"

/* The graph's operators after both passes, views aside, each with a blank before it; its outputs stay what they were.
 */
static void expect(const char *text, const char *expected)
{
    Error err = {STATUS_OK, ""};
    Arena arena;
    Str full, found;
    arena_init(&arena);
    str_init(&full);
    str_init(&found);
    str_printf(&full, NEWEST "g %s", text);
    Model *model = parse_inferred(full.text);
    const Array **inputs = random_inputs(model->graph, 7, &arena);
    Array **before = run_graph(model->graph, inputs, &arena);
    assert_ok(pass_fuse_transpose(model->graph, &err), &err);
    assert_ok(pass_fuse_matmul(model->graph, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    for (const Node *node = model->graph->first; node != NULL; node = node->next)
        if (!node_is(node, "Reshape") && !node_is(node, "Squeeze") && !node_is(node, "Unsqueeze"))
            str_printf(&found, " %s", node->op_type);
    if (strcmp(found.text, expected) != 0)
        fail_msg("%s:%s, expected%s", text, found.text, expected);
    Array **after = run_graph(model->graph, inputs, &arena);
    for (size_t i = 0; i < model->graph->output_count; i++)
        assert_near(after[i], before[i], 1e-5);
    str_release(&full);
    str_release(&found);
    arena_release(&arena);
    model_free(model);
}

/* torch.nn.MultiheadAttention: [S, N, 3 E] is taken apart behind a Transpose, heads of all sequences are one dim. */
static void heads_of_a_packed_projection_are_read_where_they_lie(void **state)
{
    (void)state;
    expect(
        "(float[5,2,36] x) => (float[2,3,5,4] y)\n"
        "<int64[4] packed = {5,2,3,12}, int64[1] first = {0}, int64[1] fourth = {3}, int64 zero = {0}, int64 one = "
        "{1},\n"
        " int64 last = {-1}, int64[3] flat = {5,6,4}, int64[4] heads = {2,3,5,4}> {\n"
        "  a = Reshape(x, packed) b = Unsqueeze(a, first) c = Transpose<perm = [3,1,2,0,4]>(b) d = Squeeze(c, fourth)\n"
        "  q0 = Gather(d, zero) k0 = Gather(d, one) v0 = Gather(d, last)\n"
        "  q1 = Reshape(q0, flat) q2 = Transpose<perm = [1,0,2]>(q1) q = Reshape(q2, heads)\n"
        "  k1 = Reshape(k0, flat) k2 = Transpose<perm = [1,0,2]>(k1) k3 = Reshape(k2, heads)\n"
        "  k = Transpose<perm = [0,1,3,2]>(k3)\n"
        "  v1 = Reshape(v0, flat) v2 = Transpose<perm = [1,0,2]>(v1) v = Reshape(v2, heads)\n"
        "  s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v) }",
        " Split MatMulStrided Softmax MatMulStrided");
}

/* timm and Swin: [B, N, 3, H, D] in the order [3, B, H, N, D]. */
static void so_are_heads_picked_from_five_dims(void **state)
{
    (void)state;
    const char *head = "(float[2,5,36] x) => (float[2,3,5,4] y)\n"
                       "<int64[5] packed = {2,5,3,3,4}, int64[1] first = {0}, int64 zero = {0}, int64 one = {1},\n"
                       " int64 two = {2}, float half = {0.5}> {\n"
                       "  a = Reshape(x, packed) b = Transpose<perm = [2,0,3,1,4]>(a)\n";
    const char *tail = "  r = Mul(q, half) t = Transpose<perm = [0,1,3,2]>(k) s = MatMul(r, t) p = Softmax(s)\n"
                       "  y = MatMul(p, v) }";
    const char *ways[] = {"  q = Gather(b, zero) k = Gather(b, one) v = Gather(b, two)\n",
                          "  q0, k0, v0 = Split<num_outputs = 3>(b) q = Squeeze(q0, first) k = Squeeze(k0, first)\n"
                          "  v = Squeeze(v0, first)\n"};
    for (int i = 0; i < 2; i++) {
        Str text;
        str_init(&text);
        str_printf(&text, "%s%s%s", head, ways[i], tail);
        expect(text.text, " Split MatMulStrided Softmax MatMulStrided");
        str_release(&text);
    }
}

static void a_transpose_of_dims_of_one_is_a_view(void **state)
{
    (void)state;
    expect("(float[3,4] x) => (float[3,1,4] y) <int64[1] first = {0}, int64[3] to = {3,1,4}> {\n"
           "  a = Unsqueeze(x, first) b = Transpose<perm = [1,0,2]>(a) y = Reshape(b, to) }",
           "");
}

static void one_that_ends_in_no_product_stays(void **state)
{
    (void)state;
    const char *stays[][2] = {
        {"(float[5,6,4] x) => (float[2,3,5,4] y) <int64[4] to = {2,3,5,4}> {\n"
         "  a = Transpose<perm = [1,0,2]>(x) b = Reshape(a, to) y = Relu(b) }",
         " Transpose Relu"},
        {"(float[5,6,4] x, float[4,4] w) => (float[30,4] y) <int64[2] to = {30,4}> {\n" /* dims are joined */
         "  a = Transpose<perm = [1,0,2]>(x) b = Reshape(a, to) y = MatMul(b, w) }",
         " Transpose MatMul"},
        {"(float[5,6,4] x, float[4,4] w) => (float[2,3,5,4] y, float[6,5,4] z) <int64[4] to = {2,3,5,4}> {\n"
         "  a = Transpose<perm = [1,0,2]>(x) b = Reshape(a, to) y = MatMul(b, w) z = Relu(a) }", /* read twice */
         " Transpose MatMul Relu"},
        {"(float[5,3,4] x, float[4,2] w) => (float[5,2] y, float[5,2] z) <int64 zero = {0}, int64 two = {2}> {\n"
         "  a = Transpose<perm = [1,0,2]>(x) b = Gather(a, zero) c = Gather(a, two)\n" /* one is left out */
         "  y = MatMul(b, w) z = MatMul(c, w) }",
         " Transpose Gather Gather MatMul MatMul"},
    };
    for (int i = 0; i < 4; i++)
        expect(stays[i][0], stays[i][1]);
}

static void a_matrix_that_would_be_torn_is_moved_as_before(void **state)
{
    (void)state; /* neither rows nor columns would lie side by side */
    expect("(float[5,6,4] x, float[5,2] w) => (float[4,2,3,2] y) <int64[4] to = {4,2,3,5}> {\n"
           "  a = Transpose<perm = [2,1,0]>(x) b = Reshape(a, to) y = MatMul(b, w) }",
           " Transpose MatMul");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_a_packed_projection_are_read_where_they_lie),
        cmocka_unit_test(so_are_heads_picked_from_five_dims),
        cmocka_unit_test(a_transpose_of_dims_of_one_is_a_view),
        cmocka_unit_test(one_that_ends_in_no_product_stays),
        cmocka_unit_test(a_matrix_that_would_be_torn_is_moved_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
