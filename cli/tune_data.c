/* The data sets of `tune`: opened, converted to what the model takes, cut to lengths; and the loss that fits a target.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"

static void on_broken(const char *message, void *context)
{
    progress_note(&((Tune *)context)->progress, "warning", "skipped: %s", message);
}

Status tune_open_data(Tune *tune, const char *path, DataParts *parts, Error *err)
{
    const TuneFields *f = tune->fields;
    const Graph *graph = tune->document->graph;
    const char **inputs = arena_array(&tune->document->arena, const char *, graph->input_count + 1);
    int *ranks = arena_array(&tune->document->arena, int, graph->input_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL) {
            ranks[count] = graph->inputs[i]->type.rank;
            inputs[count++] = graph->inputs[i]->name;
        }
    const char **only = NULL;
    if (f->only.count > 0) {
        only = arena_array(&tune->document->arena, const char *, f->only.count + 1);
        memcpy(only, f->only.items, f->only.count * sizeof only[0]);
    }
    bool plain = f->recipe == RECIPE_PLAIN;
    DataOptions options = {.path = path,
                           .val = f->val,
                           .test = f->test,
                           .held_out = plain ? 0 : f->held_out,
                           .seed = (uint64_t)f->seed,
                           .inputs = inputs,
                           .ranks = ranks,
                           .only = only,
                           .per_class = (size_t)f->per_class,
                           .skip_broken = f->skip_broken,
                           .on_broken = on_broken,
                           .context = tune};
    TRY(data_open(&options, parts, err));
    for (int i = 0; i < dataset_input_count(parts->train); i++)
        tune->has_picture = tune->has_picture || dataset_input(parts->train, i)->kind == FIELD_PICTURE;
    return STATUS_OK;
}

/* Every part of the data gives what the graph takes: f32 for any float, the integer types as they are. */
Status tune_settle_dtypes(Tune *tune, const DataParts *data, const LossSpec *losses, size_t count, Error *err)
{
    Dataset *parts[] = {data->train, data->val, data->test};
    const Graph *graph = tune->document->graph;
    for (size_t p = 0; p < 3; p++) {
        if (parts[p] == NULL)
            continue;
        for (size_t i = 0, k = 0; i < graph->input_count && (int)k < dataset_input_count(parts[p]); i++) {
            if (graph->inputs[i]->constant != NULL)
                continue;
            DType dtype = graph->inputs[i]->type.dtype;
            if (dataset_input(parts[p], (int)k)->kind == FIELD_ARRAY)
                TRY(dataset_set_dtype(parts[p], false, (int)k, dtype_is_float(dtype) ? DTYPE_F32 : dtype, err));
            k++;
        }
        for (int i = 0; i < dataset_target_count(parts[p]) && (size_t)i < count; i++) {
            LossKind kind = losses[i].kind;
            bool classes = kind == LOSS_SOFTMAX_CE || kind == LOSS_LM || kind == LOSS_DICE;
            if (!dataset_target(parts[p], i)->is_class || !classes)
                TRY(dataset_set_dtype(parts[p], true, i, classes ? DTYPE_I64 : DTYPE_F32, err));
        }
    }
    return STATUS_OK;
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static Status parse_loss(const char *name, LossKind *kind, Error *err)
{
    static const char *const names[] = {"softmax_ce", "lm", "bce", "mse", "l1", "huber", "dice"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (LossKind)i;
            return STATUS_OK;
        }
    }
    const char *near = text_nearest(name, names, sizeof names / sizeof names[0]);
    return fail(err, STATUS_USAGE, "--loss: '%s' is none of softmax_ce, lm, bce, mse, l1, huber, dice, multi%s%s%s",
                name, near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
}

/* Class indices by position: [N, T] for scores [N, T, C] (tokens) or [N, C, T...] (classes second). */
static bool is_by_token(const Field *target, const Type *output)
{
    if (target->type.rank != 1 || output->kind != TYPE_TENSOR || output->rank != 3 || output->dims[2] <= 0)
        return false;
    int64_t length = target->type.dims[0];
    return output->dims[1] == length || (output->dims[1] <= 0 && output->dims[2] != length);
}

/* Whole numbers that are all 0 or 1, several a sample: labels of a picture; of a text they are a class for each token.
 */
static bool is_labels(const Tune *tune, const Field *target)
{
    return target->zero_one && target->type.rank <= 1 && (dtype_is_float(target->type.dtype) || tune->has_picture);
}

static LossKind loss_for(const Tune *tune, const Field *target, const Type *output)
{
    if (is_labels(tune, target))
        return LOSS_BCE;
    if (target->is_class)
        return LOSS_SOFTMAX_CE;
    if (!dtype_is_integer(target->type.dtype))
        return LOSS_MSE;
    return is_by_token(target, output) ? LOSS_LM : LOSS_SOFTMAX_CE;
}

static Status parse_weight(const TextList *list, size_t i, double *weight, Error *err)
{
    if (list->count == 0)
        return STATUS_OK;
    char *end;
    *weight = strtod(list->items[i], &end);
    if (end == list->items[i] || *end != '\0' || !isfinite(*weight) || *weight < 0)
        return fail(err, STATUS_USAGE, "--loss-weight: '%s' is no number from 0 on", list->items[i]);
    return STATUS_OK;
}

/* The output that target `i` of several is meant for: those that are no floats (labels beside scores) have no loss. */
size_t tune_float_output(const Graph *graph, size_t i)
{
    for (size_t k = 0; k < graph->output_count; k++) {
        const Type *type = &graph->outputs[k]->type;
        bool untold = node_is_zipmap(graph->outputs[k]->producer) || type->kind == TYPE_UNKNOWN ||
                      (type->kind == TYPE_TENSOR && type->dtype == DTYPE_UNDEFINED);
        bool other = !untold && (type->kind != TYPE_TENSOR || !dtype_is_float(type->dtype));
        if (!other && i-- == 0)
            return k;
    }
    return graph->output_count;
}

Status tune_choose_loss(Tune *tune, const Field *target, size_t i, size_t count, size_t output, Error *err)
{
    const TextList *given = &tune->fields->losses, *weights = &tune->fields->loss_weights;
    const Graph *graph = tune->document->graph;
    bool multi = given->count == 1 && strcmp(given->items[0], "multi") == 0;
    static const Type unknown = {.rank = -1};
    LossSpec *loss = &tune->losses[i];
    if (given->count > 1 && given->count != count)
        return fail(err, STATUS_USAGE, "%zu losses for %zu targets", given->count, count);
    if (weights->count > 0 && weights->count != count)
        return fail(err, STATUS_USAGE, "%zu weights for %zu losses", weights->count, count);
    *loss = (LossSpec){
        .kind = loss_for(tune, target, output < graph->output_count ? &graph->outputs[output]->type : &unknown),
        .output = output,
        .weight = 1,
        .ignore_index = tune->fields->ignore_index,
        .label_smoothing = tune->fields->label_smoothing};
    if (given->count > 0 && !multi)
        TRY(parse_loss(given->items[given->count > 1 ? i : 0], &loss->kind, err));
    loss->target_name = arena_printf(&tune->document->arena, "regraft_target_%zu", i);
    return parse_weight(weights, i, &loss->weight, err);
}

/* ---- lengths ----------------------------------------------------------------------------------------------------- */

/* Sequences: batches as long as their longest sample, where nothing is lost by it. */
Status tune_find_lengths(Tune *tune, const DataParts *data, const LossSpec *losses, size_t count, Lengths lengths[3],
                         Error *err)
{
    const TuneFields *f = tune->fields;
    const Dataset *const parts[] = {data->train, data->val, data->test};
    const char *why = NULL;
    if (f->lengths == LENGTHS_KEEP || (f->lengths == LENGTHS_AUTO && f->recipe == RECIPE_PLAIN))
        return STATUS_OK;
    for (size_t p = 0; p < 3; p++)
        if (parts[p] != NULL)
            TRY(lengths_find(parts[p], tune->document, losses, count, &lengths[p], p == 0 ? &why : NULL, err));
    const Lengths *train = &lengths[0];
    if (train->of == NULL && f->lengths == LENGTHS_CUT)
        return fail(err, STATUS_USAGE, "--lengths cut: %s", why != NULL ? why : "no input is called a mask");
    if (why != NULL)
        progress_note(&tune->progress, "lengths", "sequences are not cut to the longest of a batch: %s", why);
    double sum = 0;
    for (size_t i = 0; i < dataset_count(data->train) && train->of != NULL; i++)
        sum += train->of[i];
    if (train->of != NULL)
        progress_note(&tune->progress, "lengths",
                      "batches are cut to their longest sample: %.1f positions on average, %zu in the data",
                      sum / (double)dataset_count(data->train), train->longest);
    return STATUS_OK;
}
