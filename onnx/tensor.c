/* Constant tensors of a model, and dense host arrays while something runs.
 *
 * Tensor bytes lie as in a file (little endian, 6-, 4- and 2-bit elements packed, alignment not promised); Array
 * elements take whole bytes and are aligned. Conversion goes through small buffers of double or int64, so that a pair
 * of dtypes costs two short loops and not one loop a pair. Hosts are little endian. */
#include "onnx/onnx.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor bytes are used as they lie in the file");

/* ---- shapes ------------------------------------------------------------------------------------------ */

int64_t dims_count(int rank, const int64_t *dims)
{
    int64_t count = 1;
    bool empty = false, overflow = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return -1;
        if (dims[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, dims[i], &count))
            overflow = true;
        if (overflow)
            count = 1; /* a later zero still makes the shape empty */
    }
    if (empty)
        return 0;
    return overflow ? -1 : count;
}

int64_t tensor_count(const Tensor *tensor)
{
    return dims_count(tensor->rank, tensor->dims);
}

size_t tensor_file_bytes(DType dtype, int64_t count)
{
    size_t bits = dtype_bits(dtype);
    if (bits >= 8)
        return (size_t)count * (bits / 8);
    return dtype == DTYPE_STRING ? (size_t)count * sizeof(Bytes) : ((size_t)count * bits + 7) / 8;
}

const char *dims_text(Arena *arena, int rank, const int64_t *dims)
{
    Str text;
    str_init(&text);
    str_append(&text, "[");
    for (int i = 0; i < rank; i++)
        str_printf(&text, "%s%" PRId64, i > 0 ? "," : "", dims[i]);
    str_append(&text, "]");
    char *copy = arena_strdup(arena, text.text);
    str_release(&text);
    return copy;
}

/* ---- one element as a number ------------------------------------------------------------------------- */

/* `p` is the first of the elements, possibly unaligned; `i` counts whole-byte elements. */
#define LOAD(type)                                                                                                     \
    type v;                                                                                                            \
    memcpy(&v, p + (size_t)i * sizeof v, sizeof v)

static double load_f64(DType dtype, const char *p, int64_t i)
{
    switch (dtype) {
    case DTYPE_F32: {
        LOAD(float);
        return (double)v;
    }
    case DTYPE_F64: {
        LOAD(double);
        return v;
    }
    case DTYPE_F16: {
        LOAD(uint16_t);
        return (double)f16_to_f32(v);
    }
    case DTYPE_BF16: {
        LOAD(uint16_t);
        return (double)bf16_to_f32(v);
    }
    case DTYPE_U64: {
        LOAD(uint64_t);
        return (double)v;
    }
    case DTYPE_C64: {
        LOAD(float);
        memcpy(&v, p + (size_t)i * 8, sizeof v);
        return (double)v;
    }
    case DTYPE_C128: {
        LOAD(double);
        memcpy(&v, p + (size_t)i * 16, sizeof v);
        return v;
    }
    default:
        return (double)f8_to_f32((uint8_t)p[i], dtype);
    }
}

static int64_t load_i64(DType dtype, const char *p, int64_t i)
{
    switch (dtype) {
    case DTYPE_U16: {
        LOAD(uint16_t);
        return v;
    }
    case DTYPE_I16: {
        LOAD(int16_t);
        return v;
    }
    case DTYPE_U32: {
        LOAD(uint32_t);
        return v;
    }
    case DTYPE_I32: {
        LOAD(int32_t);
        return v;
    }
    case DTYPE_U64:
    case DTYPE_I64: {
        LOAD(int64_t);
        return v;
    }
    case DTYPE_BOOL:
        return p[i] != 0;
    case DTYPE_U8:
        return (uint8_t)p[i];
    case DTYPE_U4:
        return p[i] & 15;
    case DTYPE_U2:
        return p[i] & 3;
    default: /* i8, and i4 and i2 that are sign-extended when unpacked */
        return (signed char)p[i];
    }
}

/* What x86's cvttsd2si and therefore numpy give: the most negative number for NaN and everything out of range. */
static int64_t f64_to_i64(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}

static double number_f64(DType dtype, const char *p, int64_t i)
{
    if (dtype_is_float(dtype) || dtype == DTYPE_U64 || dtype == DTYPE_C64 || dtype == DTYPE_C128)
        return load_f64(dtype, p, i);
    return (double)load_i64(dtype, p, i);
}

static int64_t number_i64(DType dtype, const char *p, int64_t i)
{
    return dtype_is_float(dtype) ? f64_to_i64(load_f64(dtype, p, i)) : load_i64(dtype, p, i);
}

double array_f64_at(const Array *array, int64_t i)
{
    return number_f64(array->dtype, array->data, i);
}

int64_t array_i64_at(const Array *array, int64_t i)
{
    return number_i64(array->dtype, array->data, i);
}

/* Element `i` of packed 6-, 4- or 2-bit data, in a byte, sign-extended for the signed types. The first element takes
 * the lowest bits; a 6-bit element may lie across two bytes. */
static char unpack(DType dtype, const char *data, int64_t i)
{
    int bits = (int)dtype_bits(dtype), shift = (int)(i * bits % 8);
    const unsigned char *p = (const unsigned char *)data + i * bits / 8;
    int code = (p[0] | (shift + bits > 8 ? p[1] << 8 : 0)) >> shift & ((1 << bits) - 1);
    bool is_signed = dtype == DTYPE_I4 || dtype == DTYPE_I2;
    return (char)(is_signed && code >> (bits - 1) ? code - (1 << bits) : code);
}

static bool is_packed(DType dtype)
{
    size_t bits = dtype_bits(dtype);
    return bits > 0 && bits < 8;
}

double tensor_f64_at(const Tensor *tensor, int64_t i)
{
    if (!is_packed(tensor->dtype))
        return number_f64(tensor->dtype, tensor->data, i);
    char one = unpack(tensor->dtype, tensor->data, i);
    return number_f64(tensor->dtype, &one, 0);
}

int64_t tensor_i64_at(const Tensor *tensor, int64_t i)
{
    if (!is_packed(tensor->dtype))
        return number_i64(tensor->dtype, tensor->data, i);
    char one = unpack(tensor->dtype, tensor->data, i);
    return number_i64(tensor->dtype, &one, 0);
}

/* ---- making tensors ----------------------------------------------------------------------------------- */

Tensor *tensor_new(Arena *arena, const char *name, DType dtype, int rank, const int64_t *dims, void **data)
{
    Tensor *tensor = arena_new(arena, Tensor);
    int64_t count = dims_count(rank, dims);
    assert(count >= 0);
    tensor->name = name == NULL ? NULL : arena_strdup(arena, name);
    tensor->dtype = dtype;
    tensor->rank = rank;
    tensor->dims = arena_copy(arena, dims, (size_t)rank * sizeof *dims);
    tensor->bytes = tensor_file_bytes(dtype, count);
    void *bytes = arena_alloc(arena, tensor->bytes);
    tensor->data = bytes;
    if (data != NULL)
        *data = bytes;
    return tensor;
}

Tensor *tensor_new_i64(Arena *arena, const char *name, int rank, const int64_t *dims, const int64_t *values)
{
    void *data;
    Tensor *tensor = tensor_new(arena, name, DTYPE_I64, rank, dims, &data);
    if (tensor->bytes > 0)
        memcpy(data, values, tensor->bytes);
    return tensor;
}

bool tensor_equal(const Tensor *a, const Tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || a->bytes != b->bytes)
        return false;
    if (a->rank > 0 && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
        return false;
    if (a->dtype != DTYPE_STRING)
        return a->bytes == 0 || a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0;
    const Bytes *x = a->data, *y = b->data;
    for (size_t i = 0; i < a->bytes / sizeof *x; i++)
        if (x[i].length != y[i].length || memcmp(x[i].data, y[i].data, x[i].length) != 0)
            return false;
    return true;
}

/* ---- arrays -------------------------------------------------------------------------------------------- */

/* Shapes come from files, and an arena does not fail softly: ask the system first for what is large. */
static bool memory_for(size_t bytes)
{
    if (bytes < (size_t)1 << 28)
        return true;
    void *probe = bytes < (size_t)INT64_MAX ? malloc(bytes) : NULL;
    bool there = probe != NULL;
    free(probe);
    return there;
}

static Status array_shape(Arena *arena, DType dtype, int rank, const int64_t *dims, Array **array, Error *err)
{
    if (rank > RANK_MAX)
        return fail(err, STATUS_UNSUPPORTED, "a tensor of rank %d; at most %d can be run", rank, RANK_MAX);
    int64_t count = dims_count(rank, dims), whole = 1;
    size_t bytes = 0;
    for (int i = 0; i < rank; i++) /* an empty one must not hide dims that nobody can multiply */
        if (dims[i] > 0 && __builtin_mul_overflow(whole, dims[i], &whole))
            count = -1;
    if (count < 0 || !size_mul((size_t)count, dtype_size(dtype), &bytes) || !memory_for(bytes))
        return fail(err, STATUS_ENVIRONMENT, "a tensor of shape %s is larger than any memory",
                    dims_text(arena, rank, dims));
    Array *new = arena_new(arena, Array);
    new->dtype = dtype;
    new->rank = rank;
    if (rank > 0)
        memcpy(new->dims, dims, (size_t)rank * sizeof *dims);
    new->count = count;
    *array = new;
    return STATUS_OK;
}

Status array_new(Arena *arena, DType dtype, int rank, const int64_t *dims, Array **array, Error *err)
{
    TRY(array_shape(arena, dtype, rank, dims, array, err));
    (*array)->data = arena_alloc(arena, (size_t)(*array)->count * dtype_size(dtype));
    return STATUS_OK;
}

Status array_from_tensor(Arena *arena, const Tensor *tensor, Array **array, Error *err)
{
    TRY(array_shape(arena, tensor->dtype, tensor->rank, tensor->dims, array, err));
    size_t size = dtype_size(tensor->dtype);
    Array *new = *array;
    if (is_packed(tensor->dtype)) {
        char *elements = arena_alloc(arena, (size_t) new->count);
        for (int64_t i = 0; i < new->count; i++)
            elements[i] = unpack(tensor->dtype, tensor->data, i);
        new->data = elements;
        return STATUS_OK;
    }
    size_t alignment = tensor->dtype == DTYPE_STRING ? _Alignof(Bytes) : size > 8 ? 8 : size;
    if ((uintptr_t)tensor->data % alignment == 0 && tensor->data != NULL)
        new->data = (void *)(uintptr_t)tensor->data; /* borrowed: nobody writes to inputs */
    else
        new->data = arena_copy(arena, tensor->data, (size_t) new->count *size);
    return STATUS_OK;
}

Tensor *tensor_from_array(Arena *arena, const char *name, const Array *array)
{
    void *data;
    Tensor *tensor = tensor_new(arena, name, array->dtype, array->rank, array->dims, &data);
    if (is_packed(array->dtype)) {
        int bits = (int)dtype_bits(array->dtype);
        unsigned char *packed = data;
        const unsigned char *elements = array->data;
        for (int64_t i = 0; i < array->count; i++) {
            int code = (elements[i] & ((1 << bits) - 1)) << i * bits % 8;
            packed[i * bits / 8] = (unsigned char)(packed[i * bits / 8] | code);
            if (code > 0xff)
                packed[i * bits / 8 + 1] = (unsigned char)(code >> 8);
        }
    } else if (array->dtype == DTYPE_STRING) {
        const Bytes *from = array->data;
        Bytes *to = data;
        for (int64_t i = 0; i < array->count; i++)
            to[i] = (Bytes){arena_strndup(arena, from[i].data, from[i].length), from[i].length};
    } else if (tensor->bytes > 0) {
        memcpy(data, array->data, tensor->bytes);
    }
    return tensor;
}

/* ---- conversion ------------------------------------------------------------------------------------------ */

enum { STRIP = 512 }; /* elements converted at a time */

#define EACH(n, expression)                                                                                            \
    for (int64_t i = 0; i < (n); i++)                                                                                  \
    expression

static void read_f64(DType dtype, const void *from, int64_t begin, int64_t n, double *to)
{
    switch (dtype) {
    case DTYPE_F32:
        EACH(n, to[i] = (double)((const float *)from)[begin + i]);
        break;
    case DTYPE_F16:
        EACH(n, to[i] = (double)f16_to_f32(((const uint16_t *)from)[begin + i]));
        break;
    case DTYPE_BF16:
        EACH(n, to[i] = (double)bf16_to_f32(((const uint16_t *)from)[begin + i]));
        break;
    default:
        EACH(n, to[i] = number_f64(dtype, from, begin + i));
        break;
    }
}

static void read_i64(DType dtype, const void *from, int64_t begin, int64_t n, int64_t *to)
{
    EACH(n, to[i] = number_i64(dtype, from, begin + i));
}

static void write_f64(DType dtype, const double *from, int64_t n, int64_t begin, void *to)
{
    switch (dtype) {
    case DTYPE_F32:
        EACH(n, ((float *)to)[begin + i] = (float)from[i]);
        break;
    case DTYPE_F64:
        EACH(n, ((double *)to)[begin + i] = from[i]);
        break;
    case DTYPE_F16:
        EACH(n, ((uint16_t *)to)[begin + i] = f32_to_f16((float)from[i]));
        break;
    case DTYPE_BF16:
        EACH(n, ((uint16_t *)to)[begin + i] = f32_to_bf16((float)from[i]));
        break;
    default:
        EACH(n, ((uint8_t *)to)[begin + i] = f32_to_f8((float)from[i], dtype, true));
        break;
    }
}

static void write_i64(DType dtype, const int64_t *from, int64_t n, int64_t begin, void *to)
{
    switch (dtype) {
    case DTYPE_U16:
    case DTYPE_I16:
        EACH(n, ((uint16_t *)to)[begin + i] = (uint16_t)from[i]);
        break;
    case DTYPE_U32:
    case DTYPE_I32:
        EACH(n, ((uint32_t *)to)[begin + i] = (uint32_t)from[i]);
        break;
    case DTYPE_U64:
    case DTYPE_I64:
        EACH(n, ((int64_t *)to)[begin + i] = from[i]);
        break;
    case DTYPE_BOOL:
        EACH(n, ((uint8_t *)to)[begin + i] = from[i] != 0);
        break;
    case DTYPE_U4:
        EACH(n, ((uint8_t *)to)[begin + i] = (uint8_t)(from[i] & 15));
        break;
    case DTYPE_U2:
        EACH(n, ((uint8_t *)to)[begin + i] = (uint8_t)(from[i] & 3));
        break;
    case DTYPE_I4:
        EACH(n, ((int8_t *)to)[begin + i] = (int8_t)((int)(from[i] & 15) - (int)(from[i] & 8) * 2));
        break;
    case DTYPE_I2:
        EACH(n, ((int8_t *)to)[begin + i] = (int8_t)((int)(from[i] & 3) - (int)(from[i] & 2) * 2));
        break;
    default:
        EACH(n, ((uint8_t *)to)[begin + i] = (uint8_t)from[i]);
        break;
    }
}

/* A float that does not fit goes as x86 and numpy have it: through int32 for the narrow types. */
static void narrow_f64(DType dtype, const double *from, int64_t n, int64_t *to)
{
    bool wide = dtype == DTYPE_I64 || dtype == DTYPE_U64 || dtype == DTYPE_U32;
    for (int64_t i = 0; i < n; i++) {
        if (dtype == DTYPE_BOOL)
            to[i] = from[i] != 0;
        else if (dtype == DTYPE_U64 && from[i] >= 0x1p63 && from[i] < 0x1p64)
            to[i] = (int64_t)(uint64_t)from[i];
        else if (wide)
            to[i] = f64_to_i64(from[i]);
        else
            to[i] = from[i] > -0x1p31 - 1 && from[i] < 0x1p31 ? (int64_t)from[i] : INT32_MIN;
    }
}

static void convert_strip(const Array *from, Array *to, int64_t begin, int64_t n)
{
    double f[STRIP];
    int64_t whole[STRIP];
    if (dtype_is_float(to->dtype)) {
        read_f64(from->dtype, from->data, begin, n, f);
        write_f64(to->dtype, f, n, begin, to->data);
    } else if (dtype_is_float(from->dtype)) {
        read_f64(from->dtype, from->data, begin, n, f);
        narrow_f64(to->dtype, f, n, whole);
        write_i64(to->dtype, whole, n, begin, to->data);
    } else {
        read_i64(from->dtype, from->data, begin, n, whole);
        write_i64(to->dtype, whole, n, begin, to->data);
    }
}

static bool convertible(DType dtype)
{
    return dtype_is_float(dtype) || dtype_is_integer(dtype) || dtype == DTYPE_BOOL;
}

Status array_convert(Arena *arena, const Array *array, DType dtype, Array **out, Error *err)
{
    if (!convertible(array->dtype) || !convertible(dtype))
        return fail(err, STATUS_UNSUPPORTED, "%s does not convert to %s", dtype_name(array->dtype), dtype_name(dtype));
    TRY(array_new(arena, dtype, array->rank, array->dims, out, err));
    for (int64_t begin = 0; begin < array->count; begin += STRIP)
        convert_strip(array, *out, begin, array->count - begin < STRIP ? array->count - begin : STRIP);
    return STATUS_OK;
}

Tensor *tensor_new_scalar(Arena *arena, const char *name, DType dtype, double value)
{
    Array one = {.dtype = DTYPE_F64, .count = 1, .data = &value}, *converted = NULL;
    Status status = array_convert(arena, &one, dtype, &converted, NULL);
    assert(status == STATUS_OK);
    (void)status;
    return tensor_from_array(arena, name, converted);
}
