/* passes/params.c, provenance.c, ties.c: one parameter read several times, several parameters with equal numbers, and
 * what exporters write down of both. The graphs are what PyTorch 2.13's two exporters make of small nets. */
#include "tests/test.h"

#include <string.h>

#include "passes/params.h"
#include "runtime/runtime.h"

#define OPSET "<ir_version: 8, opset_import: [\"\" : 20]> "

/* ---- helpers ------------------------------------------------------------------------------------------------- */

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

static void add_pair(Model *model, Extra *extra, const char *key, const char *value)
{
    extra->metadata =
        arena_grow(&model->arena, extra->metadata, extra->metadata_count, &extra->metadata_capacity, sizeof(Pair));
    extra->metadata[extra->metadata_count++] = (Pair){.key = key, .value = value};
}

/* name_scopes of the nodes by their names; NULL ends the list. */
static void scopes(Model *model, const char *const *pairs)
{
    for (Node *node = model->graph->first; node != NULL; node = node->next)
        for (size_t i = 0; pairs[i] != NULL; i += 2)
            if (strcmp(node->name, pairs[i]) == 0)
                add_pair(model, &node->extra, "pkg.torch.onnx.name_scopes", pairs[i + 1]);
}

static void signature(Model *model, const char *text)
{
    add_pair(model, &model->graph->extra, "pkg.torch.export.ExportedProgram.graph_signature", text);
}

static void folded_from(Model *model, const char *name, const char *list)
{
    Value *value = graph_find(model->graph, name);
    value->notes = arena_new(&model->arena, Pair);
    value->notes[0] = (Pair){.key = "pkg.onnxscript.optimizer.folded_from", .value = list};
    value->note_count = 1;
}

static ParamList params_of(Model *model)
{
    Error err = {STATUS_OK, ""};
    ParamList list;
    assert_ok(params_find(model, false, &list, &err), &err);
    return list;
}

/* Parameters that are trained apart from each other, and ones at all. */
static void assert_counts(Model *model, size_t apart, size_t trainable)
{
    ParamList list = params_of(model);
    size_t own = 0, trained = 0;
    for (size_t i = 0; i < list.count; i++) {
        own += list.items[i].tied_to < 0;
        trained += list.items[i].trainable;
    }
    assert_int_equal(own, apart);
    assert_int_equal(trained, trainable);
    model_free(model);
}

/* ---- a module called several times --------------------------------------------------------------------------- */

static const char twice[] = OPSET "g (float[N,4] x) => (y) <float[4,4] \"l1.weight\"={0.5,0.25,...}, "
                                  "float[4] \"l1.bias\"={0.125,...}> {"
                                  "[a] a = Gemm(x, \"l1.weight\", \"l1.bias\") r = Relu(a)"
                                  "[b] y = Gemm(r, \"l1.weight\", \"l1.bias\") }";

static void calls_of_one_module_train_one_parameter(void **state)
{
    (void)state;
    Model *model = parse(twice);
    scopes(model, (const char *[]){"a", "['', 'l1', 'linear']", "b", "['', 'l1', 'linear_1']", NULL});
    assert_counts(model, 2, 2); /* the bias is uniform: the module says that it is one */
}

static void calls_that_torchscript_numbers_are_one_module(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,4] x) => (y) <float[4,4] \"enc.f.0.weight\"={0.5,0.25,...}, "
                               "float[4] \"enc.f.0.bias\"={0.125,...}> {"
                               "[\"/enc/f/f.0/Gemm\"] a = Gemm(x, \"enc.f.0.weight\", \"enc.f.0.bias\") r = Relu(a)"
                               "[\"/enc/f/f.0_1/Gemm\"] y = Gemm(r, \"enc.f.0.weight\", \"enc.f.0.bias\") }");
    assert_counts(model, 2, 2);
}

static void a_module_whose_name_ends_in_a_number_is_no_second_call(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,4] x) => (y) <float[4] one={1.0,...}, float[4] \"norm_1.bias\"={0.5,...},"
                               "float[4] \"norm.bias\"={0.25,...}> {"
                               "[\"/norm/LayerNormalization\"] a = LayerNormalization(x, one, \"norm.bias\")"
                               "[\"/norm_1/LayerNormalization\"] y = LayerNormalization(a, one, \"norm_1.bias\") }");
    assert_counts(model, 4, 4);
}

static void more_readers_than_any_limit_are_one_parameter(void **state)
{
    (void)state;
    Str text;
    str_init(&text);
    str_printf(&text, OPSET "g (float[N,4] x) => (y) <float[4,4] \"cell.weight\"={0.5,0.25,...}> { h0 = Relu(x)");
    for (int i = 0; i < 100; i++)
        str_printf(&text, " [\"/cell_%d/MatMul\"] h%d = MatMul(h%d, \"cell.weight\")", i, i + 1, i);
    str_printf(&text, " y = Relu(h100) }");
    Model *model = parse(text.text);
    str_release(&text);
    assert_counts(model, 1, 1);
}

/* ---- merged by the exporter ----------------------------------------------------------------------------------- */

static void the_signature_tells_a_merger_from_a_tie(void **state)
{
    (void)state;
    /* a merger keeps the first name, a tie the last */
    Model *merged = parse(twice), *tied = parse(twice);
    const char *const lines[] = {"a", "['', 'l1', 'linear']", "b", "['', 'l2', 'linear_1']", NULL};
    scopes(merged, lines);
    signature(merged, "\n# inputs\np_a: PARAMETER target='l1.weight'\np_b: PARAMETER target='l1.bias'\n"
                      "p_c: PARAMETER target='l2.weight'\np_d: PARAMETER target='l2.bias'\nx: USER_INPUT\n");
    assert_counts(merged, 4, 4);
    scopes(tied, lines);
    signature(tied, "\n# inputs\np_c: PARAMETER target='l2.weight'\np_d: PARAMETER target='l2.bias'\n"
                    "p_a: PARAMETER target='l1.weight'\np_b: PARAMETER target='l1.bias'\nx: USER_INPUT\n");
    assert_counts(tied, 2, 2);
}

static void a_merged_tensor_under_its_own_name_is_a_parameter_of_its_own(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,4] x) => (y) <float[4,4] \"l4.weight\"={0.5,0.25,...}> {"
                               "\"l5.weight\" = Identity(\"l4.weight\") a = MatMul(x, \"l4.weight\") r = Relu(a)"
                               "y = MatMul(r, \"l5.weight\") }");
    assert_counts(model, 2, 2);
}

static void a_tied_weight_beside_biases_of_their_own_is_no_copied_layer(void **state)
{
    (void)state;
    static const char text[] = OPSET
        "g (float[N,4] x) => (y) <float[4,4] \"onnx::MatMul_7\"={0.5,0.25,...}, float[4] \"b1.bias\"={0.5,1.0,...},"
        "float[4] \"b2.bias\"={%s,1.0,...}> { \"onnx::MatMul_8\" = Identity(\"onnx::MatMul_7\")"
        "[\"/b1/MatMul\"] m = MatMul(x, \"onnx::MatMul_7\") [\"/b1/Add\"] a = Add(m, \"b1.bias\") r = Relu(a)"
        "[\"/b2/MatMul\"] n = MatMul(r, \"onnx::MatMul_8\") [\"/b2/Add\"] y = Add(n, \"b2.bias\") }";
    char filled[600];
    snprintf(filled, sizeof filled, text, "0.75");
    assert_counts(parse(filled), 3, 3);
    snprintf(filled, sizeof filled, text, "0.5"); /* equal in everything: a copy */
    assert_counts(parse(filled), 4, 4);
}

static void strangers_that_share_ones_do_not_train_with_a_scale(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    /* val_1 is a scale that a decomposed GroupNorm learns, and the ones that its InstanceNormalization is given */
    Model *model = parse(OPSET "g (float[2,4,3] x) => (y) <float[4] val_1={1.0,...}, float[4] val_2={0.0,...}, "
                               "int64[1] one={1}, float[3,3] w={0.5,0.25,...}> {"
                               "p = MatMul(x, w) [norm] i = InstanceNormalization(p, val_1, val_2)"
                               "u = Unsqueeze(val_1, one) y = Mul(i, u) }"),
          *working = NULL;
    ParamList list = params_of(model);
    assert_int_equal(list.count, 2);
    const WorkingOptions options = {.params = &list, .no_fuse = true, .training = true};
    assert_ok(working_build(model, &options, &working, &err), &err);
    for (const Node *node = working->graph->first; node != NULL; node = node->next)
        if (node_is(node, "InstanceNormalization"))
            assert_int_not_equal(node->inputs[1]->role, ROLE_PARAMETER);
    model_free(working);
    model_free(model);
}

/* ---- copies of one parameter ---------------------------------------------------------------------------------- */

static const char copies[] =
    OPSET "g (float[N,4] x) => (y) <float[4,4] val_8={0.5,0.25,...}, float[4,4] val_75={0.5,0.25,...},"
          "float[4] \"qkv.bias\"={0.5,0.25,...}> {"
          "[a] m = MatMul(x, val_8) [b] h = Add(m, \"qkv.bias\") r = Relu(h)"
          "[c] n = MatMul(r, val_75) [d] y = Add(n, \"qkv.bias\") }";

static void copies_that_were_folded_from_one_parameter_are_tied(void **state)
{
    (void)state;
    Model *model = parse(copies);
    folded_from(model, "val_8", "['qkv.weight']");
    folded_from(model, "val_75", "['qkv.weight']");
    assert_counts(model, 2, 3);
    model = parse(copies);
    folded_from(model, "val_8", "['qkv.weight']");
    folded_from(model, "val_75", "['other.weight']");
    assert_counts(model, 3, 3);
}

static void copies_that_one_module_reads_are_tied_without_records(void **state)
{
    (void)state;
    Model *model = parse(copies);
    scopes(model, (const char *[]){"a", "['', 'qkv', 'linear']", "c", "['', 'qkv', 'linear_1']", NULL});
    assert_counts(model, 2, 3);
}

static void tied_copies_are_read_and_written_as_one(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse(copies), *working = NULL;
    folded_from(model, "val_8", "['qkv.weight']");
    folded_from(model, "val_75", "['qkv.weight']");
    ParamList list = params_of(model);
    const Binding batch = {.symbol = "N", .value = 2};
    const WorkingOptions options = {
        .bindings = &batch, .binding_count = 1, .params = &list, .no_fuse = true, .training = true};
    assert_ok(working_build(model, &options, &working, &err), &err);
    const Node *first = working->graph->first, *last = NULL;
    for (const Node *node = first; node != NULL; node = node->next)
        last = node_is(node, "MatMul") ? node : last;
    assert_ptr_equal(first->inputs[1], last->inputs[1]);
    assert_int_equal(first->inputs[1]->role, ROLE_PARAMETER);
    model_free(working);
    ParamStore *store = NULL;
    assert_ok(params_new(&list, &store, &err), &err);
    store->data[0] = 7;
    assert_ok(params_write_back(store, model, &err), &err);
    assert_true(tensor_f64_at(graph_find(model->graph, "val_8")->constant, 0) == 7);
    assert_true(
        tensor_equal(graph_find(model->graph, "val_8")->constant, graph_find(model->graph, "val_75")->constant));
    params_free(store);
    model_free(model);
}

/* A permutation of w that exporters fold, its numbers under other dims, and both under a name that a person gave. */
#define COUNTED_W "0,1,2,3,10,11,12,13,20,21,22,23,100,101,102,103,110,111,112,113,120,121,122,123"
#define COUNTED_MOVED "0,10,20,100,110,120,1,11,21,101,111,121,2,12,22,102,112,122,3,13,23,103,113,123"

static void copies_with_other_dims_or_axes_are_tied_when_an_exporter_named_them(void **state)
{
    (void)state;
    static const char computed[] =
        OPSET "g (float[N,3,4] x) => (y, z) <float[2,3,4] w={" COUNTED_W "}, float[1,6,4] \"onnx::Sub_9\"={" COUNTED_W
              "}, float[4,1,2,3] \"onnx::Mul_7\"={" COUNTED_MOVED "}> {"
              "c = Conv(x, w) s = Concat<axis=1>(c, c, c) d = Sub(s, \"onnx::Sub_9\") m = Mul(c, \"onnx::Mul_7\")"
              "y = Relu(d) z = Relu(m) }";
    static const char named[] =
        OPSET "g (float[N,3,4] x) => (y, z) <float[2,3,4] w={" COUNTED_W "}, float[1,6,4] \"first.shift\"={" COUNTED_W
              "}, float[4,1,2,3] \"second.scale\"={" COUNTED_MOVED "}> {"
              "c = Conv(x, w) s = Concat<axis=1>(c, c, c) d = Sub(s, \"first.shift\") m = Mul(c, \"second.scale\")"
              "y = Relu(d) z = Relu(m) }";
    assert_counts(parse(named), 3, 3);
    Error err = {STATUS_OK, ""};
    Model *model = parse(computed);
    ParamList list = params_of(model);
    ParamStore *store = NULL;
    assert_int_equal(list.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(list.items[i].trainable && (list.items[i].tied_to < 0) == (strcmp(list.items[i].name, "w") == 0));
    assert_ok(params_new(&list, &store, &err), &err);
    for (size_t i = 0; i < 24; i++)
        store->data[i] += 0.5f;
    assert_ok(params_write_back(store, model, &err), &err);
    const Tensor *w = graph_find(model->graph, "w")->constant,
                 *flat = graph_find(model->graph, "onnx::Sub_9")->constant,
                 *moved = graph_find(model->graph, "onnx::Mul_7")->constant;
    for (int64_t i = 0; i < 2; i++)
        for (int64_t j = 0; j < 3; j++)
            for (int64_t k = 0; k < 4; k++) {
                double want = (double)(100 * i + 10 * j + k) + 0.5;
                assert_true(tensor_f64_at(w, (i * 3 + j) * 4 + k) == want);
                assert_true(tensor_f64_at(flat, (i * 3 + j) * 4 + k) == want);
                assert_true(tensor_f64_at(moved, (k * 2 + i) * 3 + j) == want);
            }
    params_free(store);
    model_free(model);
}

/* A cell's first step from zeros for a batch of 3: linear_1 repeats the bias, split_1 its second half. The batch may
 * have been made free since: then a Slice reads the row. */
static const char repeats[] =
    OPSET "g (float[3,4] x) => (y, z) <float[4,4] w={0.5,0.25,...}, float[4] b={1.0,2.0,3.0,4.0}, "
          "float[3,4] linear_1={1.0,2.0,3.0,4.0,1.0,2.0,3.0,4.0,1.0,2.0,3.0,4.0}, "
          "float[3,2] split_1={3.0,4.0,3.0,4.0,3.0,4.0}, int64[1] zero={0}, int64[1] one={1}, int64[1] two={2}> {"
          "m = MatMul(x, w) n = Add(m, b) row = Slice(linear_1, zero, one, zero) p = Add(n, row)"
          "half = Slice(p, zero, two, one) z = Add(half, split_1) y = Relu(p) }";

static Model *repeating(const char *sources)
{
    Model *model = parse(repeats);
    signature(model, "p_w: PARAMETER target='w'\np_b: PARAMETER target='b'");
    folded_from(model, "linear_1", sources);
    folded_from(model, "split_1", sources);
    return model;
}

static void rows_that_repeat_a_bias_are_trained_with_it(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = repeating("['b', 'getitem', 'w', 'zeros']"), *working = NULL;
    ParamList list = params_of(model);
    bool selected[4];
    assert_int_equal(list.count, 4);
    assert_ok(params_select_frozen(model, &list, (const char *[]){"linear_1"}, 1, selected, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        const ParamInfo *info = &list.items[i];
        bool repeated = strcmp(info->name, "linear_1") == 0 || strcmp(info->name, "split_1") == 0;
        assert_true(info->trainable && !selected[i]);
        assert_true(repeated == (info->tied_to >= 0));
        if (repeated)
            assert_string_equal(list.items[info->tied_to].name, "b");
    }
    assert_int_equal(params_select(model, &list, (const char *[]){"split_1"}, 1, selected, &err), STATUS_USAGE);
    err = (Error){STATUS_OK, ""};
    const WorkingOptions options = {.params = &list, .no_fuse = true, .training = true};
    assert_ok(working_build(model, &options, &working, &err), &err);
    for (const Node *node = working->graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->input_count; i++)
            assert_false(node->inputs[i]->role != ROLE_PARAMETER && node->inputs[i]->constant != NULL &&
                         node->inputs[i]->type.dtype == DTYPE_F32);
    model_free(working);
    ParamStore *store = NULL;
    assert_ok(params_new(&list, &store, &err), &err);
    for (size_t i = 0; i < list.count; i++)
        for (size_t k = 0; k < store->items[i].count; k++)
            store->data[store->items[i].offset + k] += 0.5f;
    assert_ok(params_write_back(store, model, &err), &err);
    for (int64_t i = 0; i < 12; i++)
        assert_true(tensor_f64_at(graph_find(model->graph, "linear_1")->constant, i) == (double)(i % 4) + 1.5);
    for (int64_t i = 0; i < 6; i++)
        assert_true(tensor_f64_at(graph_find(model->graph, "split_1")->constant, i) == (double)(i % 2) + 3.5);
    params_free(store);
    model_free(model);
}

static void rows_that_no_record_derives_from_the_bias_stay_as_they_are(void **state)
{
    (void)state;
    assert_counts(repeating("['getitem', 'w', 'zeros']"), 3, 2);
}

/* The lengths of w's rows and the squares of those, as TorchScript leaves them of a class matrix that is normalised. */
#define LONG_W "2,3,6,0,1,4,8,0,9,2,6,0"

#define MEASURED(T)                                                                                                    \
    OPSET "g (" T "[N,4] x) => (y, z) <" T "[3,4] w={" LONG_W "}, " T "[3,1] \"onnx::Clip_9\"={7.0,9.0,11.0}, " T      \
          "[3] \"onnx::Add_8\"={49.0,81.0,121.0}, " T " least={1e-12}, int64[2] dims={3,4}> {"                         \
          "s = Clip(\"onnx::Clip_9\", least) e = Expand(s, dims) d = Div(w, e) t = Transpose<perm=[1,0]>(d)"           \
          "y = MatMul(x, t) z = Add(y, \"onnx::Add_8\") }"

static void check_lengths_move(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse(text), *working = NULL;
    ParamList list = params_of(model);
    assert_int_equal(list.count, 3);
    for (size_t i = 0; i < list.count; i++) {
        assert_true(list.items[i].trainable);
        assert_int_equal(list.items[i].tied_to, strcmp(list.items[i].name, "w") == 0 ? -1 : 0);
    }
    const Binding batch = {.symbol = "N", .value = 2};
    const WorkingOptions options = {
        .bindings = &batch, .binding_count = 1, .params = &list, .no_fuse = true, .no_expand = true, .training = true};
    assert_ok(working_build(model, &options, &working, &err), &err);
    size_t lengths = 0;
    for (const Node *node = working->graph->first; node != NULL; node = node->next)
        lengths +=
            (node_is(node, "ReduceL2") || node_is(node, "ReduceSumSquare")) && node->inputs[0]->role == ROLE_PARAMETER;
    assert_int_equal(lengths, 2);
    model_free(working);
    ParamStore *store = NULL;
    assert_ok(params_new(&list, &store, &err), &err);
    store->data[store->items[0].offset] = 0;
    store->data[store->items[0].offset + 2] = 4;
    assert_ok(params_write_back(store, model, &err), &err);
    assert_true(tensor_f64_at(graph_find(model->graph, "onnx::Clip_9")->constant, 0) == 5);
    assert_true(tensor_f64_at(graph_find(model->graph, "onnx::Clip_9")->constant, 2) == 11);
    assert_true(tensor_f64_at(graph_find(model->graph, "onnx::Add_8")->constant, 0) == 25);
    params_free(store);
    model_free(model);
}

static void lengths_of_a_parameter_move_with_it(void **state)
{
    (void)state;
    check_lengths_move(MEASURED("float"));
    check_lengths_move(MEASURED("float16"));
    check_lengths_move(MEASURED("double"));
}

/* A matrix that is kept transposed has its lengths over the first axis. */
static void lengths_over_any_axis_are_found(void **state)
{
    (void)state;
    static const char text[] =
        OPSET "g (float[N,4] x) => (y) <float[4,3] \"onnx::MatMul_7\"={2,1,9,3,4,2,6,8,6,0,0,0}, "
              "float[3] \"onnx::Add_8\"={49.0,81.0,121.0}> {"
              "m = MatMul(x, \"onnx::MatMul_7\") y = Add(m, \"onnx::Add_8\") }";
    assert_counts(parse(text), 1, 2);
    Model *model = parse(text);
    ((float *)(uintptr_t)graph_find(model->graph, "onnx::Add_8")->constant->data)[1] += 1;
    assert_counts(model, 2, 2);
}

#define SQUARED(T)                                                                                                     \
    OPSET "g (" T "[N,4] x) => (y) <" T "[4,3] \"onnx::MatMul_7\"={2,1,9,3,4,2,6,8,6,0,5,7}, " T                       \
          "[3,4] \"onnx::ReduceSum_8\"={4,9,36,0,1,16,64,25,81,4,36,49}, int64[1] one={1}> {"                          \
          "m = MatMul(x, \"onnx::MatMul_7\") s = ReduceSum<keepdims=0>(\"onnx::ReduceSum_8\", one) y = Add(m, s) }"

/* `moved` becomes `written` in the file's type, and its square that of what is written. */
static void check_squares_move(const char *text, float moved, double written, double square)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse(text);
    ParamList list = params_of(model);
    ParamStore *store = NULL;
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[1].tied_to, 0);
    assert_ok(params_new(&list, &store, &err), &err);
    store->data[store->items[0].offset + 3] = moved;
    assert_ok(params_write_back(store, model, &err), &err);
    const Tensor *squares = graph_find(model->graph, "onnx::ReduceSum_8")->constant;
    assert_true(tensor_f64_at(graph_find(model->graph, "onnx::MatMul_7")->constant, 3) == written);
    assert_true(tensor_f64_at(squares, 1) == square);
    assert_true(tensor_f64_at(squares, 4) == 1);
    params_free(store);
    list = params_of(model);
    assert_int_equal(list.items[1].tied_to, 0);
    model_free(model);
}

static void squares_move_with_what_they_are_of(void **state)
{
    (void)state;
    check_squares_move(SQUARED("float"), 10, 10, 100);
    check_squares_move(SQUARED("double"), 10, 10, 100);
    check_squares_move(SQUARED("float16"), 10.003F, 10, 100);
    check_squares_move(SQUARED("bfloat16"), 3.141592F, 3.140625, 9.875);
}

static void a_table_that_the_graph_normalises_is_found_behind_it(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET "g (int64[N] x) => (y) <float[3,4] table={" LONG_W "}, float[3,1] \"onnx::Clip_9\"={7.0,9.0,11.0}, "
                    "float least={1e-12}> {"
                    "s = Clip(\"onnx::Clip_9\", least) d = Div(table, s) g = Gather(d, x) y = Relu(g) }");
    assert_counts(model, 1, 2);
}

/* One tensor under scale and bias of two normalisations, of which the first moves: by its gradient alone, or since the
 * second is frozen. */
static void what_shared_a_tensor_keeps_its_numbers_when_another_moves(void **state)
{
    (void)state;
    for (int frozen = 0; frozen < 2; frozen++) {
        Error err = {STATUS_OK, ""};
        Model *model = parse(OPSET "g (float[N,4] x) => (y) <float[4] one={1,1,1,1}, float[4] zero={0,0,0,0}> {"
                                   "a = LayerNormalization(x, one, zero) b = Relu(a) "
                                   "c = LayerNormalization(b, one, zero) y = Relu(c) }");
        ParamList list = params_of(model);
        ParamStore *store = NULL;
        assert_int_equal(list.count, 4);
        size_t owners = 0;
        for (size_t i = 0; i < list.count; i++) {
            owners += !list.items[i].untied;
            list.items[i].trainable = !frozen || !list.items[i].untied;
        }
        assert_int_equal(owners, 2);
        assert_ok(params_new(&list, &store, &err), &err);
        for (size_t i = 0; i < list.count; i++)
            if (!list.items[i].untied)
                store->data[store->items[i].offset] += 3;
        assert_ok(params_write_back(store, model, &err), &err);
        assert_ok(model_check(model, &err), &err);
        const Node *first = model->graph->first, *second = first->next->next;
        for (int input = 1; input < 3; input++) {
            double before = input == 1 ? 1 : 0;
            assert_true(tensor_f64_at(first->inputs[input]->constant, 0) == before + 3);
            assert_true(tensor_f64_at(first->inputs[input]->constant, 1) == before);
            assert_true(tensor_f64_at(second->inputs[input]->constant, 0) == before);
        }
        assert_int_equal(model->graph->initializer_count, 4);
        params_free(store);
        model_free(model);
    }
}

#define MERGED_BODY(ATTRIBUTE)                                                                                         \
    "g (float[N,2] x) => (y) <float[2] s={1,2}, float[2] t={3,4}, float[2] b={5,6}, float[2] c={7,8}, "                \
    "float[2] zero={0,0}, float[2] one={1,1}> {"                                                                       \
    "a, m1, v1 = BatchNormalization" ATTRIBUTE "(x, s, b, zero, one)"                                                  \
    "d, m2, v2 = BatchNormalization" ATTRIBUTE "(a, s, b, zero, one)"                                                  \
    "y, m3, v3 = BatchNormalization" ATTRIBUTE "(d, t, c, zero, one) }"

/* Two BatchNorms of which an exporter has merged what is equal at first, and two calls of one; training form as it is
 * written since opset 14, and before. */
static void merged_statistics_are_parted_and_those_of_one_module_are_not(void **state)
{
    (void)state;
    static const char *const forms[] = {OPSET MERGED_BODY("<training_mode=1>"),
                                        "<ir_version: 7, opset_import: [\"\" : 13]>" MERGED_BODY("")};
    for (size_t form = 0; form < 2; form++) {
        Model *model = parse(forms[form]);
        ParamList list = params_of(model);
        assert_int_equal(list.count, 4);
        statistics_part(model, &list);
        const Node *first = model->graph->first, *second = first->next, *third = second->next;
        for (int i = 3; i < 5; i++) {
            assert_ptr_equal(first->inputs[i], second->inputs[i]);
            assert_ptr_not_equal(first->inputs[i], third->inputs[i]);
            assert_ptr_not_equal(first->inputs[i]->constant, third->inputs[i]->constant);
            assert_true(tensor_f64_at(first->inputs[i]->constant, 1) == (i == 3 ? 0 : 1));
        }
        Error err = {STATUS_OK, ""};
        assert_ok(model_check(model, &err), &err);
        model_free(model);
    }
}

/* ---- what the file says of its state ---------------------------------------------------------------------------- */

static void a_buffer_is_no_parameter_and_one_number_can_be_one(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,2,6,6] x) => (y) <float[2,1,3,3] kernel={0.5,0.25,...}, float[2,2,1,1] "
                               "w={0.5,0.25,...}, float scale={2.0}> {"
                               "a = Conv(x, w) b = Conv<group=2>(a, kernel) y = Mul(b, scale) }");
    signature(model, "p_w: PARAMETER target='w'\np_scale: PARAMETER target='scale'\nb_kernel: BUFFER target='kernel'");
    ParamList list = params_of(model);
    assert_int_equal(list.count, 2);
    for (size_t i = 0; i < list.count; i++)
        assert_string_not_equal(list.items[i].name, "kernel");
    model_free(model);
}

static void a_moved_parameter_is_trained_and_a_computed_table_is_not(void **state)
{
    (void)state;
    static const char text[] = OPSET "g (float[N,3,4] x) => (y) <float[1,3,4] view_2={0.5,0.25,...}, float[4,4] "
                                     "\"fc.weight\"={0.5,...}> { a = MatMul(x, \"fc.weight\") y = Add(a, view_2) }";
    Model *model = parse(text);
    signature(model, "p_pos: PARAMETER target='pos'\np_fc: PARAMETER target='fc.weight'\nb_i: BUFFER target='ids'");
    folded_from(model, "view_2", "['pos', 'val_1']");
    assert_counts(model, 2, 2);
    static const char *const computed[] = {"['pos', 'ids']", "['pos', 'rsqrt']", "['pos', 'fc.weight']"};
    for (size_t i = 0; i < 3; i++) {
        model = parse(text);
        signature(model, "p_pos: PARAMETER target='pos'\np_fc: PARAMETER target='fc.weight'\nb_i: BUFFER target='ids'");
        folded_from(model, "view_2", computed[i]);
        assert_counts(model, 2, 1);
    }
}

/* A grid that meets a learned matrix, and the ones that stand for a scale which a norm does not have. */
static void what_the_exporter_made_of_no_parameter_is_none(void **state)
{
    (void)state;
    static const char *const lists[] = {"['linspace', 'stack', 'val_1']", "['fc.weight', 'stack']"};
    for (size_t i = 0; i < 2; i++) {
        Model *model = parse(
            OPSET "g (float[N,4] x) => (y) <float[3,2] view_3={0.5,0.25,...}, float[8,4] \"fc.weight\"={0.5,...}, "
                  "float[4] val_8={1,1,1,1}, int64[3] shape={-1,2,4}> { n = LayerNormalization(x, val_8) "
                  "a = Gemm<transB=1>(n, \"fc.weight\") t = Reshape(a, shape) y = MatMul(view_3, t) }");
        signature(model, "p_fc: PARAMETER target='fc.weight'");
        folded_from(model, "view_3", lists[i]);
        folded_from(model, "val_8", "['add_2', 'val_7']");
        assert_counts(model, 1 + i, 1 + i);
    }
}

static void learned_rows_that_are_normalised_and_widths_that_are_squared_are_found(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET "g (float[N,4] x) => (y) <float[3,4] queries={0.5,0.25,...}, float[4] \"norm.weight\"={1,2,3,4}, "
                    "float[4,4] \"fc.weight\"={0.5,...}, float[4] width={1,2,3,4}, float two={2}> { "
                    "q = LayerNormalization(queries, \"norm.weight\") k = Gemm<transB=1>(x, \"fc.weight\") "
                    "s = Pow(width, two) d = Div(k, s) t = Transpose<perm=[1,0]>(d) y = MatMul(q, t) }");
    assert_counts(model, 4, 4);
}

static void what_torchscript_has_unsqueezed_is_listed_apart(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,4] x, int64[3] shape) => (y) <float[1,3,4] "
                               "\"onnx::Expand_7\"={0.5,0.25,...}, float[4,4] w={0.5,...}> { "
                               "[\"/fc/MatMul\"] a = MatMul(x, w) "
                               "[\"/Expand\"] q = Expand(\"onnx::Expand_7\", shape) [\"/MatMul\"] y = MatMul(q, a) }");
    model->producer_name = "pytorch";
    assert_counts(model, 2, 1);
}

static void a_weight_that_the_graph_normalises_is_found_behind_it(void **state)
{
    (void)state;
    Model *model = parse(OPSET "g (float[N,4] x) => (y) <float[4,3] w={0.5,0.25,...}, float e={0.001}> {"
                               "n = ReduceL2(w) m = Add(n, e) u = Div(w, m) y = MatMul(x, u) }");
    ParamList list = params_of(model);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.items[0].name, "w");
    assert_string_equal(list.items[0].op_type, "MatMul");
    model_free(model);
}

static void generated_names_are_told_by_their_operator(void **state)
{
    (void)state;
    static const char *const generated[] = {"val_12",   "embedding_2",         "unsqueeze", "onnx::Add_7",
                                            "193",      "reduce_mean_1",       "cumsum",    "view_3",
                                            "_to_copy", "/a/Constant_output_0"};
    static const char *const kept[] = {"fc.weight", "pos", "layer1",  "gamma_2",        "cls_token",
                                       "scale_1",   "w",   "kernel0", "dense/kernel:0", "logit_scale"};
    Model *model = parse(OPSET "g (float[N] x) => (y) { y = Relu(x) }");
    Arena arena;
    Records records;
    arena_init(&arena);
    records_init(&records, model, &arena);
    for (size_t i = 0; i < sizeof generated / sizeof *generated; i++)
        if (!name_is_generated(&records, generated[i]))
            fail_msg("'%s' is taken for a name of its own", generated[i]);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (name_is_generated(&records, kept[i]))
            fail_msg("'%s' is taken for generated", kept[i]);
    records_release(&records);
    arena_release(&arena);
    model_free(model);
}

static void constants_may_be_named_as_frozen(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model =
        parse(OPSET "g (float[N,2,3,3] x) => (y) <float[2,2,1,1] w={0.5,0.25,...}, float[2] s={1.0,0.5}, float[2] "
                    "b={0.5,0.25}, float[2] m={0.5,0.125}, float[2] v={1.0,2.0}> {"
                    "a = Conv(x, w) y = BatchNormalization(a, s, b, m, v) }");
    ParamList list = params_of(model);
    bool selected[8];
    const char *const constant[] = {"m"}, *const unknown[] = {"nothing"};
    assert_ok(params_select_frozen(model, &list, constant, 1, selected, &err), &err);
    for (size_t i = 0; i < list.count; i++)
        assert_false(selected[i]);
    assert_int_equal(params_select_frozen(model, &list, unknown, 1, selected, &err), STATUS_USAGE);
    err = (Error){STATUS_OK, ""};
    assert_int_equal(params_select(model, &list, constant, 1, selected, &err), STATUS_USAGE);
    assert_string_equal(err.message, "'m' is a constant of the model, not a parameter");
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_one_module_train_one_parameter),
        cmocka_unit_test(calls_that_torchscript_numbers_are_one_module),
        cmocka_unit_test(a_module_whose_name_ends_in_a_number_is_no_second_call),
        cmocka_unit_test(more_readers_than_any_limit_are_one_parameter),
        cmocka_unit_test(the_signature_tells_a_merger_from_a_tie),
        cmocka_unit_test(a_merged_tensor_under_its_own_name_is_a_parameter_of_its_own),
        cmocka_unit_test(a_tied_weight_beside_biases_of_their_own_is_no_copied_layer),
        cmocka_unit_test(strangers_that_share_ones_do_not_train_with_a_scale),
        cmocka_unit_test(copies_that_were_folded_from_one_parameter_are_tied),
        cmocka_unit_test(copies_that_one_module_reads_are_tied_without_records),
        cmocka_unit_test(tied_copies_are_read_and_written_as_one),
        cmocka_unit_test(copies_with_other_dims_or_axes_are_tied_when_an_exporter_named_them),
        cmocka_unit_test(rows_that_repeat_a_bias_are_trained_with_it),
        cmocka_unit_test(rows_that_no_record_derives_from_the_bias_stay_as_they_are),
        cmocka_unit_test(lengths_of_a_parameter_move_with_it),
        cmocka_unit_test(lengths_over_any_axis_are_found),
        cmocka_unit_test(squares_move_with_what_they_are_of),
        cmocka_unit_test(a_table_that_the_graph_normalises_is_found_behind_it),
        cmocka_unit_test(what_shared_a_tensor_keeps_its_numbers_when_another_moves),
        cmocka_unit_test(merged_statistics_are_parted_and_those_of_one_module_are_not),
        cmocka_unit_test(a_buffer_is_no_parameter_and_one_number_can_be_one),
        cmocka_unit_test(a_moved_parameter_is_trained_and_a_computed_table_is_not),
        cmocka_unit_test(what_the_exporter_made_of_no_parameter_is_none),
        cmocka_unit_test(learned_rows_that_are_normalised_and_widths_that_are_squared_are_found),
        cmocka_unit_test(what_torchscript_has_unsqueezed_is_listed_apart),
        cmocka_unit_test(a_weight_that_the_graph_normalises_is_found_behind_it),
        cmocka_unit_test(generated_names_are_told_by_their_operator),
        cmocka_unit_test(constants_may_be_named_as_frozen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
