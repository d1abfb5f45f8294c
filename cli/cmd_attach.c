/* regraft attach: a new head on a cut model, or in the place of the old one. */
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "cli/surgery.h"
#include "onnx/op.h"

typedef struct Fields {
    Surgery surgery;
    int64_t classes, hidden, seed, width;
    int kind, init, pool;
    const char *head, *head_of, *at, *name, *labels;
    TextList tasks;
    bool keep_features, keep_inputs;
} Fields;

static const char *const kinds[] = {"auto", "linear", "mlp", "conv", NULL};
static const char *const inits[] = {"zero", "kaiming", "xavier", "normal", NULL};
static const char *const pools[] = {"auto", "none", "mean", "first", NULL};

static const Option options[] = {
    {OPTION("--classes", 'c', INT, classes, "N", "scores that the new head gives"), .positive = true},
    {OPTION("--labels", 0, TEXT, labels, "LIST",
            "class names `cat,dog`, or `@FILE` with one a line; kept in the model")},
    {OPTION("--task", 0, LIST, tasks, "NAME:N",
            "one of several heads on the same features: output NAME with N scores; repeat it")},
    {OPTION("--kind", 0, CHOICE, kind, "KIND", "form of the head"), .choices = kinds},
    {OPTION("--hidden", 0, INT, hidden, "N", "units of the MLP's hidden layer; as wide as the features by default"),
     .positive = true},
    {OPTION("--pool", 0, CHOICE, pool, "HOW", "how positions become one vector"), .choices = pools},
    {OPTION("--init", 0, CHOICE, init, "HOW", "first weights"), .choices = inits},
    {OPTION("--seed", 0, INT, seed, "N", "of the first weights")},
    {OPTION("--name", 0, TEXT, name, "OUTPUT", "name of the new output; the old one's by default")},
    {OPTION("--at", 0, TEXT, at, "TENSOR", "the features; found by default"), .group = "Where"},
    {OPTION("--head", 0, TEXT, head, "NAME", "which head to replace, as `heads` prints them")},
    {OPTION("--head-of", 0, TEXT, head_of, "OUTPUT", "replace the head of this graph output")},
    {OPTION("--width", 0, INT, width, "N", "width of the features where the model does not tell"), .positive = true},
    {OPTION("--keep-features", 0, FLAG, keep_features, NULL, "let the features stay an output beside the scores")},
    {OPTION("--keep-inputs", 0, FLAG, keep_inputs, NULL, "keep graph inputs that nothing reads any more")},
    SURGERY_OPTIONS,
    {0}};

static const Usage usage = {
    .verb = "attach",
    .arguments = "MODEL",
    .summary = "Puts a new head on a model. On one that `cut` made, it reads the features; on any other it takes the "
               "place of the "
               "old head (cut and attach in one). The new output gives scores, without Softmax.",
    .examples = {"regraft attach trunk.onnx --labels cat,dog -o start.onnx",
                 "regraft attach model.onnx --classes 4 --kind mlp --hidden 64 --seed 1 -o start.onnx",
                 "regraft attach trunk.onnx --task colour:8 --task shape:3 -o two.onnx"},
    .options = options,
    .minimum = 1,
    .maximum = 1,
    .notes = "auto kind: linear on vectors and tokens, convolution where the old head was one. kaiming is what "
             "PyTorch's Linear "
             "starts with."};

/* ---- labels and tasks ---------------------------------------------------------------------------------- */

/* One name a line, in the arena; *count is their number. */
static Status read_labels(const char *text, Arena *arena, const char **labels, int64_t *count, Error *err)
{
    Str lines;
    str_init(&lines);
    if (text[0] == '@') {
        Mapping file;
        Status status = mapping_open(&file, text + 1, err);
        if (status != STATUS_OK)
            return status;
        str_append_bytes(&lines, (const char *)file.data, file.size);
        mapping_release(&file);
    } else {
        str_append(&lines, text);
        for (char *comma = strchr(lines.text, ','); comma != NULL; comma = strchr(comma, ','))
            *comma = '\n';
    }
    while (lines.length > 0 && strchr("\r\n", lines.text[lines.length - 1]) != NULL)
        lines.text[--lines.length] = '\0';
    *count = lines.length > 0;
    bool empty = lines.length == 0 || lines.text[0] == '\n';
    for (size_t i = 0; i < lines.length; i++) {
        *count += lines.text[i] == '\n';
        empty = empty || (lines.text[i] == '\n' && lines.text[i + 1] == '\n');
    }
    *labels = arena_strdup(arena, lines.text);
    str_release(&lines);
    return empty ? fail(err, STATUS_USAGE, "--labels: an empty name in '%s'", text) : STATUS_OK;
}

static Status read_task(const char *text, Arena *arena, HeadSpec *spec, Error *err)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    spec->classes = colon == NULL ? 0 : strtoll(colon + 1, &end, 10);
    if (colon == NULL || colon == text || end == colon + 1 || *end != '\0' || spec->classes < 1)
        return fail(err, STATUS_USAGE, "--task takes NAME:N, found '%s'", text);
    spec->output_name = arena_strndup(arena, text, (size_t)(colon - text));
    return STATUS_OK;
}

/* ---- where --------------------------------------------------------------------------------------------- */

/* Features of a model that `cut` made: the output that is no score of an old head. */
static Status find_features(Model *document, const Fields *fields, Value **features, Error *err)
{
    if (fields->at != NULL)
        return surgery_value(document, fields->at, features, err);
    *features = NULL;
    if (model_metadata(document, "regraft.cut_output") == NULL)
        return STATUS_OK;
    const Graph *graph = document->graph;
    const char *at = model_metadata(document, "regraft.cut_at");
    for (size_t i = 0; i < graph->output_count; i++)
        if (at == NULL ? graph->output_count == 1 : strcmp(graph->outputs[i]->name, at) == 0)
            *features = graph->outputs[i];
    return *features != NULL
               ? STATUS_OK
               : fail(err, STATUS_AMBIGUOUS, "%zu outputs; name the features with --at", graph->output_count);
}

static void note_attached(Model *document, const Value *features, const Value *scores)
{
    say_note("a new head on '%s', %s, gives '%s', %s", features->name, type_text(&document->arena, &features->type),
             scores->name, type_text(&document->arena, &scores->type));
}

static Status replace(Model *document, const Fields *fields, HeadSpec *spec, Value **features, Error *err)
{
    HeadList list;
    const Head *head;
    Value *scores;
    TRY(heads_find(document, &list, err));
    TRY(heads_pick(&list, fields->head, fields->head_of, &head, err));
    const char *layer = node_text(head->node), *post = head->post_ops;
    *features = head->features;
    TRY(pass_replace_head(document, head, spec, fields->keep_inputs, &scores, err));
    say_note("replaced %s (%s)", layer, head->why);
    if (post[0] != '\0')
        say_note("%s behind the old head went with it: '%s' gives scores", post, scores->name);
    note_attached(document, head->features, scores);
    return STATUS_OK;
}

static Status attach_one(Model *document, const Fields *fields, HeadSpec *spec, Value **features, Error *err)
{
    if (*features == NULL)
        return replace(document, fields, spec, features, err);
    if (fields->kind == 0 && (*features)->type.kind == TYPE_TENSOR && (*features)->type.rank >= 4 &&
        spec->pool == POOL_NONE)
        spec->kind = HEAD_CONV;
    Value *scores;
    TRY(pass_attach(document, *features, spec, &scores, err));
    note_attached(document, *features, scores);
    return STATUS_OK;
}

static Status edit(Model *document, void *context, Error *err)
{
    const Fields *fields = context;
    HeadSpec spec = {.kind = fields->kind > 0 ? (HeadKind)(fields->kind - 1) : HEAD_LINEAR,
                     .output_name = fields->name,
                     .classes = fields->classes,
                     .hidden = fields->hidden,
                     .init = (InitKind)fields->init,
                     .seed = (uint64_t)fields->seed,
                     .pool = (HeadPool)fields->pool,
                     .keep_features = fields->keep_features,
                     .width = fields->width};
    const char *labels = NULL;
    if (fields->labels != NULL) {
        int64_t count;
        TRY(read_labels(fields->labels, &document->arena, &labels, &count, err));
        if (fields->classes > 0 && fields->classes != count)
            return fail(err, STATUS_USAGE, "--classes %lld, but --labels names %lld", (long long)fields->classes,
                        (long long)count);
        spec.classes = count;
    }
    Value *features;
    TRY(find_features(document, fields, &features, err));
    if (fields->tasks.count == 0)
        TRY(attach_one(document, fields, &spec, &features, err));
    for (size_t i = 0; i < fields->tasks.count; i++) {
        HeadSpec task = spec;
        TRY(read_task(fields->tasks.items[i], &document->arena, &task, err));
        TRY(attach_one(document, fields, &task, &features, err));
    }
    model_set_metadata(document, "regraft.labels", labels);
    return STATUS_OK;
}

Status cmd_attach(int argc, char **argv, Error *err)
{
    Fields fields = {.init = INIT_KAIMING_UNIFORM};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    if (fields.classes == 0 && fields.labels == NULL && fields.tasks.count == 0)
        return fail(err, STATUS_USAGE, "attach: --classes N, --labels LIST or --task NAME:N is needed");
    if (fields.tasks.count > 0 && (fields.classes > 0 || fields.labels != NULL || fields.name != NULL))
        return fail(err, STATUS_USAGE,
                    "attach: --task names outputs and counts scores itself; leave --classes, --labels "
                    "and --name away");
    if (fields.hidden > 0 && fields.kind != 1 + HEAD_MLP)
        return fail(err, STATUS_USAGE, "attach: --hidden needs --kind mlp");
    return surgery_run("attach", args.items[0], &fields.surgery, edit, &fields, err);
}
