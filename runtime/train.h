/* Training: what `regraft tune`, `eval` and `predict` stand on. Prints nothing; whoever calls gets events.
 *
 *   Source ─► Trainer (plans by batch shape over one ParamStore) ─► epochs, events ─► best parameters in the store
 *          └► FeatureCache (the frozen part run once) ─► Source over features ─► probe.c or a Trainer of the rest
 *
 * A Source is anything that gives batches: data/ behind cli/, a cache of features, arrays in a test. */
#ifndef REGRAFT_RUNTIME_TRAIN_H
#define REGRAFT_RUNTIME_TRAIN_H

#include "data/data.h"
#include "runtime/comm.h"
#include "runtime/runtime.h"

typedef struct FeatureCache FeatureCache;
typedef struct FeatureLimits FeatureLimits; /* features.c */

enum { SOURCE_MAX = 16 }; /* inputs or targets of one model */

/* ---- source.c: batches --------------------------------------------------------------------------------------- */

/* One batch: tensors by position of the document's graph inputs, then targets by position of the losses. Row-major; the
 * first dim of each is `size`. Valid until the next call. */
typedef struct Batch {
    size_t size;
    int input_count, target_count;
    Type input_types[SOURCE_MAX], target_types[SOURCE_MAX];
    const void *inputs[SOURCE_MAX], *targets[SOURCE_MAX];
    const size_t *ids; /* which samples, in the source's numbering */
    size_t only;       /* 0: a target for every loss; k: for loss k - 1 alone (tasks with data of their own) */
} Batch;

typedef struct Source Source;
struct Source {
    size_t count; /* samples, of all processes */
    void *context;
    Comm *comm; /* batches are this process's part of each, and results are put together over it; NULL: all here */
    /* Begins a pass. `train`: shuffled by (seed, epoch) and augmented; else in order and as they are. */
    Status (*start)(Source *source, uint64_t epoch, bool train, size_t batch, Error *err);
    /* STATUS_OK with batch->size 0 at the end of the pass. */
    Status (*next)(Source *source, Batch *batch, Error *err);
};

/* Arrays in memory as a source: `inputs[i]` holds count rows of input_types[i] (first dim is the batch, ignored), so
 * many for each view. Borrowed. Passes are ordered as a loader's of the same seed. */
typedef struct ArraySource {
    Source source;
    int input_count, target_count;
    Type input_types[SOURCE_MAX], target_types[SOURCE_MAX];
    const void *inputs[SOURCE_MAX], *targets[SOURCE_MAX];
    bool narrow[SOURCE_MAX];   /* the input's floats lie in bfloat16 */
    size_t views;              /* training pass e takes view e modulo so many; 0: one */
    const FeatureCache *cache; /* they are its rows; NULL: others */
    uint64_t seed;
    bool keep_order; /* not shuffled in training either */
    int rank, ranks; /* of several processes that share every batch; ranks 0: alone */
    /* this pass */
    size_t *order, count, at, batch, view;
    void *rows[2 * SOURCE_MAX]; /* gathered */
} ArraySource;

Status array_source_init(ArraySource *source, size_t count, Error *err); /* then set the fields; start is checked */
void array_source_release(ArraySource *source);

/* ---- task_source.c: several sources, one a loss ------------------------------------------------------------------ */

/* Tasks that share a trunk, each with data of its own: source i has the target of loss i. In training a round is one
 * batch of each, and a pass has as many rounds as the longest source has batches; shorter ones begin anew, shuffled
 * differently. Otherwise one source after the other. */
typedef struct TaskSource {
    Source source;
    Source *tasks[SOURCE_MAX]; /* borrowed; NULL: this task has no such part */
    size_t task_count;
    /* this pass */
    bool train;
    uint64_t epoch;
    size_t batch, rounds, round, task, restarts[SOURCE_MAX];
} TaskSource;

Status task_source_init(TaskSource *source, Source *const *tasks, size_t count, Error *err);

/* ---- dataset_source.c: data/ as a source ------------------------------------------------------------------------- */

typedef struct DatasetSource {
    Source source;
    const Dataset *set;
    PictureSpec picture;
    const Lengths *lengths; /* as in the options */
    Loader *loader;
    bool unlabelled;                    /* batches without targets */
    bool (*interrupted)(void *context); /* asked before every batch; NULL: never */
} DatasetSource;

Status dataset_source_init(DatasetSource *source, const Dataset *set, const PictureSpec *picture,
                           const LoaderOptions *options, Error *err);
void dataset_source_release(DatasetSource *source);

/* ---- lengths.c: sequences that need not be padded as far as the file pads them ----------------------------------- */

/* The length of every sample by the mask among the inputs (an input called ...mask..., [T] ones, then zeros), and which
 * fields may be cut: those that hold one and the same value wherever the mask has ended, of inputs whose second dim the
 * model leaves open. `losses`: a target that follows the length may only be cut where what is cut is ignored. `of` is
 * NULL when nothing may be cut; `why` (may be NULL) then says why, or is NULL where there is no mask at all. */
Status lengths_find(const Dataset *set, Model *document, const LossSpec *losses, size_t loss_count, Lengths *lengths,
                    const char **why, Error *err);
void lengths_release(Lengths *lengths);

/* ---- metrics.c ------------------------------------------------------------------------------------------------- */

typedef struct Metrics {
    size_t count, classes;
    double loss, accuracy; /* accuracy: NaN when targets are not classes */
    double auc;            /* two classes; else NaN */
    double macro_f1;
    size_t *confusion;               /* [classes][classes]: rows truth, columns prediction */
    double *precision, *recall, *f1; /* [classes] */
} Metrics;

/* `logits` [count, classes] and int64 `labels`; a label outside (ignore_index) is skipped. */
Status metrics_classes(const float *logits, const int64_t *labels, size_t count, size_t classes, Metrics *metrics,
                       Error *err);
void metrics_release(Metrics *metrics);
/* Area under the ROC curve by ranks, ties counted half (Mann and Whitney 1947); NaN when a class is missing. */
double metrics_auc(const double *scores, const int64_t *labels, size_t count);

/* ---- metrics_columns.c ------------------------------------------------------------------------------------------- */

/* Of one output number over all samples. Labels (targets 0 or 1): auc to f1; rmse, mae and r2 of any number. */
typedef struct ColumnMetrics {
    double auc, accuracy, precision, recall, f1; /* auc: NaN where one of the two is missing */
    double rmse, mae, r2;                        /* r2: NaN where the targets do not vary */
    size_t positives;
} ColumnMetrics;

/* `rows` and `targets` [count, width]; a label is found where its score is above `border`. `columns` [width]; `mean`
 * over those where a figure is known (precision, recall and F1: over labels that occur). */
Status metrics_columns(const float *rows, const float *targets, size_t count, size_t width, bool labels, double border,
                       ColumnMetrics *columns, ColumnMetrics *mean, Error *err);

/* ---- losses.c ---------------------------------------------------------------------------------------------------- */

/* What the last node of an output has made of its scores. */
typedef enum OutputForm { OUTPUT_SCORES, OUTPUT_SOFTMAX, OUTPUT_LOG_SOFTMAX, OUTPUT_SIGMOID } OutputForm;

OutputForm output_form(const Graph *graph, size_t index); /* of a document's output */
/* The same for a loss on an output of this type: a Softmax over another axis than that of the classes is part of what
 * the model computes, as it is in training (passes/loss.c). */
OutputForm output_form_read_by(const Graph *graph, const LossSpec *spec, const Type *type);

typedef struct Tally { /* sums over the batches of one target; zero to begin with */
    LossKind kind;
    double loss, weight, absolute, squared;
    size_t right, counted;                     /* classes, and yes-or-no labels */
    size_t classes, *both, *truth, *predicted; /* [classes], of scores at positions in space; else NULL */
} Tally;

typedef struct TargetScore {              /* NaN: does not apply */
    double loss, accuracy;                /* accuracy: of samples, tokens, pixels or labels that count */
    double mean_iou;                      /* of scores at positions in space */
    double absolute_error, squared_error; /* means, of numbers to be met */
} TargetScore;

/* `out`: the output that the loss reads, row-major; `target` as in a Batch. */
Status tally_add(Tally *tally, const LossSpec *spec, const float *out, const Type *type, OutputForm form,
                 const void *target, Error *err);
TargetScore tally_score(const Tally *tally);
void tally_release(Tally *tally);

/* ---- probe.c: a linear head on features ------------------------------------------------------------------------ */

/* Multinomial logistic regression on standardised features by L-BFGS; the standardisation is folded into weight
 * [classes, width] and bias [classes]. The penalty is chosen from a grid by stratified cross-validation (or is
 * `penalty` when >= 0). */
typedef struct Probe {
    size_t width, classes;
    float *weight, *bias;
    double penalty, accuracy, loss; /* accuracy and mean log loss: of the cross-validation */
} Probe;

Status probe_fit(const float *features, const int64_t *labels, size_t count, size_t width, size_t classes,
                 double penalty, const float *class_weights, uint64_t seed, Probe *probe, Error *err);
/* Several labels a sample: `targets` [count, labels] of 0 and 1, for each a regression of its own; `probe->classes` is
 * the number of labels, accuracy and loss are means over them. */
Status probe_fit_labels(const float *features, const float *targets, size_t count, size_t width, size_t labels,
                        uint64_t seed, Probe *probe, Error *err);
void probe_release(Probe *probe);
void probe_predict(const Probe *probe, const float *features, size_t count, float *logits);

/* ---- recipe.c: what `tune` does on its own ----------------------------------------------------------------------- */

typedef struct PresetScore {
    const PicturePreset *preset;
    double accuracy, loss; /* of a probe on the frozen features, cross-validated */
} PresetScore;

enum { PRESETS_MAX = 16 };

/* Which of the usual preprocessings the trunk was trained with: each is scored by a probe on the features of at most
 * `samples` training pictures; `scores` (by preset, *count of them) and the index of the best. `spec` gives size and
 * layout. */
Status recipe_find_preset(Model *document, const ParamList *head, const Dataset *train, const PictureSpec *spec,
                          size_t samples, size_t batch, const FeatureLimits *limits, uint64_t seed,
                          PresetScore scores[PRESETS_MAX], size_t *count, size_t *best, Error *err);

/* Fits a linear head to cached features and writes it into the document's tensors. Needs cache->linear. Float targets
 * are labels of 0 and 1, `classes` of them. */
Status recipe_fit_head(Model *document, const ParamList *head, const FeatureCache *cache, size_t classes,
                       const float *class_weights, uint64_t seed, Probe *probe, Error *err);

/* Weights that make every class count alike: count / (classes * n_c); `weights` [classes]. */
void recipe_balance(const size_t *counts, size_t classes, float *weights);

/* Fresh values for every parameter of `params` that is trainable, as PyTorch initialises such layers (uniform within
 * 1/sqrt(fan in); norms 1 and 0): training from scratch, for comparison. */
Status recipe_reinitialise(Model *document, const ParamList *params, uint64_t seed, Error *err);

/* ---- train.c: the loop ------------------------------------------------------------------------------------------- */

typedef enum TrainEventKind { EVENT_STEP, EVENT_EPOCH, EVENT_BEST, EVENT_PHASE, EVENT_END } TrainEventKind;

typedef struct TrainEvent {
    TrainEventKind kind;
    uint64_t epoch, epochs, step, steps;                                /* step: updates so far; steps: in all */
    double loss, lr, norm;                                              /* EVENT_STEP: of this batch */
    double train_loss, train_accuracy, val_loss, val_accuracy, val_auc; /* EVENT_EPOCH; NaN when not measured */
    const TargetScore *targets;      /* EVENT_EPOCH: of the validation data, one a loss; NULL: there is none */
    const char *const *target_names; /* as in the options */
    size_t target_count;
    double seconds, images_per_second, seconds_left;
    const char *phase; /* "features", "probe", "tune" */
} TrainEvent;

/* Bytes that a training run takes. `others`: the best epoch kept, a checkpoint on its way, batches, fixed numbers. */
typedef struct TrainBill {
    size_t parameters, optimizer, activations, gradients, workspace, cache, others;
    size_t process;   /* what the program had before (TrainOptions.process) */
    size_t part_rows; /* a batch is run in parts of so many samples; 0: whole */
    double again;     /* part of the forward pass that is run a second time */
} TrainBill;
typedef struct TrainOptions {
    LossSpec *losses;
    size_t loss_count;
    OptimizerSpec optimizer;
    ScheduleSpec schedule; /* total 0: filled in from epochs */
    uint64_t epochs, seed;
    size_t batch, accumulate;        /* accumulate: batches an update */
    bool sum_parts;                  /* the gradient of an update is the sum of its batches' (tasks), not the mean */
    const char *const *target_names; /* for people, one a loss; NULL: none */
    uint64_t patience;               /* epochs without a better validation loss before stopping; 0: never */
    bool keep_best;                  /* put the best epoch's parameters back at the end (needs a validation source) */
    bool by_accuracy;                /* best means accuracy, ties by loss; else loss alone */
    Comm *comm;                      /* processes that train together; NULL: alone */
    bool plain_only;
    bool profile;            /* time every step: see trainer_profile */
    Precision precision;     /* of training steps; evaluation is f32, as what is exported computes */
    bool winograd;           /* of training steps: PlanOptions.winograd */
    bool running_statistics; /* BatchNorm trains on its running statistics: WorkingOptions.running_statistics */
    bool no_decay_1d;        /* biases and norms are not decayed */
    const char *checkpoint;  /* path written after every epoch and on interruption; NULL: none */
    double diverged_factor;  /* stop when the loss exceeds this times the first epoch's; 0: only on NaN */
    void (*on_event)(const TrainEvent *event, void *context);
    void (*on_bill)(const TrainBill *bill, void *context); /* once, before the first step; may be NULL */
    size_t memory;  /* bytes that the whole process may take; 0: no limit. Kept by making activations again, then by
                       splitting batches. */
    size_t process; /* bytes it has already, and what loading takes */
    size_t cached;  /* bytes of cached features in memory besides the trainer's own: the validation data's */
    bool (*interrupted)(void *context); /* asked after every step */
    void *context;
} TrainOptions;

size_t train_bill_total(const TrainBill *bill);                   /* the program included */
Batch batch_rows(const Batch *batch, size_t first, size_t count); /* some rows of it, where they lie */
/* Equal up to rounding: `tolerance` of the largest number. */
bool rows_alike(const float *a, const float *b, size_t width, double tolerance);

typedef struct Trainer Trainer;

/* `document` and `params` (with `trainable` decided) must outlive the trainer. `cache` (may be NULL) makes it train on
 * cached features: sources then give those. */
Status trainer_new(Model *document, const ParamList *params, const FeatureCache *cache, const TrainOptions *options,
                   Trainer **trainer, Error *err);
void trainer_free(Trainer *trainer);
/* Training is over, what was trained will be measured: plans for other shapes make room. After training on cached
 * features sources give the document's own inputs again, and are run in parts of so many samples (0: whole batches). */
void trainer_end(Trainer *trainer, size_t part_rows);
ParamStore *trainer_store(Trainer *trainer);
/* Settles what training takes before anything large is allocated, from the first batch; trainer_run does it by itself.
 * STATUS_ENVIRONMENT names the smallest TrainOptions.memory that would do. */
Status trainer_prepare(Trainer *trainer, Source *train, Source *validation, Error *err);
/* Of the training plan that ran most often; either may be NULL. STATUS_OK with nothing written when none has run. */
Status trainer_profile(const Trainer *trainer, Str *table, Str *trace, Error *err);
TrainBill trainer_bill(const Trainer *trainer); /* after trainer_prepare */
/* Trains. STATUS_DIVERGED, STATUS_INTERRUPTED: the store holds the last good parameters and the checkpoint is written.
 */
Status trainer_run(Trainer *trainer, Source *train, Source *validation, Error *err);
/* Runs the source once in inference form. `logits` (may be NULL) receives output `output` of every sample in order of
 * ids, malloc'ed: [count, *width]. */
Status trainer_evaluate(Trainer *trainer, Source *source, size_t output, float **logits, size_t *width, double *loss,
                        Error *err);
/* Every loss's score over the source in inference form: `scores` [losses]; *loss (may be NULL) is their weighted sum.
 */
Status trainer_score(Trainer *trainer, Source *source, TargetScore *scores, double *loss, Error *err);
/* Goes on from a checkpoint: parameters, optimizer states, statistics, position. STATUS_REJECTED when it is of another
 * model or other options. */
Status trainer_resume(Trainer *trainer, const char *path, Str *changed, Error *err);
/* Trainable parameters that no loss of the steps so far depends on (a Round or an ArgMax is between): how many, and the
 * first. 0 before any step. */
size_t trainer_unreached(const Trainer *trainer, const ParamInfo **first);
uint64_t trainer_best_epoch(const Trainer *trainer);
uint64_t trainer_epoch(const Trainer *trainer); /* whole epochs done */

/* ---- features.c: the frozen part, once --------------------------------------------------------------------------- */

struct FeatureCache {
    int count;                    /* values at the border */
    Type types[SOURCE_MAX];       /* with the batch first */
    Type input_types[SOURCE_MAX]; /* of the document's inputs, for building graphs of any batch size */
    int input_count;
    size_t samples, views;  /* views: how many rows a sample has, all of the first view first; at least 1 */
    void *rows[SOURCE_MAX]; /* [views, samples, ...] */
    size_t row_bytes[SOURCE_MAX];
    bool narrow[SOURCE_MAX];  /* kept in bfloat16, half of row_bytes */
    void *mapped[SOURCE_MAX]; /* when kept in a temporary file */
    int target_count;
    Type target_types[SOURCE_MAX];
    void *targets[SOURCE_MAX];
    size_t target_bytes[SOURCE_MAX];
    bool linear; /* one value [N, width] that only a linear head reads */
};

/* What running the frozen part may take, zeros: all there is; and how its results are kept. */
struct FeatureLimits {
    size_t memory, process; /* as in TrainOptions; kept by leaving Winograd's algorithm, then by portions of a batch */
    size_t rows;            /* rows of more bytes go to an unlinked temporary file */
    size_t views; /* so many training passes of the source, each augmented in its own way; 0: one pass as it is */
    bool bf16;    /* floats are kept in bfloat16 */
    bool apart;   /* STATUS_UNSUPPORTED where a sample's rows depend on its place or its neighbours */
    void (*on_bill)(const TrainBill *bill, void *context); /* before the first run; may be NULL */
    void *context;
};

/* Runs everything that no trainable parameter reaches over the source, in inference form. STATUS_UNSUPPORTED when a
 * border value has no batch dim (then training has to run the whole graph). STATUS_ENVIRONMENT before the first run
 * names the smallest FeatureLimits.memory that would do. */
Status features_cache(Model *document, const ParamList *params, Source *source, const PlanOptions *options,
                      size_t batch, const FeatureLimits *limits, FeatureCache *cache, Error *err);
/* Would a trainer on cached features compute what one on the inputs does, and the frozen part is worth keeping: it has
 * products, draws no numbers and moves no statistics, and its border is the same in training. `bytes` a sample in f32.
 */
Status features_worth(Model *document, const ParamList *params, const TrainOptions *options, const Batch *batch,
                      bool *worth, size_t *bytes, Error *err);
const char *features_folder(void);                /* where files of features are made: $TMPDIR, else /var/tmp */
void features_rest(const FeatureCache *cache);    /* gives back what memory the file's pages take */
size_t features_bytes(const FeatureCache *cache); /* in memory: what lies in a file does not count */
void features_release(FeatureCache *cache);
/* The cache as a source for a Trainer made with it; seed, order and processes as a loader's with these options. */
Status features_source(const FeatureCache *cache, const LoaderOptions *options, ArraySource *source, Error *err);

/* ---- predict.c: inference over batches --------------------------------------------------------------------------- */

typedef struct Predictor Predictor;

Status predictor_new(Model *document, Predictor **predictor, Error *err); /* the document must outlive it */
void predictor_free(Predictor *predictor);
Status predictor_run(Predictor *predictor, const Batch *batch, Error *err);
/* Output `index` of the last run, plain row-major, valid until the next; NULL beyond the last output. */
const void *predictor_output(const Predictor *predictor, size_t index, Type *type);

/* ---- checkpoint.c ------------------------------------------------------------------------------------------------ */

/* Plain order, versioned, written atomically: parameters, optimizer states, running statistics, best so far, position.
 */
typedef struct Position {
    uint64_t epoch, step, best_epoch, since_best, seed;
    double best_loss, best_accuracy, first_loss;
} Position;

/* What a run's results hang on, as lists `key: value, key: value`. */
typedef struct RunSettings {
    char fixed[256];   /* of a checkpoint and the run that goes on from it: must agree */
    char choices[512]; /* may differ, as after a divergence; the result is then not that of an uninterrupted run */
} RunSettings;

Status checkpoint_write(const char *path, const ParamStore *store, const float *best, const Position *position,
                        const RunSettings *settings, Error *err);
/* `changed` gets what `settings` chooses otherwise, for people; may be NULL. */
Status checkpoint_read(const char *path, ParamStore *store, float **best, Position *position,
                       const RunSettings *settings, Str *changed, Error *err);

#endif
