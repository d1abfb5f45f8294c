/* Optimizers as torch.optim defines them, each one loop over parameters, gradients and states that lie alike in their
 * blocks. Neighbouring parameters with the same settings are updated as one range. Padding of blocked weights stays
 * zero because every rule maps (w, g, state) = 0 to 0. */
#include <math.h>
#include <string.h>

#include "runtime/ops/vector.h"
#include "runtime/plan.h"

enum { GRAIN = 1 << 14, NORM_LANES = 16 };

OptimizerSpec optimizer_default(OptimizerKind kind)
{
    OptimizerSpec spec = {.kind = kind, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .alpha = 0.99};
    if (kind == OPTIMIZER_SGD)
        spec.momentum = 0.9;
    if (kind == OPTIMIZER_ADAGRAD) {
        spec.lr = 1e-2;
        spec.epsilon = 1e-10;
    }
    if (kind == OPTIMIZER_ADAMW)
        spec.weight_decay = 0.01;
    return spec;
}

bool optimizer_parse(const char *name, OptimizerKind *kind)
{
    static const char *const names[] = {"sgd", "adagrad", "rmsprop", "adam", "adamw"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (OptimizerKind)i;
            return true;
        }
    }
    return false;
}

int optimizer_states(const OptimizerSpec *spec)
{
    switch (spec->kind) {
    case OPTIMIZER_SGD:
        return spec->momentum != 0 ? 1 : 0;
    case OPTIMIZER_ADAGRAD:
        return 1;
    case OPTIMIZER_RMSPROP:
        return spec->momentum != 0 ? 2 : 1;
    case OPTIMIZER_ADAM:
    case OPTIMIZER_ADAMW:
        return 2;
    }
    return 0;
}

/* ---- one range ----------------------------------------------------------------------------------------------- */

/* What a loop needs; it takes a copy, which no store into the blocks can change. */
typedef struct Range {
    const OptimizerSpec *spec;
    float *w, *s, *t; /* weights, first and second state */
    const float *g;
    float lr, decay, scale; /* decay: weight_decay of this range; scale: of the gradient, from clipping by norm */
    uint64_t step;
} Range;

static inline float gradient_at(const Range *r, int64_t i)
{
    float g = r->g[i] * r->scale;
    if (r->spec->clip_value > 0) {
        float c = (float)r->spec->clip_value;
        g = g > c ? c : g < -c ? -c : g;
    }
    return g;
}

/* b = mu b + (1 - tau) g (first step: b = g);  g = g + mu b (Nesterov) or b;  w = w - lr g */
VECTOR_CLONES static void step_sgd(int64_t begin, int64_t end, void *context)
{
    const Range range = *(const Range *)context, *r = &range;
    const float mu = (float)r->spec->momentum, keep = (float)(1 - r->spec->dampening);
    const bool nesterov = r->spec->nesterov, first = r->step == 1;
    for (int64_t i = begin; i < end; i++) {
        float g = gradient_at(r, i) + r->decay * r->w[i];
        if (mu != 0) {
            float b = first ? g : mu * r->s[i] + keep * g;
            r->s[i] = b;
            g = nesterov ? g + mu * b : b;
        }
        r->w[i] -= r->lr * g;
    }
}

/* s = s + g^2;  w = w - lr g / (sqrt(s) + eps) */
VECTOR_CLONES static void step_adagrad(int64_t begin, int64_t end, void *context)
{
    const Range range = *(const Range *)context, *r = &range;
    const float eps = (float)r->spec->epsilon;
    for (int64_t i = begin; i < end; i++) {
        float g = gradient_at(r, i) + r->decay * r->w[i];
        r->s[i] += g * g;
        r->w[i] -= r->lr * g / (sqrtf(r->s[i]) + eps);
    }
}

/* s = a s + (1 - a) g^2;  d = g / (sqrt(s) + eps);  with momentum b = mu b + d;  w = w - lr d (or b) */
VECTOR_CLONES static void step_rmsprop(int64_t begin, int64_t end, void *context)
{
    const Range range = *(const Range *)context, *r = &range;
    const float eps = (float)r->spec->epsilon, alpha = (float)r->spec->alpha, mu = (float)r->spec->momentum;
    for (int64_t i = begin; i < end; i++) {
        float g = gradient_at(r, i) + r->decay * r->w[i];
        r->s[i] = alpha * r->s[i] + (1 - alpha) * g * g;
        float d = g / (sqrtf(r->s[i]) + eps);
        if (mu != 0)
            d = r->t[i] = mu * r->t[i] + d;
        r->w[i] -= r->lr * d;
    }
}

/* m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w - lr/(1 - b1^t) m / (sqrt(v)/sqrt(1 - b2^t) + eps)
 * (Kingma and Ba 2015). AdamW first shrinks w by lr * decay (Loshchilov and Hutter 2019). */
VECTOR_CLONES static void step_adam(int64_t begin, int64_t end, void *context)
{
    const Range range = *(const Range *)context, *r = &range;
    const OptimizerSpec *spec = r->spec;
    const bool decoupled = spec->kind == OPTIMIZER_ADAMW;
    const float b1 = (float)spec->beta1, b2 = (float)spec->beta2, eps = (float)spec->epsilon;
    const float rate = (float)(r->lr / (1 - pow(spec->beta1, (double)r->step)));
    const float unbias = (float)(1 / sqrt(1 - pow(spec->beta2, (double)r->step)));
    const float shrink = decoupled ? 1 - r->lr * r->decay : 1, coupled = decoupled ? 0 : r->decay;
    const float c1 = (float)(1 - spec->beta1), c2 = (float)(1 - spec->beta2);
    for (int64_t i = begin; i < end; i++) {
        float w = r->w[i] * shrink, g = gradient_at(r, i) + coupled * w;
        float m = b1 * r->s[i] + c1 * g, v = b2 * r->t[i] + c2 * g * g;
        r->s[i] = m;
        r->t[i] = v;
        r->w[i] = w - rate * m / (sqrtf(v) * unbias + eps);
    }
}

/* ---- all ranges ------------------------------------------------------------------------------------------------ */

typedef struct NormPart {
    const float *g;
    double sums[256];
    int64_t n;
} NormPart;

/* Squares in 256 fixed parts, so that the sum does not depend on the number of threads; in lanes, since one sum would
 * wait for itself at every element. */
VECTOR_CLONES
static void norm_parts(int64_t begin, int64_t end, void *context)
{
    NormPart *part = context;
    for (int64_t p = begin; p < end; p++) {
        double sums[NORM_LANES] = {0}, sum = 0;
        int64_t i = part->n * p / 256, to = part->n * (p + 1) / 256;
        for (; i + NORM_LANES <= to; i += NORM_LANES)
            for (int64_t lane = 0; lane < NORM_LANES; lane++)
                sums[lane] += (double)part->g[i + lane] * (double)part->g[i + lane];
        for (; i < to; i++)
            sum += (double)part->g[i] * (double)part->g[i];
        for (int64_t lane = 0; lane < NORM_LANES; lane++)
            sum += sums[lane];
        part->sums[p] = sum;
    }
}

static double square_sum(const float *g, size_t n)
{
    NormPart part = {.g = g, .n = (int64_t)n};
    parallel_for(256, n < 4 * GRAIN ? 256 : 64, norm_parts, &part);
    double sum = 0;
    for (int i = 0; i < 256; i++)
        sum += part.sums[i];
    return sum;
}

static bool joins(const Param *a, const Param *b)
{
    return a->trainable && a->count > 0 && b->trainable && b->count > 0 && a->lr_scale == b->lr_scale &&
           a->decay_scale == b->decay_scale;
}

/* End of the run of parameters from `i` that share settings. Gaps between them are zeros. */
static size_t run_end(const ParamStore *store, size_t i)
{
    size_t end = i + 1;
    while (end < store->count && joins(&store->items[i], &store->items[end]))
        end++;
    return end;
}

static size_t run_floats(const ParamStore *store, size_t begin, size_t end)
{
    const Param *last = &store->items[end - 1];
    return last->offset + last->count - store->items[begin].offset;
}

static Status prepare_states(const OptimizerSpec *spec, ParamStore *store, Error *err)
{
    for (int i = 0; i < optimizer_states(spec); i++)
        if (store->state[i] == NULL)
            TRY(block_alloc((void **)&store->state[i], store->total * sizeof(float), "optimizer state", err));
    return STATUS_OK;
}

static void update_range(const OptimizerSpec *spec, ParamStore *store, size_t begin, size_t end, uint64_t step,
                         double lr, double scale)
{
    static void (*const rules[])(int64_t, int64_t, void *) = {step_sgd, step_adagrad, step_rmsprop, step_adam,
                                                              step_adam};
    const Param *first = &store->items[begin];
    Range r = {.spec = spec,
               .w = store->data + first->offset,
               .g = store->gradient + first->offset,
               .s = store->state[0] == NULL ? NULL : store->state[0] + first->offset,
               .t = store->state[1] == NULL ? NULL : store->state[1] + first->offset,
               .lr = (float)(lr * first->lr_scale),
               .decay = (float)(spec->weight_decay * first->decay_scale),
               .scale = (float)scale,
               .step = step};
    parallel_for((int64_t)run_floats(store, begin, end), GRAIN, rules[spec->kind], &r);
    for (size_t i = begin; i < end; i++)
        store->items[i].version++;
}

Status optimizer_step(const OptimizerSpec *spec, ParamStore *store, uint64_t step, double lr, double *norm, Error *err)
{
    TRY(prepare_states(spec, store, err));
    double sum = 0;
    for (size_t i = 0; i < store->count;) {
        size_t end = run_end(store, i);
        if (store->items[i].trainable && store->items[i].count > 0)
            sum += square_sum(store->gradient + store->items[i].offset, run_floats(store, i, end));
        i = end;
    }
    *norm = sqrt(sum);
    if (!isfinite(sum))
        return fail(err, STATUS_DIVERGED, "the gradient is not finite at update %llu", (unsigned long long)step);
    double scale = spec->clip_norm > 0 && *norm > spec->clip_norm ? spec->clip_norm / (*norm + 1e-6) : 1;
    for (size_t i = 0; i < store->count;) {
        size_t end = run_end(store, i);
        if (store->items[i].trainable && store->items[i].count > 0)
            update_range(spec, store, i, end, step, lr, scale);
        i = end;
    }
    store->version++;
    return STATUS_OK;
}
