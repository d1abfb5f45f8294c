/* Memory of `tune`: what the process has before training, what --memory leaves for each phase, and the check before the
 * first. */
#include <malloc.h>

#include "cli/tune.h"

enum {
    CACHE_LIMIT = 1 << 30, /* of features in memory without --memory, by all processes; more go to a file */
    SMALL_BATCH = 8,
    LATER_BYTES = 4 << 20 /* of PROCESS_LIBRARY_BYTES, what may still come when plans have been made */
};

size_t tune_cache_limit(const Tune *tune)
{
    size_t quarter = (size_t)tune->fields->memory / 4, share = (size_t)(CACHE_LIMIT / comm_local_size(tune->comm));
    return quarter > 0 && quarter < share ? quarter : share;
}

size_t tune_feature_batch(const Tune *tune)
{
    size_t ranks = (size_t)comm_size(tune->comm), small = (SMALL_BATCH + ranks - 1) / ranks * ranks;
    return tune->fields->memory > 0 && tune->batch > small ? small : tune->batch; /* each process has as many */
}

static size_t resident_at_rest(const Tune *tune)
{
    model_rest(tune->document); /* parameters are copied, and what is read again comes from the file */
    malloc_trim(0);             /* what earlier phases have freed */
    return process_resident();
}

void tune_memory_begin(Tune *tune)
{
    tune->resident = resident_at_rest(tune);
}

static size_t process_bytes(const Tune *tune)
{
    size_t now = resident_at_rest(tune) + LATER_BYTES, first = tune->resident + PROCESS_LIBRARY_BYTES;
    return now > first ? now : first;
}

void tune_memory_options(const Tune *tune, TrainOptions *options)
{
    options->memory = (size_t)tune->fields->memory;
    options->process = process_bytes(tune);
    options->on_bill = progress_bill;
}

FeatureLimits tune_feature_limits(Tune *tune, bool says)
{
    return (FeatureLimits){.memory = (size_t)tune->fields->memory,
                           .process = process_bytes(tune),
                           .rows = tune_cache_limit(tune),
                           .on_bill = says ? progress_bill : NULL,
                           .context = &tune->progress};
}
