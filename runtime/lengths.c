/* How long the samples of a sequence are. Data sets pad every sample to one length T; a batch needs no more than its
 * longest sample. Nothing is cut on trust: what lies behind the mask's ones must be one value everywhere (so it carries
 * nothing), the model must leave the length open, and a target that follows the length must be one that the loss
 * ignores there. */
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

enum { STEPS = 6, STEP_LEAST = 8 }; /* at most so many lengths of batches, none shorter than that */

/* One field, a sample at a time. */
typedef struct Rows {
    const Dataset *set;
    bool target;
    int index;
    const Type *type;
    unsigned char *row;
    size_t bytes; /* of one position */
} Rows;

static const Field *field_of(const Dataset *set, bool target, int index)
{
    return target ? dataset_target(set, index) : dataset_input(set, index);
}

static bool follows(const Field *field, size_t longest)
{
    return field->kind == FIELD_ARRAY && field->type.rank >= 1 && field->type.dims[0] == (int64_t)longest;
}

static Status rows_open(Rows *rows, const Dataset *set, bool target, int index, Error *err)
{
    const Type *type = &field_of(set, target, index)->type;
    size_t bytes = (size_t)type_count(type) * dtype_size(type->dtype);
    *rows = (Rows){.set = set,
                   .target = target,
                   .index = index,
                   .type = type,
                   .bytes = type->dims[0] > 0 ? bytes / (size_t)type->dims[0] : 0};
    rows->row = malloc(bytes + 1);
    return rows->row == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for a sample of %zu bytes", bytes) : STATUS_OK;
}

static Array row_array(const Rows *rows)
{
    return (Array){.dtype = rows->type->dtype,
                   .rank = 1,
                   .dims = {type_count(rows->type)},
                   .count = type_count(rows->type),
                   .data = rows->row};
}

/* ---- the mask ---------------------------------------------------------------------------------------------------- */

static int find_mask(const Dataset *set)
{
    for (int i = 0; i < dataset_input_count(set); i++) {
        const Field *field = dataset_input(set, i);
        if (field->kind == FIELD_ARRAY && field->type.rank == 1 && field->type.dims[0] > STEP_LEAST &&
            strstr(field->name, "mask") != NULL)
            return i;
    }
    return -1;
}

/* Ones and then zeros: how many ones; -1: something else. */
static int64_t length_of(const Array *mask)
{
    int64_t ones = 0;
    while (ones < mask->count && array_f64_at(mask, ones) == 1)
        ones++;
    for (int64_t i = ones; i < mask->count; i++)
        if (array_f64_at(mask, i) != 0)
            return -1;
    return ones;
}

static Status measure(const Dataset *set, int mask, Lengths *lengths, const char **why, Error *err)
{
    Rows rows;
    TRY(rows_open(&rows, set, false, mask, err));
    size_t count = dataset_count(set);
    lengths->of = calloc(count + 1, sizeof *lengths->of);
    for (size_t i = 0; i < count && lengths->of != NULL && *why == NULL; i++) {
        dataset_row(set, false, mask, i, rows.row);
        Array array = row_array(&rows);
        int64_t length = length_of(&array);
        if (length < 1)
            *why = "a mask is not ones followed by zeros";
        lengths->of[i] = length < 1 ? 0 : (uint32_t)length;
    }
    free(rows.row);
    return lengths->of == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu lengths", count) : STATUS_OK;
}

/* ---- what may be cut --------------------------------------------------------------------------------------------- */

/* Is what lies behind the lengths one value in all samples? `ignored` (may be NULL): it must be that one. */
static Status is_padding(const Dataset *set, bool target, int index, const Lengths *lengths, const int64_t *ignored,
                         bool *padding, Error *err)
{
    Rows rows;
    unsigned char first[16];
    bool seen = false;
    TRY(rows_open(&rows, set, target, index, err));
    size_t element = dtype_size(rows.type->dtype);
    *padding = element > 0 && element <= sizeof first;
    for (size_t i = 0; i < dataset_count(set) && *padding; i++) {
        dataset_row(set, target, index, i, rows.row);
        Array array = row_array(&rows);
        size_t end = rows.bytes * lengths->longest;
        for (size_t at = rows.bytes * lengths->of[i]; at < end && *padding; at += element) {
            if (!seen)
                memcpy(first, rows.row + at, element);
            seen = true;
            *padding = memcmp(first, rows.row + at, element) == 0 &&
                       (ignored == NULL || array_i64_at(&array, (int64_t)(at / element)) == *ignored);
        }
    }
    free(rows.row);
    return STATUS_OK;
}

static const Value *fed_input(const Graph *graph, int index)
{
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL && index-- == 0)
            return graph->inputs[i];
    return NULL;
}

static bool is_open(const Graph *graph, int input)
{
    const Value *value = fed_input(graph, input);
    return value != NULL && value->type.rank >= 2 && value->type.dims[1] < 0;
}

static Status choose_inputs(const Dataset *set, const Graph *graph, int mask, Lengths *lengths, const char **why,
                            Error *err)
{
    for (int i = 0; i < dataset_input_count(set); i++) {
        bool padding;
        if (!follows(dataset_input(set, i), lengths->longest) || !is_open(graph, i))
            continue;
        TRY(is_padding(set, false, i, lengths, NULL, &padding, err));
        lengths->cut_input[i] = padding;
    }
    if (!lengths->cut_input[mask])
        *why = "the model fixes the length";
    return STATUS_OK;
}

/* The outputs' types when every sequence that is cut has `length` positions; two samples. */
static Status types_at(const Dataset *set, Model *document, const Lengths *lengths, size_t length, Type *types,
                       size_t count, Error *err)
{
    Binding bindings[SOURCE_MAX];
    int inputs = dataset_input_count(set);
    for (int i = 0; i < inputs && i < SOURCE_MAX; i++) {
        const Field *field = dataset_input(set, i);
        const Value *value = fed_input(document->graph, i);
        if (value == NULL || field->kind != FIELD_ARRAY)
            return fail(err, STATUS_UNSUPPORTED, "an input is no array");
        bindings[i] = (Binding){.input = value->name, .rank = field->type.rank + 1, .dims = {2}};
        memcpy(bindings[i].dims + 1, field->type.dims, (size_t)field->type.rank * sizeof bindings[i].dims[0]);
        if (lengths->cut_input[i])
            bindings[i].dims[1] = (int64_t)length;
    }
    Model *working = NULL;
    WorkingOptions options = {.bindings = bindings, .binding_count = (size_t)inputs};
    TRY(working_build(document, &options, &working, err));
    for (size_t i = 0; i < count; i++)
        types[i] = i < working->graph->output_count ? working->graph->outputs[i]->type : (Type){.rank = -1};
    model_free(working);
    return STATUS_OK;
}

static bool same_shape(const Type *a, const Type *b)
{
    return a->rank == b->rank && a->rank >= 0 && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

/* A target follows the length when the output that its loss reads does. */
static Status choose_targets(const Dataset *set, Model *document, const LossSpec *losses, size_t count,
                             Lengths *lengths, const char **why, Error *err)
{
    Type whole[SOURCE_MAX], half[SOURCE_MAX];
    Error no = {0};
    if (types_at(set, document, lengths, lengths->longest, whole, SOURCE_MAX, &no) != STATUS_OK ||
        types_at(set, document, lengths, lengths->longest / 2, half, SOURCE_MAX, &no) != STATUS_OK) {
        *why = "the model cannot be planned for another length";
        return STATUS_OK;
    }
    for (size_t i = 0; i < count && (int)i < dataset_target_count(set) && *why == NULL; i++) {
        const LossSpec *loss = &losses[i];
        if (loss->output >= SOURCE_MAX || same_shape(&whole[loss->output], &half[loss->output]))
            continue;
        bool classes = loss->kind == LOSS_SOFTMAX_CE || loss->kind == LOSS_LM, ignored = false;
        if (classes && follows(dataset_target(set, (int)i), lengths->longest))
            TRY(is_padding(set, true, (int)i, lengths, &loss->ignore_index, &ignored, err));
        lengths->cut_target[i] = ignored;
        if (!ignored)
            *why = "targets behind the mask's end count in the loss";
    }
    return STATUS_OK;
}

static size_t choose_step(size_t longest)
{
    size_t step = (longest + STEPS - 1) / STEPS;
    step = (step + STEP_LEAST - 1) / STEP_LEAST * STEP_LEAST;
    return step < longest ? step : longest;
}

Status lengths_find(const Dataset *set, Model *document, const LossSpec *losses, size_t loss_count, Lengths *lengths,
                    const char **why, Error *err)
{
    const char *reason = NULL;
    int mask = find_mask(set);
    *lengths = (Lengths){.of = NULL};
    if (why != NULL)
        *why = NULL;
    if (mask < 0)
        return STATUS_OK;
    lengths->longest = (size_t)dataset_input(set, mask)->type.dims[0];
    lengths->step = choose_step(lengths->longest);
    Status status = measure(set, mask, lengths, &reason, err);
    if (status == STATUS_OK && reason == NULL)
        status = choose_inputs(set, document->graph, mask, lengths, &reason, err);
    if (status == STATUS_OK && reason == NULL)
        status = choose_targets(set, document, losses, loss_count, lengths, &reason, err);
    if (status != STATUS_OK || reason != NULL)
        lengths_release(lengths);
    if (why != NULL)
        *why = reason;
    return status;
}

void lengths_release(Lengths *lengths)
{
    free(lengths->of);
    *lengths = (Lengths){.of = NULL};
}
