/* regraft run: one inference, or a folder of conformance cases. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/profile.h"
#include "cli/run.h"

enum { CASE_SECONDS = 120 };

typedef RunFields Fields;

typedef enum Engine { ENGINE_AUTO, ENGINE_PLAN, ENGINE_INTERPRETER } Engine;
static const char *const engine_names[] = {"auto", "plan", "interpreter", NULL};

static const Option options[] = {
    {OPTION("--input", 'i', TEXT, input, "FILE.npz", "arrays named as the model's inputs")},
    {OPTION("--output", 'o', TEXT, output, "FILE.npz", "where results go, named as the model's outputs")},
    {OPTION("--gradient", 0, LIST, gradients, "INPUT",
            "with the results: how the output's scores change with this float input, as INPUT.gradient")},
    {OPTION("--of", 0, TEXT, of, "OUTPUT", "which output --gradient is of; the first by default")},
    {OPTION("--class", 0, INT, klass, "N", "the score of this class; by default each sample's largest")},
    {OPTION("--loss", 0, TEXT, loss, "KIND",
            "--gradient is of this loss instead, with the targets `y` in the input file")},
    {OPTION("--ignore-index", 0, INT, ignore_index, "N", "class index that does not count in this loss")},
    {OPTION("--engine", 0, CHOICE, engine, "NAME", "auto plans what can be planned and interprets the rest"),
     .choices = engine_names},
    {OPTION("--seed", 0, INT, seed, "N", "for nodes that draw random numbers")},
    {OPTION("--threads", 0, INT, threads, "N", "threads of computation"), .positive = true},
    {OPTION("--profile", 0, FLAG, profile, NULL, "where the time went, by operator and by step")},
    {OPTION("--trace", 0, TEXT, trace, "FILE", "the run in Chrome's trace format, for Perfetto")},
    {OPTION("--suite", 0, TEXT, suite, "DIR", "run every case below DIR (ONNX backend test format) and compare")},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON; with --suite a line a case, then the counts")},
    {0}};

static const Usage usage = {
    .verb = "run",
    .arguments = "[MODEL]",
    .summary = "Runs a model once on arrays, every node doing what its attributes say; or runs a folder of conformance "
               "cases.",
    .examples = {"regraft run model.onnx --input x.npz --output y.npz", "regraft run model.onnx --input x.npz",
                 "regraft run model.onnx --input x.npz --output saliency.npz --gradient pixels",
                 "regraft run --suite /usr/share/libonnx-testdata/data/node"},
    .options = options,
    .maximum = 1,
    .notes =
        "Without --output a table of the results is printed. A float array is converted to the float type that the "
        "model declares, an integer array to its integer type; nothing else is converted."};

/* ---- one inference ---------------------------------------------------------------------------------------------- */

/* What the model declares, when the array is of the same kind: numpy's float64 for a float32 input. */
static Status fit_array(const Value *input, const Array *given, Arena *arena, const Array **fitted, Error *err)
{
    DType wanted = input->type.dtype;
    bool floats = dtype_is_float(wanted) && dtype_is_float(given->dtype);
    bool integers = dtype_is_integer(wanted) && dtype_is_integer(given->dtype);
    *fitted = given;
    if (wanted == given->dtype || (!floats && !integers))
        return STATUS_OK;
    Array *converted;
    TRY(array_convert(arena, given, wanted, &converted, err));
    *fitted = converted;
    return STATUS_OK;
}

static bool is_target(const Fields *fields, const char *name)
{
    return fields->loss != NULL && strcmp(name, "y") == 0;
}

static Status take_inputs(const Fields *fields, const Model *model, const Npz *npz, Arena *arena, const Array **inputs,
                          Error *err)
{
    const Graph *graph = model->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Array *given = npz_find(npz, graph->inputs[i]->name);
        if (given != NULL)
            TRY(fit_array(graph->inputs[i], given, arena, &inputs[i], err));
    }
    for (size_t i = 0; i < npz->count; i++) {
        const Value *value = graph_find(graph, npz->names[i]);
        if ((value == NULL || !value->is_input) && !is_target(fields, npz->names[i]))
            say_note("'%s' is no input of the model and was not used", npz->names[i]);
    }
    return STATUS_OK;
}

static Status run_engine(const Fields *fields, const Run *run, Array **outputs, Arena *arena, Error *err)
{
    if (fields->engine == ENGINE_INTERPRETER && (fields->profile || fields->trace != NULL))
        return fail(err, STATUS_USAGE, "--profile and --trace are of planned runs, not of --engine interpreter");
    if (fields->engine == ENGINE_INTERPRETER)
        return run_interpreted(run, outputs, arena, (uint64_t)fields->seed, err);
    Str table, trace;
    Run told = *run;
    str_init(&table);
    str_init(&trace);
    told.profile = fields->profile ? &table : NULL;
    told.trace = fields->trace != NULL ? &trace : NULL;
    Status status = run_planned(&told, outputs, arena, (uint64_t)fields->seed, err);
    if (status == STATUS_OK)
        status = profile_write(&table, &trace, fields->trace, err);
    str_release(&table);
    str_release(&trace);
    if (status != STATUS_UNSUPPORTED || fields->engine == ENGINE_PLAN)
        return status;
    Error why = *err;
    error_clear(err);
    status = run_interpreted(run, outputs, arena, (uint64_t)fields->seed, err);
    if (status == STATUS_OK || strcmp(why.message, err->message) != 0) /* what stops both is said once */
        say_note("interpreted: %s", why.message);
    return status;
}

typedef struct Range {
    double least, mean, most;
} Range;

static Range range_of(const Array *array)
{
    Range range = {INFINITY, 0, -INFINITY};
    for (int64_t i = 0; i < array->count; i++) {
        double x = array_f64_at(array, i);
        range.least = fmin(range.least, x);
        range.most = fmax(range.most, x);
        range.mean += x / (double)array->count;
    }
    return range;
}

static bool has_numbers(const Array *array)
{
    return array->kind == ARRAY_TENSOR && array->dtype != DTYPE_STRING && array->count > 0;
}

static const char *array_text(Arena *arena, const Array *array)
{
    if (array->kind != ARRAY_TENSOR)
        return arena_printf(arena, "%s of %zu", array->kind == ARRAY_SEQUENCE ? "sequence" : "optional",
                            array->item_count);
    return arena_printf(arena, "%s%s", dtype_name(array->dtype), dims_text(arena, array->rank, array->dims));
}

static void show_table(const char *const *names, Array *const *outputs, size_t count, Arena *arena)
{
    Table table;
    table_init(&table, "llrrr");
    table_head(&table, (const char *const[]){"output", "type", "least", "mean", "most"});
    for (size_t i = 0; i < count; i++) {
        table_cell(&table, STYLE_PLAIN, "%s", names[i]);
        table_cell(&table, STYLE_PLAIN, "%s", array_text(arena, outputs[i]));
        Range range = has_numbers(outputs[i]) ? range_of(outputs[i]) : (Range){0};
        const double numbers[3] = {range.least, range.mean, range.most};
        for (int k = 0; k < 3; k++)
            table_cell(&table, STYLE_PLAIN, has_numbers(outputs[i]) ? "%.6g" : "-", numbers[k]);
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void show_json(const char *const *names, Array *const *outputs, size_t count, Arena *arena)
{
    Json json;
    json_begin(&json, "regraft.run/1");
    json_put_open(&json, "outputs", '[');
    for (size_t i = 0; i < count; i++) {
        json_open(&json, '{');
        json_put_string(&json, "name", names[i]);
        json_put_string(&json, "type", array_text(arena, outputs[i]));
        if (has_numbers(outputs[i])) {
            Range range = range_of(outputs[i]);
            json_put_real(&json, "least", range.least);
            json_put_real(&json, "mean", range.mean);
            json_put_real(&json, "most", range.most);
        }
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_end(&json);
}

static Status give_outputs(const Fields *fields, const Graph *graph, Array *const *outputs, Array *const *gradients,
                           Arena *arena, Error *err)
{
    size_t count = graph->output_count + fields->gradients.count;
    const char **names = arena_array(arena, const char *, count);
    Array **all = arena_array(arena, Array *, count);
    for (size_t i = 0; i < count; i++) {
        size_t k = i - graph->output_count;
        bool own = i < graph->output_count;
        names[i] = own ? graph->outputs[i]->name : arena_printf(arena, "%s.gradient", fields->gradients.items[k]);
        all[i] = own ? outputs[i] : gradients[k];
    }
    if (fields->json)
        show_json(names, all, count, arena);
    if (fields->output == NULL) {
        if (!fields->json)
            show_table(names, all, count, arena);
        return STATUS_OK;
    }
    for (size_t i = 0; i < graph->output_count; i++) {
        if (outputs[i]->kind != ARRAY_TENSOR)
            return fail(err, STATUS_UNSUPPORTED, "output '%s' is a %s, which .npz cannot hold", names[i],
                        array_text(arena, outputs[i]));
    }
    return npz_write(fields->output, names, (const Array *const *)all, count, err);
}

static Status run_on_arrays(const Fields *fields, Model *model, const Npz *npz, Arena *arena, Error *err)
{
    const Graph *graph = model->graph;
    const Array **inputs = arena_array(arena, const Array *, graph->input_count);
    Array **outputs = arena_array(arena, Array *, graph->output_count);
    TRY(take_inputs(fields, model, npz, arena, inputs, err));
    Array **gradients = arena_array(arena, Array *, fields->gradients.count + 1);
    Run run = {0};
    TRY(run_check_gradient(fields, graph, err));
    Status status = run_build(&run, model, inputs, err);
    if (status == STATUS_OK)
        status = run_engine(fields, &run, outputs, arena, err);
    if (status == STATUS_OK)
        status = run_gradient(fields, model, npz, inputs, outputs, gradients, arena, err);
    if (status == STATUS_OK)
        status = give_outputs(fields, graph, outputs, gradients, arena, err);
    model_free(run.working);
    return status;
}

/* The arrays have another first dim than the file says, or it says none. */
static bool other_batch(const Model *model, const Npz *npz)
{
    for (size_t i = 0; i < model->graph->input_count; i++) {
        const Type *type = &model->graph->inputs[i]->type;
        const Array *array = npz->count > 0 ? npz_find(npz, model->graph->inputs[i]->name) : NULL;
        if (array != NULL && array->rank > 0 && type->rank > 0 && type->dims[0] != array->dims[0])
            return true;
    }
    return false;
}

static Status run_model(const Fields *fields, const char *path, Error *err)
{
    if (fields->output != NULL &&
        (file_same(fields->output, path) || (fields->input != NULL && file_same(fields->output, fields->input))))
        return fail(err, STATUS_USAGE, "%s: is an input; write to another name", fields->output);
    Model *model = NULL;
    Npz npz = {0};
    Arena arena;
    arena_init(&arena);
    Status status;
    TRY_DONE(model_import(path, &builtin_ops, &model, err));
    if (fields->input != NULL)
        TRY_DONE(npz_open(&npz, fields->input, err));
    if (other_batch(model, &npz))
        TRY_DONE(document_free_batch(model, NULL, err));
    status = run_on_arrays(fields, model, &npz, &arena, err);
done:
    model_free(model);
    npz_release(&npz);
    arena_release(&arena);
    return status;
}

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
    Str line; /* one line a case, to be read while the suite runs */
    str_init(&line);
    str_append(&line, "{\"case\":");
    str_append_json(&line, name);
    str_printf(&line,
               ",\"outcome\":\"%s\",\"planned\":%s,\"max_error\":%.6g,\"reason\":", outcome_names[result->outcome],
               result->planned ? "true" : "false", isfinite(result->max_error) ? result->max_error : 0.0);
    str_append_json(&line, result->reason);
    printf("%s}\n", line.text);
    str_release(&line);
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
    Fields fields = {.klass = -1, .ignore_index = -100};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    runtime_set_threads((int)fields.threads);
    if ((args.count == 1) == (fields.suite != NULL))
        return fail(err, STATUS_USAGE, "run wants a MODEL or --suite DIR");
    return fields.suite != NULL ? run_suite(&fields, err) : run_model(&fields, args.items[0], err);
}
