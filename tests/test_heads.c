/* passes/heads: the head is found in every form that exporters write (hazards 4, 5, 10 to 17), and where two answers
 * are possible none is given. */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, NULL, &model, &err), &err);
    return model;
}

#define HEADER "<ir_version: 8, opset_import: [\"\" : 17]> "

typedef struct Case {
    const char *what, *text, *features;
    int64_t width, classes;
    int rank;
    const char *tail_end; /* NULL: a vector head */
    const char *post_ops;
    size_t heads; /* with alternatives */
} Case;

static const Case cases[] = {
    {"torchvision's ResNet: pooled, flattened, Gemm with transposed weight",
     "g (float[N,3,8,8] x) => (float[N,10] y) <float[16,3,1,1] k={...}, float[10,16] w={...}, float[10] b={...}> {"
     "c = Conv(x, k) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, w, b) }",
     "f", 16, 10, 2, NULL, "", 1},
    {"Gemm with a plain weight and without bias",
     "g (float[N,5] x) => (float[N,3] y) <float[5,4] v={...}, float[4,3] w={...}> {"
     "h = Gemm(x, v) t = LayerNormalization(h, h) y = Gemm(t, w) }",
     "t", 4, 3, 2, NULL, "", 1},
    {"MatMul and Add, bias first, on tokens",
     "g (float[N,T,8] x) => (float[N,T,5] y) <float[8,5] w={...}, float[5] b={...}> {"
     "h = LayerNormalization(x, b) m = MatMul(h, w) y = Add(b, m) }",
     "h", 8, 5, 3, NULL, "", 1},
    {"MatMul and Add, bias last, Softmax behind",
     "g (float[N,8] x) => (float[N,5] y) <float[8,5] w={...}, float[5] b={...}> {"
     "h = LayerNormalization(x, b) m = MatMul(h, w) a = Add(m, b) y = Softmax<axis=-1>(a) }",
     "h", 8, 5, 2, NULL, "Softmax", 1},
    {"a weight behind Transpose (onnxscript's Linear)",
     "g (float[N,T,8] x) => (float[N,T,5] y) <float[5,8] w={...}, float[5] b={...}> {"
     "h = LayerNormalization(x, b) wt = Transpose<perm=[1,0]>(w) m = MatMul(h, wt) y = Add(m, b) }",
     "h", 8, 5, 3, NULL, "", 1},
    {"a weight behind Identity (deduplicated initializers)",
     "g (float[N,4] x) => (float[N,6] y) <float[6,4] w={...}, float[6] b={...}> {"
     "h = LayerNormalization(x, b) i = Identity(w) y = Gemm<transB=1>(h, i, b) }",
     "h", 4, 6, 2, NULL, "", 1},
    {"a weight in a Constant node (Paddle)",
     "g (float[N,4] x) => (float[N,2] y) {"
     "w = Constant<value = float[4,2] {...}>() h = LayerNormalization(x, w) m = MatMul(h, w) y = Softmax(m) }",
     "h", 4, 2, 2, NULL, "Softmax", 1},
    {"a weight stored as int8 behind DequantizeLinear",
     "g (float[N,4] x) => (float[N,6] y) <int8[6,4] q={...}, float s={1.0}, int8 z={0}, float[6] b={...}> {"
     "h = LayerNormalization(x, b) w = DequantizeLinear(q, s, z) y = Gemm<transB=1>(h, w, b) }",
     "h", 4, 6, 2, NULL, "", 1},
    {"a product of quantised numbers with what dequantises it behind",
     "g (float[N,4] x) => (float[N,6] y) <float s={1.0}, uint8 z={0}, int8[6,4] w={...}, int8 u={0}, int32[6] b={...}> "
     "{"
     "q = QuantizeLinear(x, s, z) h = Flatten(q) m = com.microsoft.QGemm<transB=1>(h, s, z, w, s, u, b, s, z) "
     "y = DequantizeLinear(m, s, z) }",
     "h", 4, 6, 2, NULL, "", 1},
    {"a weight cast from half precision",
     "g (float[N,4] x) => (float[N,6] y) <float16[4,6] q={...}, float[6] b={...}> {"
     "h = LayerNormalization(x, b) w = Cast<to=1>(q) m = MatMul(h, w) y = Add(m, b) }",
     "h", 4, 6, 2, NULL, "", 1},
    {"label and probability outputs of ArgMax and Sigmoid",
     "g (float[N,4] x) => (int64[N] y) <float[6,4] w={...}, float[6] b={...}> {"
     "h = LayerNormalization(x, b) s = Gemm<transB=1>(h, w, b) p = Sigmoid(s) y = ArgMax<keepdims=0>(p) }",
     "h", 4, 6, 2, NULL, "Sigmoid, ArgMax", 1},
    {"MobileNetV3: a hidden layer comes as an alternative",
     "g (float[N,8,4,4] x) => (float[N,10] y) <float[12,8] v={...}, float[12] c={...}, float[10,12] w={...}, float[10] "
     "b={...}> {"
     "p = GlobalAveragePool(x) f = Flatten(p) h = Gemm<transB=1>(f, v, c) a = HardSwish(h) y = Gemm<transB=1>(a, w, b) "
     "}",
     "a", 12, 10, 2, NULL, "", 2},
    {"VGG: two hidden layers, Dropout between",
     "g (float[N,8,4,4] x) => (float[N,10] y) <float[12,128] u={...}, float[12,12] v={...}, float[10,12] w={...}> {"
     "p = MaxPool<kernel_shape=[1,1]>(x) f = Flatten(p) h = Gemm<transB=1>(f, u) a = Relu(h) d = Dropout(a)"
     "i = Gemm<transB=1>(d, v) j = Relu(i) y = Gemm<transB=1>(j, w) }",
     "j", 12, 10, 2, NULL, "", 3},
    {"BERT: the pooler is an alternative",
     "g (float[N,T,8] x) => (float[N,3] y) <float[8,8] v={...}, float[8] c={...}, float[3,8] w={...}, float[3] "
     "b={...}, int64 z={0}> {"
     "n = LayerNormalization(x, c) s = Gather<axis=1>(n, z) h = Gemm<transB=1>(s, v, c) t = Tanh(h) y = "
     "Gemm<transB=1>(t, w, b) }",
     "t", 8, 3, 2, NULL, "", 2},
    {"a swish between two layers joins again",
     "g (float[N,8] x) => (float[N,3] y) <float[6,8] v={...}, float[3,6] w={...}> {"
     "h = Gemm<transB=1>(x, v) s = Sigmoid(h) m = Mul(h, s) y = Gemm<transB=1>(m, w) }",
     "m", 6, 3, 2, NULL, "", 2},
    {"GPT-2 for classification: the last token is picked behind the layer, with the ids",
     "g (int64[N,T] ids, float[N,T,8] x) => (float[N,5] y) <float[8,5] w={...}, float[8] c={...}, int64[2] to={-1,5}> {"
     "n = LayerNormalization(x, c) m = MatMul(n, w) r = Reshape(m, to) last = ArgMax<axis=1, keepdims=0>(ids) y = "
     "Gather(r, last) }",
     "n", 8, 5, -1, "y", "", 1},
    {"segmentation: 1x1 convolution, then Resize to the picture",
     "g (float[N,8,4,4] x) => (float[N,21,32,32] y) <float[21,8,1,1] w={...}, float[21] b={...}, float[4] "
     "s={1.0,1.0,8.0,8.0}> {"
     "r = LeakyRelu(x) c = Conv(r, w, b) y = Resize<mode=\"linear\">(c, \"\", s) }",
     "r", 8, 21, 4, "y", "", 1},
    {"SqueezeNet: convolution before pooling",
     "g (float[N,8,4,4] x) => (float[N,1000] y) <float[1000,8,1,1] w={...}, float[1000] b={...}> {"
     "d = Dropout(x) c = Conv(d, w, b) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }",
     "d", 8, 1000, 4, NULL, "", 1},
    {"a 1x1 convolution on pooled features is a vector head",
     "g (float[N,8,4,4] x) => (float[N,10] y) <float[10,8,1,1] w={...}, float[10] b={...}> {"
     "p = GlobalAveragePool(x) c = Conv(p, w, b) y = Flatten(c) }",
     "p", 8, 10, 4, NULL, "", 1},
    {"view(N,-1): a shape computed beside the data",
     "g (float[N,8,1,1] x) => (float[N,10] y) <float[10,8] w={...}, float[10] b={...}, int64 z={0}, int64[1] a={0}, "
     "int64[1] m={-1}> {"
     "s = Shape(x) n = Gather(s, z) u = Unsqueeze(n, a) to = Concat<axis=0>(u, m) p = MaxPool<kernel_shape=[1,1]>(x)"
     "f = Reshape(p, to) y = Gemm<transB=1>(f, w, b) }",
     "f", 8, 10, 2, NULL, "", 1},
    {"L2-normalised features, then the layer",
     "g (float[N,8] x) => (float[N,10] y) <float[10,8] w={...}, float[10] b={...}, float e={0.001}> {"
     "l = ReduceL2<axes=[1]>(x) c = Clip(l, e) d = Div(x, c) y = Gemm<transB=1>(d, w, b) }",
     "d", 8, 10, 2, NULL, "", 1},
    {"initializers that are inputs too (IR version 3) are weights",
     "g (float[N,4] x, float[6,4] w={...}, float[6] b={...}) => (float[N,6] y) {"
     "h = LayerNormalization(x, b) y = Gemm<transB=1>(h, w, b) }",
     "h", 4, 6, 2, NULL, "", 1},
    {"scikit-learn's classifier: label map and ZipMap behind the scores",
     "g (float[N,4] x) => (int64[N] label, seq(float) p) <float[4,3] w={...}, float[3] b={...}, int64[3] "
     "classes={...}> {"
     "h = LayerNormalization(x, b) m = MatMul(h, w) a = Add(m, b) s = Softmax(a) i = ArgMax(s)"
     "label = ai.onnx.ml.ArrayFeatureExtractor(classes, i) p = ai.onnx.ml.ZipMap(s) }",
     "h", 4, 3, 2, NULL, "Softmax, ZipMap", 2},
};

static void every_form_of_head_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Case *c = &cases[i];
        char text[2000];
        snprintf(text, sizeof text, HEADER "%s", c->text);
        Model *model = parse(text);
        Error err = {STATUS_OK, ""};
        HeadList list;
        assert_ok(heads_find(model, &list, &err), &err);
        const Head *head = NULL;
        if (heads_pick(&list, NULL, NULL, &head, &err) != STATUS_OK)
            fail_msg("%s: %s", c->what, err.message);
        if (strcmp(head->features->name, c->features) != 0 || head->feature_width != c->width ||
            head->class_count != c->classes || head->rank != c->rank || list.count != c->heads ||
            strcmp(head->post_ops, c->post_ops) != 0)
            fail_msg("%s: found %s [%d -> %d] rank %d, post-ops '%s', %zu heads", c->what, head->features->name,
                     (int)head->feature_width, (int)head->class_count, head->rank, head->post_ops, list.count);
        if (c->tail_end == NULL)
            assert_null(head->tail_end);
        else
            assert_string_equal(head->tail_end->name, c->tail_end);
        model_free(model);
    }
}

static const struct {
    const char *text, *message;
} refused[] = {
    /* two tasks on one trunk */
    {"g (float[N,4] x) => (float[N,2] a, float[N,3] b) <float[2,4] v={...}, float[3,4] w={...}> {"
     "[ga] a = Gemm<transB=1>(x, v) [gb] b = Gemm<transB=1>(x, w) }",
     "several heads, choose by name or by output; candidates are 1: Gemm 'ga' [4 -> 2]; 2: Gemm 'gb' [4 -> 3]"},
    /* two layers meet */
    {"g (float[N,4] x) => (float[N,2] y) <float[2,4] v={...}, float[2,4] w={...}> {"
     "[ga] a = Gemm<transB=1>(x, v) [gb] b = Gemm<transB=1>(x, w) y = Add(a, b) }",
     "one of 2 layers that meet in 'y'; candidates are 1: Gemm 'ga' [4 -> 2]; 2: Gemm 'gb' [4 -> 2]"},
    /* no head: an encoder ends in a normalisation */
    {"g (float[N,4] x) => (float[N,4] y) <float[4] v={...}> { [ln] y = LayerNormalization(x, v) }",
     "no head found: behind 'y' the walk ends at LayerNormalization 'ln'; name the tensor to cut at"},
    /* a headless convolution net looks like SqueezeNet */
    {"g (float[N,4,8,8] x) => (float[N,512] y) <float[512,4,1,1] v={...}> {"
     "[k] c = Conv(x, v) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }",
     "convolution before pooling with 512 channels: might be the last feature layer; candidates are 1: Conv 'k' [4 -> "
     "512]"},
    /* an embedding */
    {"g (float[N,4] x) => (float[N,128] y) <float[128,4] v={...}> {"
     "[k] c = Gemm<transB=1>(x, v) n = ReduceL2<axes=[1]>(c) y = Div(c, n) }",
     "its result is normalised: an embedding rather than class scores?; candidates are 1: Gemm 'k' [4 -> 128]"},
    {"g (float[N,4] x) => (float[N,128] v_feat) <float[128,4] v={...}> {[k] v_feat = Gemm<transB=1>(x, v) }",
     "output 'v_feat' is named like features, not scores; candidates are 1: Gemm 'k' [4 -> 128]"},
    /* a residual that is no head */
    {"g (float[N,4] x) => (float[N,4] y) <float[4,4] v={...}> {"
     "[k] c = Gemm<transB=1>(x, v) y = Add(c, x) }",
     "'y' also reads an input directly; candidates are 1: Gemm 'k' [4 -> 4]"},
};

static void where_two_answers_are_possible_none_is_given(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[2000];
        snprintf(text, sizeof text, HEADER "%s", refused[i].text);
        Model *model = parse(text);
        Error err = {STATUS_OK, ""};
        HeadList list;
        const Head *head = NULL;
        assert_ok(heads_find(model, &list, &err), &err);
        heads_pick(&list, NULL, NULL, &head, &err);
        assert_string_equal(err.message, refused[i].message);
        assert_int_equal(err.status, STATUS_AMBIGUOUS);
        model_free(model);
    }
}

static void a_head_is_chosen_by_name_number_features_or_output(void **state)
{
    (void)state;
    Model *model =
        parse(HEADER "g (float[N,4] x) => (float[N,2] a, float[N,3] b) <float[2,4] v={...}, float[3,4] w={...}> {"
                     "h = Elu(x) [ga] a = Gemm<transB=1>(h, v) [gb] b = Gemm<transB=1>(h, w) }");
    Error err = {STATUS_OK, ""};
    HeadList list;
    const Head *head = NULL;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_ok(heads_pick(&list, NULL, "b", &head, &err), &err);
    assert_string_equal(head->node->name, "gb");
    assert_ok(heads_pick(&list, "ga", NULL, &head, &err), &err);
    assert_string_equal(head->node->name, "ga");
    assert_ok(heads_pick(&list, "2", NULL, &head, &err), &err);
    assert_string_equal(head->node->name, "gb");
    assert_ok(heads_pick(&list, "h", "b", &head, &err), &err);
    assert_string_equal(head->node->name, "gb");
    assert_int_equal(heads_pick(&list, "gaa", NULL, &head, &err), STATUS_USAGE);
    assert_string_equal(err.message, "no head is called 'gaa' (did you mean 'ga'?)");
    error_clear(&err);
    assert_int_equal(heads_pick(&list, NULL, "c", &head, &err), STATUS_USAGE);
    model_free(model);
}

static void scores_win_over_features_and_probabilities_beside_them(void **state)
{
    (void)state;
    Model *model = parse(HEADER "g (float[N,4,8,8] x) => (float[N,6] feat, float[N,2] y, float[N,2] p)"
                                "<float[6,4,1,1] k={...}, float[2,6] v={...}> {"
                                "c = Conv(x, k) g = GlobalAveragePool(c) feat = Flatten(g)"
                                "y = Gemm<transB=1>(feat, v) p = Softmax(y) }");
    Error err = {STATUS_OK, ""};
    HeadList list;
    const Head *head = NULL;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_ok(heads_pick(&list, NULL, NULL, &head, &err), &err);
    assert_string_equal(head->output->name, "y");
    assert_string_equal(head->features->name, "feat");
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_head_is_found),
        cmocka_unit_test(where_two_answers_are_possible_none_is_given),
        cmocka_unit_test(a_head_is_chosen_by_name_number_features_or_output),
        cmocka_unit_test(scores_win_over_features_and_probabilities_beside_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
