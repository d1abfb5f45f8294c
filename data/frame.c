/* Pictures decoded and framed once, kept as bytes: for whoever needs the same ones several times, prepared in several ways. */
#include <string.h>

#include "data/dataset.h"

enum { FRAME_BATCH = 16 };

static Array *frames_new(const PictureSpec *spec, size_t count, Error *err)
{
    Array *array = calloc(1, sizeof *array);
    size_t bytes = (size_t)spec->width * (size_t)spec->height * (size_t)spec->channels;
    bool fits = size_mul(bytes, count, &bytes);
    if (array != NULL && fits)
        array->data = malloc(bytes + 1);
    if (array == NULL || array->data == NULL) {
        idx_free(array);
        fail(err, STATUS_ENVIRONMENT, "no memory for %zu pictures of %d x %d", count, spec->width, spec->height);
        return NULL;
    }
    array->dtype = DTYPE_U8;
    array->rank = 4;
    const int64_t dims[] = {(int64_t)count, spec->height, spec->width, spec->channels};
    memcpy(array->dims, dims, sizeof dims);
    array->count = dims_count(4, dims);
    return array;
}

static Status frames_fill(const Dataset *set, Store *store, Array *array, const PictureSpec *spec, Error *err)
{
    Loader *loader;
    LoadedBatch batch;
    LoaderOptions options = {.picture = spec, .keep_order = true, .skip_broken = true};
    size_t pixels = (size_t)spec->width * (size_t)spec->height * (size_t)spec->channels;
    unsigned char *out = array->data;
    TRY(loader_new(set, &options, &loader, err));
    Status status = loader_start(loader, 0, false, FRAME_BATCH, 0, err);
    while (status == STATUS_OK) {
        status = loader_next(loader, &batch, err);
        if (status != STATUS_OK || batch.size == 0)
            break;
        const float *from = batch.inputs[0];
        for (size_t i = 0; i < batch.size * pixels; i++)
            *out++ = (unsigned char)from[i];
        for (size_t i = 0; i < batch.size; i++)
            store->labels[store->count++] = dataset_label(set, 0, batch.ids[i]);
    }
    loader_free(loader);
    array->dims[0] = (int64_t)store->count;
    array->count = dims_count(4, array->dims);
    return status;
}

static void copy_classes(const Dataset *set, Store *store)
{
    size_t classes = dataset_class_count(set, 0);
    store->target_count = 1;
    store->targets[0] = (Field){.name = "y", .kind = FIELD_ARRAY, .is_class = true, .classes = classes};
    store->targets[0].type.dtype = DTYPE_I64;
    store->class_names[0] = arena_array(&store->arena, const char *, classes + 1);
    for (size_t i = 0; i < classes; i++)
        store->class_names[0][i] = arena_strdup(&store->arena, dataset_class_name(set, 0, i));
}

static Status fill_store(const Dataset *set, Store *store, const PictureSpec *spec, Error *err)
{
    store->labels = calloc(set->count + 1, sizeof *store->labels);
    store->shared = calloc(1, sizeof *store->shared);
    if (store->labels == NULL || store->shared == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu pictures", set->count);
    store->shared->references = 1;
    store->shared->idx[0] = frames_new(spec, set->count, err);
    if (store->shared->idx[0] == NULL)
        return STATUS_ENVIRONMENT;
    store->input_count = 1;
    store->inputs[0] = (Field){.name = "", .kind = FIELD_PICTURE};
    store->inputs[0].type.rank = -1;
    store->input_arrays[0] = store->shared->idx[0];
    copy_classes(set, store);
    return frames_fill(set, store, store->shared->idx[0], spec, err);
}

Status dataset_frame(const Dataset *set, const PictureSpec *spec, Dataset **framed, Error *err)
{
    PictureSpec bytes = *spec;
    picture_spec_use(&bytes, picture_preset("0..255"));
    bytes.channels_last = true;
    Store *store;
    TRY(store_new(set->store->place, &store, err));
    Status status = fill_store(set, store, &bytes, err);
    if (status == STATUS_OK)
        return dataset_new(store, framed, err);
    store_release(store);
    return status;
}
