/* Pictures decoded and framed once, kept as bytes: for whoever needs the same ones several times, prepared in several
 * ways. */
#include <math.h>
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

static bool has_classes(const Dataset *set)
{
    return set->store->target_count > 0 && set->target_fields[0].is_class;
}

/* How unevenly the mean of number `column` divides the samples: 0 in halves, 0.5 not at all. */
static double unevenness(const float *rows, size_t count, size_t width, size_t column, double *border)
{
    double above = 0;
    *border = 0;
    for (size_t i = 0; i < count; i++)
        *border += (double)rows[i * width + column] / (double)count;
    for (size_t i = 0; i < count; i++)
        above += (double)rows[i * width + column] > *border;
    return fabs(above / (double)count - 0.5);
}

/* Samples that have no class, told apart by the number that divides them most evenly: above its mean or not. */
static void two_ways(const float *rows, size_t count, size_t width, int64_t *labels)
{
    size_t best = 0;
    double least = 1, border, chosen = 0;
    for (size_t column = 0; column < width; column++) {
        double uneven = unevenness(rows, count, width, column, &border);
        if (uneven < least) {
            least = uneven;
            best = column;
            chosen = border;
        }
    }
    for (size_t i = 0; i < count; i++)
        labels[i] = (double)rows[i * width + best] > chosen;
}

/* `labels` [count of set]: of the classes, or of the two ways. */
static Status label_samples(const Dataset *set, int64_t *labels, Error *err)
{
    const Field *field = &set->target_fields[0];
    for (size_t i = 0; i < set->count && has_classes(set); i++)
        labels[i] = dataset_label(set, 0, i);
    if (has_classes(set))
        return STATUS_OK;
    if (set->store->target_count == 0 || field->type.dtype != DTYPE_F32)
        return fail(err, STATUS_UNSUPPORTED, "%s: neither classes nor float targets", set->store->place);
    size_t width = (size_t)dims_count(field->type.rank, field->type.dims), bytes;
    float *rows = NULL;
    if (!size_mul(set->count * sizeof *rows, width, &bytes) || (rows = malloc(bytes + 1)) == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu targets", set->count);
    for (size_t i = 0; i < set->count; i++)
        dataset_row(set, true, 0, i, rows + i * width);
    two_ways(rows, set->count, width, labels);
    free(rows);
    return STATUS_OK;
}

static Status frames_fill(const Dataset *set, Store *store, Array *array, const PictureSpec *spec,
                          const int64_t *labels, Error *err)
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
            store->labels[store->count++] = labels[batch.ids[i]];
    }
    loader_free(loader);
    array->dims[0] = (int64_t)store->count;
    array->count = dims_count(4, array->dims);
    return status;
}

static void copy_classes(const Dataset *set, Store *store)
{
    static const char *const ways[] = {"below", "above"};
    size_t classes = has_classes(set) ? dataset_class_count(set, 0) : 2;
    store->target_count = 1;
    store->targets[0] = (Field){.name = "y", .kind = FIELD_ARRAY, .is_class = true, .classes = classes};
    store->targets[0].type.dtype = DTYPE_I64;
    store->class_names[0] = arena_array(&store->arena, const char *, classes + 1);
    for (size_t i = 0; i < classes; i++)
        store->class_names[0][i] =
            arena_strdup(&store->arena, has_classes(set) ? dataset_class_name(set, 0, i) : ways[i]);
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
    int64_t *labels = calloc(set->count + 1, sizeof *labels);
    Status status = labels == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu labels", set->count)
                                   : label_samples(set, labels, err);
    if (status == STATUS_OK)
        status = frames_fill(set, store, store->shared->idx[0], spec, labels, err);
    free(labels);
    return status;
}

Status dataset_frame(const Dataset *set, const PictureSpec *spec, Dataset **framed, Error *err)
{
    PictureSpec bytes = *spec;
    picture_spec_use(&bytes, picture_preset("0..255"));
    bytes.channels_last = true;
    bytes.bytes = false;
    Store *store;
    TRY(store_new(set->store->place, &store, err));
    Status status = fill_store(set, store, &bytes, err);
    if (status == STATUS_OK)
        return dataset_new(store, framed, err);
    store_release(store);
    return status;
}
