/* A linear head for several labels a sample: one regression of two classes for each. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

/* A label that is nowhere, or everywhere, has nothing to learn from features: its odds, counted with half a sample on
 * either side. */
static void fit_constant(Probe *probe, size_t label, size_t positives, size_t count)
{
    double odds = ((double)positives + 0.5) / ((double)(count - positives) + 0.5);
    probe->bias[label] = (float)log(odds);
    probe->accuracy += 1;
    probe->loss += log1p(1 / fmax(odds, 1 / odds));
}

/* softmax of (a, b) for two classes is the sigmoid of b - a. */
static Status fit_one(const float *features, const int64_t *classes, size_t count, uint64_t seed, size_t label,
                      Probe *probe, Error *err)
{
    Probe two;
    TRY(probe_fit(features, classes, count, probe->width, 2, -1, NULL, seed, &two, err));
    float *row = probe->weight + label * probe->width;
    for (size_t k = 0; k < probe->width; k++)
        row[k] = two.weight[probe->width + k] - two.weight[k];
    probe->bias[label] = two.bias[1] - two.bias[0];
    probe->accuracy += two.accuracy;
    probe->loss += two.loss;
    probe_release(&two);
    return STATUS_OK;
}

static Status fit_all(const float *features, const float *targets, size_t count, uint64_t seed, int64_t *classes,
                      Probe *probe, Error *err)
{
    size_t labels = probe->classes;
    for (size_t label = 0; label < labels; label++) {
        size_t positives = 0;
        for (size_t i = 0; i < count; i++) {
            classes[i] = targets[i * labels + label] > 0;
            positives += (size_t)classes[i];
        }
        if (positives == 0 || positives == count)
            fit_constant(probe, label, positives, count);
        else
            TRY(fit_one(features, classes, count, seed, label, probe, err));
    }
    probe->accuracy /= (double)labels;
    probe->loss /= (double)labels;
    return STATUS_OK;
}

Status probe_fit_labels(const float *features, const float *targets, size_t count, size_t width, size_t labels,
                        uint64_t seed, Probe *probe, Error *err)
{
    *probe = (Probe){.width = width, .classes = labels};
    int64_t *classes = malloc((count + 1) * sizeof *classes);
    Status status = classes == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu labels", count)
                    : count == 0    ? fail(err, STATUS_REJECTED, "no samples to fit a head to")
                                    : STATUS_OK;
    if (status == STATUS_OK)
        status = block_alloc((void **)&probe->weight, labels * width * sizeof(float), "the probe", err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&probe->bias, labels * sizeof(float), "the probe", err);
    if (status == STATUS_OK)
        status = fit_all(features, targets, count, seed, classes, probe, err);
    free(classes);
    if (status != STATUS_OK)
        probe_release(probe);
    return status;
}
