/* passes/attach, passes/replace: a new head in the operators of the document's opset, under names that were free. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "passes/passes.h"

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, NULL, &model, &err), &err);
    return model;
}

/* Types behind # are remarks; what is compared is what export would write. */
static void drop_remarks(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        if (from[0] == ' ' && from[1] == '#')
            from += strcspn(from, "\n");
        *to++ = *from;
    }
    *to = '\0';
}

static void compare_graph(Model *model, const char *after)
{
    Error err = {STATUS_OK, ""};
    assert_ok(model_check(model, &err), &err);
    Model *wanted = parse(after);
    Str found, expected;
    str_init(&found);
    str_init(&expected);
    graph_print(model->graph, &found);
    graph_print(wanted->graph, &expected);
    drop_remarks(found.text);
    assert_string_equal(found.text, expected.text);
    str_release(&found);
    str_release(&expected);
    model_free(wanted);
    model_free(model);
}

static void check_attach(const char *before, const HeadSpec *spec, const char *after)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse(before);
    Value *logits;
    assert_ok(pass_attach(model, graph_find(model->graph, "h"), spec, &logits, &err), &err);
    compare_graph(model, after);
}

/* Finds the best head and replaces it. */
static void check_replace(const char *before, const HeadSpec *spec, const char *after)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse(before);
    HeadList list;
    const Head *head;
    Value *logits;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_ok(heads_pick(&list, NULL, NULL, &head, &err), &err);
    assert_ok(pass_replace_head(model, head, spec, false, &logits, &err), &err);
    assert_true(logits->is_output);
    compare_graph(model, after);
}

#define OPSET17 "<ir_version: 8, opset_import: [\"\" : 17]> "
#define OPSET18 "<ir_version: 8, opset_import: [\"\" : 18]> "
static const HeadSpec two = {.classes = 2};

static void a_linear_head_on_vectors_is_a_gemm(void **state)
{
    (void)state;
    check_attach(OPSET17 "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }", &two,
                 OPSET17 "g (float[N,4] x) => (float[N,2] logits)"
                         "<float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                         "h = Elu(x) [\"/head/Gemm\"] logits = Gemm<transB=1>(h, \"head.weight\", \"head.bias\") }");
}

static void a_linear_head_on_tokens_is_matmul_and_add(void **state)
{
    (void)state;
    check_attach(OPSET17 "g (float[N,T,4] x) => (float[N,T,4] h) { h = Elu(x) }", &two,
                 OPSET17 "g (float[N,T,4] x) => (float[N,T,2] logits)"
                         "<float[4,2] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                         "h = Elu(x)"
                         "[\"/head/MatMul\"] \"/head/MatMul_output_0\" = MatMul(h, \"head.weight\")"
                         "[\"/head/Add\"] logits = Add(\"/head/MatMul_output_0\", \"head.bias\") }");
}

static void tokens_are_averaged_with_the_axes_where_the_opset_has_them(void **state)
{
    (void)state;
    const HeadSpec spec = {.classes = 2, .pool = POOL_MEAN};
    check_attach(
        OPSET17 "g (float[N,T,4] x) => (float[N,T,4] h) { h = Elu(x) }", &spec,
        OPSET17
        "g (float[N,T,4] x) => (float[N,2] logits)"
        "<float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
        "h = Elu(x)"
        "[\"/head/ReduceMean\"] \"/head/ReduceMean_output_0\" = ReduceMean<keepdims=0, axes=[1]>(h)"
        "[\"/head/Gemm\"] logits = Gemm<transB=1>(\"/head/ReduceMean_output_0\", \"head.weight\", \"head.bias\") }");
    check_attach(
        OPSET18 "g (float[N,T,4] x) => (float[N,T,4] h) { h = Elu(x) }", &spec,
        OPSET18
        "g (float[N,T,4] x) => (float[N,2] logits)"
        "<int64[1] \"/head/axes\"={1}, float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
        "h = Elu(x)"
        "[\"/head/ReduceMean\"] \"/head/ReduceMean_output_0\" = ReduceMean<keepdims=0>(h, \"/head/axes\")"
        "[\"/head/Gemm\"] logits = Gemm<transB=1>(\"/head/ReduceMean_output_0\", \"head.weight\", \"head.bias\") }");
}

static void maps_are_pooled_before_a_linear_head_and_after_a_conv_head(void **state)
{
    (void)state;
    const char *maps = OPSET17 "g (float[N,4,8,8] x) => (float[N,4,8,8] h) { h = Elu(x) }";
    check_attach(
        maps, &two,
        OPSET17
        "g (float[N,4,8,8] x) => (float[N,2] logits)"
        "<float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
        "h = Elu(x)"
        "[\"/head/GlobalAveragePool\"] \"/head/GlobalAveragePool_output_0\" = GlobalAveragePool(h)"
        "[\"/head/Flatten\"] \"/head/Flatten_output_0\" = Flatten(\"/head/GlobalAveragePool_output_0\")"
        "[\"/head/Gemm\"] logits = Gemm<transB=1>(\"/head/Flatten_output_0\", \"head.weight\", \"head.bias\") }");
    const HeadSpec conv = {.classes = 2, .kind = HEAD_CONV};
    check_attach(
        maps, &conv,
        OPSET17 "g (float[N,4,8,8] x) => (float[N,2] logits)"
                "<float[2,4,1,1] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                "h = Elu(x)"
                "[\"/head/Conv\"] \"/head/Conv_output_0\" = Conv<kernel_shape=[1,1]>(h, \"head.weight\", \"head.bias\")"
                "[\"/head/GlobalAveragePool\"] \"/head/GlobalAveragePool_output_0\" = "
                "GlobalAveragePool(\"/head/Conv_output_0\")"
                "[\"/head/Flatten\"] logits = Flatten(\"/head/GlobalAveragePool_output_0\") }");
}

static void taken_names_get_a_number_and_features_can_stay(void **state)
{
    (void)state;
    const HeadSpec mlp = {.classes = 2, .kind = HEAD_MLP, .hidden = 3, .keep_features = true};
    check_attach(
        OPSET17 "g (float[N,4] x) => (float[N,4] h) <float[4] \"head.bias\"={0.0,...}, float[4] logits={0.0,...}> {"
                "a = Add(x, \"head.bias\") h = Add(a, logits) }",
        &mlp,
        OPSET17
        "g (float[N,4] x) => (float[N,4] h, float[N,2] logits_1)"
        "<float[4] \"head.bias\"={0.0,...}, float[4] logits={0.0,...},"
        "float[3,4] \"head_2.0.weight\"={0.0,...}, float[3] \"head_2.0.bias\"={0.0,...},"
        "float[2,3] \"head_2.2.weight\"={0.0,...}, float[2] \"head_2.2.bias\"={0.0,...}> {"
        "a = Add(x, \"head.bias\") h = Add(a, logits)"
        "[\"/head_2/Gemm\"] \"/head_2/Gemm_output_0\" = Gemm<transB=1>(h, \"head_2.0.weight\", \"head_2.0.bias\")"
        "[\"/head_2/Relu\"] \"/head_2/Relu_output_0\" = Relu(\"/head_2/Gemm_output_0\")"
        "[\"/head_2/Gemm_1\"] logits_1 = Gemm<transB=1>(\"/head_2/Relu_output_0\", \"head_2.2.weight\", "
        "\"head_2.2.bias\") }");
}

static void a_replaced_head_keeps_the_outputs_name_and_place(void **state)
{
    (void)state;
    check_replace(
        OPSET17 "g (float[N,4] x) => (float[N,10] y, float[N,4] h) <float[4,4] v={...}, float[10,4] w={...}> {"
                "h = MatMul(x, v) l = Gemm<transB=1>(h, w) y = Softmax(l) }",
        &two,
        OPSET17 "g (float[N,4] x) => (float[N,2] y, float[N,4] h)"
                "<float[4,4] v={...}, float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                "h = MatMul(x, v) [\"/head/Gemm\"] y = Gemm<transB=1>(h, \"head.weight\", \"head.bias\") }");
}

static void steps_that_pick_the_last_token_stay_behind_a_new_layer(void **state)
{
    (void)state;
    check_replace(
        OPSET17 "g (int64[N,T] ids, float[N,T,4] x) => (float[N,5] y) <float[4,5] w={...}, float[5] b={...}, int64[2] "
                "to={-1,5}> {"
                "h = Elu(x) m = MatMul(h, w) a = Add(b, m) r = Reshape(a, to)"
                "last = ArgMax<axis=1, keepdims=0>(ids) q = Gather(r, last) y = Softmax(q) }",
        &two,
        OPSET17 "g (int64[N,T] ids, float[N,T,4] x) => (float[N,2] y)"
                "<float[4,2] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}, int64[2] to_classes={-1,2}> {"
                "h = Elu(x) [\"/head/MatMul\"] \"/head/MatMul_output_0\" = MatMul(h, \"head.weight\")"
                "[\"/head/Add\"] a_new = Add(\"/head/MatMul_output_0\", \"head.bias\") r = Reshape(a_new, to_classes)"
                "last = ArgMax<axis=1, keepdims=0>(ids) y = Gather(r, last) }");
}

static void a_segmentation_head_keeps_its_resize(void **state)
{
    (void)state;
    check_replace(
        OPSET17 "g (float[N,4,8,8] x) => (float[N,21,16,16] y)"
                "<float[21,4,1,1] w={...}, float[4] s={1.0,1.0,2.0,2.0}, float[N,21,8,8] c> {"
                "h = Elu(x) c = Conv(h, w) y = Resize(c, \"\", s) }",
        &two,
        OPSET17
        "g (float[N,4,8,8] x) => (float[N,2,16,16] y)"
        "<float[4] s={1.0,1.0,2.0,2.0}, float[2,4,1,1] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
        "h = Elu(x) [\"/head/Conv\"] c_new = Conv<kernel_shape=[1,1]>(h, \"head.weight\", \"head.bias\")"
        "y = Resize(c_new, \"\", s) }");
}

static void squeezenets_head_becomes_convolution_and_pooling(void **state)
{
    (void)state;
    check_replace(OPSET17 "g (float[N,4,8,8] x) => (float[N,1000] y) <float[1000,4,1,1] w={...}> {"
                          "h = Elu(x) c = Conv(h, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }",
                  &two,
                  OPSET17 "g (float[N,4,8,8] x) => (float[N,2] y)"
                          "<float[2,4,1,1] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                          "h = Elu(x) [\"/head/Conv\"] \"/head/Conv_output_0\" = Conv<kernel_shape=[1,1]>(h, "
                          "\"head.weight\", \"head.bias\")"
                          "[\"/head/GlobalAveragePool\"] \"/head/GlobalAveragePool_output_0\" = "
                          "GlobalAveragePool(\"/head/Conv_output_0\")"
                          "[\"/head/Flatten\"] y = Flatten(\"/head/GlobalAveragePool_output_0\") }");
}

static const float *weights(const HeadSpec *spec, const char *type, size_t *count, Model **model, DType *dtype)
{
    char text[200];
    snprintf(text, sizeof text, OPSET17 "g (%s[N,64] x) => (%s[N,64] h) { h = Elu(x) }", type, type);
    Error err = {STATUS_OK, ""};
    *model = parse(text);
    Value *logits;
    assert_ok(pass_attach(*model, graph_find((*model)->graph, "h"), spec, &logits, &err), &err);
    const Tensor *tensor = graph_find((*model)->graph, "head.weight")->constant;
    *count = (size_t)tensor_count(tensor);
    *dtype = tensor->dtype;
    return tensor->data;
}

static void weights_follow_seed_and_initialisation(void **state)
{
    (void)state;
    Model *a, *b, *c;
    size_t count;
    DType dtype;
    HeadSpec spec = {.classes = 100, .init = INIT_KAIMING_UNIFORM, .seed = 1};
    const float *first = weights(&spec, "float", &count, &a, &dtype);
    const float *again = weights(&spec, "float", &count, &b, &dtype);
    spec.seed = 2;
    const float *other = weights(&spec, "float", &count, &c, &dtype);
    assert_memory_equal(first, again, count * sizeof *first);
    assert_true(memcmp(first, other, count * sizeof *first) != 0);
    double sum = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)first[i];
        squares += (double)first[i] * (double)first[i];
        largest = fmax(largest, fabs((double)first[i]));
    }
    double bound = 1 / sqrt(64.0); /* uniform in +-bound: deviation bound / sqrt 3 */
    assert_true(largest <= bound && largest > 0.99 * bound);
    assert_true(fabs(sum / (double)count) < 0.01 * bound * 5);
    assert_true(fabs(sqrt(squares / (double)count) / bound - 1 / sqrt(3.0)) < 0.02);
    model_free(a);
    model_free(b);
    model_free(c);
}

static void a_half_precision_trunk_gets_a_half_precision_head(void **state)
{
    (void)state;
    Model *model;
    size_t count;
    DType dtype;
    const HeadSpec spec = {.classes = 4, .init = INIT_NORMAL, .seed = 3};
    weights(&spec, "float16", &count, &model, &dtype);
    assert_int_equal(dtype, DTYPE_F16);
    model_free(model);
}

static void quanta_are_dequantised_before_a_head(void **state)
{
    (void)state;
    check_attach(OPSET17 "g (float[N,4] x) => (uint8[N,4] h) <float s={0.5}, uint8 z={3}> {"
                         "q = QuantizeLinear(x, s, z) h = Flatten(q) }",
                 &two,
                 OPSET17 "g (float[N,4] x) => (float[N,2] logits)<float s={0.5}, uint8 z={3},"
                         "float[2,4] \"head.weight\"={0.0,...}, float[2] \"head.bias\"={0.0,...}> {"
                         "q = QuantizeLinear(x, s, z) h = Flatten(q)"
                         "[\"/head/DequantizeLinear\"] \"/head/DequantizeLinear_output_0\" = DequantizeLinear(h, s, z)"
                         "[\"/head/Gemm\"] logits = Gemm<transB=1>(\"/head/DequantizeLinear_output_0\","
                         "\"head.weight\", \"head.bias\") }");
}

static void what_cannot_carry_a_head_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        HeadSpec spec;
        const char *message;
    } cases[] = {
        {OPSET17 "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 0},
         "a head needs 1 to 10,000,000 outputs, found 0"},
        {OPSET17 "g (int64[N,4] x) => (int64[N,4] h) { h = Abs(x) }",
         {.classes = 2},
         "a head reads floats; 'h' is int64"},
        {OPSET17 "g (float[N] x) => (float[N] h) { h = Elu(x) }",
         {.classes = 2},
         "features 'h' (float32[N]) need a batch and a width"},
        {OPSET17 "g (float[N,K] x) => (float[N,K] h) { h = Elu(x) }",
         {.classes = 2},
         "the width of 'h' (float32[N,K]) is not known; give it with --width"},
        {OPSET17 "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 2, .width = 5},
         "features 'h' are 4 wide, not 5"},
        {OPSET17 "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 2, .kind = HEAD_CONV},
         "a convolution head needs features [N,C,...]; 'h' is float32[N,4]"},
        {"<ir_version: 3, opset_import: [\"\" : 6]> g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 2},
         "a head needs opset 7 or newer (broadcasting), the model has 6"},
        {"<ir_version: 10, opset_import: [\"\" : 60]> g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 2},
         "a head cannot be written in opset 60: it is newer than the 28 that this build has read"},
        {OPSET17 "g (float[N,4] x) => (float[N,4] h) { h = Elu(x) }",
         {.classes = 2, .output_name = "x"},
         "the name 'x' is taken"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err = {STATUS_OK, ""};
        Model *model = parse(cases[i].text);
        Value *logits;
        pass_attach(model, graph_find(model->graph, "h"), &cases[i].spec, &logits, &err);
        assert_string_equal(err.message, cases[i].message);
        model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_linear_head_on_vectors_is_a_gemm),
        cmocka_unit_test(a_linear_head_on_tokens_is_matmul_and_add),
        cmocka_unit_test(tokens_are_averaged_with_the_axes_where_the_opset_has_them),
        cmocka_unit_test(maps_are_pooled_before_a_linear_head_and_after_a_conv_head),
        cmocka_unit_test(taken_names_get_a_number_and_features_can_stay),
        cmocka_unit_test(a_replaced_head_keeps_the_outputs_name_and_place),
        cmocka_unit_test(steps_that_pick_the_last_token_stay_behind_a_new_layer),
        cmocka_unit_test(a_segmentation_head_keeps_its_resize),
        cmocka_unit_test(squeezenets_head_becomes_convolution_and_pooling),
        cmocka_unit_test(weights_follow_seed_and_initialisation),
        cmocka_unit_test(a_half_precision_trunk_gets_a_half_precision_head),
        cmocka_unit_test(quanta_are_dequantised_before_a_head),
        cmocka_unit_test(what_cannot_carry_a_head_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
