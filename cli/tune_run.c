/* The phases of `tune`: preprocessing found, probe on cached features, fine-tuning from there; then the report and the
 * file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/profile.h"
#include "cli/tune.h"

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const Scores no_scores = {NAN, NAN, NAN, NAN, NAN, NAN};

/* ---- sources ----------------------------------------------------------------------------------------------------- */

static AugmentSpec augmentation(const Tune *tune)
{
    int how = tune->fields->augment;
    bool none = how == 1 || tune->fields->recipe == RECIPE_PLAIN || !tune->has_picture;
    bool files = dataset_is_files(tune->data.train);
    AugmentSpec spec = {.crop_area = 1, .crop_ratio = 1};
    if (none)
        return spec;
    spec.flip = files || how > 1;
    spec.crop_area = how == 3 ? 0.25 : files ? 0.5 : 0.8;
    spec.crop_ratio = 4.0 / 3;
    if (how == 3) {
        spec.brightness = spec.contrast = spec.saturation = 0.3;
        spec.erase = 0.25;
    }
    return spec;
}

bool tune_augments(const Tune *tune)
{
    AugmentSpec spec = augmentation(tune);
    return spec.flip || spec.crop_area < 1;
}

bool tune_winograd(const Tune *tune)
{
    return tune->fields->convolution == CONVOLUTION_AUTO;
}

bool tune_keeps_order(const Tune *tune)
{
    return tune->fields->no_shuffle || (tune->fields->recipe == RECIPE_PLAIN && !tune->fields->shuffle);
}

Status tune_source(Tune *tune, const Dataset *set, bool train, DatasetSource *source, Error *err)
{
    AugmentSpec augment = augmentation(tune);
    LoaderOptions options = {.augment = train ? &augment : NULL,
                             .lengths = tune_lengths_of(tune, set),
                             .seed = (uint64_t)tune->fields->seed,
                             .rank = comm_rank(tune->comm),
                             .ranks = comm_size(tune->comm),
                             .threads = tune->threads,
                             .memory = tune->fields->memory > 0 ? 1 : 0, /* the least: two batches */
                             .keep_order = tune_keeps_order(tune)};
    TRY(dataset_source_init(source, set, &tune->picture, &options, err));
    source->interrupted = train ? NULL : tune_interrupted; /* the trainer asks by itself */
    source->source.comm = tune->comm;
    return STATUS_OK;
}

/* ---- options of the trainer -------------------------------------------------------------------------------------- */

OptimizerSpec tune_optimizer(const Tune *tune, double lr_absent)
{
    const TuneFields *f = tune->fields;
    OptimizerSpec spec = optimizer_default(f->optimizer == 0 ? OPTIMIZER_ADAMW : (OptimizerKind)(f->optimizer - 1));
    spec.lr = isnan(f->lr) ? lr_absent : f->lr;
    if (!isnan(f->momentum) || f->recipe == RECIPE_PLAIN)
        spec.momentum = isnan(f->momentum) ? 0 : f->momentum;
    if (!isnan(f->weight_decay) || f->recipe == RECIPE_PLAIN)
        spec.weight_decay = isnan(f->weight_decay) ? 0 : f->weight_decay;
    spec.beta1 = isnan(f->beta1) ? spec.beta1 : f->beta1;
    spec.beta2 = isnan(f->beta2) ? spec.beta2 : f->beta2;
    spec.epsilon = isnan(f->epsilon) ? spec.epsilon : f->epsilon;
    spec.alpha = isnan(f->alpha) ? spec.alpha : f->alpha;
    spec.nesterov = f->nesterov;
    spec.clip_norm = f->clip_norm;
    spec.clip_value = f->clip_value;
    return spec;
}

static TrainOptions train_options(Tune *tune, double lr_absent, uint64_t epochs_absent)
{
    const TuneFields *f = tune->fields;
    bool plain = f->recipe == RECIPE_PLAIN;
    TrainOptions options = {.losses = tune->losses,
                            .loss_count = tune->loss_count,
                            .optimizer = tune_optimizer(tune, lr_absent),
                            .epochs = f->epochs > 0 ? (uint64_t)f->epochs : epochs_absent,
                            .seed = (uint64_t)f->seed,
                            .batch = tune->batch,
                            .accumulate = tune->task_count > 0 ? tune->task_count : (size_t)f->accumulate,
                            .sum_parts = tune->task_count > 0,
                            .target_names = tune->target_names,
                            .patience = f->patience >= 0 ? (uint64_t)f->patience
                                        : plain          ? 0
                                                         : 6,
                            .keep_best = tune->data.val != NULL,
                            .by_accuracy = tune->task == TASK_CLASSES,
                            .comm = tune->comm,
                            .plain_only = f->plain_kernels,
                            .profile = f->profile || f->trace != NULL,
                            .precision = tune->precision,
                            .winograd = tune_winograd(tune),
                            .running_statistics = f->batchnorm == BATCHNORM_RUNNING,
                            .no_decay_1d = !plain,
                            .diverged_factor = plain ? 0 : 50,
                            .on_event = progress_event,
                            .interrupted = tune_interrupted,
                            .context = &tune->progress};
    options.schedule.kind = f->schedule > 0 ? (ScheduleKind)(f->schedule - 1)
                            : plain         ? SCHEDULE_CONSTANT
                                            : SCHEDULE_COSINE;
    options.schedule.warmup = f->warmup > 0 ? (uint64_t)f->warmup : 0;
    options.schedule.every = 30;
    options.schedule.factor = 0.1;
    options.checkpoint = arena_printf(&tune->document->arena, "%s/checkpoint", tune->folder);
    return options;
}

/* ---- the probe --------------------------------------------------------------------------------------------------- */

static void only_head(Tune *tune, const bool *head)
{
    for (size_t i = 0; i < tune->params.count; i++)
        tune->params.items[i].trainable = head[i];
}

static Status find_preset(Tune *tune, Error *err)
{
    PresetScore scores[PRESETS_MAX];
    size_t count, best;
    double begin = seconds_now();
    const FeatureLimits limits = tune_feature_limits(tune, false);
    TRY(recipe_find_preset(tune->document, &tune->params, tune->data.train, &tune->picture, 256,
                           tune_feature_batch(tune), &limits, (uint64_t)tune->fields->seed, scores, &count, &best,
                           err));
    picture_spec_use(&tune->picture, scores[best].preset);
    tune->preset = scores[best].preset->name;
    Str text;
    str_init(&text);
    for (size_t i = 0; i < count; i++)
        str_printf(&text, "%s%s %.1f %%", i == 0 ? "" : ", ", scores[i].preset->name, 100 * scores[i].accuracy);
    progress_note(&tune->progress, "preprocessing", "preprocessing found: %s (probes: %s; %s)", tune->preset, text.text,
                  human_seconds(seconds_now() - begin).text);
    str_release(&text);
    return STATUS_OK;
}

static Status probe_part(Tune *tune, const Probe *probe, const Dataset *set, const char *part, Scores *scores,
                         Error *err)
{
    DatasetSource source;
    FeatureCache cache = {0};
    float *logits = NULL;
    const FeatureLimits limits = tune_feature_limits(tune, false);
    Status status = tune_source(tune, set, false, &source, err);
    if (status == STATUS_OK)
        status = features_cache(tune->document, &tune->params, &source.source, NULL, tune_feature_batch(tune), &limits,
                                &cache, err);
    if (status == STATUS_OK) {
        logits = malloc((cache.samples * probe->classes + 1) * sizeof *logits);
        if (logits == NULL)
            status = fail(err, STATUS_ENVIRONMENT, "no memory for predictions");
    }
    if (status == STATUS_OK) {
        probe_predict(probe, cache.rows[0], cache.samples, logits);
        status = tune_measure(tune, set, logits, "probe", part, scores, err);
    }
    free(logits);
    features_release(&cache);
    dataset_source_release(&source);
    return status;
}

/* What is written is compared with f32 features: those it was fitted on are rounded. */
static Status witness_of_few(Tune *tune, const Probe *probe, Error *err)
{
    Dataset *few = NULL;
    DatasetSource source;
    FeatureCache cache = {0};
    const FeatureLimits limits = tune_feature_limits(tune, false);
    TRY(dataset_first(tune->data.train, witness_samples(tune), &few, err));
    Status status = tune_source(tune, few, false, &source, err);
    if (status == STATUS_OK)
        status = features_cache(tune->document, &tune->params, &source.source, NULL, witness_samples(tune), &limits,
                                &cache, err);
    if (status == STATUS_OK)
        status = witness_take_probe(tune, probe, cache.rows[0], cache.samples, err);
    features_release(&cache);
    dataset_source_release(&source);
    dataset_free(few);
    return status;
}

static Status fit_probe(Tune *tune, Error *err)
{
    double begin = seconds_now();
    DatasetSource source;
    FeatureCache cache = {0};
    Probe probe = {0};
    PlanOptions how = {.precision = tune->precision, .winograd = tune_winograd(tune)};
    const FeatureLimits limits = tune_feature_limits(tune, true);
    Status status = tune_source(tune, tune->data.train, false, &source, err);
    if (status == STATUS_OK)
        status = features_cache(tune->document, &tune->params, &source.source, &how, tune_feature_batch(tune), &limits,
                                &cache, err);
    double features = seconds_now() - begin;
    if (status == STATUS_OK)
        status = recipe_fit_head(tune->document, &tune->params, &cache, tune->outputs, tune->class_weights,
                                 (uint64_t)tune->fields->seed, &probe, err);
    if (status == STATUS_OK && !tune->fields->no_verify)
        status = tune->precision == PRECISION_F32 ? witness_take_probe(tune, &probe, cache.rows[0], cache.samples, err)
                                                  : witness_of_few(tune, &probe, err);
    features_release(&cache);
    dataset_source_release(&source);
    tune->probe =
        (Arm){.name = "probe", .val = no_scores, .test = no_scores, .trainable = tune_count_trainable(&tune->params)};
    if (status == STATUS_OK && tune->data.val != NULL)
        status = probe_part(tune, &probe, tune->data.val, "val", &tune->probe.val, err);
    tune->probe.seconds = seconds_now() - begin;
    if (status == STATUS_OK && tune->data.test != NULL)
        status = probe_part(tune, &probe, tune->data.test, "test", &tune->probe.test, err);
    if (status == STATUS_OK) {
        tune->probe.measured = true;
        bool labels = tune->task == TASK_LABELS;
        progress_note(
            &tune->progress, "probe",
            labels ? "probe: labels right, cross-validated, %.1f %%, on validation %.1f %%; features %s, in all %s"
                   : "probe: cross-validated %.1f %%, validation %.1f %%; features %s, in all %s",
            100 * probe.accuracy, 100 * tune->probe.val.accuracy, human_seconds(features).text,
            human_seconds(tune->probe.seconds).text);
    }
    probe_release(&probe);
    return status;
}

/* Is the head that may be trained one that a probe can fit? Then everything before it is run once. */
static Status select_head(Tune *tune, bool **head, bool *found, Error *err)
{
    const char *pattern = "head";
    *head = calloc(tune->params.count + 1, sizeof **head);
    if (*head == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu parameters", tune->params.count);
    Error none = {0};
    *found = params_select(tune->document, &tune->params, &pattern, 1, *head, &none) == STATUS_OK;
    for (size_t i = 0; i < tune->params.count && *found; i++)
        if ((*head)[i] && !tune->wanted[i])
            *found = false;
    return STATUS_OK;
}

static bool head_is_all(const Tune *tune, const bool *head)
{
    for (size_t i = 0; i < tune->params.count; i++)
        if (tune->wanted[i] && !head[i])
            return false;
    return true;
}

/* ---- fine-tuning ------------------------------------------------------------------------------------------------- */

/* What is no class of a sample: tokens, pixels, numbers, several targets. */
static Status evaluate_targets(Tune *tune, Trainer *trainer, Arm *arm, Error *err)
{
    for (size_t p = 0; p < 2 && tune->task == TASK_OTHER; p++) {
        PartSource source;
        Scores *scores = p == 0 ? &arm->val : &arm->test;
        Status status = part_open(tune, p == 0 ? PART_VAL : PART_TEST, &source, err);
        if (status == STATUS_OK && source.source != NULL) {
            status = trainer_score(trainer, source.source, arm->targets[p], &scores->loss, err);
            arm->has_targets[p] = status == STATUS_OK;
        }
        part_release(&source);
        TRY(status);
    }
    return STATUS_OK;
}

static Status evaluate_arm(Tune *tune, Trainer *trainer, Arm *arm, Error *err)
{
    TRY(evaluate_targets(tune, trainer, arm, err));
    const struct {
        const Dataset *set;
        const char *name;
        Scores *scores;
    } parts[] = {{tune->data.val, "val", &arm->val}, {tune->data.test, "test", &arm->test}};
    for (size_t p = 0; p < 2; p++) {
        if (parts[p].set == NULL || tune->task == TASK_OTHER)
            continue;
        DatasetSource source;
        float *logits = NULL;
        Status status = tune_source(tune, parts[p].set, false, &source, err);
        if (status == STATUS_OK)
            status = trainer_evaluate(trainer, &source.source, tune->losses[0].output, &logits, NULL, NULL, err);
        if (status == STATUS_OK)
            status = tune_measure(tune, parts[p].set, logits, arm->name, parts[p].name, parts[p].scores, err);
        free(logits);
        dataset_source_release(&source);
        TRY(status);
    }
    return STATUS_OK;
}

/* Better on the validation data, or nothing to compare with. */
static bool tuned_is_better(const Tune *tune)
{
    if (!tune->probe.measured || tune->data.val == NULL || isnan(tune->tuned.val.loss))
        return true;
    const Scores *a = &tune->tuned.val, *b = &tune->probe.val;
    if (tune->task == TASK_LABELS)
        return isfinite(a->auc) && isfinite(b->auc) && (a->auc > b->auc || a->auc < b->auc) ? a->auc > b->auc
                                                                                            : a->loss < b->loss;
    if (tune->outputs == 2 && isfinite(a->auc) && isfinite(b->auc) && dataset_count(tune->data.val) >= 200)
        return a->auc > b->auc;
    return a->accuracy > b->accuracy || (a->accuracy >= b->accuracy && a->loss < b->loss);
}

/* From the checkpoint; a run that was stopped before there was one begins anew. */
static Status go_on(Tune *tune, Trainer *trainer, const char *checkpoint, Error *err)
{
    if (tune->fields->resume == NULL)
        return folder_make(tune->folder, err);
    Str changed;
    str_init(&changed);
    Status status = access(checkpoint, F_OK) == 0 ? trainer_resume(trainer, checkpoint, &changed, err) : STATUS_OK;
    if (status == STATUS_OK && changed.length > 0)
        progress_note(&tune->progress, "changed", "resumed with %s: the result is not that of an uninterrupted run",
                      changed.text);
    str_release(&changed);
    TRY(status);
    TRY(progress_resume(&tune->progress, trainer_epoch(trainer), err));
    progress_note(&tune->progress, "resumed", "going on after epoch %llu", (unsigned long long)trainer_epoch(trainer));
    return STATUS_OK;
}

static Status show_profile(const Tune *tune, const Trainer *trainer, Error *err)
{
    Str table, trace;
    str_init(&table);
    str_init(&trace);
    Status status = trainer_profile(trainer, tune->fields->profile ? &table : NULL,
                                    tune->fields->trace != NULL ? &trace : NULL, err);
    if (status == STATUS_OK)
        status = profile_write(&table, &trace, tune->fields->trace, err);
    str_release(&table);
    str_release(&trace);
    return status;
}

static Status open_training(Tune *tune, const TrainOptions *options, Trainer **trainer, PartSource *train,
                            PartSource *val, Error *err)
{
    TRY(trainer_new(tune->document, &tune->params, NULL, options, trainer, err));
    TRY(part_open(tune, PART_TRAIN, train, err));
    return part_open(tune, PART_VAL, val, err);
}

static Status run_training(Tune *tune, const TrainOptions *options, Trainer *trainer, Source *train, Source *val,
                           Error *err)
{
    TRY(go_on(tune, trainer, options->checkpoint, err));
    return trainer_run(trainer, train, val, err);
}

/* A folder's order is one class after the other: a net that sees it so unlearns each for the next. */
static void warn_of_order(Tune *tune)
{
    const Dataset *set = tune->data.train;
    size_t count = dataset_count(set);
    if (!tune_keeps_order(tune) || count <= tune->batch || dataset_target_count(set) == 0 ||
        dataset_class_count(set, 0) < 2 || dataset_label(set, 0, 0) == dataset_label(set, 0, count - 1))
        return;
    for (size_t i = 1; i < count; i++)
        if (dataset_label(set, 0, i) < dataset_label(set, 0, i - 1))
            return;
    progress_note(&tune->progress, "note",
                  "the samples are taken in the data's order, which is one class after the other%s",
                  tune->fields->no_shuffle ? "" : "; --shuffle mixes them");
}

/* `check` says the same before anything runs (W11, E05). */
static Status look_at_unreached(Tune *tune, const Trainer *trainer, Error *err)
{
    const ParamInfo *first = NULL;
    size_t count = trainer_unreached(trainer, &first), all = 0;
    for (size_t i = 0; i < tune->params.count; i++)
        all += tune->params.items[i].trainable && tune->params.items[i].tied_to < 0;
    if (count > 0 && count == all)
        return fail(err, STATUS_UNSUPPORTED,
                    "nothing was trained: the loss does not depend on '%s'%s, a step function or the like is between; "
                    "choose other parameters with --train",
                    first->name, all > 1 ? " or any other that may be trained" : "");
    if (count > 0)
        progress_note(&tune->progress, "warning",
                      "the loss does not depend on %zu of the parameters that may be trained ('%s'%s): they stay as "
                      "they are",
                      count, first->name, count > 1 ? ", ..." : "");
    return STATUS_OK;
}

static Status train_from_here(Tune *tune, double lr, uint64_t epochs, const char *name, Error *err)
{
    double begin = seconds_now();
    TrainOptions options = train_options(tune, lr, epochs);
    Trainer *trainer = NULL;
    PartSource train = {.count = 0}, val = {.count = 0};
    KeptFeatures kept = {.cache = NULL};
    tune_memory_options(tune, &options);
    tune->tuned =
        (Arm){.name = name, .val = no_scores, .test = no_scores, .trainable = tune_count_trainable(&tune->params)};
    progress_phase(&tune->progress, name);
    warn_of_order(tune);
    Status status = kept_open(tune, &options, &kept, err);
    if (status == STATUS_OK && kept.cache != NULL)
        status = trainer_new(tune->document, &tune->params, kept.cache, &options, &trainer, err);
    else if (status == STATUS_OK)
        status = open_training(tune, &options, &trainer, &train, &val, err);
    if (status == STATUS_OK)
        status = kept.cache != NULL ? run_training(tune, &options, trainer, kept.parts[0], kept.parts[1], err)
                                    : run_training(tune, &options, trainer, train.source, val.source, err);
    if (status == STATUS_OK)
        status = look_at_unreached(tune, trainer, err);
    tune->tuned.seconds = seconds_now() - begin;
    if (status == STATUS_OK)
        status = show_profile(tune, trainer, err);
    if (status == STATUS_OK)
        trainer_end(trainer, tune->part_rows);
    kept_release(&kept);
    part_release(&train); /* a loader holds batches: measuring opens its own */
    part_release(&val);
    if (status == STATUS_OK)
        status = evaluate_arm(tune, trainer, &tune->tuned, err);
    tune->tuned.measured = status == STATUS_OK;
    tune->chosen = status == STATUS_OK && !tuned_is_better(tune) ? &tune->probe : &tune->tuned;
    if (status == STATUS_OK && tune->chosen == &tune->tuned && !tune->fields->no_verify)
        status = witness_take(tune, trainer, err);
    if (status == STATUS_OK && tune->chosen == &tune->tuned)
        status = params_write_back(trainer_store(trainer), tune->document, err);
    trainer_free(trainer);
    return status;
}

static void train_wanted(Tune *tune)
{
    for (size_t i = 0; i < tune->params.count; i++)
        tune->params.items[i].trainable = tune->wanted[i];
}

static Status default_preset(Tune *tune)
{
    if (tune->has_picture && tune->preset == NULL) {
        tune->preset = "0..1";
        picture_spec_use(&tune->picture, picture_preset("0..1"));
    }
    return STATUS_OK;
}

/* A head that is not linear has no probe; that is no failure. */
static Status try_probe(Tune *tune, Error *err)
{
    Error why = {0};
    if (fit_probe(tune, &why) == STATUS_OK)
        return STATUS_OK;
    if (why.status != STATUS_UNSUPPORTED)
        return fail(err, why.status, "%s", why.message);
    progress_note(&tune->progress, "note", "no probe: %s", why.message);
    return STATUS_OK;
}

/* With --memory: whether training will fit is said before the probe takes its time. */
static Status check_memory(Tune *tune, Error *err)
{
    TrainOptions options = train_options(tune, 1, 1);
    Trainer *trainer = NULL;
    PartSource train = {.count = 0}, val = {.count = 0};
    if (tune->fields->memory == 0 || tune->comm != NULL || tune->fields->recipe == RECIPE_PROBE)
        return STATUS_OK;
    train_wanted(tune);
    tune_memory_options(tune, &options);
    Status status = open_training(tune, &options, &trainer, &train, &val, err);
    if (status == STATUS_OK)
        status = trainer_prepare(trainer, train.source, val.source, err);
    if (status == STATUS_OK)
        tune->part_rows = trainer_bill(trainer).part_rows;
    part_release(&train);
    part_release(&val);
    trainer_free(trainer);
    return status;
}

Status tune_train(Tune *tune, Error *err)
{
    bool *head = NULL, found = false;
    tune_memory_begin(tune);
    bool auto_recipe = tune->fields->recipe != RECIPE_PLAIN && tune->fields->init == 0 && tune->task != TASK_OTHER;
    Status status = auto_recipe ? select_head(tune, &head, &found, err) : STATUS_OK;
    if (status == STATUS_OK && !(found && head_is_all(tune, head))) /* running the frozen part keeps it by itself */
        status = check_memory(tune, err);
    bool done = false;
    if (status == STATUS_OK && found) {
        only_head(tune, head);
        if (tune->has_picture && tune->preset == NULL)
            status = find_preset(tune, err);
        if (status == STATUS_OK && tune->task != TASK_NUMBERS)
            status = try_probe(tune, err);
        done = tune->probe.measured && (tune->fields->recipe == RECIPE_PROBE || head_is_all(tune, head));
    }
    if (status == STATUS_OK && done) {
        tune->chosen = &tune->probe;
    } else if (status == STATUS_OK) {
        train_wanted(tune);
        default_preset(tune);
        bool plain = tune->fields->recipe == RECIPE_PLAIN;
        status = train_from_here(tune,
                                 plain                  ? 1e-3
                                 : tune->probe.measured ? 1e-4
                                                        : 1e-3,
                                 plain ? 1 : 20, tune->fields->init == 1 ? "scratch" : "tune", err);
    }
    free(head);
    return status;
}
