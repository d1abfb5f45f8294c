/* regraft check: what will run, what will train, what stops it, what is silently odd. Nothing is run. */
#include "cli/args.h"
#include "cli/check.h"
#include "cli/print.h"

#include <stdarg.h>
#include <stdlib.h>

typedef struct Fields {
    TextList train, dims;
    int64_t batch;
    bool json, run_only;
} Fields;

static const Option options[] = {{OPTION("--train", 't', LIST, train, "PATTERN",
                                         "check training of these parameters: head, all, last:N, a glob ...; default: "
                                         "all that are not marked as frozen"),
                                  .commas = true},
                                 {OPTION("--run-only", 0, FLAG, run_only, NULL, "check inference alone")},
                                 {OPTION("--batch", 0, INT, batch, "N", "batch size to check with"), .positive = true},
                                 {OPTION("--dim", 0, LIST, dims, "NAME=N", "value of a symbolic dim; repeat it")},
                                 {OPTION("--json", 0, FLAG, json, NULL, "print JSON (regraft.check/1)")},
                                 {0}};

static const Usage usage = {.verb = "check",
                            .arguments = "MODEL",
                            .summary =
                                "Says before anything runs whether a model will run and train, what stops it (node, "
                                "operator, opset, reason) and what "
                                "will be silently odd. Every finding has a code that docs/check-codes.md explains.",
                            .examples = {"regraft check model.onnx", "regraft check model.onnx --train head",
                                         "regraft check bert.onnx --dim seq=128 --json"},
                            .options = options,
                            .minimum = 1,
                            .maximum = 1,
                            .notes = "Exit code 4 when something stops it, 0 otherwise, with or without warnings."};

const CodeInfo code_infos[CODE_COUNT] = {
    [CODE_UNKNOWN_OPERATOR] = {"E01", "unknown-operator", LEVEL_ERROR},
    [CODE_OPSET] = {"E02", "opset-too-new", LEVEL_ERROR},
    [CODE_CANNOT_RUN] = {"E03", "cannot-run", LEVEL_ERROR},
    [CODE_NO_GRADIENT] = {"E04", "no-gradient", LEVEL_ERROR},
    [CODE_NOTHING_TRAINS] = {"E05", "nothing-trains", LEVEL_ERROR},
    [CODE_SHAPES] = {"E06", "shapes-do-not-fit", LEVEL_ERROR},
    [CODE_DATA_DEPENDENT] = {"E07", "data-dependent-shape", LEVEL_ERROR},
    [CODE_BUILD] = {"E08", "cannot-be-built", LEVEL_ERROR},
    [CODE_BATCHNORM_FOLDED] = {"W01", "batchnorm-folded", LEVEL_WARNING},
    [CODE_BATCHNORM_LIVE] = {"W02", "batchnorm-live", LEVEL_WARNING},
    [CODE_DROPOUT_LIVE] = {"W03", "dropout-live", LEVEL_WARNING},
    [CODE_TIED] = {"W04", "tied", LEVEL_INFO},
    [CODE_UNTIED] = {"W05", "untied", LEVEL_INFO},
    [CODE_FOLDED_TABLE] = {"W06", "folded-table", LEVEL_WARNING},
    [CODE_BAKED_BATCH] = {"W07", "baked-batch", LEVEL_WARNING},
    [CODE_FIXED_BATCH] = {"W08", "fixed-batch", LEVEL_INFO},
    [CODE_PREPROCESSING] = {"W09", "preprocessing-inside", LEVEL_WARNING},
    [CODE_HEAD_UNCLEAR] = {"W10", "head-unclear", LEVEL_WARNING},
    [CODE_UNREACHED] = {"W11", "unreached", LEVEL_WARNING},
    [CODE_RANDOM] = {"W12", "random", LEVEL_WARNING},
    [CODE_NO_BIAS] = {"W13", "no-bias", LEVEL_INFO},
    [CODE_INTERPRETED] = {"W14", "interpreted", LEVEL_INFO},
    [CODE_FROZEN_MARKS] = {"W15", "frozen-marks", LEVEL_INFO},
    [CODE_FUNCTIONS] = {"W16", "functions", LEVEL_INFO},
    [CODE_INPUT_INITIALIZERS] = {"W17", "input-initializers", LEVEL_INFO},
    [CODE_LOCAL_PATHS] = {"W18", "local-paths", LEVEL_INFO},
};

/* ---- findings ------------------------------------------------------------------------------------------ */

static bool listed(const Check *check, Code code, const char *node)
{
    for (size_t i = 0; i < check->count && node != NULL; i++)
        if (check->findings[i].code == code && check->findings[i].node != NULL &&
            strcmp(check->findings[i].node, node) == 0)
            return true;
    return false;
}

void check_add(Check *check, Code code, const Node *node, const char *format, ...)
{
    char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const Value *output = node != NULL ? node_output(node, 0) : NULL;
    const char *name = node == NULL ? NULL : node->name[0] != '\0' || output == NULL ? node->name : output->name;
    if (name != NULL && listed(check, code, name))
        return;
    check->findings = arena_grow(check->arena, check->findings, check->count, &check->capacity, sizeof(Finding));
    check->findings[check->count++] =
        (Finding){.code = code,
                  .node = name != NULL ? arena_strdup(check->arena, name) : NULL,
                  .op_type = node != NULL ? arena_strdup(check->arena, node->op_type) : NULL,
                  .text = arena_strdup(check->arena, text)};
}

size_t check_level_count(const Check *check, Level level)
{
    size_t count = 0;
    for (size_t i = 0; i < check->count; i++)
        count += code_infos[check->findings[i].code].level == level;
    return count;
}

/* ---- printing ------------------------------------------------------------------------------------------ */

static const char *const level_names[] = {"error", "warning", "info"};
static const Style level_styles[] = {STYLE_RED, STYLE_YELLOW, STYLE_DIM};

static bool same_kind(const Finding *a, const Finding *b)
{
    return a->code == b->code &&
           strcmp(a->op_type != NULL ? a->op_type : "", b->op_type != NULL ? b->op_type : "") == 0;
}

/* One line for each code and operator: the first node, and how many more there are. */
static void print_findings(const Check *check, Level level)
{
    for (size_t i = 0; i < check->count; i++) {
        const Finding *finding = &check->findings[i];
        const CodeInfo *info = &code_infos[finding->code];
        size_t earlier = 0, later = 0;
        for (size_t k = 0; k < check->count && finding->node != NULL; k++) {
            bool same = k != i && same_kind(&check->findings[k], finding);
            earlier += same && k < i;
            later += same && k > i;
        }
        if (info->level != level || earlier > 0)
            continue;
        printf("%s%-7s%s %s %-20s ", style_on(stdout, level_styles[level]), level_names[level], style_off(stdout),
               info->id, info->name);
        if (finding->node != NULL)
            printf("%s '%s': ", finding->op_type, finding->node);
        printf("%s", finding->text);
        if (later > 0)
            printf(" (and %zu more %s)", later, later > 1 ? "nodes" : "node");
        putchar('\n');
    }
}

static void print_text(const Check *check, const char *path)
{
    printf("%s: %s", path, check->runs ? "runs" : "does not run");
    if (check->train && check->trains)
        printf(", trains %s numbers in %zu of %zu parameters", human_count(check->trained_numbers).text,
               check->trained_tensors, check->params.count);
    else if (check->train && check->runs)
        printf(", does not train");
    putchar('\n');
    for (int level = LEVEL_ERROR; level <= LEVEL_INFO; level++)
        print_findings(check, (Level)level);
}

static void print_json(const Check *check, const char *path)
{
    Json json;
    json_begin(&json, "regraft.check/1");
    json_put_string(&json, "path", path);
    json_put_bool(&json, "runs", check->runs);
    json_key(&json, "trains");
    if (check->train)
        json_bool(&json, check->trains);
    else
        json_string(&json, NULL);
    json_put_int(&json, "trained_numbers", check->trained_numbers);
    json_put_int(&json, "trained_parameters", (int64_t)check->trained_tensors);
    json_put_int(&json, "parameters", (int64_t)check->params.count);
    json_put_open(&json, "findings", '[');
    for (size_t i = 0; i < check->count; i++) {
        const Finding *finding = &check->findings[i];
        const CodeInfo *info = &code_infos[finding->code];
        json_open(&json, '{');
        json_put_string(&json, "code", info->id);
        json_put_string(&json, "name", info->name);
        json_put_string(&json, "level", level_names[info->level]);
        json_put_string(&json, "node", finding->node);
        json_put_string(&json, "operator", finding->op_type);
        json_put_string(&json, "text", finding->text);
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_end(&json);
}

/* ---- the verb ------------------------------------------------------------------------------------------ */

static Status read_dims(const TextList *list, Arena *arena, Dim **dims, Error *err)
{
    *dims = arena_array(arena, Dim, list->count + 1);
    for (size_t i = 0; i < list->count; i++) {
        const char *text = list->items[i], *equals = strchr(text, '=');
        char *end = NULL;
        int64_t value = equals != NULL ? strtoll(equals + 1, &end, 10) : 0;
        if (equals == NULL || equals == text || end == equals + 1 || *end != '\0' || value < 1)
            return fail(err, STATUS_USAGE, "--dim takes NAME=N, found '%s'", text);
        (*dims)[i] = (Dim){arena_strndup(arena, text, (size_t)(equals - text)), value};
    }
    return STATUS_OK;
}

static Status choose_trained(Check *check, const TextList *patterns, Error *err)
{
    TRY(params_find(check->document, false, &check->params, err));
    if (patterns->count == 0)
        return freeze_read(check->document, &check->params, err);
    bool *selected = arena_array(check->arena, bool, check->params.count + 1);
    TRY(params_select(check->document, &check->params, patterns->items, patterns->count, selected, err));
    for (size_t i = 0; i < check->params.count; i++)
        check->params.items[i].trainable = selected[i];
    return STATUS_OK;
}

static Status blocked(const Check *check, Error *err)
{
    size_t errors = check_level_count(check, LEVEL_ERROR);
    for (size_t i = 0; i < check->count && errors > 0; i++) {
        const Finding *finding = &check->findings[i];
        if (code_infos[finding->code].level != LEVEL_ERROR)
            continue;
        char more[40] = "";
        if (errors > 1)
            snprintf(more, sizeof more, " (and %zu more)", errors - 1);
        return fail(err, STATUS_UNSUPPORTED, "%s%s%s%s%s%s", finding->op_type != NULL ? finding->op_type : "",
                    finding->node != NULL ? " '" : "", finding->node != NULL ? finding->node : "",
                    finding->node != NULL ? "': " : "", finding->text, more);
    }
    return STATUS_OK;
}

static Status run_check(Check *check, const Fields *fields, const char *path, Error *err)
{
    size_t functions = check->document->function_count;
    TRY(pass_inline(check->document, err));
    if (functions > 0)
        check_add(check, CODE_FUNCTIONS, NULL, "model-local functions: %zu; inlined before anything else", functions);
    Dim *dims;
    TRY(read_dims(&fields->dims, check->arena, &dims, err));
    check->dims = dims;
    check->dim_count = fields->dims.count;
    TRY(choose_trained(check, &fields->train, err));
    check_plan(check);
    check_model(check);
    if (fields->json)
        print_json(check, path);
    else
        print_text(check, path);
    return blocked(check, err);
}

Status cmd_check(int argc, char **argv, Error *err)
{
    Fields fields = {.batch = 2};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    if (fields.run_only && fields.train.count > 0)
        return fail(err, STATUS_USAGE, "check: --run-only and --train exclude each other");
    const char *path = args.items[0];
    Model *document;
    TRY(document_open(path, &document, err));
    Check check = {.document = document, .arena = &document->arena, .batch = fields.batch, .train = !fields.run_only};
    Status status = run_check(&check, &fields, path, err);
    if (status != STATUS_OK)
        error_prefix(err, "%s", path);
    model_free(document);
    return status;
}
