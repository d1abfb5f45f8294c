/* Parameters in blocks: one for values, one for gradients, one for each optimizer state, all with the same offsets; so
 * an optimizer is one loop over one block. A parameter lies in its home layout (what its forward kernel wants, padding
 * zero and staying zero, since every update is elementwise with f(0, 0) = 0); checkpoints and exports are plain. */
#include "runtime/plan.h"

#include <stdlib.h>
#include <string.h>

enum { OFFSET_ALIGNMENT = 16 }; /* floats: 64 bytes */

/* ---- reading ------------------------------------------------------------------------------------------------ */

static Status read_origin(ParamStore *store, const ParamInfo *info, float *plain, Error *err)
{
    Arena scratch;
    arena_init(&scratch);
    Array *array = NULL, *floats = NULL;
    Status status = array_from_tensor(&scratch, info->origin, &array, err);
    if (status == STATUS_OK)
        status = array_convert(&scratch, array, DTYPE_F32, &floats, err);
    if (status == STATUS_OK)
        memcpy(plain, floats->data, (size_t)floats->count * sizeof(float));
    arena_release(&scratch);
    (void)store;
    return status;
}

static void lay_out(ParamStore *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->count; i++) {
        Param *item = &store->items[i];
        item->offset = total;
        total += (item->count + OFFSET_ALIGNMENT - 1) / OFFSET_ALIGNMENT * OFFSET_ALIGNMENT;
    }
    store->total = total;
}

static Status fill_item(Param *item, const ParamInfo *info, Error *err)
{
    int64_t count = tensor_count(info->origin);
    item->info = info;
    item->rank = info->origin->rank;
    if (item->rank > RANK_MAX || count < 0)
        return fail(err, STATUS_REJECTED, "%s: a parameter of rank %d cannot be trained", info->name, item->rank);
    memcpy(item->dims, info->origin->dims, (size_t)item->rank * sizeof item->dims[0]);
    item->count = info->tied_to >= 0 || !info->trainable ? 0 : (size_t)count; /* a frozen one stays in the document */
    item->trainable = info->trainable;
    item->lr_scale = item->decay_scale = 1;
    return STATUS_OK;
}

Status params_new(const ParamList *list, ParamStore **out, Error *err)
{
    *out = NULL;
    ParamStore *store = calloc(1, sizeof *store);
    if (store == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for parameters");
    arena_init(&store->arena);
    store->count = list->count;
    store->items = arena_array(&store->arena, Param, list->count);
    Status status = STATUS_OK;
    for (size_t i = 0; i < list->count && status == STATUS_OK; i++)
        status = fill_item(&store->items[i], &list->items[i], err);
    if (status == STATUS_OK) {
        lay_out(store);
        status = block_alloc((void **)&store->data, store->total * sizeof(float), "parameters", err);
    }
    for (size_t i = 0; i < list->count && status == STATUS_OK; i++)
        if (store->items[i].count > 0)
            status = read_origin(store, &list->items[i], store->data + store->items[i].offset, err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&store->gradient, store->total * sizeof(float), "gradients", err);
    if (status != STATUS_OK) {
        params_free(store);
        return status;
    }
    *out = store;
    return STATUS_OK;
}

void params_free(ParamStore *store)
{
    if (store == NULL)
        return;
    for (size_t i = 0; i < store->count; i++)
        if (store->items[i].home != NULL)
            dnnl_memory_desc_destroy((dnnl_md)store->items[i].home);
    block_free(store->data);
    block_free(store->gradient);
    for (int i = 0; i < 3; i++)
        block_free(store->state[i]);
    for (size_t i = 0; i < store->state_count; i++)
        block_free(store->state_data[i]);
    arena_release(&store->arena);
    free(store);
}

/* ---- layouts ------------------------------------------------------------------------------------------------ */

/* Between plain and home; the plain side is described with the home's dims (see match_ranks in kernel.c). */
static Status reorder(const_dnnl_md home, float *home_data, float *plain, bool to_home, Error *err)
{
    DnnlEngine dnnl = {0};
    TRY(dnnl_engine_open(&dnnl, DTYPE_F32, err));
    int rank = 0;
    const dnnl_dims_t *dims = NULL;
    dnnl_memory_desc_query(home, dnnl_query_ndims_s32, &rank);
    dnnl_memory_desc_query(home, dnnl_query_dims, &dims);
    dnnl_md md = NULL;
    Arena arena;
    arena_init(&arena);
    Slot from = {.data = to_home ? plain : home_data}, to = {.data = to_home ? home_data : plain};
    DnnlArg args[] = {{DNNL_ARG_FROM, &from}, {DNNL_ARG_TO, &to}};
    DnnlCall *call = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    void *scratch = NULL;
    Status status = dnnl_md_plain(&md, DTYPE_F32, rank, *dims, err);
    if (status == STATUS_OK)
        status = dnnl_fail(err,
                           dnnl_reorder_primitive_desc_create(&descriptor, to_home ? md : home, dnnl.engine,
                                                              to_home ? home : md, dnnl.engine, dnnl.user_scratchpad),
                           "reorder of a parameter");
    if (status == STATUS_OK)
        status = dnnl_call_new(&dnnl, &arena, descriptor, args, 2, &call, err);
    if (status == STATUS_OK)
        status = block_alloc(&scratch, call->scratchpad, "scratch of a reorder", err);
    if (status == STATUS_OK) {
        dnnl_call_bind(call, scratch);
        status = dnnl_call_run(&dnnl, call, err);
    }
    dnnl_call_free(call);
    block_free(scratch);
    if (md != NULL)
        dnnl_memory_desc_destroy(md);
    arena_release(&arena);
    dnnl_engine_close(&dnnl);
    return status;
}

static size_t plain_count(const Param *item)
{
    return (size_t)dims_count(item->rank, item->dims);
}

static Status block_get(const Param *item, const float *block, float *plain, Error *err)
{
    float *data = (float *)(uintptr_t)(block + item->offset);
    if (item->home != NULL)
        return reorder(item->home, data, plain, false, err);
    memcpy(plain, data, item->count * sizeof(float));
    return STATUS_OK;
}

static Status block_set(const Param *item, float *block, const float *plain, Error *err)
{
    if (item->home != NULL)
        return reorder(item->home, block + item->offset, (float *)(uintptr_t)plain, true, err);
    memcpy(block + item->offset, plain, item->count * sizeof(float));
    return STATUS_OK;
}

/* Numbers its elements in plain order, lays them out, and hashes what then lies in the gradient's block. */
static Status layout_hash_of(const Param *item, float *gradient, uint64_t *hash, Error *err)
{
    float *plain;
    size_t count = plain_count(item);
    TRY(block_alloc((void **)&plain, count * sizeof *plain, "the layout of a parameter", err));
    for (size_t i = 0; i < count; i++)
        plain[i] = (float)(i % 8388593 + 1);
    Status status = block_set(item, gradient, plain, err);
    block_free(plain);
    for (size_t i = 0; i < item->count && status == STATUS_OK; i++) {
        uint32_t bits;
        memcpy(&bits, gradient + item->offset + i, sizeof bits);
        *hash = (*hash ^ bits) * UINT64_C(1099511628211);
    }
    return status;
}

Status params_layout_hash(ParamStore *store, uint64_t *hash, Error *err)
{
    *hash = UINT64_C(14695981039346656037) ^ store->total;
    Status status = STATUS_OK;
    for (size_t i = 0; i < store->count && status == STATUS_OK; i++) {
        *hash = (*hash ^ store->items[i].offset) * UINT64_C(1099511628211);
        if (store->items[i].count > 0)
            status = layout_hash_of(&store->items[i], store->gradient, hash, err);
    }
    memset(store->gradient, 0, store->total * sizeof(float));
    return status;
}

bool params_sealed(const ParamStore *store)
{
    return store->sealed;
}

/* Moves one block from plain offsets to the final ones. */
static Status reseat(const ParamStore *store, const size_t *old_offsets, float **block, const char *what, Error *err)
{
    float *grown = NULL;
    if (*block == NULL)
        return STATUS_OK;
    TRY(block_alloc((void **)&grown, store->total * sizeof(float), what, err));
    Status status = STATUS_OK;
    for (size_t i = 0; i < store->count && status == STATUS_OK; i++)
        if (store->items[i].count > 0)
            status = block_set(&store->items[i], grown, *block + old_offsets[i], err);
    block_free(*block);
    *block = grown;
    return status;
}

Status params_seal(ParamStore *store, Error *err)
{
    if (store->sealed)
        return STATUS_OK;
    size_t *old = calloc(store->count + 1, sizeof *old);
    if (old == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for parameters");
    for (size_t i = 0; i < store->count; i++) {
        Param *item = &store->items[i];
        old[i] = item->offset;
        if (item->home != NULL)
            item->count = dnnl_md_bytes(item->home) / sizeof(float);
    }
    lay_out(store);
    Status status = reseat(store, old, &store->data, "parameters", err);
    if (status == STATUS_OK)
        status = reseat(store, old, &store->gradient, "gradients", err);
    for (int i = 0; i < 3 && status == STATUS_OK; i++)
        status = reseat(store, old, &store->state[i], "optimizer state", err);
    free(old);
    store->sealed = true;
    return status;
}

/* ---- one parameter, plain ------------------------------------------------------------------------------------ */

Status params_get(const ParamStore *store, size_t index, float *plain, Error *err)
{
    return block_get(&store->items[index], store->data, plain, err);
}

Status params_set(ParamStore *store, size_t index, const float *plain, Error *err)
{
    store->items[index].version++;
    store->version++;
    return block_set(&store->items[index], store->data, plain, err);
}

Status params_get_block(const ParamStore *store, const float *block, float *plain, Error *err)
{
    for (size_t i = 0; i < store->count; i++) {
        const Param *item = &store->items[i];
        if (item->count == 0)
            continue;
        TRY(block_get(item, block, plain, err));
        plain += plain_count(item);
    }
    return STATUS_OK;
}

Status params_set_block(ParamStore *store, float *block, const float *plain, Error *err)
{
    for (size_t i = 0; i < store->count; i++) {
        Param *item = &store->items[i];
        if (item->count == 0)
            continue;
        TRY(block_set(item, block, plain, err));
        plain += plain_count(item);
        item->version++;
    }
    store->version++;
    return STATUS_OK;
}

size_t params_plain_total(const ParamStore *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->count; i++)
        if (store->items[i].count > 0)
            total += plain_count(&store->items[i]);
    return total;
}

/* ---- running statistics --------------------------------------------------------------------------------------- */

int params_state(ParamStore *store, Tensor *origin, Error *err)
{
    for (size_t i = 0; i < store->state_count; i++)
        if (store->state_origins[i] == origin)
            return (int)i;
    Arena scratch;
    arena_init(&scratch);
    Array *array = NULL, *floats = NULL;
    float *data = NULL;
    Status status = array_from_tensor(&scratch, origin, &array, err);
    if (status == STATUS_OK)
        status = array_convert(&scratch, array, DTYPE_F32, &floats, err);
    if (status == STATUS_OK)
        status = block_alloc((void **)&data, (size_t)floats->count * sizeof(float), "running statistics", err);
    if (status == STATUS_OK)
        memcpy(data, floats->data, (size_t)floats->count * sizeof(float));
    arena_release(&scratch);
    if (status != STATUS_OK)
        return -1;
    size_t capacity = store->state_capacity;
    store->state_origins =
        arena_grow(&store->arena, store->state_origins, store->state_count, &capacity, sizeof(Tensor *));
    capacity = store->state_capacity;
    store->state_data = arena_grow(&store->arena, store->state_data, store->state_count, &capacity, sizeof(float *));
    store->state_capacity = capacity;
    store->state_origins[store->state_count] = origin;
    store->state_data[store->state_count] = data;
    return (int)store->state_count++;
}
