/* regraft cut: a model without its head; the features become the output. */
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/surgery.h"
#include "onnx/op.h"

typedef struct Fields {
    Surgery surgery;
    const char *head, *head_of, *at;
    bool keep_inputs;
} Fields;

static const Option options[] = {
    {OPTION("--head", 0, TEXT, head, "NAME",
            "which head: its node, its features or its number, as `heads` prints them")},
    {OPTION("--head-of", 0, TEXT, head_of, "OUTPUT", "the head of this graph output, where there are several")},
    {OPTION("--at", 0, TEXT, at, "TENSOR", "cut at this tensor instead of a head's features")},
    {OPTION("--keep-inputs", 0, FLAG, keep_inputs, NULL, "keep graph inputs that nothing reads any more")},
    SURGERY_OPTIONS,
    {0}};

static const Usage usage = {
    .verb = "cut",
    .arguments = "MODEL",
    .summary = "Removes the head of a model: everything that only served the output behind the features. What remains "
               "keeps its "
               "names, dynamic dims and bytes.",
    .examples = {"regraft cut model.onnx -o trunk.onnx", "regraft cut model.onnx --at /Flatten_output_0 --dry-run"},
    .options = options,
    .minimum = 1,
    .maximum = 1,
    .notes = "`regraft heads MODEL` lists where a model can be cut. Exit code 5 when that is ambiguous."};

static Status cut_at(Model *document, const Fields *fields, Error *err)
{
    Value *features, *output = NULL;
    TRY(surgery_value(document, fields->at, &features, err));
    if (fields->head_of != NULL)
        TRY(surgery_value(document, fields->head_of, &output, err));
    TRY(pass_cut(document, features, output, fields->keep_inputs, err));
    say_note("cut at '%s', %s", features->name, type_text(&document->arena, &features->type));
    return STATUS_OK;
}

static void note_lost_inputs(size_t before, const Model *document)
{
    if (document->graph->input_count < before)
        say_note("%zu inputs that only the head read went with it (--keep-inputs keeps them)",
                 before - document->graph->input_count);
}

static Status edit(Model *document, void *context, Error *err)
{
    const Fields *fields = context;
    size_t inputs = document->graph->input_count;
    if (fields->at != NULL) {
        TRY(cut_at(document, fields, err));
        note_lost_inputs(inputs, document);
        return STATUS_OK;
    }
    HeadList list;
    const Head *head;
    TRY(heads_find(document, &list, err));
    TRY(heads_pick(&list, fields->head, fields->head_of, &head, err));
    const char *layer = node_text(head->node);
    TRY(pass_cut(document, head->features, head->output, fields->keep_inputs, err));
    say_note("cut off %s (%s); features are '%s', %s", layer, head->why, head->features->name,
             type_text(&document->arena, &head->features->type));
    note_lost_inputs(inputs, document);
    return STATUS_OK;
}

Status cmd_cut(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    if (fields.at != NULL && fields.head != NULL)
        return fail(err, STATUS_USAGE, "cut: --at and --head say the same thing twice; give one");
    return surgery_run("cut", args.items[0], &fields.surgery, edit, &fields, err);
}
