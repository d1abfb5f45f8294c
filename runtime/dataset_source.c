/* A Dataset of data/ as a Source of batches for a Trainer: fields become the model's inputs, targets what the losses
 * read. */
#include <string.h>

#include "runtime/train.h"

static void batch_type(const Field *field, const PictureSpec *picture, Type *type)
{
    memset(type, 0, sizeof *type);
    if (field->kind == FIELD_PICTURE) {
        const int64_t first[] = {1, picture->channels, picture->height, picture->width};
        const int64_t last[] = {1, picture->height, picture->width, picture->channels};
        type_set(type, picture->bytes ? DTYPE_U8 : DTYPE_F32, 4, picture->channels_last ? last : first);
        return;
    }
    int64_t dims[RANK_MAX] = {1};
    int rank = field->type.rank < 0 ? 0 : field->type.rank;
    memcpy(dims + 1, field->type.dims, (size_t)rank * sizeof dims[0]);
    type_set(type, field->type.dtype, rank + 1, dims);
}

static Status dataset_start(Source *base, uint64_t epoch, bool train, size_t batch, Error *err)
{
    DatasetSource *source = base->context;
    return loader_start(source->loader, epoch, train, batch, 0, err);
}

static Status dataset_next(Source *base, Batch *batch, Error *err)
{
    DatasetSource *source = base->context;
    LoadedBatch loaded;
    if (source->interrupted != NULL && source->interrupted(NULL))
        return fail(err, STATUS_INTERRUPTED, "interrupted");
    TRY(loader_next(source->loader, &loaded, err));
    memset(batch, 0, sizeof *batch);
    batch->size = loaded.size;
    batch->ids = loaded.ids;
    batch->input_count = dataset_input_count(source->set);
    batch->target_count = source->unlabelled ? 0 : dataset_target_count(source->set);
    for (int i = 0; i < batch->input_count; i++) {
        batch_type(dataset_input(source->set, i), &source->picture, &batch->input_types[i]);
        batch->input_types[i].dims[0] = (int64_t)loaded.size;
        if (loaded.length > 0 && source->lengths->cut_input[i])
            batch->input_types[i].dims[1] = (int64_t)loaded.length;
        batch->inputs[i] = loaded.size > 0 ? loaded.inputs[i] : NULL;
    }
    for (int i = 0; i < batch->target_count; i++) {
        batch_type(dataset_target(source->set, i), &source->picture, &batch->target_types[i]);
        batch->target_types[i].dims[0] = (int64_t)loaded.size;
        if (loaded.length > 0 && source->lengths->cut_target[i])
            batch->target_types[i].dims[1] = (int64_t)loaded.length;
        batch->targets[i] = loaded.size > 0 ? loaded.targets[i] : NULL;
    }
    return STATUS_OK;
}

Status dataset_source_init(DatasetSource *source, const Dataset *set, const PictureSpec *picture,
                           const LoaderOptions *options, Error *err)
{
    memset(source, 0, sizeof *source);
    source->set = set;
    source->picture = *picture;
    source->lengths = options->lengths;
    LoaderOptions with_picture = *options;
    with_picture.picture = &source->picture;
    source->source =
        (Source){.count = dataset_count(set), .context = source, .start = dataset_start, .next = dataset_next};
    return loader_new(set, &with_picture, &source->loader, err);
}

void dataset_source_release(DatasetSource *source)
{
    loader_free(source->loader);
    memset(source, 0, sizeof *source);
}
