/* Arrays as samples: .npz files whose arrays are called like the model's inputs and y (or y_0, y_1, ...), MedMNIST's
 * train_images and train_labels, and IDX pairs. Byte arrays of rank 3 and 4 are pictures, unless the input is no
 * picture; integer targets with one number a sample are classes. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "data/dataset.h"

void shared_release(Shared *shared)
{
    if (shared == NULL || --shared->references > 0)
        return;
    npz_release(&shared->npz);
    idx_free(shared->idx[0]);
    idx_free(shared->idx[1]);
    free(shared);
}

static Status shared_new(Shared **shared, Error *err)
{
    *shared = calloc(1, sizeof **shared);
    if (*shared == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory");
    (*shared)->references = 1;
    return STATUS_OK;
}

Status shared_open(const char *path, Shared **shared, Error *err)
{
    TRY(shared_new(shared, err));
    Status status = npz_open(&(*shared)->npz, path, err);
    if (status != STATUS_OK) {
        shared_release(*shared);
        *shared = NULL;
    }
    return status;
}

/* ---- fields ---------------------------------------------------------------------------------------------------- */

static bool is_picture(const Array *array)
{
    if (array->dtype != DTYPE_U8 || (array->rank != 3 && array->rank != 4))
        return false;
    int64_t first = array->dims[1], last = array->dims[array->rank - 1];
    return array->rank == 3 ? first > 1 && last > 1 : last == 1 || last == 3 || last == 4 || first == 1 || first == 3;
}

static void set_type(Field *field, const Array *array)
{
    field->type.dtype = array->dtype;
    field->type.rank = array->rank - 1;
    for (int d = 1; d < array->rank; d++)
        field->type.dims[d - 1] = array->dims[d];
}

static Status check_length(Store *store, const char *name, const Array *array, Error *err)
{
    if (array->rank < 1)
        return fail(err, STATUS_REJECTED, "%s: array '%s' is one number; its first dim must count samples",
                    store->place, name);
    if (store->input_count == 0 && store->target_count == 0)
        store->count = (size_t)array->dims[0];
    if ((size_t)array->dims[0] != store->count)
        return fail(err, STATUS_REJECTED, "%s: array '%s' has %lld samples, '%s' has %zu", store->place, name,
                    (long long)array->dims[0], store->input_count > 0 ? store->inputs[0].name : "the first",
                    store->count);
    return STATUS_OK;
}

static Status add_input(Store *store, const char *name, const Array *array, bool as_stored, Error *err)
{
    TRY(check_length(store, name, array, err));
    if (store->input_count == FIELDS_MAX)
        return fail(err, STATUS_REJECTED, "%s: more than %d inputs", store->place, FIELDS_MAX);
    Field *field = &store->inputs[store->input_count];
    *field = (Field){.name = arena_strdup(&store->arena, name), .kind = FIELD_ARRAY};
    set_type(field, array);
    if (!as_stored && is_picture(array)) {
        field->kind = FIELD_PICTURE;
        field->type.rank = -1;
    }
    store->input_arrays[store->input_count++] = array;
    return STATUS_OK;
}

/* Integer targets: how many values there are, for the width of a head. */
static Status count_values(Store *store, const char *name, const Array *array, Field *field, Error *err)
{
    int64_t top = -1;
    for (int64_t i = 0; i < array->count; i++) {
        int64_t value = array_i64_at(array, i);
        if (value < 0 && field->is_class)
            return fail(err, STATUS_REJECTED, "%s: label %lld of sample %lld in '%s' is negative", store->place,
                        (long long)value, (long long)i, name);
        top = value > top ? value : top;
    }
    if (field->is_class && top >= 1 << 24)
        return fail(err, STATUS_REJECTED, "%s: label %lld in '%s' is too large for a class number", store->place,
                    (long long)top, name);
    field->classes = (size_t)(top + 1);
    return STATUS_OK;
}

static bool only_zero_one(const Array *array)
{
    for (int64_t i = 0; i < array->count; i++) {
        double value = array_f64_at(array, i);
        if (fabs(value) > 0 && fabs(value - 1) > 0)
            return false;
    }
    return array->count > 0;
}

static Status add_target(Store *store, const char *name, const char *called, const Array *array, Error *err)
{
    TRY(check_length(store, name, array, err));
    int index = store->target_count;
    if (index == FIELDS_MAX)
        return fail(err, STATUS_REJECTED, "%s: more than %d targets", store->place, FIELDS_MAX);
    if (array->dtype == DTYPE_STRING)
        return fail(err, STATUS_REJECTED, "%s: labels in '%s' are text; number the classes from 0", store->place, name);
    Field *field = &store->targets[index];
    *field = (Field){.name = arena_strdup(&store->arena, called), .kind = FIELD_ARRAY};
    set_type(field, array);
    bool whole = dtype_is_integer(array->dtype);
    field->is_class = whole && array->count == array->dims[0];
    if (field->is_class)
        field->type.rank = 0; /* [N,1] is [N] */
    if (whole)
        TRY(count_values(store, name, array, field, err));
    if (field->is_class)
        field->type.dtype = DTYPE_I64;
    field->zero_one = !field->is_class && only_zero_one(array);
    store->target_arrays[index] = array;
    store->target_count++;
    if (field->is_class)
        store_number_classes(store, index);
    return STATUS_OK;
}

/* ---- .npz ------------------------------------------------------------------------------------------------------- */

static bool is_target_name(const char *name)
{
    return strcmp(name, "y") == 0 || strcmp(name, "labels") == 0 || text_starts(name, "y_");
}

static const Array *find(const Store *store, const char *prefix, const char *name)
{
    char text[512];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return npz_find(&store->shared->npz, text);
}

static Status arrays_missing(const Store *store, const char *wanted, Error *err)
{
    Str have;
    str_init(&have);
    for (size_t i = 0; i < store->shared->npz.count; i++)
        str_printf(&have, "%s%s", i > 0 ? ", " : "", store->shared->npz.names[i]);
    fail(err, STATUS_REJECTED, "%s: array '%s' is missing; there are: %.600s", store->place, wanted, have.text);
    str_release(&have);
    return STATUS_REJECTED;
}

/* An array of the input's own rank is no picture where the input is none: it is not the only one, or has no four dims.
 */
static bool is_no_picture(const DataOptions *options, size_t input, const Array *array)
{
    return options->ranks != NULL && options->ranks[input] == array->rank &&
           (array->rank != 4 || options->inputs[1] != NULL);
}

/* Inputs by the model's names, or MedMNIST's "images" for the only one. */
static Status add_inputs(Store *store, const char *prefix, const DataOptions *options, Error *err)
{
    const char *const *inputs = options->inputs;
    const Npz *npz = &store->shared->npz;
    const Array *images = find(store, prefix, "images");
    if (images != NULL && (inputs == NULL || inputs[0] == NULL || inputs[1] == NULL) &&
        (inputs == NULL || inputs[0] == NULL || find(store, prefix, inputs[0]) == NULL))
        return add_input(store, "", images, false, err);
    for (size_t i = 0; inputs != NULL && inputs[i] != NULL; i++) {
        const Array *array = find(store, prefix, inputs[i]);
        if (array == NULL)
            return arrays_missing(store, inputs[i], err);
        TRY(add_input(store, inputs[i], array, is_no_picture(options, i, array), err));
    }
    for (size_t i = 0; inputs == NULL && i < npz->count; i++)
        if (text_starts(npz->names[i], prefix) && !is_target_name(npz->names[i] + strlen(prefix)))
            TRY(add_input(store, npz->names[i] + strlen(prefix), npz->arrays[i], false, err));
    return store->input_count == 0 ? arrays_missing(store, "x", err) : STATUS_OK;
}

static Status add_targets(Store *store, const char *prefix, bool unlabelled, Error *err)
{
    const Array *array = find(store, prefix, "y");
    if (array != NULL)
        return add_target(store, "y", "y", array, err);
    if ((array = find(store, prefix, "labels")) != NULL)
        return add_target(store, "labels", "y", array, err);
    for (int i = 0; i < FIELDS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "y_%d", i);
        if ((array = find(store, prefix, name)) == NULL)
            break;
        TRY(add_target(store, name, name, array, err));
    }
    return store->target_count == 0 && !unlabelled ? arrays_missing(store, "y", err) : STATUS_OK;
}

static bool has_part(const Shared *shared, const char *prefix)
{
    if (prefix[0] == '\0')
        return true;
    for (size_t i = 0; i < shared->npz.count; i++)
        if (text_starts(shared->npz.names[i], prefix))
            return true;
    return false;
}

Status open_arrays(Shared *shared, const char *path, const char *prefix, const DataOptions *options, Store **store,
                   Error *err)
{
    *store = NULL;
    if (!has_part(shared, prefix))
        return STATUS_OK;
    TRY(store_new(path, store, err));
    (*store)->shared = shared;
    shared->references++;
    Status status = add_inputs(*store, prefix, options, err);
    if (status == STATUS_OK)
        status = add_targets(*store, prefix, options->unlabelled, err);
    if (status == STATUS_OK && (*store)->count == 0)
        status = fail(err, STATUS_REJECTED, "%s: there are no samples in its arrays", path);
    if (status != STATUS_OK) {
        store_release(*store);
        *store = NULL;
    }
    return status;
}

/* ---- IDX -------------------------------------------------------------------------------------------------------- */

/* "train-images-idx3-ubyte.gz" -> "train-labels-idx1-ubyte.gz", with or without .gz. */
static bool labels_beside(const char *pictures, char *labels, size_t room)
{
    const char *images = strstr(pictures, "images"), *rank = images == NULL ? NULL : strstr(images, "idx3");
    if (rank == NULL)
        return false;
    snprintf(labels, room, "%.*slabels%.*sidx1%s", (int)(images - pictures), pictures, (int)(rank - images - 6),
             images + 6, rank + 4);
    if (access(labels, R_OK) == 0)
        return true;
    size_t length = strlen(labels);
    if (text_ends(labels, ".gz"))
        labels[length - 3] = '\0';
    else if (length + 4 < room)
        memcpy(labels + length, ".gz", 4);
    return access(labels, R_OK) == 0;
}

static Status fill_idx(Store *store, const char *pictures, bool unlabelled, Error *err)
{
    char labels[4096];
    TRY(idx_read(pictures, &store->shared->idx[0], err));
    TRY(add_input(store, "", store->shared->idx[0], false, err));
    if (labels_beside(pictures, labels, sizeof labels)) {
        TRY(idx_read(labels, &store->shared->idx[1], err));
        return add_target(store, "labels", "y", store->shared->idx[1], err);
    }
    if (!unlabelled)
        return fail(err, STATUS_REJECTED, "%s: the file with its labels (...labels-idx1-ubyte) is missing", pictures);
    return STATUS_OK;
}

Status open_idx(const char *pictures, bool unlabelled, Store **store, Error *err)
{
    TRY(store_new(pictures, store, err));
    Status status = shared_new(&(*store)->shared, err);
    if (status == STATUS_OK)
        status = fill_idx(*store, pictures, unlabelled, err);
    if (status == STATUS_OK && (*store)->count == 0)
        status = fail(err, STATUS_REJECTED, "%s: there are no samples in it", pictures);
    if (status != STATUS_OK) {
        store_release(*store);
        *store = NULL;
    }
    return status;
}
