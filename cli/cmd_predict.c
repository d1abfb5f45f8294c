/* regraft predict: classes, or numbers, for pictures and arrays. One line a sample, as soon as it is known. */
#include "cli/apply.h"

#include <math.h>
#include <stdlib.h>

typedef struct Fields {
    ApplyFields apply;
    int64_t top;
} Fields;

static const Option options[] = {
    APPLY_OPTIONS,
    {OPTION("--top", 0, INT, top, "N", "the N likeliest classes of each sample"), .positive = true},
    {0}};

static const Usage usage = {
    .verb = "predict",
    .arguments = "MODEL",
    .summary = "Says what a model makes of each sample: the likeliest classes (or every label) with their "
               "probabilities, or the "
               "output's numbers "
               "where they are no classes. A model that `tune` wrote needs no other flag.",
    .examples = {"regraft predict tuned.onnx --data photo.jpg",
                 "regraft predict tuned.onnx --data photos/ --top 3 --json"},
    .options = options,
    .minimum = 1,
    .maximum = 1,
    .notes =
        "Lines: name, then class and probability, separated by tabs. --json: one object a line (regraft.predict/1)."};

typedef struct Context {
    const Fields *fields;
    OutputForm form;
    bool independent; /* labels that are there or not: probabilities need not add up to one */
    Str name;
    size_t *order; /* [width] */
    size_t width;
} Context;

static double probability(const float *row, size_t width, size_t c, OutputForm form, bool independent)
{
    double top = -INFINITY, sum = 0;
    if (independent && form == OUTPUT_SCORES)
        return 1 / (1 + exp(-(double)row[c]));
    if (form == OUTPUT_SOFTMAX || form == OUTPUT_SIGMOID)
        return (double)row[c];
    if (form == OUTPUT_LOG_SOFTMAX)
        return exp((double)row[c]);
    for (size_t i = 0; i < width; i++)
        top = fmax(top, (double)row[i]);
    for (size_t i = 0; i < width; i++)
        sum += exp((double)row[i] - top);
    return exp((double)row[c] - top) / sum;
}

/* The `count` largest first; the rest in no order. */
static void largest_first(const float *row, size_t *order, size_t width, size_t count)
{
    for (size_t i = 0; i < width; i++)
        order[i] = i;
    for (size_t k = 0; k < count; k++)
        for (size_t i = k + 1; i < width; i++)
            if (row[order[i]] > row[order[k]]) {
                size_t t = order[k];
                order[k] = order[i];
                order[i] = t;
            }
}

static void show_classes(const Apply *apply, const Context *c, const float *row)
{
    size_t count = c->fields->top > 0 && (size_t)c->fields->top < c->width ? (size_t)c->fields->top : c->width;
    largest_first(row, c->order, c->width, count);
    if (!c->fields->apply.json) {
        printf("%s", c->name.text);
        for (size_t k = 0; k < count; k++)
            printf("\t%s\t%.4f", apply_class_name(apply, c->order[k]),
                   probability(row, c->width, c->order[k], c->form, c->independent));
        printf("\n");
        return;
    }
    Json json;
    json_begin_line(&json, "regraft.predict/1");
    json_put_string(&json, "sample", c->name.text);
    json_put_open(&json, "classes", '[');
    for (size_t k = 0; k < count; k++) {
        json_open(&json, '{');
        json_put_string(&json, "name", apply_class_name(apply, c->order[k]));
        json_put_real(&json, "probability", probability(row, c->width, c->order[k], c->form, c->independent));
        json_close(&json, '}');
    }
    json_close(&json, ']');
    json_end(&json);
}

static void show_numbers(const Context *c, const float *row)
{
    if (!c->fields->apply.json) {
        printf("%s", c->name.text);
        for (size_t k = 0; k < c->width; k++)
            printf("\t%.6g", (double)row[k]);
        printf("\n");
        return;
    }
    Json json;
    json_begin_line(&json, "regraft.predict/1");
    json_put_string(&json, "sample", c->name.text);
    json_put_open(&json, "values", '[');
    for (size_t k = 0; k < c->width; k++)
        json_real(&json, (double)row[k]);
    json_close(&json, ']');
    json_end(&json);
}

static Status show_batch(Apply *apply, const Batch *batch, void *context, Error *err)
{
    Context *c = context;
    Type type;
    const float *rows = predictor_output(apply->predictor, 0, &type);
    if (type.dtype != DTYPE_F32 || type.rank < 1 || type.dims[0] != (int64_t)batch->size)
        return fail(err, STATUS_UNSUPPORTED,
                    "the model's first output is not one row of float numbers for each sample");
    c->width = (size_t)type_count(&type) / batch->size;
    bool classes = type.rank == 2 && (c->width > 1 || c->independent) &&
                   (apply->labels == NULL || apply->label_count == c->width) &&
                   (apply->labels != NULL || c->form != OUTPUT_SCORES || c->fields->top > 0);
    if (c->order == NULL)
        c->order = calloc(c->width + 1, sizeof *c->order);
    if (c->order == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu classes", c->width);
    for (size_t i = 0; i < batch->size; i++) {
        dataset_sample_name(apply->set, batch->ids[i], &c->name);
        if (classes)
            show_classes(apply, c, rows + i * c->width);
        else
            show_numbers(c, rows + i * c->width);
    }
    return STATUS_OK;
}

Status cmd_predict(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    Apply apply;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    Context context = {.fields = &fields};
    str_init(&context.name);
    Status status = apply_open(&apply, args.items[0], &fields.apply, err);
    if (status == STATUS_OK)
        status = apply_open_data(&apply, true, err);
    if (status == STATUS_OK) {
        context.form = apply_output_form(&apply, 0);
        context.independent = apply.independent;
        if (fields.top == 0 && apply.labels != NULL)
            fields.top = apply.independent ? (int64_t)apply.label_count : 1;
        status = apply_run(&apply, show_batch, &context, err);
    }
    apply_release(&apply);
    str_release(&context.name);
    free(context.order);
    return status;
}
