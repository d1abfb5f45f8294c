/* The training loop: batches in, updates, epochs, the best kept. Plans come from train_plans.c, what they may take is
 * settled in train_memory.c. Prints nothing: events go to the caller. */
#include "runtime/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "onnx/base/rng.h"
#include "runtime/distribute.h"
#include "runtime/plan.h"

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A target's name among the data; `name`: that of the graph input which takes it. */
static const char *target_name(const TrainOptions *o, const Batch *batch, int i, const char *name)
{
    size_t loss = batch->only > 0 ? batch->only - 1 : (size_t)i;
    bool known = o->target_names != NULL && loss < o->loss_count && o->target_names[loss] != NULL;
    return known ? o->target_names[loss] : name;
}

static Status check_types(const Trainer *trainer, const PlanEntry *entry, const Batch *batch, Error *err)
{
    const Graph *graph = entry->working->graph;
    int inputs = batch->input_count, all = inputs + (entry->training ? batch->target_count : 0);
    if ((size_t)all != graph->input_count)
        return fail(err, STATUS_REJECTED, "the data gives %d inputs and %d targets, the model takes %zu in all", inputs,
                    batch->target_count, graph->input_count);
    for (int i = 0; i < all; i++) {
        const Type *want = &graph->inputs[i]->type;
        const Type *have = i < inputs ? &batch->input_types[i] : &batch->target_types[i - inputs];
        if (want->dtype != have->dtype || type_count(want) != type_count(have))
            return fail(err, STATUS_REJECTED,
                        "%s '%s': the model takes %s with %lld elements a batch, the data has %s with %lld",
                        i < inputs ? "input" : "target",
                        i < inputs ? graph->inputs[i]->name
                                   : target_name(&trainer->options, batch, i - inputs, graph->inputs[i]->name),
                        dtype_name(want->dtype), (long long)type_count(want), dtype_name(have->dtype),
                        (long long)type_count(have));
    }
    return STATUS_OK;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void set_decay(Trainer *trainer)
{
    for (size_t i = 0; i < trainer->store->count && trainer->options.no_decay_1d; i++)
        if (trainer->store->items[i].rank <= 1)
            trainer->store->items[i].decay_scale = 0;
}

/* Running statistics are in the store from the start, so that a checkpoint can be read before the first plan is made.
 */
static Status find_statistics(Trainer *trainer, Error *err)
{
    for (const Node *node = trainer->document->graph->first; node != NULL; node = node->next)
        for (int i = 3; i <= 4 && node_is(node, "BatchNormalization"); i++)
            if (node_input(node, i) != NULL && node->inputs[i]->constant != NULL &&
                params_state(trainer->store, node->inputs[i]->constant, err) < 0)
                return STATUS_ENVIRONMENT;
    return STATUS_OK;
}

static const char *features_form(const FeatureCache *cache)
{
    for (int i = 0; cache != NULL && i < cache->count; i++)
        if (cache->narrow[i])
            return "bf16";
    return cache == NULL ? "none" : "f32";
}

static void describe_settings(Trainer *trainer)
{
    const TrainOptions *o = &trainer->options;
    const OptimizerSpec *rule = &o->optimizer;
    const ScheduleSpec *schedule = &o->schedule;
    /* epochs count only where the learning rate depends on how many there will be */
    bool ends = schedule->kind == SCHEDULE_COSINE || schedule->kind == SCHEDULE_LINEAR;
    RunSettings *to = &trainer->settings;
    snprintf(to->fixed, sizeof to->fixed,
             "parameters: %zu, floats: %zu, seed: %llu, batch: %zu, accumulate: %zu, processes: %d, optimizer: %d",
             trainer->params->count, params_plain_total(trainer->store), (unsigned long long)o->seed, o->batch,
             o->accumulate, o->comm != NULL ? comm_size(o->comm) : 1, (int)rule->kind);
    snprintf(to->choices, sizeof to->choices,
             "lr: %.9g, momentum: %.9g, nesterov: %d, beta1: %.9g, beta2: %.9g, eps: %.9g, alpha: %.9g, "
             "weight decay: %.9g, clip norm: %.9g, clip value: %.9g, schedule: %d, warmup: %llu, epochs: %llu, "
             "precision: %s, convolution: %s, batchnorm: %s, features: %s, views: %zu",
             rule->lr, rule->momentum, rule->nesterov, rule->beta1, rule->beta2, rule->epsilon, rule->alpha,
             rule->weight_decay, rule->clip_norm, rule->clip_value, (int)schedule->kind,
             (unsigned long long)schedule->warmup, (unsigned long long)(ends ? o->epochs : 0),
             o->precision == PRECISION_BF16 ? "bf16" : "f32", o->winograd ? "auto" : "direct",
             o->running_statistics ? "running" : "live", features_form(trainer->cache),
             trainer->cache == NULL ? 0 : trainer->cache->views);
}

Status trainer_new(Model *document, const ParamList *params, const FeatureCache *cache, const TrainOptions *options,
                   Trainer **out, Error *err)
{
    *out = NULL;
    Trainer *trainer = calloc(1, sizeof *trainer);
    if (trainer == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a trainer");
    trainer->document = document;
    trainer->params = params;
    trainer->cache = cache;
    trainer->options = *options;
    if (trainer->options.accumulate == 0)
        trainer->options.accumulate = 1;
    trainer->position =
        (Position){.best_loss = INFINITY, .best_accuracy = -INFINITY, .first_loss = NAN, .seed = options->seed};
    Status status = params_new(params, &trainer->store, err);
    trainer->reached = calloc(params->count + 1, sizeof *trainer->reached);
    if (status == STATUS_OK && trainer->reached == NULL)
        status = fail(err, STATUS_ENVIRONMENT, "no memory for %zu parameters", params->count);
    if (status == STATUS_OK)
        status = find_statistics(trainer, err);
    if (status == STATUS_OK && options->comm != NULL)
        status = distribution_new(options->comm, trainer->store, &trainer->distribution, err);
    if (status != STATUS_OK) {
        trainer_free(trainer);
        return status;
    }
    set_decay(trainer);
    describe_settings(trainer);
    *out = trainer;
    return STATUS_OK;
}

void trainer_free(Trainer *trainer)
{
    if (trainer == NULL)
        return;
    trainer_forget_plans(trainer);
    workspace_release(&trainer->space);
    distribution_free(trainer->distribution);
    params_free(trainer->store);
    free(trainer->best);
    free(trainer->reached);
    free(trainer);
}

ParamStore *trainer_store(Trainer *trainer)
{
    return trainer->store;
}

uint64_t trainer_best_epoch(const Trainer *trainer)
{
    return trainer->position.best_epoch;
}

/* ---- the best epoch ---------------------------------------------------------------------------------------------- */

static size_t state_floats(const ParamStore *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->state_count; i++)
        total += (size_t)tensor_count(store->state_origins[i]);
    return total;
}

static Status keep_best(Trainer *trainer, Error *err)
{
    ParamStore *store = trainer->store;
    size_t parameters = params_plain_total(store), wanted = parameters + state_floats(store);
    if (trainer->best_count != wanted) {
        free(trainer->best);
        trainer->best = calloc(wanted + 1, sizeof *trainer->best);
        trainer->best_count = wanted;
        if (trainer->best == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory to keep the best parameters");
    }
    TRY(params_get_block(store, store->data, trainer->best, err));
    float *at = trainer->best + parameters;
    for (size_t i = 0; i < store->state_count; i++) {
        size_t n = (size_t)tensor_count(store->state_origins[i]);
        memcpy(at, store->state_data[i], n * sizeof *at);
        at += n;
    }
    return STATUS_OK;
}

static Status restore_best(Trainer *trainer, Error *err)
{
    ParamStore *store = trainer->store;
    if (trainer->best == NULL)
        return STATUS_OK;
    TRY(params_set_block(store, store->data, trainer->best, err));
    const float *at = trainer->best + params_plain_total(store);
    for (size_t i = 0; i < store->state_count; i++) {
        size_t n = (size_t)tensor_count(store->state_origins[i]);
        memcpy(store->state_data[i], at, n * sizeof *at);
        at += n;
    }
    return STATUS_OK;
}

static Status save(Trainer *trainer, Error *err)
{
    if (trainer->options.checkpoint == NULL || comm_rank(trainer->options.comm) != 0)
        return STATUS_OK;
    return checkpoint_write(trainer->options.checkpoint, trainer->store, trainer->best, &trainer->position,
                            &trainer->settings, err);
}

Status trainer_resume(Trainer *trainer, const char *path, Str *changed, Error *err)
{
    free(trainer->best);
    trainer->best = NULL;
    TRY(checkpoint_read(path, trainer->store, &trainer->best, &trainer->position, &trainer->settings, changed, err));
    trainer->best_count = trainer->best == NULL ? 0 : params_plain_total(trainer->store) + state_floats(trainer->store);
    return STATUS_OK;
}

uint64_t trainer_epoch(const Trainer *trainer)
{
    return trainer->position.epoch;
}

/* ---- evaluation -------------------------------------------------------------------------------------------------- */

typedef struct Collect {
    float *rows; /* [count, width] in order of ids */
    size_t width, output, count;
} Collect;

static Status collect(Collect *c, const PlanEntry *entry, const Batch *batch, Error *err)
{
    const Value *value = entry->working->graph->outputs[c->output];
    size_t width = (size_t)type_count(&value->type) / batch->size;
    if (c->rows == NULL) {
        c->width = width;
        c->rows = calloc(c->count * width + 1, sizeof *c->rows);
        if (c->rows == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory for %zu predictions of %zu numbers", c->count, width);
    }
    if (width != c->width || value->type.dtype != DTYPE_F32)
        return fail(err, STATUS_UNSUPPORTED, "output '%s' has another width from batch to batch, or is not float",
                    value->name);
    const float *rows = plan_output(entry->plan, c->output);
    for (size_t i = 0; i < batch->size; i++)
        memcpy(c->rows + batch->ids[i] * width, rows + i * width, width * sizeof *rows);
    return STATUS_OK;
}

typedef Status (*EachBatch)(Trainer *trainer, const PlanEntry *entry, const Batch *batch, void *context, Error *err);

/* After training on features the whole model is measured for the first time: in smaller parts where --memory wants it.
 */
static Status plan_measuring(Trainer *trainer, const Batch *batch, Batch *some, size_t *rows, PlanEntry **entry,
                             Error *err)
{
    for (;;) {
        Error why = {0};
        Status status = trainer_plan(trainer, some, false, entry, &why);
        if (status == STATUS_OK)
            return STATUS_OK;
        if (status != STATUS_ENVIRONMENT || !trainer->measures || some->size < 2)
            return fail(err, status, "%s", why.message);
        *rows = trainer->part_rows = (some->size + 1) / 2;
        size_t first = (size_t)(some->ids - batch->ids);
        *some = batch_rows(batch, first, *rows);
    }
}

/* Runs the source once in inference form, in parts where training runs batches in parts. */
static Status each_batch(Trainer *trainer, Source *source, EachBatch each, void *context, Error *err)
{
    TRY(source->start(source, 0, false, trainer->options.batch, err));
    for (;;) {
        Batch batch;
        PlanEntry *entry;
        TRY(source->next(source, &batch, err));
        if (batch.size == 0)
            return STATUS_OK;
        size_t rows = trainer->part_rows > 0 ? trainer->part_rows : batch.size;
        for (size_t first = 0; first < batch.size; first += rows) {
            Batch some = batch_rows(&batch, first, batch.size - first < rows ? batch.size - first : rows);
            TRY(plan_measuring(trainer, &batch, &some, &rows, &entry, err));
            trainer_feed(entry, &some);
            TRY(plan_run(entry->plan, 0, 0, false, err));
            TRY(each(trainer, entry, &some, context, err));
        }
    }
}

static Status collect_batch(Trainer *trainer, const PlanEntry *entry, const Batch *batch, void *context, Error *err)
{
    (void)trainer;
    return collect(context, entry, batch, err);
}

Status trainer_evaluate(Trainer *trainer, Source *source, size_t output, float **logits, size_t *width, double *loss,
                        Error *err)
{
    Collect c = {.output = output, .count = source->count};
    Status status = each_batch(trainer, source, collect_batch, &c, err);
    if (status == STATUS_OK && c.rows != NULL)
        status = comm_merge(source->comm, c.rows, c.count * c.width * sizeof *c.rows, err);
    if (loss != NULL)
        *loss = NAN;
    if (status != STATUS_OK || logits == NULL) {
        free(c.rows);
        c.rows = NULL;
    }
    if (logits != NULL)
        *logits = c.rows;
    if (width != NULL)
        *width = c.width;
    return status;
}

/* What a pass over a source says of every loss; for one class a sample its rows are kept too, for the area under the
 * curve. */
typedef struct Score {
    double loss, accuracy, auc;
    TargetScore targets[SOURCE_MAX];
} Score;

typedef struct Scoring {
    Tally tallies[SOURCE_MAX];
    Collect rows;
    int64_t *labels; /* NULL: targets are no classes of samples */
} Scoring;

static Status tally_batch(Trainer *trainer, const PlanEntry *entry, const Batch *batch, Scoring *scoring, Error *err)
{
    const TrainOptions *o = &trainer->options;
    const Graph *graph = entry->working->graph;
    for (size_t i = 0; i < o->loss_count; i++) {
        const LossSpec *loss = &o->losses[i];
        if (batch->only > 0 && batch->only - 1 != i)
            continue;
        size_t target = batch->only > 0 ? 0 : i;
        if (loss->output >= graph->output_count || (int)target >= batch->target_count)
            return fail(err, STATUS_USAGE, "loss %zu has no output or no target", i);
        const Type *type = &graph->outputs[loss->output]->type, *have = &batch->target_types[target];
        bool classes = loss->kind == LOSS_SOFTMAX_CE || loss->kind == LOSS_LM || loss->kind == LOSS_DICE;
        int axis = loss_class_axis(loss, type);
        int64_t wanted = classes && type->dims[axis] > 0 ? type_count(type) / type->dims[axis] : type_count(type);
        if (type_count(have) != wanted)
            return fail(err, STATUS_REJECTED, "target '%s' has %lld numbers a batch, the loss on '%s' wants %lld",
                        loss->target_name, (long long)type_count(have), graph->outputs[loss->output]->name,
                        (long long)wanted);
        TRY(tally_add(&scoring->tallies[i], loss, plan_output(entry->plan, loss->output), type,
                      output_form_read_by(trainer->document->graph, loss, type), batch->targets[target], err));
    }
    return STATUS_OK;
}

static Status score_batch(Trainer *trainer, const PlanEntry *entry, const Batch *batch, void *context, Error *err)
{
    Scoring *scoring = context;
    TRY(tally_batch(trainer, entry, batch, scoring, err));
    if (scoring->labels == NULL || entry->working->graph->outputs[scoring->rows.output]->type.rank != 2)
        return STATUS_OK;
    for (size_t i = 0; i < batch->size; i++)
        scoring->labels[batch->ids[i]] = ((const int64_t *)batch->targets[0])[i];
    return collect(&scoring->rows, entry, batch, err);
}

static Status score_classes(const Trainer *trainer, const Scoring *scoring, Score *out, Error *err)
{
    Metrics metrics;
    TRY(metrics_classes(scoring->rows.rows, scoring->labels, scoring->rows.count, scoring->rows.width, &metrics, err));
    OutputForm form = output_form(trainer->document->graph, trainer->options.losses[0].output);
    if (form == OUTPUT_SCORES || form == OUTPUT_LOG_SOFTMAX)
        out->loss = metrics.loss;
    out->accuracy = metrics.accuracy;
    out->auc = metrics.auc;
    metrics_release(&metrics);
    return STATUS_OK;
}

/* Every process has scored its part; afterwards each has all of it. */
static Status put_together(Comm *comm, Scoring *scoring, size_t losses, Error *err)
{
    Collect *rows = &scoring->rows;
    for (size_t i = 0; i < losses; i++)
        TRY(tally_merge(comm, &scoring->tallies[i], err));
    if (rows->rows == NULL)
        return STATUS_OK;
    TRY(comm_merge(comm, rows->rows, rows->count * rows->width * sizeof *rows->rows, err));
    return comm_merge(comm, scoring->labels, rows->count * sizeof *scoring->labels, err);
}

static Status score(Trainer *trainer, Source *source, Score *out, Error *err)
{
    const TrainOptions *o = &trainer->options;
    Scoring scoring = {.rows = {.count = source->count, .output = o->loss_count > 0 ? o->losses[0].output : 0}};
    *out = (Score){.loss = NAN, .accuracy = NAN, .auc = NAN};
    if (o->loss_count == 1 && o->losses[0].kind == LOSS_SOFTMAX_CE) {
        scoring.labels = calloc(source->count + 1, sizeof *scoring.labels);
        if (scoring.labels == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory for labels");
    }
    Status status = each_batch(trainer, source, score_batch, &scoring, err);
    if (status == STATUS_OK)
        status = put_together(source->comm, &scoring, o->loss_count, err);
    for (size_t i = 0; i < o->loss_count; i++) {
        out->targets[i] = tally_score(&scoring.tallies[i]);
        double part = o->losses[i].weight * out->targets[i].loss;
        if (isfinite(part))
            out->loss = isnan(out->loss) ? part : out->loss + part;
        tally_release(&scoring.tallies[i]);
    }
    if (o->loss_count == 1)
        out->accuracy = out->targets[0].accuracy;
    if (status == STATUS_OK && scoring.rows.rows != NULL)
        status = score_classes(trainer, &scoring, out, err);
    free(scoring.rows.rows);
    free(scoring.labels);
    return status;
}

Status trainer_score(Trainer *trainer, Source *source, TargetScore *scores, double *loss, Error *err)
{
    Score all;
    TRY(score(trainer, source, &all, err));
    memcpy(scores, all.targets, trainer->options.loss_count * sizeof *scores);
    if (loss != NULL)
        *loss = all.loss;
    return STATUS_OK;
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

static void emit(const Trainer *trainer, const TrainEvent *event)
{
    if (trainer->options.on_event != NULL)
        trainer->options.on_event(event, trainer->options.context);
}

static bool wants_to_stop(const Trainer *trainer)
{
    return trainer->options.interrupted != NULL && trainer->options.interrupted(trainer->options.context);
}

/* How often the first output's largest class is the label; NaN when targets are not classes. */
static double batch_accuracy(const Trainer *trainer, const PlanEntry *entry, const Batch *batch)
{
    const Value *out = entry->working->graph->outputs[trainer->options.losses[0].output];
    if (trainer->options.losses[0].kind != LOSS_SOFTMAX_CE || out->type.rank != 2 || batch->only > 0)
        return NAN;
    const float *rows = plan_output(entry->plan, trainer->options.losses[0].output);
    const int64_t *labels = batch->targets[0];
    size_t classes = (size_t)out->type.dims[1], right = 0;
    for (size_t i = 0; i < batch->size; i++) {
        size_t best = 0;
        for (size_t c = 1; c < classes; c++)
            if (rows[i * classes + c] > rows[i * classes + best])
                best = c;
        right += labels[i] == (int64_t)best;
    }
    return (double)right / (double)batch->size;
}

typedef struct Epoch { /* what one pass has added up */
    double loss, accuracy, seconds, begin;
    size_t samples, batches;
    bool stop; /* somebody has asked to */
} Epoch;

static size_t updates_per_epoch(const Trainer *trainer, const Source *train)
{
    size_t batches = (train->count + trainer->options.batch - 1) / trainer->options.batch;
    return (batches + trainer->options.accumulate - 1) / trainer->options.accumulate;
}

/* The mean over an accumulated update: each part's gradient is of its own mean, so the sum is divided by the number of
 * parts. */
static void average_gradient(ParamStore *store, size_t parts)
{
    float scale = 1.0f / (float)parts;
    for (size_t i = 0; i < store->total && parts > 1; i++)
        store->gradient[i] *= scale;
}

/* An update of several runs is summed over processes when all of them are done. With a limit on memory each process may
 * run its batch in another number of parts. */
static bool sums_late(const Trainer *trainer)
{
    return trainer->options.accumulate > 1 || trainer->options.memory > 0;
}

static Status update(Trainer *trainer, size_t parts, double *norm, double *lr, Error *err)
{
    TrainOptions *o = &trainer->options;
    if (trainer->distribution != NULL && sums_late(trainer))
        TRY(distribution_reduce(trainer->distribution, err));
    average_gradient(trainer->store, o->sum_parts ? 1 : parts);
    uint64_t step = trainer->position.step + 1;
    *lr = o->optimizer.lr * schedule_at(&o->schedule, step);
    TRY(optimizer_step(&o->optimizer, trainer->store, step, *lr, norm, err));
    trainer->position.step = step;
    return STATUS_OK;
}

static Status check_loss(Trainer *trainer, double loss, Error *err)
{
    Position *p = &trainer->position;
    if (!isfinite(loss))
        return fail(
            err, STATUS_DIVERGED, "the loss became %s at epoch %llu, update %llu; try a smaller --lr or --clip-norm",
            isnan(loss) ? "NaN" : "infinite", (unsigned long long)p->epoch + 1, (unsigned long long)p->step + 1);
    if (isnan(p->first_loss))
        p->first_loss = loss;
    /* a good probe begins near zero, from where one hard batch is no divergence */
    double limit = trainer->options.diverged_factor * fmax(p->first_loss, 0.1);
    if (trainer->options.diverged_factor > 0 && loss > limit)
        return fail(err, STATUS_DIVERGED,
                    "the loss grew from %.4g to %.4g at epoch %llu, update %llu; try a smaller --lr", p->first_loss,
                    loss, (unsigned long long)p->epoch + 1, (unsigned long long)p->step + 1);
    return STATUS_OK;
}

static void emit_step(const Trainer *trainer, const Epoch *epoch, double loss, double lr, double norm, size_t per_epoch)
{
    const Position *p = &trainer->position;
    double elapsed = seconds_now() - epoch->begin, rate = (double)epoch->samples / fmax(elapsed, 1e-9);
    uint64_t all = trainer->options.epochs * per_epoch;
    double done = (double)(p->step - p->epoch * per_epoch);
    TrainEvent event = {.kind = EVENT_STEP,
                        .epoch = p->epoch + 1,
                        .epochs = trainer->options.epochs,
                        .step = p->step,
                        .steps = all,
                        .loss = loss,
                        .lr = lr,
                        .norm = norm,
                        .images_per_second = rate,
                        .seconds = elapsed,
                        .seconds_left = done > 0 ? elapsed / done * (double)(all - p->step) : NAN};
    emit(trainer, &event);
}

/* Runs this process's part of a batch; `entry` NULL: it has none. */
static Status run_part(Trainer *trainer, PlanEntry *entry, const Share *share, size_t part, Error *err)
{
    uint64_t seed = trainer->options.seed, step = trainer->position.step + 1;
    if (trainer->distribution == NULL) /* masks of its own for each part */
        return plan_run(entry->plan, part == 0 ? seed : rng_mix(seed, part), step, part > 0, err);
    return distribution_run(trainer->distribution, entry == NULL ? NULL : entry->plan, seed, step, share->weight,
                            !sums_late(trainer), err);
}

typedef struct Sums { /* over the rows of a batch that are here */
    double loss, accuracy;
} Sums;

/* A batch, or rows of one; `weight` is their share of its loss. */
static Status train_rows(Trainer *trainer, const Batch *batch, const Share *share, double weight, size_t part,
                         Sums *sums, Error *err)
{
    PlanEntry *entry = NULL;
    bool any = trainer->distribution == NULL || share->weight > 0;
    if (any) {
        TRY(trainer_plan(trainer, batch, true, &entry, err));
        TRY(check_types(trainer, entry, batch, err));
        trainer_feed(entry, batch);
        plan_set_weight(entry->plan, (float)weight);
    }
    TRY(run_part(trainer, entry, share, part, err));
    if (!any)
        return STATUS_OK;
    sums->loss += weight * share->weight *
                  (double)((const float *)plan_output(entry->plan, entry->working->graph->output_count - 1))[0];
    sums->accuracy += batch_accuracy(trainer, entry, batch) * (double)batch->size;
    return STATUS_OK;
}

/* In as many parts as train_memory.c has decided; `part` counts them over the whole update. */
static Status train_parts(Trainer *trainer, const Batch *batch, const Share *share, size_t *part, Sums *sums,
                          Error *err)
{
    size_t rows = trainer->part_rows;
    if (rows == 0 || rows >= batch->size)
        return train_rows(trainer, batch, share, 1, (*part)++, sums, err);
    for (size_t first = 0; first < batch->size; first += rows) {
        double weight;
        Batch some = batch_rows(batch, first, batch->size - first < rows ? batch->size - first : rows);
        TRY(batch_share(trainer, batch, &some, &weight, err));
        if (weight > 0) /* something in it counts */
            TRY(train_rows(trainer, &some, share, weight, (*part)++, sums, err));
    }
    return STATUS_OK;
}

static Status train_batch(Trainer *trainer, const Batch *batch, const Share *share, Epoch *epoch, size_t *part,
                          double *loss, Error *err)
{
    Sums here = {0, 0};
    TRY(train_parts(trainer, batch, share, part, &here, err));
    double sums[3] = {here.loss, here.accuracy, wants_to_stop(trainer)};
    TRY(comm_sum(trainer->options.comm, sums, 3, err));
    *loss = sums[0];
    epoch->stop = sums[2] > 0;
    TRY(check_loss(trainer, *loss, err));
    epoch->loss += *loss * (double)share->samples;
    epoch->accuracy += sums[1];
    epoch->samples += share->samples;
    epoch->batches++;
    return STATUS_OK;
}

static Status train_epoch(Trainer *trainer, Source *train, Epoch *epoch, Error *err)
{
    *epoch = (Epoch){.begin = seconds_now()};
    size_t batches = 0, part = 0, per_epoch = updates_per_epoch(trainer, train);
    double sum = 0;
    TRY(train->start(train, trainer->position.epoch + 1, true, trainer->options.batch, err));
    for (;;) {
        Batch batch;
        Share share;
        TRY(train->next(train, &batch, err));
        TRY(share_of(trainer->options.comm, trainer->options.losses, trainer->options.loss_count, &batch, &share, err));
        if (share.samples > 0) {
            double loss;
            TRY(train_batch(trainer, &batch, &share, epoch, &part, &loss, err));
            sum += loss;
            batches++;
        }
        if (batches == trainer->options.accumulate || (share.samples == 0 && batches > 0)) {
            double norm, lr;
            TRY(update(trainer, batches, &norm, &lr, err));
            emit_step(trainer, epoch, trainer->options.sum_parts ? sum : sum / (double)batches, lr, norm, per_epoch);
            batches = part = 0;
            sum = 0;
            if (epoch->stop)
                return fail(err, STATUS_INTERRUPTED, "interrupted at epoch %llu, update %llu",
                            (unsigned long long)trainer->position.epoch + 1,
                            (unsigned long long)trainer->position.step);
        }
        if (share.samples == 0)
            break;
    }
    epoch->seconds = seconds_now() - epoch->begin;
    if (epoch->samples == 0)
        return fail(err, STATUS_REJECTED, "the training data is empty");
    return STATUS_OK;
}

static bool is_better(const Trainer *trainer, const Score *now)
{
    const Position *p = &trainer->position;
    if (!trainer->options.by_accuracy || isnan(now->accuracy))
        return now->loss < p->best_loss;
    return now->accuracy > p->best_accuracy || (now->accuracy >= p->best_accuracy && now->loss < p->best_loss);
}

static Status end_epoch(Trainer *trainer, const Epoch *epoch, Source *validation, Error *err)
{
    Position *p = &trainer->position;
    Score now = {.loss = NAN, .accuracy = NAN, .auc = NAN};
    if (trainer->distribution != NULL)
        TRY(distribution_mean_statistics(trainer->distribution, err));
    if (validation != NULL)
        TRY(score(trainer, validation, &now, err));
    double parts =
        trainer->options.sum_parts ? (double)trainer->options.accumulate : 1; /* a sum over tasks, as val_loss is */
    p->epoch++;
    bool better = validation != NULL && is_better(trainer, &now);
    if (better || validation == NULL) {
        p->best_epoch = p->epoch;
        p->since_best = 0;
        p->best_loss = now.loss;
        p->best_accuracy = now.accuracy;
    } else {
        p->since_best++;
    }
    if (better && trainer->options.keep_best)
        TRY(keep_best(trainer, err));
    TrainEvent event = {.kind = EVENT_EPOCH,
                        .epoch = p->epoch,
                        .epochs = trainer->options.epochs,
                        .step = p->step,
                        .train_loss = parts * epoch->loss / (double)epoch->samples,
                        .train_accuracy = epoch->accuracy / (double)epoch->samples,
                        .val_loss = now.loss,
                        .val_accuracy = now.accuracy,
                        .val_auc = now.auc,
                        .targets = validation != NULL ? now.targets : NULL,
                        .target_names = trainer->options.target_names,
                        .target_count = trainer->options.loss_count,
                        .seconds = epoch->seconds,
                        .images_per_second = (double)epoch->samples / fmax(epoch->seconds, 1e-9)};
    emit(trainer, &event);
    if (better) {
        event.kind = EVENT_BEST;
        emit(trainer, &event);
    }
    return save(trainer, err);
}

static bool is_patience_over(const Trainer *trainer, const Source *validation)
{
    const TrainOptions *o = &trainer->options;
    return o->patience > 0 && validation != NULL && trainer->position.since_best >= o->patience;
}

/* After a failure or an interruption inside an epoch the position goes back to the epoch's begin, where the checkpoint
 * on disk is; what is in memory becomes that too, so that going on gives the bits of an uninterrupted run. */
static Status train_epochs(Trainer *trainer, Source *train, Source *validation, Error *err)
{
    while (trainer->position.epoch < trainer->options.epochs && !is_patience_over(trainer, validation)) {
        Epoch epoch;
        TRY(train_epoch(trainer, train, &epoch, err));
        TRY(end_epoch(trainer, &epoch, validation, err));
    }
    return STATUS_OK;
}

Status trainer_run(Trainer *trainer, Source *train, Source *validation, Error *err)
{
    TrainOptions *o = &trainer->options;
    if (o->schedule.total == 0)
        o->schedule.total = o->epochs * updates_per_epoch(trainer, train);
    if (!params_sealed(trainer->store)) /* one begin for all, whatever each has read or computed */
        TRY(comm_broadcast(o->comm, trainer->store->data, trainer->store->total * sizeof(float), err));
    TRY(trainer_prepare(trainer, train, validation, err));
    if (o->on_bill != NULL && trainer->prepared)
        o->on_bill(&trainer->bill, o->context);
    if (trainer->position.epoch == 0)
        TRY(save(trainer, err)); /* so that there is something to go on from before the first epoch ends */
    Status status = train_epochs(trainer, train, validation, err);
    bool give_back = o->keep_best && validation != NULL;
    if (status == STATUS_DIVERGED || status == STATUS_INTERRUPTED || (status == STATUS_OK && give_back)) {
        Error later = {0};
        Status restored = restore_best(trainer, &later);
        if (status == STATUS_OK && restored != STATUS_OK)
            status = fail(err, restored, "%s", later.message);
    }
    TrainEvent event = {
        .kind = EVENT_END, .epoch = trainer->position.epoch, .epochs = o->epochs, .step = trainer->position.step};
    emit(trainer, &event);
    return status;
}
