/* regraft run: one inference, or a folder of conformance cases. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "runtime/runtime.h"

enum { CASE_SECONDS = 120 };

typedef struct Fields {
    const char *suite;
    bool json;
} Fields;

static const Option options[] = {
    {OPTION("--suite", 0, TEXT, suite, "DIR", "run every case below DIR (ONNX backend test format) and compare")},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON: with --suite a line a case, then the counts")},
    {0}};

static const Usage usage = {
    .verb = "run",
    .arguments = "",
    .summary = "Runs every case of a folder in the format of ONNX's backend tests and says which differ.",
    .examples = {"regraft run --suite /usr/share/libonnx-testdata/data/node",
                 "regraft run --suite cases/test_conv_with_strides --json"},
    .options = options};

/* ---- a folder of cases --------------------------------------------------------------------------------- */

static const char *const outcome_names[] = {"passed", "differ", "unsupported"};

static void show_case(const char *folder, const SuiteResult *result, bool json)
{
    const char *slash = strrchr(folder, '/'), *name = slash == NULL ? folder : slash + 1;
    if (!json) {
        if (result->outcome != SUITE_PASSED)
            printf("%-11s %s: %s\n", outcome_names[result->outcome], name, result->reason);
        return;
    }
    Json line;
    json_begin(&line, "regraft.case/1");
    json_put_string(&line, "case", name);
    json_put_string(&line, "outcome", outcome_names[result->outcome]);
    json_put_bool(&line, "planned", result->planned);
    json_put_real(&line, "max_error", result->max_error);
    json_put_string(&line, "reason", result->reason);
    json_end(&line);
}

/* In a process of its own: a case that crashes or hangs is a result like another, and the rest still runs. */
static Status run_case(const char *folder, SuiteResult *result, Error *err)
{
    int ends[2];
    if (pipe(ends) != 0)
        return fail(err, STATUS_ENVIRONMENT, "no pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        alarm(CASE_SECONDS);
        Status status = suite_run(folder, result, err);
        bool told = status == STATUS_OK && write(ends[1], result, sizeof *result) == (ssize_t)sizeof *result;
        _exit(told ? 0 : 1);
    }
    close(ends[1]);
    int end = 0;
    bool whole = child > 0 && read(ends[0], result, sizeof *result) == (ssize_t)sizeof *result;
    close(ends[0]);
    if (child < 0)
        return fail(err, STATUS_ENVIRONMENT, "no process: %s", strerror(errno));
    while (waitpid(child, &end, 0) < 0 && errno == EINTR)
        ;
    if (whole)
        return STATUS_OK;
    *result = (SuiteResult){.outcome = SUITE_DIFFERS};
    if (WIFSIGNALED(end))
        snprintf(result->reason, sizeof result->reason, "ended by signal %d (%s)", WTERMSIG(end),
                 strsignal(WTERMSIG(end)));
    else
        snprintf(result->reason, sizeof result->reason, "ended without a result");
    return STATUS_OK;
}

static Status run_suite(const Fields *fields, Error *err)
{
    char **folders;
    size_t count, totals[3] = {0, 0, 0}, planned = 0;
    TRY(suite_list(fields->suite, &folders, &count, err));
    Status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        SuiteResult result;
        status = run_case(folders[i], &result, err);
        if (status != STATUS_OK)
            break;
        totals[result.outcome]++;
        planned += result.planned;
        show_case(folders[i], &result, fields->json);
        fflush(stdout);
    }
    suite_list_free(folders, count);
    TRY(status);
    if (fields->json)
        printf("{\"passed\":%zu,\"differ\":%zu,\"unsupported\":%zu}\n", totals[SUITE_PASSED], totals[SUITE_DIFFERS],
               totals[SUITE_UNSUPPORTED]);
    else
        printf("%zu cases: %zu passed (%zu of them planned too), %zu differ, %zu unsupported\n", count,
               totals[SUITE_PASSED], planned, totals[SUITE_DIFFERS], totals[SUITE_UNSUPPORTED]);
    return totals[SUITE_DIFFERS] > 0 ? fail(err, STATUS_DIFFERS, "%zu cases differ", totals[SUITE_DIFFERS]) : STATUS_OK;
}

Status cmd_run(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    if (fields.suite == NULL)
        return fail(err, STATUS_USAGE, "run needs --suite DIR");
    return run_suite(&fields, err);
}
