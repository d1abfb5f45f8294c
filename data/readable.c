/* Unreadable pictures taken out of a data set before anything is counted, split or trained: every picture is decoded
 * once, JPEGs at an eighth. A run that leaves them out is then, to the bit, the run without those files. */
#include <string.h>

#include "data/dataset.h"

/* Decoding tells whether a picture is readable; what it becomes does not matter. */
static PictureSpec cheapest_spec(void)
{
    PictureSpec spec = picture_spec_default();
    spec.width = spec.height = 8;
    spec.channels = 1;
    spec.filter = RESIZE_NEAREST;
    spec.frame = FRAME_SQUASH;
    spec.scaled_decode = true;
    return spec;
}

/* Positions in `set` that can be read, in order. */
static Status find_readable(const Dataset *set, const DataOptions *options, size_t *positions, size_t *count,
                            Error *err)
{
    enum { BATCH = 32 };
    PictureSpec spec = cheapest_spec();
    LoaderOptions with = {.picture = &spec,
                          .keep_order = true,
                          .skip_broken = true,
                          .on_broken = options->on_broken,
                          .context = options->context};
    Loader *loader;
    LoadedBatch batch;
    TRY(loader_new(set, &with, &loader, err));
    Status status = loader_start(loader, 0, false, BATCH, 0, err);
    for (*count = 0; status == STATUS_OK; *count += batch.size) {
        status = loader_next(loader, &batch, err);
        if (status != STATUS_OK || batch.size == 0)
            break;
        memcpy(positions + *count, batch.ids, batch.size * sizeof *positions);
    }
    loader_free(loader);
    return status;
}

static bool has_classes(const Dataset *set)
{
    return set->store->target_count > 0 && set->target_fields[0].is_class;
}

/* A class that had pictures must keep one: else it would be trained as a class that nobody can be. */
static Status check_emptied(const Dataset *set, const size_t *before, size_t *now, Error *err)
{
    dataset_class_counts(set, 0, now);
    for (size_t c = 0; c < dataset_class_count(set, 0); c++)
        if (before[c] > 0 && now[c] == 0)
            return fail(err, STATUS_REJECTED, "%s: none of the %zu pictures of class '%s' can be read",
                        set->store->place, before[c], dataset_class_name(set, 0, c));
    return STATUS_OK;
}

static Status drop(Dataset *set, const DataOptions *options, size_t *positions, size_t *counts, Error *err)
{
    size_t kept, classes = dataset_class_count(set, 0);
    if (has_classes(set))
        dataset_class_counts(set, 0, counts);
    TRY(find_readable(set, options, positions, &kept, err));
    for (size_t i = 0; i < kept; i++)
        set->ids[i] = set->ids[positions[i]]; /* positions rise */
    set->count = kept;
    if (kept == 0)
        return fail(err, STATUS_REJECTED, "%s: none of its pictures can be read", set->store->place);
    return has_classes(set) ? check_emptied(set, counts, counts + classes, err) : STATUS_OK;
}

Status dataset_drop_broken(Dataset *set, const DataOptions *options, Error *err)
{
    if (!set->store->is_files)
        return STATUS_OK;
    size_t *positions = malloc((set->count + 1) * sizeof *positions);
    size_t *counts = calloc(2 * dataset_class_count(set, 0) + 1, sizeof *counts);
    Status status = positions == NULL || counts == NULL
                        ? fail(err, STATUS_ENVIRONMENT, "no memory to look through %zu pictures", set->count)
                        : drop(set, options, positions, counts, err);
    free(positions);
    free(counts);
    return status;
}
