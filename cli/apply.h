/* What eval, predict and features share: a model, the data it is applied to, pictures prepared as the model was trained
 * with, batches through it. A model that `tune` wrote says all of that itself; flags are for others. */
#ifndef REGRAFT_CLI_APPLY_H
#define REGRAFT_CLI_APPLY_H

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "runtime/train.h"

typedef struct ApplyFields {
    const char *data, *preset, *preprocess, *part;
    int64_t batch, threads;
    bool known, skip_broken, json, quiet;
} ApplyFields;

/* Rows of an option table whose Fields begin with `ApplyFields apply`. */
#define APPLY_OPTIONS                                                                                                  \
    {OPTION("--data", 'd', TEXT, apply.data, "PATH", "folder of pictures, one picture, .npz, .csv or IDX file"),       \
     .required = true, .group = "Data"},                                                                               \
        {OPTION("--part", 0, TEXT, apply.part, "NAME", "train, val or test, where the data has parts")},               \
        {OPTION("--known", 0, FLAG, apply.known, NULL, "samples of the model's own classes alone")},                   \
        {OPTION("--preset", 0, TEXT, apply.preset, "NAME",                                                             \
                "imagenet, -1..1, 0..1, 0..255, each also with -bgr, caffe; the model's own by default")},             \
        {OPTION("--preprocess", 0, TEXT, apply.preprocess, "WORDS",                                                    \
                "as in the metadata, e.g. \"frame=squash resize=bicubic\" (docs/formats.md)")},                        \
        {OPTION("--skip-broken", 0, FLAG, apply.skip_broken, NULL, "leave unreadable pictures out")},                  \
        {OPTION("--batch", 'b', INT, apply.batch, "N", "samples a run"), .positive = true},                            \
        {OPTION("--threads", 0, INT, apply.threads, "N", "threads of computation"), .positive = true},                 \
        {OPTION("--json", 0, FLAG, apply.json, NULL, "print JSON"), .group = "Output"},                                \
    {                                                                                                                  \
        OPTION("--quiet", 'q', FLAG, apply.quiet, NULL, "no notes")                                                    \
    }

typedef struct Apply {
    const ApplyFields *fields;
    Model *document;
    const char **labels; /* NULL-terminated, from the model's metadata; NULL: it has none */
    size_t label_count;
    bool independent; /* the labels are there or not, each by itself (regraft.task) */
    PictureSpec picture;
    DataParts data;
    const char *part; /* which one is used: "train", "val", "test" */
    Dataset *set;
    DatasetSource source;
    Predictor *predictor;
} Apply;

/* Opens the model alone; apply_open_data follows, after whatever the verb does to the document. */
Status apply_open(Apply *apply, const char *model, const ApplyFields *fields, Error *err);
Status apply_open_data(Apply *apply, bool unlabelled, Error *err);
void apply_release(Apply *apply);

/* Runs everything, batch by batch. `each` sees a batch after it has run and asks apply->predictor for outputs. */
typedef Status (*ApplyEach)(Apply *apply, const Batch *batch, void *context, Error *err);
Status apply_run(Apply *apply, ApplyEach each, void *context, Error *err);

/* Name of class `index`: the model's, else the data's, else the number. Lives until the next call. */
const char *apply_class_name(const Apply *apply, size_t index);
/* Does output `index` hold probabilities already (Softmax, Sigmoid at its end)? */
OutputForm apply_output_form(const Apply *apply, size_t index);

#endif
