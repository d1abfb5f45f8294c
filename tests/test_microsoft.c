/* com.microsoft's composites against results recorded from onnxruntime: what their documents leave open (which mask
 * hides what, where a moved batch dim goes) is settled by what it computes. Each runs through the interpreter, whole,
 * and expanded through a plan. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

enum { NUMBERS_MAX = 128 };

typedef struct Recorded {
    const char *name, *inputs, *call, *outputs;
    double values[NUMBERS_MAX], expected[NUMBERS_MAX]; /* inputs and outputs in order */
} Recorded;

/* clang-format off */
static const Recorded recorded[] = {
    {.name = "MultiHeadAttention: bias, padding, added scores",
     .inputs = "float[1,2,4] q, float[1,3,4] k, float[1,3,4] v, float[12] b, int32[1,3] m, float[1,2,2,3] a",
     .call = "com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, b, m, a)",
     .outputs = "y",
     .values = {0.28, 0.66, 0.26, -1.04, 0.72, 0.36, -0.43, 0.46, 0.29, 0.24, 0.02, 0.44, -0.59, -0.13, -0.39, 0.48,
         0.03, -0.23, -0.63, -0.21, 0.01, -0.22, 1.04, 0.81, -2.17, -1.51, -0.14, -0.34, 0.17, 0.17, 1.69, -0.89,
         -0.3, 1.63, 0.52, 0.53, -0.41, -1.32, 0.13, 0.09, -0.98, -0.55, -0.06, -0.76, 1, 0, 1, -0.08, 0.08, 0.03,
         -0.41, 0.47, 0.71, 0.26, -0.65, 0.59, -0.4, 0.7, -0.86},
     .expected = {-0.9150273, -0.6360039, 1.338342, -0.8872008, -0.8749253, -0.5382553, 1.160441, -0.421923}},
    {.name = "MultiHeadAttention: causal, scale",
     .inputs = "float[1,3,4] q, float[1,3,4] k, float[1,3,4] v",
     .call = "com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1, scale=0.3>(q, k, v)",
     .outputs = "y",
     .values = {0.73, -0.02, -1, -0.25, 0.04, 0.22, -0.79, -0.89, 0.16, -0.37, 0.19, 0.61, -1.32, 0.2, 0.98, -0.24,
         -0.65, 0.6, 0.2, 0.72, -0.28, -1.19, -0.09, -0.36, 0.62, 0.15, -1.3, -0.96, 0.71, 0.54, -0.51, -0, 0.36,
         0.37, 0.7, 0.21},
     .expected = {0.62, 0.15, -1.3, -0.96, 0.6657748, 0.3483576, -0.9191074, -0.4971431, 0.548447, 0.3538016,
         -0.4042433, -0.2505106}},
    {.name = "Attention: one weight for all, lengths",
     .inputs = "float[2,2,3] x, float[3,12] w, float[12] b, int32[2] n",
     .call = "com.microsoft.Attention<num_heads=2>(x, w, b, n)",
     .outputs = "y",
     .values = {-0.08, -0.21, 0.84, -1.8, -0.11, 0.03, -1.14, 0.27, -0.52, 0.69, -0.1, 0.54, 0.98, 0.31, -0.7,
         -1.21, 1.4, -0.09, -0.55, 0.12, -0.15, 0.68, 0.03, 0.01, -0.57, 0.38, -0.83, 0.53, 1.22, -1.22, -1.97,
         0.49, 2.04, -0.8, -1, 0.47, -0.67, -0.4, -0.28, 0.43, -0.32, 0.22, -0.14, -0.68, -0.26, -0.76, 0.01, -0.9,
         -0.87, 1.17, -0.04, -0.04, 0.41, -0.34, -0.18, 0.34, 0.23, -0.93, 0.67, -0.47, 1, 2},
     .expected = {-0.4047999, -1.4548, 0.886, -1.3255, -0.4047999, -1.4548, 0.886, -1.3255, 0.9067828, -1.424518,
         0.4944795, -0.2276083, 0.5025328, -1.196882, 0.6330941, -0.5807812}},
    {.name = "Attention: causal, sizes of its own",
     .inputs = "float[1,3,3] x, float[3,10] w, float[10] b",
     .call = "com.microsoft.Attention<num_heads=2, unidirectional=1, qkv_hidden_sizes=[4, 4, 2]>(x, w, b)",
     .outputs = "y",
     .values = {-0.84, -0.72, -0.31, 1.3, -0.94, 0.13, -1.71, -0, 0.72, -0.19, -0.5, 0.19, 0.56, 0.53, 1.58, 0.17,
         -0.47, -0.1, -0.06, 0.09, -0.02, 0.14, -1.34, 0.66, -0.46, -0.94, 0.51, 1.05, 0.39, 0.13, -0.75, 2.3, 0.7,
         -0.91, -0.62, 0.07, -1.24, 0.13, -0.37, 0.98, 0.77, -2.17, 0.03, -1.29, 0.89, 0.13, 0.44, -0.85, 1.46},
     .expected = {-1.5623, 1.3443, -1.791727, 1.329913, -1.928417, 1.212827}},
    {.name = "EmbedLayerNormalization: mask and sum",
     .inputs = "int32[1,3] i, int32[1,3] s, float[4,3] w, float[4,3] p, float[2,3] t, float[3] g, float[3] b, int32[1,3] m",
     .call = "com.microsoft.EmbedLayerNormalization(i, s, w, p, t, g, b, m)",
     .outputs = "y, n",
     .values = {3, 1, 0, 0, 1, 1, 1.62, -0.85, 0.3, -0.54, -0.02, -1.01, 1.49, -0.78, -0.24, 0.4, -0.52, -0.19,
         -0.45, -0.11, -0.94, -0.35, -0.17, -0.27, 0.05, -0.23, 0.6, -0.26, -0.11, -0.53, -0.42, -1.01, 0.42, -0.91,
         -0.6, 0.29, 0.32, -0.32, -1.62, 0.34, 0.21, -1.13, 1, 1, 0},
     .expected = {0.6380703, 0.6539344, -1.868437, -0.1045673, -0.08556388, -1.884329, 0.509643, 0.6581615, -2.54,
         2}},
    {.name = "RotaryEmbedding: first position, interleaved",
     .inputs = "float[1,2,3,4] x, int64[1] p, float[6,2] c, float[6,2] s",
     .call = "com.microsoft.RotaryEmbedding<interleaved=1>(x, p, c, s)",
     .outputs = "y",
     .values = {0.62, -0.56, -0.9, 0.08, -0.14, 0.16, -1.28, 1.45, -0.48, -1.23, 0.5, -0.28, 0.26, -0.27, -0.05,
         0.2, -0.6, 0.54, -0.38, -0.7, 0.06, 0.36, -0.18, -0.69, 2, 0.5, -1.41, -0.82, 0.03, -1.09, 0.02, -0.04,
         0.72, -0.73, -0.5, 0.27, -1.97, 2.48, -0.56, -0.58, 0.69, -0.03, -1.42, 0.5, 0.68, -0.36, -0.23, 0.39,
         -0.73},
     .expected = {-0.6926, 0.5918, 0.09559999, 1.2796, -0.0744, -0.0764, -1.9076, 0.1736, -0.09240001, 1.0707,
         -0.3144, 0.025, -0.2915, 0.2865, 0.283, 0.075, -0.246, -0.3216, 0.2024, -0.7624, 0.0858, -0.2844, -0.0687,
         0.3864}},
    {.name = "FusedMatMul: batches moved and transposed",
     .inputs = "float[3,2,2] a, float[2,2,3] b",
     .call = "com.microsoft.FusedMatMul<transBatchA=1, transA=1, transBatchB=1, transB=1, alpha=0.5>(a, b)",
     .outputs = "y",
     .values = {0.35, 0.16, -0.54, -1.11, -0.18, -0.7, 0.8, 0.12, 0.63, 0.11, 0.21, -0.63, 0.53, 1.43, -0.25, -0.47,
         -0.13, -0.39, -0.56, 0.11, -0.23, 1.15, 0, 0.26},
     .expected = {-0.1147, -0.18035, -0.47185, -0.09594999, 0.03395, -0.2832, 0.3759, -0.72015}},
    {.name = "FusedGemm: LeakyRelu",
     .inputs = "float[2,3] a, float[2,3] b, float[2] c",
     .call = "com.microsoft.FusedGemm<transB=1, activation=\"LeakyRelu\", activation_alpha=0.2>(a, b, c)",
     .outputs = "y",
     .values = {0.76, -0.24, 1.15, -0.51, -0.65, -0.29, -0.09, -1.12, -0.03, -1.33, 1.11, -0.06, -0.51, -0.73},
     .expected = {-0.06882, -0.41524, 0.2726, -0.15116}},
};
/* clang-format on */

static Model *build(const Recorded *r, Error *err)
{
    Model *model = NULL;
    Str text;
    str_init(&text);
    str_printf(&text,
               "<ir_version: 8, opset_import: [\"\" : 28, \"com.microsoft\" : 1]>\ng (%s) => () {\n    %s = %s\n}\n",
               r->inputs, r->outputs, r->call);
    assert_ok(model_parse(text.text, &builtin_ops, &model, err), err);
    str_release(&text);
    assert_ok(pass_infer_known(model->graph, err), err);
    const Node *last = model->graph->last;
    for (int i = 0; i < last->output_count; i++)
        graph_add_output(model->graph, last->outputs[i]);
    return model;
}

static void put(void *data, DType dtype, const double *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (dtype == DTYPE_F32)
            ((float *)data)[i] = (float)from[i];
        else if (dtype == DTYPE_I32)
            ((int32_t *)data)[i] = (int32_t)from[i];
        else
            ((int64_t *)data)[i] = (int64_t)from[i];
}

static double get(const void *data, DType dtype, int64_t i)
{
    return dtype == DTYPE_F32 ? (double)((const float *)data)[i] : (double)((const int32_t *)data)[i];
}

static void compare(const Recorded *r, const Value *output, const void *found, const double *expected)
{
    for (int64_t i = 0; i < type_count(&output->type); i++) {
        double x = get(found, output->type.dtype, i);
        if (!(fabs(x - expected[i]) <= 2e-6 + 2e-6 * fabs(expected[i])))
            fail_msg("%s: '%s'[%d] is %.8g, onnxruntime has %.8g", r->name, output->name, (int)i, x, expected[i]);
    }
}

static void check_interpreter(const Recorded *r, const Model *model, Error *err)
{
    const Graph *graph = model->graph;
    Arena arena;
    arena_init(&arena);
    Array *in[10], *out[4];
    const double *values = r->values, *expected = r->expected;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        assert_ok(array_new(&arena, type->dtype, type->rank, type->dims, &in[i], err), err);
        put(in[i]->data, type->dtype, values, in[i]->count);
        values += in[i]->count;
    }
    assert_ok(interp_run(graph, (const Array *const *)in, out, &arena, 0, err), err);
    for (size_t i = 0; i < graph->output_count; i++) {
        compare(r, graph->outputs[i], out[i]->data, expected);
        expected += out[i]->count;
    }
    arena_release(&arena);
}

static void check_plan(const Recorded *r, Model *model, Error *err)
{
    const Graph *graph = model->graph;
    const double *values = r->values, *expected = r->expected;
    Plan *plan = NULL;
    assert_ok(pass_expand(model->graph, err), err);
    assert_ok(plan_build(model, NULL, &(PlanOptions){0}, &plan, err), err);
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        put(plan_input(plan, i), type->dtype, values, type_count(type));
        values += type_count(type);
    }
    assert_ok(plan_run(plan, 0, 1, false, err), err);
    for (size_t i = 0; i < graph->output_count; i++) {
        compare(r, graph->outputs[i], plan_output(plan, i), expected);
        expected += type_count(&graph->outputs[i]->type);
    }
    plan_free(plan);
}

static void composites_do_what_onnxruntime_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof recorded / sizeof recorded[0]; i++) {
        Error err = {0};
        Model *model = build(&recorded[i], &err);
        check_interpreter(&recorded[i], model, &err);
        check_plan(&recorded[i], model, &err);
        model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(composites_do_what_onnxruntime_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
