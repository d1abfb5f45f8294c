/* passes/batch.c and batch_gather.c text to text: what holds the exported batch is rewritten, everything else stays;
 * and runtime/independent.c, which looks whether the rewriting kept samples apart. */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

#define OPSET "<ir_version: 8, opset_import: [\"\" : 17]> "

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

/* The nodes alone, one a line, without types. */
static void print_nodes(const Graph *graph, Str *out)
{
    Str all;
    str_init(&all);
    graph_print(graph, &all);
    const char *body = strstr(all.text, "{\n");
    for (const char *p = body == NULL ? all.text : body + 2; *p != '\0' && *p != '}'; p++) {
        if (p[0] == ' ' && p[1] == '#')
            p += strcspn(p, "\n");
        if (p[0] == '[' && p[-1] == ' ' && p[-2] == ' ') /* the node's name, that of its output */
            p += strcspn(p, " ") + 1;
        if (*p != ' ' || (p > all.text && p[-1] != ' ' && p[-1] != '\n'))
            str_printf(out, "%c", *p);
    }
    str_release(&all);
}

static void assert_rewritten(const char *text, size_t nodes, const char *expected)
{
    Error err = {STATUS_OK, ""};
    BatchReport report;
    Model *model = parse(text);
    Str found;
    str_init(&found);
    assert_ok(pass_batch(model, &report, &err), &err);
    assert_ok(model_check(model, &err), &err);
    print_nodes(model->graph, &found);
    assert_string_equal(found.text, expected);
    assert_int_equal(report.rewritten, nodes);
    bool same = false;
    if (nodes > 0)
        assert_ok(samples_independent(model, report.baked, &same, &err), &err);
    assert_true(same || nodes == 0);
    str_release(&found);
    model_free(model);
}

static const Tensor *initializer(const Model *model, const char *name)
{
    const Value *value = graph_find(model->graph, name);
    assert_non_null(value);
    return value->constant;
}

static void a_model_that_takes_any_batch_stays_as_it_is(void **state)
{
    (void)state;
    assert_rewritten(OPSET "g (float[N,2,3] x) => (y) <int64[2] s={-1,6}, int64[3] k={0,0,3}> {"
                           "a = Reshape(x, k) y = Reshape(a, s) }",
                     0, "a = Reshape (x, k)\ny = Reshape (a, s)\n");
    assert_rewritten(OPSET "g (float[1,2,3] x) => (y) { y = Flatten(x) }", 0, "y = Flatten (x)\n");
}

static void targets_of_reshape_get_an_open_dim_where_the_batch_lies(void **state)
{
    (void)state;
    /* ViT: patches, tokens first, heads joined with the batch, and back */
    static const struct {
        const char *from, *nodes;
        int64_t target[4];
        int rank;
    } cases[] = {
        {"1,8,2,2", "<int64[3] s={1,8,4}> { y = Reshape(x, s) }", {-1, 8, 4}, 3},
        {"1,6,8",
         "<int64[3] s={6,4,2}> { t = Transpose<perm=[1,0,2]>(x) r = Reshape(t, s) y = Transpose<perm=[1,0,2]>(r) }",
         {6, -1, 2},
         3},
        {"1,6,8", "<int64[2] s={6,8}> { t = Transpose<perm=[1,0,2]>(x) y = Reshape(t, s) }", {-1, 8}, 2},
        {"1,6,8", "<int64[4] s={1,6,2,4}> { y = Reshape(x, s) }", {-1, 6, 2, 4}, 4},
        {"1,6,8", "<int64[4] s={1,6,-1,4}> { y = Reshape(x, s) }", {-1, 6, 2, 4}, 4},
        {"4,6,8",
         "<int64[3] s={6,8,4}> { t = Transpose<perm=[1,0,2]>(x) r = Reshape(t, s) y = Transpose<perm=[1,0,2]>(r) }",
         {6, -1, 4},
         3},
        {"4,6,8", "<int64[2] s={24,8}> { t = Transpose<perm=[1,0,2]>(x) y = Reshape(t, s) }", {-1, 8}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        Error err = {STATUS_OK, ""};
        BatchReport report;
        snprintf(text, sizeof text, OPSET "g (float[%s] x) => (y) %s", cases[i].from, cases[i].nodes);
        Model *model = parse(text);
        assert_ok(pass_batch(model, &report, &err), &err);
        assert_int_equal(report.rewritten, 1);
        assert_null(graph_find(model->graph, "s")); /* nobody reads the old one */
        const Tensor *target = initializer(model, "regraft_target");
        assert_int_equal(tensor_count(target), cases[i].rank);
        for (int d = 0; d < cases[i].rank; d++)
            if (tensor_i64_at(target, d) != cases[i].target[d])
                fail_msg("case %zu, dim %d: %lld", i, d, (long long)tensor_i64_at(target, d));
        model_free(model);
    }
}

static void heads_that_were_joined_with_the_batch_part_again(void **state)
{
    (void)state;
    assert_rewritten(OPSET "g (float[1,6,8] x) => (y) <int64[3] s={6,4,2}, int64[3] u={6,1,8}> {"
                           "t = Transpose<perm=[1,0,2]>(x) h = Reshape(t, s) r = Relu(h) y = Reshape(r, u) }",
                     2,
                     "t = Transpose <perm = [1, 0, 2]> (x)\nh = Reshape (t, regraft_target)\nr = Relu (h)\n"
                     "y = Reshape (r, regraft_target_1)\n");
}

static void a_class_token_is_expanded_to_the_batch(void **state)
{
    (void)state;
    assert_rewritten(OPSET "g (float[1,4,3] x) => (y) <float[1,1,3] cls={0.5,1.0,2.0}> { y = Concat<axis=1>(cls, x) }",
                     1,
                     "regraft_shape = Shape (x)\nregraft_batch = Slice (regraft_shape, regraft_zero, regraft_one)\n"
                     "regraft_target = Concat <axis = 0> (regraft_batch, regraft_dims)\n"
                     "regraft_expanded = Expand (cls, regraft_target)\ny = Concat <axis = 1> (regraft_expanded, x)\n");
    assert_rewritten(
        OPSET "g (float[2,4,3] x) => (y) <float[2,1,3] cls={0.5,1.0,2.0,0.5,1.0,2.0}> { y = Concat<axis=1>(cls, x) }",
        1,
        "regraft_shape = Shape (x)\nregraft_batch = Slice (regraft_shape, regraft_zero, regraft_one)\n"
        "regraft_target = Concat <axis = 0> (regraft_batch, regraft_dims)\n"
        "regraft_row = Slice (cls, regraft_zero_1, regraft_one_2, regraft_axis)\n"
        "regraft_expanded = Expand (regraft_row, regraft_target)\n"
        "y = Concat <axis = 1> (regraft_expanded, x)\n");
}

static void initial_states_and_sizes_of_resize_follow_the_batch(void **state)
{
    (void)state;
    assert_rewritten(
        OPSET "g (float[1,3,2] x) => (y) <float[1,8,2] w={0.5,0.25,...}, float[1,8,8] r={0.125,...}, float[1,1,8] "
              "h={0.0,...}> { t = Transpose<perm=[1,0,2]>(x) y, last = RNN<hidden_size=8>(t, w, r, , , h) }",
        1,
        "regraft_shape = Shape (x)\nregraft_batch = Slice (regraft_shape, regraft_zero, regraft_one)\n"
        "t = Transpose <perm = [1, 0, 2]> (x)\n"
        "regraft_target = Concat <axis = 0> (regraft_dims, regraft_batch, regraft_dims_1)\n"
        "regraft_expanded = Expand (h, regraft_target)\n"
        "y, last = RNN <hidden_size = 8> (t, w, r, \"\", \"\", regraft_expanded)\n");
    assert_rewritten(OPSET "g (float[1,2,3,3] x) => (y) <int64[4] s={1,2,6,6}, float[2,2,1,1] w={0.5,0.25,...}> {"
                           "a = Resize<mode=\"nearest\">(x, , , s) b = Flatten<axis=1>(a) c = Flatten<axis=1>(x) "
                           "y = Concat<axis=1>(b, c) }",
                     1,
                     "regraft_shape = Shape (x)\nregraft_batch = Slice (regraft_shape, regraft_zero, regraft_one)\n"
                     "regraft_target = Concat <axis = 0> (regraft_batch, regraft_dims)\n"
                     "a = Resize <mode = \"nearest\"> (x, \"\", \"\", regraft_target)\nb = Flatten <axis = 1> (a)\n"
                     "c = Flatten <axis = 1> (x)\ny = Concat <axis = 1> (b, c)\n");
}

static void indices_of_sample_0_read_every_sample(void **state)
{
    (void)state;
    assert_rewritten(OPSET "g (float[1,4] x) => (y) <int64[1,1,4,2] i={0,0,0,1,0,2,0,3}> { y = GatherND(x, i) }", 1,
                     "regraft_shape = Shape (x)\nregraft_batch = Slice (regraft_shape, regraft_zero, regraft_one)\n"
                     "regraft_target = Concat <axis = 0> (regraft_batch, regraft_dims)\n"
                     "regraft_expanded = Expand (regraft_places, regraft_target)\n"
                     "y = GatherND <batch_dims = 1> (x, regraft_expanded)\n");
    assert_rewritten(
        OPSET "g (float[1,4] x) => (y) <int64[1] s={-1}, int64[1,3] i={3,1,0}> { f = Reshape(x, s) y = Gather(f, i) }",
        1,
        "f = Reshape (x, s)\nregraft_samples = Reshape (f, regraft_target)\n"
        "y = Gather <axis = 1> (regraft_samples, regraft_places)\n");
}

static void what_cannot_be_rewritten_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {OPSET "g (float[2,4,3] x) => (y) <float[2,1,3] cls={0.5,1.0,2.0,0.25,1.0,2.0}> { [join] y = "
               "Concat<axis=1>(cls, x) }",
         "Concat 'join': only a batch of 2 fits, and it reads a constant that differs from sample to sample"},
        {OPSET "g (float[1,4] x) => (y) <int64 i={0}> { [pick] y = Gather<axis=0>(x, i) }",
         "Gather 'pick': only a batch of 1 fits, and there the samples of any other are lost"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err = {STATUS_OK, ""};
        BatchReport report;
        Model *model = parse(cases[i].text);
        assert_int_equal(pass_batch(model, &report, &err), STATUS_UNSUPPORTED);
        assert_memory_equal(err.message, cases[i].message, strlen(cases[i].message));
        assert_non_null(strstr(err.message, "export again with a dynamic batch"));
        model_free(model);
    }
}

static void samples_that_meet_are_found(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    bool same = true;
    Model *model = parse(OPSET "g (float[N,4] x) => (y) { y = Softmax<axis=0>(x) }");
    assert_ok(samples_independent(model, 1, &same, &err), &err);
    assert_false(same);
    model_free(model);
    model = parse(OPSET "g (float[N,4] x) => (y) { y = Softmax<axis=1>(x) }");
    assert_ok(samples_independent(model, 1, &same, &err), &err);
    assert_true(same);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_takes_any_batch_stays_as_it_is),
        cmocka_unit_test(targets_of_reshape_get_an_open_dim_where_the_batch_lies),
        cmocka_unit_test(heads_that_were_joined_with_the_batch_part_again),
        cmocka_unit_test(a_class_token_is_expanded_to_the_batch),
        cmocka_unit_test(initial_states_and_sizes_of_resize_follow_the_batch),
        cmocka_unit_test(indices_of_sample_0_read_every_sample),
        cmocka_unit_test(what_cannot_be_rewritten_is_refused_by_name),
        cmocka_unit_test(samples_that_meet_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
