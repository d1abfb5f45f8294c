/* Losses and metrics outside a training graph: for validation in inference form, where no loss nodes are. The formulas
 * are those of passes/loss.c and runtime/ops/losses.c, without label smoothing. Sums are kept, so that the mean over a
 * data set is that of its samples (of its tokens, pixels, numbers), however it is cut into batches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

static const Node *last_node(const Graph *graph, size_t index)
{
    const Node *node = graph->outputs[index]->producer;
    while (node != NULL &&
           (node_is(node, "Identity") || node_is(node, "Cast") || node_is(node, "Reshape") || node_is_zipmap(node)))
        node = node_input(node, 0) == NULL ? NULL : node_input(node, 0)->producer;
    return node;
}

OutputForm output_form(const Graph *graph, size_t index)
{
    const Node *node = last_node(graph, index);
    return node == NULL                  ? OUTPUT_SCORES
           : node_is(node, "Softmax")    ? OUTPUT_SOFTMAX
           : node_is(node, "LogSoftmax") ? OUTPUT_LOG_SOFTMAX
           : node_is(node, "Sigmoid")    ? OUTPUT_SIGMOID
                                         : OUTPUT_SCORES;
}

/* Before opset 13 Softmax took the axis and all behind it for one. */
OutputForm output_form_read_by(const Graph *graph, const LossSpec *spec, const Type *type)
{
    OutputForm form = output_form(graph, spec->output);
    if (form != OUTPUT_SOFTMAX && form != OUTPUT_LOG_SOFTMAX)
        return form;
    const Node *node = last_node(graph, spec->output);
    int last = type->rank - 1, classes = loss_class_axis(spec, type);
    int64_t axis = node_int(node, "axis", node->opset < 13 ? 1 : -1);
    axis = axis < 0 ? axis + type->rank : axis;
    return axis == classes && (node->opset >= 13 || classes == last) ? form : OUTPUT_SCORES;
}

/* What a loss reads, as [samples, classes, inner]; `form`: what the model's last node has made of the scores. */
typedef struct Scores {
    const float *x;
    size_t samples, classes, inner;
    OutputForm form;
} Scores;

/* A score with which log-sum-exp and sigmoid give the model's own probabilities. */
static double score_at(const Scores *s, size_t sample, size_t class, size_t i)
{
    double x = s->x[(sample * s->classes + class) * s->inner + i];
    switch (s->form) {
    case OUTPUT_SCORES:
    case OUTPUT_LOG_SOFTMAX:
        return x;
    case OUTPUT_SOFTMAX:
        return log(fmax(x, 1e-30));
    case OUTPUT_SIGMOID:
        return log(fmax(x, 1e-30)) - log(fmax(1 - x, 1e-30));
    }
    return x;
}

/* log of the sum of exp over the classes, and the class with the largest score. */
static double log_sum(const Scores *s, size_t sample, size_t i, size_t *best)
{
    double top = -INFINITY, sum = 0;
    for (size_t c = 0; c < s->classes; c++) {
        double x = score_at(s, sample, c, i);
        if (x > top) {
            top = x;
            *best = c;
        }
    }
    for (size_t c = 0; c < s->classes; c++)
        sum += exp(score_at(s, sample, c, i) - top);
    return log(sum) + top;
}

static void count_class(Tally *tally, size_t label, size_t predicted)
{
    tally->counted++;
    tally->right += label == predicted;
    if (tally->both == NULL)
        return;
    tally->both[label] += label == predicted;
    tally->truth[label]++;
    tally->predicted[predicted]++;
}

/* Every label must be a class or the one that is left out, as in training (check_targets, runtime/ops/losses.c). */
static Status check_labels(const LossSpec *spec, const Scores *s, const int64_t *labels, Error *err)
{
    for (size_t i = 0; i < s->samples * s->inner; i++)
        if (labels[i] != spec->ignore_index && (labels[i] < 0 || (size_t)labels[i] >= s->classes))
            return fail(err, STATUS_REJECTED,
                        "a target is %lld: neither in [0, %zu) nor the index %lld, which does not count",
                        (long long)labels[i], s->classes, (long long)spec->ignore_index);
    return STATUS_OK;
}

static void cross_entropy(const LossSpec *spec, const Scores *s, const int64_t *labels, Tally *tally)
{
    for (size_t n = 0; n < s->samples; n++)
        for (size_t i = 0; i < s->inner; i++) {
            int64_t label = labels[n * s->inner + i];
            if (label == spec->ignore_index)
                continue;
            size_t best = 0;
            double weight = spec->class_weights == NULL ? 1 : (double)spec->class_weights[label];
            tally->loss += weight * (log_sum(s, n, i, &best) - score_at(s, n, (size_t)label, i));
            tally->weight += weight;
            count_class(tally, (size_t)label, best);
        }
}

static void dice_of_class(const LossSpec *spec, const Scores *s, size_t sample, size_t class, const int64_t *labels,
                          Tally *tally)
{
    double both = 0, sizes = 0;
    for (size_t i = 0; i < s->inner; i++) {
        if (labels[sample * s->inner + i] == spec->ignore_index)
            continue;
        size_t best = 0;
        double p = exp(score_at(s, sample, class, i) - log_sum(s, sample, i, &best));
        double t = labels[sample * s->inner + i] == (int64_t) class;
        both += p * t;
        sizes += p + t;
        if (t > 0)
            count_class(tally, class, best);
    }
    tally->loss += 1 - (2 * both + 1) / (sizes + 1);
    tally->weight += 1;
}

static void elementwise(const LossSpec *spec, const Scores *s, const float *target, Tally *tally)
{
    double delta = spec->delta > 0 ? spec->delta : 1;
    size_t count = s->samples * s->classes * s->inner;
    for (size_t i = 0; i < count; i++) {
        double a = s->x[i], b = target[i], d = a - b, size = fabs(d);
        tally->absolute += size;
        tally->squared += d * d;
        if (spec->kind == LOSS_MSE)
            tally->loss += d * d;
        else if (spec->kind == LOSS_L1)
            tally->loss += size;
        else
            tally->loss += size < delta ? d * d / 2 : delta * (size - delta / 2);
    }
    tally->weight += (double)count;
}

/* max(x, 0) - x t + log(1 + exp(-|x|)) */
static void binary(const Scores *s, const float *target, Tally *tally)
{
    Scores flat = {s->x, s->samples * s->classes * s->inner, 1, 1, s->form};
    for (size_t i = 0; i < flat.samples; i++) {
        double x = score_at(&flat, i, 0, 0), t = target[i];
        tally->loss += fmax(x, 0) - x * t + log1p(exp(-fabs(x)));
        tally->right += (x > 0) == (t > 0.5);
    }
    tally->counted += flat.samples;
    tally->weight += (double)flat.samples;
}

static Scores scores_of(const LossSpec *spec, const float *out, const Type *type, OutputForm form)
{
    size_t count = (size_t)type_count(type), samples = (size_t)type->dims[0];
    if (spec->kind == LOSS_LM) {
        size_t classes = (size_t)type->dims[type->rank - 1];
        return (Scores){out, classes > 0 ? count / classes : 0, classes, 1, form};
    }
    size_t classes = type->rank > 1 ? (size_t)type->dims[1] : 1;
    return (Scores){out, samples, classes, samples * classes > 0 ? count / (samples * classes) : 0, form};
}

/* Scores of positions in space get an intersection over union a class. */
static Status make_room(Tally *tally, const LossSpec *spec, const Type *type, size_t classes, Error *err)
{
    bool dense = type->rank > 2 && (spec->kind == LOSS_SOFTMAX_CE || spec->kind == LOSS_DICE);
    if (!dense || tally->both != NULL)
        return STATUS_OK;
    tally->both = calloc(3 * classes + 1, sizeof *tally->both);
    if (tally->both == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for counts of %zu classes", classes);
    tally->classes = classes;
    tally->truth = tally->both + classes;
    tally->predicted = tally->truth + classes;
    return STATUS_OK;
}

Status tally_add(Tally *tally, const LossSpec *spec, const float *out, const Type *type, OutputForm form,
                 const void *target, Error *err)
{
    Scores s = scores_of(spec, out, type, form);
    TRY(make_room(tally, spec, type, s.classes, err));
    tally->kind = spec->kind;
    switch (spec->kind) {
    case LOSS_SOFTMAX_CE:
    case LOSS_LM:
        TRY(check_labels(spec, &s, target, err));
        cross_entropy(spec, &s, target, tally);
        return STATUS_OK;
    case LOSS_BCE:
        binary(&s, target, tally);
        return STATUS_OK;
    case LOSS_DICE:
        TRY(check_labels(spec, &s, target, err));
        for (size_t n = 0; n < s.samples; n++)
            for (size_t c = 0; c < s.classes; c++)
                dice_of_class(spec, &s, n, c, target, tally);
        return STATUS_OK;
    case LOSS_LINEAR:
        for (size_t i = 0; i < s.samples * s.classes * s.inner; i++)
            tally->loss += (double)out[i] * (double)((const float *)target)[i];
        tally->weight = 1;
        return STATUS_OK;
    case LOSS_MSE:
    case LOSS_L1:
    case LOSS_HUBER:
        break;
    }
    elementwise(spec, &s, target, tally);
    return STATUS_OK;
}

/* Mean over the classes that there are of |truth and predicted| / |truth or predicted|. */
static double mean_iou(const Tally *tally)
{
    double sum = 0;
    size_t present = 0;
    for (size_t c = 0; c < tally->classes; c++) {
        size_t either = tally->truth[c] + tally->predicted[c] - tally->both[c];
        if (either == 0)
            continue;
        sum += (double)tally->both[c] / (double)either;
        present++;
    }
    return present == 0 ? NAN : sum / (double)present;
}

TargetScore tally_score(const Tally *tally)
{
    TargetScore score = {NAN, NAN, NAN, NAN, NAN};
    if (!(tally->weight > 0))
        return score;
    score.loss = tally->loss / tally->weight;
    if (tally->counted > 0)
        score.accuracy = (double)tally->right / (double)tally->counted;
    if (tally->both != NULL)
        score.mean_iou = mean_iou(tally);
    if (tally->kind == LOSS_MSE || tally->kind == LOSS_L1 || tally->kind == LOSS_HUBER) {
        score.absolute_error = tally->absolute / tally->weight;
        score.squared_error = tally->squared / tally->weight;
    }
    return score;
}

void tally_release(Tally *tally)
{
    free(tally->both);
    *tally = (Tally){.both = NULL};
}
