/* regraft freeze: marks parameters that tune is to leave alone. */
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/surgery.h"

typedef struct Fields {
    Surgery surgery;
    TextList train;
    bool none;
    const Args *args;
} Fields;

static const Option options[] = {
    {OPTION("--train", 't', LIST, train, "PATTERN", "freeze everything but this; repeat it or separate by commas"),
     .commas = true},
    {OPTION("--none", 0, FLAG, none, NULL, "take all marks away")},
    SURGERY_OPTIONS,
    {0}};

static const Usage usage = {
    .verb = "freeze",
    .arguments = "MODEL [PATTERN...]",
    .summary = "Marks the parameters that match any pattern as frozen, in the model's metadata; `tune` obeys the "
               "marks. Weights stay "
               "as they are.",
    .examples = {"regraft freeze model.onnx 'layer[1-3]*' -o frozen.onnx",
                 "regraft freeze model.onnx --train head,norm -o frozen.onnx",
                 "regraft freeze model.onnx before:/layer3/Relu_output_0 --dry-run"},
    .options = options,
    .minimum = 1,
    .maximum = 1000,
    .notes = "PATTERN is a glob on names of parameters, nodes or scopes, or one of\n"
             "head (the head's), last:N (the head's and those of the N nodes with parameters before it),\n"
             "before:TENSOR (all that the tensor depends on), norm (scales and biases of normalisations), all.\n"
             "A pattern that matches nothing is an error. Names are listed by `inspect --parameters`."};

static Status choose(Model *document, const Fields *fields, const ParamList *list, bool *frozen, Error *err)
{
    size_t count = fields->args->count - 1;
    const char *const *patterns = fields->args->items + 1;
    bool invert = fields->train.count > 0;
    if (fields->none)
        return STATUS_OK;
    if (invert) {
        patterns = fields->train.items;
        count = fields->train.count;
    }
    TRY((invert ? params_select : params_select_frozen)(document, list, patterns, count, frozen, err));
    for (size_t i = 0; i < list->count && invert; i++)
        frozen[i] = !frozen[i];
    return STATUS_OK;
}

static void note_frozen(const ParamList *list, const bool *frozen)
{
    size_t tensors = 0;
    int64_t numbers = 0, all = 0;
    for (size_t i = 0; i < list->count; i++) {
        int64_t count = tensor_count(list->items[i].origin);
        tensors += frozen[i];
        numbers += frozen[i] ? count : 0;
        all += count;
    }
    say_note("frozen: %zu of %zu parameters (%s of %s numbers)", tensors, list->count, human_count(numbers).text,
             human_count(all).text);
    if (tensors == list->count && list->count > 0)
        say_warning("nothing is left to train");
}

static void print_list(const ParamList *list, const bool *frozen)
{
    Table table;
    table_init(&table, "lll");
    for (size_t i = 0; i < list->count; i++) {
        Style style = frozen[i] ? STYLE_BLUE : STYLE_PLAIN;
        table_cell(&table, style, "%s", frozen[i] ? "frozen" : "trained");
        table_cell(&table, style, "%s", list->items[i].name);
        table_cell(&table, STYLE_DIM, "%s", list->items[i].node);
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static Status edit(Model *document, void *context, Error *err)
{
    const Fields *fields = context;
    ParamList list;
    TRY(params_find(document, false, &list, err));
    bool *frozen = arena_array(&document->arena, bool, list.count + 1);
    TRY(choose(document, fields, &list, frozen, err));
    TRY(freeze_mark(document, &list, frozen, err));
    if (fields->surgery.dry_run && !fields->surgery.json)
        print_list(&list, frozen);
    note_frozen(&list, frozen);
    return STATUS_OK;
}

Status cmd_freeze(int argc, char **argv, Error *err)
{
    Fields fields = {.surgery.own_plan = true};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    int ways = (args.count > 1) + (fields.train.count > 0) + fields.none;
    if (ways != 1)
        return fail(err, STATUS_USAGE,
                    ways == 0 ? "freeze: a PATTERN, --train PATTERN or --none is needed"
                              : "freeze: PATTERN, --train and --none exclude each other");
    fields.args = &args;
    return surgery_run("freeze", args.items[0], &fields.surgery, edit, &fields, err);
}
