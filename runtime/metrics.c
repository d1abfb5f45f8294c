/* Quality of class predictions: accuracy, confusion, precision, recall, F1, area under the ROC curve. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

typedef struct Ranked {
    double score;
    bool positive;
} Ranked;

static int by_score(const void *a, const void *b)
{
    double x = ((const Ranked *)a)->score, y = ((const Ranked *)b)->score;
    return x < y ? -1 : x > y;
}

/* AUC = (R - P (P + 1) / 2) / (P N): R the sum of ranks of the positives, ties at their mean rank. */
double metrics_auc(const double *scores, const int64_t *labels, size_t count)
{
    Ranked *ranked = malloc((count + 1) * sizeof *ranked);
    if (ranked == NULL)
        return NAN;
    double positives = 0, ranks = 0;
    for (size_t i = 0; i < count; i++) {
        ranked[i] = (Ranked){scores[i], labels[i] == 1};
        positives += ranked[i].positive;
    }
    qsort(ranked, count, sizeof *ranked, by_score);
    for (size_t i = 0; i < count;) {
        size_t end = i;
        double among = 0;
        while (end < count && ranked[end].score <= ranked[i].score)
            among += ranked[end++].positive;
        ranks += among * ((double)(i + 1) + (double)end) / 2;
        i = end;
    }
    free(ranked);
    double negatives = (double)count - positives;
    return positives == 0 || negatives == 0 ? NAN : (ranks - positives * (positives + 1) / 2) / (positives * negatives);
}

static size_t argmax(const float *row, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (row[i] > row[best])
            best = i;
    return best;
}

static void fill_per_class(Metrics *m)
{
    double sum = 0;
    size_t present = 0;
    for (size_t c = 0; c < m->classes; c++) {
        size_t truth = 0, predicted = 0, both = m->confusion[c * m->classes + c];
        for (size_t k = 0; k < m->classes; k++) {
            truth += m->confusion[c * m->classes + k];
            predicted += m->confusion[k * m->classes + c];
        }
        m->precision[c] = predicted == 0 ? 0 : (double)both / (double)predicted;
        m->recall[c] = truth == 0 ? 0 : (double)both / (double)truth;
        double p = m->precision[c], r = m->recall[c];
        m->f1[c] = p + r == 0 ? 0 : 2 * p * r / (p + r);
        if (truth > 0) {
            sum += m->f1[c];
            present++;
        }
    }
    m->macro_f1 = present == 0 ? 0 : sum / (double)present;
}

/* Two classes: the score is the difference of the logits, monotone in the probability of class 1. */
static Status two_class_auc(const float *logits, const int64_t *labels, size_t count, Metrics *m, Error *err)
{
    double *scores = malloc((count + 1) * sizeof *scores);
    int64_t *known = malloc((count + 1) * sizeof *known);
    size_t kept = 0;
    if (scores == NULL || known == NULL) {
        free(scores);
        free(known);
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu scores", count);
    }
    for (size_t i = 0; i < count; i++) {
        if (labels[i] < 0 || labels[i] > 1)
            continue;
        scores[kept] = (double)logits[2 * i + 1] - (double)logits[2 * i];
        known[kept++] = labels[i];
    }
    m->auc = metrics_auc(scores, known, kept);
    free(scores);
    free(known);
    return STATUS_OK;
}

Status metrics_classes(const float *logits, const int64_t *labels, size_t count, size_t classes, Metrics *m, Error *err)
{
    memset(m, 0, sizeof *m);
    m->classes = classes;
    m->auc = NAN;
    m->confusion = calloc(classes * classes + 1, sizeof *m->confusion);
    m->precision = calloc(3 * classes + 1, sizeof *m->precision);
    if (m->confusion == NULL || m->precision == NULL) {
        metrics_release(m);
        return fail(err, STATUS_ENVIRONMENT, "no memory for a confusion matrix of %zu classes", classes);
    }
    m->recall = m->precision + classes;
    m->f1 = m->recall + classes;
    size_t right = 0;
    double loss = 0;
    for (size_t i = 0; i < count; i++) {
        const float *row = logits + i * classes;
        if (labels[i] < 0 || (size_t)labels[i] >= classes)
            continue;
        size_t truth = (size_t)labels[i], predicted = argmax(row, classes);
        double sum = 0;
        for (size_t c = 0; c < classes; c++)
            sum += exp((double)row[c] - (double)row[predicted]);
        loss += log(sum) - ((double)row[truth] - (double)row[predicted]);
        m->confusion[truth * classes + predicted]++;
        right += truth == predicted;
        m->count++;
    }
    m->loss = m->count == 0 ? NAN : loss / (double)m->count;
    m->accuracy = m->count == 0 ? NAN : (double)right / (double)m->count;
    fill_per_class(m);
    return classes == 2 ? two_class_auc(logits, labels, count, m, err) : STATUS_OK;
}

void metrics_release(Metrics *m)
{
    free(m->confusion);
    free(m->precision);
    memset(m, 0, sizeof *m);
}
