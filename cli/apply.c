/* The model with its metadata, the data with its parts, and the run over batches; see apply.h. */
#include "cli/apply.h"

#include <math.h>

/* ---- the model ------------------------------------------------------------------------------------------------ */

static void read_labels(Apply *apply)
{
    const char *task = model_metadata(apply->document, "regraft.task");
    apply->independent = task != NULL && strcmp(task, "labels") == 0;
    const char *text = model_metadata(apply->document, "regraft.labels");
    if (text == NULL || text[0] == '\0')
        return;
    size_t lines = 1;
    for (const char *p = text; *p != '\0'; p++)
        lines += *p == '\n';
    apply->labels = arena_array(&apply->document->arena, const char *, lines + 1);
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        apply->labels[apply->label_count++] = arena_strndup(&apply->document->arena, text, length);
        text += length + (text[length] == '\n');
    }
}

Status apply_open(Apply *apply, const char *model, const ApplyFields *fields, Error *err)
{
    memset(apply, 0, sizeof *apply);
    apply->fields = fields;
    say_quietly(fields->quiet);
    runtime_set_threads((int)fields->threads);
    TRY(document_open(model, &apply->document, err));
    TRY(document_free_batch(apply->document, NULL, err));
    read_labels(apply);
    return STATUS_OK;
}

/* ---- the data ------------------------------------------------------------------------------------------------- */

static const Value *fed_input(const Graph *graph, size_t index)
{
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL && index-- == 0)
            return graph->inputs[i];
    return NULL;
}

static Status open_parts(Apply *apply, bool unlabelled, Error *err)
{
    const Graph *graph = apply->document->graph;
    const char **inputs = arena_array(&apply->document->arena, const char *, graph->input_count + 1);
    int *ranks = arena_array(&apply->document->arena, int, graph->input_count + 1);
    for (size_t i = 0; fed_input(graph, i) != NULL; i++) {
        inputs[i] = fed_input(graph, i)->name;
        ranks[i] = fed_input(graph, i)->type.rank;
    }
    DataOptions options = {.path = apply->fields->data,
                           .whole = true,
                           .unlabelled = unlabelled,
                           .inputs = inputs,
                           .ranks = ranks,
                           .only = apply->fields->known && !apply->independent ? apply->labels : NULL,
                           .classes = unlabelled || apply->fields->known || apply->independent ? NULL : apply->labels};
    return data_open(&options, &apply->data, err);
}

/* The part asked for; else the one that nobody has trained on: test, val, then what there is. */
static Status choose_part(Apply *apply, Error *err)
{
    static const char *const names[] = {"test", "val", "train"};
    Dataset *sets[] = {apply->data.test, apply->data.val, apply->data.train};
    for (int i = 0; i < 3; i++) {
        if (sets[i] == NULL || (apply->fields->part != NULL && strcmp(apply->fields->part, names[i]) != 0))
            continue;
        apply->set = sets[i];
        apply->part = names[i];
        return STATUS_OK;
    }
    return fail(err, STATUS_USAGE, "--part: %s has no part '%s' (train, val, test)", apply->fields->data,
                apply->fields->part);
}

/* Before the loader is made, which asks for the size of a row. */
static Status settle_dtypes(Apply *apply, bool unlabelled, Error *err)
{
    const Value *input;
    for (int i = 0; i < dataset_input_count(apply->set); i++) {
        input = fed_input(apply->document->graph, (size_t)i);
        if (input == NULL)
            return fail(err, STATUS_REJECTED, "the data has %d inputs, more than the model",
                        dataset_input_count(apply->set));
        DType dtype = dtype_is_float(input->type.dtype) ? DTYPE_F32 : input->type.dtype;
        if (dataset_input(apply->set, i)->kind == FIELD_ARRAY && dtype != DTYPE_UNDEFINED)
            TRY(dataset_set_dtype(apply->set, false, i, dtype, err));
    }
    for (int i = 0; !unlabelled && i < dataset_target_count(apply->set); i++)
        if (!dataset_target(apply->set, i)->is_class)
            TRY(dataset_set_dtype(apply->set, true, i, DTYPE_F32, err));
    return STATUS_OK;
}

static bool has_pictures(const Dataset *set)
{
    for (int i = 0; i < dataset_input_count(set); i++)
        if (dataset_input(set, i)->kind == FIELD_PICTURE)
            return true;
    return false;
}

/* ---- pictures ------------------------------------------------------------------------------------------------- */

static Status size_from_input(Apply *apply, Error *err)
{
    const Value *input = fed_input(apply->document->graph, 0);
    PictureSpec *spec = &apply->picture;
    if (input == NULL || input->type.rank != 4 || fed_input(apply->document->graph, 1) != NULL)
        return fail(err, STATUS_REJECTED, "pictures need a model with one input of 4 dims");
    const int64_t *dims = input->type.dims;
    bool last = dims[1] != 1 && dims[1] != 3 && (dims[3] == 1 || dims[3] == 3);
    int64_t channels = dims[last ? 3 : 1], height = dims[last ? 1 : 2], width = dims[last ? 2 : 3];
    if (channels != 1 && channels != 3)
        return fail(err, STATUS_REJECTED, "input '%s' has %lld channels; pictures have 1 or 3", input->name,
                    (long long)channels);
    spec->channels_last = last;
    spec->channels = (int)channels;
    spec->height = height > 0 ? (int)height : 224;
    spec->width = width > 0 ? (int)width : spec->height;
    return STATUS_OK;
}

static Status decide_picture(Apply *apply, Error *err)
{
    const ApplyFields *f = apply->fields;
    const char *known = model_metadata(apply->document, "regraft.preprocess");
    apply->picture = picture_spec_default();
    apply->picture.frame = dataset_is_files(apply->set) ? FRAME_CROP : FRAME_SQUASH;
    if (!has_pictures(apply->set))
        return STATUS_OK;
    TRY(size_from_input(apply, err));
    apply->picture.bytes = fed_input(apply->document->graph, 0)->type.dtype == DTYPE_U8;
    if (apply->picture.bytes)
        picture_spec_use(&apply->picture, picture_preset("0..255"));
    if (known != NULL)
        TRY(picture_spec_parse(known, &apply->picture, err));
    else if (!apply->picture.bytes && f->preset == NULL && f->preprocess == NULL)
        say_warning(
            "the model does not say how pictures are prepared: values in 0..1 are given (--preset, --preprocess)");
    if (f->preset != NULL) {
        const PicturePreset *preset = picture_preset(f->preset);
        if (preset == NULL)
            return fail(err, STATUS_USAGE, "--preset: there is no '%s'", f->preset);
        picture_spec_use(&apply->picture, preset);
    }
    if (f->preprocess != NULL)
        TRY(picture_spec_parse(f->preprocess, &apply->picture, err));
    return picture_spec_check(&apply->picture, fed_input(apply->document->graph, 0)->name, err);
}

static void on_broken(const char *message, void *context)
{
    (void)context;
    say_warning("skipped: %s", message);
}

Status apply_open_data(Apply *apply, bool unlabelled, Error *err)
{
    TRY(open_parts(apply, unlabelled, err));
    TRY(choose_part(apply, err));
    TRY(settle_dtypes(apply, unlabelled, err));
    TRY(decide_picture(apply, err));
    LoaderOptions options = {.keep_order = true, .skip_broken = apply->fields->skip_broken, .on_broken = on_broken};
    TRY(dataset_source_init(&apply->source, apply->set, &apply->picture, &options, err));
    apply->source.unlabelled = unlabelled;
    const char *example;
    size_t ignored = dataset_ignored(apply->set, &example);
    if (ignored > 0)
        say_note("%zu files are no JPEG or PNG and were passed over (%s)", ignored, example);
    return predictor_new(apply->document, &apply->predictor, err);
}

void apply_release(Apply *apply)
{
    predictor_free(apply->predictor);
    dataset_source_release(&apply->source);
    data_close(&apply->data);
    model_free(apply->document);
    memset(apply, 0, sizeof *apply);
}

/* ---- the run -------------------------------------------------------------------------------------------------- */

/* A model whose batch is fixed takes no other: its first dim. */
static size_t batch_size(const Apply *apply)
{
    const Value *input = fed_input(apply->document->graph, 0);
    if (apply->fields->batch > 0)
        return (size_t)apply->fields->batch;
    return input != NULL && input->type.rank > 0 && input->type.dims[0] > 0 ? (size_t)input->type.dims[0] : 32;
}

Status apply_run(Apply *apply, ApplyEach each, void *context, Error *err)
{
    Source *source = &apply->source.source;
    TRY(source->start(source, 0, false, batch_size(apply), err));
    for (;;) {
        Batch batch;
        TRY(source->next(source, &batch, err));
        if (batch.size == 0)
            return STATUS_OK;
        TRY(predictor_run(apply->predictor, &batch, err));
        TRY(each(apply, &batch, context, err));
    }
}

/* ---- outputs -------------------------------------------------------------------------------------------------- */

const char *apply_class_name(const Apply *apply, size_t index)
{
    static char number[24];
    if (index < apply->label_count)
        return apply->labels[index];
    if (dataset_target_count(apply->set) > 0 && index < dataset_class_count(apply->set, 0))
        return dataset_class_name(apply->set, 0, index);
    snprintf(number, sizeof number, "%zu", index);
    return number;
}

OutputForm apply_output_form(const Apply *apply, size_t index)
{
    return output_form(apply->document->graph, index);
}
