/* How good a way of training is on one part of the data: classes, several labels, or numbers; for the closing table and
 * for the run folder. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/score.h"
#include "cli/tune.h"

/* ---- reports ------------------------------------------------------------------------------------------------- */

static void begin_report(Json *json, const char *arm, const char *part)
{
    json_begin(json, "regraft.metrics/1");
    json_put_string(json, "arm", arm);
    json_put_string(json, "part", part);
}

static Status keep_report(Tune *tune, Json *json, const char *arm, const char *part, Error *err)
{
    json_close(json, '}');
    str_append(&json->out, "\n");
    Str name;
    str_init(&name);
    str_printf(&name, "%s_%s.json", arm, part);
    Status status = progress_file(&tune->progress, name.text, json->out.text, err);
    str_release(&name);
    str_release(&json->out);
    return status;
}

static const char *class_name(const void *train, size_t c)
{
    return dataset_class_name(train, 0, c);
}

static void put_columns(const Tune *tune, const ColumnMetrics *columns, Json *json)
{
    json_put_open(json, tune->task == TASK_LABELS ? "labels" : "numbers", '[');
    for (size_t c = 0; c < tune->outputs; c++) {
        const ColumnMetrics *m = &columns[c];
        json_open(json, '{');
        json_put_string(json, "name", tune_output_name(tune, c));
        if (tune->task == TASK_LABELS)
            json_put_int(json, "positives", (int64_t)m->positives);
        json_put_column(json, m, tune->task == TASK_LABELS);
        json_close(json, '}');
    }
    json_close(json, ']');
}

/* ---- classes -------------------------------------------------------------------------------------------------- */

static Status labels_of(const Dataset *set, int64_t **labels, Error *err)
{
    size_t n = dataset_count(set);
    *labels = malloc((n + 1) * sizeof **labels);
    if (*labels == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu labels", n);
    for (size_t i = 0; i < n; i++)
        (*labels)[i] = dataset_label(set, 0, i);
    return STATUS_OK;
}

static Status measure_classes(Tune *tune, const Dataset *set, const float *logits, const char *arm, const char *part,
                              Scores *scores, Error *err)
{
    int64_t *labels = NULL;
    TRY(labels_of(set, &labels, err));
    Metrics m;
    Status status = metrics_classes(logits, labels, dataset_count(set), tune->outputs, &m, err);
    if (status == STATUS_OK) {
        Json json;
        *scores =
            (Scores){.loss = m.loss, .accuracy = m.accuracy, .auc = m.auc, .f1 = m.macro_f1, .r2 = NAN, .rmse = NAN};
        begin_report(&json, arm, part);
        json_put_classes(&json, &m, class_name, tune->data.train);
        status = keep_report(tune, &json, arm, part, err);
        metrics_release(&m);
    }
    free(labels);
    return status;
}

/* ---- labels and numbers ----------------------------------------------------------------------------------------- */

static Status targets_of(const Dataset *set, size_t width, float **targets, Error *err)
{
    size_t n = dataset_count(set);
    *targets = malloc((n * width + 1) * sizeof **targets);
    if (*targets == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu targets", n);
    for (size_t i = 0; i < n; i++)
        dataset_row(set, true, 0, i, *targets + i * width);
    return STATUS_OK;
}

/* Mean of max(x, 0) - x t + log(1 + exp(-|x|)), or of squares. */
static double mean_loss(const float *rows, const float *targets, size_t count, bool labels)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double x = (double)rows[i], t = (double)targets[i];
        sum += labels ? fmax(x, 0) - x * t + log1p(exp(-fabs(x))) : (x - t) * (x - t);
    }
    return count == 0 ? NAN : sum / (double)count;
}

static Status score_columns(Tune *tune, const float *rows, const float *targets, size_t count, ColumnMetrics *columns,
                            const char *arm, const char *part, Scores *scores, Error *err)
{
    bool labels = tune->task == TASK_LABELS;
    ColumnMetrics mean;
    Json json;
    TRY(metrics_columns(rows, targets, count, tune->outputs, labels, 0, columns, &mean, err));
    *scores = (Scores){.loss = mean_loss(rows, targets, count * tune->outputs, labels),
                       .accuracy = labels ? mean.accuracy : NAN,
                       .auc = mean.auc,
                       .f1 = labels ? mean.f1 : NAN,
                       .rmse = labels ? NAN : mean.rmse,
                       .r2 = labels ? NAN : mean.r2};
    begin_report(&json, arm, part);
    json_put_int(&json, "samples", (int64_t)count);
    json_put_real(&json, "loss", scores->loss);
    if (labels) {
        json_put_real(&json, "mean_accuracy", mean.accuracy);
        json_put_real(&json, "mean_auc", mean.auc);
        json_put_real(&json, "macro_f1", mean.f1);
    } else {
        json_put_real(&json, "rmse", mean.rmse);
        json_put_real(&json, "mae", mean.mae);
        json_put_real(&json, "mean_r2", mean.r2);
    }
    put_columns(tune, columns, &json);
    return keep_report(tune, &json, arm, part, err);
}

static Status measure_columns(Tune *tune, const Dataset *set, const float *rows, const char *arm, const char *part,
                              Scores *scores, Error *err)
{
    float *targets = NULL;
    ColumnMetrics *columns = calloc(tune->outputs + 1, sizeof *columns);
    Status status = columns == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu columns", tune->outputs)
                                    : targets_of(set, tune->outputs, &targets, err);
    if (status == STATUS_OK)
        status = score_columns(tune, rows, targets, dataset_count(set), columns, arm, part, scores, err);
    free(columns);
    free(targets);
    return status;
}

Status tune_measure(Tune *tune, const Dataset *set, const float *rows, const char *arm, const char *part,
                    Scores *scores, Error *err)
{
    return tune->task == TASK_CLASSES ? measure_classes(tune, set, rows, arm, part, scores, err)
                                      : measure_columns(tune, set, rows, arm, part, scores, err);
}
