/* passes/fuse and passes/fuse_conv: patterns as exporters write them become one operator and compute the same. */
#include "tests/graph_test.h"

typedef struct FuseCase {
    const char *text, *ops; /* after fusing */
} FuseCase;

static void check_fuse(const FuseCase *c, Status (*fuse)(Graph *graph, Error *err))
{
    char text[3000];
    snprintf(text, sizeof text, NEWEST "%s", c->text);
    Error err = {STATUS_OK, ""};
    Arena arena;
    arena_init(&arena);
    Model *model = parse_inferred(text);
    const Array **inputs = random_inputs(model->graph, 1, &arena);
    Array **before = run_graph(model->graph, inputs, &arena);
    size_t outputs = model->graph->output_count;
    assert_ok(fuse(model->graph, &err), &err);
    assert_ok(graph_check(model->graph, &err), &err);
    assert_ops(model->graph, c->ops);
    Array **after = run_graph(model->graph, inputs, &arena);
    for (size_t i = 0; i < outputs; i++)
        assert_near(after[i], before[i], 1e-5);
    arena_release(&arena);
    model_free(model);
}

#define X "g (float[4,6] x) => (y) "

static void gelu_is_known_in_every_order_of_its_product(void **state)
{
    (void)state;
#define ERF "<float r={1.41421354}, float one={1.0}, float h={0.5}> { d = Div(x, r) e = Erf(d) a = Add(e, one) "
    static const FuseCase cases[] = {
        {X ERF "m = Mul(x, a) y = Mul(m, h) }", "Gelu"},
        {X ERF "m = Mul(a, h) y = Mul(x, m) }", "Gelu"},
        {X ERF "m = Mul(x, h) y = Mul(m, a) }", "Gelu"},
        {X "<float r={0.70710677}, float one={1.0}, float h={0.5}> { d = Mul(r, x) e = Erf(d) a = Add(one, e) "
           "m = Mul(h, x) y = Mul(a, m) }",
         "Gelu"},
        {"g (float[4,6] x, float[4,6] z) => (y) " ERF "m = Mul(z, a) y = Mul(m, h) }", "Div Erf Add Mul Mul"},
        {"g (float[4,6] x) => (y, a) " ERF "m = Mul(x, a) y = Mul(m, h) }", "Div Erf Add Mul Mul"},
    };
#undef ERF
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], pass_fuse);
}

static void gelu_by_tanh_is_known_with_a_power_and_with_products(void **state)
{
    (void)state;
#define NUMBERS                                                                                                        \
    "<float three={3.0}, float c={0.044715}, float s={0.7978846}, float one={1.0}, float h={0.5}> { m = Mul(x, h) "
#define END "t = Tanh(u) a = Add(t, one) y = Mul(m, a) }"
    static const FuseCase cases[] = {
        {X NUMBERS "p = Pow(x, three) q = Mul(p, c) r = Add(x, q) u = Mul(r, s) " END, "Gelu"},
        {X NUMBERS "w = Mul(x, x) p = Mul(x, w) q = Mul(c, p) r = Add(q, x) u = Mul(s, r) " END, "Gelu"},
        {X NUMBERS "w = Mul(x, c) p = Mul(w, x) q = Add(one, p) r = Mul(x, s) u = Mul(r, q) " END, "Gelu"},
        {X NUMBERS "p = Pow(x, three) q = Mul(p, c) r = Add(x, q) u = Mul(r, h) " END,
         "Mul Pow Mul Add Mul Tanh Add Mul"},
    };
#undef NUMBERS
#undef END
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], pass_fuse);
}

static void gates_become_their_activation(void **state)
{
    (void)state;
    static const FuseCase cases[] = {
        {X "{ s = Sigmoid(x) y = Mul(x, s) }", "Swish"},
        {X "<float a={1.702}> { m = Mul(x, a) s = Sigmoid(m) y = Mul(s, x) }", "Swish"},
        {X "{ p = Softplus(x) t = Tanh(p) y = Mul(x, t) }", "Mish"},
        {X "{ s = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, s) }", "HardSwish"},
        {X "{ s = HardSigmoid(x) y = Mul(x, s) }", "HardSigmoid Mul"},
        {X "<float three={3.0}, float zero={0.0}, float six={6.0}> { a = Add(x, three) c = Clip(a, zero, six) "
           "m = Mul(x, c) y = Div(m, six) }",
         "HardSwish"},
        {X "<float three={3.0}, float zero={0.0}, float six={6.0}> { a = Add(x, three) c = Clip(a, zero, six) "
           "m = Div(c, six) y = Mul(x, m) }",
         "HardSwish"},
        {X "{ s = Softmax<axis=1>(x) y = Log(s) }", "LogSoftmax"},
        {"g (float[4,6] x, float[1,6] w) => (y) { s = Sigmoid(w) y = Mul(x, s) }", "Sigmoid Mul"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], pass_fuse);
}

static void normalisations_are_known_as_exporters_decompose_them(void **state)
{
    (void)state;
#define G "g (float[2,3,4] x) => (y) "
#define NUMBERS                                                                                                        \
    "<int64[1] ax={-1}, float two={2.0}, float e={0.00001}, float[4] g={0.5,1.0,1.5,2.0}, float[4] "                   \
    "b={1.0,2.0,3.0,4.0}> "
    static const FuseCase cases[] = {
        {G NUMBERS "{ m = ReduceMean(x, ax) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, ax) a = Add(v, e) "
                   "s = Sqrt(a) n = Div(d, s) w = Mul(n, g) y = Add(w, b) }",
         "LayerNormalization"},
        {G NUMBERS "{ m = ReduceMean(x, ax) d = Sub(x, m) d2 = Sub(x, m) p = Mul(d2, d2) v = ReduceMean(p, ax) "
                   "a = Add(e, v) s = Sqrt(a) r = Reciprocal(s) n = Mul(d, r) w = Mul(g, n) y = Add(b, w) }",
         "LayerNormalization"},
        {G NUMBERS "{ m = ReduceMean(x, ax) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, ax) a = Add(v, e) "
                   "s = Sqrt(a) y = Div(d, s) }",
         "LayerNormalization"},
        {G NUMBERS "{ p = Pow(x, two) v = ReduceMean(p, ax) a = Add(v, e) s = Sqrt(a) r = Reciprocal(s) n = Mul(x, r) "
                   "y = Mul(g, n) }",
         "RMSNormalization"},
        {"g (float[2,3,4] x) => (y) <int64[1] ax={1}, float two={2.0}, float e={0.00001}> "
         "{ m = ReduceMean(x, ax) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, ax) a = Add(v, e) s = Sqrt(a) "
         "y = Div(d, s) }",
         "ReduceMean Sub Pow ReduceMean Add Sqrt Div"},
    };
#undef G
#undef NUMBERS
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], pass_fuse);
}

static void training_batchnorm_takes_its_activation(void **state)
{
    (void)state;
#define NORM                                                                                                           \
    "<float[2] s={1.0,2.0}, float[2] b={0.5,0.0}, float[2] m={0.0,0.0}, float[2] v={1.0,1.0}, float lo={-1.0}, "       \
    "float one={1.0}, float six={6.0}> { n, sm, sv = ai.regraft.BatchNormTrain(x, s, b, m, v) "
    static const FuseCase cases[] = {
        {"g (float[4,2] x) => (y) " NORM "y = Relu(n) }", "BatchNormTrain"},
        {"g (float[4,2] x) => (y) " NORM "y = Clip(n, lo, six) }", "BatchNormTrain"},
        {"g (float[4,2] x) => (y) " NORM "y = Clip(n, , one) }", "BatchNormTrain"},
        {"g (float[4,2] x) => (y) " NORM "g = Sigmoid(n) y = Mul(n, g) }", "BatchNormTrain"},
        {"g (float[4,2] x) => (y) " NORM "y = HardSwish(n) }", "BatchNormTrain"},
        {"g (float[4,2] x) => (y) " NORM "y = Clip(n, one, six) }", "BatchNormTrain Clip"}, /* padding would be 1 */
        {"g (float[4,2] x, float lo) => (y) <float[2] s={1.0,2.0}, float[2] b={0.5,0.0}, float[2] m={0.0,0.0}, "
         "float[2] v={1.0,1.0}> { n, sm, sv = ai.regraft.BatchNormTrain(x, s, b, m, v) y = Clip(n, lo) }",
         "BatchNormTrain Clip"},
        {"g (float[4,2] x) => (y) " NORM "y = Swish<alpha=2.0>(n) }", "BatchNormTrain Swish"},
        {"g (float[4,2] x) => (y, n) " NORM "y = Relu(n) }", "BatchNormTrain Relu"},
    };
#undef NORM
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], pass_fuse);
}

static Status fuse_conv_all(Graph *graph, Error *err)
{
    return pass_fuse_conv(graph, true, err);
}

#define CONV                                                                                                           \
    "float[2,3,1,1] w={0.1,0.2,0.3,0.4,0.5,0.6}, float[2] b={0.5,-0.5}, float[2] g={1.0,2.0}, float[2] h={0.1,0.2}, "  \
    "float[2] m={0.3,0.4}, float[2] v={1.5,2.5}, float zero={0.0}, float six={6.0}"

static void convolutions_take_up_what_follows(void **state)
{
    (void)state;
#define G "g (float[1,3,2,2] x) => (y) <" CONV "> "
#define R "g (float[1,3,2,2] x, float[1,2,2,2] r) => (y) <" CONV "> "
    static const FuseCase cases[] = {
        {G "{ c = Conv(x, w) y = BatchNormalization(c, g, h, m, v) }", "Conv"},
        {G "{ c = Conv(x, w, b) n = BatchNormalization(c, g, h, m, v) y = Relu(n) }", "FusedConv"},
        {G "{ c = Conv(x, w, b) y = Clip(c, zero, six) }", "FusedConv"},
        {G "{ c = Conv(x, w, b) y = HardSigmoid<alpha=0.25>(c) }", "FusedConv"},
        {G "{ c = Conv(x, w, b) y = LeakyRelu<alpha=0.3>(c) }", "FusedConv"},
        {G "{ c = Conv(x, w, b) y = Swish(c) }", "FusedConv"},
        {G "{ c = Conv(x, w, b) y = Swish<alpha=2.0>(c) }", "Conv Swish"},
        {G "{ c = Conv(x, w, b) y = Erf(c) }", "Conv Erf"},
        {R "{ c = Conv(x, w, b) a = Add(r, c) y = Relu(a) }", "FusedConv"},
        {R "{ c = Conv(x, w) q = Abs(r) y = Add(c, q) }", "Abs FusedConv"},
        {R "{ c = Conv(x, w, b) n = BatchNormalization(c, g, h, m, v) a = Add(n, r) y = Relu(a) }", "FusedConv"},
        {"g (float[1,3,2,2] x) => (y, c) <" CONV "> { c = Conv(x, w, b) y = Relu(c) }", "Conv Relu"},
        {G "{ c = Conv(x, w, b) d = Add(c, c) y = Relu(d) }", "Conv Add Relu"},
    };
#undef G
#undef R
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fuse(&cases[i], fuse_conv_all);
}

/* What is trained keeps its weights and, when the gradient is still to come, its operators. */
static void trained_parts_are_left_for_the_gradient(void **state)
{
    (void)state;
    static const char *const text =
        NEWEST "g (float[1,3,2,2] x) => (y) <" CONV ", float[2,2,1,1] u={1.0,2.0,3.0,4.0}> {"
               "a = Conv(x, w, b) n = BatchNormalization(a, g, h, m, v) r = Relu(n) "
               "c = Conv(r, u) k = BatchNormalization(c, g, h, m, v) y = Relu(k) }";
    static const struct {
        const char *trained;
        bool all;
        const char *ops;
    } cases[] = {
        {NULL, true, "FusedConv FusedConv"},
        {"u", true, "FusedConv Conv BatchNormalization Relu"},
        {"u", false, "FusedConv Conv BatchNormalization Relu"},
        {"w", false, "Conv BatchNormalization Relu Conv BatchNormalization Relu"},
        {"b", true, "Conv BatchNormalization Relu FusedConv"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err = {STATUS_OK, ""};
        Model *model = parse_inferred(text);
        if (cases[i].trained != NULL)
            graph_find(model->graph, cases[i].trained)->role = ROLE_PARAMETER;
        assert_ok(pass_fuse_conv(model->graph, cases[i].all, &err), &err);
        assert_ops(model->graph, cases[i].ops);
        model_free(model);
    }
}

/* In either order of the two: what is added needs a gradient, and a FusedConv has none. */
static void a_trained_residual_is_left_for_the_gradient(void **state)
{
    (void)state;
    static const char *const orders[] = {"a = Conv(x, w, b) c = Conv(x, u, b) s = Add(a, c) y = Relu(s) }",
                                         "c = Conv(x, u, b) a = Conv(x, w, b) s = Add(c, a) y = Relu(s) }"};
    for (size_t i = 0; i < 4; i++) {
        Error err = {STATUS_OK, ""};
        char text[1000];
        snprintf(text, sizeof text,
                 NEWEST "g (float[1,3,2,2] x) => (y) <" CONV ", float[2,3,1,1] u={1.0,2.0,3.0,1.0,2.0,3.0}> { %s",
                 orders[i / 2]);
        Model *model = parse_inferred(text);
        bool trained = i % 2 == 0;
        if (trained)
            graph_find(model->graph, "u")->role = ROLE_PARAMETER;
        assert_ok(pass_fuse_conv(model->graph, false, &err), &err);
        assert_ops(model->graph, trained ? "Conv Conv Add Relu" : "Conv FusedConv");
        model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_is_known_in_every_order_of_its_product),
        cmocka_unit_test(gelu_by_tanh_is_known_with_a_power_and_with_products),
        cmocka_unit_test(gates_become_their_activation),
        cmocka_unit_test(normalisations_are_known_as_exporters_decompose_them),
        cmocka_unit_test(training_batchnorm_takes_its_activation),
        cmocka_unit_test(convolutions_take_up_what_follows),
        cmocka_unit_test(trained_parts_are_left_for_the_gradient),
        cmocka_unit_test(a_trained_residual_is_left_for_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
