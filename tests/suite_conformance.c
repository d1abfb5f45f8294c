/* ONNX's backend tests, all of them, through both engines: the folder of Debian's libonnx-testdata, and whatever
 * REGRAFT_NODE_TESTS names. A case passes, or stands with its reason in tests/conformance/known.txt. */
#include "tests/known_cases.h"

#include "runtime/runtime.h"

static KnownCases known;

static int read_known(void **state)
{
    (void)state;
    known_cases_read(&known);
    return 0;
}

static int drop_known(void **state)
{
    (void)state;
    arena_release(&known.arena);
    return 0;
}

static void run_all(const char *root, const char *version)
{
    char **folders;
    size_t count, counts[3] = {0, 0, 0}, planned = 0, unexpected = 0;
    Error err = {0};
    assert_ok(suite_list(root, &folders, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        SuiteResult result;
        assert_ok(suite_run(folders[i], &result, &err), &err);
        counts[result.outcome]++;
        planned += result.planned;
        const char *name = strrchr(folders[i], '/') + 1;
        if (result.outcome == SUITE_PASSED || known_cases_have(&known, name, version))
            continue;
        print_message("%s: %s\n", name, result.reason);
        unexpected++;
    }
    suite_list_free(folders, count);
    print_message("%s: %zu cases, %zu passed (%zu planned too), %zu differ, %zu unsupported\n", root, count,
                  counts[SUITE_PASSED], planned, counts[SUITE_DIFFERS], counts[SUITE_UNSUPPORTED]);
    assert_int_equal(unexpected, 0);
}

static void cases_of_the_installed_test_data_pass(void **state)
{
    (void)state;
    if (strlen(ONNX_TESTDATA) == 0) {
        print_message("skipped: libonnx-testdata is not installed\n");
        skip();
    }
    run_all(ONNX_TESTDATA, ONNX_TESTDATA_VERSION);
}

static void cases_of_the_named_folder_pass(void **state)
{
    (void)state;
    const char *root = getenv("REGRAFT_NODE_TESTS");
    if (root == NULL) {
        print_message("skipped: REGRAFT_NODE_TESTS names no folder of ONNX's backend node tests\n");
        skip();
    }
    run_all(root, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_of_the_installed_test_data_pass),
        cmocka_unit_test(cases_of_the_named_folder_pass),
    };
    return cmocka_run_group_tests(tests, read_known, drop_known);
}
