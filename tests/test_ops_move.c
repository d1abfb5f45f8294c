/* What the tables of node tests and gradient cases do not say of the operators that move, index, draw and read text:
 * strided copies of every element size, errors that name node and value, distributions, regular expressions, bodies
 * that cannot be written out. */
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/runtime.h"

/* ---- a graph run on arrays ------------------------------------------------------------------------------ */

typedef struct World {
    Model *model;
    Arena arena;
    Array *in[8], *out[8];
    Error err;
} World;

/* Parses a bare graph; `opsets` NULL: the newest. */
static void world_open(World *w, const char *opsets, const char *graph)
{
    memset(w, 0, sizeof *w);
    arena_init(&w->arena);
    char *text =
        arena_printf(&w->arena, "<ir_version: 11, opset_import: [%s]>\n%s", opsets ? opsets : "\"\" : 28", graph);
    assert_ok(model_parse(text, &builtin_ops, &w->model, &w->err), &w->err);
    assert_ok(pass_upgrade(w->model->graph, &w->err), &w->err);
}

static void world_close(World *w)
{
    model_free(w->model);
    arena_release(&w->arena);
}

static Status world_run(World *w, uint64_t seed)
{
    Status status = pass_infer_known(w->model->graph, &w->err);
    if (status != STATUS_OK)
        return status;
    return interp_run(w->model->graph, (const Array *const *)w->in, w->out, &w->arena, seed, &w->err);
}

static Array *floats(World *w, int64_t n, const float *values)
{
    Array *array;
    assert_ok(array_new(&w->arena, DTYPE_F32, 1, &n, &array, &w->err), &w->err);
    memcpy(array->data, values, (size_t)n * sizeof *values);
    return array;
}

static Array *ints(World *w, int64_t n, const int64_t *values)
{
    Array *array;
    assert_ok(array_new(&w->arena, DTYPE_I64, 1, &n, &array, &w->err), &w->err);
    memcpy(array->data, values, (size_t)n * sizeof *values);
    return array;
}

/* ---- strided copies --------------------------------------------------------------------------------------- */

/* A transpose of [a, b, c] to [c, a, b] against indices written out, for elements of `size` bytes. */
static void check_transpose(size_t size, int64_t a, int64_t b, int64_t c)
{
    const int64_t dims[3] = {c, a, b}, from[3] = {1, b * c, c}, to[3] = {a * b, b, 1};
    const size_t bytes = (size_t)(a * b * c) * size;
    unsigned char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        x[i] = (unsigned char)(i * 31 + i / 251);
    StridedCopy copy = strided_make(3, dims, from, to, size);
    strided_run(&copy, x, y);
    for (int64_t i = 0; i < a * b * c; i++) {
        const int64_t k = i % b, j = i / b % a, l = i / (a * b);
        assert_memory_equal(y + (size_t)i * size, x + (size_t)((j * b + k) * c + l) * size, size);
    }
    free(x);
    free(y);
}

static void strided_copies_move_elements_of_every_size(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 4, 8, 16};
    for (size_t i = 0; i < 5; i++) {
        check_transpose(sizes[i], 3, 5, 7);
        check_transpose(sizes[i], 33, 2, 65);
        check_transpose(sizes[i], 1, 1, 1);
        check_transpose(sizes[i], 4, 1, 9);
        check_transpose(sizes[i], 0, 3, 2);
    }
    check_transpose(4, 64, 40, 70); /* shared among threads */
}

static void strided_copies_merge_what_lies_behind_each_other(void **state)
{
    (void)state;
    const int64_t dims[4] = {2, 3, 1, 4}, dense[4] = {12, 4, 4, 1};
    StridedCopy copy = strided_make(4, dims, dense, dense, 4);
    assert_int_equal(copy.rank, 0);
    assert_int_equal(copy.size, 2 * 3 * 4 * 4);
}

/* ---- errors ------------------------------------------------------------------------------------------------- */

static void an_index_outside_its_axis_is_named(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL, "g (float[3] x, int64[2] i) => (float[2] y) { y = Gather(x, i) }");
    w.in[0] = floats(&w, 3, (float[]){1, 2, 3});
    w.in[1] = ints(&w, 2, (int64_t[]){0, 3});
    assert_int_equal(world_run(&w, 0), STATUS_REJECTED);
    assert_string_equal(w.err.message, "Gather (output 'y'): index 3 at position 1 is outside an axis of 3");
    world_close(&w);
}

static void a_planned_gather_refuses_an_index_too(void **state)
{
    (void)state;
    World w;
    Plan *plan;
    world_open(&w, NULL, "g (float[3] x, int64[2] i) => (float[2] y) { y = Gather(x, i) }");
    assert_ok(pass_infer_known(w.model->graph, &w.err), &w.err);
    assert_ok(plan_build(w.model, NULL, NULL, &plan, &w.err), &w.err);
    memcpy(plan_input(plan, 0), (float[]){1, 2, 3}, 3 * sizeof(float));
    memcpy(plan_input(plan, 1), (int64_t[]){-4, 0}, 2 * sizeof(int64_t));
    assert_int_equal(plan_run(plan, 0, 0, false, &w.err), STATUS_REJECTED);
    assert_non_null(strstr(w.err.message, "index -4 at position 0 is outside an axis of 3"));
    plan_free(plan);
    world_close(&w);
}

static void shapes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *graph, *message;
    } cases[] = {
        {"g (float[2,3] x) => (float y) <int64[2] s = {4, -1}> { y = Reshape(x, s) }", "6 elements do not divide"},
        {"g (float[2,3] x) => (float y) <int64[1] s = {7}> { y = Reshape(x, s) }",
         "6 elements cannot take a shape of 7"},
        {"g (float[2,3] x) => (float y) <int64[1] a = {1}> { y = Squeeze(x, a) }", "dim 1 to squeeze is 3, not 1"},
        {"g (float[2,3] x) => (float y) { y = Transpose<perm=[0,0]>(x) }", "perm names axis 0 twice"},
        {"g (float[2,3] x, float[2,2] z) => (float y) { y = Concat<axis=0>(x, z) }", "input 1 is float32[2,2]"},
        {"g (float[2,3] x) => (float y) <int64[2] s = {1, 3}> { y, z = Split(x, s) }", "does not fit"},
        {"g (float[2,3] x) => (float y) <int64[1] s = {0}, int64[1] t = {0}> { y = Slice(x, s, s, s, t) }", "step 0"},
        {"g (float[2,3] x) => (float y) <int64[4] p = {0, -4, 0, 0}> { y = Pad(x, p) }", "pads -4 and 0 of axis 1"},
        {"g (float[0,3] x) => (float y) <int64[4] p = {1, 0, 0, 0}> { y = Pad<mode=\"edge\">(x, p) }",
         "nothing is left of axis 0"},
        {"g (float[2,3] x) => (float y) <int64[4] p = {0, -3, 0, 1}> { y = Pad<mode=\"wrap\">(x, p) }",
         "nothing is left of axis 1"},
        {"g (float[2,3] x) => (float y) { y = Gather<axis=2>(x, x) }", "indices are float32"},
        {"g (float[2,3] x) => (float y) <int64[1] k = {4}> { y, i = TopK(x, k) }", "k is 4, the axis has 3"},
        {"g (float[2,3] x) => (float y) <int64[2] s = {2, 4}> { y = Expand(x, s) }", "do not broadcast"},
        {"g (float[2,3,3] x) => (float y) { y = DepthToSpace<blocksize=2>(x) }", "input has rank 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        World w;
        world_open(&w, NULL, cases[i].graph);
        assert_int_equal(pass_infer_known(w.model->graph, &w.err), STATUS_REJECTED);
        if (!strstr(w.err.message, cases[i].message))
            fail_msg("'%s' expected in '%s'", cases[i].message, w.err.message);
        world_close(&w);
    }
}

/* ---- what borders show ------------------------------------------------------------------------------------------ */

/* `x` through the graph, against numbers recorded from PyTorch and ONNX Runtime. */
static void check_recorded(const char *graph, int64_t n, const float *x, const float *expected)
{
    World w;
    world_open(&w, NULL, graph);
    w.in[0] = floats(&w, n, x);
    assert_ok(world_run(&w, 0), &w.err);
    for (int64_t i = 0; i < w.out[0]->count; i++)
        if (fabs(array_f64_at(w.out[0], i) - (double)expected[i]) > 1e-5)
            fail_msg("element %d is %g, %g expected", (int)i, array_f64_at(w.out[0], i), (double)expected[i]);
    world_close(&w);
}

static void what_is_cropped_at_one_end_is_not_wrapped_around_at_the_other(void **state)
{
    (void)state;
    check_recorded("g (float[4] x) => (float y) <int64[2] p = {-1, 4}> { y = Pad<mode=\"wrap\">(x, p) }", 4,
                   (float[]){1, 2, 3, 4}, (float[]){2, 3, 4, 2, 3, 4, 2});
}

static void cubic_taps_beyond_a_border_take_its_pixel_one_by_one(void **state)
{
    (void)state;
    check_recorded("g (float[6] p) => (float y) <float[1,1,1,4] x = {1, 5, 2, 8}, int64[4] s = {1, 1, 3, 2}> { "
                   "q = Reshape(p, s) y = GridSample<mode=\"cubic\", padding_mode=\"border\", align_corners=1>(x, q) }",
                   6, (float[]){-1.2F, 0, 1.3F, 0, 2, 0}, (float[]){0.5590005F, 8.612564F, 8});
}

/* ---- random numbers ------------------------------------------------------------------------------------------- */

static void moments(const Array *x, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < x->count; i++) {
        sum += array_f64_at(x, i);
        squares += array_f64_at(x, i) * array_f64_at(x, i);
    }
    *mean = sum / (double)x->count;
    *deviation = sqrt(squares / (double)x->count - *mean * *mean);
}

static void random_operators_have_their_distribution(void **state)
{
    (void)state;
    World w;
    double mean, deviation;
    world_open(
        &w, NULL,
        "g (float[10000] p) => (float[10000] a, double[10000] b, float[10000] c, int32[1,5000] d, float[10000] e) "
        "<float[1,3] l = {0, 1, 2}> { "
        "a = RandomNormal<mean=3.0, scale=2.0, shape=[10000]>() b = RandomUniformLike<low=-1.0, high=3.0, dtype=11>(p) "
        "c = Bernoulli(p) d = Multinomial<sample_size=5000>(l) e = RandomNormalLike(p) }");
    w.in[0] = floats(&w, 10000, arena_array(&w.arena, float, 10000));
    for (int i = 0; i < 10000; i++)
        ((float *)w.in[0]->data)[i] = 0.3f;
    assert_ok(world_run(&w, 11), &w.err);
    moments(w.out[0], &mean, &deviation);
    assert_true(fabs(mean - 3) < 0.1 && fabs(deviation - 2) < 0.1);
    moments(w.out[1], &mean, &deviation);
    assert_true(fabs(mean - 1) < 0.05 && fabs(deviation - 4 / sqrt(12)) < 0.05);
    moments(w.out[2], &mean, &deviation);
    assert_true(fabs(mean - 0.3) < 0.02);
    moments(w.out[3], &mean, &deviation); /* exp 0, 1, 2 over their sum: 0.090, 0.245, 0.665 */
    assert_true(fabs(mean - 1.575) < 0.04);
    assert_int_equal(w.out[3]->dtype, DTYPE_I32);
    world_close(&w);
}

static void the_same_seed_draws_the_same_numbers_and_another_does_not(void **state)
{
    (void)state;
    float drawn[3][8];
    for (int run = 0; run < 3; run++) {
        World w;
        world_open(&w, NULL, "g () => (float[8] y) { y = RandomUniform<shape=[8]>() }");
        assert_ok(world_run(&w, run == 2 ? 6 : 5), &w.err);
        memcpy(drawn[run], w.out[0]->data, sizeof drawn[run]);
        world_close(&w);
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[2], sizeof drawn[0]);
}

static void live_dropout_keeps_the_mean_and_drops_its_share(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL,
               "g (float[20000] x) => (float[20000] y, bool[20000] m) <float r = {0.25}, bool t = {1}> "
               "{ y, m = Dropout(x, r, t) }");
    w.in[0] = floats(&w, 20000, arena_array(&w.arena, float, 20000));
    for (int i = 0; i < 20000; i++)
        ((float *)w.in[0]->data)[i] = 1;
    assert_ok(world_run(&w, 3), &w.err);
    double mean, deviation;
    moments(w.out[0], &mean, &deviation);
    assert_true(fabs(mean - 1) < 0.02);
    moments(w.out[1], &mean, &deviation);
    assert_true(fabs(mean - 0.75) < 0.02);
    world_close(&w);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static bool matches(const char *pattern, const char *text)
{
    Arena arena;
    Regex *regex = NULL;
    Error err = {0};
    arena_init(&arena);
    assert_ok(regex_new(&arena, (Bytes){pattern, strlen(pattern)}, &regex, &err), &err);
    bool found = regex_matches(regex, &arena, (Bytes){text, strlen(text)});
    arena_release(&arena);
    return found;
}

static void regular_expressions_match_whole_texts(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool expected;
    } cases[] = {
        {"", "", true},
        {"a", "aa", false},
        {"a*", "aaaa", true},
        {"a+?b{2}", "aabb", true},
        {"a{2,3}", "a", false},
        {"a{2,3}", "aaa", true},
        {"a{,2}", "a{,2}", true},
        {"(foo|ba[rz])+", "foobarbaz", true},
        {"(?:x|y)(?P<n>z)", "yz", true},
        {"[^a-c\\d]+", "xyz", true},
        {"[^a-c\\d]+", "x1", false},
        {"[]a]+", "]a", true},
        {"[a-]+", "a-", true},
        {"\\w+@\\w+\\.com", "me_2@mail.com", true},
        {"\\D\\S\\W", "a-!", true},
        {"(?i)AbC", "aBc", true},
        {"(?i:a)b", "Ab", true},
        {"(?i:a)b", "AB", false},
        {".", "\n", false},
        {"(?s).", "\n", true},
        {"^a$", "a", true},
        {"(?m)a$\n^b", "a\nb", true},
        {"\\bfoo\\b.*", "foo bar", true},
        {"fo\\Bo", "foo", true},
        {"\\Qa.b\\E", "a.b", true},
        {"\\x41\\x{e9}", "A\xc3\xa9", true},
        {".", "\xc3\xa9", true},
        {"[\xc3\xa0-\xc3\xbf]", "\xc3\xa9", true},
        {"[[:alpha:]][[:^digit:]]", "ax", true},
        {"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false},
        {"(a|)+", "aaa", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (matches(cases[i].pattern, cases[i].text) != cases[i].expected)
            fail_msg("'%s' on '%s'", cases[i].pattern, cases[i].text);
}

static void patterns_that_are_wrong_or_unknown_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(",      ")",  "[a",    "a**b(",           "*a",         "\\pN",         "(?=a)",   "(?<=a)", "[b-a]",
        "a{3,2}", "\\", "(?z)a", "(a{1000}){1000}", "[[:what:]]", "(?i)\xc3\xa9", "a{2000}", "\\x{zz}"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        Arena arena;
        Regex *regex;
        Error err = {0};
        arena_init(&arena);
        if (regex_new(&arena, (Bytes){patterns[i], strlen(patterns[i])}, &regex, &err) != STATUS_UNSUPPORTED)
            fail_msg("'%s' was taken", patterns[i]);
        arena_release(&arena);
    }
}

/* ---- ai.onnx.ml -------------------------------------------------------------------------------------------------- */

static void scaler_and_normalizer_do_their_arithmetic(void **state)
{
    (void)state;
    World w;
    world_open(
        &w, "\"\" : 28, \"ai.onnx.ml\" : 3",
        "g (float[2,2] x) => (float[2,2] y, float[2,2] z) { "
        "y = ai.onnx.ml.Scaler<offset=[1.0, 2.0], scale=[2.0, 0.5]>(x) z = ai.onnx.ml.Normalizer<norm=\"L2\">(x) }");
    w.in[0] = floats(&w, 4, (float[]){3, 4, 0, 0});
    w.in[0]->rank = 2;
    w.in[0]->dims[0] = w.in[0]->dims[1] = 2;
    assert_ok(world_run(&w, 0), &w.err);
    const float *y = w.out[0]->data, *z = w.out[1]->data;
    assert_true(y[0] == 4 && y[1] == 1 && y[2] == -2 && y[3] == -1);
    assert_true(fabsf(z[0] - 0.6f) < 1e-6f && fabsf(z[1] - 0.8f) < 1e-6f && z[2] == 0);
    world_close(&w);
}

/* ---- bodies ------------------------------------------------------------------------------------------------------ */

static const char data_loop[] = "g (float x, int64 m) => (float y) <bool c = {1}> "
                                "{ y = Loop<body = b (int64 i, bool go, float h) => (bool stay, float next) { stay = "
                                "Identity(go) next = Mul(h, x) }>(m, c, x) }";

static void a_loop_whose_end_is_data_runs_in_the_interpreter(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL, data_loop);
    assert_ok(array_new(&w.arena, DTYPE_F32, 0, NULL, &w.in[0], &w.err), &w.err);
    assert_ok(array_new(&w.arena, DTYPE_I64, 0, NULL, &w.in[1], &w.err), &w.err);
    *(float *)w.in[0]->data = 2;
    *(int64_t *)w.in[1]->data = 5;
    assert_ok(pass_infer_known(w.model->graph, &w.err), &w.err);
    assert_ok(pass_unroll(w.model->graph, &w.err), &w.err);
    assert_string_equal(w.model->graph->first->op_type, "Loop");
    assert_ok(world_run(&w, 0), &w.err);
    assert_true(*(float *)w.out[0]->data == 64);
    world_close(&w);
}

static void a_loop_whose_end_is_data_is_refused_on_the_trained_path(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL,
               "g (float x, int64 m) => (float y) <bool c = {1}> "
               "{ y = Loop<body = b (int64 i, bool go, float h) => (bool stay, float next) "
               "{ stay = Identity(go) next = Mul(h, x) }>(m, c, x) z = Identity(x) }");
    Graph *graph = w.model->graph;
    assert_ok(pass_infer_known(graph, &w.err), &w.err);
    Value *y = graph_find(graph, "y");
    type_set(&y->type, DTYPE_F32, 0, NULL);
    assert_int_equal(pass_autodiff(graph, y, graph->inputs, 1, &w.err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(w.err.message, "Loop"));
    world_close(&w);
}

static void a_settled_branch_keeps_the_names_of_outputs(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL,
               "g (float[2] x) => (float[2] y, float[2] z) <bool c = {0}> "
               "{ y, z = If<then_branch = t () => (float[2] a, float[2] b) { a = Neg(x) b = Neg(a) }, "
               "else_branch = e () => (float[2] a, float[2] b) { a = Add(x, x) b = Identity(x) }>(c) }");
    w.in[0] = floats(&w, 2, (float[]){1, 2});
    assert_ok(world_run(&w, 0), &w.err);
    assert_string_equal(w.model->graph->outputs[0]->name, "y");
    assert_string_equal(w.model->graph->outputs[1]->name, "z");
    assert_true(((float *)w.out[0]->data)[1] == 4 && ((float *)w.out[1]->data)[1] == 2);
    world_close(&w);
}

/* y is x doubled while an index is below the first dim of s, and its turns in a list, joined. */
static void a_loop_on_a_condition_of_shapes_is_written_out_with_its_list(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL,
               "g (float[2] x, float[3] s) => (float[6] y, float[2] last) <int64 zero={0}, int64 one={1}> "
               "{ n = Size(s) start = Less(zero, n) list = SequenceEmpty() "
               "i_end, last, all = Loop<body = b (int64 t, bool go, int64 i, float[2] h, l) => (bool stay, int64 j, "
               "float[2] k, m) "
               "{ j = Add(i, one) stay = Less(j, n) k = Add(h, h) m = SequenceInsert(l, k) }>(, start, zero, x, list) "
               "y = ConcatFromSequence<axis = 0>(all) }");
    Graph *graph = w.model->graph;
    assert_ok(pass_infer_known(graph, &w.err), &w.err);
    assert_ok(pass_unroll(graph, &w.err), &w.err);
    assert_ok(pass_clean(graph, &w.err), &w.err);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        assert_true(node_is(node, "Add") || node_is(node, "Concat") || node_is(node, "Identity"));
    assert_int_equal(graph->outputs[0]->type.dims[0], 6);
    w.in[0] = floats(&w, 2, (float[]){1, 3});
    w.in[1] = floats(&w, 3, (float[]){0, 0, 0});
    assert_ok(world_run(&w, 0), &w.err);
    const float *y = w.out[0]->data;
    assert_true(y[0] == 2 && y[1] == 6 && y[2] == 4 && y[4] == 8 && y[5] == 24 && ((float *)w.out[1]->data)[1] == 24);
    world_close(&w);
}

/* x one step later, as causal nets have it: the shape stays. Pads of zero do nothing and go. */
static void a_shift_by_padding_is_kept_and_padding_by_nothing_is_not(void **state)
{
    (void)state;
    World w;
    world_open(&w, NULL,
               "g (float[3] x) => (float[3] y, float[3] z) <int64[2] shift={1,-1}, int64[2] none={0,0}> "
               "{ p = Pad(x, shift) y = Neg(p) q = Pad(x, none) z = Neg(q) }");
    Graph *graph = w.model->graph;
    assert_ok(pass_infer_known(graph, &w.err), &w.err);
    assert_ok(pass_clean(graph, &w.err), &w.err);
    int pads = 0;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        pads += node_is(node, "Pad");
    assert_int_equal(pads, 1);
    w.in[0] = floats(&w, 3, (float[]){1, 2, 3});
    assert_ok(world_run(&w, 0), &w.err);
    const float *y = w.out[0]->data, *z = w.out[1]->data;
    assert_true(y[0] == 0 && y[1] == -1 && y[2] == -2 && z[0] == -1 && z[2] == -3);
    world_close(&w);
}

/* The exporter's note "aten.embedding.default](args = (%w, %ids, 1)": row 1 is padding. */
static void a_padding_row_of_an_embedding_has_no_gradient(void **state)
{
    (void)state;
    for (int noted = 0; noted < 2; noted++) {
        World w;
        world_open(&w, NULL,
                   "g (float[3,2] w, int64[4] ids) => (float y) { e = Gather(w, ids) y = ReduceSum<keepdims=0>(e) }");
        Graph *graph = w.model->graph;
        Pair pair = {
            .key = "pkg.torch.onnx.fx_node",
            .value =
                "%e : [num_users=1] = call_function[target=torch.ops.aten.embedding.default](args = (%w, %ids, 1), "
                "kwargs = {})"};
        graph->first->extra.metadata = &pair;
        graph->first->extra.metadata_count = (size_t)noted;
        assert_ok(pass_infer_known(graph, &w.err), &w.err);
        assert_ok(pass_autodiff(graph, graph->outputs[0], graph->inputs, 1, &w.err), &w.err);
        graph_add_output(graph, graph->inputs[0]->gradient);
        w.in[0] = floats(&w, 6, (float[]){1, 2, 3, 4, 5, 6});
        w.in[0]->rank = 2;
        w.in[0]->dims[0] = 3;
        w.in[0]->dims[1] = 2;
        assert_ok(array_new(&w.arena, DTYPE_I64, 1, (const int64_t[]){4}, &w.in[1], &w.err), &w.err);
        memcpy(w.in[1]->data, (const int64_t[]){1, 2, 1, 0}, 4 * sizeof(int64_t));
        assert_ok(world_run(&w, 0), &w.err);
        const float *dw = w.out[1]->data;
        assert_true(dw[0] == 1 && dw[4] == 1 && dw[2] == (noted ? 0.0f : 2.0f) && dw[3] == dw[2]);
        graph->first->extra.metadata_count = 0;
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strided_copies_move_elements_of_every_size),
        cmocka_unit_test(strided_copies_merge_what_lies_behind_each_other),
        cmocka_unit_test(an_index_outside_its_axis_is_named),
        cmocka_unit_test(a_planned_gather_refuses_an_index_too),
        cmocka_unit_test(shapes_that_do_not_fit_are_refused),
        cmocka_unit_test(what_is_cropped_at_one_end_is_not_wrapped_around_at_the_other),
        cmocka_unit_test(cubic_taps_beyond_a_border_take_its_pixel_one_by_one),
        cmocka_unit_test(random_operators_have_their_distribution),
        cmocka_unit_test(the_same_seed_draws_the_same_numbers_and_another_does_not),
        cmocka_unit_test(live_dropout_keeps_the_mean_and_drops_its_share),
        cmocka_unit_test(regular_expressions_match_whole_texts),
        cmocka_unit_test(patterns_that_are_wrong_or_unknown_are_refused),
        cmocka_unit_test(scaler_and_normalizer_do_their_arithmetic),
        cmocka_unit_test(a_loop_whose_end_is_data_runs_in_the_interpreter),
        cmocka_unit_test(a_loop_whose_end_is_data_is_refused_on_the_trained_path),
        cmocka_unit_test(a_settled_branch_keeps_the_names_of_outputs),
        cmocka_unit_test(a_loop_on_a_condition_of_shapes_is_written_out_with_its_list),
        cmocka_unit_test(a_shift_by_padding_is_kept_and_padding_by_nothing_is_not),
        cmocka_unit_test(a_padding_row_of_an_embedding_has_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
