/* What an operator *is*: one row (OpDef) that says which versions are understood and how to infer, evaluate,
 * differentiate and plan it. Which operators exist is said in runtime/ops/, one file a family, and handed in as an
 * OpSet by whoever imports a model; so passes/ and onnx/ use operators without knowing any.
 *
 * A row may leave any function NULL. Without `infer` a value's shape is known only after running; without `eval` it
 * cannot be folded or interpreted; without `grad` it cannot be trained through (unless `expand` rewrites it into
 * operators that can); without `prepare` a plan runs `eval`. docs/adding-an-op.md walks through one row. */
#ifndef REGRAFT_ONNX_OP_H
#define REGRAFT_ONNX_OP_H

#include "onnx/onnx.h"

typedef struct PlanContext PlanContext; /* runtime/kernel.h */

/* ---- eval: plain host arrays ------------------------------------------------------------------------- */

/* What an eval sees. Inputs are dense Arrays of the node's inputs (NULL: omitted). It claims each output with
 * eval_output and fills it. Floats arrive as f32 or f64 and the outputs have the same type: the caller widens and
 * narrows f16, bf16 and the 8-bit floats around rows without OP_ANY_DTYPE. */
typedef struct EvalContext {
    const Node *node;
    const Array **in;
    int in_count;
    Array **out; /* filled by eval_output; an omitted output may be claimed too, it is thrown away */
    int out_count;
    Arena *arena;        /* for outputs and scratch; lives as long as the results do */
    uint64_t seed, step; /* randomness is (seed, node, step); see eval_stream */
    /* Runs a body (If, Loop, Scan); set by the interpreter. `in` binds graph->inputs by position. */
    Status (*run_graph)(struct EvalContext *context, const Graph *graph, const Array **in, int in_count, Array **out,
                        int out_count, Error *err);
    void *runner; /* belongs to run_graph */
    /* Where output `index` goes when the caller has a buffer for it (a plan's slot): else NULL. */
    Array **place;
    bool training;
} EvalContext;

/* The array for output `index`, its data uninitialised. Fails beyond limits or when a planned buffer has another
 * shape. */
Status eval_output(EvalContext *context, int index, DType dtype, int rank, const int64_t *dims, Array **out,
                   Error *err);
/* Output `index` with the dtype and shape of `like`. */
Status eval_output_like(EvalContext *context, int index, const Array *like, Array **out, Error *err);
const Array *eval_input(const EvalContext *context, int index); /* NULL: omitted or beyond the end */
/* A message about this node: "Conv '/a': ...". */
Status eval_fail(EvalContext *context, Error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Evaluates one node on host arrays, with widening and narrowing; what folding, the interpreter and the suites call.
 * STATUS_UNSUPPORTED when the row has no eval. Outputs are allocated from context->arena. */
Status node_eval(EvalContext *context, Error *err);

/* ---- build: appending nodes with their shapes --------------------------------------------------------- */

/* Appends nodes to a working graph and infers each at once, so that shapes are known while building. The first failure
 * sticks: every later call returns NULL, and `status` is what the caller returns. */
typedef struct Builder {
    Graph *graph;
    Node *before;     /* NULL: append at the end */
    const char *stem; /* prefix of names made here */
    Status status;
    Error *err;
} Builder;

Builder builder_at(Graph *graph, Node *before, const char *stem, Error *err);
/* Newest opset of the default domain, no attributes, one output. Trailing inputs may be NULL. */
Value *build1(Builder *b, const char *op_type, Value *x);
Value *build2(Builder *b, const char *op_type, Value *x, Value *y);
Value *build3(Builder *b, const char *op_type, Value *x, Value *y, Value *z);
/* For attributes, several outputs or the internal domain: build_node, set attributes, build_finish (which infers and
 * returns output 0). */
Node *build_node(Builder *b, const char *domain, const char *op_type, Value *const *inputs, int input_count,
                 int output_count);
Value *build_finish(Builder *b, Node *node);
Value *build_scalar(Builder *b, DType dtype, double value);         /* rank-0 constant */
Value *build_ints(Builder *b, const int64_t *values, size_t count); /* 1-D int64 constant */
Value *build_constant(Builder *b, Tensor *tensor);
/* Sums `x` over what broadcasting had repeated, to the shape of `like` (ReduceTo); `x` itself when shapes agree. */
Value *build_reduce_to(Builder *b, Value *x, Value *like);

/* ---- grad ---------------------------------------------------------------------------------------------- */

/* What a gradient rule sees: dy[i] is the gradient of output i (NULL: none reaches it), and it sets dx[i] for every
 * input with wants[i] (NULL stays "zero"). New nodes go through `b`, at the end of the graph. A rule may add outputs to
 * the forward node (saved statistics, masks) with node_add_output and then call node_infer on it again. */
typedef struct GradContext {
    Node *node;
    Value **dy;
    Value **dx;
    const bool *wants;
    Builder b;
} GradContext;

/* ---- the row -------------------------------------------------------------------------------------------- */

enum OpTrait {
    OP_ELEMENTWISE = 1 << 0, /* output element i depends on inputs' elements i (after broadcasting) alone */
    OP_IN_PLACE = 1 << 1,    /* output 0 may overwrite input 0 */
    OP_MOVES_ZERO = 1 << 2,  /* f(0) != 0: channel padding of blocked buffers must be cleared */
    OP_VIEW = 1 << 3,        /* output 0 has the bytes of input 0 (Reshape, Squeeze, Identity ...) */
    OP_SHAPE_ONLY = 1 << 4,  /* reads only the shape of input 0 (Shape, Size) */
    OP_RANDOM = 1 << 5,      /* draws numbers: never folded, never merged */
    OP_ANY_DTYPE = 1 << 6,   /* eval handles every dtype itself (moves bytes, or converts) */
    OP_BODY = 1 << 7,        /* has graph attributes */
    OP_STATE = 1 << 8,       /* reads or writes ROLE_STATE */
    OP_ALIKE = 1 << 10,      /* inputs are all floats, or all of the first one's dtype */
    OP_FLOATS = 1 << 11,     /* input 0 is of floats: nothing else can be computed */
    OP_FUSES =
        1 << 9 /* elementwise, and its `prepare` can give its kernel to a fused node (passes/fuse_elementwise.c) */
};

struct OpDef {
    const char *domain; /* NULL is the default domain "" */
    const char *name;
    int since, last; /* opset versions whose text somebody has read; 0: unversioned (internal) */
    int min_inputs, max_inputs, min_outputs, max_outputs; /* max -1: any number */
    unsigned traits;
    /* Output types from input types (all dims known) and input constants. */
    Status (*infer)(Node *node, Error *err);
    Status (*eval)(EvalContext *context, Error *err);
    Status (*grad)(GradContext *context, Error *err);
    /* Rewrites a node of an older opset into the newest form, in place or by new nodes before it. NULL: all versions
     * read alike. Called by passes/upgrade with shapes not yet known. */
    Status (*upgrade)(Node *node, Error *err);
    /* Rewrites the node into simpler operators through the builder and replaces its outputs' uses. Shapes are known. */
    Status (*expand)(Node *node, Builder *b, Error *err);
    Status (*prepare)(PlanContext *context, Error *err);
    /* Floating-point operations of a node with known shapes, a multiply-add counted twice; NULL: one for each element
     * of output 0. What recomputing and the profile price a node by. */
    double (*flops)(const Node *node);
    /* For OP_STATE: turns `copy`, a second node of the same inputs, into one that gives output 0 again from what `node`
     * has saved, without an effect. NULL: its results cannot be recomputed. */
    Status (*replay)(const Node *node, Node *copy, Error *err);
    const char *no_gradient; /* why there is no `grad`, for operators where one could expect it; else NULL */
    const char *no_case;     /* why no conformance case exists; else NULL (tests/suite_rows.c insists) */
};

struct OpSet {
    const OpDef *const *families; /* each ends with a row whose name is NULL */
    size_t count;
};

/* The default domain goes by two names: "" for "ai.onnx" and NULL, others as they are. */
const char *domain_key(const char *domain);
/* The row for (domain, name) whose range holds `opset`, or NULL. */
const OpDef *opset_find(const OpSet *ops, const char *domain, const char *name, int opset);
/* Any version, to tell "unknown operator" from "known, but not at this opset". */
const OpDef *opset_find_any(const OpSet *ops, const char *domain, const char *name);

/* Runs the row's infer; checks input and output counts first. When an input's shape is unknown, or the row has no
 * infer, outputs become unknown (rank -1) and that is no failure. */
Status node_infer(Node *node, Error *err);
/* STATUS_UNSUPPORTED, for a node without a row: is the operator unknown, or its opset newer than what has been read? */
Status node_refuse(const Node *node, Error *err);
/* Dims below 2^31 and at most 2^46 elements, as far as they are known: what node_infer lets pass. */
bool type_fits(const Type *type);

/* What a node with known shapes costs: its row's flops, and the bytes of everything it reads and writes once. */
double node_flops(const Node *node);
double node_bytes(const Node *node);

/* OP_ALIKE and OP_FLOATS, asked of one input: `dtype` beside `first`, the dtype of input 0; and that complex
 * numbers are only moved. */
Status node_check_alike(const Node *node, int index, DType first, DType dtype, Error *err);
/* The row's counts of inputs and outputs, and that none of the required ones is omitted: what infer and eval may rely
 * on. */
Status node_check_counts(const Node *node, Error *err);

/* Helpers that rows share. */
void type_set(Type *type, DType dtype, int rank, const int64_t *dims);
bool type_known(const Type *type); /* tensor, dtype and every dim known */
int64_t type_count(const Type *type);
const char *type_text(Arena *arena, const Type *type); /* "float32[8,3,32,32]" */
Status infer_same(Node *node, Error *err);             /* output 0 has the type of input 0 */
Status infer_like_first(Node *node, Error *err);       /* the same, and the other inputs broadcast to it */
Status infer_broadcast(Node *node, Error *err);        /* numpy broadcasting over all inputs, dtype of input 0 */
Status infer_fail(const Node *node, Error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A node that means something, which this build does not do: STATUS_UNSUPPORTED. */
Status node_unsupported(const Node *node, Error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Numpy broadcasting of two shapes; false when they do not fit. `out` may be either input. */
bool dims_broadcast(int a_rank, const int64_t *a, int b_rank, const int64_t *b, int *rank, int64_t *out);
/* `axis` in [-rank, rank) made non-negative, else an error naming the node. */
Status axis_normalize(const Node *node, int64_t axis, int rank, int *out, Error *err);
/* Values of an input that must be known before running (axes, shape, pads): the constant's elements as int64 in the
 * arena. *values is NULL when the input is omitted; an input that is not constant gives STATUS_UNSUPPORTED. */
Status infer_ints(const Node *node, int index, const int64_t **values, size_t *count, Error *err);
bool infer_has_ints(const Node *node, int index); /* omitted or constant */

#endif
