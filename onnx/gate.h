/* What the files of the gate (import, export, external data) share and nobody else needs: protobuf-c's structures
 * beside the IR's, and the importer's notes in `blank`. */
#ifndef REGRAFT_ONNX_GATE_H
#define REGRAFT_ONNX_GATE_H

#include "onnx/onnx.h"
#include "onnx/wire.h"

#include "onnx.pb-c.h"

/* Bits of Extra.blank and its like above the field numbers. */
enum {
    BLANK_AI_ONNX = 1 << 30, /* the domain is written "ai.onnx"; the IR says "" */
    BLANK_NO_TYPE = 1 << 29, /* an attribute without `type`, as before IR version 2 */
    BLANK_NO_VALUE = 1 << 28 /* an attribute with a type, without the value, which is then zero or empty */
};

/* ---- typeproto.c ------------------------------------------------------------------------------------------ */

/* What Type can say of `proto` (NULL: nothing); texts are copied into the arena. */
void type_from_proto(Arena *arena, const Onnx__TypeProto *proto, Type *type);
/* A TypeProto in `arena`; NULL when the type is unknown. */
Onnx__TypeProto *type_to_proto(Arena *arena, const Type *type);
uint64_t type_hash(const Type *type);

/* ---- import_tensor.c -------------------------------------------------------------------------------------- */

typedef struct Gate {
    Model *model;  /* whose folder external data comes from; NULL: none is allowed */
    Arena *arena;  /* of what is made */
    Arena scratch; /* protobuf-c's structures */
    WireScan scan;
    Map sides;     /* location -> index in model->side_files, plus one */
    Opset *opsets; /* of the model or function being read */
    size_t opset_count;
    Error *err;
} Gate;

/* Scans `bytes` and unpacks the copy; the result lives in gate->scratch. */
Status gate_unpack(Gate *gate, const void *bytes, size_t size, const ProtobufCMessageDescriptor *type,
                   ProtobufCMessage **message);
void gate_release(Gate *gate);

const char *gate_text(const Gate *gate, const char *text); /* a copy in the arena; NULL stays NULL */
/* The same for a text that is never NULL; `blank` notes a "" that was written. */
const char *gate_text_blank(const Gate *gate, const char *text, unsigned field, uint32_t *blank);
void gate_pairs(const Gate *gate, size_t count, Onnx__StringStringEntryProto *const *from, Pair **pairs, size_t *n);
Bytes gate_bytes(const Gate *gate, const ProtobufCMessage *message); /* packed, in the arena */

/* `who` is for messages: "initializer 'w'". */
Status gate_tensor(Gate *gate, const Onnx__TensorProto *from, const char *who, Tensor **tensor);
Status gate_sparse(Gate *gate, const Onnx__SparseTensorProto *from, const char *who, SparseTensor **sparse);
/* The same numbers in a dense tensor named `name`. */
Status gate_densify(Gate *gate, const SparseTensor *sparse, const char *name, Tensor **tensor);

/* ---- external.c -------------------------------------------------------------------------------------------- */

/* The bytes of a tensor with external data: checks its entries, opens and maps the side file once. `tensor` has dtype,
 * dims, bytes and external entries; sets data, location and offset. */
Status external_read(Gate *gate, Tensor *tensor, const char *who);
/* Opens `location` beneath the folder, following no link; -1 and errno when that cannot be (ELOOP: a link). `stepwise`
 * does it without openat2, for kernels older than 5.6. */
int external_open(int folder, const char *location, bool stepwise);

/* ---- export_proto.c --------------------------------------------------------------------------------------------- */

/* Numbers that go to the side file, in order. */
typedef struct Moved {
    const void *data;
    size_t bytes, offset;
} Moved;

typedef struct Exporter {
    Arena arena; /* protobuf-c's structures; they point into the model */
    bool strip_doc;
    bool move_all;         /* initializers of a kilobyte or more go to the side file */
    const char *side_name; /* as `location` */
    Moved *moved;
    size_t moved_count, moved_capacity, side_size;
    Map places; /* "address:bytes" -> index in moved, plus one: shared weights are written once */
    Error *err;
} Exporter;

/* The model as a tree of messages. STATUS_UNSUPPORTED for operators that exist only inside of working graphs. */
Status export_model(Exporter *exporter, const Model *model, Onnx__ModelProto **proto);

#endif
