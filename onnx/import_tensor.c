/* Constants out of a file: TensorProto and SparseTensorProto -> Tensor, and the value files of the ONNX backend tests.
 *
 * A tensor says its size twice, by dims and by the bytes it brings; both must agree before anybody reads a number.
 * Bytes in raw_data, float_data and double_data are borrowed from the file (onnx/wire.c cut them out); numbers that the
 * file holds as varints are copied. */
#include "onnx/gate.h"

#include <inttypes.h>

/* Sparse constants are held dense as well, for running; beyond this they are refused. */
#define DENSE_MAX ((size_t)1 << 28)

/* ---- unpacking ---------------------------------------------------------------------------------------------- */

static void *scratch_alloc(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void scratch_free(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

Status gate_unpack(Gate *gate, const void *bytes, size_t size, const ProtobufCMessageDescriptor *type,
                   ProtobufCMessage **message)
{
    TRY(wire_scan(bytes, size, type, &gate->scan, gate->err));
    ProtobufCAllocator allocator = {scratch_alloc, scratch_free, &gate->scratch};
    *message = protobuf_c_message_unpack(type, &allocator, gate->scan.size, gate->scan.copy);
    if (*message == NULL)
        return fail(gate->err, STATUS_REJECTED, "not an ONNX %s", type->short_name);
    return STATUS_OK;
}

void gate_release(Gate *gate)
{
    wire_release(&gate->scan);
    arena_release(&gate->scratch);
    map_release(&gate->sides);
}

const char *gate_text(const Gate *gate, const char *text)
{
    return text == NULL ? NULL : arena_strdup(gate->arena, text);
}

const char *gate_text_blank(const Gate *gate, const char *text, unsigned field, uint32_t *blank)
{
    if (text != NULL && text[0] == '\0')
        *blank |= 1u << field;
    return text == NULL ? "" : arena_strdup(gate->arena, text);
}

void gate_pairs(const Gate *gate, size_t count, Onnx__StringStringEntryProto *const *from, Pair **pairs, size_t *n)
{
    *n = count;
    *pairs = count == 0 ? NULL : arena_array(gate->arena, Pair, count);
    for (size_t i = 0; i < count; i++) {
        Pair *pair = &(*pairs)[i];
        pair->key = gate_text_blank(gate, from[i]->key, 1, &pair->blank);
        pair->value = gate_text_blank(gate, from[i]->value, 2, &pair->blank);
        pair->unknown = wire_unknown(gate->arena, &from[i]->base);
    }
}

Bytes gate_bytes(const Gate *gate, const ProtobufCMessage *message)
{
    Str out;
    str_init(&out);
    wire_keep_message(&out, 0, message);
    Bytes bytes = {arena_strndup(gate->arena, out.text, out.length), out.length};
    str_release(&out);
    return bytes;
}

/* ---- numbers as varints --------------------------------------------------------------------------------------- */

/* What one tensor is being read from. */
typedef struct Source {
    Gate *gate;
    const Onnx__TensorProto *from;
    const char *who;
    Tensor *to;
    int64_t count; /* elements by dims */
} Source;

static Status source_fail(const Source *s, const char *what)
{
    return fail(s->gate->err, STATUS_REJECTED, "%s: %s", s->who, what);
}

static Status check_count(const Source *s, const char *field, size_t expected, size_t found)
{
    if (expected == found)
        return STATUS_OK;
    return fail(s->gate->err, STATUS_REJECTED, "%s: %zu numbers expected in %s for %s%s, found %zu", s->who, expected,
                field, dtype_name(s->to->dtype), dims_text(s->gate->arena, s->to->rank, s->to->dims), found);
}

static void *source_room(const Source *s)
{
    void *data = arena_alloc(s->gate->arena, s->to->bytes);
    s->to->data = data;
    return data;
}

/* The range that int32_data may hold for the type. Codes of narrow floats may come sign-extended. */
static void int32_range(DType dtype, int32_t *low, int32_t *high)
{
    *low = INT32_MIN;
    *high = INT32_MAX;
    switch (dtype) {
    case DTYPE_BOOL:
        *low = 0;
        *high = 1;
        break;
    case DTYPE_U8:
        *low = 0;
        *high = UINT8_MAX;
        break;
    case DTYPE_I8:
        *low = INT8_MIN;
        *high = INT8_MAX;
        break;
    case DTYPE_U16:
        *low = 0;
        *high = UINT16_MAX;
        break;
    case DTYPE_I16:
        *low = INT16_MIN;
        *high = INT16_MAX;
        break;
    case DTYPE_F16:
    case DTYPE_BF16:
        *low = INT16_MIN;
        *high = UINT16_MAX;
        break;
    case DTYPE_F6E2M3:
    case DTYPE_F6E3M2:
        *low = 0;
        *high = 63;
        break;
    default:
        if (dtype_size(dtype) == 1) { /* 8-bit floats; packed 4- and 2-bit elements */
            *low = INT8_MIN;
            *high = UINT8_MAX;
        }
        break;
    }
}

/* 6-bit codes, one a number here, four in three bytes in a Tensor. */
static void pack_six(unsigned char *to, size_t i, unsigned code)
{
    code <<= i * 6 % 8;
    to[i * 6 / 8] = (unsigned char)(to[i * 6 / 8] | code);
    if (code > 0xff)
        to[i * 6 / 8 + 1] = (unsigned char)(code >> 8);
}

static Status read_int32(const Source *s)
{
    DType dtype = s->to->dtype;
    size_t size = dtype_size(dtype), n = s->from->n_int32_data;
    bool six = dtype_bits(dtype) == 6;
    TRY(check_count(s, "int32_data", six ? (size_t)s->count : s->to->bytes / size, n));
    int32_t low, high;
    int32_range(dtype, &low, &high);
    unsigned char *to = source_room(s);
    for (size_t i = 0; i < n; i++) {
        int32_t v = s->from->int32_data[i];
        if (v < low || v > high)
            return fail(s->gate->err, STATUS_REJECTED, "%s: element %zu of int32_data is %d, which is no %s", s->who, i,
                        v, dtype_name(dtype));
        if (six)
            pack_six(to, i, (unsigned)v);
        else
            memcpy(to + i * size, &v, size); /* little endian: the low bytes come first */
    }
    return STATUS_OK;
}

static Status read_int64(const Source *s)
{
    TRY(check_count(s, "int64_data", (size_t)s->count, s->from->n_int64_data));
    memcpy(source_room(s), s->from->int64_data, s->to->bytes);
    return STATUS_OK;
}

static Status read_uint64(const Source *s)
{
    size_t n = s->from->n_uint64_data, size = dtype_size(s->to->dtype);
    TRY(check_count(s, "uint64_data", (size_t)s->count, n));
    unsigned char *to = source_room(s);
    for (size_t i = 0; i < n; i++) {
        uint64_t v = s->from->uint64_data[i];
        if (size == 4 && v > UINT32_MAX)
            return fail(s->gate->err, STATUS_REJECTED,
                        "%s: element %zu of uint64_data is %" PRIu64 ", which is no uint32", s->who, i, v);
        memcpy(to + i * size, &v, size);
    }
    return STATUS_OK;
}

static Status read_strings(const Source *s)
{
    TRY(check_count(s, "string_data", (size_t)s->count, s->from->n_string_data));
    Bytes *to = source_room(s);
    for (size_t i = 0; i < s->from->n_string_data; i++) {
        const ProtobufCBinaryData *text = &s->from->string_data[i];
        to[i] = (Bytes){arena_strndup(s->gate->arena, (const char *)text->data, text->len), text->len};
    }
    return STATUS_OK;
}

/* float_data and double_data that came in pieces, so that wire_scan left them. */
static Status read_pieces(const Source *s)
{
    bool wide = s->from->n_double_data > 0;
    size_t n = wide ? s->from->n_double_data : s->from->n_float_data, size = wide ? sizeof(double) : sizeof(float);
    const void *numbers = wide ? (const void *)s->from->double_data : (const void *)s->from->float_data;
    TRY(check_count(s, wide ? "double_data" : "float_data", s->to->bytes / size, n));
    s->to->data = arena_copy(s->gate->arena, numbers, s->to->bytes);
    return STATUS_OK;
}

/* ---- where the numbers are -------------------------------------------------------------------------------------- */

typedef enum Place {
    PLACE_NONE,
    PLACE_FLOAT,
    PLACE_INT32,
    PLACE_STRING,
    PLACE_INT64,
    PLACE_DOUBLE,
    PLACE_UINT64,
    PLACE_COUNT
} Place;

static const char *const place_names[PLACE_COUNT] = {"none",       "float_data",  "int32_data", "string_data",
                                                     "int64_data", "double_data", "uint64_data"};

/* The typed field that holds numbers of this type. */
static Place natural_place(DType dtype)
{
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_C64:
        return PLACE_FLOAT;
    case DTYPE_STRING:
        return PLACE_STRING;
    case DTYPE_I64:
        return PLACE_INT64;
    case DTYPE_F64:
    case DTYPE_C128:
        return PLACE_DOUBLE;
    case DTYPE_U32:
    case DTYPE_U64:
        return PLACE_UINT64;
    default:
        return PLACE_INT32;
    }
}

/* STATUS_REJECTED when numbers stand in two places, or in one that does not fit the type. */
static Status find_place(const Source *s, const WireSlice *slice, Place *place)
{
    const Onnx__TensorProto *from = s->from;
    const size_t counts[PLACE_COUNT] = {0,
                                        from->n_float_data,
                                        from->n_int32_data,
                                        from->n_string_data,
                                        from->n_int64_data,
                                        from->n_double_data,
                                        from->n_uint64_data};
    *place = PLACE_NONE;
    if (slice != NULL && slice->field != TENSOR_RAW_DATA)
        *place = slice->field == TENSOR_FLOAT_DATA ? PLACE_FLOAT : PLACE_DOUBLE;
    for (int i = PLACE_FLOAT; i < PLACE_COUNT; i++) {
        if (counts[i] == 0)
            continue;
        if (slice != NULL || *place != PLACE_NONE)
            return source_fail(s, "has its numbers in two places");
        *place = (Place)i;
    }
    Place natural = natural_place(s->to->dtype);
    if (*place != PLACE_NONE && *place != natural)
        return fail(s->gate->err, STATUS_REJECTED, "%s: %s holds its numbers in %s, found in %s", s->who,
                    dtype_name(s->to->dtype), place_names[natural], place_names[*place]);
    return STATUS_OK;
}

static Status read_slice(const Source *s, const WireSlice *slice)
{
    bool raw = slice->field == TENSOR_RAW_DATA;
    if (raw && s->to->dtype == DTYPE_STRING)
        return source_fail(s, "strings cannot be in raw_data");
    if (slice->length != s->to->bytes)
        return fail(s->gate->err, STATUS_REJECTED, "%s: %zu bytes expected for %s%s, found %zu", s->who, s->to->bytes,
                    dtype_name(s->to->dtype), dims_text(s->gate->arena, s->to->rank, s->to->dims), slice->length);
    s->to->data = slice->data;
    s->to->storage = raw ? STORAGE_RAW : STORAGE_TYPED;
    return STATUS_OK;
}

static Status read_typed(const Source *s, Place place)
{
    s->to->storage = STORAGE_TYPED;
    switch (place) {
    case PLACE_INT32:
        return read_int32(s);
    case PLACE_STRING:
        return read_strings(s);
    case PLACE_INT64:
        return read_int64(s);
    case PLACE_UINT64:
        return read_uint64(s);
    case PLACE_FLOAT:
    case PLACE_DOUBLE:
        return read_pieces(s);
    case PLACE_NONE:
    case PLACE_COUNT:
        break;
    }
    if (s->to->bytes > 0)
        return fail(s->gate->err, STATUS_REJECTED, "%s: %s%s without any numbers", s->who, dtype_name(s->to->dtype),
                    dims_text(s->gate->arena, s->to->rank, s->to->dims));
    s->to->data = source_room(s);
    return STATUS_OK;
}

static Status read_numbers(const Source *s)
{
    const Onnx__TensorProto *from = s->from;
    const WireSlice *slice = NULL;
    if (from->has_raw_data) {
        slice = wire_slice(&s->gate->scan, &from->raw_data);
        if (slice == NULL)
            return source_fail(s, "has raw_data that the scan did not see");
    }
    Place place;
    TRY(find_place(s, slice, &place));
    if (from->has_data_location && from->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        if (place != PLACE_NONE || (slice != NULL && slice->length > 0))
            return source_fail(s, "has numbers in the model besides its external data");
        if (slice != NULL)
            s->to->extra.blank |= 1u << TENSOR_RAW_DATA;
        return external_read(s->gate, s->to, s->who);
    }
    if (from->has_data_location && from->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT)
        return fail(s->gate->err, STATUS_UNSUPPORTED, "%s: data_location %d is not known", s->who,
                    (int)from->data_location);
    if (from->has_data_location)
        s->to->extra.blank |= 1u << TENSOR_DATA_LOCATION;
    return slice != NULL ? read_slice(s, slice) : read_typed(s, place);
}

/* ---- the tensor -------------------------------------------------------------------------------------------------- */

static Status read_shape(Source *s)
{
    const Onnx__TensorProto *from = s->from;
    Tensor *to = s->to;
    if (!from->has_data_type || from->data_type == 0)
        return source_fail(s, "a tensor without a data type");
    if (from->data_type < 0 || from->data_type >= DTYPE_COUNT)
        return fail(s->gate->err, STATUS_UNSUPPORTED, "%s: data type %d is newer than this program", s->who,
                    from->data_type);
    to->dtype = (DType)from->data_type;
    if (from->n_dims > INT32_MAX)
        return source_fail(s, "a rank beyond any limit");
    to->rank = (int)from->n_dims;
    to->dims = arena_copy(s->gate->arena, from->dims, from->n_dims * sizeof *from->dims);
    for (int i = 0; i < to->rank; i++)
        if (to->dims[i] < 0)
            return fail(s->gate->err, STATUS_REJECTED, "%s: dim %d is %" PRId64, s->who, i, to->dims[i]);
    s->count = tensor_count(to);
    size_t bits;
    if (s->count < 0 || !size_mul((size_t)s->count, 128, &bits))
        return fail(s->gate->err, STATUS_REJECTED, "%s: a shape of more elements than any memory holds", s->who);
    to->bytes = tensor_file_bytes(to->dtype, s->count);
    return STATUS_OK;
}

static void read_extra(const Source *s)
{
    const Onnx__TensorProto *from = s->from;
    Extra *extra = &s->to->extra;
    s->to->name = gate_text(s->gate, from->name);
    extra->doc_string = gate_text(s->gate, from->doc_string);
    gate_pairs(s->gate, from->n_metadata_props, from->metadata_props, &extra->metadata, &extra->metadata_count);
    extra->metadata_capacity = extra->metadata_count;
    gate_pairs(s->gate, from->n_external_data, from->external_data, &s->to->external, &s->to->external_count);
    extra->unknown = wire_unknown(s->gate->arena, &from->base);
    if (from->segment == NULL)
        return;
    Str out;
    str_init(&out);
    wire_keep_message(&out, 3, &from->segment->base);
    str_append_bytes(&out, extra->unknown.data == NULL ? "" : extra->unknown.data, extra->unknown.length);
    extra->unknown = (Bytes){arena_strndup(s->gate->arena, out.text, out.length), out.length};
    str_release(&out);
}

Status gate_tensor(Gate *gate, const Onnx__TensorProto *from, const char *who, Tensor **tensor)
{
    Source s = {gate, from, who, arena_new(gate->arena, Tensor), 0};
    TRY(read_shape(&s));
    read_extra(&s);
    TRY(read_numbers(&s));
    *tensor = s.to;
    return STATUS_OK;
}

/* ---- sparse ------------------------------------------------------------------------------------------------------ */

/* The place of non-zero `i` in the dense tensor, or -1: indices are [NNZ] (flat) or [NNZ, rank]. */
static int64_t sparse_place(const SparseTensor *sparse, int64_t total, int64_t i)
{
    if (sparse->indices->rank == 1) {
        int64_t at = tensor_i64_at(sparse->indices, i);
        return at >= 0 && at < total ? at : -1;
    }
    int64_t at = 0;
    for (int d = 0; d < sparse->rank; d++) {
        int64_t index = tensor_i64_at(sparse->indices, i * sparse->rank + d);
        if (index < 0 || index >= sparse->dims[d])
            return -1;
        at = at * sparse->dims[d] + index;
    }
    return at;
}

static Status check_sparse(const Gate *gate, const SparseTensor *sparse, const char *who)
{
    const Tensor *values = sparse->values, *indices = sparse->indices;
    int64_t total = dims_count(sparse->rank, sparse->dims);
    if (total < 0)
        return fail(gate->err, STATUS_REJECTED, "%s: a sparse tensor of shape %s", who,
                    dims_text(gate->arena, sparse->rank, sparse->dims));
    if (values->rank != 1 || indices->dtype != DTYPE_I64)
        return fail(gate->err, STATUS_REJECTED, "%s: a sparse tensor needs 1-D values and int64 indices", who);
    bool flat = indices->rank == 1 && indices->dims[0] == values->dims[0];
    bool tuples = indices->rank == 2 && indices->dims[0] == values->dims[0] && indices->dims[1] == sparse->rank;
    if (!flat && !tuples)
        return fail(gate->err, STATUS_REJECTED, "%s: indices of shape %s do not fit %" PRId64 " values of rank %d", who,
                    dims_text(gate->arena, indices->rank, indices->dims), values->dims[0], sparse->rank);
    for (int64_t i = 0; i < values->dims[0]; i++)
        if (sparse_place(sparse, total, i) < 0)
            return fail(gate->err, STATUS_REJECTED, "%s: index %" PRId64 " of a sparse tensor is outside of %s", who, i,
                        dims_text(gate->arena, sparse->rank, sparse->dims));
    return STATUS_OK;
}

Status gate_sparse(Gate *gate, const Onnx__SparseTensorProto *from, const char *who, SparseTensor **sparse)
{
    if (from->values == NULL || from->indices == NULL)
        return fail(gate->err, STATUS_REJECTED, "%s: a sparse tensor without %s", who,
                    from->values == NULL ? "values" : "indices");
    SparseTensor *to = arena_new(gate->arena, SparseTensor);
    TRY(gate_tensor(gate, from->values, who, &to->values));
    TRY(gate_tensor(gate, from->indices, who, &to->indices));
    if (from->n_dims > INT32_MAX)
        return fail(gate->err, STATUS_REJECTED, "%s: a rank beyond any limit", who);
    to->rank = (int)from->n_dims;
    to->dims = arena_copy(gate->arena, from->dims, from->n_dims * sizeof *from->dims);
    to->unknown = wire_unknown(gate->arena, &from->base);
    *sparse = to;
    return check_sparse(gate, to, who);
}

Status gate_densify(Gate *gate, const SparseTensor *sparse, const char *name, Tensor **tensor)
{
    DType dtype = sparse->values->dtype;
    size_t size = dtype_bits(dtype) / 8, bytes;
    int64_t total = dims_count(sparse->rank, sparse->dims);
    if (dtype_bits(dtype) % 8 != 0 || size == 0)
        return fail(gate->err, STATUS_UNSUPPORTED, "sparse initializer '%s': sparse %s cannot be held", name,
                    dtype_name(dtype));
    if (total < 0 || !size_mul((size_t)total, size, &bytes) || bytes > DENSE_MAX)
        return fail(gate->err, STATUS_REJECTED, "sparse initializer '%s': %s%s is too large to be held dense", name,
                    dtype_name(dtype), dims_text(gate->arena, sparse->rank, sparse->dims));
    void *data;
    *tensor = tensor_new(gate->arena, name, dtype, sparse->rank, sparse->dims, &data);
    const char *values = sparse->values->data;
    for (int64_t i = 0; i < sparse->values->dims[0]; i++)
        memcpy((char *)data + (size_t)sparse_place(sparse, total, i) * size, values + (size_t)i * size, size);
    return STATUS_OK;
}

/* ---- files with one value ---------------------------------------------------------------------------------------- */

static Status array_of_tensor(Gate *gate, const Onnx__TensorProto *from, const char *who, Array **array)
{
    Tensor *tensor;
    TRY(gate_tensor(gate, from, who, &tensor));
    if (tensor->dtype != DTYPE_STRING) /* the caller's bytes may go before the arena does */
        tensor->data = arena_copy(gate->arena, tensor->data, tensor->bytes);
    return array_from_tensor(gate->arena, tensor, array, gate->err);
}

static Array *array_of_kind(const Gate *gate, ArrayKind kind, size_t count)
{
    Array *array = arena_new(gate->arena, Array);
    array->kind = kind;
    array->items = arena_array(gate->arena, Array *, count);
    array->item_count = count;
    return array;
}

static Status array_of_optional(Gate *gate, const Onnx__OptionalProto *from, const char *who, Array **array);

static Status array_of_sequence(Gate *gate, const Onnx__SequenceProto *from, const char *who, Array **array)
{
    if (from->n_map_values > 0 || from->n_sparse_tensor_values > 0)
        return fail(gate->err, STATUS_UNSUPPORTED, "%s: a sequence of maps or sparse tensors", who);
    size_t count = from->n_tensor_values + from->n_sequence_values + from->n_optional_values, n = 0;
    Array *to = array_of_kind(gate, ARRAY_SEQUENCE, count);
    for (size_t i = 0; i < from->n_tensor_values; i++)
        TRY(array_of_tensor(gate, from->tensor_values[i], who, &to->items[n++]));
    for (size_t i = 0; i < from->n_sequence_values; i++)
        TRY(array_of_sequence(gate, from->sequence_values[i], who, &to->items[n++]));
    for (size_t i = 0; i < from->n_optional_values; i++)
        TRY(array_of_optional(gate, from->optional_values[i], who, &to->items[n++]));
    to->dtype = n > 0 ? to->items[0]->dtype : DTYPE_UNDEFINED;
    *array = to;
    return STATUS_OK;
}

static Status array_of_optional(Gate *gate, const Onnx__OptionalProto *from, const char *who, Array **array)
{
    if (from->map_value != NULL || from->sparse_tensor_value != NULL)
        return fail(gate->err, STATUS_UNSUPPORTED, "%s: an optional map or sparse tensor", who);
    bool some = from->tensor_value != NULL || from->sequence_value != NULL || from->optional_value != NULL;
    Array *to = array_of_kind(gate, ARRAY_OPTIONAL, some ? 1 : 0);
    *array = to;
    if (from->tensor_value != NULL)
        TRY(array_of_tensor(gate, from->tensor_value, who, &to->items[0]));
    else if (from->sequence_value != NULL)
        TRY(array_of_sequence(gate, from->sequence_value, who, &to->items[0]));
    else if (from->optional_value != NULL)
        TRY(array_of_optional(gate, from->optional_value, who, &to->items[0]));
    to->dtype = some ? to->items[0]->dtype : DTYPE_UNDEFINED;
    return STATUS_OK;
}

Status array_import_proto(Arena *arena, const void *bytes, size_t size, const char *name, ArrayKind kind, Array **array,
                          Error *err)
{
    static const ProtobufCMessageDescriptor *const types[] = {[ARRAY_TENSOR] = &onnx__tensor_proto__descriptor,
                                                              [ARRAY_SEQUENCE] = &onnx__sequence_proto__descriptor,
                                                              [ARRAY_OPTIONAL] = &onnx__optional_proto__descriptor};
    Gate gate = {.arena = arena, .err = err};
    arena_init(&gate.scratch);
    map_init(&gate.sides);
    ProtobufCMessage *message;
    Status status = gate_unpack(&gate, bytes, size, types[kind], &message);
    if (status != STATUS_OK)
        error_prefix(err, "%s", name);
    else if (kind == ARRAY_TENSOR)
        status = array_of_tensor(&gate, (const Onnx__TensorProto *)message, name, array);
    else if (kind == ARRAY_SEQUENCE)
        status = array_of_sequence(&gate, (const Onnx__SequenceProto *)message, name, array);
    else
        status = array_of_optional(&gate, (const Onnx__OptionalProto *)message, name, array);
    gate_release(&gate);
    return status;
}
