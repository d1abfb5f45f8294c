#include "cli/score.h"

static void put_confusion(Json *json, const Metrics *m)
{
    json_put_open(json, "confusion", '[');
    for (size_t r = 0; r < m->classes; r++) {
        json_open(json, '[');
        for (size_t c = 0; c < m->classes; c++)
            json_int(json, (int64_t)m->confusion[r * m->classes + c]);
        json_close(json, ']');
    }
    json_close(json, ']');
}

void json_put_classes(Json *json, const Metrics *m, ClassName *name, const void *context)
{
    json_put_int(json, "samples", (int64_t)m->count);
    json_put_real(json, "loss", m->loss);
    json_put_real(json, "accuracy", m->accuracy);
    json_put_real(json, "auc", m->auc);
    json_put_real(json, "macro_f1", m->macro_f1);
    json_put_open(json, "classes", '[');
    for (size_t c = 0; c < m->classes; c++) {
        json_open(json, '{');
        json_put_string(json, "name", name(context, c));
        json_put_real(json, "precision", m->precision[c]);
        json_put_real(json, "recall", m->recall[c]);
        json_put_real(json, "f1", m->f1[c]);
        json_close(json, '}');
    }
    json_close(json, ']');
    put_confusion(json, m);
}

void json_put_column(Json *json, const ColumnMetrics *m, bool labels)
{
    if (labels) {
        json_put_real(json, "accuracy", m->accuracy);
        json_put_real(json, "auc", m->auc);
        json_put_real(json, "precision", m->precision);
        json_put_real(json, "recall", m->recall);
        json_put_real(json, "f1", m->f1);
    } else {
        json_put_real(json, "rmse", m->rmse);
        json_put_real(json, "mae", m->mae);
        json_put_real(json, "r2", m->r2);
    }
}
