/* regraft ops: the operator table. docs/operators.md is `regraft ops --markdown`. */
#include <stdlib.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "onnx/op.h"
#include "runtime/runtime.h"

/* tests/conformance/counts.txt and known.txt of this build */
extern const char conformance_counts[], conformance_known[];

typedef struct Fields {
    bool json, markdown;
    const char *filter, *conformance;
} Fields;

static const Option options[] = {
    {OPTION("--filter", 0, TEXT, filter, "GLOB", "only operators whose name matches, e.g. 'Reduce*'")},
    {OPTION("--markdown", 0, FLAG, markdown, NULL, "print a Markdown table (docs/operators.md)")},
    {OPTION("--conformance", 0, TEXT, conformance, "DIR",
            "counts of ONNX's backend tests from DIR/counts.txt, and what does not pass from DIR/known.txt, instead of "
            "those recorded in this build")},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON (regraft.ops/1)")},
    {0}};

static const Usage usage = {
    .verb = "ops",
    .arguments = "",
    .summary =
        "Lists the operators that this build understands: in which opsets, whether they run on planned kernels or in "
        "the "
        "interpreter, and whether gradients pass through them. An operator that is not listed is kept by surgery and "
        "export, and refused by name when it would have to run.",
    .examples = {"regraft ops --filter 'Conv*'", "regraft ops --markdown > docs/operators.md"},
    .options = options};

/* One operator; a name may have several rows (old forms that are rewritten). */
typedef struct Entry {
    const char *domain, *name, *no_gradient;
    int since, last, passed, cases; /* cases: of ONNX's backend tests that hold it; 0: not known */
    bool eval, planned, expands, rewritten, gradient;
} Entry;

static int compare_entries(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
    int order = strcmp(x->domain, y->domain);
    if (order != 0)
        return order;
    order = strcmp(x->name, y->name);
    return order != 0 ? order : x->since - y->since;
}

static size_t gather(const Fields *fields, Arena *arena, Entry **entries)
{
    size_t count = 0, capacity = 0;
    *entries = NULL;
    for (size_t f = 0; f < builtin_ops.count; f++) {
        for (const OpDef *op = builtin_ops.families[f]; op->name != NULL; op++) {
            const char *domain = op->domain != NULL ? op->domain : "";
            bool internal = strcmp(domain, DOMAIN_INTERNAL) == 0;
            if (internal || (fields->filter != NULL && !text_glob(fields->filter, op->name)))
                continue;
            *entries = arena_grow(arena, *entries, count, &capacity, sizeof **entries);
            (*entries)[count++] = (Entry){.domain = domain,
                                          .name = op->name,
                                          .no_gradient = op->no_gradient,
                                          .since = op->since,
                                          .last = op->last,
                                          .eval = op->eval != NULL,
                                          .planned = op->prepare != NULL,
                                          .expands = op->expand != NULL,
                                          .rewritten = op->upgrade != NULL && op->eval == NULL && op->expand == NULL,
                                          .gradient = op->grad != NULL || op->expand != NULL};
        }
    }
    if (count > 0)
        qsort(*entries, count, sizeof **entries, compare_entries);
    return count;
}

/* ---- conformance --------------------------------------------------------------------------------------- */

/* Lines of DIR/name, or without a DIR of `own`; *text is in the arena. */
static Status read_lines(const char *folder, const char *name, const char *own, Arena *arena, char **text, Error *err)
{
    Mapping file;
    *text = arena_strdup(arena, own);
    if (folder == NULL)
        return STATUS_OK;
    TRY(mapping_open(&file, arena_printf(arena, "%s/%s", folder, name), err));
    *text = arena_strndup(arena, (const char *)file.data, file.size);
    mapping_release(&file);
    return STATUS_OK;
}

/* counts.txt: `operator passed cases`, one a line. Older forms share their operator's line. */
static Status read_counts(const char *folder, Arena *arena, Entry *entries, size_t count, Error *err)
{
    char *text, *save = NULL;
    TRY(read_lines(folder, "counts.txt", conformance_counts, arena, &text, err));
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *blank = strchr(line, ' '), *end = NULL;
        if (line[0] == '#' || blank == NULL)
            continue;
        *blank = '\0';
        long passed = strtol(blank + 1, &end, 10), cases = strtol(end, NULL, 10);
        for (size_t i = 0; i < count; i++) {
            const char *name = entries[i].domain[0] == '\0'
                                   ? entries[i].name
                                   : arena_printf(arena, "%s.%s", entries[i].domain, entries[i].name);
            if (strcmp(name, line) != 0)
                continue;
            entries[i].passed = (int)passed;
            entries[i].cases = (int)cases;
        }
    }
    return STATUS_OK;
}

static const char *cases_text(Arena *arena, const Entry *entry)
{
    return entry->cases == 0 ? "" : arena_printf(arena, "%d/%d", entry->passed, entry->cases);
}

/* known.txt: `PATTERN: reason`, one a line. */
static Status print_known(const char *folder, Arena *arena, Error *err)
{
    char *text, *save = NULL;
    TRY(read_lines(folder, "known.txt", conformance_known, arena, &text, err));
    printf("\n## Cases that do not pass\n\n| Cases | Reason |\n|---|---|\n");
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *colon = strchr(line, ':');
        if (line[0] == '#' || colon == NULL)
            continue;
        *colon = '\0';
        printf("| `%s` | %s |\n", line, colon + 1 + strspn(colon + 1, " "));
    }
    return STATUS_OK;
}

/* ---- printing ------------------------------------------------------------------------------------------ */

static const char *runs_text(const Entry *entry)
{
    return entry->planned     ? "planned"
           : entry->expands   ? "as other operators"
           : entry->eval      ? "interpreted"
           : entry->rewritten ? "in its newer form"
                              : "no";
}

static const char *gradient_text(const Entry *entry)
{
    return entry->gradient              ? "yes"
           : entry->rewritten           ? "in its newer form"
           : entry->no_gradient != NULL ? entry->no_gradient
                                        : "no";
}

static const char *opset_text(Arena *arena, const Entry *entry)
{
    return entry->since == entry->last ? arena_printf(arena, "%d", entry->since)
                                       : arena_printf(arena, "%d-%d", entry->since, entry->last);
}

static void print_table(const Entry *entries, size_t count, Arena *arena)
{
    Table table;
    table_init(&table, "lllrl");
    static const char *const head[] = {"OPERATOR", "OPSETS", "RUNS", "CASES", "GRADIENT"};
    table_head(&table, head);
    for (size_t i = 0; i < count; i++) {
        const Entry *entry = &entries[i];
        table_cell(&table, STYLE_PLAIN, "%s%s%s", entry->domain, entry->domain[0] != '\0' ? "." : "", entry->name);
        table_cell(&table, STYLE_PLAIN, "%s", opset_text(arena, entry));
        table_cell(&table, STYLE_PLAIN, "%s", runs_text(entry));
        table_cell(&table, STYLE_PLAIN, "%s", cases_text(arena, entry));
        table_cell(&table, entry->gradient ? STYLE_GREEN : STYLE_PLAIN, "%s", gradient_text(entry));
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void print_totals(const Entry *entries, size_t count)
{
    size_t planned = 0, gradient = 0;
    for (size_t i = 0; i < count; i++) {
        planned += entries[i].planned;
        gradient += entries[i].gradient;
    }
    printf("\n%zu operators, %zu with planned kernels, %zu with gradients\n", count, planned, gradient);
}

static void print_markdown(const Entry *entries, size_t count, Arena *arena)
{
    size_t planned = 0, gradient = 0;
    for (size_t i = 0; i < count; i++) {
        planned += entries[i].planned;
        gradient += entries[i].gradient;
    }
    printf(
        "# Operators\n\n"
        "Written by `regraft ops --markdown`; do not edit.\n\n"
        "Opsets are those whose text has been read; a newer one is refused with a message. *planned*: has a kernel of "
        "its\n"
        "own in training and inference plans. *interpreted*: runs through its reference evaluation, in plans too. *as\n"
        "other operators*: rewritten before running. *in its newer form*: an old form that is brought to the newest "
        "opset.\n"
        "An operator that is not listed is kept by surgery and export, and refused by name when it would have to run.\n"
        "Cases: of ONNX's backend tests that hold the operator, how many pass.\n\n"
        "%zu operators, %zu with planned kernels, %zu with gradients.\n\n"
        "| Operator | Opsets | Runs | Cases | Gradient |\n|---|---|---|---|---|\n",
        count, planned, gradient);
    for (size_t i = 0; i < count; i++)
        printf("| %s%s%s | %s | %s | %s | %s |\n", entries[i].domain, entries[i].domain[0] != '\0' ? "." : "",
               entries[i].name, opset_text(arena, &entries[i]), runs_text(&entries[i]), cases_text(arena, &entries[i]),
               gradient_text(&entries[i]));
}

static void print_json(const Entry *entries, size_t count)
{
    Json json;
    json_begin(&json, "regraft.ops/1");
    json_put_open(&json, "operators", '[');
    for (size_t i = 0; i < count; i++) {
        json_open(&json, '{');
        json_put_string(&json, "domain", entries[i].domain);
        json_put_string(&json, "name", entries[i].name);
        json_put_int(&json, "since", entries[i].since);
        json_put_int(&json, "last", entries[i].last);
        json_put_string(&json, "runs", runs_text(&entries[i]));
        json_put_int(&json, "cases", entries[i].cases);
        json_put_int(&json, "cases_passed", entries[i].passed);
        json_put_bool(&json, "gradient", entries[i].gradient);
        json_put_string(&json, "no_gradient", entries[i].no_gradient);
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_end(&json);
}

Status cmd_ops(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    Arena arena;
    arena_init(&arena);
    Entry *entries;
    size_t count = gather(&fields, &arena, &entries);
    Status status = count > 0 ? STATUS_OK : fail(err, STATUS_USAGE, "ops: no operator matches '%s'", fields.filter);
    if (status == STATUS_OK)
        status = read_counts(fields.conformance, &arena, entries, count, err);
    if (status == STATUS_OK && fields.json) {
        print_json(entries, count);
    } else if (status == STATUS_OK && fields.markdown) {
        print_markdown(entries, count, &arena);
        status = print_known(fields.conformance, &arena, err);
    } else if (status == STATUS_OK) {
        print_table(entries, count, &arena);
        print_totals(entries, count);
    }
    arena_release(&arena);
    return status;
}
