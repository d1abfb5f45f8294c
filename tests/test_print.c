/* The text form: what is printed parses to the same text again; what is wrong is named with its line. */
#include "tests/test.h"

#include <string.h>

#include "onnx/onnx.h"
#include "onnx/op.h"

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, NULL, &model, &err), &err);
    assert_ok(model_check(model, &err), &err);
    return model;
}

/* Prints, parses, prints: both prints agree; the first is returned for a closer look (the caller releases it). */
static Str round_trip(const char *text)
{
    Str first, second;
    str_init(&first);
    str_init(&second);
    Model *model = parse(text);
    model_print(model, &first);
    model_free(model);
    model = parse(first.text);
    model_print(model, &second);
    model_free(model);
    assert_string_equal(first.text, second.text);
    str_release(&second);
    return first;
}

static void a_small_model_prints_as_it_was_written(void **state)
{
    (void)state;
    const char *text = "<\n    ir_version: 8,\n    opset_import: [\"\" : 17, \"com.microsoft\" : 1],\n"
                       "    producer_name: \"hand\",\n    model_version: 3,\n    metadata_props: [\"k\" : \"v\"]\n>\n"
                       "g (float[batch,3] x) => (float[batch,2] y) <\n"
                       "    float[3,2] w = {1.0, 2.0, 3.0, 4.0, 5.0, -6.5},\n"
                       "    float[batch,2] h\n"
                       ">\n"
                       "{\n"
                       "    [\"/fc/Gemm\"] h = Gemm <transB = 0, alpha = 2.0> (x, w)\n"
                       "    y = com.microsoft.Gelu (h)\n"
                       "}\n";
    Str printed = round_trip(text);
    assert_string_equal(printed.text, text);
    str_release(&printed);
}

static void every_attribute_type_survives(void **state)
{
    (void)state;
    Str printed =
        round_trip("g (float[2] x, bool c) => (y) {\n"
                   "  a = A <i = -3, f = 1.5, s = \"a\\\"b\\n\", is = [1, 2], fs = [1.0, 2.5], ss = [\"p\", \"q\"],\n"
                   "    t = int64[2] {1, 2}, tt = [float {1.0}, float[1] named {2.0}], none: ints = [],\n"
                   "    r: float = @alpha, tp: type_proto = \"\\x0a\\x02\"> (x, \"\", x)\n"
                   "  y = If <then_branch = th () => (float[2] u) { u = Add (a, x) },\n"
                   "          else_branch = el () => (a) {}> (c)\n"
                   "}");
    assert_non_null(strstr(printed.text, "then_branch = th () => (float[2] u) {"));
    assert_non_null(strstr(printed.text, "none: ints = []"));
    str_release(&printed);
}

static void every_element_type_survives(void **state)
{
    (void)state;
    for (int i = 1; i < DTYPE_COUNT; i++) {
        char text[200];
        const char *values = i == DTYPE_STRING                   ? "\"a\", \"\""
                             : i == DTYPE_C64 || i == DTYPE_C128 ? "1, 2, 3, -1"
                                                                 : "1, 0";
        snprintf(text, sizeof text, "g (%s[2] x) => (%s[2] y) <%s[2] w = {%s}> { y = Add (x, w) }",
                 dtype_name((DType)i), dtype_name((DType)i), dtype_name((DType)i), values);
        Str printed = round_trip(text);
        str_release(&printed);
    }
}

static void floats_survive_to_the_last_bit(void **state)
{
    (void)state;
    Model *model = parse("g () => (float[3] w) <float[3] w = {0.1, 3.4028235e38, nan}> {}");
    Str printed;
    str_init(&printed);
    model_print(model, &printed);
    Model *again = parse(printed.text);
    assert_true(tensor_equal(graph_find(model->graph, "w")->constant, graph_find(again->graph, "w")->constant));
    str_release(&printed);
    model_free(model);
    model_free(again);
}

static void large_tensors_print_as_a_hash_and_dots_repeat_the_last_element(void **state)
{
    (void)state;
    Model *model = parse("g (float[2,20] x) => (y) <float[2,20] w = {1, 0.5, ...}> { y = Add (x, w) }");
    const Tensor *w = graph_find(model->graph, "w")->constant;
    assert_true(tensor_f64_at(w, 0) == 1 && tensor_f64_at(w, 1) == 0.5 && tensor_f64_at(w, 39) == 0.5);
    Str printed;
    str_init(&printed);
    graph_print(model->graph, &printed);
    assert_non_null(strstr(printed.text, "float[2,20] w = {... "));
    Model *again = parse(printed.text);
    model_free(again);
    str_release(&printed);
    model_free(model);
}

static void other_kinds_of_types_survive(void **state)
{
    (void)state;
    Str printed =
        round_trip("g (seq(float[N,?]) s, optional(int64) o, float[] u, double z, float[\"a b\"] q) => (y) {\n"
                   "  y = ai.regraft.Thing (s, o, u, z, q) # a remark\n}");
    assert_non_null(
        strstr(printed.text, "(seq(float[N,?]) s, optional(int64) o, float[] u, double z, float[\"a b\"] q)"));
    str_release(&printed);
}

static void functions_survive(void **state)
{
    (void)state;
    Str printed = round_trip("<ir_version: 10, opset_import: [\"\" : 20, \"local\" : 1]>\n"
                             "g (float[2] x) => (float[2] y) { y = local.f:fast <alpha = 2.0> (x) }\n"
                             "<domain: \"local\", overload: \"fast\", opset_import: [\"\" : 20]>\n"
                             "f <alpha, beta: float = 1.0> (a) => (b) { b = LeakyRelu <alpha: float = @alpha> (a) }\n");
    assert_non_null(strstr(printed.text, "f <alpha, beta = 1.0> (a) => (b) {"));
    str_release(&printed);
}

static void expect_message(const char *text, const char *message)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_int_equal(model_parse(text, NULL, &model, &err), STATUS_REJECTED);
    assert_null(model);
    assert_string_equal(err.message, message);
}

static void mistakes_are_named_with_their_line(void **state)
{
    (void)state;
    expect_message("g (float x) => (y) {\n y = Relu (z)\n}", "line 3: read but defined nowhere: 'z'");
    expect_message("g (float x) => (y) {\n y = Relu (x)\n y = Relu (x)\n}", "line 3: defined twice: 'y'");
    expect_message("g (flout x) => (y) { y = Relu (x) }", "line 1: unknown element type 'flout'");
    expect_message("g (float x) = (y) { y = Relu (x) }", "line 1: '=>' expected, found '= (y) { y = Relu (x) }'");
    expect_message("g () => (float[2] w) <float[2] w = {1}> {}", "line 1: fewer elements than the shape has");
    expect_message("g (float x) => (y) { y = Relu <a = []> (x) }",
                   "line 1: an empty list needs a type, as in `a: ints = []`: attribute 'a'");
    expect_message("<ir_version: 8, colour: 1>\ng () => () {}", "line 1: unknown field 'colour'");
    expect_message("g (float x) => (y) { y = Relu (x)", "line 1: '=' expected, found 'the end'");
}

static void cut_off_text_never_parses(void **state)
{
    (void)state;
    const char *text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[b,3] x) => (y) <float[2] w = {1, 2}> "
                       "{ [n] y = If <a = 1, t = float[1] {2}, g = h () => (u) { u = Relu (x) }> (x, w) }";
    for (size_t n = 0; n < strlen(text); n++) {
        char part[300];
        memcpy(part, text, n);
        part[n] = '\0';
        Model *model = NULL;
        assert_int_equal(model_parse(part, NULL, &model, NULL), STATUS_REJECTED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_model_prints_as_it_was_written),
        cmocka_unit_test(every_attribute_type_survives),
        cmocka_unit_test(every_element_type_survives),
        cmocka_unit_test(floats_survive_to_the_last_bit),
        cmocka_unit_test(large_tensors_print_as_a_hash_and_dots_repeat_the_last_element),
        cmocka_unit_test(other_kinds_of_types_survive),
        cmocka_unit_test(functions_survive),
        cmocka_unit_test(mistakes_are_named_with_their_line),
        cmocka_unit_test(cut_off_text_never_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
