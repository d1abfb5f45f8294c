/* regraft heads: where a model could be cut. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"

typedef struct Fields {
    bool json;
} Fields;

static const Option options[] = {{OPTION("--json", 0, FLAG, json, NULL, "print JSON (regraft.heads/1)")}, {0}};

static const Usage usage = {
    .verb = "heads",
    .arguments = "MODEL",
    .summary =
        "Lists the linear layers that turn features into outputs: candidates for `cut`, `attach` and `tune`. The first "
        "of "
        "an output is the one next to it; others lie further back. FEATURES is the tensor that a new head would read.",
    .examples = {"regraft heads model.onnx", "regraft cut model.onnx --head 2 -o trunk.onnx"},
    .options = options,
    .minimum = 1,
    .maximum = 1,
    .notes = "Exit code 5 when it is not clear which head to replace; choose with --head or --head-of then."};

static const char *form_text(const Head *head)
{
    return head->tail_end != NULL                                                 ? "layer, steps behind it stay"
           : head->spatial && head->pooled                                        ? "convolution, then pooling"
           : head->spatial                                                        ? "convolution at every position"
           : head->rank > 2 && head->node != NULL && !node_is(head->node, "Conv") ? "linear at every token"
                                                                                  : "linear";
}

static void print_json(const HeadList *list, const Head *best, const char *reason, Arena *arena)
{
    Json json;
    json_begin(&json, "regraft.heads/1");
    json_put_open(&json, "heads", '[');
    for (size_t i = 0; i < list->count; i++) {
        const Head *head = &list->items[i];
        json_open(&json, '{');
        json_put_int(&json, "number", (int64_t)i + 1);
        json_put_string(&json, "node", head->node->name);
        json_put_string(&json, "operator", head->node->op_type);
        json_put_string(&json, "features", head->features->name);
        json_put_string(&json, "features_type", type_text(arena, &head->features->type));
        json_put_int(&json, "width", head->feature_width);
        json_put_int(&json, "classes", head->class_count);
        json_put_string(&json, "output", head->output->name);
        json_put_string(&json, "form", form_text(head));
        json_put_string(&json, "post_ops", head->post_ops);
        json_put_int(&json, "depth", head->depth);
        json_put_real(&json, "confidence", head->confidence);
        json_put_string(&json, "why", head->why);
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_key(&json, "chosen");
    if (best != NULL)
        json_int(&json, best - list->items + 1);
    else
        json_string(&json, NULL);
    json_put_string(&json, "reason", reason);
    json_end(&json);
}

static void print_table(const HeadList *list, const Head *best)
{
    Table table;
    table_init(&table, "rlllrrrl");
    static const char *const head[] = {"#", "LAYER", "FEATURES", "OUTPUT", "WIDTH", "CLASSES", "SURE", "FORM"};
    table_head(&table, head);
    for (size_t i = 0; i < list->count; i++) {
        const Head *item = &list->items[i];
        Style style = item == best ? STYLE_GREEN : STYLE_PLAIN;
        const char *name = item->node->name[0] != '\0' ? item->node->name : node_output(item->node, 0)->name;
        table_cell(&table, style, "%s%zu", item == best ? "*" : " ", i + 1);
        table_cell(&table, style, "%s %s", item->node->op_type, name);
        table_cell(&table, style, "%s", item->features->name);
        table_cell(&table, style, "%s", item->output->name);
        table_cell(&table, style, "%lld", (long long)item->feature_width);
        table_cell(&table, style, "%lld", (long long)item->class_count);
        table_cell(&table, style, "%.0f%%", 100 * item->confidence);
        table_cell(&table, style, "%s%s%s", item->depth > 0 ? item->why : form_text(item),
                   item->depth == 0 && item->post_ops[0] != '\0' ? ", then " : "",
                   item->depth == 0 ? item->post_ops : "");
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static Status list_heads(Model *document, bool json, Error *err)
{
    TRY(document_inline(document, err));
    document_infer(document);
    HeadList list;
    TRY(heads_find(document, &list, err));
    const Head *best = NULL;
    Status status = heads_pick(&list, NULL, NULL, &best, err);
    if (json)
        print_json(&list, best, best != NULL ? best->why : err->message, &document->arena);
    else if (list.count > 0)
        print_table(&list, best);
    return status;
}

Status cmd_heads(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    Model *document;
    TRY(document_open(args.items[0], &document, err));
    Status status = list_heads(document, fields.json, err);
    if (status != STATUS_OK)
        error_prefix(err, "%s", args.items[0]);
    model_free(document);
    return status;
}
