/* regraft eval: how good a model is on labelled data. Classes get accuracy, AUC, per-class scores and the confusion
 * matrix; several labels a sample the AUC of each; numbers their errors. */
#include "cli/apply.h"

#include <math.h>
#include <stdlib.h>

typedef struct Fields {
    ApplyFields apply;
} Fields;

static const Option options[] = {APPLY_OPTIONS, {0}};

static const Usage usage = {.verb = "eval",
                            .arguments = "MODEL",
                            .summary = "Measures a model on labelled data: test/ of a folder where there is one, else "
                                       "val/, else all of it. A model that "
                                       "`tune` wrote needs no other flag.",
                            .examples = {"regraft eval tuned.onnx --data photos/",
                                         "regraft eval tuned.onnx --data mnist.npz --part val --json"},
                            .options = options,
                            .minimum = 1,
                            .maximum = 1};

/* One output with its target, all samples. */
typedef struct Answers {
    float *rows;     /* [count, width] */
    float *targets;  /* [count, width], where targets are no classes */
    int64_t *labels; /* [count], where they are */
    size_t width, room;
} Answers;

typedef struct Context {
    Answers answers[SOURCE_MAX];
    int outputs;
    size_t count;
} Context;

static bool is_class(const Apply *apply, int index)
{
    return dataset_target(apply->set, index)->is_class;
}

static Status make_room(Apply *apply, Answers *a, int index, const Type *type, size_t batch, Error *err)
{
    size_t samples = dataset_count(apply->set);
    const Field *target = dataset_target(apply->set, index);
    if (type->dtype != DTYPE_F32 || type->rank < 1 || type->dims[0] != (int64_t)batch)
        return fail(err, STATUS_UNSUPPORTED, "output '%s' is not one row of float numbers for each sample",
                    apply->document->graph->outputs[index]->name);
    a->width = (size_t)type_count(type) / batch;
    if (is_class(apply, index) && a->width < target->classes)
        return fail(err, STATUS_REJECTED, "the model tells %zu classes apart, the data has %zu", a->width,
                    target->classes);
    if (is_class(apply, index) && a->width != target->classes && apply->labels == NULL && dataset_is_files(apply->set))
        return fail(err, STATUS_REJECTED, "the model tells %zu classes apart and does not name them, the data has %zu",
                    a->width, target->classes);
    if (!is_class(apply, index) && (size_t)dims_count(target->type.rank, target->type.dims) != a->width)
        return fail(err, STATUS_REJECTED, "the model gives %zu numbers a sample, target '%s' has %lld", a->width,
                    target->name, (long long)dims_count(target->type.rank, target->type.dims));
    TRY(block_alloc((void **)&a->rows, samples * a->width * sizeof(float), "predictions", err));
    if (is_class(apply, index))
        return block_alloc((void **)&a->labels, samples * sizeof(int64_t), "labels", err);
    return block_alloc((void **)&a->targets, samples * a->width * sizeof(float), "targets", err);
}

static Status keep_batch(Apply *apply, const Batch *batch, void *context, Error *err)
{
    Context *c = context;
    for (int k = 0; k < c->outputs; k++) {
        Answers *a = &c->answers[k];
        Type type;
        const float *rows = predictor_output(apply->predictor, (size_t)k, &type);
        if (a->rows == NULL)
            TRY(make_room(apply, a, k, &type, batch->size, err));
        memcpy(a->rows + c->count * a->width, rows, batch->size * a->width * sizeof(float));
        if (a->labels != NULL)
            memcpy(a->labels + c->count, batch->targets[k], batch->size * sizeof(int64_t));
        else
            memcpy(a->targets + c->count * a->width, batch->targets[k], batch->size * a->width * sizeof(float));
    }
    c->count += batch->size;
    return STATUS_OK;
}

/* metrics_classes takes scores: probabilities become their logarithms. */
static void to_scores(Answers *a, size_t count, OutputForm form)
{
    for (size_t i = 0; form == OUTPUT_SOFTMAX && i < count * a->width; i++)
        a->rows[i] = logf(fmaxf(a->rows[i], 1e-30f));
}

/* ---- classes -------------------------------------------------------------------------------------------------- */

static void show_confusion(const Apply *apply, const Metrics *m)
{
    enum { SHOWN = 20 };
    if (m->classes > SHOWN) {
        say_note("the confusion matrix of %zu classes is in --json", m->classes);
        return;
    }
    char aligns[SHOWN + 2] = "l";
    memset(aligns + 1, 'r', m->classes);
    Table table;
    table_init(&table, aligns);
    table_cell(&table, STYLE_BOLD, "truth \\ found");
    for (size_t c = 0; c < m->classes; c++)
        table_cell(&table, STYLE_BOLD, "%s", apply_class_name(apply, c));
    for (size_t r = 0; r < m->classes; r++) {
        table_cell(&table, STYLE_PLAIN, "%s", apply_class_name(apply, r));
        for (size_t c = 0; c < m->classes; c++)
            table_cell(&table, r == c ? STYLE_BOLD : STYLE_PLAIN, "%zu", m->confusion[r * m->classes + c]);
    }
    printf("\n");
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void show_classes(const Apply *apply, const Metrics *m)
{
    static const char *const names[] = {"class", "precision", "recall", "F1"};
    printf("samples   %zu (%s)\naccuracy  %.4f\nloss      %.4f\nmacro F1  %.4f\n", m->count, apply->part, m->accuracy,
           m->loss, m->macro_f1);
    if (isfinite(m->auc))
        printf("AUC       %.4f\n", m->auc);
    printf("\n");
    Table table;
    table_init(&table, "lrrr");
    table_head(&table, names);
    for (size_t c = 0; c < m->classes; c++) {
        table_cell(&table, STYLE_PLAIN, "%s", apply_class_name(apply, c));
        table_cell(&table, STYLE_PLAIN, "%.4f", m->precision[c]);
        table_cell(&table, STYLE_PLAIN, "%.4f", m->recall[c]);
        table_cell(&table, STYLE_PLAIN, "%.4f", m->f1[c]);
    }
    table_print(&table, stdout, 0);
    table_release(&table);
    show_confusion(apply, m);
}

static void put_classes(const Apply *apply, const Metrics *m, Json *json)
{
    json_put_string(json, "kind", "classes");
    json_put_int(json, "samples", (int64_t)m->count);
    json_put_real(json, "accuracy", m->accuracy);
    json_put_real(json, "loss", m->loss);
    json_put_real(json, "auc", m->auc);
    json_put_real(json, "macro_f1", m->macro_f1);
    json_put_open(json, "classes", '[');
    for (size_t c = 0; c < m->classes; c++) {
        json_open(json, '{');
        json_put_string(json, "name", apply_class_name(apply, c));
        json_put_real(json, "precision", m->precision[c]);
        json_put_real(json, "recall", m->recall[c]);
        json_put_real(json, "f1", m->f1[c]);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_put_open(json, "confusion", '[');
    for (size_t r = 0; r < m->classes; r++) {
        json_open(json, '[');
        for (size_t c = 0; c < m->classes; c++)
            json_int(json, (int64_t)m->confusion[r * m->classes + c]);
        json_close(json, ']');
    }
    json_close(json, ']');
}

static Status report_classes(const Apply *apply, Answers *a, int index, size_t count, Json *json, Error *err)
{
    Metrics m;
    to_scores(a, count, apply_output_form(apply, (size_t)index));
    TRY(metrics_classes(a->rows, a->labels, count, a->width, &m, err));
    if (json != NULL)
        put_classes(apply, &m, json);
    else
        show_classes(apply, &m);
    metrics_release(&m);
    return STATUS_OK;
}

/* ---- several labels a sample, and numbers ------------------------------------------------------------------------ */

static bool only_zero_one(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] < 0 || values[i] > 1 || (values[i] > 0 && values[i] < 1))
            return false;
    return true;
}

static double column_auc(const Answers *a, size_t count, size_t column)
{
    double *scores = calloc(count + 1, sizeof *scores), auc = NAN;
    int64_t *labels = calloc(count + 1, sizeof *labels);
    if (scores != NULL && labels != NULL) {
        for (size_t i = 0; i < count; i++) {
            scores[i] = (double)a->rows[i * a->width + column];
            labels[i] = a->targets[i * a->width + column] > 0;
        }
        auc = metrics_auc(scores, labels, count);
    }
    free(scores);
    free(labels);
    return auc;
}

typedef struct Column {
    double auc, right, squares, absolute, target_squares;
} Column;

static Column measure_column(const Answers *a, size_t count, size_t column, bool labels, OutputForm form)
{
    Column m = {.auc = labels ? column_auc(a, count, column) : NAN};
    double border = form == OUTPUT_SIGMOID ? 0.5 : 0, mean = 0;
    for (size_t i = 0; i < count; i++)
        mean += (double)a->targets[i * a->width + column] / (double)count;
    for (size_t i = 0; i < count; i++) {
        double x = (double)a->rows[i * a->width + column], t = (double)a->targets[i * a->width + column], d = x - t;
        m.right += (x > border) == (t > 0);
        m.squares += d * d / (double)count;
        m.absolute += fabs(d) / (double)count;
        m.target_squares += (t - mean) * (t - mean) / (double)count;
    }
    m.right /= (double)count;
    return m;
}

static void show_column(Table *table, const Column *m, size_t column, bool labels)
{
    table_cell(table, STYLE_PLAIN, "%zu", column);
    if (labels) {
        table_cell(table, STYLE_PLAIN, "%.4f", m->right);
        table_cell(table, STYLE_PLAIN, "%.4f", m->auc);
        table_cell(table, STYLE_PLAIN, " ");
        return;
    }
    table_cell(table, STYLE_PLAIN, "%.6g", sqrt(m->squares));
    table_cell(table, STYLE_PLAIN, "%.6g", m->absolute);
    table_cell(table, STYLE_PLAIN, "%.4f", 1 - m->squares / fmax(m->target_squares, 1e-30));
}

static void put_column(Json *json, const Column *m, bool labels)
{
    json_open(json, '{');
    if (labels) {
        json_put_real(json, "accuracy", m->right);
        json_put_real(json, "auc", m->auc);
    } else {
        json_put_real(json, "rmse", sqrt(m->squares));
        json_put_real(json, "mae", m->absolute);
        json_put_real(json, "r2", 1 - m->squares / fmax(m->target_squares, 1e-30));
    }
    json_close(json, '}');
}

static void report_numbers(const Apply *apply, const Answers *a, int index, size_t count, Json *json)
{
    bool labels = only_zero_one(a->targets, count * a->width);
    OutputForm form = apply_output_form(apply, (size_t)index);
    static const char *const label_names[] = {"label", "accuracy", "AUC", ""};
    static const char *const number_names[] = {"number", "RMSE", "MAE", "R2"};
    Table table;
    table_init(&table, "rrrr");
    table_head(&table, labels ? label_names : number_names);
    if (json != NULL) {
        json_put_string(json, "kind", labels ? "labels" : "numbers");
        json_put_int(json, "samples", (int64_t)count);
        json_put_open(json, "columns", '[');
    }
    for (size_t column = 0; column < a->width; column++) {
        Column m = measure_column(a, count, column, labels, form);
        if (json != NULL)
            put_column(json, &m, labels);
        else
            show_column(&table, &m, column, labels);
    }
    if (json != NULL) {
        json_close(json, ']');
    } else {
        printf("samples   %zu (%s)\n\n", count, apply->part);
        table_print(&table, stdout, 0);
    }
    table_release(&table);
}

/* ---- the verb ------------------------------------------------------------------------------------------------------
 */

static Status report(const Apply *apply, Context *c, Error *err)
{
    Json json;
    bool as_json = apply->fields->json;
    Status status = STATUS_OK;
    if (as_json) {
        json_begin(&json, "regraft.eval/1");
        json_put_string(&json, "part", apply->part);
        json_put_open(&json, "outputs", '[');
    }
    for (int k = 0; k < c->outputs && status == STATUS_OK; k++) {
        const char *name = apply->document->graph->outputs[k]->name;
        if (as_json) {
            json_open(&json, '{');
            json_put_string(&json, "output", name);
        } else if (c->outputs > 1) {
            printf("%soutput '%s'\n", k > 0 ? "\n" : "", name);
        }
        if (c->answers[k].labels != NULL)
            status = report_classes(apply, &c->answers[k], k, c->count, as_json ? &json : NULL, err);
        else
            report_numbers(apply, &c->answers[k], k, c->count, as_json ? &json : NULL);
        if (as_json)
            json_close(&json, '}');
    }
    if (as_json) {
        json_close(&json, ']');
        json_end(&json);
    }
    return status;
}

static Status evaluate(Apply *apply, Context *c, Error *err)
{
    TRY(apply_open_data(apply, false, err));
    c->outputs = dataset_target_count(apply->set);
    if (c->outputs == 0 || (size_t)c->outputs > apply->document->graph->output_count || c->outputs > SOURCE_MAX)
        return fail(err, STATUS_REJECTED, "the data has %d targets, the model %zu outputs", c->outputs,
                    apply->document->graph->output_count);
    for (int k = 0; k < c->outputs; k++)
        if (!is_class(apply, k))
            TRY(dataset_set_dtype(apply->set, true, k, DTYPE_F32, err));
    TRY(apply_run(apply, keep_batch, c, err));
    if (c->count == 0)
        return fail(err, STATUS_REJECTED, "%s: no sample could be read", apply->fields->data);
    return report(apply, c, err);
}

Status cmd_eval(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    Apply apply;
    Context context = {0};
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    Status status = apply_open(&apply, args.items[0], &fields.apply, err);
    if (status == STATUS_OK)
        status = evaluate(&apply, &context, err);
    for (int k = 0; k < SOURCE_MAX; k++) {
        block_free(context.answers[k].rows);
        block_free(context.answers[k].targets);
        block_free(context.answers[k].labels);
    }
    apply_release(&apply);
    return status;
}
