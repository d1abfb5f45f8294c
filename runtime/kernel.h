/* How an operator's row becomes a step of a plan: the interface between runtime/ops/ and runtime/plan.c.
 *
 * Planning walks the working graph once, in order, and calls each row's `prepare` with a PlanContext. There the row
 * says in which layout it wants its inputs and gives its outputs, makes its oneDNN primitives, asks for scratch, and
 * names the function to run. After all rows are prepared the plan decides where every slot lives, and only then are
 * pointers valid: Step.in[i]->data, Step.out[i]->data, step->scratch. Running is a loop over steps; a kernel allocates
 * nothing.
 *
 * Layouts. A slot is PLAIN (dense row-major) or in the plan's channel family: BLOCKED (nChw16c or nChw8c, asked of the
 * library) or NHWC, for rank 3 to 5 with channels at axis 1; or it has a descriptor of its own (OPAQUE: weights in the
 * order a convolution wants, workspaces). kernel_input inserts reorders where a producer and a consumer disagree, once
 * per value and layout.
 *
 * Precision. A plan may compute in bfloat16 (context->compute): a slot of a float value then lies in f32 or in bf16,
 * whatever the value's own type says. kernel_input and kernel_output speak of the value's own type, so a row that knows
 * nothing of bf16 gets f32 through a converting reorder; rows that know it use the _as forms. Parameters, their
 * gradients, statistics and what leaves the graph are f32.
 *
 * Elementwise rows follow their inputs (kernel_follow) and work on the physical shape (slot_physical), where a
 * blocked tensor is just one dim more: broadcasting works there as on plain dims. */
#ifndef REGRAFT_RUNTIME_KERNEL_H
#define REGRAFT_RUNTIME_KERNEL_H

#include "onnx/op.h"
#include "runtime/dnnl.h"

typedef enum Layout { LAYOUT_PLAIN, LAYOUT_BLOCKED, LAYOUT_NHWC, LAYOUT_OPAQUE } Layout;

typedef struct Slot {
    const Value *value; /* NULL for scratch and reorder results */
    DType dtype;        /* of the bytes: the value's own, or DTYPE_BF16 for a float value in a plan of that precision */
    int rank;
    int64_t dims[RANK_MAX]; /* logical */
    Layout layout;
    dnnl_md md;   /* NULL for LAYOUT_PLAIN slots nobody asked a descriptor of; see slot_md */
    size_t bytes; /* padding included */
    void *data;   /* after planning */
    /* planning only */
    struct Slot *base; /* this slot shares the bytes of `base` (views, in-place) */
    int first, last;   /* steps between which the bytes must live */
    bool persistent;   /* parameters, constants, state, inputs: not in the arena */
    bool opaque_bytes; /* a workspace: bytes without a shape */
    int pending;       /* of a storage root: uses of its bytes by nodes not planned yet */
    size_t offset;
    struct ParamUse *parameter; /* a parameter's home slot: where in the store; else NULL */
} Slot;

typedef struct Step Step;
struct Step {
    Status (*run)(Step *step, Error *err);
    const Node *node;
    Slot **in, **out; /* by the node's indices; NULL: omitted */
    int in_count, out_count;
    void *state;   /* the kernel's own, in the plan's arena */
    void *scratch; /* shared by all steps; at least what the step asked for */
    size_t scratch_bytes;
    struct Plan *plan;
    DnnlCall *call;     /* when the step is one primitive: bound by the plan after placing */
    const char *kernel; /* which implementation was chosen, for --profile and tests: "jit:avx512_core", "own" */
    double seconds;     /* of all runs, filled when the plan profiles */
    double begin, took; /* of the last run */
    uint64_t stream;    /* randomness: stable number of the node */
    int position;       /* in the plan's list; -1 while not in it */
};

struct PlanContext {
    struct Plan *plan;
    const Node *node;
    Step *step;
    bool training;
    bool plain_only; /* tests: refuse layouts and fast paths, take the plainest way */
    DnnlEngine *dnnl;
    Layout family; /* what channel tensors use in this plan */
    int block;     /* channels a block, for LAYOUT_BLOCKED */
    DType compute; /* DTYPE_F32, or DTYPE_BF16: what rows that can should compute floats in */
    bool winograd; /* PlanOptions.winograd */
    struct Recording
        *recording; /* set while a fused node asks a part what it would run (ops/elementwise.h); else NULL */
};

/* Inputs, in the wanted layout; NULL when omitted. A constant input in OPAQUE layout is reordered once, at planning. */
Slot *kernel_input(PlanContext *context, int index, Layout layout);
/* In this precision when it is a float value; DTYPE_UNDEFINED: in whichever it lies. */
Slot *kernel_input_as(PlanContext *context, int index, Layout layout, DType dtype);
Slot *kernel_input_any(PlanContext *context, int index);                  /* in the layout in which it lies now */
Slot *kernel_input_md(PlanContext *context, int index, const_dnnl_md md); /* exactly so */
/* A weight that is trained: offers `md` as its home layout (the first offer of a training plan wins) and returns a slot
 * in `md`, reordered each step when the home is another. For constants the same as kernel_input_md. */
Slot *kernel_weight(PlanContext *context, int index, const_dnnl_md md);
/* The same when the kernel's layout is no home, because it is bf16: `home` (f32; NULL: plain) is offered instead. */
Slot *kernel_weight_from(PlanContext *context, int index, const_dnnl_md md, const_dnnl_md home);
Layout kernel_input_layout(PlanContext *context, int index);
DType kernel_input_dtype(PlanContext *context, int index); /* of its bytes as they lie now; DTYPE_UNDEFINED: omitted */
const_dnnl_md kernel_home_md(PlanContext *context, int index); /* of a parameter whose home is decided; else NULL */

/* Outputs. An omitted output still gets a slot when the kernel must write somewhere: kernel_output makes one. */
Slot *kernel_output(PlanContext *context, int index, Layout layout);
Slot *kernel_output_as(PlanContext *context, int index, Layout layout,
                       DType dtype); /* DTYPE_BF16 for float values only */
/* What to give a float output in: the plan's precision, or f32 when it leaves the graph or becomes a parameter's
 * gradient. */
DType kernel_output_dtype(PlanContext *context, int index);
Slot *kernel_output_md(PlanContext *context, int index, const_dnnl_md md);
Slot *kernel_output_bytes(PlanContext *context, int index, size_t bytes); /* OPAQUE without a shape: workspaces */
/* Output 0 in the bytes of input 0 (views: always, whatever their precision; in place: only when that input dies here,
 * else a fresh slot, and the kernel must cope with both). */
Slot *kernel_output_view(PlanContext *context, int index, int input);
Slot *kernel_output_in_place(PlanContext *context, int index, int input, Layout layout);
Slot *kernel_output_in_place_as(PlanContext *context, int index, int input, Layout layout, DType dtype);
bool kernel_input_dies(PlanContext *context, int index); /* nobody reads the bytes of step->in[index] after this step */

/* The layout an elementwise kernel should use: that of its first full-shaped input; PLAIN when the shapes allow no
 * other. */
Layout kernel_follow(PlanContext *context);

void *kernel_state(PlanContext *context, size_t bytes); /* zeroed, in the plan's arena */
void kernel_scratch(PlanContext *context, size_t bytes);
void kernel_run(PlanContext *context, Status (*run)(Step *step, Error *err), const char *kernel);
/* The step is this primitive. Arguments name slots; the plan binds handles after placing. The descriptor is consumed. A
 * scratchpad is taken from the shared scratch. Fails with the library's reason. */
Status kernel_primitive(PlanContext *context, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                        Error *err);
/* For kernels of several primitives: makes a call to run with dnnl_call_run from the step's own function. */
Status kernel_call(PlanContext *context, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                   DnnlCall **call, Error *err);
/* The bytes of `slot` under another description (a transpose by strides, a matrix of all rows), as an argument of
 * primitives. */
Slot *kernel_view(PlanContext *context, Slot *slot, const_dnnl_md md);
/* A slot of the kernel's own between its primitives (lives during this step) or across steps (persistent). */
Slot *kernel_temporary(PlanContext *context, const_dnnl_md md);
/* For run functions that draw numbers: seed and count of updates of the run in progress. */
void step_clock(const Step *step, uint64_t *seed, uint64_t *count);
/* For a prepare that meets what its fast paths do not cover: the step runs the row's eval on plain slots. */
Status kernel_eval(PlanContext *context, Error *err);
Status kernel_fail(PlanContext *context, Error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The shape of a slot's bytes when it is used beside tensors of `full_rank` dims that lie in `layout` (what
 * kernel_follow said): PLAIN [1.., dims], BLOCKED [N, C/b, spatial.., b], NHWC [N, spatial.., C]; lower ranks are
 * aligned as numpy does. Padding channels are part of it. A slot with one channel (or one element) lies alike in all
 * layouts: kernel_input hands it out plain, and here it gets its ones in the right places. Returns the number of
 * physical dims, the same for every operand; so broadcasting on physical dims is plain broadcasting. */
int slot_physical(const Slot *slot, Layout layout, int block, int full_rank, int64_t dims[RANK_MAX + 1]);
const_dnnl_md slot_md(Slot *slot); /* makes the plain descriptor when there is none */
int64_t slot_count(const Slot *slot);
/* Zeroes the channel padding of a blocked slot: after kernels with f(0) != 0. */
void slot_clear_padding(Slot *slot, int block);

int parallel_threads(void); /* of the pool */
/* Runs `body` over [0, n) on the pool in contiguous ranges of at least `grain`. Same split at the same thread count. */
void parallel_for(int64_t n, int64_t grain, void (*body)(int64_t begin, int64_t end, void *context), void *context);

#endif
