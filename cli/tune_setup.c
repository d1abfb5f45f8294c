/* Before training: the data, what the losses read, the new head, the preprocessing, and which parameters may move. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"
#include "onnx/base/sha256.h"

/* ---- inputs
 * ---------------------------------------------------------------------------------------------------------- */

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

static void on_broken(const char *message, void *context)
{
    progress_note(&((Tune *)context)->progress, "warning", "skipped: %s", message);
}

static Status open_data(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    const Graph *graph = tune->document->graph;
    const char **inputs = arena_array(&tune->document->arena, const char *, graph->input_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL)
            inputs[count++] = graph->inputs[i]->name;
    const char **only = NULL;
    if (f->only.count > 0) {
        only = arena_array(&tune->document->arena, const char *, f->only.count + 1);
        memcpy(only, f->only.items, f->only.count * sizeof only[0]);
    }
    bool plain = f->recipe == RECIPE_PLAIN;
    DataOptions options = {.path = f->data,
                           .val = f->val,
                           .test = f->test,
                           .held_out = plain ? 0 : f->held_out,
                           .seed = (uint64_t)f->seed,
                           .inputs = inputs,
                           .only = only,
                           .per_class = (size_t)f->per_class,
                           .skip_broken = f->skip_broken,
                           .on_broken = on_broken,
                           .context = tune};
    TRY(data_open(&options, &tune->data, err));
    for (int i = 0; i < dataset_input_count(tune->data.train); i++)
        tune->has_picture = tune->has_picture || dataset_input(tune->data.train, i)->kind == FIELD_PICTURE;
    return STATUS_OK;
}

/* Every part of the data gives what the graph takes: f32 for any float, the integer types as they are. */
static Status settle_dtypes(Tune *tune, Error *err)
{
    Dataset *parts[] = {tune->data.train, tune->data.val, tune->data.test};
    const Graph *graph = tune->document->graph;
    for (size_t p = 0; p < 3; p++) {
        if (parts[p] == NULL)
            continue;
        for (size_t i = 0, k = 0; i < graph->input_count && (int)k < dataset_input_count(parts[p]); i++) {
            if (graph->inputs[i]->constant != NULL)
                continue;
            DType dtype = graph->inputs[i]->type.dtype;
            if (dataset_input(parts[p], (int)k)->kind == FIELD_ARRAY)
                TRY(dataset_set_dtype(parts[p], false, (int)k, dtype_is_float(dtype) ? DTYPE_F32 : dtype, err));
            k++;
        }
        for (int i = 0; i < dataset_target_count(parts[p]) && (size_t)i < tune->loss_count; i++) {
            LossKind kind = tune->losses[i].kind;
            bool classes = kind == LOSS_SOFTMAX_CE || kind == LOSS_LM || kind == LOSS_DICE;
            if (!dataset_target(parts[p], i)->is_class || !classes)
                TRY(dataset_set_dtype(parts[p], true, i, classes ? DTYPE_I64 : DTYPE_F32, err));
        }
    }
    return STATUS_OK;
}

/* ---- losses
 * ------------------------------------------------------------------------------------------------------------ */

static Status parse_loss(const char *name, LossKind *kind, Error *err)
{
    static const char *const names[] = {"softmax_ce", "lm", "bce", "mse", "l1", "huber", "dice"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (LossKind)i;
            return STATUS_OK;
        }
    }
    const char *near = text_nearest(name, names, sizeof names / sizeof names[0]);
    return fail(err, STATUS_USAGE, "--loss: '%s' is none of softmax_ce, lm, bce, mse, l1, huber, dice, multi%s%s%s",
                name, near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
}

/* Whole numbers that are all 0 or 1, several a sample: labels of a picture; of a text they are a class for each token. */
static bool is_labels(const Tune *tune, const Field *target)
{
    return target->zero_one && target->type.rank <= 1 && (dtype_is_float(target->type.dtype) || tune->has_picture);
}

static LossKind loss_for(const Tune *tune, const Field *target)
{
    if (is_labels(tune, target))
        return LOSS_BCE;
    return target->is_class || dtype_is_integer(target->type.dtype) ? LOSS_SOFTMAX_CE : LOSS_MSE;
}

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
    const TextList *given = &tune->fields->losses;
    size_t targets = (size_t)dataset_target_count(tune->data.train);
    bool multi = given->count == 1 && strcmp(given->items[0], "multi") == 0;
    if (targets == 0)
        return fail(err, STATUS_REJECTED, "%s: there are no labels to train on", tune->fields->data);
    if (targets > SOURCE_MAX || (given->count > 1 && given->count != targets))
        return fail(err, STATUS_USAGE, "%zu losses for %zu targets", given->count, targets);
    for (size_t i = 0; i < targets; i++) {
        const Field *target = dataset_target(tune->data.train, (int)i);
        LossSpec *loss = &tune->losses[i];
        *loss = (LossSpec){.kind = loss_for(tune, target),
                           .output = i,
                           .weight = 1,
                           .ignore_index = tune->fields->ignore_index,
                           .label_smoothing = tune->fields->label_smoothing};
        if (given->count > 0 && !multi)
            TRY(parse_loss(given->items[given->count > 1 ? i : 0], &loss->kind, err));
        loss->target_name = arena_printf(&tune->document->arena, "regraft_target_%zu", i);
    }
    tune->loss_count = targets;
    decide_task(tune);
    return STATUS_OK;
}

/* ---- the head
 * ------------------------------------------------------------------------------------------------------------ */

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
    if (tune->fields->recipe == RECIPE_PLAIN || tune->fields->keep_head || tune->task == TASK_OTHER)
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
    progress_note(&tune->progress, "head", "cut %s (%lld classes), grafted a new head for %zu %s", old,
                  (long long)old_classes, tune->outputs, nouns[tune->task]);
    return STATUS_OK;
}

/* ---- parameters
 * ------------------------------------------------------------------------------------------------------------ */

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

/* ---- pictures
 * ---------------------------------------------------------------------------------------------------------------- */

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

static Status decide_picture(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    const char *known = model_metadata(tune->document, "regraft.preprocess");
    tune->picture = picture_spec_default();
    tune->picture.frame = dataset_is_files(tune->data.train) ? FRAME_CROP : FRAME_SQUASH;
    if (known != NULL && f->preset == NULL) {
        tune->preset = "the model's own";
        return picture_spec_parse(known, &tune->picture, err);
    }
    TRY(input_size(tune, err));
    if (f->frame > 0)
        tune->picture.frame = (FrameMode)(f->frame - 1);
    if (!isnan(f->crop))
        tune->picture.crop_fraction = f->crop;
    tune->picture.filter = (ResizeFilter)f->filter;
    if (f->preset == NULL)
        return STATUS_OK;
    const PicturePreset *preset = picture_preset(f->preset);
    if (preset == NULL)
        return fail(err, STATUS_USAGE, "--preset: there is no '%s'", f->preset);
    picture_spec_use(&tune->picture, preset);
    tune->preset = preset->name;
    return STATUS_OK;
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
    progress_note(&tune->progress, "data", "%zu training samples%s%s, %s", dataset_count(tune->data.train),
                  tune->outputs > 0 ? ", " : "",
                  tune->outputs > 0 ? arena_printf(&tune->document->arena, "%zu %s", tune->outputs, nouns[tune->task]) : "",
                  tune->data.val == NULL
                      ? "no validation"
                      : arena_printf(&tune->document->arena, "%zu for validation%s", dataset_count(tune->data.val),
                                     tune->data.was_held_out ? " (held out)" : ""));
    progress_note(&tune->progress, "model", "%s of %s parameters may be trained; BatchNorm %s",
                  human_count((int64_t)wanted).text, human_count((int64_t)all).text, forms[form]);
}

/* Sequences: batches as long as their longest sample, where nothing is lost by it. */
static Status find_lengths(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    const Dataset *const parts[] = {tune->data.train, tune->data.val, tune->data.test};
    const char *why = NULL;
    if (f->lengths == LENGTHS_KEEP || (f->lengths == LENGTHS_AUTO && f->recipe == RECIPE_PLAIN))
        return STATUS_OK;
    for (size_t p = 0; p < 3; p++)
        if (parts[p] != NULL)
            TRY(lengths_find(parts[p], tune->document, tune->losses, tune->loss_count, &tune->lengths[p],
                             p == 0 ? &why : NULL, err));
    const Lengths *train = &tune->lengths[0];
    if (train->of == NULL && f->lengths == LENGTHS_CUT)
        return fail(err, STATUS_USAGE, "--lengths cut: %s", why != NULL ? why : "no input is called a mask");
    if (why != NULL)
        progress_note(&tune->progress, "lengths", "sequences are not cut to the longest of a batch: %s", why);
    double sum = 0;
    for (size_t i = 0; i < dataset_count(tune->data.train) && train->of != NULL; i++)
        sum += train->of[i];
    if (train->of != NULL)
        progress_note(&tune->progress, "lengths",
                      "batches are cut to their longest sample: %.1f positions on average, %zu in the data",
                      sum / (double)dataset_count(tune->data.train), train->longest);
    return STATUS_OK;
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
        return fail(err, STATUS_USAGE,
                    "--example-input: the model has no live BatchNorm, nothing was moved by tracing");
    if (status == STATUS_OK)
        progress_note(&tune->progress, "statistics",
                      "took back what tracing did to the running statistics of %zu BatchNorms", moved);
    return status;
}

Status tune_setup(Tune *tune, Error *err)
{
    sha256_hex(tune->document->file.data, tune->document->file.size, tune->base_sha256);
    TRY(open_data(tune, err));
    TRY(choose_losses(tune, err));
    TRY(settle_dtypes(tune, err));
    TRY(replace_head(tune, err));
    TRY(choose_parameters(tune, err));
    TRY(find_lengths(tune, err));
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
