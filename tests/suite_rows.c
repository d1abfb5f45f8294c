/* Every operator row is tested: it has a case among ONNX's backend tests (tests/conformance/cases.txt), or a gradient
 * case (cases_<family>.c), or says why it has none (OpDef.no_case). With REGRAFT_NODE_TESTS naming a folder of those
 * tests, the listed cases are run as well. */
#include "tests/test.h"

#include <ctype.h>
#include <unistd.h>

#include "runtime/runtime.h"
#include "tests/gradient_cases.h"
#include "tests/known_cases.h"

static const GradientCase *const families[] = {
    cases_activation, cases_arith,  cases_attention, cases_cast,     cases_control, cases_conv,   cases_generate,
    cases_index,      cases_join,   cases_logic,     cases_math,     cases_matmul,  cases_norm,   cases_pool,
    cases_recurrent,  cases_reduce, cases_resize,    cases_sequence, cases_shape,   cases_signal, cases_softmax};

typedef struct Index {
    Arena arena;
    Map lines; /* "Conv" or "ai.onnx.ml.LabelEncoder" -> names of cases, separated by blanks */
} Index;

static Index listed;

/* ---- the index --------------------------------------------------------------------------------------------- */

static void read_line(char *line)
{
    char *blank = strchr(line, ' ');
    if (line[0] == '#' || blank == NULL)
        return;
    *blank = '\0';
    map_set(&listed.lines, line, blank + 1);
}

static int read_index(void **state)
{
    (void)state;
    arena_init(&listed.arena);
    map_init(&listed.lines);
    Mapping file;
    Error err = {0};
    assert_ok(mapping_open(&file, TESTS_FOLDER "/conformance/cases.txt", &err), &err);
    char *text = arena_strndup(&listed.arena, (const char *)file.data, file.size);
    mapping_release(&file);
    for (char *end; *text != '\0'; text = end + 1) {
        end = strchr(text, '\n');
        assert_non_null(end);
        *end = '\0';
        read_line(text);
    }
    return 0;
}

static int drop_index(void **state)
{
    (void)state;
    map_release(&listed.lines);
    arena_release(&listed.arena);
    return 0;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static const char *row_key(const OpDef *row)
{
    bool default_domain = row->domain == NULL || row->domain[0] == '\0';
    return default_domain ? row->name : arena_printf(&listed.arena, "%s.%s", row->domain, row->name);
}

/* Whether the text applies the operator: its name as a whole word before `(` or `<`. */
static bool applies(const char *nodes, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = nodes; p != NULL && (p = strstr(p, name)) != NULL; p += length) {
        bool starts = p == nodes || !(isalnum((unsigned char)p[-1]) || p[-1] == '_');
        if (starts && (p[length] == '(' || p[length] == '<' || p[length] == ' '))
            return true;
    }
    return false;
}

/* A row with a gradient or a planned kernel that no gradient case reaches, also by way of autodiff, fails
 * suite_gradients: so it has one. */
static bool has_gradient_case(const OpDef *row)
{
    if (row->grad != NULL || row->prepare != NULL)
        return true;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const GradientCase *c = families[f]; c->name != NULL; c++)
            if (applies(c->nodes, row->name))
                return true;
    return false;
}

static void every_row_has_a_case_or_says_why_not(void **state)
{
    (void)state;
    int rows = 0, untested = 0;
    for (size_t f = 0; f < builtin_ops.count; f++)
        for (const OpDef *row = builtin_ops.families[f]; row->name != NULL; row++) {
            rows++;
            bool tested = map_has(&listed.lines, row_key(row)) || has_gradient_case(row) || row->no_case != NULL;
            if (!tested)
                print_message("%s: no conformance case, no gradient case, no reason\n", row_key(row));
            untested += !tested;
        }
    print_message("%d rows\n", rows);
    assert_int_equal(untested, 0);
}

/* A name that has left the table must leave the list. */
static void every_listed_operator_is_in_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < listed.lines.count; i++) {
        const char *key = listed.lines.entries[i].key, *dot = strrchr(key, '.');
        const char *domain = dot == NULL ? "" : arena_strndup(&listed.arena, key, (size_t)(dot - key));
        if (opset_find_any(&builtin_ops, domain, dot == NULL ? key : dot + 1) == NULL)
            fail_msg("%s is listed and has no row", key);
    }
}

static void every_row_knows_what_it_may_be_asked(void **state)
{
    (void)state;
    for (size_t f = 0; f < builtin_ops.count; f++)
        for (const OpDef *row = builtin_ops.families[f]; row->name != NULL; row++) {
            bool ordered = row->since <= row->last && row->min_inputs >= 0 && row->min_outputs >= 0;
            bool counts = (row->max_inputs == -1 || row->max_inputs >= row->min_inputs) &&
                          (row->max_outputs == -1 || row->max_outputs >= row->min_outputs);
            if (!ordered || !counts)
                fail_msg("%s: versions or counts are out of order", row_key(row));
            bool does = row->eval != NULL || row->expand != NULL || row->prepare != NULL || row->upgrade != NULL;
            if (!does)
                fail_msg("%s: nothing can run it", row_key(row));
            for (const OpDef *other = builtin_ops.families[f]; other != row; other++)
                if (strcmp(row_key(other), row_key(row)) == 0 && other->since <= row->last && row->since <= other->last)
                    fail_msg("%s: two rows for one version", row_key(row));
        }
}

/* The folder of a case in the first place that has it; NULL: in none. */
static const char *find_case(const char *name, size_t length)
{
    const char *named = getenv("REGRAFT_NODE_TESTS");
    const char *const roots[] = {named == NULL ? "" : named, ONNX_TESTDATA "/node", ONNX_TESTDATA "/simple"};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        const char *folder = arena_printf(&listed.arena, "%s/%.*s", roots[i], (int)length, name);
        if (access(folder, F_OK) == 0)
            return folder;
    }
    return NULL;
}

static void listed_cases_pass(void **state)
{
    (void)state;
    KnownCases known;
    known_cases_read(&known);
    int run = 0, failed = 0;
    for (size_t i = 0; i < listed.lines.count; i++) {
        const char *names = listed.lines.entries[i].value;
        for (const char *p = names; *p != '\0'; p += strspn(p, " ")) {
            size_t length = strcspn(p, " ");
            const char *folder = find_case(p, length);
            bool installed = folder != NULL && text_starts(folder, ONNX_TESTDATA "/");
            p += length;
            SuiteResult result;
            Error err = {0};
            if (folder == NULL)
                continue;
            assert_ok(suite_run(folder, &result, &err), &err);
            run++;
            if (result.outcome == SUITE_PASSED ||
                known_cases_have(&known, strrchr(folder, '/') + 1, installed ? ONNX_TESTDATA_VERSION : ""))
                continue;
            print_message("%s: %s\n", folder, result.reason);
            failed++;
        }
    }
    if (run == 0) {
        print_message("skipped: neither libonnx-testdata nor REGRAFT_NODE_TESTS is there\n");
        skip();
    }
    arena_release(&known.arena);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_a_case_or_says_why_not),
        cmocka_unit_test(every_listed_operator_is_in_the_table),
        cmocka_unit_test(every_row_knows_what_it_may_be_asked),
        cmocka_unit_test(listed_cases_pass),
    };
    return cmocka_run_group_tests(tests, read_index, drop_index);
}
