/* One part of the data, asked for samples: pictures decoded, rows of arrays converted, labels, names. */
#include <math.h>
#include <string.h>

#include "data/dataset.h"

size_t dataset_count(const Dataset *set)
{
    return set->count;
}

int dataset_input_count(const Dataset *set)
{
    return set->store->input_count;
}

int dataset_target_count(const Dataset *set)
{
    return set->store->target_count;
}

const Field *dataset_input(const Dataset *set, int index)
{
    return &set->input_fields[index];
}

const Field *dataset_target(const Dataset *set, int index)
{
    return &set->target_fields[index];
}

bool dataset_is_files(const Dataset *set)
{
    return set->store->is_files;
}

size_t dataset_ignored(const Dataset *set, const char **example)
{
    const FileList *files = &set->store->files;
    if (example != NULL)
        *example = files->ignored > 0 ? files->text + files->example_at : NULL;
    return files->ignored;
}

/* ---- classes -------------------------------------------------------------------------------------------------- */

size_t dataset_class_count(const Dataset *set, int target)
{
    return target < set->store->target_count ? set->target_fields[target].classes : 0;
}

const char *dataset_class_name(const Dataset *set, int target, size_t index)
{
    const char **names = target == 0 && set->relabel != NULL ? set->class_names : set->store->class_names[target];
    return names == NULL || index >= set->target_fields[target].classes ? "" : names[index];
}

const char *dataset_column_name(const Dataset *set, int target, size_t index)
{
    const Store *store = set->store;
    bool named = target == 0 && store->column_names != NULL && (int64_t)index < store->targets[0].type.dims[0];
    return named ? store->column_names[index] : NULL;
}

int64_t dataset_label(const Dataset *set, int target, size_t sample)
{
    const Store *store = set->store;
    size_t id = set->ids[sample];
    int64_t label = -1;
    if (!store->targets[target].is_class)
        return -1;
    if (target == 0 && store->labels != NULL)
        label = store->labels[id];
    else if (store->target_arrays[target] != NULL)
        label = array_i64_at(store->target_arrays[target], (int64_t)id);
    if (label < 0 || (size_t)label >= store->targets[target].classes)
        return -1;
    return target == 0 && set->relabel != NULL ? set->relabel[label] : label;
}

void dataset_class_counts(const Dataset *set, int target, size_t *counts)
{
    memset(counts, 0, dataset_class_count(set, target) * sizeof *counts);
    for (size_t i = 0; i < set->count; i++) {
        int64_t label = dataset_label(set, target, i);
        if (label >= 0)
            counts[label]++;
    }
}

void dataset_sample_name(const Dataset *set, size_t sample, Str *out)
{
    if (set->store->is_files)
        files_name(&set->store->files, set->ids[sample], out);
    else {
        str_clear(out);
        str_printf(out, "%zu", set->ids[sample]);
    }
}

/* ---- pictures --------------------------------------------------------------------------------------------------- */

static Status picture_from_file(const Store *store, size_t id, int least, Picture *picture, Error *err)
{
    Str path;
    Mapping file;
    str_init(&path);
    files_path(&store->files, id, store->place, &path);
    Status status = mapping_open(&file, path.text, err);
    if (status == STATUS_OK) {
        status = picture_decode(picture, file.data, file.size, least, path.text, err);
        mapping_release(&file);
    }
    str_release(&path);
    return status;
}

/* [N,H,W], [N,H,W,C] or [N,C,H,W] of bytes; a fourth channel is alpha and dropped. */
static Status picture_from_array(const Array *array, size_t id, Picture *picture, Error *err)
{
    bool grey = array->rank == 3, last = !grey && (array->dims[3] == 1 || array->dims[3] == 3 || array->dims[3] == 4);
    int stored = grey ? 1 : (int)array->dims[last ? 3 : 1], channels = stored == 4 ? 3 : stored;
    size_t height = (size_t)array->dims[grey || last ? 1 : 2], width = (size_t)array->dims[grey || last ? 2 : 3];
    size_t pixels = height * width;
    TRY(picture_resize_buffer(picture, (int)width, (int)height, channels, err));
    const unsigned char *from = (const unsigned char *)array->data + id * pixels * (size_t)stored;
    if (channels == stored && (channels == 1 || last)) {
        memcpy(picture->pixels, from, pixels * (size_t)channels);
        return STATUS_OK;
    }
    size_t step = last ? (size_t)stored : 1, plane = last ? 1 : pixels;
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < (size_t)channels; c++)
            picture->pixels[i * (size_t)channels + c] = from[i * step + c * plane];
    return STATUS_OK;
}

Status dataset_picture(const Dataset *set, int input, size_t sample, int least, Picture *picture, Error *err)
{
    const Store *store = set->store;
    if (store->is_files)
        return picture_from_file(store, set->ids[sample], least, picture, err);
    return picture_from_array(store->input_arrays[input], set->ids[sample], picture, err);
}

/* ---- arrays: rows, converted ------------------------------------------------------------------------------------- */

#define FOR_SOURCES(X, to_type, name)                                                                                  \
    X(DTYPE_F32, float, to_type, name)                                                                                 \
    X(DTYPE_F64, double, to_type, name)                                                                                \
    X(DTYPE_I8, int8_t, to_type, name)                                                                                 \
    X(DTYPE_I16, int16_t, to_type, name)                                                                               \
    X(DTYPE_I32, int32_t, to_type, name)                                                                               \
    X(DTYPE_I64, int64_t, to_type, name)                                                                               \
    X(DTYPE_U8, uint8_t, to_type, name)                                                                                \
    X(DTYPE_U16, uint16_t, to_type, name)                                                                              \
    X(DTYPE_U32, uint32_t, to_type, name)                                                                              \
    X(DTYPE_U64, uint64_t, to_type, name)                                                                              \
    X(DTYPE_BOOL, uint8_t, to_type, name)

#define CONVERT_CASE(dtype, from_type, to_type, name)                                                                  \
    case dtype:                                                                                                        \
        for (size_t i = 0; i < n; i++)                                                                                 \
            ((to_type *)out)[i] = (to_type)((const from_type *)from)[i];                                               \
        return;

#define DEFINE_CONVERT(to_type, name)                                                                                  \
    static void name(DType dtype, const void *from, size_t n, void *out)                                               \
    {                                                                                                                  \
        switch ((int)dtype) {                                                                                          \
            FOR_SOURCES(CONVERT_CASE, to_type, name)                                                                   \
        case DTYPE_F16:                                                                                                \
            for (size_t i = 0; i < n; i++)                                                                             \
                ((to_type *)out)[i] = (to_type)f16_to_f32(((const uint16_t *)from)[i]);                                \
            return;                                                                                                    \
        }                                                                                                              \
    }
DEFINE_CONVERT(float, convert_f32)
DEFINE_CONVERT(double, convert_f64)
DEFINE_CONVERT(int64_t, convert_i64)
DEFINE_CONVERT(int32_t, convert_i32)
DEFINE_CONVERT(uint8_t, convert_u8)

static void convert(DType from_dtype, const void *from, size_t n, DType dtype, void *out)
{
    if (from_dtype == dtype)
        memcpy(out, from, n * dtype_size(dtype));
    else if (dtype == DTYPE_F32)
        convert_f32(from_dtype, from, n, out);
    else if (dtype == DTYPE_F64)
        convert_f64(from_dtype, from, n, out);
    else if (dtype == DTYPE_I64)
        convert_i64(from_dtype, from, n, out);
    else if (dtype == DTYPE_I32)
        convert_i32(from_dtype, from, n, out);
    else
        convert_u8(from_dtype, from, n, out);
}

static bool can_read(DType dtype)
{
    return dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_BOOL ||
           (dtype >= DTYPE_U8 && dtype <= DTYPE_I64) || dtype == DTYPE_U32 || dtype == DTYPE_U64;
}

static bool can_write(DType dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_I64 || dtype == DTYPE_I32 || dtype == DTYPE_U8 ||
           dtype == DTYPE_BOOL;
}

Status dataset_set_dtype(Dataset *set, bool target, int index, DType dtype, Error *err)
{
    Field *field = target ? &set->target_fields[index] : &set->input_fields[index];
    const Array *array = target ? set->store->target_arrays[index] : set->store->input_arrays[index];
    DType from = array != NULL ? array->dtype : set->store->values != NULL ? DTYPE_F32 : DTYPE_I64;
    if (from != dtype && (!can_read(from) || !can_write(dtype)))
        return fail(err, STATUS_REJECTED, "%s: array '%s' is %s and cannot be made %s", set->store->place, field->name,
                    dtype_name(from), dtype_name(dtype));
    if (dtype_is_float(from) && !dtype_is_float(dtype))
        return fail(err, STATUS_REJECTED, "%s: array '%s' is %s, but whole numbers (%s) are needed", set->store->place,
                    field->name, dtype_name(from), dtype_name(dtype));
    field->type.dtype = dtype;
    return STATUS_OK;
}

void dataset_row(const Dataset *set, bool target, int index, size_t sample, void *out)
{
    const Store *store = set->store;
    const Field *field = target ? &set->target_fields[index] : &set->input_fields[index];
    size_t id = set->ids[sample], n = (size_t)dims_count(field->type.rank, field->type.dims);
    const Array *array = target ? store->target_arrays[index] : store->input_arrays[index];
    if (target && (store->targets[index].is_class && (index == 0 || array == NULL))) {
        int64_t label = dataset_label(set, index, sample);
        convert(DTYPE_I64, &label, 1, field->type.dtype, out);
    } else if (array == NULL) {
        convert(DTYPE_F32, store->values + id * n, n, field->type.dtype, out);
    } else {
        const char *from = (const char *)array->data + id * n * dtype_size(array->dtype);
        convert(array->dtype, from, n, field->type.dtype, out);
    }
}
