/* Fine-tuning a part of the model: what is frozen runs once, before the first epoch, and every epoch starts from what
 * it gave. Not where something would differ from epoch to epoch (pictures that are augmented anew, sequences cut to
 * their batch), nor where there is no room; --views keeps several augmented views of each picture instead. */
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/tune.h"

enum { CACHE_AUTO, CACHE_BF16, CACHE_OFF }; /* as choices of --cache */

typedef struct Room { /* what the features take, and where */
    size_t train, val;
    bool in_file;
} Room;

static bool may_be_kept(const Tune *tune, const TrainOptions *options)
{
    bool frozen = false;
    for (size_t i = 0; i < tune->params.count; i++)
        frozen |= !tune->params.items[i].trainable;
    bool settled = tune->fields->memory == 0 || tune->comm == NULL; /* the limit is checked for one process alone */
    size_t least = (size_t)comm_size(tune->comm);                   /* every process computes some */
    bool enough =
        dataset_count(tune->data.train) >= least && (tune->data.val == NULL || dataset_count(tune->data.val) >= least);
    return frozen && settled && enough && tune->fields->cache != CACHE_OFF && options->epochs > 1 &&
           tune->task_count == 0 && tune_lengths_of(tune, tune->data.train) == NULL;
}

/* By the first batch. An error here is one that training itself will say. */
static bool is_worth(Tune *tune, const TrainOptions *options, size_t *bytes)
{
    DatasetSource source;
    Batch batch;
    bool worth = false;
    Error ignored = {0};
    if (tune_source(tune, tune->data.train, false, &source, &ignored) != STATUS_OK)
        return false;
    if (source.source.start(&source.source, 0, false, tune->batch, &ignored) == STATUS_OK &&
        source.source.next(&source.source, &batch, &ignored) == STATUS_OK && batch.size > 0 &&
        features_worth(tune->document, &tune->params, options, &batch, &worth, bytes, &ignored) != STATUS_OK)
        worth = false;
    dataset_source_release(&source);
    return worth;
}

/* Each process has asked a batch of its own. */
static Status all_say(const Tune *tune, bool yes, bool *all, Error *err)
{
    double against = !yes;
    TRY(comm_sum(tune->comm, &against, 1, err));
    *all = against < 0.5;
    return STATUS_OK;
}

static size_t views_of(const Tune *tune)
{
    return tune_augments(tune) ? (size_t)tune->fields->views : 0;
}

/* At most half of what the folder has left, by all processes of this machine. Every one must find room, or none keeps
 * anything. */
static Status find_room(const Tune *tune, size_t bytes, Room *room, bool *fits, Error *err)
{
    size_t views = views_of(tune), half = tune->fields->cache == CACHE_BF16 ? 2 : 1;
    room->train = dataset_count(tune->data.train) * (views > 0 ? views : 1) * bytes / half;
    room->val = tune->data.val != NULL ? dataset_count(tune->data.val) * bytes / half : 0;
    size_t limit = tune->fields->memory > 0 ? 0 : tune_cache_limit(tune);
    room->in_file = room->train > limit || room->val > limit;
    struct statvfs disk;
    bool missing = false;
    double all = (double)comm_local_size(tune->comm) * (double)(room->train + room->val);
    if (room->in_file)
        missing = access(features_folder(), W_OK | X_OK) != 0 || statvfs(features_folder(), &disk) != 0 ||
                  (double)disk.f_bavail * (double)disk.f_frsize < 2 * all;
    return all_say(tune, !missing, fits, err);
}

static Status run_part(Tune *tune, const Dataset *set, const PlanOptions *how, size_t views, bool says,
                       FeatureCache *cache, Error *err)
{
    DatasetSource source;
    FeatureLimits limits = tune_feature_limits(tune, says);
    limits.rows = tune->fields->memory > 0 ? 1 : limits.rows; /* what training takes besides is not known yet */
    limits.views = views;
    limits.apart = true;
    limits.bf16 = tune->fields->cache == CACHE_BF16;
    TRY(tune_source(tune, set, views > 0, &source, err));
    source.interrupted = tune_interrupted;
    Status status = features_cache(tune->document, &tune->params, &source.source, how, tune_feature_batch(tune),
                                   &limits, cache, err);
    dataset_source_release(&source);
    return status;
}

static Status run_parts(Tune *tune, KeptFeatures *kept, Error *err)
{
    const PlanOptions how = {
        .precision = tune->precision, .plain_only = tune->fields->plain_kernels, .winograd = tune_winograd(tune)};
    const PlanOptions plain = {.plain_only = tune->fields->plain_kernels}; /* as the trainer measures */
    TRY(run_part(tune, tune->data.train, &how, views_of(tune), true, &kept->caches[0], err));
    return tune->data.val == NULL ? STATUS_OK : run_part(tune, tune->data.val, &plain, 0, false, &kept->caches[1], err);
}

static Status open_sources(Tune *tune, KeptFeatures *kept, Error *err)
{
    const LoaderOptions options = {.seed = (uint64_t)tune->fields->seed,
                                   .keep_order = tune_keeps_order(tune),
                                   .rank = comm_rank(tune->comm),
                                   .ranks = comm_size(tune->comm)};
    for (int i = 0; i < (tune->data.val != NULL ? 2 : 1); i++) {
        TRY(features_source(&kept->caches[i], &options, &kept->sources[i], err));
        kept->sources[i].source.comm = tune->comm;
        kept->parts[i] = &kept->sources[i].source;
    }
    return STATUS_OK;
}

static void say_kept(Tune *tune, const Room *room, double seconds)
{
    size_t views = views_of(tune);
    char of_views[48] = "";
    if (views > 0)
        snprintf(of_views, sizeof of_views, ", in %zu view%s of each", views, views > 1 ? "s" : "");
    progress_note(
        &tune->progress, "features",
        "the frozen part ran once over the samples%s, in %s: %s of features%s, kept in %s; epochs start there",
        of_views, human_seconds(seconds).text, human_bytes(room->train + room->val).text,
        tune->fields->cache == CACHE_BF16 ? " in bf16" : "", room->in_file ? "a temporary file" : "memory");
}

Status kept_open(Tune *tune, TrainOptions *options, KeptFeatures *kept, Error *err)
{
    size_t bytes = 0;
    bool fits;
    Room room;
    double begin = seconds_now();
    bool worth = may_be_kept(tune, options);
    if (worth)
        TRY(all_say(tune, is_worth(tune, options, &bytes), &worth, err));
    if (!worth) {
        if (tune->fields->views > 0)
            progress_note(&tune->progress, "note",
                          "--views: no part of the model can be run beforehand here; pictures are augmented anew in "
                          "every epoch");
        return STATUS_OK;
    }
    if (!tune_augments(tune) && tune->fields->views > 1)
        progress_note(&tune->progress, "note",
                      "--views: nothing is augmented here, so all views would be the same; one is kept");
    if (tune_augments(tune) && tune->fields->views == 0) {
        progress_note(&tune->progress, "note",
                      "the frozen part runs in every epoch, as pictures are augmented anew; --views 4 runs it "
                      "beforehand on four views of each, --augment none on one");
        return STATUS_OK;
    }
    TRY(find_room(tune, bytes, &room, &fits, err));
    if (!fits) {
        progress_note(
            &tune->progress, "note",
            "the frozen part runs in every epoch: its features, %s, have no room in %s, of whose free bytes they would "
            "take half at most; TMPDIR names another folder, --cache bf16 halves them",
            human_bytes(room.train + room.val).text, features_folder());
        return STATUS_OK;
    }
    Error why = {0};
    Status status = run_parts(tune, kept, &why);
    if (status == STATUS_UNSUPPORTED || status == STATUS_ENVIRONMENT) { /* in all processes alike */
        kept_release(kept);
        progress_note(&tune->progress, "note", "the frozen part runs in every epoch: %s", why.message);
        return STATUS_OK;
    }
    if (status != STATUS_OK)
        return fail(err, status, "%s", why.message);
    TRY(open_sources(tune, kept, err));
    options->cached = tune->data.val != NULL ? features_bytes(&kept->caches[1]) : 0;
    say_kept(tune, &room, seconds_now() - begin);
    kept->cache = &kept->caches[0];
    return STATUS_OK;
}

void kept_release(KeptFeatures *kept)
{
    for (int i = 0; i < 2; i++) {
        array_source_release(&kept->sources[i]);
        features_release(&kept->caches[i]);
    }
    *kept = (KeptFeatures){.cache = NULL};
}
