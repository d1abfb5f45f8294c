/* Graph -> numbers: plans, parameters, training. The only folder that knows oneDNN; it prints nothing and reads no
 * flags.
 *
 *   working_build ─► plan_build ─► plan_run            planned steps, no allocation while running
 *                └► interp_run                         any graph, through `eval`: open shapes, bodies, references
 *
 * Trainer: two plans a batch shape (training, evaluation) over one ParamStore. */
#ifndef REGRAFT_RUNTIME_H
#define REGRAFT_RUNTIME_H

#include "onnx/onnx.h"
#include "onnx/op.h"
#include "passes/passes.h"

/* ---- ops/ops.c ------------------------------------------------------------------------------------------- */

extern const OpSet builtin_ops;

/* ---- parallel.c ------------------------------------------------------------------------------------------- */

/* Of the one pool. 0: as OMP_NUM_THREADS says, else one for each core: kernels fill a core, its hyperthreads would only
 * share its caches. */
void runtime_set_threads(int threads);
/* What numbers depend on, a line each: oneDNN's version and instruction set, threads, compiler. */
void runtime_describe(Str *out);

/* ---- interp.c: any graph through eval -------------------------------------------------------------------- */

/* Runs `graph` on host arrays, in any dtype; inputs by position of graph->inputs, outputs by position of
 * graph->outputs, allocated from `arena`. The reference for everything else; slow on purpose. Evaluates what it can of
 * a graph with data-dependent shapes. STATUS_UNSUPPORTED names the node without eval. */
Status interp_run(const Graph *graph, const Array *const *inputs, Array **outputs, Arena *arena, uint64_t seed,
                  Error *err);

/* ---- params.c: parameters, gradients, optimizer state ------------------------------------------------------ */

typedef struct Param {
    const ParamInfo *info;
    int rank;
    int64_t dims[RANK_MAX];
    size_t count;  /* elements in the home layout, padding included; 0 when frozen or tied: nothing is stored */
    size_t offset; /* of the first element, in floats, in every block */
    bool trainable;
    double lr_scale, decay_scale; /* per-parameter multipliers */
    void *home;                   /* descriptor of the home layout; NULL: plain */
    uint64_t version;             /* raised by every update, so that reordered copies know they are stale */
} Param;

typedef struct ParamStore {
    Param *items;
    size_t count;
    float *data, *gradient; /* one block each, `total` floats */
    float *state[3];        /* optimizer's, as many as it has */
    size_t total;
    Tensor **state_origins; /* running statistics and the like: read from and written back to these */
    float **state_data;
    size_t state_count, state_capacity;
    Arena arena;
    uint64_t version; /* raised by every update of any parameter */
    bool sealed;      /* the first plan has decided the home layouts */
} ParamStore;

Status params_new(const ParamList *list, ParamStore **store, Error *err); /* reads values from the origins */
void params_free(ParamStore *store);
/* One parameter in plain row-major order. */
Status params_get(const ParamStore *store, size_t index, float *plain, Error *err);
Status params_set(ParamStore *store, size_t index, const float *plain, Error *err);
/* A whole block (data, gradient, a state) to or from plain order, parameter after parameter, `params_plain_total`
 * floats: for checkpoints and for keeping the best epoch. */
Status params_get_block(const ParamStore *store, const float *block, float *plain, Error *err);
Status params_set_block(ParamStore *store, float *block, const float *plain, Error *err);
size_t params_plain_total(const ParamStore *store);
/* Everything trained, back into the document's tensors (their own dtype; ties and untied copies included). */
Status params_write_back(const ParamStore *store, Model *document, Error *err);

/* BatchNorm and Dropout of the document in inference form: what an exported model has. */
void document_to_inference(Model *document);

/* ---- precision.c, plan.c, memory.c, exec.c ----------------------------------------------------------------------- */

typedef struct Plan Plan;

/* What products and convolutions compute in, and activations and their gradients lie in. Parameters, their gradients,
 * the optimizer, statistics and losses are f32 in either. */
typedef enum Precision { PRECISION_F32, PRECISION_BF16 } Precision;
/* "f32", "bf16", or "auto": bf16 where the processor multiplies such numbers. */
bool precision_parse(const char *name, Precision *precision);
Status precision_check(Precision precision,
                       Error *err); /* STATUS_ENVIRONMENT where the processor has no arithmetic for it */

/* The block that a run works in, for several plans of which one runs at a time: as large as the largest needs. What
 * plan_output gives lasts until any of them runs or is built. Zeroed to begin with. */
typedef struct Workspace {
    void *block;
    size_t bytes;
    uint64_t moved; /* raised when the block gets another address */
} Workspace;

void workspace_release(Workspace *workspace);

typedef struct PlanOptions {
    bool training;        /* keeps what gradients need; else inference buffers are reused at once */
    bool plain_only;      /* no layouts, no fast paths: what tests compare fast paths with */
    bool channels_last;   /* tests: the family that the library prefers in bf16 on processors with AMX, on any */
    bool profile;         /* time each step */
    bool accumulates;     /* gradients may be added to what earlier runs left in the store */
    Workspace *workspace; /* shared; NULL: the plan's own */
    bool measure;         /* for the bill alone: nothing is allocated, the plan cannot run */
    Precision precision;
    bool winograd; /* convolutions may use Winograd's algorithm where the library has it (f32, 3x3, stride 1) */
} PlanOptions;

/* Bytes. Activations are results of the forward pass, made again or not, at the moment when most bytes live; gradients
 * those of the parameters and what lies between; workspace is scratch, reordered copies and what placing wastes. */
typedef struct PlanBill {
    size_t parameters, optimizer, activations, gradients, workspace, constants, inputs;
} PlanBill;
size_t bill_total(const PlanBill *bill);

/* `working` must be fully inferred (STATUS_UNSUPPORTED names the first value whose shape depends on data) and outlive
 * the plan, as must `store` (NULL when the graph has no parameters). */
Status plan_build(const Model *working, ParamStore *store, const PlanOptions *options, Plan **plan, Error *err);
void plan_free(Plan *plan);
PlanBill plan_bill(const Plan *plan);
/* Where to put the graph's input `index` (by position) before running, plain row-major; NULL when the graph never reads
 * it. */
void *plan_input(Plan *plan, size_t index);
/* Use the caller's bytes for an input instead of the plan's own; they must live until the run ends. */
void plan_bind_input(Plan *plan, size_t index, void *data);
const void *plan_output(const Plan *plan, size_t index); /* plain row-major, valid until the next run */
/* `step` counts updates: randomness is (seed, node, step). Gradients of parameters land in the store, added to what is
 * there when `accumulate` (of plans that may); times the weight, 1 unless set, in plans that accumulate. */
Status plan_run(Plan *plan, uint64_t seed, uint64_t step, bool accumulate, Error *err);
/* What value `name` takes in the plan, in every layout it lies in; 0: nothing of its own. */
size_t plan_value_bytes(const Plan *plan, const char *name);
void plan_set_weight(Plan *plan, float weight);
/* One line a step: operator, kernel, precision, layout, bytes, milliseconds, node. */
void plan_describe(const Plan *plan, Str *out);

/* ---- budget.c: a plan within a limit ----------------------------------------------------------------------------- */

/* Makes the working graph anew, always the same; several are tried. The caller of plan_build_within frees the last one.
 */
typedef struct PlanMaker {
    Status (*make)(void *context, Model **working, Error *err);
    void *context;
    size_t (*held)(const void *context, const Model *working); /* bytes of models that live as long; may be NULL */
} PlanMaker;

typedef struct PlanBudget {
    size_t needed; /* what the plan takes; on STATUS_ENVIRONMENT the smallest limit it could have kept */
    size_t copies; /* nodes that run a second time */
    double again;  /* their cost as a part of the forward pass */
} PlanBudget;

/* As plan_build, with a bill (the store's blocks included) of at most `limit` bytes; 0: no limit. STATUS_ENVIRONMENT
 * when that cannot be, with nothing allocated. */
Status plan_build_within(const PlanMaker *maker, ParamStore *store, const PlanOptions *options, size_t limit,
                         Model **working, Plan **plan, PlanBudget *budget, Error *err);

/* ---- independent.c -------------------------------------------------------------------------------------------- */

/* Runs the document on two batches of `baked` samples apart and on both together: *same, when the outputs agree. */
Status samples_independent(Model *document, int64_t baked, bool *same, Error *err);

/* ---- process.c --------------------------------------------------------------------------------------------------- */

/* oneDNN and what it writes: code of kernels, tables; it comes with the first plans. */
enum { PROCESS_LIBRARY_BYTES = 48 << 20 };
size_t process_resident(void); /* bytes in memory now; 0 where the system does not tell */
size_t process_peak(void);     /* the most there were */
/* Cores, of whose processors (hyperthreads) it may run on one at least; `all`: those of the machine. */
int process_cores(bool all);

/* ---- peak.c, profile.c: where the time goes ---------------------------------------------------------------------- */

typedef struct MachinePeak { /* a second; bf16_flops 0: the processor has none */
    double f32_flops, bf16_flops, bytes;
} MachinePeak;

Status peak_measure(MachinePeak *peak, Error *err); /* takes about 0.2 s */
/* Of a plan built with `profile`: a table by operator and by step, longest first, and the last run in Chrome's trace
 * format. */
void plan_profile(const Plan *plan, const MachinePeak *peak, Str *out);
void plan_trace(const Plan *plan, Str *out);

/* ---- untrace.c ------------------------------------------------------------------------------------------------ */

/* Takes back what tracing in training mode did to the document's running statistics; see untrace.c. `arrays` are the
 * example inputs by name. Every BatchNorm must be live under `params`; *moved counts them. */
Status statistics_untrace(Model *document, const ParamList *params, const char *const *names,
                          const Array *const *arrays, size_t count, size_t *moved, Error *err);

/* ---- optim.c, schedule.c ----------------------------------------------------------------------------------- */

typedef enum OptimizerKind {
    OPTIMIZER_SGD, /* momentum and nesterov are its settings */
    OPTIMIZER_ADAGRAD,
    OPTIMIZER_RMSPROP,
    OPTIMIZER_ADAM,
    OPTIMIZER_ADAMW
} OptimizerKind;

typedef struct OptimizerSpec { /* meanings and defaults are torch.optim's */
    OptimizerKind kind;
    double lr, momentum, beta1, beta2, epsilon, alpha, weight_decay, dampening;
    bool nesterov;
    double clip_norm, clip_value; /* 0: off */
} OptimizerSpec;

OptimizerSpec optimizer_default(OptimizerKind kind);
bool optimizer_parse(const char *name, OptimizerKind *kind);
int optimizer_states(const OptimizerSpec *spec); /* how many state blocks */
/* One update of every trainable parameter from store->gradient. `step` counts from 1. Returns the gradient norm before
 * clipping in *norm (NaN or infinity is STATUS_DIVERGED and nothing is updated). */
Status optimizer_step(const OptimizerSpec *spec, ParamStore *store, uint64_t step, double lr, double *norm, Error *err);

typedef enum ScheduleKind { SCHEDULE_CONSTANT, SCHEDULE_STEP, SCHEDULE_COSINE, SCHEDULE_LINEAR } ScheduleKind;
typedef struct ScheduleSpec {
    ScheduleKind kind;
    uint64_t warmup, total; /* steps */
    double floor;           /* fraction of lr at the end */
    uint64_t every;         /* SCHEDULE_STEP */
    double factor;
} ScheduleSpec;
double schedule_at(const ScheduleSpec *spec, uint64_t step); /* multiplier of lr for update `step`, from 1 */

/* ---- run.c: one inference on host arrays ------------------------------------------------------------------------ */

/* Arrays go by position in the document's inputs and outputs; an input that has an initializer may be NULL. */
typedef struct Run {
    Model *document;
    Model *working;
    const Array **inputs; /* the caller's */
    Str *profile, *trace; /* run_planned: filled in when not NULL */
} Run;

/* The working graph for inputs of these shapes, every node doing what its attributes say. An initializer that is also
 * an input takes the value given, in the document. The caller frees run->working. */
Status run_build(Run *run, Model *document, const Array **inputs, Error *err);
/* Results are allocated from `arena`. run_planned: STATUS_UNSUPPORTED when the graph cannot be planned; composites are
 * written out in the working graph. */
Status run_interpreted(const Run *run, Array **outputs, Arena *arena, uint64_t seed, Error *err);
Status run_planned(const Run *run, Array **outputs, Arena *arena, uint64_t seed, Error *err);

/* ---- suite.c: conformance ------------------------------------------------------------------------------------ */

typedef enum SuiteOutcome { SUITE_PASSED, SUITE_DIFFERS, SUITE_UNSUPPORTED } SuiteOutcome;

typedef struct SuiteResult {
    SuiteOutcome outcome;
    bool planned;      /* the plan ran as well as the interpreter */
    double max_error;  /* largest |found - expected| over all outputs and both engines */
    char reason[1000]; /* why it did not pass; "" when it did */
} SuiteResult;

/* Runs one case in the format of ONNX's backend tests (model.onnx, test_data_set_N with input_M.pb and output_M.pb,
 * optional tolerance.json with rtol and atol) through the interpreter and, when it can be planned, through a plan. A
 * model that does not load or run is a result, not an error; STATUS_REJECTED: the folder is no case. */
Status suite_run(const char *folder, SuiteResult *result, Error *err);

/* The folders below `root` (and itself) that hold a case, in order of names. The caller frees with suite_list_free. */
Status suite_list(const char *root, char ***folders, size_t *count, Error *err);
void suite_list_free(char **folders, size_t count);

#endif
