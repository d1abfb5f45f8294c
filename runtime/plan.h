/* Inside of a Plan, shared by plan.c (order), kernel.c (what rows ask for), memory.c (where bytes live) and exec.c (the
 * loop). Nobody else includes this.
 *
 * A value may lie in several layouts at once: its Home lists those slots, the producer's first. A storage root is a
 * slot whose `base` is NULL; views and in-place results point at their root and share its bytes and its lifetime. */
#ifndef REGRAFT_RUNTIME_PLAN_H
#define REGRAFT_RUNTIME_PLAN_H

#include "runtime/kernel.h"
#include "runtime/runtime.h"

enum { HOME_VARIANTS = 6 }; /* plain and family in either precision, and two descriptors of a weight's kernels */

typedef struct Home {
    const Value *value;
    Slot *slots[HOME_VARIANTS];
    int count;
    int uses;                    /* by nodes not planned yet, and as an output */
    bool exact;                  /* f32 in any plan: it leaves the graph, or becomes the gradient of a parameter */
    struct Delivery *deliveries; /* parameters whose gradient this is */
} Home;

/* A parameter's slot follows the store: the store may still move while plans are being built. */
typedef struct ParamUse {
    int parameter; /* >= 0: its data in the store, or -1 */
    int gradient;  /* >= 0: its gradient in the store, or -1 */
    int state;     /* >= 0: index into the store's states, or -1 */
} ParamUse;

typedef struct Delivery {
    const Value *parameter;
    struct Delivery *next;
} Delivery;

typedef struct Placed { /* a call and the step that runs it */
    DnnlCall *call;
    Step *step;
} Placed;

/* Called behind every step of a run: `step` is its position. Set for one run at a time. */
typedef struct StepHook {
    void (*after)(void *context, size_t step);
    void *context;
} StepHook;

struct Plan {
    const StepHook *hook; /* NULL: none */
    const Model *working;
    const Graph *graph;
    ParamStore *store;
    PlanOptions options;
    Arena arena;
    DnnlEngine dnnl;
    Layout family;
    DType compute;
    Step **steps;
    size_t step_count, step_capacity;
    Slot **slots;
    size_t slot_count, slot_capacity;
    Placed *calls;
    size_t call_count, call_capacity;
    Home *homes; /* by Value.mark */
    size_t home_count;
    Slot **inputs, **outputs;
    Workspace own, *space; /* everything that lives only during a run: block_bytes, then scratch */
    uint64_t moved;        /* of the workspace, when pointers were set */
    size_t block_bytes;
    void **constants; /* copies and reorders made at planning */
    size_t constant_count, constant_capacity;
    void *scratch;
    size_t scratch_bytes;
    PlanBill bill;
    uint64_t seed, step;
    size_t runs;  /* that ended well */
    bool adding;  /* the run in progress adds its gradients */
    float weight; /* of this run's gradients */
    size_t
        delivered; /* gradients that a run writes: the store's others are zero (a task does not reach another's head) */
    int status;    /* of prepare: kernel_* calls that cannot fail in their signature leave it here */
    Error *err;
    bool placed;
};

/* plan.c */
Slot *plan_slot(Plan *plan, const Value *value, DType dtype, int rank, const int64_t *dims);
Home *plan_home(Plan *plan, const Value *value);
Slot *plan_primary(Plan *plan, const Value *value); /* makes it for inputs, constants, parameters, states */
Step *plan_add_step(Plan *plan, const Node *node);  /* not yet in the list */
void plan_push_step(Plan *plan, Step *step);
Slot *slot_root(Slot *slot);

/* kernel.c */
/* `dtype` of the result when `md` is NULL; DTYPE_UNDEFINED: as it is. */
Slot *plan_reorder(Plan *plan, Slot *from, Layout layout, const_dnnl_md md, DType dtype, const Value *value);
void slot_set_layout(Plan *plan, Slot *slot, Layout layout, const_dnnl_md md);
Status plan_prepare_eval(PlanContext *context, Error *err); /* the step of a row without prepare */
Status plan_release_call_list(Plan *plan);

/* memory.c: lifetimes -> offsets, one block; then pointers into slots and handles into calls. */
Status plan_place(Plan *plan, Error *err);
void plan_bind(Plan *plan); /* after a pointer moved */

/* params.c */
int params_state(ParamStore *store, Tensor *origin, Error *err); /* finds or adds; -1 when memory ends */
Status params_seal(ParamStore *store, Error *err); /* homes are decided: lays the blocks out; later homes are refused */
bool params_sealed(const ParamStore *store);
/* A number that two stores share when their blocks mean the same; clears the gradient. */
Status params_layout_hash(ParamStore *store, uint64_t *hash, Error *err);

/* parallel.c */
void parallel_flush_denormals(void); /* on every thread of the pool */

#endif
