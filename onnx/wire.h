/* The protobuf wire format before protobuf-c sees it, and after.
 *
 * wire_scan reads untrusted bytes once, with the schema's descriptors as a guide. It bounds what protobuf-c does not
 * bound (nesting, counts, repeated singular fields, NULs inside strings) and makes a copy in which the numbers of every
 * tensor are replaced by an index, so that weights stay where they are: in the mapped file. wire_write is the way back:
 * it streams a tree of protobuf-c messages without building nested messages in memory.
 * Nothing here knows what a model means; onnx/import.c and onnx/export.c do. */
#ifndef REGRAFT_ONNX_WIRE_H
#define REGRAFT_ONNX_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "onnx/onnx.h"

enum {
    WIRE_DEPTH_MAX = 100,        /* nested messages, the limit of protobuf's own libraries: 33 bodies in bodies */
    WIRE_MESSAGES_MAX = 1 << 21, /* in one file */
    WIRE_NODES_MAX = 1 << 19,
    WIRE_FIELDS_MAX = 1 << 24, /* runs of numbers count as one */
    WIRE_PLACEHOLDER = 8       /* bytes of raw_data in the copy: index of the slice, little endian */
};

/* Fields of TensorProto; the first three are cut out. */
enum { TENSOR_FLOAT_DATA = 4, TENSOR_RAW_DATA = 9, TENSOR_DOUBLE_DATA = 10, TENSOR_DATA_LOCATION = 14 };

/* Numbers of one tensor: raw_data, or float_data or double_data, whose packed form is the same bytes. */
typedef struct WireSlice {
    const unsigned char *data;
    size_t length;
    unsigned field; /* one of the three above */
} WireSlice;

typedef struct WireScan {
    unsigned char *copy; /* heap; what to unpack */
    size_t size, capacity;
    WireSlice *slices; /* heap; point into the scanned bytes */
    size_t slice_count, slice_capacity;
} WireScan;

/* `bytes` is to be a message of type `root`. Tensors inside ModelProto.training_info stay whole. STATUS_REJECTED says
 * where and why; then nothing is held. */
Status wire_scan(const void *bytes, size_t size, const ProtobufCMessageDescriptor *root, WireScan *scan, Error *err);
void wire_release(WireScan *scan);

/* The slice that a placeholder in a scanned copy names; NULL when it names none. */
const WireSlice *wire_slice(const WireScan *scan, const ProtobufCBinaryData *placeholder);

/* Appends `message` to `buffer`: a message's scalars and unknown fields first, then the messages in it, each by number.
 * Large byte strings go to the buffer in one piece and are never copied here. */
void wire_write(const ProtobufCMessage *message, ProtobufCBuffer *buffer);

/* One field in wire format at the end of `out`: its tag, then `message` with its length. Field 0: `message` alone. */
void wire_keep_message(Str *out, unsigned field, const ProtobufCMessage *message);
/* Every unknown field of `message`, in wire format, in the arena; empty when there is none. */
Bytes wire_unknown(Arena *arena, const ProtobufCMessage *message);
/* Hangs fields in wire format onto `message` as unknown ones, so that packing writes them; `fields` must outlive it.
 * Returns false when they are malformed. */
bool wire_hang(Arena *arena, ProtobufCMessage *message, Bytes fields);

#endif
