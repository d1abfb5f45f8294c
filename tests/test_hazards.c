/* The traps that real ONNX files set, one test a number, by the numbers of docs/hazards.md: names, sharing and
 * topology, 1 to 21. Each says what would go wrong. The others: test_hazards_meaning.c; what needs files is in
 * test_import, test_export and test_external, what needs the tool in cli.sh. */
#include "tests/hazards.h"

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
    /* nameless calls of nameless nodes: ONNX Runtime wants each name once */
    model =
        parse("<ir_version: 10, opset_import: [\"\" : 18, \"d\" : 1]> g (float[N,4] x) => (y) { a = d.f(x) y = d.f(a) }"
              "<domain: \"d\", opset_import: [\"\" : 18]> f (a) => (b) { s = Relu(a) t = Relu(s) b = Abs(t) }");
    assert_ok(pass_inline(model, &err), &err);
    for (const Node *node = model->graph->first; node != NULL; node = node->next)
        for (const Node *other = node->next; other != NULL; other = other->next)
            assert_string_not_equal(node->name, other->name);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
