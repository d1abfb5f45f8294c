/* Quality of outputs that are no classes: several labels a sample, each by itself, and numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

/* One column of two arrays [count, width]. */
typedef struct Pairs {
    const float *rows, *targets;
    size_t count, width, column;
} Pairs;

static double found_at(const Pairs *p, size_t i)
{
    return (double)p->rows[i * p->width + p->column];
}

static double wanted_at(const Pairs *p, size_t i)
{
    return (double)p->targets[i * p->width + p->column];
}

static Status column_auc(const Pairs *p, double *auc, Error *err)
{
    double *scores = malloc((p->count + 1) * sizeof *scores);
    int64_t *labels = malloc((p->count + 1) * sizeof *labels);
    if (scores != NULL && labels != NULL) {
        for (size_t i = 0; i < p->count; i++) {
            scores[i] = found_at(p, i);
            labels[i] = wanted_at(p, i) > 0;
        }
        *auc = metrics_auc(scores, labels, p->count);
    }
    bool failed = scores == NULL || labels == NULL;
    free(scores);
    free(labels);
    return failed ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu scores", p->count) : STATUS_OK;
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* A label is said to be there when its score is above `border`. */
static void count_label(const Pairs *p, double border, ColumnMetrics *m)
{
    double both = 0, found = 0, wanted = 0, right = 0;
    for (size_t i = 0; i < p->count; i++) {
        bool says = found_at(p, i) > border, is = wanted_at(p, i) > 0;
        found += says;
        wanted += is;
        both += says && is;
        right += says == is;
    }
    m->positives = (size_t)wanted;
    m->accuracy = right / (double)p->count;
    m->precision = ratio(both, found);
    m->recall = ratio(both, wanted);
    m->f1 = ratio(2 * both, found + wanted);
}

static void measure_number(const Pairs *p, ColumnMetrics *m)
{
    double mean = 0, squares = 0, absolute = 0, spread = 0, n = (double)p->count;
    for (size_t i = 0; i < p->count; i++)
        mean += wanted_at(p, i) / n;
    for (size_t i = 0; i < p->count; i++) {
        double d = found_at(p, i) - wanted_at(p, i), s = wanted_at(p, i) - mean;
        squares += d * d / n;
        absolute += fabs(d) / n;
        spread += s * s / n;
    }
    m->rmse = sqrt(squares);
    m->mae = absolute;
    m->r2 = spread > 0 ? 1 - squares / spread : NAN;
}

/* Mean over the columns where it is known. */
static void add_up(const ColumnMetrics *columns, size_t width, ColumnMetrics *mean)
{
    size_t known = 0, spread = 0, present = 0;
    *mean = (ColumnMetrics){.auc = 0};
    for (size_t c = 0; c < width; c++) {
        const ColumnMetrics *m = &columns[c];
        mean->positives += m->positives;
        mean->accuracy += m->accuracy / (double)width;
        mean->rmse += m->rmse * m->rmse / (double)width;
        mean->mae += m->mae / (double)width;
        mean->auc += isfinite(m->auc) ? m->auc : 0;
        mean->r2 += isfinite(m->r2) ? m->r2 : 0;
        known += isfinite(m->auc) ? 1 : 0;
        spread += isfinite(m->r2) ? 1 : 0;
        if (m->positives == 0)
            continue;
        present++;
        mean->precision += m->precision;
        mean->recall += m->recall;
        mean->f1 += m->f1;
    }
    mean->rmse = sqrt(mean->rmse);
    mean->auc = known == 0 ? NAN : mean->auc / (double)known;
    mean->r2 = spread == 0 ? NAN : mean->r2 / (double)spread;
    mean->precision = ratio(mean->precision, (double)present);
    mean->recall = ratio(mean->recall, (double)present);
    mean->f1 = ratio(mean->f1, (double)present);
}

Status metrics_columns(const float *rows, const float *targets, size_t count, size_t width, bool labels, double border,
                       ColumnMetrics *columns, ColumnMetrics *mean, Error *err)
{
    for (size_t c = 0; c < width; c++) {
        Pairs pairs = {rows, targets, count, width, c};
        columns[c] = (ColumnMetrics){.auc = NAN};
        if (count == 0)
            continue;
        measure_number(&pairs, &columns[c]);
        if (!labels)
            continue;
        count_label(&pairs, border, &columns[c]);
        TRY(column_auc(&pairs, &columns[c].auc, err));
    }
    add_up(columns, width, mean);
    return STATUS_OK;
}
