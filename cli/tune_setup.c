/* Before training: the data, what the losses read, the new head, the preprocessing, and which parameters may move. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"
#include "onnx/base/sha256.h"

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static const Value *picture_input(const Graph *graph)
{
    const Value *found = NULL;
    for (size_t i = 0; i < graph->input_count; i++) {
        if (graph->inputs[i]->constant != NULL)
            continue;
        if (found != NULL)
            return NULL;
        found = graph->inputs[i];
    }
    return found;
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static void decide_task(Tune *tune)
{
    const Field *first = dataset_target(tune->data.train, 0);
    LossKind kind = tune->losses[0].kind;
    tune->task = TASK_OTHER;
    if (tune->loss_count != 1)
        return;
    if (first->is_class && kind == LOSS_SOFTMAX_CE) {
        tune->task = TASK_CLASSES;
        tune->outputs = dataset_class_count(tune->data.train, 0);
    } else if (!first->is_class && first->type.rank <= 1 && kind != LOSS_SOFTMAX_CE && kind != LOSS_LM &&
               kind != LOSS_DICE) {
        tune->task = kind == LOSS_BCE && first->zero_one ? TASK_LABELS : TASK_NUMBERS;
        tune->outputs = (size_t)dims_count(first->type.rank, first->type.dims);
    }
}

static Status choose_losses(Tune *tune, Error *err)
{
    size_t targets = (size_t)dataset_target_count(tune->data.train);
    if (targets == 0)
        return fail(err, STATUS_REJECTED, "%s: there are no labels to train on", tune->fields->data);
    if (targets > SOURCE_MAX)
        return fail(err, STATUS_USAGE, "%zu targets, at most %d", targets, SOURCE_MAX);
    for (size_t i = 0; i < targets; i++) {
        const Field *target = dataset_target(tune->data.train, (int)i);
        TRY(tune_choose_loss(tune, target, i, targets, tune_float_output(tune->document->graph, i), err));
        tune->target_names[i] = target->name;
    }
    tune->loss_count = targets;
    decide_task(tune);
    return STATUS_OK;
}

static Status open_all(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    if ((f->data != NULL) == (f->tasks.count > 0))
        return fail(err, STATUS_USAGE, "tune wants --data PATH, or --task OUTPUT=PATH for each of several tasks");
    if (f->tasks.count > 0)
        return tasks_open(tune, err);
    TRY(tune_open_data(tune, f->data, &tune->data, err));
    TRY(choose_losses(tune, err));
    return tune_settle_dtypes(tune, &tune->data, tune->losses, tune->loss_count, err);
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

const char *tune_output_name(const Tune *tune, size_t index)
{
    if (tune->task == TASK_CLASSES)
        return dataset_class_name(tune->data.train, 0, index);
    const char *name = dataset_column_name(tune->data.train, 0, index);
    return name != NULL ? name : arena_printf(&tune->document->arena, "%zu", index);
}

static const char *output_lines(Tune *tune)
{
    Str text;
    str_init(&text);
    for (size_t i = 0; i < tune->outputs; i++)
        str_printf(&text, "%s%s", i == 0 ? "" : "\n", tune_output_name(tune, i));
    const char *lines = arena_strdup(&tune->document->arena, text.text);
    str_release(&text);
    return lines;
}

/* The model's only output has a number for each of the targets, and nobody calls them classes. */
static bool gives_numbers(const Tune *tune)
{
    const Graph *graph = tune->document->graph;
    const Type *type = &graph->outputs[0]->type;
    int64_t width = type->rank > 0 ? type->dims[type->rank - 1] : -1;
    return graph->output_count == 1 && width == (int64_t)tune->outputs &&
           model_metadata(tune->document, "regraft.labels") == NULL;
}

static bool keeps_head(const Tune *tune, const char *lines)
{
    const char *known = model_metadata(tune->document, "regraft.labels");
    if (tune->fields->recipe == RECIPE_PLAIN || tune->fields->keep_head || tune->task == TASK_OTHER ||
        tune->task_count > 0)
        return true;
    if (tune->task == TASK_NUMBERS)
        return gives_numbers(tune);
    const char *task = model_metadata(tune->document, "regraft.task");
    bool labels = task != NULL && strcmp(task, "labels") == 0;
    return known != NULL && strcmp(known, lines) == 0 && labels == (tune->task == TASK_LABELS);
}

static Status replace_head(Tune *tune, Error *err)
{
    static const char *const nouns[] = {"classes", "labels", "numbers", ""};
    HeadList list;
    const Head *head;
    Value *scores;
    const char *lines = output_lines(tune);
    if (keeps_head(tune, lines))
        return STATUS_OK;
    TRY(document_inline(tune->document, err));
    TRY(heads_find(tune->document, &list, err));
    TRY(heads_pick(&list, tune->fields->head, NULL, &head, err));
    const char *old = node_text(head->node);
    int64_t old_classes = head->class_count;
    HeadSpec spec = {.kind = tune->fields->hidden > 0        ? HEAD_MLP
                             : head->spatial && head->pooled ? HEAD_CONV
                                                             : HEAD_LINEAR,
                     .classes = (int64_t)tune->outputs,
                     .hidden = tune->fields->hidden,
                     .init = INIT_KAIMING_UNIFORM,
                     .seed = (uint64_t)tune->fields->seed};
    TRY(pass_replace_head(tune->document, head, &spec, false, &scores, err));
    if (tune->task != TASK_NUMBERS)
        model_set_metadata(tune->document, "regraft.labels", lines);
    if (tune->task == TASK_LABELS)
        model_set_metadata(tune->document, "regraft.task", "labels");
    tune->new_head = true;
    for (size_t i = 0; i < tune->document->graph->output_count; i++)
        if (tune->document->graph->outputs[i] == scores)
            tune->losses[0].output = i; /* others may have gone with the old head */
    progress_note(&tune->progress, "head", "cut %s (%lld classes), grafted a new head for %zu %s", old,
                  (long long)old_classes, tune->outputs, nouns[tune->task]);
    return STATUS_OK;
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

size_t tune_count_trainable(const ParamList *params)
{
    size_t total = 0;
    for (size_t i = 0; i < params->count; i++)
        if (params->items[i].trainable && params->items[i].tied_to < 0)
            total += (size_t)tensor_count(params->items[i].origin);
    return total;
}

static Status choose_parameters(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    TRY(params_find(tune->document, f->no_tie, &tune->params, err));
    statistics_part(tune->document, &tune->params);
    TRY(freeze_read(tune->document, &tune->params, err));
    size_t count = tune->params.count;
    tune->wanted = calloc(count + 1, sizeof *tune->wanted);
    bool *frozen = calloc(count + 1, sizeof *frozen);
    Status status = tune->wanted == NULL || frozen == NULL
                        ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu parameters", count)
                        : STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        tune->wanted[i] = tune->params.items[i].trainable;
    if (status == STATUS_OK && f->train.count > 0)
        status = params_select(tune->document, &tune->params, f->train.items, f->train.count, tune->wanted, err);
    if (status == STATUS_OK && f->freeze.count > 0)
        status = params_select_frozen(tune->document, &tune->params, f->freeze.items, f->freeze.count, frozen, err);
    size_t left = 0;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        bool marked = !tune->params.items[i].trainable && !tune->params.items[i].looks_folded;
        tune->wanted[i] = tune->wanted[i] && !frozen[i] && !marked;
        left += tune->wanted[i];
    }
    free(frozen);
    if (status == STATUS_OK && left == 0)
        status = fail(err, STATUS_USAGE, "nothing is left to train: %zu parameters, all frozen", count);
    return status;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static Status input_size(Tune *tune, Error *err)
{
    const Value *input = picture_input(tune->document->graph);
    PictureSpec *spec = &tune->picture;
    if (input == NULL || input->type.rank != 4)
        return fail(err, STATUS_REJECTED, "pictures need a model with one input of 4 dims");
    const int64_t *dims = input->type.dims;
    bool last = dims[1] != 1 && dims[1] != 3 && (dims[3] == 1 || dims[3] == 3);
    int64_t channels = last ? dims[3] : dims[1], height = last ? dims[1] : dims[2], width = last ? dims[2] : dims[3];
    if (channels != 1 && channels != 3)
        return fail(err, STATUS_REJECTED, "input '%s' has %lld channels; pictures have 1 or 3", input->name,
                    (long long)channels);
    spec->channels_last = last;
    spec->channels = (int)channels;
    spec->height = (int)(height > 0 ? height : 224);
    spec->width = (int)(width > 0 ? width : spec->height);
    return STATUS_OK;
}

/* What --preset says; else what the model does. */
static Status decide_preset(Tune *tune, Error *err)
{
    const char *name = tune->fields->preset;
    const PicturePreset *preset = picture_preset(name != NULL ? name : "0..255");
    if (name == NULL && !tune->picture.bytes)
        return STATUS_OK;
    if (preset == NULL)
        return fail(err, STATUS_USAGE, "--preset: there is no '%s'", name);
    picture_spec_use(&tune->picture, preset);
    tune->preset = preset->name;
    return STATUS_OK;
}

static Status decide_picture(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    const char *known = model_metadata(tune->document, "regraft.preprocess");
    const Value *input = picture_input(tune->document->graph);
    tune->picture = picture_spec_default();
    tune->picture.frame = dataset_is_files(tune->data.train) ? FRAME_CROP : FRAME_SQUASH;
    tune->picture.bytes = input != NULL && input->type.dtype == DTYPE_U8;
    if (known != NULL && f->preset == NULL) {
        tune->preset = "the model's own";
        TRY(picture_spec_parse(known, &tune->picture, err));
        return picture_spec_check(&tune->picture, input != NULL ? input->name : "", err);
    }
    TRY(input_size(tune, err));
    if (f->frame > 0)
        tune->picture.frame = (FrameMode)(f->frame - 1);
    if (!isnan(f->crop))
        tune->picture.crop_fraction = f->crop;
    tune->picture.filter = (ResizeFilter)f->filter;
    TRY(decide_preset(tune, err));
    return picture_spec_check(&tune->picture, input->name, err);
}

static void balance(Tune *tune)
{
    size_t *counts = calloc(tune->outputs + 1, sizeof *counts);
    if (counts == NULL)
        return;
    dataset_class_counts(tune->data.train, 0, counts);
    tune->class_weights = arena_array(&tune->document->arena, float, tune->outputs);
    recipe_balance(counts, tune->outputs, tune->class_weights);
    tune->losses[0].class_weights = tune->class_weights;
    free(counts);
}

static void describe(Tune *tune)
{
    size_t all = 0, wanted = 0;
    for (size_t i = 0; i < tune->params.count; i++) {
        all += (size_t)tensor_count(tune->params.items[i].origin);
        wanted += tune->wanted[i] ? (size_t)tensor_count(tune->params.items[i].origin) : 0;
    }
    size_t batchnorms = 0;
    static const char *const nouns[] = {"classes", "labels (each 0 or 1)", "numbers", ""};
    static const char *const forms[] = {"none", "folded into the convolutions",
                                        "in inference form: it keeps its statistics",
                                        "live: it trains where its scale is trained"};
    BatchNormForm form = batchnorm_form(tune->document, &batchnorms);
    bool stays = form == BATCHNORM_TRAINING && tune->fields->batchnorm == BATCHNORM_RUNNING;
    progress_note(&tune->progress, "data", "%zu training samples%s%s, %s", dataset_count(tune->data.train),
                  tune->outputs > 0 ? ", " : "",
                  tune->outputs > 0 ? arena_printf(&tune->document->arena, "%zu %s", tune->outputs, nouns[tune->task])
                                    : "",
                  tune->data.val == NULL
                      ? "no validation"
                      : arena_printf(&tune->document->arena, "%zu for validation%s", dataset_count(tune->data.val),
                                     tune->data.was_held_out ? " (held out)" : ""));
    progress_note(&tune->progress, "model", "%s of %s parameters may be trained; BatchNorm %s",
                  human_count((int64_t)wanted).text, human_count((int64_t)all).text,
                  stays ? "live in the file, trained on its running statistics" : forms[form]);
}

/* --example-input: see runtime/untrace.c. */
static Status untrace(Tune *tune, Error *err)
{
    Npz npz;
    size_t moved = 0;
    TRY(npz_open(&npz, tune->fields->example, err));
    Status status = statistics_untrace(tune->document, &tune->params, npz.names, (const Array *const *)npz.arrays,
                                       npz.count, &moved, err);
    npz_release(&npz);
    if (status == STATUS_OK && moved == 0)
        progress_note(&tune->progress, "statistics",
                      "--example-input: the model has no live BatchNorm, nothing was moved by tracing");
    else if (status == STATUS_OK)
        progress_note(&tune->progress, "statistics",
                      "took back what tracing did to the running statistics of %zu BatchNorms", moved);
    return status;
}

Status tune_setup(Tune *tune, Error *err)
{
    sha256_hex(tune->document->file.data, tune->document->file.size, tune->base_sha256);
    TRY(open_all(tune, err));
    TRY(replace_head(tune, err));
    TRY(choose_parameters(tune, err));
    if (tune->task_count == 0)
        TRY(tune_find_lengths(tune, &tune->data, tune->losses, tune->loss_count, tune->lengths, err));
    if (tune->fields->example != NULL)
        TRY(untrace(tune, err));
    if (tune->has_picture)
        TRY(decide_picture(tune, err));
    if (tune->fields->balance && tune->task == TASK_CLASSES)
        balance(tune);
    tune->batch = tune->fields->batch > 0 ? (size_t)tune->fields->batch : 32;
    if (tune->fields->init == 1) {
        for (size_t i = 0; i < tune->params.count; i++)
            tune->params.items[i].trainable = tune->wanted[i];
        TRY(recipe_reinitialise(tune->document, &tune->params, (uint64_t)tune->fields->seed, err));
    }
    describe(tune);
    return STATUS_OK;
}
