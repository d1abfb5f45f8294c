/* passes/freeze: patterns choose parameters as people mean them, marks survive in the model, and BatchNorm is
 * recognised. */
#include "tests/test.h"

#include <string.h>

#include "passes/passes.h"
#include "runtime/runtime.h"

static const char net[] =
    "<ir_version: 8, opset_import: [\"\" : 17]> "
    "g (float[N,3,8,8] x) => (float[N,10] y) <"
    "float[4,3,3,3] \"layer1.conv.weight\"={0.5,...}, float[4] \"layer1.bn.weight\"={1.5,...},"
    "float[4] \"layer1.bn.bias\"={0.1,...}, float[4] \"layer1.bn.mean\"={0.2,...},"
    "float[4] \"layer1.bn.var\"={1.25,...}, float[6,4,1,1] \"layer2.conv.weight\"={0.3,...},"
    "float[6] \"layer2.conv.bias\"={0.7,...}, float[10,6] \"fc.weight\"={0.4,...},"
    "float[10] \"fc.bias\"={0.6,...}> {"
    "[\"/layer1/conv/Conv\"] a = Conv(x, \"layer1.conv.weight\")"
    "[\"/layer1/bn/BatchNormalization\"] b = BatchNormalization(a, \"layer1.bn.weight\","
    "\"layer1.bn.bias\", \"layer1.bn.mean\", \"layer1.bn.var\")"
    "c = Relu(b) [\"/layer2/conv/Conv\"] d = Conv(c, \"layer2.conv.weight\", \"layer2.conv.bias\")"
    "p = GlobalAveragePool(d) f = Flatten(p)"
    "[\"/fc/Gemm\"] y = Gemm<transB=1>(f, \"fc.weight\", \"fc.bias\") }";

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

/* Names chosen by the patterns, in order, joined by spaces; or the message. */
static void select_names(Model *model, const char *const *patterns, size_t count, Str *out)
{
    Error err = {STATUS_OK, ""};
    ParamList list;
    bool selected[32];
    assert_ok(params_find(model, false, &list, &err), &err);
    assert_true(list.count <= 32);
    str_clear(out);
    if (params_select(model, &list, patterns, count, selected, &err) != STATUS_OK)
        str_append(out, err.message);
    for (size_t i = 0; i < list.count && err.status == STATUS_OK; i++)
        if (selected[i])
            str_printf(out, "%s%s", out->length > 0 ? " " : "", list.items[i].name);
}

static void patterns_choose_what_people_mean(void **state)
{
    (void)state;
    static const struct {
        const char *patterns[3], *chosen;
    } cases[] = {
        {{"head"}, "fc.weight fc.bias"},
        {{"last:1"}, "layer2.conv.weight layer2.conv.bias fc.weight fc.bias"},
        {{"last:2"}, "layer1.bn.weight layer1.bn.bias layer2.conv.weight layer2.conv.bias fc.weight fc.bias"},
        {{"norm"}, "layer1.bn.weight layer1.bn.bias"},
        {{"all"},
         "layer1.conv.weight layer1.bn.weight layer1.bn.bias layer2.conv.weight layer2.conv.bias fc.weight fc.bias"},
        {{"before:c"}, "layer1.conv.weight layer1.bn.weight layer1.bn.bias"},
        {{"layer1"}, "layer1.conv.weight layer1.bn.weight layer1.bn.bias"},
        {{"layer?.conv"}, "layer1.conv.weight layer2.conv.weight layer2.conv.bias"},
        {{"*.bias", "norm"}, "layer1.bn.weight layer1.bn.bias layer2.conv.bias fc.bias"},
        {{"/layer2/*"}, "layer2.conv.weight layer2.conv.bias"},
        {{"layr1"}, "pattern 'layr1' matches no parameter (did you mean 'layer1'?)"},
        {{"last:0"}, "last:N needs a whole number above 0, found 'last:0'"},
        {{"before:cc"}, "before: no tensor is called 'cc' (did you mean 'c'?)"},
    };
    Model *model = parse(net);
    Str found;
    str_init(&found);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t count = cases[i].patterns[1] == NULL ? 1 : 2;
        select_names(model, cases[i].patterns, count, &found);
        if (strcmp(cases[i].patterns[0], "layr1") == 0) /* which near name is offered may change */
            assert_true(text_starts(found.text, "pattern 'layr1' matches no"));
        else if (text_starts(cases[i].chosen, "before:"))
            assert_true(text_starts(found.text, "before: no tensor is called 'cc'"));
        else
            assert_string_equal(found.text, cases[i].chosen);
    }
    str_release(&found);
    model_free(model);
}

static void an_attached_head_is_the_head(void **state)
{
    (void)state;
    Model *model = parse(net);
    Error err = {STATUS_OK, ""};
    HeadList heads;
    const Head *head;
    Value *logits;
    const HeadSpec spec = {.kind = HEAD_MLP, .hidden = 5, .classes = 2, .init = INIT_KAIMING_UNIFORM, .seed = 1};
    assert_ok(heads_find(model, &heads, &err), &err);
    assert_ok(heads_pick(&heads, NULL, NULL, &head, &err), &err);
    assert_ok(pass_replace_head(model, head, &spec, false, &logits, &err), &err);
    Str found;
    str_init(&found);
    const char *pattern = "head";
    select_names(model, &pattern, 1, &found);
    assert_string_equal(found.text, "head.0.weight head.0.bias head.2.weight head.2.bias");
    str_release(&found);
    model_free(model);
}

static void marks_are_kept_in_the_model_and_obeyed(void **state)
{
    (void)state;
    Model *model = parse(net);
    Error err = {STATUS_OK, ""};
    ParamList list, again;
    bool frozen[32];
    const char *pattern = "layer1";
    assert_ok(params_find(model, false, &list, &err), &err);
    assert_ok(params_select(model, &list, &pattern, 1, frozen, &err), &err);
    assert_ok(freeze_mark(model, &list, frozen, &err), &err);
    assert_string_equal(model_metadata(model, "regraft.frozen"),
                        "layer1.conv.weight\nlayer1.bn.weight\nlayer1.bn.bias");
    assert_ok(params_find(model, false, &again, &err), &err);
    assert_ok(freeze_read(model, &again, &err), &err);
    for (size_t i = 0; i < again.count; i++)
        assert_int_equal(again.items[i].trainable, !frozen[i]);
    memset(frozen, 0, sizeof frozen);
    assert_ok(freeze_mark(model, &list, frozen, &err), &err);
    assert_null(model_metadata(model, "regraft.frozen"));
    model_free(model);
}

static void marks_of_a_cut_head_do_not_fall_on_a_new_one(void **state)
{
    (void)state;
    Model *model = parse(net);
    model_set_metadata(model, "regraft.frozen", "layer1.conv.weight\nfc.weight\nfc.bias");
    Error err = {STATUS_OK, ""};
    assert_ok(pass_cut(model, graph_find(model->graph, "f"), NULL, false, &err), &err);
    assert_string_equal(model_metadata(model, "regraft.frozen"), "layer1.conv.weight");
    model_free(model);
}

static void the_three_forms_of_batchnorm_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        BatchNormForm form;
        size_t count;
    } cases[] = {
        {"<opset_import: [\"\" : 17]> g (float[N,1] x) => (y) <float[1] s={1.0}> {y = BatchNormalization(x, s, s, s, "
         "s)}",
         BATCHNORM_INFERENCE, 1},
        {"<opset_import: [\"\" : 17]> g (float[N,1] x) => (y) <float[1] s={1.0}> "
         "{y, m, v = BatchNormalization<training_mode=1>(x, s, s, s, s)}",
         BATCHNORM_TRAINING, 1},
        {"<opset_import: [\"\" : 9]> g (float[N,1] x) => (y) <float[1] s={1.0}> "
         "{y, m, v, a, b = BatchNormalization(x, s, s, s, s)}",
         BATCHNORM_TRAINING, 1},
        {"<opset_import: [\"\" : 17]> g (float[N,1,4] x) => (y) <float[2,1,1] w={1.0,2.0}, float[2] "
         "\"onnx::Conv_9\"={1.0,2.0}> "
         "{y = Conv(x, w, \"onnx::Conv_9\")}",
         BATCHNORM_FOLDED, 1},
        {"<opset_import: [\"\" : 20]> g (float[N,1,4] x) => (y) <float[2,1,1] w={1.0,2.0}, float[2] "
         "\"w_bias\"={1.0,2.0}> "
         "{y = Conv(x, w, \"w_bias\")}",
         BATCHNORM_FOLDED, 1},
        {"<opset_import: [\"\" : 17]> g (float[N,1,4] x) => (y) <float[2,1,1] w={1.0,2.0}, float[2] "
         "\"c.bias\"={1.0,2.0}> "
         "{y = Conv(x, w, \"c.bias\")}",
         BATCHNORM_NONE, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Model *model = parse(cases[i].text);
        size_t count;
        assert_int_equal(batchnorm_form(model, &count), cases[i].form);
        assert_int_equal(count, cases[i].count);
        model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_choose_what_people_mean),
        cmocka_unit_test(an_attached_head_is_the_head),
        cmocka_unit_test(marks_are_kept_in_the_model_and_obeyed),
        cmocka_unit_test(marks_of_a_cut_head_do_not_fall_on_a_new_one),
        cmocka_unit_test(the_three_forms_of_batchnorm_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
