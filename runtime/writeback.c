/* What training changed, back into the document: parameters and running statistics in the tensors they came from and in
 * those tensors' own element type; BatchNorm and Dropout in inference form. Everything else of the document stays as it
 * was read. */
#include <stdlib.h>
#include <string.h>

#include "runtime/plan.h"
#include "runtime/runtime.h"

/* The same numbers as `tensor` has now? Compared in the file's type, so that an untouched bfloat16 stays untouched. */
static Status to_file_type(Arena *arena, const Tensor *like, const float *values, const void **bytes, size_t *size,
                           Error *err)
{
    Array floats = {
        .dtype = DTYPE_F32, .rank = like->rank, .count = tensor_count(like), .data = (void *)(uintptr_t)values};
    memcpy(floats.dims, like->dims, (size_t)like->rank * sizeof floats.dims[0]);
    Array *converted = &floats;
    if (like->dtype != DTYPE_F32)
        TRY(array_convert(arena, &floats, like->dtype, &converted, err));
    const Tensor *packed = tensor_from_array(arena, NULL, converted);
    *bytes = packed->data;
    *size = packed->bytes;
    return STATUS_OK;
}

/* `bytes` NULL: as they were. */
static Status find_moved(Model *document, const Tensor *tensor, const float *values, const void **bytes, Error *err)
{
    size_t size;
    TRY(to_file_type(&document->arena, tensor, values, bytes, &size, err));
    if (size == tensor->bytes && memcmp(*bytes, tensor->data, size) == 0)
        *bytes = NULL;
    return STATUS_OK;
}

static Status write_tensor(Model *document, Tensor *tensor, const float *values, Error *err)
{
    const void *bytes;
    TRY(find_moved(document, tensor, values, &bytes, err));
    if (bytes != NULL)
        tensor->data = bytes;
    return STATUS_OK;
}

/* ---- tensors that several parameters share ----------------------------------------------------------------------- */

static Value *add_like(Model *document, const ParamInfo *info, const void *bytes)
{
    Tensor *own = arena_copy(&document->arena, info->origin, sizeof *own);
    own->name = graph_unique_name(document->graph, info->name);
    own->data = bytes;
    Value *value = graph_add_weight(document->graph, own);
    type_set(&value->type, own->dtype, own->rank, own->dims);
    return value;
}

static void read_instead(const ParamInfo *info, Value *value)
{
    for (size_t i = 0; i < info->use_count; i++)
        if (info->uses[i].node != NULL)
            node_set_input(info->uses[i].node, info->uses[i].index, value);
}

/* An untied parameter that has moved away from the tensor it shared gets an initializer of its own. */
static Status write_untied(Model *document, const ParamInfo *info, const float *values, bool *moved, Error *err)
{
    const void *bytes;
    TRY(find_moved(document, info->origin, values, &bytes, err));
    *moved = bytes != NULL;
    if (*moved)
        read_instead(info, add_like(document, info, bytes));
    return STATUS_OK;
}

/* The parameter whose tensor it is has moved: those that shared it and have not, because they are frozen or had no
 * gradient, read a copy with the old bytes. */
static void stay_behind(const ParamStore *store, Model *document, const Tensor *origin, const bool *moved)
{
    Value *old = NULL;
    for (size_t i = 0; i < store->count; i++) {
        const ParamInfo *info = store->items[i].info;
        if (info->origin != origin || !info->untied || moved[i])
            continue;
        if (old == NULL)
            old = add_like(document, info, origin->data);
        read_instead(info, old);
    }
}

static Status write_owner(const ParamStore *store, Model *document, const ParamInfo *info, const float *values,
                          const bool *moved, Error *err)
{
    const void *bytes;
    TRY(find_moved(document, info->origin, values, &bytes, err));
    if (bytes == NULL)
        return STATUS_OK;
    stay_behind(store, document, info->origin, moved);
    info->origin->data = bytes;
    return STATUS_OK;
}

static Status write_parameter(const ParamStore *store, Model *document, size_t index, const float *values, bool *moved,
                              Error *err)
{
    const ParamInfo *info = store->items[index].info;
    return info->untied ? write_untied(document, info, values, &moved[index], err)
                        : write_owner(store, document, info, values, moved, err);
}

/* Copies that are tied to parameter `index`: of those that share a tensor, or of the others. */
static Status write_ties(const ParamStore *store, Model *document, size_t index, bool untied, const float *values,
                         float *scratch, bool *moved, Error *err)
{
    for (size_t i = 0; i < store->count; i++) {
        const ParamInfo *info = store->items[i].info;
        if (info->tied_to != (int)index || info->untied != untied)
            continue;
        copy_layout_apply(&info->layout, store->items[index].info->origin, info->origin, sizeof *values, values,
                          scratch);
        TRY(write_parameter(store, document, i, scratch, moved, err));
    }
    return STATUS_OK;
}

/* To numbers that the file can hold: what is computed of them then agrees with them when it is read again. */
static void round_to_type(const Tensor *tensor, float *values)
{
    int64_t count = tensor_count(tensor);
    for (int64_t i = 0; i < count && tensor->dtype == DTYPE_F16; i++)
        values[i] = f16_to_f32(f32_to_f16(values[i]));
    for (int64_t i = 0; i < count && tensor->dtype == DTYPE_BF16; i++)
        values[i] = bf16_to_f32(f32_to_bf16(values[i]));
}

static Status write_parameters(const ParamStore *store, Model *document, float *values, float *scratch, Error *err)
{
    bool *moved = arena_array(&document->arena, bool, store->count + 1);
    for (int untied = 1; untied >= 0; untied--) /* shared tensors last: comparisons need their old bytes */
        for (size_t i = 0; i < store->count; i++) {
            if (store->items[i].count == 0)
                continue;
            TRY(params_get(store, i, values, err));
            round_to_type(store->items[i].info->origin, values);
            if (store->items[i].info->untied == untied)
                TRY(write_parameter(store, document, i, values, moved, err));
            TRY(write_ties(store, document, i, untied == 1, values, scratch, moved, err));
        }
    return STATUS_OK;
}

static size_t largest(const ParamStore *store)
{
    size_t most = 1;
    for (size_t i = 0; i < store->count; i++) {
        size_t n = (size_t)dims_count(store->items[i].rank, store->items[i].dims);
        most = n > most ? n : most;
    }
    return most;
}

Status params_write_back(const ParamStore *store, Model *document, Error *err)
{
    float *values = NULL;
    size_t most = largest(store);
    TRY(block_alloc((void **)&values, 2 * most * sizeof *values, "writing parameters back", err));
    Status status = write_parameters(store, document, values, values + most, err);
    for (size_t i = 0; i < store->state_count && status == STATUS_OK; i++)
        status = write_tensor(document, store->state_origins[i], store->state_data[i], err);
    block_free(values);
    return status;
}

/* ---- inference form ---------------------------------------------------------------------------------------------- */

static bool is_unread(const Value *value)
{
    return value == NULL || (value->use_count == 0 && !value->is_output);
}

static void settle_batchnorm(Node *node)
{
    for (int i = 1; i < node->output_count; i++)
        if (!is_unread(node->outputs[i]))
            return; /* somebody reads the statistics: leave it as written */
    node_remove_attr(node, "training_mode");
    for (int i = node->output_count - 1; i >= 1; i--) {
        Value *value = node->outputs[i];
        node_set_output(node, i, NULL);
        if (value != NULL && value->use_count == 0)
            graph_remove_value(node->graph, value);
    }
    node->output_count = 1;
}

/* From opset 14 on an attribute says so; before, the statistics among the outputs. */
static bool is_live(const Node *node)
{
    return node->output_count > 1 || node_int(node, "training_mode", 0) != 0;
}

void document_to_inference(Model *document)
{
    for (Node *node = document->graph->first; node != NULL; node = node->next) {
        if (node_is(node, "BatchNormalization") && is_live(node))
            settle_batchnorm(node);
        if (node_is(node, "Dropout") && node->input_count > 2 && is_unread(node_output(node, 1)))
            node_set_input(node, 2, NULL);
    }
}
