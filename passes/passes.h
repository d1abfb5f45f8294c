/* Passes: Graph -> Graph, one file a pass. Nothing here knows kernels, threads or data sets; operators are reached
 * through the rows that the model carries (onnx/op.h).
 *
 * Two pipelines stand on them. Surgery edits the *document*: heads, cut, attach, freeze. Running makes a *working
 * graph* from it: working_build lists those passes, one bare call each.
 *
 * Working graphs have concrete shapes: the caller binds every symbolic dim first (Binding), inference computes with
 * numbers and folds shape arithmetic as it goes, and a plan for another batch size starts from the document again
 * (milliseconds). Symbolic shapes, where a person wants to see them, come from inferring twice and fitting
 * (shapes_symbolic). */
#ifndef REGRAFT_PASSES_H
#define REGRAFT_PASSES_H

#include "onnx/onnx.h"
#include "onnx/op.h"

/* ---- inline.c: model-local functions ------------------------------------------------------------------- */

/* does: replaces every call of a model-local function by its body, nested ones too, attribute references resolved.
 * needs: nothing. keeps: names of outer values. breaks: node order stays topological. Recursion and an expansion beyond
 * a million nodes are STATUS_REJECTED ("billion laughs"). */
Status pass_inline(Model *model, Error *err);

/* ---- upgrade.c: every operator in its newest form ------------------------------------------------------- */

/* does: brings each node of the default domain to OPSET_NEWEST through its row's `upgrade`, so that infer, eval, grad
 * and prepare know one form. A node without a row, or beyond its row's range, stays as it is. */
Status pass_upgrade(Graph *graph, Error *err);

/* ---- infer.c: types, shapes, folding -------------------------------------------------------------------- */

/* A symbolic dim bound to a number, or one input's whole shape. */
typedef struct Binding {
    const char *symbol; /* "batch"; NULL when `input` is given */
    int64_t value;
    const char *input; /* by name: rank and dims */
    int rank;
    int64_t dims[RANK_MAX];
} Binding;

/* does: gives every graph input its bound shape (symbols by name; an unnamed unknown first dim takes the batch binding
 * "batch"), then infers in order and folds nodes whose inputs are all constant, Shape and Size of known shapes
 * included. Results larger than 16 M elements are not folded. Parameters are never folded through. needs: topological
 * order, newest forms. A shape that cannot be made to fit is STATUS_REJECTED naming node and both shapes. */
Status pass_infer(Graph *graph, const Binding *bindings, size_t count, Error *err);
/* A graph whose inputs already have concrete types. */
Status pass_infer_known(Graph *graph, Error *err);
/* Its two steps: types of initializers, then node by node in order. *next, the node after it on entry, becomes the
 * first node of the branch where an If was replaced by it. */
void infer_constants(Graph *graph);
Status infer_node(Node *node, Node **next, Error *err);
/* The same for one node whose inputs are inferred: evaluates it when they are all constant. */
Status node_fold(Node *node, Error *err);

/* Writes types with symbols ("batch", "12*batch", "seq+1") on every value of `document`'s main graph that inference can
 * reach, by inferring copies at several bindings and fitting. Values that follow no such rule get an unnamed dim.
 * *baked is set to the first node that fails when only the batch changes (hazard 23), NULL if none; may be NULL. */
Status shapes_symbolic(Model *document, const Node **baked, Error *err);
/* Shapes for every input that is fed, at which nets of the usual kind work: known dims as they are, the rest guessed
 * from their place. `bindings` has room for every graph input; returns how many it wrote. */
size_t shapes_example(Model *document, int64_t batch, Binding *bindings);

/* ---- batch.c: a batch size that the exporter baked in ------------------------------------------------------ */

typedef struct BatchReport {
    int64_t baked;     /* the batch that the file was exported with; 0: none is baked in */
    size_t rewritten;  /* nodes of the document that held it */
    const char *first; /* the first of them, for people */
} BatchReport;

/* does: infers the model at its own batch and at another; where the other fails, rewrites what holds the batch in the
 * document: targets of Reshape, sizes of Resize, initial states and tokens that were expanded (hazard 23). needs:
 * functions inlined. keeps: a model that takes any batch, to the byte; types of inputs and outputs; what it computes at
 * its own batch. STATUS_UNSUPPORTED names the node that cannot be rewritten. Whether samples are still independent
 * afterwards is for the caller to try (runtime/independent.c): at a batch of 1, shapes alone do not say where the batch
 * lies. */
Status pass_batch(Model *document, BatchReport *report, Error *err);

/* ---- expand.c: composites -------------------------------------------------------------------------------- */

/* does: rewrites nodes whose row has an `expand` and no planned kernel (Attention, Einsum, ...) into simpler operators.
 * needs: inferred shapes. Autodiff expands by itself what it meets; plans for inference need this pass. */
Status pass_expand(Graph *graph, Error *err);
/* The same for one node; *next becomes the first of its successors, and stays as it is when the row declines. */
Status node_expand(Node *node, Node **next, Error *err);
/* does: writes out the bodies of If, Loop and Scan where the number of turns is known, and infers what follows. What
 * cannot be written out stays. needs: inferred shapes. Training needs it before the loss; without it a body is run by
 * the interpreter. */
Status pass_unroll(Graph *graph, Error *err);

/* ---- gradient.c: Gradient nodes of ai.onnx.preview.training ------------------------------------------------ */

/* does: writes out the Gradient nodes of the graph (not those of bodies) and infers what follows. needs: inferred
 * shapes, dead code still there. keeps: graph outputs with their names. */
Status pass_gradient(Graph *graph, Error *err);

/* ---- clean.c: dead code, Identity, untie, ties ---------------------------------------------------------- */

/* does: removes nodes that reach no output and have no effect, Identity, Dropout in inference form, no-op Reshape,
 * Transpose, Cast and Pad; merges nothing. keeps: graph inputs and outputs with their names. */
Status pass_clean(Graph *graph, Error *err);

/* ---- params.c: what is a parameter ---------------------------------------------------------------------- */

/* How an exact copy lies in memory, from the parameter it copies: that one without its dims of 1, which has `rank`
 * dims, its axes in the order `perm`, as many numbers as the copy has, whose dims it then takes. Rank 0: in the same
 * order. With `length`, the copy repeats a part of the other instead: each of its rows is those `length` numbers from
 * `start` on. With `reduced`, it is the other's length over those axes (bit i: axis i), or the square of that.
 * `squared` alone: the squares. */
enum { COPY_RANK_MAX = 4 };

typedef struct CopyLayout {
    int rank, perm[COPY_RANK_MAX];
    int64_t start, length;
    unsigned reduced;
    bool squared;
} CopyLayout;

/* One trainable tensor of the document, as contracts.md 2 counts them. Names are the document's. */
typedef struct ParamInfo {
    const char *name;
    Tensor *origin;      /* in the document: an initializer or a Constant node's tensor */
    const char *node;    /* first consumer, for people; "" when unnamed */
    const char *scope;   /* its scope: name_scopes metadata, else the node name's folders */
    const char *op_type; /* of the first consumer */
    int order;           /* position of the first consumer in topological order */
    bool is_norm;        /* scale or bias of a normalisation */
    bool trainable;      /* what freeze and --train decide */
    bool looks_folded;   /* a table that an exporter folded for the traced length (hazard 39): trainable is false, a
                          * person   may still ask for it by name */
    int tied_to;         /* index of the parameter it is an exact copy of, or -1 */
    CopyLayout layout;   /* with tied_to: of the copy */
    bool untied;         /* value-equal sharing between unrelated consumers was undone (hazards 1, 41) */
    const Use *uses;     /* untied: the document's inputs that mean this parameter, so that writing back can give it */
    size_t use_count;    /* an initializer of its own */
} ParamInfo;

typedef struct ParamList {
    ParamInfo *items;
    size_t count;
    Tensor **constants; /* float tensors of more than one element that are none: statistics, masks */
    const char **constant_names;
    size_t constant_count;
} ParamList;

/* Finds parameters by role, from the gradient's path. Unties value-equal initializers *in the document's working
 * copies* by giving each consumer role its own entry. `no_tie` keeps exact copies apart. */
Status params_find(Model *document, bool no_tie, ParamList *list, Error *err);
/* Gives each module whose BatchNorm is in training form running statistics of its own, where an exporter has merged
 * them (statistics.c). Before they move. */
void statistics_part(Model *document, const ParamList *list);
/* The owner's dims of more than one number; -1 when there are more than COPY_RANK_MAX. */
int copy_layout_dims(const Tensor *owner, int64_t dims[COPY_RANK_MAX]);
/* The copy is computed from its owner, not the same numbers in another order. */
bool copy_is_computed(const CopyLayout *layout);
/* The numbers of `owner`, of its type's size or as floats (`size` bytes each), in the order of `copy`. */
void copy_layout_apply(const CopyLayout *layout, const Tensor *owner, const Tensor *copy, size_t size, const void *from,
                       void *to);

/* ---- heads.c, cut.c, attach.c, freeze.c: surgery on the document ------------------------------------------ */

typedef struct Head {
    Node *node;                         /* the linear layer (Gemm, MatMul, Conv) */
    Value *output;                      /* graph output it leads to */
    Value *features;                    /* what it reads: where a new head goes */
    int64_t feature_width, class_count; /* class_count: of the output; -1: unknown */
    bool spatial;                       /* features are [N,C,H,W]: a conv head, before pooling */
    bool pooled;                        /* spatial, and pooling lies between node and output */
    bool inner;           /* `output` also feeds another output: features beside logits, logits beside probabilities */
    int rank;             /* of features; -1: unknown */
    int depth;            /* 0: nearest to the output; 1, 2, ...: linear layers further back */
    Value *scores;        /* the layer's result, bias added */
    Value *tail_end;      /* not NULL: steps between scores and here (last token, Resize) must stay behind a new head */
    const char *post_ops; /* "Softmax", "Sigmoid, ArgMax" after the layer; "" when none */
    double confidence;    /* 0..1; heads_pick takes none below 0.5 unasked */
    const char *why;      /* one phrase for people */
} Head;

typedef struct HeadList {
    Head *items; /* by output; best first, alternatives further back follow */
    size_t count;
    const char *blocked; /* why an output has no head: "LayerNormalization '/ln'" stopped the walk; NULL: all have */
} HeadList;

/* The backward walk of docs/surgery.md, over the main graph: inline functions first. Fills in what it learns about
 * types of features. Does not choose: see heads_pick. */
Status heads_find(Model *document, HeadList *list, Error *err);
/* The one to cut: by name (node, features value, or its number in the list from 1; NULL: best) and by output (NULL: the
 * only one). STATUS_AMBIGUOUS lists the candidates. */
Status heads_pick(const HeadList *list, const char *name, const char *output, const Head **head, Error *err);

/* Removes everything that only served outputs behind `features`; `features` becomes a graph output (named as it is) in
 * the place of `output`. `output` NULL: every output behind features goes; else `output` and those that lie on its way
 * or hang on it. Other outputs stay. Inputs that lose their last use are removed unless keep_inputs. What was dead
 * before stays. */
Status pass_cut(Model *document, Value *features, Value *output, bool keep_inputs, Error *err);

typedef enum HeadKind { HEAD_LINEAR, HEAD_MLP, HEAD_CONV } HeadKind; /* HEAD_CONV: 1x1 convolution + pooling */

typedef enum InitKind { INIT_ZERO, INIT_KAIMING_UNIFORM, INIT_XAVIER_UNIFORM, INIT_NORMAL } InitKind;

/* How features become one vector a sample before a linear or MLP head, and scores one vector after a conv head. */
typedef enum HeadPool {
    POOL_AUTO, /* rank 4 and 5: mean over space; others: none */
    POOL_NONE, /* a score at every position: segmentation, token classification */
    POOL_MEAN, /* mean over tokens [N,T,F] or over space */
    POOL_FIRST /* the first token of [N,T,F] */
} HeadPool;

typedef struct HeadSpec {
    HeadKind kind;
    const char *output_name; /* NULL: the old output's name when it is free */
    int64_t classes;
    int64_t hidden; /* HEAD_MLP; 0: as wide as the features */
    InitKind init;
    uint64_t seed;
    HeadPool pool;
    bool keep_features;    /* features stay a graph output; the new output follows the others */
    int64_t width;         /* of the features, when their type does not say; 0: must be known */
    const int64_t *kernel; /* HEAD_CONV: sides of the kernel, one a dim of space; NULL: 1 each */
    bool flat;             /* HEAD_CONV: scores [N, C] of the only position that there is */
} HeadSpec;

/* Puts a new head on `features` (a graph output after pass_cut, or any value); the new output takes its place in the
 * list of outputs. Written in operators that the document's opset has. Names of the new parameters are kept in metadata
 * "regraft.head"; metadata that named the old classes goes. */
Status pass_attach(Model *document, Value *features, const HeadSpec *spec, Value **logits, Error *err);
/* Cut and attach in one, as the old head's form asks: a vector head is cut and replaced; steps after a per-token or
 * per-pixel layer (last token, Resize) stay behind the new one. */
Status pass_replace_head(Model *document, const Head *head, const HeadSpec *spec, bool keep_inputs, Value **logits,
                         Error *err);

/* Patterns: `head`, `all`, `last:N` (the head and the N nodes with parameters before it), `before:TENSOR`, `norm`, or a
 * glob on parameter, node or scope names. Marks every parameter of `list` that matches any pattern. A pattern that
 * matches nothing is STATUS_USAGE with near names. */
Status params_select(const Model *document, const ParamList *list, const char *const *patterns, size_t count,
                     bool *selected, Error *err);
/* The same for what is to stay as it is: the exact name of a constant of the model is no error here. */
Status params_select_frozen(const Model *document, const ParamList *list, const char *const *patterns, size_t count,
                            bool *selected, Error *err);
/* Freeze marks live in metadata "regraft.frozen" (one name a line) and are obeyed by tune. */
Status freeze_mark(Model *document, const ParamList *list, const bool *frozen, Error *err);
Status freeze_read(const Model *document, ParamList *list, Error *err);

typedef enum BatchNormForm { BATCHNORM_NONE, BATCHNORM_FOLDED, BATCHNORM_INFERENCE, BATCHNORM_TRAINING } BatchNormForm;
/* Which of the three forms the file holds (FOLDED: none left, but convolutions with biases and generated names). */
BatchNormForm batchnorm_form(const Model *document, size_t *count);
bool batchnorm_is_training(const Node *node); /* a BatchNormalization of any opset, as written */

/* ---- loss.c --------------------------------------------------------------------------------------------- */

typedef enum LossKind {
    LOSS_SOFTMAX_CE,
    LOSS_LM,
    LOSS_BCE,
    LOSS_MSE,
    LOSS_L1,
    LOSS_HUBER,
    LOSS_DICE,
    LOSS_LINEAR
} LossKind; /* LINEAR: the sum of output times target */

typedef struct LossSpec {
    LossKind kind;
    size_t output; /* index of the graph output it reads */
    double weight; /* in the sum of losses */
    double label_smoothing;
    int64_t ignore_index;       /* class index that does not count; torch has -100 */
    const float *class_weights; /* [classes] or NULL */
    double delta;               /* Huber */
    const char *target_name;    /* new graph input; int64 class indices, or floats of the output's shape */
} LossSpec;

/* Where the classes lie: on the last axis of a language model's scores, else on axis 1, or 0 for a single sample. */
int loss_class_axis(const LossSpec *spec, const Type *scores);

/* does: adds one input a loss (target) and the scalar sum of losses as output "loss", the last output. Per-sample
 * reduction is the mean over everything that counts. If the output is a Softmax, LogSoftmax or Sigmoid that the loss
 * contains itself, the loss reads what is before it. needs: inferred shapes. */
Status pass_loss(Graph *graph, const LossSpec *losses, size_t count, Value **loss, Error *err);

/* ---- fuse.c: patterns that are operators with a gradient of their own; before autodiff -------------------- */

Status pass_fuse(Graph *graph, Error *err);

/* ---- fuse_transpose.c: transposes that move towards the matrix products behind them; before autodiff --------- */

Status pass_fuse_transpose(Graph *graph, Error *err);

/* ---- fuse_matmul.c: matrix products that take up transposes, factors and biases; before autodiff ------------ */

Status pass_fuse_matmul(Graph *graph, Error *err);

/* ---- fuse_conv.c: convolutions that take up what follows them; after autodiff ------------------------------ */

/* does: folds a fixed BatchNormalization into the fixed convolution before it; joins convolution, residual addition and
 * activation in one internal FusedConv, which has no gradient. `all`: gradients are in the graph already or never will
 * be; else only what no trainable parameter reaches is touched. */
Status pass_fuse_conv(Graph *graph, bool all, Error *err);

/* ---- fuse_elementwise.c: runs of elementwise nodes become one; the last pass of all ------------------------- */

/* does: replaces trees of large elementwise nodes of one shape by internal `Fused` nodes that go over memory once.
 * needs: gradients appended already, or never. */
Status pass_fuse_elementwise(Graph *graph, Error *err);

/* ---- autodiff.c: reverse mode ---------------------------------------------------------------------------- */

/* does: appends gradient nodes for d loss / d wrt[i], sums fan-out, sets wrt[i]->gradient. Computes nothing that nobody
 * asked for: it starts from wrt and stops at what is frozen. Integer values carry no gradient. A wrt that the loss does
 * not reach gets gradient NULL. needs: inferred shapes. STATUS_UNSUPPORTED names node, operator and reason. */
Status pass_autodiff(Graph *graph, Value *loss, Value *const *wrt, size_t count, Error *err);

/* ---- recompute.c, recompute_choose.c: activations made again instead of kept ------------------------------------ */

typedef struct RecomputeOptions {
    size_t target; /* bytes that results may take at one time; parameters and their gradients do not count */
    size_t (*bytes)(const Value *value, void *context); /* what a result takes; NULL: what its type says */
    void *context;
} RecomputeOptions;

typedef struct RecomputeReport {
    bool fits;            /* else the smallest peak that was found is what the graph now has */
    size_t before, after; /* peaks, as estimated from lifetimes */
    size_t copies;
    double forward_cost, extra_cost; /* in bytes moved, or the time arithmetic takes instead */
} RecomputeReport;

/* Node.mark: 1 for what graph outputs and running statistics need, 0 for what only gradients need. */
void graph_mark_forward(Graph *graph);
/* does: lets gradients read copies of forward results, made again right before, until the target is met, at the least
 * cost found. needs: gradients and fusions in the graph, shapes inferred. Losses and gradients stay the same bit by
 * bit. */
Status pass_recompute(Graph *graph, const RecomputeOptions *options, RecomputeReport *report, Error *err);

/* ---- working.c: the document made runnable ---------------------------------------------------------------- */

typedef struct WorkingOptions {
    const Binding *bindings;
    size_t binding_count;
    bool training; /* live BatchNorm and Dropout where their parameters are trained; else inference form everywhere */
    bool running_statistics; /* with `training`: BatchNorm in inference form where it is trained, too */
    const ParamList *params; /* NULL: no parameters, every initializer is constant */
    const LossSpec *losses;  /* NULL: none */
    size_t loss_count;
    bool gradients;                     /* with losses: append them for every trainable parameter */
    const char *const *input_gradients; /* NULL-terminated names of graph inputs to differentiate too; may be NULL */
    bool as_written;                    /* BatchNorm and Dropout do what their attributes say (verb `run`) */
    bool live;                          /* the same where gradients are wanted: `training` whatever is trained */
    bool no_fuse;
    bool for_split; /* working_split comes next, then a loss: what trains must keep operators with gradients */
    bool no_expand; /* composites stay, so that their own eval runs */
} WorkingOptions;

/* scikit-learn's classifiers end in ZipMap, which makes a dictionary of each row of scores for Python. What runs and
 * trains here gives the scores. */
bool node_is_zipmap(const Node *node);
/* A copy with functions inlined and newest forms, origins set, shapes not yet known: for analysis. */
Status working_copy(Model *document, Model **copy, Error *err);

/* The list of passes, bare calls in order: clone, inline, upgrade, promote floats to f32, parameters, infer and fold,
 * clean, fuse, loss, autodiff, clean, fuse_conv. The result is a model of its own whose values carry `origin` into the
 * document. Parameters have ROLE_PARAMETER and `parameter` = index in options->params. */
Status working_build(Model *document, const WorkingOptions *options, Model **working, Error *err);

/* Loss and gradients onto a working graph made without them (what working_build does last; for suffixes of
 * working_split). */
Status working_loss(Graph *graph, const WorkingOptions *options, Error *err);

/* Splits a working graph (no gradients yet) where the frozen part ends: *prefix computes every value that no trainable
 * parameter reaches and that the rest needs (its outputs, in the order of *suffix's first inputs); *suffix is the rest.
 * Values that depend on nothing but constants stay where they are used. */
Status working_split(const Model *working, Model **prefix, Model **suffix, Error *err);

#endif
