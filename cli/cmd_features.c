/* regraft features: what a model computes at one place, for every sample, as arrays for other tools. */
#include "cli/apply.h"

#include <stdlib.h>

typedef struct Fields {
    ApplyFields apply;
    const char *output, *at, *head;
    bool unlabelled;
} Fields;

static const Option options[] = {
    APPLY_OPTIONS,
    {OPTION("--output", 'o', TEXT, output, "FILE", "the .npz to write"), .required = true},
    {OPTION("--at", 0, TEXT, at, "TENSOR", "the tensor to keep; by default what the head reads")},
    {OPTION("--head", 0, TEXT, head, "NAME", "which head, as `heads` prints them")},
    {OPTION("--unlabelled", 0, FLAG, unlabelled, NULL, "the data has no labels")},
    {0}};

static const Usage usage = {
    .verb = "features",
    .arguments = "MODEL",
    .summary = "Runs the data through a model up to the head (or any tensor) and writes the arrays `features` [N, "
               "...], `y` where "
               "there are labels, `names` and `classes` to an .npz.",
    .examples = {"regraft features model.onnx --data photos/ -o features.npz",
                 "regraft features model.onnx --data x.npz --at /layer4/Relu_output_0 -o f.npz"},
    .options = options,
    .minimum = 1,
    .maximum = 1};

/* ---- the tensor becomes the only output -------------------------------------------------------------------- */

static Status find_tensor(Apply *apply, const Fields *fields, Value **found, Error *err)
{
    const Graph *graph = apply->document->graph;
    HeadList list;
    const Head *head;
    if (fields->at == NULL) {
        TRY(document_inline(apply->document, err));
        TRY(heads_find(apply->document, &list, err));
        TRY(heads_pick(&list, fields->head, NULL, &head, err));
        *found = head->features;
        return STATUS_OK;
    }
    *found = graph_find(graph, fields->at);
    return *found != NULL ? STATUS_OK : fail(err, STATUS_USAGE, "--at: no tensor is called '%s'", fields->at);
}

static Status keep_only(Apply *apply, const Fields *fields, Error *err)
{
    Value *value = NULL;
    TRY(find_tensor(apply, fields, &value, err));
    Graph *graph = apply->document->graph;
    while (graph->output_count > 0) {
        graph->outputs[graph->output_count - 1]->is_output = false;
        graph->output_count--;
    }
    graph_add_output(graph, value);
    say_note("features: '%s'", value->name);
    return STATUS_OK;
}

/* ---- rows --------------------------------------------------------------------------------------------------- */

typedef struct Rows {
    Arena arena;
    float *features; /* [room, width] */
    int64_t *y;      /* class targets */
    Bytes *names;
    Type type; /* of one batch */
    size_t count, width;
} Rows;

static Status first_batch(Apply *apply, Rows *rows, const Type *type, size_t batch, Error *err)
{
    size_t samples = dataset_count(apply->set), bytes;
    if (type->dtype != DTYPE_F32 || type->rank < 1 || type->dims[0] != (int64_t)batch)
        return fail(err, STATUS_UNSUPPORTED, "the tensor is not one row of float numbers for each sample");
    rows->type = *type;
    rows->width = (size_t)type_count(type) / batch;
    if (!size_mul(rows->width * sizeof(float), samples, &bytes))
        return fail(err, STATUS_ENVIRONMENT, "features of %zu samples are too large", samples);
    TRY(block_alloc((void **)&rows->features, bytes, "features", err));
    rows->y = arena_array(&rows->arena, int64_t, samples + 1);
    rows->names = arena_array(&rows->arena, Bytes, samples + 1);
    return STATUS_OK;
}

static Status keep_batch(Apply *apply, const Batch *batch, void *context, Error *err)
{
    Rows *rows = context;
    Type type;
    Str name;
    const float *values = predictor_output(apply->predictor, 0, &type);
    if (rows->features == NULL)
        TRY(first_batch(apply, rows, &type, batch->size, err));
    if ((size_t)type_count(&type) != rows->width * batch->size)
        return fail(err, STATUS_UNSUPPORTED, "the tensor has another width from batch to batch");
    memcpy(rows->features + rows->count * rows->width, values, rows->width * batch->size * sizeof(float));
    str_init(&name);
    for (size_t i = 0; i < batch->size; i++, rows->count++) {
        dataset_sample_name(apply->set, batch->ids[i], &name);
        rows->names[rows->count] = (Bytes){arena_strdup(&rows->arena, name.text), name.length};
        rows->y[rows->count] = batch->target_count > 0 ? dataset_label(apply->set, 0, batch->ids[i]) : -1;
    }
    str_release(&name);
    return STATUS_OK;
}

/* ---- the file ----------------------------------------------------------------------------------------------- */

static Array array_of(DType dtype, size_t count, void *data)
{
    return (Array){.dtype = dtype, .rank = 1, .dims = {(int64_t)count}, .count = (int64_t)count, .data = data};
}

static Status write_rows(Apply *apply, Rows *rows, const char *output, Error *err)
{
    Array features = array_of(DTYPE_F32, rows->count * rows->width, rows->features);
    features.rank = rows->type.rank;
    memcpy(features.dims, rows->type.dims, sizeof features.dims);
    features.dims[0] = (int64_t)rows->count;
    Array y = array_of(DTYPE_I64, rows->count, rows->y), names = array_of(DTYPE_STRING, rows->count, rows->names);
    const char *called[4] = {"features", "names"};
    const Array *arrays[4] = {&features, &names};
    size_t count = 2;
    bool labelled =
        !apply->source.unlabelled && dataset_target_count(apply->set) > 0 && dataset_target(apply->set, 0)->is_class;
    size_t classes = labelled ? dataset_class_count(apply->set, 0) : 0;
    Bytes *texts = arena_array(&rows->arena, Bytes, classes + 1);
    for (size_t i = 0; i < classes; i++)
        texts[i] = (Bytes){dataset_class_name(apply->set, 0, i), strlen(dataset_class_name(apply->set, 0, i))};
    Array class_names = array_of(DTYPE_STRING, classes, texts);
    if (labelled) {
        called[count] = "y";
        arrays[count++] = &y;
        called[count] = "classes";
        arrays[count++] = &class_names;
    }
    return npz_write(output, called, arrays, count, err);
}

static void report(const Apply *apply, const Rows *rows, const Fields *fields)
{
    if (!fields->apply.json) {
        printf("wrote %s: %zu samples, %zu numbers each\n", fields->output, rows->count, rows->width);
        return;
    }
    Json json;
    json_begin(&json, "regraft.features/1");
    json_put_string(&json, "output", fields->output);
    json_put_string(&json, "part", apply->part);
    json_put_int(&json, "samples", (int64_t)rows->count);
    json_put_int(&json, "width", (int64_t)rows->width);
    json_end(&json);
}

Status cmd_features(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    Apply apply;
    Rows rows = {0};
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    arena_init(&rows.arena);
    Status status = apply_open(&apply, args.items[0], &fields.apply, err);
    if (status == STATUS_OK)
        status = document_check_output(apply.document, fields.output, err);
    if (status == STATUS_OK)
        status = apply_open_data(&apply, fields.unlabelled, err);
    if (status == STATUS_OK)
        status = keep_only(&apply, &fields, err);
    if (status == STATUS_OK)
        status = apply_run(&apply, keep_batch, &rows, err);
    if (status == STATUS_OK)
        status = write_rows(&apply, &rows, fields.output, err);
    if (status == STATUS_OK)
        report(&apply, &rows, &fields);
    apply_release(&apply);
    block_free(rows.features);
    arena_release(&rows.arena);
    return status;
}
