/* Arrays in memory as a source of batches: gathered by index, shuffled by (seed, epoch). */
#include <stdlib.h>
#include <string.h>

#include "onnx/base/rng.h"
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
    for (int i = 0; i < source->input_count + source->target_count; i++) {
        const Type *type =
            i < source->input_count ? &source->input_types[i] : &source->target_types[i - source->input_count];
        block_free(source->rows[i]);
        source->rows[i] = NULL;
        TRY(block_alloc(&source->rows[i], row_bytes(type) * batch, "a batch", err));
    }
    for (size_t i = 0; i < base->count; i++)
        source->order[i] = i;
    if (train && !source->keep_order) {
        Rng rng = rng_at(source->seed, rng_mix(0x0d3e, epoch));
        rng_shuffle(&rng, source->order, base->count);
    }
    source->at = 0;
    source->batch = batch;
    return STATUS_OK;
}

static void gather(void *to, const void *from, size_t bytes, const size_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy((char *)to + i * bytes, (const char *)from + ids[i] * bytes, bytes);
}

static Status array_source_next(Source *base, Batch *batch, Error *err)
{
    (void)err;
    ArraySource *source = base->context;
    memset(batch, 0, sizeof *batch);
    size_t left = base->count - source->at;
    batch->size = left < source->batch ? left : source->batch;
    batch->ids = source->order + source->at;
    batch->input_count = source->input_count;
    batch->target_count = source->target_count;
    for (int i = 0; i < source->input_count; i++) {
        batch->input_types[i] = source->input_types[i];
        batch->input_types[i].dims[0] = (int64_t)batch->size;
        gather(source->rows[i], source->inputs[i], row_bytes(&source->input_types[i]), batch->ids, batch->size);
        batch->inputs[i] = source->rows[i];
    }
    for (int i = 0; i < source->target_count; i++) {
        void *rows = source->rows[source->input_count + i];
        batch->target_types[i] = source->target_types[i];
        batch->target_types[i].dims[0] = (int64_t)batch->size;
        gather(rows, source->targets[i], row_bytes(&source->target_types[i]), batch->ids, batch->size);
        batch->targets[i] = rows;
    }
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
