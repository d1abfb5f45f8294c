/* regraft diff: what differs between two models; exit code 1 when something does. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/compare.h"

typedef struct Fields {
    TextList ignore;
    bool json, identical, all;
} Fields;

static const Option options[] = {
    {OPTION("--ignore", 0, LIST, ignore, "WHAT", "do not report these: doc, metadata, names"), .commas = true},
    {OPTION("--identical", 0, FLAG, identical, NULL,
            "list the initializers that are identical byte for byte, with hashes")},
    {OPTION("--all", 0, FLAG, all, NULL, "print every line, not the first 20 of a kind")},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON (regraft.diff/1)")},
    {0}};

static const Usage usage = {
    .verb = "diff",
    .arguments = "MODEL OTHER",
    .summary =
        "Compares two models: inputs, outputs, initializers (by hash and largest difference), nodes (by name, then by "
        "structure), functions and metadata. Lines begin with - (only in MODEL), + (only in OTHER) or ~ (differs). "
        "Says how many initializers are identical byte for byte, and how many of those that are marked as frozen.",
    .examples = {"regraft diff base.onnx tuned.onnx",
                 "regraft diff base.onnx tuned.onnx --ignore doc,metadata --identical"},
    .options = options,
    .minimum = 2,
    .maximum = 2,
    .notes = "Exit code: 0 the same, 1 different, above 1 trouble."};

static Status read_ignore(const TextList *list, CompareIgnore *ignore, Error *err)
{
    static const char *const names[] = {"doc", "metadata", "names"};
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->items[i];
        if (strcmp(name, names[0]) == 0)
            ignore->doc = true;
        else if (strcmp(name, names[1]) == 0)
            ignore->metadata = true;
        else if (strcmp(name, names[2]) == 0)
            ignore->names = true;
        else
            return fail(err, STATUS_USAGE, "--ignore takes doc, metadata or names, found '%s'", name);
    }
    return STATUS_OK;
}

static void print_identical(const Comparison *comparison)
{
    Table table;
    table_init(&table, "lll");
    for (size_t i = 0; i < comparison->same_count; i++) {
        table_cell(&table, STYLE_PLAIN, "= %s", comparison->same[i].name);
        table_cell(&table, STYLE_PLAIN, "%s", comparison->same[i].shape);
        table_cell(&table, STYLE_DIM, "%016llx", (unsigned long long)tensor_hash(comparison->same[i].tensor));
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void print_result(const Fields *fields, const Args *args, const Comparison *comparison)
{
    if (fields->json) {
        Json json;
        json_begin(&json, "regraft.diff/1");
        json_put_string(&json, "a", args->items[0]);
        json_put_string(&json, "b", args->items[1]);
        comparison_json(comparison, &json);
        json_end(&json);
        return;
    }
    if (fields->identical)
        print_identical(comparison);
    comparison_print(comparison, fields->all ? 0 : 20);
}

Status cmd_diff(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    CompareIgnore ignore = {0};
    TRY(read_ignore(&fields.ignore, &ignore, err));
    Model *a = NULL, *b = NULL;
    Status status = document_open(args.items[0], &a, err);
    if (status == STATUS_OK)
        status = document_open(args.items[1], &b, err);
    if (status == STATUS_OK) {
        Comparison comparison;
        compare_models(a, b, ignore, &comparison);
        print_result(&fields, &args, &comparison);
        bool renamed = !ignore.names && comparison.nodes_renamed + comparison.weights_renamed > 0;
        status = comparison.count > 0 || renamed ? STATUS_DIFFERS : STATUS_OK;
        comparison_release(&comparison);
    }
    model_free(a);
    model_free(b);
    return status;
}
