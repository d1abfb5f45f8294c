/* Memory of `tune`: what the process has before training, what --memory leaves for each phase, and the check before the
 * first. */
#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/tune.h"

enum {
    CACHE_LIMIT = 1 << 30, /* of features in memory without --memory; more go to a file */
    SMALL_BATCH = 8,
    LIBRARY_BYTES = 48 << 20, /* oneDNN and what it writes: code of kernels, tables; it comes with the first plans */
    LATER_BYTES = 4 << 20     /* of that, what may still come when plans have been made */
};

static size_t resident_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%lu %lu", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t tune_cache_limit(const Tune *tune)
{
    size_t quarter = (size_t)tune->fields->memory / 4;
    return quarter > 0 && quarter < CACHE_LIMIT ? quarter : CACHE_LIMIT;
}

size_t tune_feature_batch(const Tune *tune)
{
    return tune->fields->memory > 0 && tune->batch > SMALL_BATCH ? SMALL_BATCH : tune->batch;
}

static size_t resident_at_rest(const Tune *tune)
{
    model_rest(tune->document); /* parameters are copied, and what is read again comes from the file */
    malloc_trim(0);             /* what earlier phases have freed */
    return resident_bytes();
}

void tune_memory_begin(Tune *tune)
{
    tune->resident = resident_at_rest(tune);
}

size_t tune_memory_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss << 10 : 0;
}

void tune_memory_options(const Tune *tune, TrainOptions *options)
{
    size_t now = resident_at_rest(tune) + LATER_BYTES, first = tune->resident + LIBRARY_BYTES;
    options->memory = (size_t)tune->fields->memory;
    options->process = now > first ? now : first;
    options->on_bill = progress_bill;
}
