/* A linear head fitted to cached features: multinomial logistic regression,
 *     min over W, b of  mean_i s_i (log sum_c exp(w_c z_i + b_c) - (w_y z_i + b_y)) + penalty/2 |W|^2,
 * on standardised features z, by L-BFGS (Nocedal and Wright, Numerical Optimization, alg. 7.4 and 7.5). It is convex,
 * so the result depends on neither seed nor thread count; only the folds of the cross-validation that chooses the
 * penalty do. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/dnnl.h"
#include "runtime/train.h"

enum { HISTORY = 10, ITERATIONS = 120, FOLDS = 5, FOLD_SAMPLES = 6000 };

/* Stronger penalties than these underfit, weaker ones only cost time; ten a decade would change accuracy by less than
 * the noise of a fold. */
static const double penalties[] = {1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001};
enum { PENALTIES = sizeof penalties / sizeof penalties[0] };

typedef struct Problem {
    const float *z; /* [n, width] standardised */
    const int64_t *labels;
    const float *class_weights; /* [classes] or NULL */
    size_t n, width, classes;
    double penalty;
    float *logits; /* [n, classes] */
} Problem;

static size_t unknowns(const Problem *p) /* W [classes, width], then b [classes] */
{
    return p->classes * (p->width + 1);
}

/* logits = z W' + b */
static void forward(const Problem *p, const float *x, float *logits)
{
    const float *bias = x + p->classes * p->width;
    for (size_t i = 0; i < p->n; i++)
        memcpy(logits + i * p->classes, bias, p->classes * sizeof *bias);
    if (p->n > 0)
        dnnl_sgemm('N', 'T', (dnnl_dim_t)p->n, (dnnl_dim_t)p->classes, (dnnl_dim_t)p->width, 1, p->z,
                   (dnnl_dim_t)p->width, x, (dnnl_dim_t)p->width, 1, logits, (dnnl_dim_t)p->classes);
}

/* Replaces a row of logits by its gradient and returns its loss. */
static double softmax_row(float *row, size_t classes, size_t label, double scale)
{
    double top = -DBL_MAX, sum = 0;
    for (size_t c = 0; c < classes; c++)
        top = row[c] > top ? row[c] : top;
    for (size_t c = 0; c < classes; c++)
        sum += exp((double)row[c] - top);
    double loss = log(sum) - ((double)row[label] - top);
    for (size_t c = 0; c < classes; c++)
        row[c] = (float)(scale * (exp((double)row[c] - top) / sum - (c == label)));
    return loss;
}

static double objective(const Problem *p, const float *x, float *gradient)
{
    double loss = 0, total = 0, squares = 0;
    for (size_t i = 0; i < p->n; i++)
        total += p->class_weights == NULL ? 1 : (double)p->class_weights[p->labels[i]];
    forward(p, x, p->logits);
    float *bias = gradient + p->classes * p->width;
    memset(bias, 0, p->classes * sizeof *bias);
    for (size_t i = 0; i < p->n; i++) {
        size_t label = (size_t)p->labels[i];
        double weight = (p->class_weights == NULL ? 1 : (double)p->class_weights[label]) / total;
        loss += weight * softmax_row(p->logits + i * p->classes, p->classes, label, weight);
        for (size_t c = 0; c < p->classes; c++)
            bias[c] += p->logits[i * p->classes + c];
    }
    dnnl_sgemm('T', 'N', (dnnl_dim_t)p->classes, (dnnl_dim_t)p->width, (dnnl_dim_t)p->n, 1, p->logits,
               (dnnl_dim_t)p->classes, p->z, (dnnl_dim_t)p->width, 0, gradient, (dnnl_dim_t)p->width);
    for (size_t i = 0; i < p->classes * p->width; i++) {
        squares += (double)x[i] * x[i];
        gradient[i] += (float)(p->penalty * (double)x[i]);
    }
    return loss + p->penalty / 2 * squares;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* ---- L-BFGS ---------------------------------------------------------------------------------------------------- */

typedef struct Lbfgs {
    size_t n;
    float *x, *g, *next_x, *next_g, *direction;
    float *s[HISTORY], *y[HISTORY]; /* differences of x and g, the last HISTORY of them */
    double rho[HISTORY];
    int count, newest;
} Lbfgs;

/* direction = -H g by the two-loop recursion. */
static void two_loop(Lbfgs *l)
{
    double alpha[HISTORY];
    for (size_t i = 0; i < l->n; i++)
        l->direction[i] = -l->g[i];
    for (int k = 0; k < l->count; k++) {
        int j = (l->newest - k + HISTORY) % HISTORY;
        alpha[j] = l->rho[j] * dot(l->s[j], l->direction, l->n);
        for (size_t i = 0; i < l->n; i++)
            l->direction[i] -= (float)alpha[j] * l->y[j][i];
    }
    if (l->count > 0) {
        double scale = 1 / (l->rho[l->newest] * dot(l->y[l->newest], l->y[l->newest], l->n));
        for (size_t i = 0; i < l->n; i++)
            l->direction[i] *= (float)scale;
    }
    for (int k = l->count - 1; k >= 0; k--) {
        int j = (l->newest - k + HISTORY) % HISTORY;
        double beta = l->rho[j] * dot(l->y[j], l->direction, l->n);
        for (size_t i = 0; i < l->n; i++)
            l->direction[i] += (float)(alpha[j] - beta) * l->s[j][i];
    }
}

/* Backtracks until the loss falls enough (Armijo). Returns false when no step helps: the end. */
static bool line_search(const Problem *p, Lbfgs *l, double *value)
{
    double slope = dot(l->g, l->direction, l->n), step = l->count == 0 ? 1 / (1e-12 + sqrt(dot(l->g, l->g, l->n))) : 1;
    if (slope >= 0)
        return false;
    for (int tries = 0; tries < 20; tries++, step *= 0.5) {
        for (size_t i = 0; i < l->n; i++)
            l->next_x[i] = l->x[i] + (float)step * l->direction[i];
        double next = objective(p, l->next_x, l->next_g);
        if (next <= *value + 1e-4 * step * slope) {
            *value = next;
            return true;
        }
    }
    return false;
}

static void remember(Lbfgs *l)
{
    int j = l->count == 0 ? 0 : (l->newest + 1) % HISTORY;
    for (size_t i = 0; i < l->n; i++) {
        l->s[j][i] = l->next_x[i] - l->x[i];
        l->y[j][i] = l->next_g[i] - l->g[i];
        l->x[i] = l->next_x[i];
        l->g[i] = l->next_g[i];
    }
    double curvature = dot(l->s[j], l->y[j], l->n);
    if (curvature <= 1e-16) /* not to be used; x has moved all the same */
        return;
    l->rho[j] = 1 / curvature;
    l->newest = j;
    if (l->count < HISTORY)
        l->count++;
}

static Status lbfgs_init(Lbfgs *l, size_t n, Error *err)
{
    memset(l, 0, sizeof *l);
    l->n = n;
    float *block;
    TRY(block_alloc((void **)&block, (5 + 2 * HISTORY) * n * sizeof(float), "fitting the probe", err));
    l->x = block;
    l->g = block + n;
    l->next_x = block + 2 * n;
    l->next_g = block + 3 * n;
    l->direction = block + 4 * n;
    for (int j = 0; j < HISTORY; j++) {
        l->s[j] = block + (5 + (size_t)j) * n;
        l->y[j] = block + (5 + HISTORY + (size_t)j) * n;
    }
    return STATUS_OK;
}

/* From where l->x is. */
static void minimise(const Problem *p, Lbfgs *l)
{
    l->count = 0;
    double value = objective(p, l->x, l->g);
    for (int i = 0; i < ITERATIONS; i++) {
        double before = value, norm = sqrt(dot(l->g, l->g, l->n));
        if (norm < 1e-5)
            break;
        two_loop(l);
        if (!line_search(p, l, &value))
            break;
        remember(l);
        if (before - value < 1e-7 * (1 + fabs(value)))
            break;
    }
}

/* ---- standardisation, folds -------------------------------------------------------------------------------------- */

/* Features of a deep trunk differ by about 1e-6 of themselves from one kernel, or one runtime, to the next. A head that
 * amplified differences of that size would read noise: as in Wiener's filter, 1/deviation is multiplied by
 * deviation^2 / (deviation^2 + noise^2), which is next to one for whatever says something. */
static const double feature_noise = 1e-5;

static void standardise(const float *features, size_t n, size_t width, double *mean, double *scale)
{
    for (size_t k = 0; k < width; k++)
        mean[k] = scale[k] = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < width; k++)
            mean[k] += features[i * width + k];
    for (size_t k = 0; k < width; k++)
        mean[k] /= (double)n;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < width; k++) {
            double d = (double)features[i * width + k] - mean[k];
            scale[k] += d * d;
        }
    for (size_t k = 0; k < width; k++) {
        double noise = feature_noise * (fabs(mean[k]) + 1e-6), deviation = sqrt(scale[k] / (double)n);
        scale[k] = deviation / (deviation * deviation + noise * noise);
    }
}

static size_t count_right(const float *logits, const int64_t *labels, size_t n, size_t classes)
{
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        size_t best = 0;
        for (size_t c = 1; c < classes; c++)
            if (logits[i * classes + c] > logits[i * classes + best])
                best = c;
        right += best == (size_t)labels[i];
    }
    return right;
}

/* Samples in an order in which every k-th belongs to one fold and classes are spread evenly over folds. `starts`: zeros
 * for each class and one more. */
static void stratified_order(const int64_t *labels, size_t n, size_t classes, uint64_t seed, size_t *starts,
                             size_t *order)
{
    size_t *shuffled = order + n;
    for (size_t i = 0; i < n; i++)
        shuffled[i] = i;
    Rng rng = rng_at(seed, 0xf01d);
    rng_shuffle(&rng, shuffled, n);
    for (size_t i = 0; i < n; i++)
        starts[labels[i] + 1]++;
    for (size_t c = 0; c < classes; c++)
        starts[c + 1] += starts[c];
    for (size_t i = 0; i < n; i++)
        order[starts[labels[shuffled[i]]]++] = shuffled[i];
}

typedef struct Folds {
    Problem train, held;
    float *train_z, *held_z;
    int64_t *train_labels, *held_labels;
} Folds;

static void split_fold(Folds *f, const Problem *all, const size_t *order, size_t n, size_t fold)
{
    size_t width = all->width;
    f->train.n = f->held.n = 0;
    for (size_t i = 0; i < n; i++) {
        Problem *to = i % FOLDS == fold ? &f->held : &f->train;
        float *z = to == &f->held ? f->held_z : f->train_z;
        int64_t *labels = to == &f->held ? f->held_labels : f->train_labels;
        memcpy(z + to->n * width, all->z + order[i] * width, width * sizeof *z);
        labels[to->n++] = all->labels[order[i]];
    }
}

/* Mean log loss of held-out samples: finer than accuracy when folds are small. */
static double held_out_loss(Folds *f, const Lbfgs *l, size_t *right)
{
    forward(&f->held, l->x, f->held.logits);
    *right += count_right(f->held.logits, f->held_labels, f->held.n, f->held.classes);
    double loss = 0;
    for (size_t i = 0; i < f->held.n; i++)
        loss += softmax_row(f->held.logits + i * f->held.classes, f->held.classes, (size_t)f->held_labels[i], 0);
    return loss;
}

/* Chooses the penalty; stops early once weaker penalties get worse. */
static void cross_validate(const Problem *all, Folds *f, const size_t *order, size_t n, Lbfgs *l, Probe *probe)
{
    double losses[PENALTIES] = {0};
    size_t right[PENALTIES] = {0}, best = 0;
    for (size_t fold = 0; fold < FOLDS; fold++) {
        split_fold(f, all, order, n, fold);
        memset(l->x, 0, l->n * sizeof *l->x);
        for (size_t k = 0; k < PENALTIES; k++) { /* each starts where the stronger one ended */
            f->train.penalty = penalties[k];
            minimise(&f->train, l);
            losses[k] += held_out_loss(f, l, &right[k]);
        }
    }
    for (size_t k = 1; k < PENALTIES; k++)
        if (losses[k] < losses[best])
            best = k;
    probe->penalty = penalties[best];
    probe->accuracy = (double)right[best] / (double)n;
    probe->loss = losses[best] / (double)n;
}

static Status choose_penalty(const Problem *all, uint64_t seed, Lbfgs *l, Probe *probe, Error *err)
{
    Status status = STATUS_OK;
    size_t n = all->n < FOLD_SAMPLES ? all->n : FOLD_SAMPLES;
    Folds f = {.train = *all, .held = *all};
    size_t *order = calloc(2 * all->n + all->classes + 2, sizeof *order);
    float *rows = NULL;
    int64_t *labels = calloc(2 * n + 1, sizeof *labels);
    if (order == NULL || labels == NULL)
        status = fail(err, STATUS_ENVIRONMENT, "no memory for folds of %zu samples", n);
    if (status == STATUS_OK)
        status = block_alloc((void **)&rows, 2 * n * (all->width + all->classes) * sizeof *rows, "folds", err);
    if (status == STATUS_OK) {
        stratified_order(all->labels, all->n, all->classes, seed, order + 2 * all->n, order);
        if (n < all->n) { /* spread the sample over the classes as they are */
            for (size_t i = 0; i < n; i++)
                order[i] = order[i * all->n / n];
        }
        f.train_z = rows;
        f.held_z = rows + n * all->width;
        f.train.logits = rows + 2 * n * all->width;
        f.held.logits = f.train.logits + n * all->classes;
        f.train_labels = labels;
        f.held_labels = labels + n;
        f.train.z = f.train_z;
        f.held.z = f.held_z;
        f.train.labels = f.train_labels;
        f.held.labels = f.held_labels;
        cross_validate(all, &f, order, n, l, probe);
    }
    free(order);
    free(labels);
    block_free(rows);
    return status;
}

/* ---- the probe --------------------------------------------------------------------------------------------------- */

/* w_c z + b_c with z = (x - mean) scale  is  (w_c scale) x + (b_c - sum w_c scale mean) */
static void fold_scaling(Probe *probe, const float *x, const double *mean, const double *scale)
{
    for (size_t c = 0; c < probe->classes; c++) {
        double bias = x[probe->classes * probe->width + c];
        for (size_t k = 0; k < probe->width; k++) {
            double w = (double)x[c * probe->width + k] * scale[k];
            probe->weight[c * probe->width + k] = (float)w;
            bias -= w * mean[k];
        }
        probe->bias[c] = (float)bias;
    }
}

static Status fit_standardised(Problem *p, double penalty, uint64_t seed, Probe *probe, const double *mean,
                               const double *scale, Error *err)
{
    Lbfgs l = {0};
    TRY(lbfgs_init(&l, unknowns(p), err));
    Status status = STATUS_OK;
    probe->penalty = penalty;
    probe->accuracy = probe->loss = NAN;
    if (penalty < 0)
        status = choose_penalty(p, seed, &l, probe, err);
    if (status == STATUS_OK) {
        p->penalty = probe->penalty;
        memset(l.x, 0, l.n * sizeof *l.x);
        minimise(p, &l);
        fold_scaling(probe, l.x, mean, scale);
    }
    block_free(l.x);
    return status;
}

Status probe_fit(const float *features, const int64_t *labels, size_t count, size_t width, size_t classes,
                 double penalty, const float *class_weights, uint64_t seed, Probe *probe, Error *err)
{
    memset(probe, 0, sizeof *probe);
    probe->width = width;
    probe->classes = classes;
    for (size_t i = 0; i < count; i++)
        if (labels[i] < 0 || (size_t)labels[i] >= classes)
            return fail(err, STATUS_REJECTED, "label %lld of sample %zu is not one of %zu classes",
                        (long long)labels[i], i, classes);
    if (count == 0)
        return fail(err, STATUS_REJECTED, "no samples to fit a head to");
    float *z = NULL, *logits = NULL;
    double *mean = NULL;
    Status status = block_alloc((void **)&probe->weight, classes * width * sizeof(float), "the probe", err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&probe->bias, classes * sizeof(float), "the probe", err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&mean, 2 * width * sizeof(double), "the probe", err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&z, count * width * sizeof(float), "standardised features", err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&logits, count * classes * sizeof(float), "the probe", err);
    if (status == STATUS_OK) {
        double *scale = mean + width;
        standardise(features, count, width, mean, scale);
        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < width; k++)
                z[i * width + k] = (float)(((double)features[i * width + k] - mean[k]) * scale[k]);
        Problem p = {.z = z,
                     .labels = labels,
                     .class_weights = class_weights,
                     .n = count,
                     .width = width,
                     .classes = classes,
                     .logits = logits};
        status = fit_standardised(&p, penalty, seed, probe, mean, scale, err);
    }
    block_free(z);
    block_free(logits);
    block_free(mean);
    if (status != STATUS_OK)
        probe_release(probe);
    return status;
}

void probe_predict(const Probe *probe, const float *features, size_t count, float *logits)
{
    for (size_t i = 0; i < count; i++)
        memcpy(logits + i * probe->classes, probe->bias, probe->classes * sizeof *logits);
    if (count > 0)
        dnnl_sgemm('N', 'T', (dnnl_dim_t)count, (dnnl_dim_t)probe->classes, (dnnl_dim_t)probe->width, 1, features,
                   (dnnl_dim_t)probe->width, probe->weight, (dnnl_dim_t)probe->width, 1, logits,
                   (dnnl_dim_t)probe->classes);
}

void probe_release(Probe *probe)
{
    block_free(probe->weight);
    block_free(probe->bias);
    memset(probe, 0, sizeof *probe);
}
