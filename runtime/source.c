/* Arrays in memory as a source of batches: gathered by index, shuffled by (seed, epoch). */
#include <stdlib.h>
#include <string.h>

#include "runtime/ops/bf16.h"
#include "runtime/train.h"

static size_t row_bytes(const Type *type)
{
    size_t bytes = dtype_size(type->dtype);
    for (int i = 1; i < type->rank; i++)
        bytes *= (size_t)type->dims[i];
    return bytes;
}

static Status array_source_start(Source *base, uint64_t epoch, bool train, size_t batch, Error *err)
{
    ArraySource *source = base->context;
    size_t ranks = source->ranks > 1 ? (size_t)source->ranks : 1;
    if (batch % ranks != 0)
        return fail(err, STATUS_USAGE, "a batch of %zu samples cannot be divided among %zu processes", batch, ranks);
    for (int i = 0; i < source->input_count + source->target_count; i++) {
        const Type *type =
            i < source->input_count ? &source->input_types[i] : &source->target_types[i - source->input_count];
        block_free(source->rows[i]);
        source->rows[i] = NULL;
        TRY(block_alloc(&source->rows[i], row_bytes(type) * (batch / ranks + 1), "a batch", err));
    }
    for (size_t i = 0; i < base->count; i++)
        source->order[i] = i;
    if (train && !source->keep_order)
        loader_shuffle(source->seed, epoch, source->order, base->count);
    source->count = loader_own_part(source->order, base->count, batch, (size_t)source->rank, ranks);
    source->view = train && source->views > 0 ? epoch % source->views : 0;
    source->at = 0;
    source->batch = batch / ranks;
    return STATUS_OK;
}

/* `size` bytes a row; narrow: they lie as bf16. */
static void gather(const ArraySource *source, void *to, const void *from, size_t size, bool narrow, size_t n)
{
    const size_t *ids = source->order + source->at;
    size_t first = source->view * source->source.count, numbers = size / sizeof(float);
    for (size_t i = 0; i < n; i++) {
        size_t row = first + ids[i];
        if (narrow)
            bf16_widen((const uint16_t *)from + row * numbers, (float *)to + i * numbers, (int64_t)numbers);
        else
            memcpy((char *)to + i * size, (const char *)from + row * size, size);
    }
}

static Status array_source_next(Source *base, Batch *batch, Error *err)
{
    (void)err;
    ArraySource *source = base->context;
    memset(batch, 0, sizeof *batch);
    size_t left = source->count - source->at;
    batch->size = left < source->batch ? left : source->batch;
    batch->ids = source->order + source->at;
    batch->input_count = source->input_count;
    batch->target_count = source->target_count;
    for (int i = 0; i < source->input_count; i++) {
        batch->input_types[i] = source->input_types[i];
        batch->input_types[i].dims[0] = (int64_t)batch->size;
        gather(source, source->rows[i], source->inputs[i], row_bytes(&source->input_types[i]), source->narrow[i],
               batch->size);
        batch->inputs[i] = source->rows[i];
    }
    for (int i = 0; i < source->target_count; i++) {
        void *rows = source->rows[source->input_count + i];
        batch->target_types[i] = source->target_types[i];
        batch->target_types[i].dims[0] = (int64_t)batch->size;
        gather(source, rows, source->targets[i], row_bytes(&source->target_types[i]), false, batch->size);
        batch->targets[i] = rows;
    }
    if (source->cache != NULL)
        features_rest(source->cache);
    source->at += batch->size;
    return STATUS_OK;
}

Status array_source_init(ArraySource *source, size_t count, Error *err)
{
    memset(source, 0, sizeof *source);
    source->source =
        (Source){.count = count, .context = source, .start = array_source_start, .next = array_source_next};
    source->order = calloc(count + 1, sizeof *source->order);
    return source->order == NULL ? fail(err, STATUS_ENVIRONMENT, "no memory for %zu samples", count) : STATUS_OK;
}

void array_source_release(ArraySource *source)
{
    for (int i = 0; i < 2 * SOURCE_MAX; i++)
        block_free(source->rows[i]);
    free(source->order);
    memset(source, 0, sizeof *source);
}
