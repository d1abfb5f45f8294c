/* Data-parallel training. The gradient block is cut into buckets of neighbouring parameters. A plan knows the last step
 * that writes each gradient, so a bucket's sum over ranks starts right behind the last step of its parameters, weighted
 * by this rank's part of the batch, and travels while earlier layers are still being differentiated. Buckets start in
 * one order on every rank, from the end of the block (the layers that backward reaches first) to its begin. */
#include "runtime/distribute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/plan.h"

enum { BUCKET_FLOATS = 1 << 20 }; /* 4 MB: large against latency, small against a net */

typedef struct Bucket {
    size_t begin, count; /* floats of the gradient block */
    int final;           /* the step after which nothing writes them; -1: none does */
} Bucket;

struct Distribution {
    Comm *comm;
    ParamStore *store;
    Bucket *buckets; /* in the order of starting */
    size_t bucket_count, started;
    float *sum; /* earlier parts of an accumulated batch */
    bool has_sum, laid_out;
    float weight;
    Status status; /* of the sums started so far */
    Error *err;
};

/* ---- how much of a batch is here ------------------------------------------------------------------------------- */

/* What the mean of a loss divides by: labels that count, by their class's weight; else samples. */
static double counted(const LossSpec *loss, const Batch *batch, int target)
{
    if ((loss->kind != LOSS_SOFTMAX_CE && loss->kind != LOSS_LM) || batch->size == 0 || target >= batch->target_count)
        return (double)batch->size;
    const Type *type = &batch->target_types[target];
    const int64_t *labels = batch->targets[target];
    double sum = 0;
    if (type->dtype != DTYPE_I64)
        return (double)batch->size;
    for (int64_t i = 0, n = type_count(type); i < n; i++)
        if (labels[i] != loss->ignore_index && labels[i] >= 0)
            sum += loss->class_weights == NULL ? 1 : (double)loss->class_weights[labels[i]];
    return sum;
}

Status share_of(Comm *comm, const LossSpec *losses, size_t loss_count, const Batch *batch, Share *share, Error *err)
{
    *share = (Share){1, batch->size};
    if (comm == NULL)
        return STATUS_OK;
    double mine[SOURCE_MAX], all[SOURCE_MAX + 1];
    size_t n = loss_count < SOURCE_MAX ? loss_count : SOURCE_MAX;
    for (size_t i = 0; i < n; i++)
        mine[i] = all[i] = counted(&losses[i], batch, (int)i);
    all[n] = (double)batch->size;
    TRY(comm_sum(comm, all, n + 1, err));
    share->samples = (size_t)all[n];
    share->weight = all[0] > 0 ? mine[0] / all[0] : 0;
    bool differ = false;
    for (size_t i = 1; i < n; i++)
        differ |= fabs((all[i] > 0 ? mine[i] / all[i] : 0) - share->weight) > 1e-12;
    double any = differ;
    TRY(comm_sum(comm, &any, 1, err));
    if (any > 0)
        return fail(err, STATUS_UNSUPPORTED,
                    "several losses that leave out or weigh labels cannot be trained on several processes");
    return STATUS_OK;
}

/* ---- buckets --------------------------------------------------------------------------------------------------- */

Status distribution_new(Comm *comm, ParamStore *store, Distribution **out, Error *err)
{
    Distribution *d = calloc(1, sizeof *d);
    *out = d;
    if (d == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for training on several processes");
    d->comm = comm;
    d->store = store;
    return STATUS_OK;
}

void distribution_free(Distribution *d)
{
    if (d == NULL)
        return;
    block_free(d->sum);
    free(d->buckets);
    free(d);
}

/* Once the home layouts are decided: buckets, and the proof that every rank has decided alike. */
static Status lay_out(Distribution *d, Error *err)
{
    ParamStore *store = d->store;
    uint64_t layout = 0;
    bool same = false;
    TRY(params_layout_hash(store, &layout, err));
    TRY(comm_agree(d->comm, layout, &same, err));
    if (!same)
        return fail(err, STATUS_UNSUPPORTED,
                    "the processes lay parameters out differently (other processors, or fewer samples than processes "
                    "in the first batch); try --plain-kernels");
    d->buckets = calloc(store->total / BUCKET_FLOATS + store->count + 1, sizeof *d->buckets);
    if (d->buckets == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for training on several processes");
    for (size_t end = store->total, i = store->count; i-- > 0;) {
        const Param *item = &store->items[i];
        bool full = item->count > 0 && end - item->offset >= BUCKET_FLOATS;
        if (end > 0 && (full || i == 0)) {
            size_t begin = i == 0 ? 0 : item->offset;
            d->buckets[d->bucket_count++] = (Bucket){begin, end - begin, -1};
            end = begin;
        }
    }
    d->laid_out = true;
    return STATUS_OK;
}

static Bucket *bucket_of(Distribution *d, size_t offset)
{
    size_t low = 0, high = d->bucket_count - 1; /* begins fall */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (d->buckets[middle].begin <= offset)
            high = middle;
        else
            low = middle + 1;
    }
    return &d->buckets[low];
}

static void find_final_steps(Distribution *d, const Plan *plan)
{
    for (size_t b = 0; b < d->bucket_count; b++)
        d->buckets[b].final = -1;
    for (size_t i = 0; i < plan->slot_count && d->bucket_count > 0; i++) {
        const Slot *slot = plan->slots[i];
        if (slot->base != NULL || slot->parameter == NULL || slot->parameter->gradient < 0)
            continue;
        Bucket *bucket = bucket_of(d, d->store->items[slot->parameter->gradient].offset);
        if (slot->last > bucket->final)
            bucket->final = slot->last;
    }
}

/* ---- one run --------------------------------------------------------------------------------------------------- */

typedef struct Scaling {
    float *values;
    float factor;
} Scaling;

static void scale_range(int64_t begin, int64_t end, void *context)
{
    const Scaling *s = context;
    for (int64_t i = begin; i < end; i++)
        s->values[i] *= s->factor;
}

static void start_bucket(Distribution *d, const Bucket *bucket)
{
    Scaling scaling = {d->store->gradient + bucket->begin, d->weight};
    parallel_for((int64_t)bucket->count, 1 << 16, scale_range, &scaling);
    if (d->status == STATUS_OK)
        d->status = comm_sum_start(d->comm, scaling.values, bucket->count, d->err);
}

static void after_step(void *context, size_t step)
{
    Distribution *d = context;
    for (; d->started < d->bucket_count && d->buckets[d->started].final <= (int)step; d->started++)
        start_bucket(d, &d->buckets[d->started]);
    comm_sums_progress(d->comm);
}

static Status finish(Distribution *d, Error *err)
{
    for (; d->started < d->bucket_count; d->started++)
        start_bucket(d, &d->buckets[d->started]);
    TRY(d->status);
    return comm_sums_finish(d->comm, err);
}

static void clear_gradient(Distribution *d)
{
    memset(d->store->gradient, 0, d->store->total * sizeof(float));
}

static Status run_overlapped(Distribution *d, Plan *plan, uint64_t seed, uint64_t step, Error *err)
{
    StepHook hook = {after_step, d};
    if (plan == NULL) {
        clear_gradient(d);
        return finish(d, err);
    }
    find_final_steps(d, plan);
    plan->hook = &hook;
    Status status = plan_run(plan, seed, step, false, err);
    plan->hook = NULL;
    return status == STATUS_OK ? finish(d, err) : status;
}

static Status add_part(Distribution *d, Plan *plan, uint64_t seed, uint64_t step, Error *err)
{
    if (d->sum == NULL)
        TRY(block_alloc((void **)&d->sum, d->store->total * sizeof(float), "accumulated gradients", err));
    if (!d->has_sum)
        memset(d->sum, 0, d->store->total * sizeof(float));
    d->has_sum = true;
    if (plan == NULL)
        return STATUS_OK;
    TRY(plan_run(plan, seed, step, false, err));
    for (size_t i = 0; i < d->store->total; i++)
        d->sum[i] += d->weight * d->store->gradient[i];
    return STATUS_OK;
}

Status distribution_run(Distribution *d, Plan *plan, uint64_t seed, uint64_t step, double weight, bool overlap,
                        Error *err)
{
    if (!d->laid_out)
        TRY(lay_out(d, err));
    uint64_t own = comm_rank(d->comm) == 0 ? seed : rng_mix(seed, (uint64_t)comm_rank(d->comm)); /* masks of its own */
    d->weight = (float)weight;
    d->started = 0;
    d->status = STATUS_OK;
    d->err = err;
    return overlap ? run_overlapped(d, plan, own, step, err) : add_part(d, plan, own, step, err);
}

Status distribution_reduce(Distribution *d, Error *err)
{
    memcpy(d->store->gradient, d->sum, d->store->total * sizeof(float));
    d->has_sum = false;
    d->started = 0;
    d->weight = 1;
    d->status = STATUS_OK;
    d->err = err;
    return finish(d, err);
}

Status tally_merge(Comm *comm, Tally *tally, Error *err)
{
    double *sums;
    size_t n = tally->both == NULL ? 0 : tally->classes;
    if (comm == NULL)
        return STATUS_OK;
    TRY(block_alloc((void **)&sums, (6 + 3 * n) * sizeof *sums, "scores", err));
    size_t *counts[] = {tally->both, tally->truth, tally->predicted};
    sums[0] = tally->loss;
    sums[1] = tally->weight;
    sums[2] = tally->absolute;
    sums[3] = tally->squared;
    sums[4] = (double)tally->right;
    sums[5] = (double)tally->counted;
    for (size_t i = 0; i < 3 * n; i++)
        sums[6 + i] = (double)counts[i / n][i % n];
    Status status = comm_sum(comm, sums, 6 + 3 * n, err);
    tally->loss = sums[0];
    tally->weight = sums[1];
    tally->absolute = sums[2];
    tally->squared = sums[3];
    tally->right = (size_t)sums[4];
    tally->counted = (size_t)sums[5];
    for (size_t i = 0; i < 3 * n; i++)
        counts[i / n][i % n] = (size_t)sums[6 + i];
    block_free(sums);
    return status;
}

Status distribution_mean_statistics(Distribution *d, Error *err)
{
    double ranks = comm_size(d->comm);
    for (size_t i = 0; i < d->store->state_count; i++) {
        size_t n = (size_t)tensor_count(d->store->state_origins[i]);
        double *values; /* in double, so that statistics which agree stay what they are */
        TRY(block_alloc((void **)&values, n * sizeof *values, "running statistics", err));
        for (size_t k = 0; k < n; k++)
            values[k] = (double)d->store->state_data[i][k];
        Status status = comm_sum(d->comm, values, n, err);
        for (size_t k = 0; k < n; k++)
            d->store->state_data[i][k] = (float)(values[k] / ranks);
        block_free(values);
        TRY(status);
    }
    return STATUS_OK;
}
