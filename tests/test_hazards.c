/* The traps that real ONNX files set, one test a number, by the numbers of docs/hazards.md. Each says what would go
 * wrong; what needs files is in test_import, test_export and test_external, what needs the tool in cli.sh. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

/* ---- helpers -------------------------------------------------------------------------------------------------- */

#define OPSET(n) "<ir_version: 8, opset_import: [\"\" : " #n "]> "

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

static ParamList params_of(Model *model, bool no_tie)
{
    Error err = {STATUS_OK, ""};
    ParamList list;
    assert_ok(params_find(model, no_tie, &list, &err), &err);
    return list;
}

static const ParamInfo *param(const ParamList *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static const Head *best_head(Model *model)
{
    Error err = {STATUS_OK, ""};
    HeadList list;
    const Head *head = NULL;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_ok(heads_pick(&list, NULL, NULL, &head, &err), &err);
    return head;
}

static Value *replace_head(Model *model, int64_t classes)
{
    Error err = {STATUS_OK, ""};
    const HeadSpec spec = {.classes = classes, .init = INIT_KAIMING_UNIFORM, .seed = 1};
    Value *logits = NULL;
    assert_ok(pass_replace_head(model, best_head(model), &spec, false, &logits, &err), &err);
    assert_ok(model_check(model, &err), &err);
    return logits;
}

/* The training graph with a squared error on output 0. */
static Model *training(Model *model, const Binding *bindings, size_t count, const ParamList *list)
{
    Error err = {STATUS_OK, ""};
    const LossSpec loss = {.kind = LOSS_MSE, .weight = 1, .ignore_index = -1, .target_name = "target"};
    const WorkingOptions options = {.bindings = bindings,
                                    .binding_count = count,
                                    .training = true,
                                    .params = list,
                                    .losses = &loss,
                                    .loss_count = 1,
                                    .gradients = true};
    Model *working = NULL;
    assert_ok(working_build(model, &options, &working, &err), &err);
    return working;
}

/* How many parameters it has; gradients of every one must be there. */
static size_t trains(Model *model, const Binding *bindings, size_t count)
{
    ParamList list = params_of(model, false);
    Model *working = training(model, bindings, count, &list);
    size_t reached = 0;
    for (size_t i = 0; i < working->graph->initializer_count; i++) {
        const Value *value = working->graph->initializers[i];
        if (value->role != ROLE_PARAMETER)
            continue;
        assert_non_null(value->gradient);
        reached++;
    }
    model_free(working);
    return reached;
}

static const Binding batch2 = {.symbol = "N", .value = 2};

static Model *inference(Model *model, const Binding *bindings, size_t count)
{
    Error err = {STATUS_OK, ""};
    const WorkingOptions options = {.bindings = bindings, .binding_count = count};
    Model *working = NULL;
    assert_ok(working_build(model, &options, &working, &err), &err);
    return working;
}

static size_t count_op(const Graph *graph, const char *op_type)
{
    size_t count = 0;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        count += strcmp(node->op_type, op_type) == 0;
    return count;
}

static void temporary(char *folder)
{
    snprintf(folder, 64, "/tmp/regraft-hazards-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

/* What a file of it holds: only there is type information kept as it was read. */
static Model *through_file(Model *model)
{
    char folder[64], path[96];
    temporary(folder);
    snprintf(path, sizeof path, "%s/a.onnx", folder);
    Error err = {STATUS_OK, ""};
    assert_ok(model_export(model, path, NULL, &err), &err);
    model_free(model);
    assert_ok(model_import(path, &builtin_ops, &model, &err), &err);
    remove_folder(folder);
    return model;
}

/* ---- names, sharing, initializers ------------------------------------------------------------------------------ */

static void hazard_01_equal_initializers_of_other_roles_are_parted(void **state)
{
    (void)state;
    /* the exporter made running_var and the scale one initializer, through Identity */
    Model *model = parse(OPSET(17) "g (float[N,2,4,4] x) => (y) <float[2] s={1.0,1.0}, float[2] b={0.5,0.25}> {"
                                   "v = Identity(s) y = BatchNormalization(x, s, b, b, v) }");
    ParamList list = params_of(model, false);
    assert_int_equal(list.count, 2);
    assert_true(list.items[0].is_norm && list.items[1].is_norm);
    assert_int_equal(trains(model, &batch2, 1), 2); /* scale and bias, never the statistics */
    Model *working = training(model, &batch2, 1, &list);
    const Node *norm = working->graph->first;
    while (norm != NULL && strncmp(norm->op_type, "BatchNorm", 9) != 0)
        norm = norm->next;
    assert_non_null(norm);
    for (int i = 1; i < 5; i++) /* scale, bias, mean, variance */
        assert_int_equal(norm->inputs[i]->role == ROLE_PARAMETER, i < 3);
    model_free(working);
    model_free(model);
}

static void hazard_02_and_40_a_transposed_copy_is_one_parameter_with_its_origin(void **state)
{
    (void)state;
    /* the embedding and, transposed by the exporter, the output layer: equal numbers, so one parameter */
    Model *model = parse(
        OPSET(17) "g (int64[N,T] ids) => (y) <float[64,32] e={0.5,...}, float[32,64] \"onnx::MatMul_9\"={0.5,...}> {"
                  "h = Gather(e, ids) y = MatMul(h, \"onnx::MatMul_9\") }");
    float *e = (float *)(uintptr_t)graph_find(model->graph, "e")->constant->data;
    float *t = (float *)(uintptr_t)graph_find(model->graph, "onnx::MatMul_9")->constant->data;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 32; j++)
            e[i * 32 + j] = t[j * 64 + i] = (float)(i * 37 % 11) + 0.1F * (float)j;
    ParamList tied = params_of(model, false), apart = params_of(model, true);
    assert_int_equal(tied.count, 2);
    assert_true(tied.items[0].tied_to >= 0 || tied.items[1].tied_to >= 0);
    for (size_t i = 0; i < apart.count; i++)
        assert_int_equal(apart.items[i].tied_to, -1);
    const Binding bindings[] = {{.symbol = "N", .value = 2}, {.symbol = "T", .value = 3}};
    assert_int_equal(trains(model, bindings, 2), 1); /* one tensor takes both gradients */
    model_free(model);
}

static void hazard_03_lost_names_are_found_by_node_scope(void **state)
{
    (void)state;
    Model *model = parse(
        OPSET(17) "g (float[N,3,4,4] x) => (y) <float[2,3,1,1] \"onnx::Conv_193\"={0.5,...}, float[4,2] w={0.1,...}> {"
                  "[\"/layer4/layer4.1/conv2/Conv\"] a = Conv(x, \"onnx::Conv_193\")"
                  "p = GlobalAveragePool(a) f = Flatten(p) [\"/fc/Gemm\"] y = Gemm<transB=1>(f, w) }");
    ParamList list = params_of(model, false);
    bool selected[2];
    const char *pattern = "layer4";
    Error err = {STATUS_OK, ""};
    assert_ok(params_select(model, &list, &pattern, 1, selected, &err), &err);
    assert_true(selected[0] && !selected[1]);
    model_free(model);
}

static void hazard_04_and_05_every_layout_of_weight_and_bias_gives_width_and_classes(void **state)
{
    (void)state;
    static const char *const tails[] = {
        "<float[5,4] w={...}, float[5] b={...}> { h = Elu(x) y = Gemm<transB=1>(h, w, b) }",
        "<float[4,5] w={...}> { h = Elu(x) y = Gemm<beta=0.5>(h, w) }",
        "<float[4,5] w={...}, float[5] b={...}> { h = Elu(x) m = MatMul(h, w) y = Add(b, m) }",
        "<float[4,5] w={...}, float[5] b={...}> { h = Elu(x) m = MatMul(h, w) y = Add(m, b) }",
        "<float[5,4] w={...}> { h = Elu(x) t = Transpose<perm=[1,0]>(w) y = MatMul(h, t) }",
        "<float[5,4] w={...}> { h = Elu(x) i = Identity(w) y = Gemm<transB=1>(h, i) }",
        "{ w = Constant<value = float[4,5] {...}>() h = Elu(x) y = MatMul(h, w) }",
        "<float16[4,5] w={...}> { h = Elu(x) c = Cast<to=1>(w) y = MatMul(h, c) }",
        "<int8[4,5] w={...}, float s={0.5}> { h = Elu(x) c = DequantizeLinear(w, s) y = MatMul(h, c) }",
    };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char text[400];
        snprintf(text, sizeof text, OPSET(17) "g (float[N,4] x) => (float[N,5] y) %s", tails[i]);
        Model *model = parse(text);
        const Head *head = best_head(model);
        assert_int_equal(head->feature_width, 4);
        assert_int_equal(head->class_count, 5);
        assert_ptr_equal(head->scores, graph_find(model->graph, "y"));
        model_free(model);
    }
}

static void hazard_06_constant_nodes_can_be_parameters_and_initializers_need_not(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET(17) "g (float[N,4] x) => (y) <int64[2] shape={-1,4}, float eps={0.1}, float[4] gain={1.5,...}> {"
                        "w = Constant<value = float[4,4] {0.5,...}>() a = MatMul(x, w) r = Reshape(a, shape)"
                        "e = Add(r, eps) y = Mul(e, gain) }");
    ParamList list = params_of(model, false);
    assert_int_equal(list.count, 2);
    assert_non_null(param(&list, "gain"));
    assert_null(param(&list, "eps"));
    assert_null(param(&list, "shape"));
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
}

static void hazard_07_initializers_that_are_inputs_too_are_weights(void **state)
{
    (void)state;
    static const char text[] = "<ir_version: 3, opset_import: [\"\" : 8]> "
                               "g (float[N,4] x, float[5,4] w={0.5,...}, float[5] b={0.1,...}) => (float[N,5] y) {"
                               "h = Relu(x) y = Gemm<transB=1>(h, w, b) }";
    Model *model = parse(text);
    assert_int_equal(best_head(model)->class_count, 5);
    assert_int_equal(trains(model, &batch2, 1), 2);
    replace_head(model, 3);
    assert_int_equal(model->graph->input_count, 1); /* the old weights are no inputs any more */
    model_free(model);
    model = parse(text);
    Error err = {STATUS_OK, ""};
    assert_ok(pass_cut(model, graph_find(model->graph, "h"), NULL, true, &err), &err);
    assert_int_equal(model->graph->input_count, 1); /* not even where inputs stay */
    model_free(model);
}

static void hazard_08_names_may_be_empty_or_doubled_and_new_ones_collide_with_none(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET(17) "g (float[N,4] x) => (float[N,5] \"head.bias\") <float[4,5] \"head.weight\"={0.5,...}> {"
                        "[same] \"/head/Gemm_output_0\" = Elu(x) [same] k = Clip(\"/head/Gemm_output_0\", \"\", \"\")"
                        "[\"/head_2/Gemm\"] l = Abs(k) \"head.bias\" = MatMul(l, \"head.weight\") }");
    Error err = {STATUS_OK, ""};
    const Value *logits = replace_head(model, 3);
    assert_string_equal(logits->name, "head.bias"); /* the output keeps its name, whatever that is */
    assert_string_equal(logits->producer->inputs[1]->name, "head_2.weight");
    assert_string_equal(logits->producer->inputs[2]->name, "head_2.bias");
    for (const Node *node = model->graph->first; node != NULL; node = node->next)
        assert_int_equal(strcmp(node->name, logits->producer->name) == 0, node == logits->producer);
    assert_ok(model_check(model, &err), &err);
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
}

static void hazard_09_exotic_tensors_survive_surgery(void **state)
{
    (void)state;
    Model *model = parse(OPSET(21) "g (float[N,4] x, string[N] t) => (float[N,5] y, string[N] u) <string[1] s={\"a\"}, "
                                   "bfloat16[4] b={1.0,...},"
                                   "int4[3] q={1,2,-3}, float[4,5] w={0.5,...}> {"
                                   "h = Elu(x) y = MatMul(h, w) u = my.text.Join(t, s, b, q) }");
    replace_head(model, 3);
    assert_int_equal(graph_find(model->graph, "b")->constant->dtype, DTYPE_BF16);
    assert_int_equal(graph_find(model->graph, "q")->constant->dtype, DTYPE_I4);
    assert_int_equal(graph_find(model->graph, "s")->constant->dtype, DTYPE_STRING);
    model_free(model);
}

/* ---- topology ---------------------------------------------------------------------------------------------------- */

static void hazard_10_and_11_features_with_other_readers_or_listed_as_output_stay_alive(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET(17) "g (float[N,4] x) => (float[N,5] y, float[N,4] h, float[N,4] other) <float[4,5] w={0.5,...}> {"
                        "h = Elu(x) other = Relu(h) y = MatMul(h, w) }");
    Error err = {STATUS_OK, ""};
    assert_ok(pass_cut(model, graph_find(model->graph, "h"), graph_find(model->graph, "y"), false, &err), &err);
    assert_ok(model_check(model, &err), &err);
    assert_int_equal(model->graph->output_count, 2);
    assert_string_equal(model->graph->outputs[0]->name, "h");
    assert_string_equal(model->graph->outputs[1]->name, "other");
    model_free(model);
}

static void hazard_12_post_ops_go_with_the_old_head(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[N,4] x) => (int64[N] y) <float[4,5] w={0.5,...}> {"
                                   "h = Elu(x) m = MatMul(h, w) s = Softmax(m) y = ArgMax<keepdims=0>(s) }");
    const Value *logits = replace_head(model, 3);
    assert_int_equal(logits->type.dtype, DTYPE_F32);
    assert_int_equal(count_op(model->graph, "ArgMax") + count_op(model->graph, "Softmax"), 0);
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
}

static void hazard_13_steps_that_read_inputs_behind_the_head_stay(void **state)
{
    (void)state;
    Model *model =
        parse(OPSET(17) "g (int64[N,T] ids) => (float[N,5] y) <float[9,4] e={0.5,...}, float[4,5] w={0.25,...},"
                        "int64[1] a={1}, int64 axis={1}> {"
                        "h = Gather(e, ids) m = MatMul(h, w) last = ArgMax<axis=1, keepdims=1>(ids)"
                        "u = Unsqueeze(last, a) y3 = GatherND<batch_dims=1>(m, last) y = Identity(y3) }");
    replace_head(model, 3);
    assert_int_equal(model->graph->input_count, 1);
    assert_int_equal(count_op(model->graph, "GatherND"), 1);
    const Binding bindings[] = {{.symbol = "N", .value = 2}, {.symbol = "T", .value = 6}};
    Model *working = inference(model, bindings, 2);
    assert_int_equal(working->graph->outputs[0]->type.dims[1], 3);
    model_free(working);
    model_free(model);
}

static void hazard_14_an_input_that_only_the_head_read_goes_or_is_kept(void **state)
{
    (void)state;
    for (int keep = 0; keep <= 1; keep++) {
        Model *model = parse(OPSET(17) "g (float[N,4] x, float[N,4] mask) => (float[N,5] y) <float[4,5] w={0.5,...}> {"
                                       "h = Elu(x) m = Mul(h, mask) y = MatMul(m, w) }");
        Error err = {STATUS_OK, ""};
        assert_ok(pass_cut(model, graph_find(model->graph, "h"), NULL, keep == 1, &err), &err);
        assert_int_equal(model->graph->input_count, 1 + keep);
        model_free(model);
    }
}

static void hazard_15_a_pooler_is_offered_and_not_taken(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[N,4] x) => (float[N,3] y) <float[4] s={1.0,...}, float[4,4] v={0.5,...}, "
                                   "float[4,3] w={0.5,...}> {"
                                   "n = LayerNormalization(x, s) p = MatMul(n, v) t = Tanh(p) y = MatMul(t, w) }");
    Error err = {STATUS_OK, ""};
    HeadList list;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_int_equal(list.count, 2);
    assert_string_equal(best_head(model)->features->name, "t");
    assert_string_equal(list.items[1].features->name, "n");
    model_free(model);
}

static void hazard_16_and_17_a_convolution_head_is_told_from_a_feature_layer_by_its_count(void **state)
{
    (void)state;
    for (int classes = 999; classes <= 1024; classes += 25) {
        char text[400];
        snprintf(text, sizeof text,
                 OPSET(17) "g (float[N,4,8,8] x) => (float[N,%d] y) <float[%d,4,1,1] w={0.5,...}> {"
                           "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }",
                 classes, classes);
        Model *model = parse(text);
        Error err = {STATUS_OK, ""};
        HeadList list;
        const Head *head = NULL;
        assert_ok(heads_find(model, &list, &err), &err);
        assert_int_equal(heads_pick(&list, NULL, NULL, &head, &err), classes == 999 ? STATUS_OK : STATUS_AMBIGUOUS);
        if (classes == 999) {
            replace_head(model, 3);
            assert_int_equal(count_op(model->graph, "GlobalAveragePool"), 1);
            assert_int_equal(trains(model, &batch2, 1), 2);
        }
        model_free(model);
    }
}

static void hazard_18_several_heads_ask_for_an_output(void **state)
{
    (void)state;
    Model *model = parse(OPSET(
        17) "g (float[N,4] x) => (float[N,5] y, float[N,3] aux) <float[4,5] v={0.5,...}, float[4,3] w={0.5,...}> {"
            "h = Elu(x) y = MatMul(h, v) a = Relu(x) aux = MatMul(a, w) }");
    Error err = {STATUS_OK, ""};
    HeadList list;
    const Head *head = NULL;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_int_equal(heads_pick(&list, NULL, NULL, &head, &err), STATUS_AMBIGUOUS);
    error_clear(&err);
    assert_ok(heads_pick(&list, NULL, "aux", &head, &err), &err);
    assert_int_equal(head->class_count, 3);
    model_free(model);
}

static void hazard_19_values_that_bodies_capture_are_needed(void **state)
{
    (void)state;
    /* p served the head and would go with it, were it not for the branches */
    Model *model = parse(OPSET(
        17) "g (float[N,4] x, bool c) => (float[N,5] y, float[N,4] z) <float[4] b={1.0,...}, float[4,5] w={0.5,...}> {"
            "h = Elu(x) p = Mul(x, b) t = Sub(h, p)"
            "z = If <then_branch = t () => (u) { u = Add(p, b) }, else_branch = e () => (p) {}> (c)"
            "y = MatMul(t, w) }");
    Error err = {STATUS_OK, ""};
    assert_ok(pass_cut(model, graph_find(model->graph, "h"), graph_find(model->graph, "y"), false, &err), &err);
    assert_ok(model_check(model, &err), &err);
    assert_int_equal(count_op(model->graph, "Sub") + count_op(model->graph, "MatMul"), 0);
    assert_int_equal(count_op(model->graph, "Mul") + count_op(model->graph, "If"), 2);
    assert_non_null(graph_find(model->graph, "b"));
    assert_null(graph_find(model->graph, "w"));
    model_free(model);
}

static void hazard_20_functions_in_functions_are_inlined_before_the_head_is_sought(void **state)
{
    (void)state;
    Model *model =
        parse("<ir_version: 10, opset_import: [\"\" : 18, \"torch\" : 1]> "
              "g (float[N,4] x) => (float[N,5] y) <float[5,4] w={0.5,...}, float[5] b={0.1,...}> {"
              "h = torch.act<alpha = 0.5>(x) y = torch.linear(h, w, b) }"
              "<domain: \"torch\", opset_import: [\"\" : 18, \"torch\" : 1]> "
              "linear (a, w, b) => (c) { t = torch.t(w) m = MatMul(a, t) c = Add(m, b) }"
              "<domain: \"torch\", opset_import: [\"\" : 18]> t (w) => (v) { v = Transpose<perm = [1, 0]>(w) }"
              "<domain: \"torch\", opset_import: [\"\" : 18]> "
              "act <alpha> (a) => (b) { b = LeakyRelu<alpha: float = @alpha>(a) }");
    Error err = {STATUS_OK, ""};
    assert_ok(pass_inline(model, &err), &err);
    const Head *head = best_head(model);
    assert_int_equal(head->feature_width, 4);
    assert_int_equal(head->class_count, 5);
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
    model = parse("<ir_version: 10, opset_import: [\"\" : 18, \"d\" : 1]> g (float[N,4] x) => (y) { y = d.f(x) }"
                  "<domain: \"d\", opset_import: [\"d\" : 1]> f (a) => (b) { b = d.h(a) }"
                  "<domain: \"d\", opset_import: [\"d\" : 1]> h (a) => (b) { b = d.f(a) }");
    assert_int_equal(pass_inline(model, &err), STATUS_REJECTED); /* they call each other */
    model_free(model);
}

static void hazard_21_cycles_and_doubled_outputs_are_refused(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse(OPSET(17) "g (float[N,4] x) => (y) { a = Add(x, x) b = Relu(a) y = Relu(b) }");
    Graph *graph = model->graph;
    node_set_input(graph->first, 1, graph_find(graph, "b")); /* a needs b needs a */
    assert_int_equal(graph_sort(graph, &err), STATUS_REJECTED);
    model_free(model);
    Model *twice = NULL;
    error_clear(&err);
    Status status =
        model_parse(OPSET(17) "g (float[N,4] x) => (y) { y = Relu(x) y = Abs(x) }", &builtin_ops, &twice, &err);
    if (status == STATUS_OK)
        status = model_check(twice, &err);
    assert_int_equal(status, STATUS_REJECTED);
    model_free(twice);
}

/* ---- shapes --------------------------------------------------------------------------------------------------------
 */

static void hazard_22_the_width_comes_from_the_weight_where_no_shape_is_told(void **state)
{
    (void)state;
    Model *model = parse(
        OPSET(17) "g (float[] x) => (float[] y) <float[5,4] w={0.5,...}> { h = Elu(x) y = Gemm<transB=1>(h, w) }");
    const Head *head = best_head(model);
    assert_int_equal(head->feature_width, 4);
    assert_int_equal(head->rank, 2);
    replace_head(model, 3);
    model_free(model);
}

static void hazard_23_a_baked_batch_is_named_and_rewritten(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[N,197,768] x) => (y) <int64[3] s={197,12,64}> {"
                                   "t = Transpose<perm=[1,0,2]>(x) [bad] y = Reshape(t, s) }");
    Error err = {STATUS_OK, ""};
    const Node *baked = NULL;
    assert_ok(shapes_symbolic(model, &baked, &err), &err);
    assert_non_null(baked);
    assert_string_equal(baked->name, "bad");
    BatchReport report;
    assert_ok(pass_batch(model, &report, &err), &err);
    assert_int_equal(report.baked, 1);
    assert_int_equal(report.rewritten, 1);
    Model *working = inference(model, &batch2, 1);
    assert_string_equal(type_text(&working->arena, &working->graph->outputs[0]->type), "float32[197,24,64]");
    model_free(working);
    model_free(model);
}

static void hazard_24_shape_arithmetic_is_folded_and_carries_no_gradient(void **state)
{
    (void)state;
    Model *model = parse(
        OPSET(17) "g (float[N,2,3] x) => (y) <int64 z={0}, int64[1] a={0}, int64[1] m={-1}, float[6,2] w={0.5,...}> {"
                  "s = Shape(x) n = Gather(s, z) u = Unsqueeze(n, a) to = Concat<axis=0>(u, m)"
                  "r = Reshape(x, to) y = MatMul(r, w) }");
    Model *working = inference(model, &batch2, 1);
    assert_int_equal(count_op(working->graph, "Shape") + count_op(working->graph, "Gather"), 0);
    model_free(working);
    assert_int_equal(trains(model, &batch2, 1), 1);
    model_free(model);
}

static void hazard_25_reshape_flatten_and_gather_in_all_their_spellings(void **state)
{
    (void)state;
    static const struct {
        const char *nodes, *type;
    } cases[] = {
        {"<int64[2] s={0,-1}> { y = Reshape(x, s) }", "float32[2,12]"},
        {"<int64[2] s={0,12}> { e = Reshape(x, s) y = Flatten<axis=0>(e) }", "float32[1,24]"},
        {"{ y = Flatten<axis=-1>(x) }", "float32[6,4]"},
        {"<int64 i={-1}> { y = Gather<axis=1>(x, i) }", "float32[2,4]"},
        {"<int64[1] i={-1}> { y = Gather<axis=-2>(x, i) }", "float32[2,1,4]"},
        {"<int64[1] i={0}> { e = Gather<axis=1>(x, i) y = Squeeze(e) }", "float32[2,4]"},
        {"<int64[3] z={0,3,4}, int64[2] s={5,0}> { e = ConstantOfShape(z) y = Reshape<allowzero=1>(e, s) }",
         "float32[5,0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[300];
        snprintf(text, sizeof text, OPSET(17) "g (float[N,3,4] x) => (y) %s", cases[i].nodes);
        Model *model = parse(text), *working = inference(model, &batch2, 1);
        assert_string_equal(type_text(&working->arena, &working->graph->outputs[0]->type), cases[i].type);
        model_free(working);
        model_free(model);
    }
}

/* The model with a new head, as the next reader sees it. */
static Model *new_head_through_files(const char *text)
{
    Model *model = through_file(parse(text));
    replace_head(model, 3);
    return through_file(model);
}

static void hazard_26_the_new_outputs_type_has_the_classes_and_keeps_the_batch(void **state)
{
    (void)state;
    Model *model = new_head_through_files(OPSET(
        17) "g (float[batch,4] x) => (float[batch,5] y) <float[4,5] w={0.5,...}, float[batch,4] h, float[batch,5] m> {"
            "h = Elu(x) m = MatMul(h, w) y = Softmax(m) }");
    assert_string_equal(type_text(&model->arena, &model->graph->outputs[0]->type), "float32[batch,3]");
    assert_int_equal(model->graph->info_count, 1);
    assert_string_equal(model->graph->infos[0].value->name, "h");
    model_free(model);
    /* steps stay behind the layer; what the file told of values there does not hold any more */
    model = new_head_through_files(
        OPSET(17) "g (float[batch,T,4] x) => (float[batch,5] y) <float[4,5] w={0.5,...}, int64[1] last={-1}, "
                  "int64 only={0}, float[batch,T,4] h, float[batch,T,5] m, float[batch,1,5] k> {"
                  "h = Elu(x) m = MatMul(h, w) k = Gather<axis=1>(m, last) y = Gather<axis=1>(k, only) }");
    assert_string_equal(type_text(&model->arena, &model->graph->outputs[0]->type), "float32[batch,3]");
    assert_non_null(graph_find(model->graph, "k"));
    assert_int_equal(model->graph->info_count, 1);
    assert_string_equal(model->graph->infos[0].value->name, "h");
    model_free(model);
}

static void hazard_27_a_recurrent_trunk_carries_gradients_to_its_head(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[T,N,3] x) => (float[N,2] y) <float[2,8,3] w={0.1,...}, float[2,8,2] "
                                   "r={0.2,...}, float[2,16] b={0.05,...},"
                                   "int64 back={-1}, int64 before={-2}, float[4,2] fc={0.5,...}> {"
                                   "all, last, cell = LSTM<hidden_size=2, direction=\"bidirectional\">(x, w, r, b)"
                                   "p = Gather<axis=0>(last, before) q = Gather<axis=0>(last, back) c = "
                                   "Concat<axis=1>(p, q) y = MatMul(c, fc) }");
    const Binding bindings[] = {{.symbol = "T", .value = 3}, {.symbol = "N", .value = 2}};
    assert_int_equal(best_head(model)->feature_width, 4);
    assert_int_equal(trains(model, bindings, 2), 4);
    model_free(model);
    /* batch first outside, states of zeros made from the batch, all steps joined and the last one taken */
    model = parse(
        OPSET(17) "g (float[N,T,3] x) => (float[N,2] y) <float[2,6,3] w={0.1,...}, float[2,6,2] r={0.2,...}, "
                  "float[2,12] b={0.05,...}, int64 first={0}, int64[1] axis={0}, int64[1] two={2}, int64 end={-1}, "
                  "int64[3] joined={0,0,-1}, float[4,2] fc={0.5,...}> {"
                  "s = Shape(x) n = Gather(s, first) n1 = Unsqueeze(n, axis) to = Concat<axis=0>(two, n1, two)"
                  "h = ConstantOfShape(to) t = Transpose<perm=[1,0,2]>(x)"
                  "all = GRU<hidden_size=2, direction=\"bidirectional\", linear_before_reset=1>(t, w, r, b, , h)"
                  "p = Transpose<perm=[0,2,1,3]>(all) q = Reshape(p, joined) o = Transpose<perm=[1,0,2]>(q)"
                  "last = Gather<axis=1>(o, end) y = MatMul(last, fc) }");
    assert_int_equal(best_head(model)->feature_width, 4);
    assert_int_equal(trains(model, bindings, 2), 4);
    model_free(model);
}

/* ---- opsets
 * ---------------------------------------------------------------------------------------------------------- */

static void hazard_28_and_43_old_and_new_spellings_run_and_train(void **state)
{
    (void)state;
    static const struct {
        int opset;
        const char *nodes;
    } cases[] = {
        {7, "<float[4,4] w={0.5,...}> { m = MatMul(x, w) d = Dropout<ratio=0.5>(m) r = ReduceMean<axes=[1], "
            "keepdims=1>(d) y = Clip<min=-1.0>(r) }"},
        {11, "<float[4,4] w={0.5,...}, float lo={-1.0}> { m = MatMul(x, w) u = Unsqueeze<axes=[0]>(m) q = "
             "Squeeze<axes=[0]>(u)"
             "r = ReduceSum<axes=[1]>(q) y = Clip(r, lo) }"},
        {13, "<float[4,4] w={0.5,...}, int64[1] a={1}> { m = MatMul(x, w) y = ReduceSum(m, a) }"},
        {12, "<float[4,4] w={0.5,...}> { m = MatMul(x, w) y = Softmax(m) }"},
        {20, "<float[4,4] w={0.5,...}, float[4] s={1.0,...}, int64[1] a={1}, int64[1] f={4}> { m = MatMul(x, w) sh = "
             "Shape<start=0, end=1>(m)"
             "to = Concat<axis=0>(sh, f) r = Reshape<allowzero=1>(m, to) n = LayerNormalization(r, s) e = Gelu(n) y = "
             "ReduceMean<keepdims=0>(e, a) }"},
        {18, "<float[4,4] w={0.5,...}, float[4] s={1.0,...}, int64[1] a={-1}, float two={2.0}, float eps={0.00001}> { "
             "m = MatMul(x, w)"
             "u = ReduceMean(m, a) c = Sub(m, u) p = Pow(c, two) v = ReduceMean(p, a) e = Add(v, eps) q = Sqrt(e) n = "
             "Div(c, q) y = Mul(n, s) }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[700];
        snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : %d]> g (float[N,4] x) => (y) %s",
                 cases[i].opset, cases[i].nodes);
        Model *model = parse(text);
        assert_true(trains(model, &batch2, 1) >= 1);
        model_free(model);
    }
}

/* What a graph with x [2,4] gives, at most 8 numbers. */
static void forward(int opset, const char *nodes, double *numbers)
{
    char text[700];
    snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : %d]> g (float[N,4] x) => (y) %s", opset, nodes);
    Model *model = parse(text), *working = inference(model, &batch2, 1);
    Error err = {STATUS_OK, ""};
    Array *x, *y;
    assert_ok(array_new(&working->arena, DTYPE_F32, 2, (const int64_t[]){2, 4}, &x, &err), &err);
    for (int i = 0; i < 8; i++)
        ((float *)x->data)[i] = (float)(i * i % 7) / 3 - 1;
    const Array *in[] = {x};
    assert_ok(interp_run(working->graph, in, &y, &working->arena, 0, &err), &err);
    assert_in_range(y->count, 1, 8);
    for (int64_t i = 0; i < 8; i++)
        numbers[i] = i < y->count ? (double)((float *)y->data)[i] : 0;
    model_free(working);
    model_free(model);
}

static void hazard_28_and_43_old_and_new_spellings_give_the_same_numbers(void **state)
{
    (void)state;
    static const struct {
        int old;
        const char *before;
        int new;
        const char *after;
    } cases[] = {
        {7, "{ d = Dropout<ratio=0.5>(x) r = ReduceMean<axes=[1], keepdims=1>(d) y = Clip<min=-0.1>(r) }", 20,
         "<float p={0.5}, int64[1] a={1}, float lo={-0.1}> { d = Dropout(x, p) r = ReduceMean(d, a) y = Clip(r, lo) }"},
        {11, "{ u = Unsqueeze<axes=[0]>(x) q = Squeeze<axes=[0]>(u) y = ReduceSum<axes=[-1], keepdims=0>(q) }", 20,
         "<int64[1] z={0}, int64[1] a={-1}> { u = Unsqueeze(x, z) q = Squeeze(u, z) y = ReduceSum<keepdims=0>(q, a) }"},
        {12, "<int64[3] s={-1,2,2}> { r = Reshape(x, s) y = Softmax(r) }", 13, /* a whole sample was one row */
         "<int64[3] s={-1,2,2}> { m = Softmax(x) y = Reshape(m, s) }"},
        {9, "{ y, z = Split<axis=1, split=[1,3]>(x) }", 18, "<int64[2] s={1,3}> { y, z = Split<axis=1>(x, s) }"},
        {9, "{ y = Slice<axes=[1], starts=[1], ends=[3]>(x) }", 13,
         "<int64[1] a={1}, int64[1] s={1}, int64[1] e={3}> { y = Slice(x, s, e, a) }"},
        {6,
         "<float[4,2] w={0.5,0.25,...}> { c = Constant<value = float[2] {0.5,1.0}>() y = Gemm<broadcast=1>(x, w, c) }",
         20, "<float[4,2] w={0.5,0.25,...}, float[2] c={0.5,1.0}> { y = Gemm(x, w, c) }"},
        {16,
         "<int64[1] a={-1}, float two={2.0}, float eps={0.00001}, float[4] s={1.5,...}> { u = ReduceMean<axes=[-1]>(x) "
         "c = Sub(x, u) p = Pow(c, two) v = ReduceMean<axes=[-1]>(p) e = Add(v, eps) q = Sqrt(e) n = Div(c, q) "
         "y = Mul(n, s) }",
         20, "<float[4] s={1.5,...}> { y = LayerNormalization(x, s) }"},
        {13,
         "<float r={1.41421354}, float one={1.0}, float h={0.5}> { d = Div(x, r) e = Erf(d) a = Add(e, one) "
         "m = Mul(x, a) y = Mul(m, h) }",
         20, "{ y = Gelu(x) }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double before[8], after[8];
        forward(cases[i].old, cases[i].before, before);
        forward(cases[i].new, cases[i].after, after);
        for (int k = 0; k < 8; k++)
            if (!(fabs(before[k] - after[k]) < 1e-5))
                fail_msg("case %zu: element %d is %g in the old and %g in the new spelling", i, k, before[k], after[k]);
    }
}

static void hazard_29_a_head_is_written_in_the_documents_opset(void **state)
{
    (void)state;
    for (int opset = 17; opset <= 18; opset++) {
        char text[200];
        snprintf(text, sizeof text,
                 "<ir_version: 8, opset_import: [\"\" : %d]> g (float[N,T,4] x) => (float[N,T,4] h) { h = Elu(x) }",
                 opset);
        Model *model = parse(text);
        Error err = {STATUS_OK, ""};
        const HeadSpec spec = {.classes = 3, .pool = POOL_MEAN};
        Value *logits;
        assert_ok(pass_attach(model, graph_find(model->graph, "h"), &spec, &logits, &err), &err);
        const Node *mean = logits->producer->inputs[0]->producer;
        assert_string_equal(mean->op_type, "ReduceMean");
        assert_int_equal(mean->input_count, opset - 16);
        assert_int_equal(model_opset(model, ""), opset);
        model_free(model);
    }
}

static void hazard_30_and_42_batchnorm_runs_on_its_statistics_unless_trained(void **state)
{
    (void)state;
    Model *model = parse(OPSET(
        17) "g (float[N,1,1,1] x) => (y) <float[1] s={1.0}, float[1] b={0.0}, float[1] m={3.0}, float[1] v={1.0}> {"
            "y, rm, rv = BatchNormalization<training_mode=1, epsilon=0.0>(x, s, b, m, v) }");
    assert_int_equal(batchnorm_form(model, NULL), BATCHNORM_TRAINING);
    Model *working = inference(model, &batch2, 1);
    Error err = {STATUS_OK, ""};
    Array *x, *y;
    assert_ok(array_new(&working->arena, DTYPE_F32, 4, (const int64_t[]){2, 1, 1, 1}, &x, &err), &err);
    ((float *)x->data)[0] = 5;
    ((float *)x->data)[1] = 7;
    const Array *in[] = {x};
    assert_ok(interp_run(working->graph, in, &y, &working->arena, 0, &err), &err);
    assert_true(fabsf(((float *)y->data)[0] - 2) < 1e-5F && fabsf(((float *)y->data)[1] - 4) < 1e-5F); /* x - 3 */
    model_free(working);
    for (int trained = 0; trained <= 1; trained++) { /* on the batch only where its scale and bias learn */
        ParamList list = params_of(model, false);
        for (size_t i = 0; i < list.count; i++)
            list.items[i].trainable = trained == 1;
        const WorkingOptions options = {.bindings = &batch2, .binding_count = 1, .training = true, .params = &list};
        assert_ok(working_build(model, &options, &working, &err), &err);
        assert_int_equal(count_op(working->graph, "BatchNormTrain"), trained);
        model_free(working);
    }
    model_free(model);
}

static void hazard_31_dropout_that_the_file_switched_on_is_off_in_inference(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[N,4] x) => (y) <float r={0.5}, bool t={1}, float[4,4] w={0.5,...}> {"
                                   "m = MatMul(x, w) y = Dropout(m, r, t) }");
    Model *working = inference(model, &batch2, 1);
    assert_int_equal(count_op(working->graph, "Dropout"), 0);
    model_free(working);
    for (int trained = 0; trained <= 1; trained++) { /* and in training only behind what is trained */
        Error err = {STATUS_OK, ""};
        ParamList list = params_of(model, false);
        list.items[0].trainable = trained == 1;
        const WorkingOptions options = {.bindings = &batch2, .binding_count = 1, .training = true, .params = &list};
        assert_ok(working_build(model, &options, &working, &err), &err);
        assert_int_equal(count_op(working->graph, "Dropout"), trained);
        model_free(working);
    }
    model_free(model);
}

static void hazard_33_class_names_go_with_the_classes(void **state)
{
    (void)state;
    Model *model = parse("<ir_version: 8, opset_import: [\"\" : 17], metadata_props: [\"id2label\" : \"{}\", "
                         "\"regraft.labels\" : \"a\"]> "
                         "g (float[N,4] x) => (float[N,5] y) <float[4,5] w={0.5,...}> { h = Elu(x) y = MatMul(h, w) }");
    replace_head(model, 3);
    assert_null(model_metadata(model, "id2label"));
    assert_null(model_metadata(model, "regraft.labels"));
    model_free(model);
}

/* ---- files
 * ------------------------------------------------------------------------------------------------------------- */

static void hazard_34_a_side_file_is_never_overwritten_by_what_was_made_from_it(void **state)
{
    (void)state;
    char folder[64], a[96], b[96];
    temporary(folder);
    snprintf(a, sizeof a, "%s/a.onnx", folder);
    snprintf(b, sizeof b, "%s/b.onnx", folder);
    Error err = {STATUS_OK, ""};
    const ExportOptions outside = {.external = true};
    Model *model =
        parse(OPSET(17) "g (float[N,64] x) => (float[N,5] y) <float[64,64] v={0.5,...}, float[64,5] w={0.25,...}> {"
                        "h = MatMul(x, v) y = MatMul(h, w) }");
    assert_ok(model_export(model, a, &outside, &err), &err);
    model_free(model);
    assert_ok(model_import(a, &builtin_ops, &model, &err), &err);
    assert_int_equal(model->side_count, 1);
    replace_head(model, 3);
    assert_int_equal(model_export(model, a, NULL, &err), STATUS_USAGE);
    error_clear(&err);
    assert_ok(model_export(model, b, NULL, &err), &err);
    model_free(model);
    for (int i = 0; i < 2; i++) { /* both are whole */
        assert_ok(model_import(i == 0 ? a : b, &builtin_ops, &model, &err), &err);
        assert_true(fabs(tensor_f64_at(graph_find(model->graph, "v")->constant, 4095) - 0.5) < 1e-9);
        model_free(model);
    }
    remove_folder(folder);
}

static void hazard_37_local_paths_can_be_dropped(void **state)
{
    (void)state;
    char folder[64], path[96];
    temporary(folder);
    snprintf(path, sizeof path, "%s/a.onnx", folder);
    Error err = {STATUS_OK, ""};
    Model *model = parse(OPSET(17) "g (float[N,4] x) => (y) { y = Elu(x) }");
    model->graph->first->extra.doc_string = "File \"/home/someone/train.py\", line 3";
    const ExportOptions strip = {.strip_doc = true};
    assert_ok(model_export(model, path, &strip, &err), &err);
    model_free(model);
    assert_ok(model_import(path, &builtin_ops, &model, &err), &err);
    const char *doc = model->graph->first->extra.doc_string;
    assert_true(doc == NULL || doc[0] == '\0');
    model_free(model);
    remove_folder(folder);
}

/* ---- what PyTorch's newer exporter does
 * ----------------------------------------------------------------------------------- */

static void hazard_38_a_new_head_brings_a_bias_where_the_old_one_lost_it(void **state)
{
    (void)state;
    Model *model = parse(OPSET(
        20) "g (float[N,4] x) => (float[N,5] y) <float[5,4] w={0.5,...}> { h = Elu(x) y = Gemm<transB=1>(h, w) }");
    const Value *logits = replace_head(model, 3);
    assert_int_equal(logits->producer->input_count, 3);
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
}

static void hazard_39_folded_tables_are_listed_apart_and_not_trained(void **state)
{
    (void)state;
    Model *model = parse(OPSET(20) "g (float[N,3,4] x) => (y) <float[1,3,4] embedding_2={0.5,0.25,...}, float[4,4] "
                                   "\"encoder.weight\"={0.5,...}> {"
                                   "a = MatMul(x, \"encoder.weight\") y = Add(a, embedding_2) }");
    ParamList list = params_of(model, false);
    const ParamInfo *table = param(&list, "embedding_2");
    assert_non_null(table);
    assert_true(table->looks_folded && !table->trainable);
    assert_int_equal(trains(model, &batch2, 1), 1);
    model_free(model);
}

static void hazard_41_layers_that_started_as_copies_are_parted(void **state)
{
    (void)state;
    Model *model = parse(OPSET(20) "g (float[N,4] x) => (y) <float[4,4] \"layers.0.weight\"={0.5,0.25,...}> {"
                                   "[\"/layers.0/MatMul\"] a = MatMul(x, \"layers.0.weight\") r = Relu(a)"
                                   "[\"/layers.1/MatMul\"] y = MatMul(r, \"layers.0.weight\") }");
    ParamList list = params_of(model, false);
    assert_int_equal(list.count, 2);
    assert_int_equal(trains(model, &batch2, 1), 2);
    model_free(model);
}

static void hazard_44_every_parameter_is_counted_and_reached(void **state)
{
    (void)state;
    Model *model = parse(OPSET(17) "g (float[N,3,6,6] x) => (y) <float[4,3,3,3] c={0.1,...}, float[4] cb={0.2,...}, "
                                   "float[4] s={1.0,...}, float[4] b={0.3,...},"
                                   "float[4] m={0.0,...}, float[4] v={1.0,...}, float[1] slope={0.25}, float[64,5] "
                                   "w={0.05,...}, float[5] wb={0.4,...}> {"
                                   "a = Conv(x, c, cb) n = BatchNormalization(a, s, b, m, v) p = PRelu(n, slope) f = "
                                   "Flatten(p) y = Gemm(f, w, wb) }");
    ParamList list = params_of(model, false);
    assert_int_equal(list.count, 7);
    assert_int_equal(trains(model, &batch2, 1), 7);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hazard_01_equal_initializers_of_other_roles_are_parted),
        cmocka_unit_test(hazard_02_and_40_a_transposed_copy_is_one_parameter_with_its_origin),
        cmocka_unit_test(hazard_03_lost_names_are_found_by_node_scope),
        cmocka_unit_test(hazard_04_and_05_every_layout_of_weight_and_bias_gives_width_and_classes),
        cmocka_unit_test(hazard_06_constant_nodes_can_be_parameters_and_initializers_need_not),
        cmocka_unit_test(hazard_07_initializers_that_are_inputs_too_are_weights),
        cmocka_unit_test(hazard_08_names_may_be_empty_or_doubled_and_new_ones_collide_with_none),
        cmocka_unit_test(hazard_09_exotic_tensors_survive_surgery),
        cmocka_unit_test(hazard_10_and_11_features_with_other_readers_or_listed_as_output_stay_alive),
        cmocka_unit_test(hazard_12_post_ops_go_with_the_old_head),
        cmocka_unit_test(hazard_13_steps_that_read_inputs_behind_the_head_stay),
        cmocka_unit_test(hazard_14_an_input_that_only_the_head_read_goes_or_is_kept),
        cmocka_unit_test(hazard_15_a_pooler_is_offered_and_not_taken),
        cmocka_unit_test(hazard_16_and_17_a_convolution_head_is_told_from_a_feature_layer_by_its_count),
        cmocka_unit_test(hazard_18_several_heads_ask_for_an_output),
        cmocka_unit_test(hazard_19_values_that_bodies_capture_are_needed),
        cmocka_unit_test(hazard_20_functions_in_functions_are_inlined_before_the_head_is_sought),
        cmocka_unit_test(hazard_21_cycles_and_doubled_outputs_are_refused),
        cmocka_unit_test(hazard_22_the_width_comes_from_the_weight_where_no_shape_is_told),
        cmocka_unit_test(hazard_23_a_baked_batch_is_named_and_rewritten),
        cmocka_unit_test(hazard_24_shape_arithmetic_is_folded_and_carries_no_gradient),
        cmocka_unit_test(hazard_25_reshape_flatten_and_gather_in_all_their_spellings),
        cmocka_unit_test(hazard_26_the_new_outputs_type_has_the_classes_and_keeps_the_batch),
        cmocka_unit_test(hazard_27_a_recurrent_trunk_carries_gradients_to_its_head),
        cmocka_unit_test(hazard_28_and_43_old_and_new_spellings_run_and_train),
        cmocka_unit_test(hazard_28_and_43_old_and_new_spellings_give_the_same_numbers),
        cmocka_unit_test(hazard_29_a_head_is_written_in_the_documents_opset),
        cmocka_unit_test(hazard_30_and_42_batchnorm_runs_on_its_statistics_unless_trained),
        cmocka_unit_test(hazard_31_dropout_that_the_file_switched_on_is_off_in_inference),
        cmocka_unit_test(hazard_33_class_names_go_with_the_classes),
        cmocka_unit_test(hazard_34_a_side_file_is_never_overwritten_by_what_was_made_from_it),
        cmocka_unit_test(hazard_37_local_paths_can_be_dropped),
        cmocka_unit_test(hazard_38_a_new_head_brings_a_bias_where_the_old_one_lost_it),
        cmocka_unit_test(hazard_39_folded_tables_are_listed_apart_and_not_trained),
        cmocka_unit_test(hazard_41_layers_that_started_as_copies_are_parted),
        cmocka_unit_test(hazard_44_every_parameter_is_counted_and_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
