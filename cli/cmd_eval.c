/* regraft eval: how good a model is on labelled data. Classes get accuracy, AUC, per-class scores and the confusion
 * matrix; several labels a sample the AUC of each; numbers their errors. */
#include "cli/apply.h"

#include <math.h>
#include <stdlib.h>

#include "cli/score.h"

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

static const char *class_name(const void *apply, size_t c)
{
    return apply_class_name(apply, c);
}

static void put_classes(const Apply *apply, const Metrics *m, Json *json)
{
    json_put_string(json, "kind", "classes");
    json_put_classes(json, m, class_name, apply);
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

static const char *column_name(const Apply *apply, int index, size_t column, char number[24])
{
    if (index == 0 && column < apply->label_count)
        return apply->labels[column];
    const char *name = dataset_column_name(apply->set, index, column);
    snprintf(number, 24, "%zu", column);
    return name != NULL ? name : number;
}

static void show_column(Table *table, const ColumnMetrics *m, const char *name, bool labels)
{
    table_cell(table, STYLE_PLAIN, "%s", name);
    const double figures[2][5] = {{m->rmse, m->mae, m->r2}, {m->accuracy, m->auc, m->precision, m->recall, m->f1}};
    for (int i = 0; i < (labels ? 5 : 3); i++)
        if (isfinite(figures[labels][i]))
            table_cell(table, STYLE_PLAIN, labels ? "%.4f" : "%.6g", figures[labels][i]);
        else
            table_cell(table, STYLE_DIM, "-");
}

static void put_columns(const Apply *apply, const ColumnMetrics *columns, const ColumnMetrics *mean, size_t width,
                        int index, size_t count, bool labels, Json *json)
{
    char number[24];
    json_put_string(json, "kind", labels ? "labels" : "numbers");
    json_put_int(json, "samples", (int64_t)count);
    json_put_open(json, "mean", '{');
    json_put_column(json, mean, labels);
    json_close(json, '}');
    json_put_open(json, "columns", '[');
    for (size_t column = 0; column < width; column++) {
        json_open(json, '{');
        json_put_string(json, "name", column_name(apply, index, column, number));
        if (labels)
            json_put_int(json, "positives", (int64_t)columns[column].positives);
        json_put_column(json, &columns[column], labels);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void show_columns(const Apply *apply, const ColumnMetrics *columns, const ColumnMetrics *mean, size_t width,
                         int index, size_t count, bool labels)
{
    static const char *const label_names[] = {"label", "accuracy", "AUC", "precision", "recall", "F1"};
    static const char *const number_names[] = {"number", "RMSE", "MAE", "R2"};
    char number[24];
    Table table;
    table_init(&table, labels ? "lrrrrr" : "lrrr");
    table_head(&table, labels ? label_names : number_names);
    for (size_t column = 0; column < width; column++)
        show_column(&table, &columns[column], column_name(apply, index, column, number), labels);
    if (width > 1)
        show_column(&table, mean, "mean", labels);
    printf("samples   %zu (%s)\n\n", count, apply->part);
    table_print(&table, stdout, 0);
    table_release(&table);
}

/* A table names its columns: they must be the model's labels, in their order. */
static Status check_names(const Apply *apply, size_t width, Error *err)
{
    for (size_t i = 0; apply->independent && i < width && i < apply->label_count; i++) {
        const char *name = dataset_column_name(apply->set, 0, i);
        if (name != NULL && strcmp(name, apply->labels[i]) != 0)
            return fail(err, STATUS_REJECTED, "%s: column %zu is '%s', the model's label there is '%s'",
                        apply->fields->data, i + 1, name, apply->labels[i]);
    }
    return STATUS_OK;
}

static Status report_numbers(const Apply *apply, const Answers *a, int index, size_t count, Json *json, Error *err)
{
    bool labels = only_zero_one(a->targets, count * a->width);
    double border = apply_output_form(apply, (size_t)index) == OUTPUT_SIGMOID ? 0.5 : 0;
    ColumnMetrics *columns = calloc(a->width + 1, sizeof *columns), mean;
    Status status = columns == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu columns", a->width)
                    : index == 0    ? check_names(apply, a->width, err)
                                    : STATUS_OK;
    if (status == STATUS_OK)
        status = metrics_columns(a->rows, a->targets, count, a->width, labels, border, columns, &mean, err);
    if (status == STATUS_OK && json != NULL)
        put_columns(apply, columns, &mean, a->width, index, count, labels, json);
    else if (status == STATUS_OK)
        show_columns(apply, columns, &mean, a->width, index, count, labels);
    free(columns);
    return status;
}

/* ---- the verb ---------------------------------------------------------------------------------------------------- */

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
            status = report_numbers(apply, &c->answers[k], k, c->count, as_json ? &json : NULL, err);
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
