/* Scan, compaction and streaming of the wire format; see wire.h.
 *
 * The format: a message is a run of fields; a field is a tag (number * 8 + wire type, a varint) and a value. A varint
 * has seven bits a byte, lowest first, the top bit says that more follow. Wire types: 0 varint, 1 eight bytes, 2 a
 * length and as many bytes, 5 four bytes; 3 and 4 (groups) are refused. Source: "Encoding", protobuf.dev. */
#include "onnx/wire.h"

#include <assert.h>

#include "onnx.pb-c.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5, LENGTH_ROOM = 5 };

/* Where the scanner is, for messages: innermost first. */
typedef struct Frame {
    const struct Frame *outer;
    const char *field;
    size_t index; /* how many fields of that name came before */
    bool repeated;
} Frame;

typedef struct Scanner {
    WireScan *scan;
    const unsigned char *begin;
    size_t messages, nodes, fields;
    int depth, whole; /* whole > 0: inside of something whose tensors stay as they are */
    Error *err;
} Scanner;

/* One message that is being read. */
typedef struct Reader {
    const ProtobufCMessageDescriptor *type;
    const unsigned char *p, *end;
    const Frame *frame;
    uint32_t seen;  /* bit n: type->fields[n] occurred */
    bool has_slice; /* a tensor whose numbers were cut out */
    size_t *counts; /* by field */
} Reader;

typedef struct Field {
    const ProtobufCFieldDescriptor *row; /* NULL: unknown */
    unsigned number, wire_type;
    const unsigned char *begin;   /* of the tag */
    const unsigned char *payload; /* after the length, if there is one */
    size_t length;                /* of the payload */
} Field;

/* ---- messages for people -------------------------------------------------------------------------------- */

static void frame_text(const Frame *frame, char *text, size_t room)
{
    size_t used = 0;
    const Frame *chain[8];
    int count = 0;
    for (; frame != NULL && count < 8; frame = frame->outer)
        chain[count++] = frame;
    if (frame != NULL)
        used += (size_t)snprintf(text, room, "...");
    while (count-- > 0 && used < room) {
        const Frame *f = chain[count];
        const char *dot = used > 0 ? "." : "";
        int n = f->repeated ? snprintf(text + used, room - used, "%s%s[%zu]", dot, f->field, f->index)
                            : snprintf(text + used, room - used, "%s%s", dot, f->field);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used == 0)
        snprintf(text, room, "the file");
}

static Status reject(const Scanner *s, const Reader *r, const unsigned char *at, const char *what)
{
    char where[400];
    frame_text(r->frame, where, sizeof where);
    return fail(s->err, STATUS_REJECTED, "%s, in %s at byte %zu", what, where, (size_t)(at - s->begin));
}

static Status reject_field(const Scanner *s, const Reader *r, const Field *f, const char *what)
{
    char text[200];
    snprintf(text, sizeof text, "field '%s' %s", f->row->name, what);
    return reject(s, r, f->begin, text);
}

/* ---- the copy --------------------------------------------------------------------------------------------- */

static Status copy_room(Scanner *s, size_t more)
{
    WireScan *scan = s->scan;
    if (scan->size + more <= scan->capacity)
        return STATUS_OK;
    size_t capacity = scan->capacity * 2 + more + 256;
    unsigned char *grown = realloc(scan->copy, capacity);
    if (grown == NULL)
        return fail(s->err, STATUS_ENVIRONMENT, "no memory for %zu bytes", capacity);
    scan->copy = grown;
    scan->capacity = capacity;
    return STATUS_OK;
}

static Status copy_bytes(Scanner *s, const unsigned char *bytes, size_t size)
{
    TRY(copy_room(s, size));
    if (size > 0)
        memcpy(s->scan->copy + s->scan->size, bytes, size);
    s->scan->size += size;
    return STATUS_OK;
}

/* A tag of wire type 2 and five bytes where the length will stand (a varint may be longer than it must). */
static Status copy_open(Scanner *s, unsigned number, size_t *start)
{
    TRY(copy_room(s, 5 + LENGTH_ROOM));
    unsigned tag = number << 3 | WIRE_BYTES;
    for (; tag >= 0x80; tag >>= 7)
        s->scan->copy[s->scan->size++] = (unsigned char)(tag | 0x80);
    s->scan->copy[s->scan->size++] = (unsigned char)tag;
    s->scan->size += LENGTH_ROOM;
    *start = s->scan->size;
    return STATUS_OK;
}

static Status copy_close(Scanner *s, size_t start)
{
    size_t length = s->scan->size - start;
    if (length > INT32_MAX)
        return fail(s->err, STATUS_REJECTED, "more than 2 GB besides the numbers of tensors");
    unsigned char *p = s->scan->copy + start - LENGTH_ROOM;
    for (int i = 0; i < LENGTH_ROOM; i++)
        p[i] = (unsigned char)((length >> (7 * i) & 0x7f) | (i + 1 < LENGTH_ROOM ? 0x80 : 0));
    return STATUS_OK;
}

static Status slice_add(Scanner *s, const Field *f)
{
    WireScan *scan = s->scan;
    if (scan->slice_count == scan->slice_capacity) {
        size_t capacity = scan->slice_capacity * 2 + 64;
        WireSlice *grown = realloc(scan->slices, capacity * sizeof *grown);
        if (grown == NULL)
            return fail(s->err, STATUS_ENVIRONMENT, "no memory for %zu tensors", capacity);
        scan->slices = grown;
        scan->slice_capacity = capacity;
    }
    uint64_t index = scan->slice_count;
    scan->slices[scan->slice_count++] = (WireSlice){f->payload, f->length, f->number};
    unsigned char placeholder[WIRE_PLACEHOLDER];
    for (int i = 0; i < WIRE_PLACEHOLDER; i++)
        placeholder[i] = (unsigned char)(index >> (8 * i));
    size_t start;
    TRY(copy_open(s, TENSOR_RAW_DATA, &start)); /* also for what was float_data */
    TRY(copy_bytes(s, placeholder, sizeof placeholder));
    return copy_close(s, start);
}

const WireSlice *wire_slice(const WireScan *scan, const ProtobufCBinaryData *placeholder)
{
    uint64_t index = 0;
    if (placeholder->len != WIRE_PLACEHOLDER)
        return NULL;
    for (int i = 0; i < WIRE_PLACEHOLDER; i++)
        index |= (uint64_t)placeholder->data[i] << (8 * i);
    return index < scan->slice_count ? &scan->slices[index] : NULL;
}

/* ---- one field ---------------------------------------------------------------------------------------------- */

/* NULL: the varint is longer than ten bytes or goes beyond `end`. */
static const unsigned char *read_varint(const unsigned char *p, const unsigned char *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70 && p < end; shift += 7) {
        unsigned char byte = *p++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return p;
    }
    return NULL;
}

static unsigned wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
        return WIRE_VARINT;
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    }
    return WIRE_BYTES;
}

/* The next field at r->p, which moves behind it. Knows lengths, looks at nothing. */
static Status read_field(const Scanner *s, Reader *r, Field *f)
{
    uint64_t tag, value = 0;
    *f = (Field){.begin = r->p};
    const unsigned char *p = read_varint(r->p, r->end, &tag);
    if (p == NULL)
        return reject(s, r, r->p, "truncated or not a model: a field's tag ends early");
    f->number = (unsigned)(tag >> 3);
    f->wire_type = tag & 7;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return reject(s, r, r->p, "not a model: a field number that protobuf does not have");
    f->payload = p;
    if (f->wire_type == WIRE_VARINT) {
        p = read_varint(p, r->end, &value);
        if (p == NULL)
            return reject(s, r, f->begin, "truncated: a number ends early");
        f->length = (size_t)(p - f->payload);
    } else if (f->wire_type == WIRE_32 || f->wire_type == WIRE_64) {
        f->length = f->wire_type == WIRE_32 ? 4 : 8;
    } else if (f->wire_type == WIRE_BYTES) {
        p = read_varint(p, r->end, &value);
        if (p == NULL)
            return reject(s, r, f->begin, "truncated: a length ends early");
        f->payload = p;
        f->length = (size_t)value;
    } else {
        return reject(s, r, f->begin, "not a model: protobuf groups are not used in ONNX");
    }
    if (f->length > (size_t)(r->end - f->payload)) {
        char text[120];
        snprintf(text, sizeof text, "truncated: field %u wants %zu bytes and %zu are left", f->number, f->length,
                 (size_t)(r->end - f->payload));
        return reject(s, r, f->begin, text);
    }
    r->p = f->payload + f->length;
    f->row = protobuf_c_message_descriptor_get_field(r->type, f->number);
    return STATUS_OK;
}

static bool is_repeated(const ProtobufCFieldDescriptor *row)
{
    return row->label == PROTOBUF_C_LABEL_REPEATED;
}

/* A singular field occurs once, and one member of a oneof at most. */
static Status check_once(const Scanner *s, Reader *r, const Field *f)
{
    unsigned index = (unsigned)(f->row - r->type->fields);
    uint32_t rivals = 1u << index;
    if (f->row->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        for (unsigned i = 0; i < r->type->n_fields; i++)
            if (r->type->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
                r->type->fields[i].quantifier_offset == f->row->quantifier_offset)
                rivals |= 1u << i;
    bool again = (r->seen & rivals) != 0;
    r->seen |= 1u << index;
    if (again && !is_repeated(f->row))
        return reject_field(s, r, f, "occurs twice");
    return STATUS_OK;
}

/* A packed run of numbers: whole elements only. */
static Status check_packed(const Scanner *s, const Reader *r, const Field *f)
{
    unsigned element = wire_type_of(f->row->type);
    if (element != WIRE_VARINT) {
        if (f->length % (element == WIRE_32 ? 4 : 8) != 0)
            return reject_field(s, r, f, "does not hold whole numbers");
        return STATUS_OK;
    }
    size_t run = 0;
    for (size_t i = 0; i < f->length; i++) {
        run = f->payload[i] < 0x80 ? 0 : run + 1;
        if (run >= 10)
            return reject_field(s, r, f, "holds a number of more than ten bytes");
    }
    if (run > 0)
        return reject_field(s, r, f, "ends inside of a number");
    return STATUS_OK;
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

static Status scan_message(Scanner *s, Reader *r);

/* Single numbers of a repeated field that follow each other become one packed run, which costs protobuf-c a sixth. */
static Status scan_run(Scanner *s, Reader *r, const Field *first)
{
    size_t start;
    TRY(copy_open(s, first->number, &start));
    Field f = *first;
    for (;;) {
        TRY(copy_bytes(s, f.payload, f.length));
        const unsigned char *here = r->p;
        size_t tag = (size_t)(first->payload - first->begin);
        if ((size_t)(r->end - here) < tag || memcmp(here, first->begin, tag) != 0)
            break;
        TRY(read_field(s, r, &f));
    }
    return copy_close(s, start);
}

static Status scan_inner(Scanner *s, Reader *r, const Field *f)
{
    if (++s->messages > WIRE_MESSAGES_MAX)
        return reject_field(s, r, f, "goes beyond the limit of messages in one model");
    if (f->row->descriptor == &onnx__node_proto__descriptor && ++s->nodes > WIRE_NODES_MAX)
        return reject_field(s, r, f, "goes beyond the limit of nodes in one model");
    if (s->depth >= WIRE_DEPTH_MAX)
        return reject_field(s, r, f, "is nested more deeply than 100 messages");
    unsigned index = (unsigned)(f->row - r->type->fields);
    Frame frame = {r->frame, f->row->name, r->counts[index]++, is_repeated(f->row)};
    size_t counts[32] = {0};
    Reader inner = {
        .type = f->row->descriptor, .p = f->payload, .end = f->payload + f->length, .frame = &frame, .counts = counts};
    bool whole = f->row->descriptor == &onnx__training_info_proto__descriptor;
    size_t start;
    TRY(copy_open(s, f->number, &start));
    s->depth++;
    s->whole += whole;
    TRY(scan_message(s, &inner));
    s->whole -= whole;
    s->depth--;
    return copy_close(s, start);
}

/* Whether a field of this number follows in the message. */
static Status occurs_later(const Scanner *s, const Reader *r, unsigned number, bool *later)
{
    Reader rest = *r;
    Field f;
    *later = false;
    while (rest.p < rest.end && !*later) {
        TRY(read_field(s, &rest, &f));
        *later = f.number == number;
    }
    return STATUS_OK;
}

/* Whether the payload is a tensor's numbers as memory wants them. A float_data in pieces is left to protobuf-c. */
static Status is_slice(const Scanner *s, const Reader *r, const Field *f, bool seen_before, bool *slice)
{
    *slice = false;
    if (s->whole > 0 || r->type != &onnx__tensor_proto__descriptor || f->wire_type != WIRE_BYTES)
        return STATUS_OK;
    bool pieces = false;
    if (f->number == TENSOR_FLOAT_DATA || f->number == TENSOR_DOUBLE_DATA) {
        if (!seen_before)
            TRY(occurs_later(s, r, f->number, &pieces));
        *slice = !seen_before && !pieces;
    } else {
        *slice = f->number == TENSOR_RAW_DATA;
    }
    return STATUS_OK;
}

static Status scan_bytes(Scanner *s, Reader *r, const Field *f, bool seen_before)
{
    if (f->row->type == PROTOBUF_C_TYPE_MESSAGE)
        return scan_inner(s, r, f);
    if (f->row->type == PROTOBUF_C_TYPE_STRING && memchr(f->payload, 0, f->length) != NULL)
        return reject_field(s, r, f, "is a text with a NUL inside");
    if (wire_type_of(f->row->type) != WIRE_BYTES)
        TRY(check_packed(s, r, f));
    bool slice;
    TRY(is_slice(s, r, f, seen_before, &slice));
    if (!slice)
        return copy_bytes(s, f->begin, (size_t)(f->payload - f->begin) + f->length);
    if (r->has_slice)
        return reject_field(s, r, f, "comes on top of other numbers of the same tensor");
    r->has_slice = true;
    return slice_add(s, f);
}

static Status scan_field(Scanner *s, Reader *r)
{
    Field f;
    TRY(read_field(s, r, &f));
    if (++s->fields > WIRE_FIELDS_MAX)
        return reject(s, r, f.begin, "beyond the limit of fields in one model");
    if (f.row == NULL)
        return copy_bytes(s, f.begin, (size_t)(r->p - f.begin));
    bool seen_before = (r->seen >> (f.row - r->type->fields) & 1) != 0;
    TRY(check_once(s, r, &f));
    bool external = s->whole > 0 && r->type == &onnx__tensor_proto__descriptor && f.number == TENSOR_DATA_LOCATION;
    if (external && f.length > 0 && f.payload[0] != 0)
        return reject_field(s, r, &f, "is external: training_info is kept as it is, and its side files would be lost");
    unsigned natural = wire_type_of(f.row->type);
    bool packed = is_repeated(f.row) && natural != WIRE_BYTES && f.wire_type == WIRE_BYTES;
    if (f.wire_type != natural && !packed)
        return reject_field(s, r, &f, "has another wire type than the schema says");
    if (f.wire_type == WIRE_BYTES)
        return scan_bytes(s, r, &f, seen_before);
    if (is_repeated(f.row))
        return scan_run(s, r, &f);
    return copy_bytes(s, f.begin, (size_t)(r->p - f.begin));
}

static Status scan_message(Scanner *s, Reader *r)
{
    while (r->p < r->end)
        TRY(scan_field(s, r));
    /* a million empty nodes are two megabytes here and 160 unpacked: refused before */
    if (r->type == &onnx__node_proto__descriptor) {
        const ProtobufCFieldDescriptor *row = protobuf_c_message_descriptor_get_field(r->type, 4);
        if ((r->seen >> (row - r->type->fields) & 1) == 0)
            return reject(s, r, r->end, "a node without op_type");
    }
    return STATUS_OK;
}

Status wire_scan(const void *bytes, size_t size, const ProtobufCMessageDescriptor *root, WireScan *scan, Error *err)
{
    memset(scan, 0, sizeof *scan);
    Scanner s = {.scan = scan, .begin = bytes, .err = err};
    size_t counts[32] = {0};
    Reader r = {.type = root, .p = bytes, .end = s.begin + size, .counts = counts};
    Status status = copy_room(&s, 0);
    if (status == STATUS_OK)
        status = scan_message(&s, &r);
    if (status == STATUS_OK && scan->size > INT32_MAX)
        status = fail(err, STATUS_REJECTED, "more than 2 GB besides the numbers of tensors");
    if (status != STATUS_OK)
        wire_release(scan);
    return status;
}

void wire_release(WireScan *scan)
{
    free(scan->copy);
    free(scan->slices);
    memset(scan, 0, sizeof *scan);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static size_t varint_put(unsigned char *p, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        p[n++] = (unsigned char)(value | 0x80);
    p[n++] = (unsigned char)value;
    return n;
}

static void write_inner(const ProtobufCMessage *message, unsigned number, ProtobufCBuffer *buffer)
{
    unsigned char head[16];
    size_t n = varint_put(head, number << 3 | WIRE_BYTES);
    n += varint_put(head + n, protobuf_c_message_get_packed_size(message));
    buffer->append(buffer, n, head);
    wire_write(message, buffer);
}

/* protobuf-c packs an inner message in memory before it hands it on, weights and all. So: a shallow copy without inner
 * messages is packed by protobuf-c, and the inner messages follow from here, with lengths that are only computed. */
void wire_write(const ProtobufCMessage *message, ProtobufCBuffer *buffer)
{
    union {
        ProtobufCMessage message;
        unsigned char bytes[512];
    } shallow;
    const ProtobufCMessageDescriptor *type = message->descriptor;
    assert(type->sizeof_message <= sizeof shallow.bytes); /* the largest of our schema has 250 */
    memcpy(shallow.bytes, message, type->sizeof_message);
    const unsigned char *original = (const unsigned char *)message;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *row = &type->fields[i];
        if (row->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        uint32_t which;
        memcpy(&which, original + row->quantifier_offset, sizeof which);
        if (is_repeated(row))
            memset(shallow.bytes + row->quantifier_offset, 0, sizeof(size_t));
        else if ((row->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0)
            memset(shallow.bytes + row->offset, 0, sizeof(void *));
        else if (which == row->id)
            memset(shallow.bytes + row->quantifier_offset, 0, sizeof which);
    }
    protobuf_c_message_pack_to_buffer(&shallow.message, buffer);
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *row = &type->fields[i];
        if (row->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (is_repeated(row)) {
            size_t count;
            ProtobufCMessage **items;
            memcpy(&count, original + row->quantifier_offset, sizeof count);
            memcpy(&items, original + row->offset, sizeof items);
            for (size_t k = 0; k < count; k++)
                write_inner(items[k], row->id, buffer);
            continue;
        }
        uint32_t which;
        ProtobufCMessage *inner;
        memcpy(&which, original + row->quantifier_offset, sizeof which);
        memcpy(&inner, original + row->offset, sizeof inner);
        bool there = (row->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ? inner != NULL : which == row->id;
        if (there)
            write_inner(inner, row->id, buffer);
    }
}

/* ---- fields kept in wire format ------------------------------------------------------------------------------- */

typedef struct StrBuffer {
    ProtobufCBuffer base;
    Str *out;
} StrBuffer;

static void str_buffer_append(ProtobufCBuffer *base, size_t size, const uint8_t *bytes)
{
    StrBuffer *buffer = (StrBuffer *)base;
    str_append_bytes(buffer->out, (const char *)bytes, size);
}

void wire_keep_message(Str *out, unsigned field, const ProtobufCMessage *message)
{
    StrBuffer buffer = {{str_buffer_append}, out};
    if (field == 0)
        wire_write(message, &buffer.base);
    else
        write_inner(message, field, &buffer.base);
}

Bytes wire_unknown(Arena *arena, const ProtobufCMessage *message)
{
    if (message->n_unknown_fields == 0)
        return (Bytes){NULL, 0};
    Str out;
    str_init(&out);
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &message->unknown_fields[i];
        unsigned char head[16];
        size_t n = varint_put(head, (uint64_t)field->tag << 3 | (unsigned)field->wire_type);
        str_append_bytes(&out, (const char *)head, n);
        str_append_bytes(&out, (const char *)field->data, field->len);
    }
    Bytes kept = {arena_strndup(arena, out.text, out.length), out.length};
    str_release(&out);
    return kept;
}

bool wire_hang(Arena *arena, ProtobufCMessage *message, Bytes fields)
{
    if (fields.length == 0)
        return true;
    const unsigned char *begin = (const unsigned char *)fields.data;
    const Scanner s = {.begin = begin};
    const Reader whole = {.type = message->descriptor, .p = begin, .end = begin + fields.length};
    unsigned count = message->n_unknown_fields;
    Field f;
    for (Reader r = whole; r.p < r.end; count++)
        if (read_field(&s, &r, &f) != STATUS_OK)
            return false;
    ProtobufCMessageUnknownField *all = arena_array(arena, ProtobufCMessageUnknownField, count);
    if (message->n_unknown_fields > 0)
        memcpy(all, message->unknown_fields, message->n_unknown_fields * sizeof *all);
    message->unknown_fields = all;
    for (Reader r = whole; r.p < r.end; message->n_unknown_fields++) {
        read_field(&s, &r, &f);
        const unsigned char *value = f.begin; /* behind the tag: a length belongs to the data of an unknown field */
        while (*value++ >= 0x80)
            ;
        all[message->n_unknown_fields] = (ProtobufCMessageUnknownField){
            f.number, (ProtobufCWireType)f.wire_type, (size_t)(r.p - value), (uint8_t *)(uintptr_t)value};
    }
    return true;
}
