/* The value of a loss outside a training graph: for validation in inference form, where no loss nodes are. The formulas
 * are those of passes/loss.c and runtime/ops/losses.c. */
#include <math.h>
#include <string.h>

#include "runtime/train.h"

/* Rows of `classes` numbers, `stride` apart, one for each label. */
static double cross_entropy(const float *logits, size_t samples, size_t classes, size_t inner, const int64_t *labels,
                            const LossSpec *spec)
{
    double sum = 0, total = 0;
    for (size_t n = 0; n < samples; n++)
        for (size_t i = 0; i < inner; i++) {
            int64_t label = labels[n * inner + i];
            if (label == spec->ignore_index || label < 0 || (size_t)label >= classes)
                continue;
            const float *row = logits + n * classes * inner + i;
            double top = -INFINITY, z = 0;
            for (size_t c = 0; c < classes; c++)
                top = fmax(top, row[c * inner]);
            for (size_t c = 0; c < classes; c++)
                z += exp((double)row[c * inner] - top);
            double weight = spec->class_weights == NULL ? 1 : (double)spec->class_weights[label];
            sum += weight * (log(z) + top - (double)row[(size_t)label * inner]);
            total += weight;
        }
    return total > 0 ? sum / total : NAN;
}

static double elementwise(const float *x, const float *t, size_t count, const LossSpec *spec)
{
    double sum = 0, delta = spec->delta > 0 ? spec->delta : 1;
    for (size_t i = 0; i < count; i++) {
        double a = x[i], b = t[i], d = a - b;
        if (spec->kind == LOSS_BCE) /* max(x, 0) - x t + log(1 + exp(-|x|)) */
            sum += fmax(a, 0) - a * b + log1p(exp(-fabs(a)));
        else if (spec->kind == LOSS_MSE)
            sum += d * d;
        else if (spec->kind == LOSS_L1)
            sum += fabs(d);
        else
            sum += fabs(d) < delta ? d * d / 2 : delta * (fabs(d) - delta / 2);
    }
    return count > 0 ? sum / (double)count : NAN;
}

static double dice(const float *logits, size_t samples, size_t classes, size_t inner, const int64_t *labels)
{
    double mean = 0;
    for (size_t n = 0; n < samples; n++)
        for (size_t c = 0; c < classes; c++) {
            double both = 0, sizes = 0;
            for (size_t i = 0; i < inner; i++) {
                const float *row = logits + n * classes * inner + i;
                double top = -INFINITY, z = 0;
                for (size_t k = 0; k < classes; k++)
                    top = fmax(top, row[k * inner]);
                for (size_t k = 0; k < classes; k++)
                    z += exp((double)row[k * inner] - top);
                double p = exp((double)row[c * inner] - top) / z, t = labels[n * inner + i] == (int64_t)c;
                both += p * t;
                sizes += p + t;
            }
            mean += (2 * both + 1) / (sizes + 1);
        }
    return 1 - mean / (double)(samples * classes);
}

static double one_loss(const LossSpec *spec, const float *out, const Type *type, const void *target)
{
    size_t count = (size_t)type_count(type), samples = (size_t)type->dims[0], inner = 1;
    size_t classes = type->rank > 1 ? (size_t)type->dims[1] : 1;
    for (int i = 2; i < type->rank; i++)
        inner *= (size_t)type->dims[i];
    switch (spec->kind) {
    case LOSS_SOFTMAX_CE:
        return cross_entropy(out, samples, classes, inner, target, spec);
    case LOSS_LM:
        classes = (size_t)type->dims[type->rank - 1];
        return cross_entropy(out, count / classes, classes, 1, target, spec);
    case LOSS_DICE:
        return dice(out, samples, classes, inner, target);
    case LOSS_BCE:
    case LOSS_MSE:
    case LOSS_L1:
    case LOSS_HUBER:
        break;
    }
    return elementwise(out, target, count, spec);
}

Status losses_value(const LossSpec *losses, size_t count, const Plan *plan, const Graph *graph, const Batch *batch,
                    double *loss, Error *err)
{
    *loss = 0;
    for (size_t i = 0; i < count; i++) {
        if (losses[i].output >= graph->output_count || (int)i >= batch->target_count)
            return fail(err, STATUS_USAGE, "loss %zu has no output or no target", i);
        const Type *type = &graph->outputs[losses[i].output]->type;
        *loss += losses[i].weight * one_loss(&losses[i], plan_output(plan, losses[i].output), type, batch->targets[i]);
    }
    return STATUS_OK;
}
