/* The model as the rest of the program sees it: Model, Graph, Node, Value, Tensor, Attr.
 *
 * Two graphs use these types. The *document* is what a file held: surgery edits it, export writes it, and what
 * nobody touched stays byte for byte. The *working graph* is made from it to be run (passes/working.c):
 * functions inlined, operators in their newest form, shapes concrete, loss and gradients added. It borrows
 * tensor bytes from the document and must not outlive it.
 *
 * Everything reachable from a Model lives in its arena; passes unlink, nobody frees. Tensor bytes are in the arena or
 * borrowed from a mapped file that the Model holds. The invariants are in docs/ir.md; graph_check enforces them.
 * What an operator is, stands in onnx/op.h. The sections below follow the files, in the order data flows. */
#ifndef REGRAFT_ONNX_H
#define REGRAFT_ONNX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onnx/base/arena.h"
#include "onnx/base/error.h"
#include "onnx/base/file.h"
#include "onnx/base/map.h"
#include "onnx/base/str.h"

typedef struct Model Model;
typedef struct Graph Graph;
typedef struct Node Node;
typedef struct Value Value;
typedef struct OpDef OpDef; /* onnx/op.h */
typedef struct OpSet OpSet;

/* The one limit on rank for everything that is *run*; a file may hold more and is kept as it is. */
enum { RANK_MAX = 16 };

/* The newest opset of the default domain whose text has been read; what working graphs are written in. */
enum { OPSET_NEWEST = 28 };

/* Domain of operators that exist only inside working graphs (gradients, fusions); export refuses it. */
#define DOMAIN_INTERNAL "ai.regraft"

/* ---- dtype.c: element types ------------------------------------------------------------------------- */

/* Numbers are ONNX's TensorProto.DataType. */
typedef enum DType {
    DTYPE_UNDEFINED = 0,
    DTYPE_F32 = 1,
    DTYPE_U8 = 2,
    DTYPE_I8 = 3,
    DTYPE_U16 = 4,
    DTYPE_I16 = 5,
    DTYPE_I32 = 6,
    DTYPE_I64 = 7,
    DTYPE_STRING = 8,
    DTYPE_BOOL = 9,
    DTYPE_F16 = 10,
    DTYPE_F64 = 11,
    DTYPE_U32 = 12,
    DTYPE_U64 = 13,
    DTYPE_C64 = 14,
    DTYPE_C128 = 15,
    DTYPE_BF16 = 16,
    DTYPE_F8E4M3FN = 17,
    DTYPE_F8E4M3FNUZ = 18,
    DTYPE_F8E5M2 = 19,
    DTYPE_F8E5M2FNUZ = 20,
    DTYPE_U4 = 21,
    DTYPE_I4 = 22,
    DTYPE_F4E2M1 = 23,
    DTYPE_F8E8M0 = 24,
    DTYPE_U2 = 25,
    DTYPE_I2 = 26,
    DTYPE_F6E2M3 = 27,
    DTYPE_F6E3M2 = 28,
    DTYPE_COUNT
} DType;

const char *dtype_name(DType dtype);     /* "float32", "int64", ... "undefined" for anything unknown */
DType dtype_from_name(const char *name); /* accepts "float32", "float", "f32" alike; UNDEFINED if unknown */
size_t dtype_bits(DType dtype);          /* in a file: 4 for int4; 0 for string and undefined */
size_t dtype_size(DType dtype);          /* of one element in an Array: at least 1 byte; sizeof(Bytes) for string */
bool dtype_is_float(DType dtype);        /* f16, bf16, f32, f64, the 8- and 4-bit floats */
bool dtype_is_integer(DType dtype);      /* signed or unsigned, not bool */

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);              /* round to nearest even, NaN stays NaN */
float f8_to_f32(uint8_t bits, DType dtype); /* the 8-bit floats and, in the low bits, the 4-bit one */
/* Rounds to nearest even; `saturate` as in Cast-19 (E8M0: round as Cast-24's default "up"). */
uint8_t f32_to_f8(float f, DType dtype, bool saturate);

/* ---- tensor.c: constant data, and arrays on the host ------------------------------------------------- */

/* `unknown`: fields that the structure has no place for, in wire format. `blank`: bit n says that field n was written
 * though it held its default; the bits from 27 on are the importer's notes (onnx/gate.h). Both are zero in what passes
 * make. */
typedef struct Pair {
    const char *key, *value;
    Bytes unknown;
    uint32_t blank;
} Pair;

/* What a message of the file held besides what we understand; kept so that export loses nothing. */
typedef struct Extra {
    const char *doc_string; /* NULL: absent */
    Pair *metadata;         /* metadata_props, in order */
    size_t metadata_count, metadata_capacity;
    Bytes unknown;  /* as in Pair; device configurations and segments are among them */
    uint32_t blank; /* as in Pair */
} Extra;

typedef enum TensorStorage {
    STORAGE_RAW,     /* raw_data */
    STORAGE_TYPED,   /* float_data, int32_data, ... */
    STORAGE_EXTERNAL /* a side file */
} TensorStorage;

/* A constant of the file. `data` is little endian and dense in row-major order however it was stored; 6-, 4- and 2-bit
 * elements stay packed as in the file; strings are an array of Bytes. */
typedef struct Tensor {
    const char *name; /* NULL when the file had none */
    DType dtype;
    int rank;
    int64_t *dims;
    const void *data;
    size_t bytes;
    TensorStorage storage;
    const char *location; /* STORAGE_EXTERNAL: file name as written in the model */
    int64_t offset;       /* in that file */
    Pair *external;       /* every external_data entry as read */
    size_t external_count;
    Extra extra;
} Tensor;

/* Elements of a shape; -1 when the product overflows or a dim is negative. Rank 0 has one. */
int64_t dims_count(int rank, const int64_t *dims);
int64_t tensor_count(const Tensor *tensor);
/* Bytes that `count` elements take in a file (4-bit types are packed). */
size_t tensor_file_bytes(DType dtype, int64_t count);
/* "[64,3,7,7]"; the text lives in the arena. */
const char *dims_text(Arena *arena, int rank, const int64_t *dims);
/* A new tensor whose zeroed data is in the arena; *data is where to write it. `name` may be NULL. */
Tensor *tensor_new(Arena *arena, const char *name, DType dtype, int rank, const int64_t *dims, void **data);
Tensor *tensor_new_i64(Arena *arena, const char *name, int rank, const int64_t *dims, const int64_t *values);
Tensor *tensor_new_scalar(Arena *arena, const char *name, DType dtype, double value); /* rank 0 */
/* Element `i` as a number; for any numeric dtype and bool. Meant for small shape tensors, not for loops over weights.
 */
double tensor_f64_at(const Tensor *tensor, int64_t i);
int64_t tensor_i64_at(const Tensor *tensor, int64_t i);
bool tensor_equal(const Tensor *a, const Tensor *b); /* dtype, shape and bytes */

/* A host value while something runs. One element takes dtype_size bytes (4-bit types are unpacked, one a byte; strings
 * are Bytes). A sequence or an optional holds other Arrays. */
typedef enum ArrayKind { ARRAY_TENSOR, ARRAY_SEQUENCE, ARRAY_OPTIONAL } ArrayKind;

typedef struct Array {
    ArrayKind kind;
    DType dtype;
    int rank;
    int64_t dims[RANK_MAX];
    int64_t count; /* elements */
    void *data;
    struct Array **items; /* sequence: item_count of them; optional: 0 or 1 */
    size_t item_count;
} Array;

/* A dense array with uninitialised data from the arena. STATUS_UNSUPPORTED beyond RANK_MAX, STATUS_ENVIRONMENT
 * when the size overflows. */
Status array_new(Arena *arena, DType dtype, int rank, const int64_t *dims, Array **array, Error *err);
Status array_from_tensor(Arena *arena, const Tensor *tensor, Array **array, Error *err); /* unpacks; else borrows */
Tensor *tensor_from_array(Arena *arena, const char *name, const Array *array);           /* packs; copies */
/* `array` as another float or integer dtype, element by element, C conversion (halves rounded to nearest). */
Status array_convert(Arena *arena, const Array *array, DType dtype, Array **out, Error *err);
double array_f64_at(const Array *array, int64_t i);
int64_t array_i64_at(const Array *array, int64_t i);

/* ---- attr.c: attributes ------------------------------------------------------------------------------ */

typedef enum AttrType { /* ONNX's AttributeProto.AttributeType */
                        ATTR_UNDEFINED = 0,
                        ATTR_FLOAT = 1,
                        ATTR_INT = 2,
                        ATTR_STRING = 3,
                        ATTR_TENSOR = 4,
                        ATTR_GRAPH = 5,
                        ATTR_FLOATS = 6,
                        ATTR_INTS = 7,
                        ATTR_STRINGS = 8,
                        ATTR_TENSORS = 9,
                        ATTR_GRAPHS = 10,
                        ATTR_SPARSE = 11,
                        ATTR_SPARSES = 12,
                        ATTR_TYPE = 13,
                        ATTR_TYPES = 14
} AttrType;

typedef struct SparseTensor {
    Tensor *values, *indices;
    int rank;
    int64_t *dims;
    Bytes unknown; /* as in Pair */
} SparseTensor;

typedef struct Attr {
    const char *name;
    AttrType type;
    const char *ref_attr_name; /* in a function body: value comes from the caller's attribute; else NULL */
    float f;
    int64_t i;
    Bytes s; /* terminated as well, for text */
    Tensor *t;
    Graph *g;
    SparseTensor *sparse;
    size_t count; /* of whichever list below */
    float *floats;
    int64_t *ints;
    Bytes *strings;
    Tensor **tensors;
    Graph **graphs;
    SparseTensor **sparses;
    Bytes *types; /* ATTR_TYPE, ATTR_TYPES: TypeProtos in wire format */
    Extra extra;
} Attr;

Attr *node_attr(const Node *node, const char *name); /* NULL when absent */
/* The value, or `absent` when the attribute is not there (or is of another type, which graph_check reports). */
int64_t node_int(const Node *node, const char *name, int64_t absent);
float node_float(const Node *node, const char *name, float absent);
const char *node_string(const Node *node, const char *name, const char *absent);
const int64_t *node_ints(const Node *node, const char *name, size_t *count); /* NULL and 0 when absent */
const float *node_floats(const Node *node, const char *name, size_t *count);
Tensor *node_tensor(const Node *node, const char *name);
Graph *node_graph(const Node *node, const char *name);
/* Setters add or replace. */
void node_set_int(Node *node, const char *name, int64_t value);
void node_set_float(Node *node, const char *name, float value);
void node_set_string(Node *node, const char *name, const char *value);
void node_set_ints(Node *node, const char *name, const int64_t *values, size_t count);
void node_set_floats(Node *node, const char *name, const float *values, size_t count);
void node_set_tensor(Node *node, const char *name, Tensor *tensor);
void node_set_graph(Node *node, const char *name, Graph *graph);
void node_remove_attr(Node *node, const char *name);
void node_copy_attrs(Node *to, const Node *from); /* shallow: values are shared */

/* ---- model.c, graph.c: building and editing ------------------------------------------------------------------- */

typedef enum TypeKind { TYPE_TENSOR, TYPE_SEQUENCE, TYPE_OPTIONAL, TYPE_MAP, TYPE_SPARSE, TYPE_UNKNOWN } TypeKind;

/* What is known of a value's type. In a working graph after passes/infer, every dim is >= 0 or, for what depends on
 * data, rank is -1. In a document a dim may be -1 with its symbol ("batch") or without one. */
typedef struct Type {
    TypeKind kind;
    DType dtype; /* of the elements, also inside a sequence */
    int rank;    /* -1: unknown */
    int64_t dims[RANK_MAX];
    const char *symbols[RANK_MAX]; /* NULL: none */
} Type;

typedef struct Use {
    Node *node;
    int index; /* node->inputs[index] is the value */
} Use;

typedef enum Role {
    ROLE_PLAIN,     /* computed, or not decided yet */
    ROLE_INPUT,     /* fed by the caller */
    ROLE_PARAMETER, /* trained; Value.parameter is its number */
    ROLE_CONSTANT,  /* fixed numbers */
    ROLE_STATE      /* kept from step to step without a gradient: running statistics */
} Role;

struct Value {
    const char *name; /* unique in its graph */
    Graph *graph;
    Node *producer; /* NULL for inputs and initializers */
    int producer_index;
    Tensor *constant; /* initializer, or a result known before running; else NULL */
    Type type;
    uint64_t
        type_read; /* type_hash of `type` as the importer set it: export leaves types alone that have not changed */
    bool is_input, is_output, has_info; /* has_info: has an entry in value_info */
    bool is_initializer;                /* listed as an initializer (`constant` alone may come from folding) */
    Pair *notes; /* metadata_props of its value_info as read; to look at, export has the original */
    size_t note_count;
    int body_outputs; /* how often bodies of other graphs list it as an output */
    Use *uses;
    size_t use_count, use_capacity;
    /* working graphs only */
    Role role;
    int parameter;   /* ROLE_PARAMETER: index into the parameter list; else -1 */
    Tensor *origin;  /* the document's tensor that this constant or parameter was read from */
    Value *gradient; /* set by autodiff for parameters and inputs that asked for one */
    int mark;        /* scratch of whichever pass runs now */
    void *note;      /* the same */
};

struct Node {
    const char *name; /* may be "" and need not be unique (hazard 8) */
    const char *op_type, *domain, *overload;
    int input_count, output_count;
    Value **inputs, **outputs; /* NULL: omitted optional */
    size_t input_capacity, output_capacity;
    Attr **attrs;
    size_t attr_count, attr_capacity;
    const OpDef *op; /* its row, or NULL when the table has none for this domain, name and opset */
    int opset;       /* version of its domain that the node is written in */
    Graph *graph;
    Node *previous, *next;
    Extra extra;
    int index;                 /* position, valid after graph_number */
    int mark;                  /* scratch of whichever pass runs now */
    void *note;                /* the same */
    bool again;                /* working graphs: a copy that makes a forward result once more for the gradient */
    const Node *document_node; /* working graphs: the node of the document this came from, for messages; else NULL */
};

/* A ValueInfoProto as read, in wire format. Export looks it up by value and brings name and type up to date. */
typedef struct Info {
    Value *value; /* NULL: names nothing in the graph */
    Bytes proto;
} Info;

struct Graph {
    Model *model;
    const char *name;
    Graph *parent; /* of a body of If, Loop, Scan; NULL for the main graph and functions */
    Node *parent_node;
    Node *first, *last;
    size_t node_count;
    Value **inputs, **outputs, **initializers; /* in file order */
    size_t input_count, input_capacity, output_count, output_capacity;
    size_t initializer_count, initializer_capacity;
    Map values;                               /* name -> Value, of this graph alone */
    Info *input_infos, *output_infos, *infos; /* infos: value_info; export adds the values that have has_info since */
    size_t input_info_count, output_info_count, info_count;
    SparseTensor **sparse_initializers;
    const char **sparse_names;
    size_t sparse_count;
    Bytes quantization; /* quantization_annotation fields in wire format */
    Extra extra;
    unsigned next_name;
    Graph *made_before; /* every graph ever made in the model, so that model_free finds their maps */
};

typedef struct Opset {
    const char *domain; /* "" is ai.onnx */
    int64_t version;
    Bytes unknown;  /* as in Pair */
    uint32_t blank; /* as in Pair */
} Opset;

/* A model-local function: a graph whose inputs and outputs are matched by position. */
typedef struct Function {
    const char *domain, *name, *overload;
    Graph *graph;
    Opset *opsets;
    size_t opset_count;
    const char **attrs; /* attributes without a default */
    size_t attr_count;
    Attr **defaults; /* attribute_proto */
    size_t default_count;
    Extra extra;
} Function;

struct Model {
    Arena arena;
    const char *path; /* NULL when not from a file */
    Mapping file;
    Mapping *side_files; /* external data */
    const char **side_paths;
    size_t side_count, side_capacity;
    const OpSet *ops;
    int64_t ir_version;
    const char *producer_name, *producer_version, *domain; /* NULL: absent */
    int64_t model_version;
    bool has_model_version;
    Opset *opsets;
    size_t opset_count, opset_capacity;
    Function **functions;
    size_t function_count, functions_indexed;
    Map function_index; /* model_function's own */
    Pair *metadata;     /* metadata_props */
    size_t metadata_count, metadata_capacity;
    const char *doc_string;
    Bytes unknown;  /* fields without a place here: training_info and configuration are among them */
    uint32_t blank; /* as in Pair */
    Graph *graph;
    Graph *last_made;
};

Model *model_new(const OpSet *ops);
void model_free(Model *model);
/* Whoever walks over all weights calls model_rest every so many bytes. */
#define MODEL_REST_BYTES ((size_t)256 << 20)
void model_rest(const Model *model); /* its files' pages may leave memory until they are read again */
int64_t model_opset(const Model *model, const char *domain); /* 0 when not imported */
void model_set_opset(Model *model, const char *domain, int64_t version);
const char *model_metadata(const Model *model, const char *key);           /* NULL when absent */
void model_set_metadata(Model *model, const char *key, const char *value); /* adds or replaces; NULL removes */
const char *extra_metadata(const Extra *extra, const char *key);
const char *value_metadata(const Value *value, const char *key);
Function *model_function(const Model *model, const char *domain, const char *name, const char *overload);

Graph *graph_new(Model *model, const char *name, Graph *parent);
/* `name` is copied into the arena. NULL or a taken name gets a fresh one derived from it. */
Value *graph_add_value(Graph *graph, const char *name);
Value *graph_find(const Graph *graph, const char *name);       /* this graph alone */
Value *graph_resolve(const Graph *graph, const char *name);    /* then the graphs around it */
const char *graph_unique_name(Graph *graph, const char *stem); /* free in this graph and those around it */
void graph_add_input(Graph *graph, Value *value);
void graph_add_output(Graph *graph, Value *value);
void graph_clear_outputs(Graph *graph);
void graph_remove_input(Graph *graph, Value *value);
void graph_replace_output(Graph *graph, size_t index, Value *value);
Value *graph_add_initializer(Graph *graph, Tensor *tensor); /* value named tensor->name */
/* The same in a document: before IR version 4 every initializer had to be an input too, so such a document becomes
 * version 4. */
Value *graph_add_weight(Graph *graph, Tensor *tensor);
void graph_remove_initializer(Graph *graph, Value *value);                        /* must have no uses left */
void graph_remove_initializers(Graph *graph, bool (*remove)(const Value *value)); /* all that it says, in one pass */
void graph_rename_value(Graph *graph, Value *value, const char *name);            /* `name` must be free */
void graph_remove_value(Graph *graph, Value *value); /* without producer, uses, or listing */

/* A node at the end of `graph`, or before `before` when that is not NULL. Inputs may be NULL (omitted).
 * It gets `output_count` fresh values named after `name`; pass output_count 0 and add them with node_add_output to
 * choose names. The row is looked up in the model's operator set with `opset` as version. */
Node *graph_add_node(Graph *graph, Node *before, const char *domain, const char *op_type, int opset, const char *name,
                     Value *const *inputs, int input_count, int output_count);
Value *node_add_output(Node *node, const char *value_name);
void node_add_input(Node *node, Value *value);
void node_set_output(Node *node, int index, Value *value); /* `value` has no producer yet, or NULL */
void node_set_input(Node *node, int index, Value *value);  /* keeps use lists right; grows the inputs if needed */
void node_set_op(Node *node, const char *domain, const char *op_type,
                 int opset);                     /* changes what it is, looks up the row */
void node_move_before(Node *node, Node *before); /* NULL: to the end */
void node_remove(Node *node); /* unlinks it; its outputs lose their producer and, when unused, disappear */
bool node_is(const Node *node, const char *op_type); /* default domain only */
Value *node_input(const Node *node, int index);      /* NULL beyond the end */
Value *node_output(const Node *node, int index);
/* "Conv '/conv1/Conv'", for messages; points into the model's arena. */
const char *node_text(const Node *node);

/* Every use of `from`, in this graph and its bodies, and every listing as an output now means `to`. */
void value_replace_uses(Value *from, Value *to);
bool value_is_constant(const Value *value); /* has a Tensor and is not an overridable graph input */

void graph_number(Graph *graph); /* Node.index = position */
/* Stable topological order. STATUS_REJECTED names a node on a cycle. */
Status graph_sort(Graph *graph, Error *err);
/* A deep copy into `model` (nodes, values, bodies); tensors and attributes are shared with the original. */
Graph *graph_clone(Model *model, const Graph *graph);

/* ---- check.c: the invariants of docs/ir.md ----------------------------------------------------------- */

/* STATUS_REJECTED names the first offender. */
Status graph_check(const Graph *graph, Error *err);
Status model_check(const Model *model, Error *err);

/* ---- print.c, parse.c: the text form (ONNX's textual syntax; docs/ir.md) ------------------------------- */

void graph_print(const Graph *graph, Str *out);
void model_print(const Model *model, Str *out);
/* What graph_print writes, and by hand the same: for tests and small examples. The caller frees the model. */
Status model_parse(const char *text, const OpSet *ops, Model **model, Error *err);

/* ---- import.c, wire.c, external.c, export.c: files ----------------------------------------------------- */

/* Reads a model. STATUS_REJECTED: unreadable, malformed, hostile, beyond a limit; nothing is left allocated. */
Status model_import(const char *path, const OpSet *ops, Model **model, Error *err);
Status model_import_bytes(const void *bytes, size_t size, const char *name_for_messages, const OpSet *ops,
                          Model **model, Error *err);
/* One TensorProto as the ONNX backend tests store it; also in `sequence`/`optional` form. */
Status array_import_proto(Arena *arena, const void *bytes, size_t size, const char *name, ArrayKind kind, Array **array,
                          Error *err);

/* `twin` was read from the same files as `model`: its initializers use those mappings from now on, so that no byte is
 * in memory, or compared, twice. Does nothing when the files seem to differ. `model` must live as long as `twin`. */
void model_share(Model *twin, const Model *model);

typedef struct ExportOptions {
    bool strip_doc;                         /* drop doc strings and stack traces (hazard 37) */
    bool external;                          /* force external data; else only above 1.8 GB or when the source had it */
    const char *const *inputs_not_to_touch; /* NULL-terminated paths that must not be overwritten */
} ExportOptions;

/* Writes atomically, never over the model's own source or side files (STATUS_USAGE). */
Status model_export(const Model *model, const char *path, const ExportOptions *options, Error *err);

#endif
