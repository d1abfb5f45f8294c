/* The traps that real ONNX files set, from 22 on: shapes, opsets, files and what PyTorch's newer exporter does. See
 * test_hazards.c. */
#include "tests/hazards.h"

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

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

/* ---- opsets ------------------------------------------------------------------------------------------------------ */

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

/* ---- files ------------------------------------------------------------------------------------------------------- */

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

/* ---- what PyTorch's newer exporter does -------------------------------------------------------------------------- */

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
