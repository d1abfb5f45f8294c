/* The steps of recipe `auto` that are more than a call of the trainer: which preprocessing the trunk expects, and a
 * head fitted to cached features. The order of the steps is in cli/cmd_tune.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/train.h"

/* ---- preprocessing ---------------------------------------------------------------------------------------------- */

static Status score_preset(Model *document, const ParamList *head, const Dataset *framed, const PictureSpec *spec,
                           size_t batch, const FeatureLimits *limits, uint64_t seed, PresetScore *score, Error *err)
{
    PictureSpec with = *spec;
    picture_spec_use(&with, score->preset);
    with.frame = FRAME_SQUASH; /* framed already: nothing is left to resize */
    DatasetSource source;
    FeatureCache cache = {0};
    Probe probe = {0};
    LoaderOptions options = {.keep_order = true};
    Status status = dataset_source_init(&source, framed, &with, &options, err);
    if (status == STATUS_OK)
        status = features_cache(document, head, &source.source, NULL, batch, limits, &cache, err);
    if (status == STATUS_OK)
        status = probe_fit(cache.rows[0], cache.targets[0], cache.samples, cache.row_bytes[0] / sizeof(float),
                           dataset_class_count(framed, 0), -1, NULL, seed, &probe, err);
    score->accuracy = probe.accuracy;
    score->loss = isfinite(probe.loss) ? probe.loss : INFINITY;
    probe_release(&probe);
    features_release(&cache);
    dataset_source_release(&source);
    return status;
}

/* The order of channels means nothing to a grey picture; the first one speaks for all. */
static bool is_grey(const Dataset *set)
{
    Picture picture = {0};
    Error ignored = {0};
    bool grey = dataset_picture(set, 0, 0, 1, &picture, &ignored) == STATUS_OK && picture.channels == 1;
    picture_release(&picture);
    return grey;
}

/* Red or blue first is asked only of the ranges that did best: those of the same mean and scale. */
static bool is_twin(const PicturePreset *bgr, const PicturePreset *best)
{
    bool same_scale = fabs(bgr->deviation[0] - best->deviation[0]) < 1e-9;
    return same_scale && (strcmp(bgr->name, "caffe") == 0 || fabs(bgr->mean[0] - best->mean[0]) < 1e-9);
}

static Status score_presets(Model *document, const ParamList *head, const Dataset *framed, const PictureSpec *spec,
                            bool ordered, size_t batch, const FeatureLimits *limits, uint64_t seed,
                            PresetScore scores[PRESETS_MAX], size_t *count, size_t *best, Error *err)
{
    for (int bgr = 0; bgr <= (int)ordered; bgr++) {
        const PicturePreset *found = scores[*best].preset;
        for (const PicturePreset *p = picture_presets; p->name != NULL && *count < PRESETS_MAX; p++) {
            if (p->bgr != (bool)bgr || (bgr == 1 && !is_twin(p, found)))
                continue;
            PresetScore *score = &scores[*count];
            *score = (PresetScore){.preset = p};
            TRY(score_preset(document, head, framed, spec, batch, limits, seed, score, err));
            if (score->loss < scores[*best].loss)
                *best = *count;
            ++*count;
        }
    }
    return STATUS_OK;
}

Status recipe_find_preset(Model *document, const ParamList *head, const Dataset *train, const PictureSpec *spec,
                          size_t samples, size_t batch, const FeatureLimits *limits, uint64_t seed,
                          PresetScore scores[PRESETS_MAX], size_t *count, size_t *best, Error *err)
{
    Dataset *subset = NULL, *framed = NULL;
    *count = *best = 0;
    TRY(dataset_sample(train, samples, seed, &subset, err));
    Status status = dataset_frame(subset, spec, &framed, err);
    dataset_free(subset);
    if (status == STATUS_OK)
        status = score_presets(document, head, framed, spec, spec->channels == 3 && !is_grey(train), batch, limits,
                               seed, scores, count, best, err);
    dataset_free(framed);
    return status;
}

/* ---- the head --------------------------------------------------------------------------------------------------- */

static float *writable(Model *document, Tensor *tensor)
{
    void *own = arena_copy(&document->arena, tensor->data, tensor->bytes);
    tensor->data = own;
    return own;
}

/* weight is [classes, width] or, before a MatMul or an untransposed Gemm, [width, classes]. */
static void write_weight(const Probe *probe, const Tensor *tensor, float *to)
{
    bool rows = tensor->dims[0] == (int64_t)probe->classes && tensor->dims[1] == (int64_t)probe->width;
    for (size_t c = 0; c < probe->classes; c++)
        for (size_t k = 0; k < probe->width; k++)
            to[rows ? c * probe->width + k : k * probe->classes + c] = probe->weight[c * probe->width + k];
}

Status recipe_fit_head(Model *document, const ParamList *head, const FeatureCache *cache, size_t classes,
                       const float *class_weights, uint64_t seed, Probe *probe, Error *err)
{
    Tensor *weight = NULL, *bias = NULL;
    for (size_t i = 0; i < head->count; i++) {
        Tensor *origin = head->items[i].origin;
        if (!head->items[i].trainable)
            continue;
        if (origin->rank == 2)
            weight = origin;
        else if (origin->rank == 1)
            bias = origin;
    }
    size_t width = cache->row_bytes[0] / sizeof(float);
    bool fits = weight != NULL && bias != NULL && weight->dtype == DTYPE_F32 && bias->dtype == DTYPE_F32 &&
                tensor_count(weight) == (int64_t)(width * classes) && tensor_count(bias) == (int64_t)classes;
    if (!cache->linear || !fits)
        return fail(err, STATUS_UNSUPPORTED, "the head is not one linear layer with a bias in float32");
    if (cache->target_types[0].dtype == DTYPE_F32)
        TRY(probe_fit_labels(cache->rows[0], cache->targets[0], cache->samples, width, classes, seed, probe, err));
    else
        TRY(probe_fit(cache->rows[0], cache->targets[0], cache->samples, width, classes, -1, class_weights, seed, probe,
                      err));
    write_weight(probe, weight, writable(document, weight));
    memcpy(writable(document, bias), probe->bias, classes * sizeof(float));
    return STATUS_OK;
}

void recipe_balance(const size_t *counts, size_t classes, float *weights)
{
    size_t total = 0;
    for (size_t c = 0; c < classes; c++)
        total += counts[c];
    for (size_t c = 0; c < classes; c++)
        weights[c] = counts[c] == 0 ? 0 : (float)((double)total / ((double)classes * (double)counts[c]));
}

/* ---- from scratch ----------------------------------------------------------------------------------------------- */

static int64_t fan_in(const Tensor *tensor)
{
    int64_t count = tensor_count(tensor);
    return tensor->rank > 1 && tensor->dims[0] > 0 ? count / tensor->dims[0] : count;
}

/* Biases next to a weight take that weight's fan in; the weight comes just before in topological order. */
Status recipe_reinitialise(Model *document, const ParamList *params, uint64_t seed, Error *err)
{
    int64_t last_fan_in = 1;
    for (size_t i = 0; i < params->count; i++) {
        const ParamInfo *info = &params->items[i];
        Tensor *tensor = info->origin;
        if (!info->trainable)
            continue;
        if (tensor->dtype != DTYPE_F32)
            return fail(err, STATUS_UNSUPPORTED, "%s: only float32 parameters can be initialised anew, this is %s",
                        info->name, dtype_name(tensor->dtype));
        float *values = writable(document, tensor);
        int64_t count = tensor_count(tensor);
        bool vector = tensor->rank <= 1;
        if (!vector)
            last_fan_in = fan_in(tensor);
        double bound = 1 / sqrt((double)(last_fan_in > 0 ? last_fan_in : 1));
        Rng rng = rng_at(seed, rng_mix(0x1217, i));
        bool scale = info->is_norm && (i + 1 >= params->count || params->items[i + 1].order == info->order);
        for (int64_t k = 0; k < count; k++)
            values[k] = info->is_norm ? (scale ? 1.0f : 0.0f) : (float)((2 * rng_uniform(&rng) - 1) * bound);
    }
    return STATUS_OK;
}
