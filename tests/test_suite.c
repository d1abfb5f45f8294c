/* runtime/suite and runtime/run: cases in the format of ONNX's backend tests, made here, and what is said of them. */
#include "tests/test.h"

#include <math.h>
#include <sys/stat.h>

#include "runtime/runtime.h"
#include "tests/wire_build.h"

typedef struct Place {
    char root[64];
    Arena arena;
} Place;

static const char *in(Place *place, const char *name)
{
    return arena_printf(&place->arena, "%s/%s", place->root, name);
}

static int set_up(void **state)
{
    static Place place;
    arena_init(&place.arena);
    snprintf(place.root, sizeof place.root, "/tmp/regraft-suite-XXXXXX");
    assert_non_null(mkdtemp(place.root));
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    Place *place = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", place->root);
    arena_release(&place->arena);
    return system(command);
}

static void write_str(const char *path, Str *bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->text, 1, bytes->length, file), bytes->length);
    fclose(file);
    str_clear(bytes);
}

/* A case of one operator on x[2]; `expected` for y[2]. */
static const char *make_case(Place *place, const char *name, const char *op, const float *x, const float *expected)
{
    const char *folder = in(place, name);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mkdir(arena_printf(&place->arena, "%s/test_data_set_0", folder), 0700), 0);
    Str model, graph;
    str_init(&model), str_init(&graph);
    wire_info(&graph, GRAPH_INPUT, "x", 2);
    wire_info(&graph, GRAPH_OUTPUT, "y", 2);
    wire_node(&graph, op, "x", "y");
    wire_model(&model, &graph);
    write_str(arena_printf(&place->arena, "%s/model.onnx", folder), &model);
    const float *const values[2] = {x, expected};
    const char *const files[2] = {"input_0.pb", "output_0.pb"};
    for (int i = 0; i < 2; i++) {
        wire_int(&model, TENSOR_DIMS, 2);
        wire_int(&model, TENSOR_TYPE, 1);
        wire_bytes(&model, TENSOR_RAW, values[i], 2 * sizeof(float));
        write_str(arena_printf(&place->arena, "%s/test_data_set_0/%s", folder, files[i]), &model);
    }
    str_release(&model), str_release(&graph);
    return folder;
}

static void a_case_passes_in_both_engines(void **state)
{
    SuiteResult result;
    Error err = {0};
    const char *folder = make_case(*state, "relu", "Relu", (float[]){-1, 2}, (float[]){0, 2});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_string_equal(result.reason, "");
    assert_int_equal(result.outcome, SUITE_PASSED);
    assert_true(result.planned);
}

static void a_difference_is_located(void **state)
{
    SuiteResult result;
    Error err = {0};
    const char *folder = make_case(*state, "wrong", "Relu", (float[]){-1, 2}, (float[]){0, 2.5f});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
    assert_string_equal(result.reason,
                        "interpreter: output 0 'y' 1 of 2 elements differ, most at 1: 2.5 expected, found 2");
    assert_true(fabs(result.max_error - 0.5) < 1e-6);
}

static void tolerance_is_that_of_the_case(void **state)
{
    Place *place = *state;
    SuiteResult result;
    Error err = {0};
    const char *folder = make_case(place, "loose", "Relu", (float[]){-1, 2}, (float[]){0, 2.001f});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_PASSED); /* 1e-3 relative by default */
    assert_ok(file_write_text(arena_printf(&place->arena, "%s/tolerance.json", folder),
                              "{\"rtol\": 1e-5, \"atol\": 1e-7}", &err),
              &err);
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
}

static void nan_equals_nan_and_infinities_keep_their_sign(void **state)
{
    SuiteResult result;
    Error err = {0};
    const char *folder = make_case(*state, "nan", "Abs", (float[]){NAN, -INFINITY}, (float[]){NAN, INFINITY});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_PASSED);
    folder = make_case(*state, "infinity", "Identity", (float[]){1, -INFINITY}, (float[]){1, INFINITY});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
}

static void an_unknown_operator_is_unsupported_by_name(void **state)
{
    SuiteResult result;
    Error err = {0};
    const char *folder = make_case(*state, "unknown", "NoSuchThing", (float[]){1, 2}, (float[]){1, 2});
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_UNSUPPORTED);
    assert_non_null(strstr(result.reason, "NoSuchThing"));
    assert_non_null(strstr(result.reason, "17"));
}

/* A case must not pass by comparing nothing. */
static void what_is_missing_or_left_over_differs(void **state)
{
    Place *place = *state;
    const float x[2] = {-1, 2}, y[2] = {0, 2};
    const char *folder = make_case(place, "gone", "Relu", x, y);
    const char *set = arena_printf(&place->arena, "%s/test_data_set_0", folder);
    SuiteResult result;
    Error err = {0};
    assert_int_equal(
        rename(arena_printf(&place->arena, "%s/output_0.pb", set), arena_printf(&place->arena, "%s/output_1.pb", set)),
        0);
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
    assert_string_equal(result.reason, "test_data_set_0 expects nothing of output 0 'y'");

    folder = make_case(place, "more", "Relu", x, y);
    set = arena_printf(&place->arena, "%s/test_data_set_0", folder);
    assert_ok(file_write_text(arena_printf(&place->arena, "%s/input_1.pb", set), "", &err), &err);
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
    assert_string_equal(result.reason, "test_data_set_0 holds 2 files input_*, 1 of them belong to the model");

    folder = make_case(place, "gap", "Relu", x, y);
    assert_int_equal(mkdir(arena_printf(&place->arena, "%s/test_data_set_2", folder), 0700), 0);
    assert_ok(suite_run(folder, &result, &err), &err);
    assert_int_equal(result.outcome, SUITE_DIFFERS);
    assert_string_equal(result.reason, "test_data_set_1 is missing between others");
}

static void cases_are_found_below_a_folder_in_order(void **state)
{
    Place *place = *state;
    const float x[2] = {1, 2};
    make_case(place, "b", "Relu", x, x);
    make_case(place, "a", "Relu", x, x);
    assert_int_equal(mkdir(in(place, "empty"), 0700), 0);
    char **folders;
    size_t count;
    Error err = {0};
    assert_ok(suite_list(place->root, &folders, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_string_equal(strrchr(folders[0], '/'), "/a");
    suite_list_free(folders, count);
    assert_int_equal(suite_list(in(place, "empty"), &folders, &count, &err), STATUS_REJECTED);
    SuiteResult result;
    Error other = {0};
    assert_int_equal(suite_run(in(place, "empty"), &result, &other), STATUS_REJECTED);
}

/* ---- run ------------------------------------------------------------------------------------------------------- */

/* y = x + w with w an initializer that is an input too. */
static Model *sum_model(void)
{
    Str bytes, graph, node;
    str_init(&bytes), str_init(&graph), str_init(&node);
    wire_info(&graph, GRAPH_INPUT, "x", 2);
    wire_info(&graph, GRAPH_INPUT, "w", 2);
    wire_info(&graph, GRAPH_OUTPUT, "y", 2);
    wire_tensor(&graph, GRAPH_INITIALIZER, "w", 2, (float[]){10, 20});
    wire_text(&node, NODE_INPUT, "x");
    wire_text(&node, NODE_INPUT, "w");
    wire_text(&node, NODE_OUTPUT, "y");
    wire_text(&node, NODE_OP, "Add");
    wire_message(&graph, GRAPH_NODE, &node);
    wire_model(&bytes, &graph);
    Model *model;
    Error err = {0};
    assert_ok(model_import_bytes(bytes.text, bytes.length, "sum", &builtin_ops, &model, &err), &err);
    str_release(&bytes), str_release(&graph), str_release(&node);
    return model;
}

static void check_sum(const float *w, float first)
{
    Arena arena;
    arena_init(&arena);
    float x_data[2] = {1, 2}, w_data[2] = {0, 0};
    if (w != NULL)
        memcpy(w_data, w, sizeof w_data);
    Array x = {.dtype = DTYPE_F32, .rank = 1, .dims = {2}, .count = 2, .data = x_data}, given = x;
    given.data = w_data;
    const Array *inputs[2] = {&x, w != NULL ? &given : NULL};
    for (int planned = 0; planned < 2; planned++) {
        Model *model = sum_model();
        Run run;
        Error err = {0};
        Array *y = NULL;
        assert_ok(run_build(&run, model, inputs, &err), &err);
        assert_ok((planned ? run_planned : run_interpreted)(&run, &y, &arena, 0, &err), &err);
        assert_true(array_f64_at(y, 0) == (double)first);
        model_free(run.working);
        model_free(model);
    }
    arena_release(&arena);
}

static void an_initializer_that_is_an_input_may_be_given(void **state)
{
    (void)state;
    check_sum(NULL, 11);
    check_sum((float[]){100, 200}, 101);
}

static void missing_and_mistyped_inputs_are_named(void **state)
{
    (void)state;
    Model *model = sum_model();
    Run run;
    Error err = {0};
    const Array *none[2] = {NULL, NULL};
    assert_int_equal(run_build(&run, model, none, &err), STATUS_USAGE);
    assert_string_equal(err.message, "no value given for the input 'x'");
    int64_t whole[2] = {1, 2};
    Array x = {.dtype = DTYPE_I64, .rank = 1, .dims = {2}, .count = 2, .data = whole};
    memset(&err, 0, sizeof err);
    assert_int_equal(run_build(&run, model, (const Array *[]){&x, NULL}, &err), STATUS_USAGE);
    assert_string_equal(err.message, "input 'x' is float32, found int64");
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_case_passes_in_both_engines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_difference_is_located, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tolerance_is_that_of_the_case, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nan_equals_nan_and_infinities_keep_their_sign, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_unknown_operator_is_unsupported_by_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_missing_or_left_over_differs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cases_are_found_below_a_folder_in_order, set_up, tear_down),
        cmocka_unit_test(an_initializer_that_is_an_input_may_be_given),
        cmocka_unit_test(missing_and_mistyped_inputs_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
