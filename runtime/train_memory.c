/* What a training run takes, settled before its first step. The whole bill is known from the first batch: plans are
 * measured without being built. Under a limit, activations are made again (budget.c) as long as that is cheap; then a
 * batch is run in parts whose gradients are added, where samples do not meet; then both. A limit that cannot be kept is
 * an error that says what could. */
#include <math.h>
#include <string.h>

#include "runtime/trainer.h"

enum { LOADER_BYTES = 32 << 20 };

static const double cheap_again = 0.15; /* of a forward pass: less than what splitting a batch costs */

size_t train_bill_total(const TrainBill *b)
{
    return b->parameters + b->optimizer + b->activations + b->gradients + b->workspace + b->cache + b->others +
           b->process;
}

TrainBill trainer_bill(const Trainer *trainer)
{
    return trainer->bill;
}

/* ---- rows of a batch --------------------------------------------------------------------------------------------- */

static const void *rows_of(const void *data, const Type *type, size_t first)
{
    size_t row = (size_t)type_count(type) / (size_t)type->dims[0] * dtype_size(type->dtype);
    return (const char *)data + first * row;
}

Batch batch_rows(const Batch *batch, size_t first, size_t count)
{
    Batch some = *batch;
    if (first == 0 && count == batch->size)
        return some;
    some.size = count;
    for (int i = 0; i < batch->input_count; i++) {
        some.inputs[i] = rows_of(batch->inputs[i], &batch->input_types[i], first);
        some.input_types[i].dims[0] = (int64_t)count;
    }
    for (int i = 0; i < batch->target_count; i++) {
        some.targets[i] = rows_of(batch->targets[i], &batch->target_types[i], first);
        some.target_types[i].dims[0] = (int64_t)count;
    }
    some.ids = batch->ids == NULL ? NULL : batch->ids + first;
    return some;
}

/* What a loss divides its sum by: samples, or the classes that count with their weights. */
static double counted(const LossSpec *loss, const Batch *batch, int target)
{
    if (loss->kind != LOSS_SOFTMAX_CE && loss->kind != LOSS_LM)
        return (double)batch->size;
    const int64_t *labels = batch->targets[target];
    int64_t count = type_count(&batch->target_types[target]);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        if (labels[i] != loss->ignore_index)
            sum += loss->class_weights == NULL || labels[i] < 0 ? 1 : (double)loss->class_weights[labels[i]];
    return sum;
}

Status batch_share(const Trainer *trainer, const Batch *batch, const Batch *some, double *share, Error *err)
{
    const TrainOptions *o = &trainer->options;
    *share = (double)some->size / (double)batch->size;
    const LossSpec *losses = o->losses + (batch->only > 0 ? batch->only - 1 : 0);
    size_t count = batch->only > 0 ? 1 : o->loss_count;
    for (size_t i = 0; i < count && (int)i < batch->target_count; i++) {
        double all = counted(&losses[i], batch, (int)i), here = counted(&losses[i], some, (int)i);
        double found = all > 0 ? here / all : *share;
        if (i > 0 && fabs(found - *share) > 1e-6)
            return fail(
                err, STATUS_UNSUPPORTED,
                "several losses that skip or weigh targets differently cannot share a batch in parts; allow more "
                "memory or take a smaller batch");
        *share = found;
    }
    return STATUS_OK;
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static size_t states_missing(const Trainer *trainer)
{
    size_t count = 0, wanted = (size_t)optimizer_states(&trainer->options.optimizer);
    for (size_t i = 0; i < wanted && i < 3; i++)
        count += trainer->store->state[i] == NULL;
    return count * trainer->store->total * sizeof(float);
}

static size_t cached_bytes(const Trainer *trainer)
{
    return trainer->options.cached + (trainer->cache == NULL ? 0 : features_bytes(trainer->cache));
}

/* Everything that is not in the bill of a plan. */
static size_t outside(const Trainer *trainer, bool training)
{
    size_t gradients = training ? 0 : trainer->store->total * sizeof(float);
    return trainer->options.process + cached_bytes(trainer) + trainer->beside + states_missing(trainer) + gradients;
}

size_t memory_for_plan(const Trainer *trainer, bool training)
{
    size_t taken = outside(trainer, training), memory = trainer->options.memory;
    return memory == 0 ? 0 : memory > taken ? memory - taken : 1;
}

static size_t batch_bytes(const Batch *batch)
{
    size_t bytes = 0;
    for (int i = 0; i < batch->input_count; i++)
        bytes += (size_t)type_count(&batch->input_types[i]) * dtype_size(batch->input_types[i].dtype);
    for (int i = 0; i < batch->target_count; i++)
        bytes += (size_t)type_count(&batch->target_types[i]) * dtype_size(batch->target_types[i].dtype);
    return bytes;
}

/* What a loader holds (data/loader.c): 32 MB of batches and at least three, under a limit two; never more than there
 * are. */
static size_t loader_bytes(const Trainer *trainer, const Source *source, const Batch *batch)
{
    size_t one = batch_bytes(batch), bytes = 2 * one, all = (source->count + batch->size - 1) / batch->size + 1;
    if (trainer->options.memory == 0)
        bytes = 3 * one > LOADER_BYTES ? 3 * one : LOADER_BYTES;
    return bytes < all * one ? bytes : all * one;
}

static void count_beside(Trainer *trainer, const Batch *batch, const Source *train, const Source *validation)
{
    size_t plain = params_plain_total(trainer->store) * sizeof(float);
    trainer->beside = loader_bytes(trainer, train, batch);
    if (validation != NULL) /* its loader, and the inputs of its plan */
        trainer->beside += loader_bytes(trainer, validation, batch) + batch_bytes(batch);
    trainer->beside += trainer->options.keep_best && validation != NULL ? plain : 0;
    trainer->beside += trainer->options.checkpoint != NULL ? plain : 0;
}

static void forget(Trainer *trainer)
{
    trainer_forget_plans(trainer);
    workspace_release(&trainer->space);
}

/* ---- do samples meet? -------------------------------------------------------------------------------------------- */

bool rows_alike(const float *a, const float *b, size_t width, double tolerance)
{
    double largest = 0, difference = 0;
    for (size_t i = 0; i < width; i++) {
        bool same = (isnan(a[i]) && isnan(b[i])) || (isinf(a[i]) && a[i] == b[i]);
        if (!same && !(isfinite(a[i]) && isfinite(b[i])))
            return false;
        if (same)
            continue;
        largest = fmax(largest, fabs((double)a[i]));
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
    }
    return difference <= tolerance * largest + 1e-6;
}

/* The first sample's results alone and beside the second, in inference form. */
static Status compare_alone(Trainer *trainer, const Batch *batch, bool *alike, Error *err)
{
    float *kept[SOURCE_MAX] = {0};
    size_t outputs = 0;
    Status status = STATUS_OK;
    *alike = true;
    for (size_t rows = 1; rows <= 2 && status == STATUS_OK && *alike; rows++) {
        Batch some = batch_rows(batch, 0, rows);
        PlanEntry *entry;
        forget(trainer); /* one plan at a time */
        status = trainer_plan(trainer, &some, false, &entry, err);
        if (status != STATUS_OK)
            break;
        trainer_feed(entry, &some);
        status = plan_run(entry->plan, 0, 0, false, err);
        const Graph *graph = entry->working->graph;
        outputs = graph->output_count < SOURCE_MAX ? graph->output_count : SOURCE_MAX;
        for (size_t i = 0; i < outputs && status == STATUS_OK && *alike; i++) {
            const Type *type = &graph->outputs[i]->type;
            size_t width = (size_t)type_count(type) / rows;
            *alike = type->dtype == DTYPE_F32 && type->rank > 0 && type->dims[0] == (int64_t)rows;
            if (*alike && rows == 1)
                status = block_alloc((void **)&kept[i], width * sizeof(float), "a sample's results", err);
            if (*alike && status == STATUS_OK && rows == 1)
                memcpy(kept[i], plan_output(entry->plan, i), width * sizeof(float));
            else if (*alike && status == STATUS_OK)
                *alike = rows_alike(kept[i], plan_output(entry->plan, i), width, 1e-4);
        }
    }
    for (size_t i = 0; i < SOURCE_MAX; i++)
        block_free(kept[i]);
    return status;
}

/* Whether the gradient of a batch is the sum of its parts': no live BatchNormalization, no loss over the whole batch,
 * and results of a sample that do not depend on its neighbours. */
static Status can_split(Trainer *trainer, const Batch *batch, bool *can, Error *err)
{
    bool state = false;
    *can = batch->size >= 2 && trainer->distribution == NULL;
    for (size_t i = 0; i < trainer->options.loss_count; i++)
        *can = *can && trainer->options.losses[i].kind != LOSS_DICE;
    if (!*can)
        return STATUS_OK;
    Batch one = batch_rows(batch, 0, 1);
    size_t limit = trainer->options.memory;
    TRY(trainer_has_state(trainer, &one, &state, err));
    *can = !state;
    trainer->options.memory = 0; /* two samples in inference form: less than any part in training */
    Status status = state ? STATUS_OK : compare_alone(trainer, batch, can, err);
    trainer->options.memory = limit;
    forget(trainer);
    return status;
}

/* ---- settling ---------------------------------------------------------------------------------------------------- */

typedef struct Search {
    size_t least;     /* that any plan tried would take */
    size_t best_rows; /* 0: whole; SIZE_MAX: none fits */
    double best_again;
} Search;

static Status try_rows(Trainer *trainer, const Batch *batch, size_t rows, Search *search, Error *err)
{
    Error why = {0};
    PlanEntry *entry;
    Batch some = batch_rows(batch, 0, rows);
    trainer->part_rows = rows < batch->size ? rows : 0;
    Status status = trainer_plan(trainer, &some, true, &entry, &why);
    if (status != STATUS_OK && status != STATUS_ENVIRONMENT)
        return fail(err, status, "%s", why.message);
    if (trainer->last_needed < search->least)
        search->least = trainer->last_needed;
    if (status == STATUS_OK && entry->budget.again < search->best_again) {
        search->best_again = entry->budget.again;
        search->best_rows = rows;
    }
    return STATUS_OK;
}

static Status too_little(const Trainer *trainer, size_t least, Error *err)
{
    const double mega = 1 << 20, needed = 1.01 * (double)(least + outside(trainer, true));
    bool small = needed < 8 * mega;
    double unit = small ? 1 << 10 : 1 << 20;
    return fail(
        err, STATUS_ENVIRONMENT,
        "%.0f%c of memory are too little: the smallest that would do is %.0f%c (%.1f MB for the program and the "
        "data, %.1f MB for the optimizer and what is kept beside, %.1f MB for parameters, gradients and a step)",
        floor((double)trainer->options.memory / unit), small ? 'K' : 'M', ceil(needed / unit) + 1, small ? 'K' : 'M',
        (double)trainer->options.process / mega, (double)(trainer->beside + states_missing(trainer)) / mega,
        (double)least / mega);
}

static Status settle(Trainer *trainer, const Batch *batch, Error *err)
{
    Search search = {.least = SIZE_MAX, .best_rows = SIZE_MAX, .best_again = INFINITY};
    bool splits = false;
    for (size_t rows = batch->size;; rows = (rows + 1) / 2) {
        TRY(try_rows(trainer, batch, rows, &search, err));
        if (search.best_again <= cheap_again)
            return STATUS_OK;
        forget(trainer);
        if (rows == batch->size)
            TRY(can_split(trainer, batch, &splits, err));
        if (rows == 1 || !splits)
            break;
    }
    forget(trainer);
    trainer->part_rows = 0;
    if (search.best_rows == SIZE_MAX)
        return too_little(trainer, search.least, err);
    return try_rows(trainer, batch, search.best_rows, &search, err);
}

/* Measuring a data set comes later: it must fit as well. */
static Status check_evaluation(Trainer *trainer, const Batch *batch, Error *err)
{
    PlanEntry *entry;
    Error why = {0};
    Batch some = batch_rows(batch, 0, trainer->part_rows > 0 ? trainer->part_rows : batch->size);
    Status status = trainer_plan(trainer, &some, false, &entry, &why);
    if (status == STATUS_ENVIRONMENT)
        return too_little(trainer, trainer->last_needed + trainer->store->total * sizeof(float), err);
    return status == STATUS_OK ? STATUS_OK : fail(err, status, "%s", why.message);
}

/* Shapes of batches: whole ones and the last of a pass. Without a limit the plan of each stays, with frozen weights of
 * its own. */
static size_t shapes_of(const Trainer *trainer, const Source *source)
{
    size_t batch = trainer->options.batch;
    return source == NULL ? 0 : (size_t)(source->count >= batch) + (size_t)(source->count % batch != 0);
}

static Status write_bill(Trainer *trainer, const Batch *batch, size_t shapes, Error *err)
{
    PlanEntry *entry;
    Batch some = batch_rows(batch, 0, trainer->part_rows > 0 ? trainer->part_rows : batch->size);
    TRY(trainer_plan(trainer, &some, true, &entry, err));
    PlanBill plan = plan_bill(entry->plan);
    size_t held = plan.constants + plan.inputs + entry_models(entry), plans = trainer->options.memory > 0 ? 1 : shapes;
    trainer->bill = (TrainBill){.parameters = plan.parameters,
                                .optimizer = plan.optimizer + states_missing(trainer),
                                .activations = plan.activations,
                                .gradients = plan.gradients,
                                .workspace = plan.workspace,
                                .cache = cached_bytes(trainer),
                                .others = (plans > 0 ? plans : 1) * held + trainer->beside,
                                .process = trainer->options.process,
                                .part_rows = trainer->part_rows,
                                .again = entry->budget.again};
    return STATUS_OK;
}

void trainer_end(Trainer *trainer, size_t part_rows)
{
    const FeatureCache *cache = trainer->cache;
    trainer->measures = true;
    if (cache == NULL)
        return;
    size_t plain = params_plain_total(trainer->store) * sizeof(float), one = 0;
    for (int i = 0; i < cache->input_count + cache->target_count; i++) {
        Type type = i < cache->input_count ? cache->input_types[i] : cache->target_types[i - cache->input_count];
        type.dims[0] = (int64_t)trainer->options.batch;
        one += (size_t)type_count(&type) * dtype_size(type.dtype);
    }
    forget(trainer);
    trainer->cache = NULL;
    trainer->options.cached = 0;
    trainer->part_rows = part_rows;
    trainer->beside = 2 * one + (trainer->best != NULL ? plain : 0) + (trainer->options.checkpoint != NULL ? plain : 0);
}

Status trainer_prepare(Trainer *trainer, Source *train, Source *validation, Error *err)
{
    Batch batch;
    if (trainer->prepared)
        return STATUS_OK;
    TRY(train->start(train, 0, false, trainer->options.batch, err));
    TRY(train->next(train, &batch, err));
    if (batch.size == 0)
        return STATUS_OK; /* the loop says what is wrong */
    count_beside(trainer, &batch, train, validation);
    if (trainer->options.memory > 0)
        TRY(settle(trainer, &batch, err));
    if (trainer->options.memory > 0)
        TRY(check_evaluation(trainer, &batch, err));
    trainer->prepared = true;
    return write_bill(trainer, &batch, shapes_of(trainer, train) + shapes_of(trainer, validation), err);
}
