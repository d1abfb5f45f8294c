/* Batches, made ahead of their use by threads of their own, in a ring of a few.
 *
 * Work is handed out sample by sample in the order of the pass; a batch is given to the caller when its last sample is
 * done. What a sample becomes depends on (seed, epoch, sample) alone, so the order in which threads finish does not
 * matter. Threads wait while the ring is full: memory is bounded, and compute is not disturbed once decoding is ahead.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/dataset.h"

enum { SLOTS_MAX = 64, MEMORY_DEFAULT = 32 << 20, BUCKET_BATCHES = 50 };

typedef struct BatchSlot {
    size_t size, done;
    size_t *ids;
    bool *broken;
    char (*messages)[200]; /* of broken samples */
    void *inputs[FIELDS_MAX], *targets[FIELDS_MAX];
} BatchSlot;

typedef struct Workspace { /* of one thread */
    Picture decoded, scratch, framed;
} Workspace;

struct Loader {
    const Dataset *set;
    PictureSpec picture;
    AugmentSpec augment;
    bool augments;
    LoaderOptions options;
    size_t input_bytes[FIELDS_MAX], target_bytes[FIELDS_MAX]; /* of one sample */
    int input_count, target_count;

    BatchSlot slots[SLOTS_MAX];
    size_t slot_count, slot_room; /* slot_room: samples they have memory for */
    size_t *order;                /* of this pass */
    bool *reported;               /* broken samples already told */
    size_t broken_count;

    /* this pass */
    uint64_t epoch;
    bool train, holds;            /* holds: the caller has the batch before `taken` */
    size_t count, batch, batches; /* count: samples of this process */

    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    pthread_t threads[256];
    int thread_count;
    bool stop;
    size_t next;     /* position in the order that is handed out next */
    size_t released; /* batches that the caller has given back */
    size_t taken;    /* batches given to the caller */
    size_t busy;     /* samples being made */
};

/* ---- one sample -------------------------------------------------------------------------------------------------- */

/* Smallest side that scaled decoding must leave, for the filter to have something to average. */
static int least_side(const Loader *loader)
{
    int wanted = loader->picture.width > loader->picture.height ? loader->picture.width : loader->picture.height;
    return loader->picture.scaled_decode ? wanted * 3 / 2 : 0;
}

static Status make_picture(const Loader *loader, int input, size_t sample, Workspace *w, void *out, Error *err)
{
    Rng random = rng_at(loader->options.seed, rng_mix(rng_mix(0xa46, loader->epoch), sample));
    const AugmentSpec *augment = loader->train && loader->augments ? &loader->augment : NULL;
    TRY(dataset_picture(loader->set, input, sample, least_side(loader), &w->decoded, err));
    TRY(picture_frame(&w->decoded, &loader->picture, augment, &random, &w->scratch, &w->framed, err));
    picture_normalise(&w->framed, &loader->picture, out);
    return STATUS_OK;
}

static Status make_sample(const Loader *loader, size_t sample, BatchSlot *slot, size_t place, Workspace *w, Error *err)
{
    for (int i = 0; i < loader->input_count; i++) {
        char *out = (char *)slot->inputs[i] + place * loader->input_bytes[i];
        if (dataset_input(loader->set, i)->kind == FIELD_PICTURE)
            TRY(make_picture(loader, i, sample, w, out, err));
        else
            dataset_row(loader->set, false, i, sample, out);
    }
    for (int i = 0; i < loader->target_count; i++)
        dataset_row(loader->set, true, i, sample, (char *)slot->targets[i] + place * loader->target_bytes[i]);
    return STATUS_OK;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static bool has_work(const Loader *loader)
{
    return loader->next < loader->count && loader->next / loader->batch < loader->released + loader->slot_count;
}

static void make_next(Loader *loader, Workspace *w) /* with the lock held */
{
    size_t position = loader->next++, place = position % loader->batch, sample = loader->order[position];
    BatchSlot *slot = &loader->slots[position / loader->batch % loader->slot_count];
    Error err = {0};
    loader->busy++;
    pthread_mutex_unlock(&loader->lock);
    Status status = make_sample(loader, sample, slot, place, w, &err);
    pthread_mutex_lock(&loader->lock);
    loader->busy--;
    slot->ids[place] = sample;
    slot->broken[place] = status != STATUS_OK;
    if (status != STATUS_OK)
        snprintf(slot->messages[place], sizeof slot->messages[place], "%.199s", err.message);
    if (++slot->done == slot->size || loader->busy == 0)
        pthread_cond_broadcast(&loader->ready);
}

static void *work(void *context)
{
    Loader *loader = context;
    Workspace w = {0};
    pthread_mutex_lock(&loader->lock);
    while (!loader->stop) {
        if (has_work(loader))
            make_next(loader, &w);
        else
            pthread_cond_wait(&loader->work, &loader->lock);
    }
    pthread_mutex_unlock(&loader->lock);
    picture_release(&w.decoded);
    picture_release(&w.scratch);
    picture_release(&w.framed);
    return NULL;
}

static Status start_threads(Loader *loader, Error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = loader->options.threads > 0 ? loader->options.threads : processors > 0 ? (int)processors : 1;
    if (wanted > 256)
        wanted = 256;
    for (int i = 0; i < wanted; i++) {
        if (pthread_create(&loader->threads[i], NULL, work, loader) != 0)
            break;
        loader->thread_count++;
    }
    return loader->thread_count > 0 ? STATUS_OK
                                    : fail(err, STATUS_ENVIRONMENT, "no thread could be started to read data");
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static Status sample_bytes(const Field *field, const PictureSpec *picture, size_t *bytes, Error *err)
{
    bool fits;
    if (field->kind == FIELD_PICTURE) {
        if (picture == NULL || picture->width <= 0 || picture->height <= 0)
            return fail(err, STATUS_USAGE, "pictures need a size");
        fits = size_mul((size_t)picture->width, (size_t)picture->height, bytes) &&
               size_mul(*bytes, (size_t)picture->channels * picture_number_size(picture), bytes);
    } else {
        int64_t count = dims_count(field->type.rank, field->type.dims);
        fits = count >= 0 && size_mul((size_t)count, dtype_size(field->type.dtype), bytes);
    }
    return fits ? STATUS_OK : fail(err, STATUS_REJECTED, "one sample of '%s' is too large", field->name);
}

static Status set_up(Loader *loader, Error *err)
{
    const Dataset *set = loader->set;
    loader->input_count = dataset_input_count(set);
    loader->target_count = dataset_target_count(set);
    for (int i = 0; i < loader->input_count; i++)
        TRY(sample_bytes(dataset_input(set, i), loader->options.picture, &loader->input_bytes[i], err));
    for (int i = 0; i < loader->target_count; i++)
        TRY(sample_bytes(dataset_target(set, i), loader->options.picture, &loader->target_bytes[i], err));
    if (loader->options.picture != NULL)
        loader->picture = *loader->options.picture;
    loader->augments = loader->options.augment != NULL;
    if (loader->augments)
        loader->augment = *loader->options.augment;
    loader->batch = 1;
    loader->next = loader->count = set->count; /* nothing to do yet */
    loader->order = malloc((set->count + 1) * sizeof *loader->order);
    loader->reported = calloc(set->count + 1, sizeof *loader->reported);
    if (loader->order == NULL || loader->reported == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for the order of %zu samples", set->count);
    return start_threads(loader, err);
}

Status loader_new(const Dataset *set, const LoaderOptions *options, Loader **result, Error *err)
{
    Loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a loader");
    loader->set = set;
    loader->options = *options;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->ready, NULL);
    Status status = set_up(loader, err);
    if (status != STATUS_OK) {
        loader_free(loader);
        loader = NULL;
    }
    *result = loader;
    return status;
}

static void release_slots(Loader *loader)
{
    for (size_t s = 0; s < loader->slot_count; s++) {
        BatchSlot *slot = &loader->slots[s];
        for (int i = 0; i < FIELDS_MAX; i++) {
            block_free(slot->inputs[i]);
            block_free(slot->targets[i]);
        }
        free(slot->ids);
        free(slot->broken);
        free(slot->messages);
        memset(slot, 0, sizeof *slot);
    }
    loader->slot_count = loader->slot_room = 0;
}

void loader_free(Loader *loader)
{
    if (loader == NULL)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->thread_count; i++)
        pthread_join(loader->threads[i], NULL);
    pthread_cond_destroy(&loader->ready);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->lock);
    release_slots(loader);
    free(loader->order);
    free(loader->reported);
    free(loader);
}

static Status fill_slot(const Loader *loader, BatchSlot *slot, size_t batch, Error *err)
{
    for (int i = 0; i < loader->input_count; i++)
        TRY(block_alloc(&slot->inputs[i], loader->input_bytes[i] * batch, "a batch of data", err));
    for (int i = 0; i < loader->target_count; i++)
        TRY(block_alloc(&slot->targets[i], loader->target_bytes[i] * batch, "a batch of data", err));
    slot->ids = calloc(batch + 1, sizeof *slot->ids);
    slot->broken = calloc(batch + 1, sizeof *slot->broken);
    slot->messages = calloc(batch + 1, sizeof *slot->messages);
    if (slot->ids == NULL || slot->broken == NULL || slot->messages == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a batch of %zu samples", batch);
    return STATUS_OK;
}

static Status make_slots(Loader *loader, size_t batch, Error *err)
{
    if (loader->slot_room == batch)
        return STATUS_OK;
    release_slots(loader);
    size_t bytes = 0, limit = loader->options.memory > 0 ? loader->options.memory : MEMORY_DEFAULT;
    for (int i = 0; i < loader->input_count; i++)
        bytes += loader->input_bytes[i] * batch;
    for (int i = 0; i < loader->target_count; i++)
        bytes += loader->target_bytes[i] * batch;
    size_t wanted = bytes == 0 ? 2 : limit / bytes, needed = (loader->set->count + batch - 1) / batch + 1;
    wanted = wanted > SLOTS_MAX ? SLOTS_MAX : wanted > needed ? needed : wanted;
    size_t least = loader->options.memory > 0 ? 2 : 3; /* one with the caller, one ready, one being made */
    wanted = wanted < least ? least : wanted;
    for (size_t s = 0; s < wanted; s++) {
        loader->slot_count = s + 1;
        TRY(fill_slot(loader, &loader->slots[s], batch, err));
    }
    loader->slot_room = batch;
    return STATUS_OK;
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static size_t batch_size(const Loader *loader, size_t index)
{
    size_t left = loader->count - index * loader->batch;
    return left < loader->batch ? left : loader->batch;
}

static void quiet(Loader *loader) /* with the lock held: nobody works afterwards */
{
    loader->next = loader->count;
    while (loader->busy > 0)
        pthread_cond_wait(&loader->ready, &loader->lock);
}

typedef struct Sorted {
    uint32_t length;
    size_t place, id;
} Sorted;

static int by_length(const void *a, const void *b)
{
    const Sorted *x = a, *y = b;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Alike lengths together: a shuffled order is sorted by length in pools of BUCKET_BATCHES batches, and the full batches
 * of the whole pass are shuffled again; one that is not full stays last. Without memory for it the order stays
 * shuffled. */
static void bucket(const Lengths *lengths, size_t *order, size_t count, size_t batch, Rng *rng)
{
    size_t full = count / batch, pool = batch * BUCKET_BATCHES;
    Sorted *sorted = malloc((count + 1) * sizeof *sorted);
    size_t *places = malloc((full + 1) * sizeof *places);
    for (size_t i = 0; i < count && sorted != NULL; i++)
        sorted[i] = (Sorted){lengths->of[order[i]], i, order[i]};
    for (size_t i = 0; i < count && sorted != NULL; i += pool)
        qsort(sorted + i, count - i < pool ? count - i : pool, sizeof *sorted, by_length);
    for (size_t b = 0; b < full && places != NULL; b++)
        places[b] = b;
    if (sorted != NULL && places != NULL) {
        rng_shuffle(rng, places, full);
        for (size_t i = 0; i < count; i++)
            order[i] = sorted[i < full * batch ? places[i / batch] * batch + i % batch : i].id;
    }
    free(sorted);
    free(places);
}

Rng loader_shuffle(uint64_t seed, uint64_t epoch, size_t *order, size_t count)
{
    Rng rng = rng_at(seed, rng_mix(0x0d3e, epoch));
    rng_shuffle(&rng, order, count);
    return rng;
}

size_t loader_own_part(size_t *order, size_t count, size_t batch, size_t rank, size_t ranks)
{
    size_t kept = 0;
    for (size_t at = 0; ranks > 1 && at < count; at += batch) {
        size_t size = count - at < batch ? count - at : batch;
        size_t begin = size * rank / ranks, end = size * (rank + 1) / ranks;
        memmove(order + kept, order + at + begin, (end - begin) * sizeof *order);
        kept += end - begin;
    }
    return ranks > 1 ? kept : count;
}

static Status check_parts(const Loader *loader, size_t batch, Error *err)
{
    size_t ranks = loader->options.ranks > 1 ? (size_t)loader->options.ranks : 1;
    if (batch == 0)
        return fail(err, STATUS_USAGE, "a batch needs at least one sample");
    if (batch % ranks != 0)
        return fail(err, STATUS_USAGE, "a batch of %zu samples cannot be divided among %zu processes", batch, ranks);
    if (loader->set->count < ranks)
        return fail(err, STATUS_REJECTED, "%zu samples are fewer than %zu processes", loader->set->count, ranks);
    return STATUS_OK;
}

Status loader_start(Loader *loader, uint64_t epoch, bool train, size_t batch, size_t skip, Error *err)
{
    size_t count = loader->set->count;
    pthread_mutex_lock(&loader->lock);
    quiet(loader);
    Status status = check_parts(loader, batch, err);
    if (status == STATUS_OK)
        status = make_slots(loader, loader->options.ranks > 1 ? batch / (size_t)loader->options.ranks : batch, err);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < count; i++)
            loader->order[i] = i;
        if (train && !loader->options.keep_order) {
            Rng rng = loader_shuffle(loader->options.seed, epoch, loader->order, count);
            if (loader->options.lengths != NULL)
                bucket(loader->options.lengths, loader->order, count, batch, &rng);
        }
        loader->count = count =
            loader_own_part(loader->order, count, batch, (size_t)loader->options.rank, (size_t)loader->options.ranks);
        batch = loader->options.ranks > 1 ? batch / (size_t)loader->options.ranks : batch;
        loader->epoch = epoch;
        loader->train = train;
        loader->batch = batch;
        loader->batches = (count + batch - 1) / batch;
        loader->released = loader->taken = skip < loader->batches ? skip : loader->batches;
        loader->holds = false;
        for (size_t i = 0; i < loader->slot_count; i++) {
            size_t index = loader->taken + i;
            BatchSlot *slot = &loader->slots[index % loader->slot_count];
            slot->done = 0;
            slot->size = index < loader->batches ? batch_size(loader, index) : 0;
        }
        loader->next = loader->taken * batch < count ? loader->taken * batch : count;
        pthread_cond_broadcast(&loader->work);
    }
    pthread_mutex_unlock(&loader->lock);
    return status;
}

/* ---- sequences cut to the longest of the batch ------------------------------------------------------------------- */

static size_t batch_length(const Lengths *lengths, const size_t *ids, size_t size)
{
    size_t longest = 1;
    for (size_t i = 0; i < size; i++)
        longest = lengths->of[ids[i]] > longest ? lengths->of[ids[i]] : longest;
    longest = (longest + lengths->step - 1) / lengths->step * lengths->step;
    return longest < lengths->longest ? longest : lengths->longest;
}

static void cut_rows(void *rows, size_t size, size_t bytes, size_t kept)
{
    for (size_t i = 1; i < size; i++)
        memmove((char *)rows + i * kept, (char *)rows + i * bytes, kept);
}

static size_t cut_batch(const Loader *loader, BatchSlot *slot)
{
    const Lengths *lengths = loader->options.lengths;
    if (lengths == NULL)
        return 0;
    size_t length = batch_length(lengths, slot->ids, slot->size);
    for (int k = 0; k < loader->input_count; k++)
        if (lengths->cut_input[k])
            cut_rows(slot->inputs[k], slot->size, loader->input_bytes[k],
                     loader->input_bytes[k] / lengths->longest * length);
    for (int k = 0; k < loader->target_count; k++)
        if (lengths->cut_target[k])
            cut_rows(slot->targets[k], slot->size, loader->target_bytes[k],
                     loader->target_bytes[k] / lengths->longest * length);
    return length;
}

/* Moves rows of readable samples together. Reports each broken one once. */
static Status drop_broken(Loader *loader, BatchSlot *slot, Error *err)
{
    size_t left = 0;
    for (size_t i = 0; i < slot->size; i++) {
        if (slot->broken[i]) {
            if (!loader->options.skip_broken)
                return fail(err, STATUS_REJECTED, "%s", slot->messages[i]);
            if (!loader->reported[slot->ids[i]]) {
                loader->reported[slot->ids[i]] = true;
                loader->broken_count++;
                if (loader->options.on_broken != NULL)
                    loader->options.on_broken(slot->messages[i], loader->options.context);
            }
            continue;
        }
        for (int k = 0; k < loader->input_count && left < i; k++)
            memcpy((char *)slot->inputs[k] + left * loader->input_bytes[k],
                   (char *)slot->inputs[k] + i * loader->input_bytes[k], loader->input_bytes[k]);
        for (int k = 0; k < loader->target_count && left < i; k++)
            memcpy((char *)slot->targets[k] + left * loader->target_bytes[k],
                   (char *)slot->targets[k] + i * loader->target_bytes[k], loader->target_bytes[k]);
        slot->ids[left++] = slot->ids[i];
    }
    slot->size = left;
    return STATUS_OK;
}

static void give_back(Loader *loader) /* with the lock held */
{
    BatchSlot *slot = &loader->slots[loader->released % loader->slot_count];
    size_t index = loader->released + loader->slot_count;
    slot->done = 0;
    slot->size = index < loader->batches ? batch_size(loader, index) : 0;
    loader->released++;
    loader->holds = false;
    pthread_cond_broadcast(&loader->work);
}

Status loader_next(Loader *loader, LoadedBatch *batch, Error *err)
{
    memset(batch, 0, sizeof *batch);
    for (;;) {
        pthread_mutex_lock(&loader->lock);
        if (loader->holds)
            give_back(loader);
        if (loader->taken == loader->batches) {
            pthread_mutex_unlock(&loader->lock);
            return STATUS_OK;
        }
        BatchSlot *slot = &loader->slots[loader->taken % loader->slot_count];
        while (slot->done < slot->size)
            pthread_cond_wait(&loader->ready, &loader->lock);
        loader->taken++;
        loader->holds = true;
        pthread_mutex_unlock(&loader->lock);
        TRY(drop_broken(loader, slot, err));
        if (slot->size == 0) /* every file of this batch was broken */
            continue;
        *batch = (LoadedBatch){slot->size, cut_batch(loader, slot), slot->ids, slot->inputs, slot->targets};
        return STATUS_OK;
    }
}

size_t loader_broken(const Loader *loader)
{
    return loader->broken_count;
}
