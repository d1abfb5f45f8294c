/* regraft tune: cmd_tune.c (options), tune_setup.c (model, data, head, preprocessing), tune_run.c (phases),
 * tune_features.c (the frozen part, run beforehand), * tune_report.c (file, table), tune_witness.c (what the file must
 * compute). */
#ifndef REGRAFT_CLI_TUNE_H
#define REGRAFT_CLI_TUNE_H

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/verify.h"
#include "runtime/train.h"

typedef enum RecipeKind { RECIPE_AUTO, RECIPE_PLAIN, RECIPE_PROBE } RecipeKind;

typedef enum ConvolutionChoice { CONVOLUTION_AUTO, CONVOLUTION_DIRECT } ConvolutionChoice;
typedef enum BatchNormChoice { BATCHNORM_LIVE, BATCHNORM_RUNNING } BatchNormChoice;

typedef enum LengthsChoice { LENGTHS_AUTO, LENGTHS_KEEP, LENGTHS_CUT } LengthsChoice;

typedef struct TuneFields {
    const char *data, *val, *test, *output, *run_folder, *head, *preset, *size, *example, *resume;
    TextList train, freeze, losses, loss_weights, tasks, only, classes;
    int recipe, optimizer, schedule, init, augment, frame, filter, lengths, precision, convolution, batchnorm, cache;
    int64_t ignore_index, epochs, batch, accumulate, seed, patience, warmup, threads, per_class, hidden, memory, views;
    double lr, momentum, weight_decay, beta1, beta2, epsilon, alpha, clip_norm, clip_value, label_smoothing, held_out,
        crop;
    const char *trace;
    bool profile, nesterov, json, quiet, keep_head, balance, shuffle, no_shuffle, no_verify, no_tie, skip_broken,
        strip_doc, no_probe, plain_kernels, mpi;
} TuneFields;

/* What the targets are, when there is one output. */
typedef enum TaskKind {
    TASK_CLASSES, /* one class a sample */
    TASK_LABELS,  /* several labels, each there or not */
    TASK_NUMBERS, /* a vector of numbers */
    TASK_OTHER    /* sequences, masks, several outputs: only the loss is measured */
} TaskKind;

typedef struct Scores { /* of one way of training on one part of the data; NaN where not measured */
    double loss, accuracy, auc, f1, rmse, r2; /* labels: accuracy, auc and f1 are means over them */
} Scores;

typedef struct Arm {
    const char *name; /* "probe", "tune" */
    Scores val, test;
    TargetScore targets[2][SOURCE_MAX]; /* of val and test, one a loss */
    bool has_targets[2];
    size_t trainable;
    double seconds;
    bool measured;
} Arm;

/* One of several tasks on a shared trunk: an output of the model and data of its own. */
typedef struct Task {
    const char *name; /* the output's */
    DataParts data;
    Lengths lengths[3];
} Task;

typedef struct Tune {
    const TuneFields *fields;
    const Args *args;
    Model *document;
    ParamList params;
    bool *wanted; /* [params.count] what --train and the freeze marks leave */
    DataParts data;
    Lengths lengths[3]; /* of train, val, test; of NULL: as the data has it */
    Task *tasks;        /* with --task; `data` is then the first one's */
    size_t task_count;
    const char *target_names[SOURCE_MAX];
    LossSpec losses[SOURCE_MAX];
    size_t loss_count;
    PictureSpec picture;
    const char *preset; /* how the preprocessing was decided, for people */
    bool has_picture, new_head;
    TaskKind task;
    size_t outputs; /* classes, labels or numbers of a sample; 0 with TASK_OTHER */
    float *class_weights;
    char base_sha256[65];
    size_t batch;
    size_t only_batch; /* the one that the file takes; 0: any */
    size_t resident;   /* bytes the process had before any plan */
    size_t part_rows;  /* with --memory, samples that the whole model is run on at a time; 0: a batch */
    Precision precision;
    Comm *comm;  /* processes that train together; NULL: alone */
    int threads; /* of this process, for loading data */
    Progress progress;
    const char *folder; /* of the run: named by the user, or OUTPUT.run, which stays only where there is something to go
                           on from */
    Arm probe, tuned;
    const Arm *chosen;
    Witness witness;      /* of the chosen arm */
    float *probabilities; /* of the chosen arm on the last measured part */
} Tune;

/* What output `index` stands for: a class, a label, the heading of a number. */
const char *tune_output_name(const Tune *tune, size_t index);

/* ---- tune_measure.c: `rows` [samples of set, outputs] */
Status tune_measure(Tune *tune, const Dataset *set, const float *rows, const char *arm, const char *part,
                    Scores *scores, Error *err);

/* ---- tune_features.c */
typedef struct KeptFeatures {
    FeatureCache caches[2]; /* of the training and of the validation data */
    ArraySource sources[2];
    const FeatureCache *cache; /* for the trainer; NULL: nothing is kept */
    Source *parts[2];
} KeptFeatures;
/* Decides whether the frozen part is run beforehand, says so, and does it. */
Status kept_open(Tune *tune, TrainOptions *options, KeptFeatures *kept, Error *err);
void kept_release(KeptFeatures *kept);

/* ---- tune_memory.c */
size_t tune_cache_limit(const Tune *tune);                /* bytes of features in memory; more go to a file */
FeatureLimits tune_feature_limits(Tune *tune, bool says); /* of running the frozen part; says: prints the bill */
size_t tune_feature_batch(const Tune *tune);              /* samples that the frozen part is run on at a time */
void tune_memory_begin(Tune *tune);                       /* before any plan is made */
void tune_memory_options(const Tune *tune, TrainOptions *options);

/* ---- tune_witness.c: what training computed for a few samples, for verify.c */
size_t witness_samples(const Tune *tune); /* how many: a few, or the batch that the file wants */
Status witness_take(Tune *tune, Trainer *trainer, Error *err);
/* `features` [count, width] of the first training samples. */
Status witness_take_probe(Tune *tune, const Probe *probe, const float *features, size_t count, Error *err);
void witness_release(Witness *witness);

/* ---- tune_tasks.c: several tasks, each with data of its own, and one part of the data as a source */
Status tasks_open(Tune *tune, Error *err);
void tasks_release(Tune *tune);
const Lengths *tune_lengths_of(const Tune *tune, const Dataset *set); /* NULL: not cut */

typedef enum Part { PART_TRAIN, PART_VAL, PART_TEST } Part;
typedef struct PartSource {
    DatasetSource sets[SOURCE_MAX];
    size_t count;
    TaskSource tasks;
    Source *source; /* NULL: there is no such part */
} PartSource;
Status part_open(Tune *tune, Part part, PartSource *source, Error *err);
void part_release(PartSource *source);

/* ---- tune_data.c: data sets, and what the losses read of them */
Status tune_open_data(Tune *tune, const char *path, DataParts *parts, Error *err);
Status tune_settle_dtypes(Tune *tune, const DataParts *parts, const LossSpec *losses, size_t count, Error *err);
/* The output that target `i` of several is meant for: the i-th of floats. */
size_t tune_float_output(const Graph *graph, size_t i);
/* Loss `i` of `count`, on output `output`, for this target: as --loss and --loss-weight say, else as target and output
 * suggest. */
Status tune_choose_loss(Tune *tune, const Field *target, size_t i, size_t count, size_t output, Error *err);
Status tune_find_lengths(Tune *tune, const DataParts *parts, const LossSpec *losses, size_t count, Lengths lengths[3],
                         Error *err);

/* ---- tune_processes.c: several processes, where a launcher has started them */
Status processes_open(Tune *tune, Error *err);
void processes_describe(Tune *tune, const char *resuming);   /* `resuming`: the command that goes on with the run */
void processes_close(Tune *tune, Status status, Error *err); /* a failure ends all processes */

Status tune_setup(Tune *tune, Error *err);
Status tune_train(Tune *tune, Error *err);
Status tune_save(Tune *tune, Error *err);
void tune_release(Tune *tune);
bool tune_augments(const Tune *tune);    /* pictures are changed at random in training */
bool tune_keeps_order(const Tune *tune); /* samples are taken in the data's */
bool tune_winograd(const Tune *tune);    /* may convolutions be Winograd's? */
double seconds_now(void);
Status tune_source(Tune *tune, const Dataset *set, bool train, DatasetSource *source, Error *err);
/* Ctrl-C since the program began. */
bool tune_interrupted(void *context);
OptimizerSpec tune_optimizer(const Tune *tune, double lr_absent);
size_t tune_count_trainable(const ParamList *params);

#endif
