/* The frozen part, run once: every value at the border between what no trainable parameter reaches and the rest is kept
 * for each sample, in memory or, beyond a limit, in an unlinked temporary file that is mapped. Epochs then start at the
 * border: see features_source. Pictures that are augmented can be kept in several views. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/ops/bf16.h"
#include "runtime/train.h"

const char *features_folder(void)
{
    const char *folder = getenv("TMPDIR");
    return folder != NULL && folder[0] == '/' ? folder : "/var/tmp"; /* /tmp may be memory */
}

static Status map_rows(FeatureCache *cache, int i, size_t bytes, Error *err)
{
    const char *folder = features_folder();
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/regraft-features-XXXXXX", folder) >= (int)sizeof path)
        return fail(err, STATUS_ENVIRONMENT, "%s: too long a path", folder);
    int fd = mkstemp(path);
    if (fd < 0)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot make a temporary file for features", folder);
    unlink(path);
    int full = posix_fallocate(fd, 0, (off_t)bytes);
    void *data = full != 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return fail(err, STATUS_ENVIRONMENT, "%s: no room for %zu bytes of cached features", folder, bytes);
    cache->rows[i] = cache->mapped[i] = data;
    return STATUS_OK;
}

static size_t row_size(const Type *type)
{
    size_t bytes = dtype_size(type->dtype);
    for (int i = 1; i < type->rank; i++)
        bytes *= (size_t)type->dims[i];
    return bytes;
}

static size_t kept_bytes(const FeatureCache *cache, int i)
{
    return cache->narrow[i] ? cache->row_bytes[i] / 2 : cache->row_bytes[i];
}

static size_t row_count(const FeatureCache *cache)
{
    return cache->samples * cache->views;
}

/* Of all samples, those at the border and the targets. */
static Status count_rows(FeatureCache *cache, size_t *total, size_t *targets, Error *err)
{
    size_t bytes;
    *total = *targets = 0;
    for (int i = 0; i < cache->count; i++) {
        cache->row_bytes[i] = row_size(&cache->types[i]);
        if (!size_mul(kept_bytes(cache, i), row_count(cache), &bytes) || !size_add(*total, bytes, total))
            return fail(err, STATUS_ENVIRONMENT, "features of %zu samples are larger than any memory", cache->samples);
    }
    for (int i = 0; i < cache->target_count; i++) {
        cache->target_bytes[i] = row_size(&cache->target_types[i]);
        *targets += cache->target_bytes[i] * row_count(cache);
    }
    return STATUS_OK;
}

static Status allocate_rows(FeatureCache *cache, bool in_file, Error *err)
{
    for (int i = 0; i < cache->count; i++) {
        size_t bytes = kept_bytes(cache, i) * row_count(cache);
        if (in_file)
            TRY(map_rows(cache, i, bytes, err));
        else
            TRY(block_alloc(&cache->rows[i], bytes, "cached features", err));
    }
    for (int i = 0; i < cache->target_count; i++)
        TRY(block_alloc(&cache->targets[i], cache->target_bytes[i] * row_count(cache), "targets", err));
    return STATUS_OK;
}

/* A border value must have one row a sample, else it cannot be cached sample by sample. */
static Status describe_border(FeatureCache *cache, const Graph *prefix, const Batch *batch, bool bf16, Error *err)
{
    if (prefix->output_count == 0 || prefix->output_count > SOURCE_MAX)
        return fail(err, STATUS_UNSUPPORTED, "%zu values cross the border of the frozen part", prefix->output_count);
    cache->count = (int)prefix->output_count;
    for (int i = 0; i < cache->count; i++) {
        const Value *value = prefix->outputs[i];
        cache->types[i] = value->type;
        cache->narrow[i] = bf16 && value->type.dtype == DTYPE_F32;
        if (!type_known(&value->type) || value->type.rank == 0 || value->type.dims[0] != (int64_t)batch->size)
            return fail(err, STATUS_UNSUPPORTED, "'%s' at the border of the frozen part has no row for each sample",
                        value->name);
    }
    cache->input_count = batch->input_count;
    memcpy(cache->input_types, batch->input_types, sizeof cache->input_types);
    cache->target_count = batch->target_count;
    memcpy(cache->target_types, batch->target_types, sizeof cache->target_types);
    return STATUS_OK;
}

static bool is_linear_head(const Graph *suffix)
{
    if (suffix->input_count != 1 || suffix->inputs[0]->type.rank != 2 || suffix->output_count != 1 ||
        suffix->node_count > 2)
        return false;
    const Node *first = suffix->first;
    bool linear = first != NULL && (strcmp(first->op_type, "Gemm") == 0 || strcmp(first->op_type, "MatMul") == 0);
    return linear && (first->next == NULL || strcmp(first->next->op_type, "Add") == 0);
}

typedef struct Prefix { /* plan of the frozen part for one shape of batch */
    Model *whole, *prefix, *suffix;
    Plan *plan;
    int input_count;
    Type types[SOURCE_MAX];
} Prefix;

enum { PREFIXES = 8 }; /* shapes at a time */

typedef struct Prefixes {
    Prefix items[PREFIXES];
    size_t next; /* which makes room */
    PlanOptions options;
    const FeatureLimits *limits;
    size_t portion; /* samples run at a time */
    size_t beside;  /* bytes that plans for other shapes may hold, which the bill does not count */
} Prefixes;

static void prefix_release(Prefix *p)
{
    plan_free(p->plan);
    model_free(p->prefix);
    model_free(p->suffix);
    model_free(p->whole);
    memset(p, 0, sizeof *p);
}

static size_t bind_inputs(const Model *document, const Batch *batch, Binding bindings[SOURCE_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < document->graph->input_count && (int)count < batch->input_count; i++) {
        if (document->graph->inputs[i]->constant != NULL)
            continue;
        const Type *type = &batch->input_types[count];
        bindings[count] = (Binding){.input = document->graph->inputs[i]->name, .rank = type->rank};
        memcpy(bindings[count].dims, type->dims, (size_t)type->rank * sizeof type->dims[0]);
        count++;
    }
    return count;
}

static Status prefix_build(Model *document, const ParamList *params, const PlanOptions *options, const Batch *batch,
                           Prefix *p, Error *err)
{
    prefix_release(p);
    Binding bindings[SOURCE_MAX];
    size_t count = bind_inputs(document, batch, bindings);
    WorkingOptions working = {.bindings = bindings, .binding_count = count, .params = params, .for_split = true};
    TRY(working_build(document, &working, &p->whole, err));
    TRY(working_split(p->whole, &p->prefix, &p->suffix, err));
    model_rest(document); /* pages of the file that folding has read */
    TRY(pass_fuse_elementwise(p->prefix->graph, err));
    TRY(plan_build(p->prefix, NULL, options, &p->plan, err));
    p->input_count = batch->input_count;
    memcpy(p->types, batch->input_types, sizeof p->types);
    return STATUS_OK;
}

/* Weights into which a BatchNorm was folded, or that were transposed, lie in the models, and once more in the plan. */
static size_t held_bytes(const Prefix *p)
{
    if (p->plan == NULL)
        return 0;
    PlanBill plan = plan_bill(p->plan);
    return plan.parameters + plan.gradients + plan.constants + plan.inputs + p->whole->arena.used +
           p->prefix->arena.used + p->suffix->arena.used;
}

static bool same_shapes(const Prefix *p, const Batch *batch)
{
    bool same = p->plan != NULL && p->input_count == batch->input_count;
    for (int i = 0; i < batch->input_count && same; i++) {
        const Type *a = &p->types[i], *b = &batch->input_types[i];
        same = a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
    }
    return same;
}

static Status prefix_for(Model *document, const ParamList *params, const Batch *batch, Prefixes *prefixes, Prefix **p,
                         Error *err)
{
    for (size_t i = 0; i < PREFIXES; i++) {
        *p = &prefixes->items[i];
        if (same_shapes(*p, batch))
            return STATUS_OK;
    }
    size_t held = 0;
    for (size_t i = 0; i < PREFIXES; i++)
        held += held_bytes(&prefixes->items[i]);
    for (size_t i = 0; i < PREFIXES && held > prefixes->beside; i++)
        prefix_release(&prefixes->items[i]);
    *p = &prefixes->items[prefixes->next++ % PREFIXES];
    return prefix_build(document, params, &prefixes->options, batch, *p, err);
}

/* Rows are of one size: a border that follows the length of the sequence cannot be kept. */
static Status check_border(const FeatureCache *cache, const Graph *prefix, Error *err)
{
    for (int i = 0; i < cache->count; i++)
        if (row_size(&prefix->outputs[i]->type) != cache->row_bytes[i])
            return fail(err, STATUS_UNSUPPORTED, "'%s' at the border of the frozen part is as long as its batch",
                        prefix->outputs[i]->name);
    return STATUS_OK;
}

static void keep_rows(FeatureCache *cache, int i, const char *rows, const Batch *batch, size_t first)
{
    size_t bytes = cache->row_bytes[i], kept = kept_bytes(cache, i);
    for (size_t k = 0; k < batch->size; k++) {
        char *to = (char *)cache->rows[i] + (first + batch->ids[k]) * kept;
        if (cache->narrow[i])
            bf16_narrow((const float *)(rows + k * bytes), (uint16_t *)to, (int64_t)(bytes / sizeof(float)));
        else
            memcpy(to, rows + k * bytes, bytes);
    }
}

static Status run_batch(FeatureCache *cache, Prefix *p, const Batch *batch, size_t view, Error *err)
{
    const Graph *graph = p->prefix->graph;
    for (size_t i = 0; i < graph->input_count && (int)i < batch->input_count; i++) {
        void *to = plan_input(p->plan, i);
        if (to != NULL)
            memcpy(to, batch->inputs[i],
                   (size_t)type_count(&graph->inputs[i]->type) * dtype_size(graph->inputs[i]->type.dtype));
    }
    TRY(plan_run(p->plan, 0, 0, false, err));
    for (int i = 0; i < cache->count; i++)
        keep_rows(cache, i, plan_output(p->plan, (size_t)i), batch, view * cache->samples);
    for (int i = 0; i < cache->target_count; i++)
        for (size_t k = 0; k < batch->size; k++)
            memcpy((char *)cache->targets[i] + (view * cache->samples + batch->ids[k]) * cache->target_bytes[i],
                   (const char *)batch->targets[i] + k * cache->target_bytes[i], cache->target_bytes[i]);
    features_rest(cache);
    return STATUS_OK;
}

/* ---- do samples meet? -------------------------------------------------------------------------------------------- */

static void feed_first(const Prefix *p, const Batch *batch)
{
    const Graph *graph = p->prefix->graph;
    for (size_t i = 0; i < graph->input_count && (int)i < batch->input_count; i++) {
        char *to = plan_input(p->plan, i);
        size_t bytes = row_size(&batch->input_types[i]);
        for (size_t k = 0; k < batch->size && to != NULL; k++)
            memcpy(to + k * bytes, batch->inputs[i], bytes);
    }
}

/* The first sample in every place of a batch gives what it gave among the others. Where it does not, what is kept would
 * depend on who stood beside whom: means over the batch, the place in it, a first dim that is as long by chance. */
static Status check_apart(FeatureCache *cache, const Prefixes *prefixes, Prefix *p, const Batch *batch, Error *err)
{
    double tolerance = prefixes->options.precision == PRECISION_F32 ? 1e-4 : 3e-2;
    void *first[SOURCE_MAX] = {0};
    Status status = run_batch(cache, p, batch, 0, err);
    for (int i = 0; i < cache->count && status == STATUS_OK; i++) {
        status = block_alloc(&first[i], cache->row_bytes[i], "a sample's features", err);
        if (status == STATUS_OK)
            memcpy(first[i], plan_output(p->plan, (size_t)i), cache->row_bytes[i]);
    }
    if (status == STATUS_OK) {
        feed_first(p, batch);
        status = plan_run(p->plan, 0, 0, false, err);
    }
    for (int i = 0; i < cache->count && status == STATUS_OK; i++) {
        const char *rows = plan_output(p->plan, (size_t)i);
        size_t bytes = cache->row_bytes[i];
        bool is_float = cache->types[i].dtype == DTYPE_F32, alike = true;
        for (size_t k = 0; k < batch->size && alike; k++)
            alike = is_float ? rows_alike(first[i], (const float *)(const void *)(rows + k * bytes),
                                          bytes / sizeof(float), tolerance)
                             : memcmp(first[i], rows + k * bytes, bytes) == 0;
        if (!alike)
            status = fail(err, STATUS_UNSUPPORTED,
                          "'%s' at the border of the frozen part depends on the other samples of a batch",
                          p->prefix->graph->outputs[i]->name);
    }
    for (int i = 0; i < cache->count; i++)
        block_free(first[i]);
    return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static size_t batch_bytes(const Batch *batch)
{
    size_t bytes = 0;
    for (int i = 0; i < batch->input_count; i++)
        bytes += row_size(&batch->input_types[i]) * batch->size;
    for (int i = 0; i < batch->target_count; i++)
        bytes += row_size(&batch->target_types[i]) * batch->size;
    return bytes;
}

static TrainBill prefix_bill(const Prefix *p, const Batch *batch, size_t cached, size_t process)
{
    PlanBill plan = plan_bill(p->plan);
    return (TrainBill){.activations = plan.activations,
                       .workspace = plan.workspace,
                       .cache = cached,
                       .others = held_bytes(p) + 3 * batch_bytes(batch),
                       .process = process};
}

static Status too_little(const FeatureLimits *limits, size_t needed, Error *err)
{
    const size_t mega = 1 << 20;
    return fail(err, STATUS_ENVIRONMENT,
                "%zuM of memory are too little to run the frozen part: the smallest that would do is %zuM",
                limits->memory / mega, (needed + needed / 100) / mega + 2);
}

/* How many samples are run at a time, by plans that are measured only; the cache knows its border afterwards. */
static Status settle(Model *document, const ParamList *params, const Batch *batch, Prefixes *prefixes,
                     FeatureCache *cache, bool *in_file, Error *err)
{
    const FeatureLimits *limits = prefixes->limits;
    PlanOptions measure = prefixes->options;
    Prefix p = {0};
    TrainBill bill = {0};
    size_t rows = batch->size, total, targets;
    Status status = STATUS_OK;
    measure.measure = true;
    for (;;) {
        Batch some = batch_rows(batch, 0, rows);
        TRY_DONE(prefix_build(document, params, &measure, &some, &p, err));
        TRY_DONE(describe_border(cache, p.prefix->graph, &some, limits->bf16, err));
        TRY_DONE(count_rows(cache, &total, &targets, err));
        cache->linear = is_linear_head(p.suffix->graph);
        *in_file = limits->rows > 0 && total > limits->rows;
        bill = prefix_bill(&p, batch, targets + (*in_file ? 0 : total), limits->process);
        if (limits->memory == 0 || train_bill_total(&bill) <= limits->memory)
            break;
        if (!measure.winograd && rows == 1)
            TRY_DONE(too_little(limits, train_bill_total(&bill), err));
        rows = measure.winograd ? rows : (rows + 1) / 2;
        measure.winograd = false;
    }
    prefixes->options.winograd = measure.winograd;
    prefixes->portion = rows;
    prefixes->beside = limits->memory > 0 ? 0 : train_bill_total(&bill) / 50;
    bill.part_rows = rows < batch->size ? rows : 0;
    if (limits->on_bill != NULL)
        limits->on_bill(&bill, limits->context);
done:
    prefix_release(&p);
    return status;
}

/* ---- all samples ------------------------------------------------------------------------------------------------- */

static Status fill(Model *document, const ParamList *params, Source *source, FeatureCache *cache, Prefixes *prefixes,
                   size_t view, Error *err)
{
    bool checks = prefixes->limits->apart && view == 0;
    for (;;) {
        Batch batch;
        bool in_file;
        TRY(source->next(source, &batch, err));
        if (batch.size == 0)
            return STATUS_OK;
        if (prefixes->portion == 0) {
            TRY(settle(document, params, &batch, prefixes, cache, &in_file, err));
            TRY(allocate_rows(cache, in_file, err));
        }
        for (size_t first = 0; first < batch.size; first += prefixes->portion) {
            Prefix *p;
            size_t left = batch.size - first;
            Batch some = batch_rows(&batch, first, left < prefixes->portion ? left : prefixes->portion);
            TRY(prefix_for(document, params, &some, prefixes, &p, err));
            TRY(check_border(cache, p->prefix->graph, err));
            if (checks)
                TRY(check_apart(cache, prefixes, p, &some, err));
            checks = false;
            TRY(run_batch(cache, p, &some, view, err));
        }
    }
}

/* Where one process cannot, the others, whose samples may have been other ones, do not wait for it. */
static Status agree(Comm *comm, Status status, Error *err)
{
    double failed = status == STATUS_UNSUPPORTED || status == STATUS_ENVIRONMENT;
    if (status != STATUS_OK && failed < 0.5) /* ends all */
        return status;
    TRY(comm_sum(comm, &failed, 1, err));
    if (status != STATUS_OK || failed < 0.5)
        return status;
    return fail(err, STATUS_UNSUPPORTED, "another process cannot keep what it gives");
}

/* Every process has computed the rows of its samples; afterwards each has all. */
static Status put_together(Comm *comm, FeatureCache *cache, Error *err)
{
    for (int i = 0; i < cache->count; i++)
        TRY(comm_merge(comm, cache->rows[i], kept_bytes(cache, i) * row_count(cache), err));
    for (int i = 0; i < cache->target_count; i++)
        TRY(comm_merge(comm, cache->targets[i], cache->target_bytes[i] * row_count(cache), err));
    return STATUS_OK;
}

Status features_cache(Model *document, const ParamList *params, Source *source, const PlanOptions *options,
                      size_t batch, const FeatureLimits *limits, FeatureCache *cache, Error *err)
{
    memset(cache, 0, sizeof *cache);
    cache->samples = source->count;
    cache->views = limits->views > 0 ? limits->views : 1;
    Prefixes *prefixes = calloc(1, sizeof *prefixes);
    if (prefixes == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for plans");
    if (options != NULL)
        prefixes->options = *options;
    prefixes->limits = limits;
    Status status = STATUS_OK;
    for (size_t view = 0; view < cache->views && status == STATUS_OK; view++) {
        status = source->start(source, view, limits->views > 0, batch, err);
        if (status == STATUS_OK)
            status = fill(document, params, source, cache, prefixes, view, err);
    }
    for (size_t i = 0; i < PREFIXES; i++)
        prefix_release(&prefixes->items[i]);
    free(prefixes);
    status = agree(source->comm, status, err);
    if (status == STATUS_OK && cache->count == 0)
        status = fail(err, STATUS_REJECTED, "no samples to compute features of");
    if (status == STATUS_OK)
        status = put_together(source->comm, cache, err);
    if (status != STATUS_OK)
        features_release(cache);
    return status;
}

size_t features_bytes(const FeatureCache *cache)
{
    size_t bytes = 0;
    for (int i = 0; i < cache->count; i++)
        bytes += cache->mapped[i] == NULL ? kept_bytes(cache, i) * row_count(cache) : 0;
    for (int i = 0; i < cache->target_count; i++)
        bytes += cache->target_bytes[i] * row_count(cache);
    return bytes;
}

void features_rest(const FeatureCache *cache)
{
    for (int i = 0; i < cache->count; i++)
        if (cache->mapped[i] != NULL)
            madvise(cache->mapped[i], kept_bytes(cache, i) * row_count(cache), MADV_DONTNEED);
}

void features_release(FeatureCache *cache)
{
    for (int i = 0; i < cache->count; i++) {
        if (cache->mapped[i] != NULL)
            munmap(cache->mapped[i], kept_bytes(cache, i) * row_count(cache));
        else
            block_free(cache->rows[i]);
    }
    for (int i = 0; i < cache->target_count; i++)
        block_free(cache->targets[i]);
    memset(cache, 0, sizeof *cache);
}

Status features_source(const FeatureCache *cache, const LoaderOptions *options, ArraySource *source, Error *err)
{
    TRY(array_source_init(source, cache->samples, err));
    source->input_count = cache->count;
    source->target_count = cache->target_count;
    source->cache = cache;
    source->views = cache->views;
    source->seed = options->seed;
    source->keep_order = options->keep_order;
    source->rank = options->rank;
    source->ranks = options->ranks;
    for (int i = 0; i < cache->count; i++) {
        source->input_types[i] = cache->types[i];
        source->inputs[i] = cache->rows[i];
        source->narrow[i] = cache->narrow[i];
    }
    for (int i = 0; i < cache->target_count; i++) {
        source->target_types[i] = cache->target_types[i];
        source->targets[i] = cache->targets[i];
    }
    return STATUS_OK;
}

/* ---- is it worth it? --------------------------------------------------------------------------------------------- */

static bool is_product(const Node *node)
{
    static const char *const parts[] = {"Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(node->op_type, parts[i]) != NULL)
            return true;
    return false;
}

static bool has_products(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (is_product(node))
            return true;
    return false;
}

/* Nothing is drawn and nothing is kept from one run to the next. */
static bool is_settled(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node->op != NULL && (node->op->traits & (OP_RANDOM | OP_STATE)) != 0)
            return false;
    return true;
}

static bool same_type(const Type *a, const Type *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           (a->rank <= 0 || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0);
}

static bool same_border(const Graph *a, const Graph *b)
{
    bool same = a->output_count == b->output_count;
    for (size_t i = 0; i < a->output_count && same; i++)
        same = strcmp(a->outputs[i]->name, b->outputs[i]->name) == 0 &&
               same_type(&a->outputs[i]->type, &b->outputs[i]->type);
    return same;
}

/* In training (or not) as trainer_plan splits it. */
static Status split_for(Model *document, const ParamList *params, const TrainOptions *train, const Batch *batch,
                        bool training, Prefix *p, Error *err)
{
    Binding bindings[SOURCE_MAX];
    WorkingOptions options = {.bindings = bindings,
                              .binding_count = bind_inputs(document, batch, bindings),
                              .params = params,
                              .training = training,
                              .running_statistics = train->running_statistics,
                              .for_split = true};
    TRY(working_build(document, &options, &p->whole, err));
    return working_split(p->whole, &p->prefix, &p->suffix, err);
}

Status features_worth(Model *document, const ParamList *params, const TrainOptions *options, const Batch *batch,
                      bool *worth, size_t *bytes, Error *err)
{
    Prefix still = {0}, moving = {0};
    FeatureCache cache = {0};
    Error no_rows = {0};
    *worth = false;
    Status status = split_for(document, params, options, batch, false, &still, err);
    if (status == STATUS_OK)
        status = split_for(document, params, options, batch, true, &moving, err);
    if (status == STATUS_OK) {
        *worth = has_products(still.prefix->graph) && is_settled(moving.prefix->graph) &&
                 same_border(still.prefix->graph, moving.prefix->graph) &&
                 describe_border(&cache, still.prefix->graph, batch, false, &no_rows) == STATUS_OK;
        *bytes = 0;
        for (int i = 0; i < cache.count && *worth; i++)
            *bytes += row_size(&cache.types[i]);
    }
    prefix_release(&still);
    prefix_release(&moving);
    model_rest(document);
    return status;
}
