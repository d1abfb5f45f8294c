/* The Regraft side of bench/run's loader case: decodes, resizes and normalises a folder of pictures into batches.
 *
 *     bench_data FOLDER BATCH THREADS -> "milliseconds samples mean" of one pass, opening included
 *
 * The mean is that of all numbers in all batches: the other side must come to nearly the same one. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "data/data.h"

enum { SIZE = 224, NUMBERS = 3 * SIZE * SIZE };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double sum_of(const float *numbers, size_t count)
{
    double sums[8] = {0}; /* apart, or adding up would take longer than making the batch */
    for (size_t i = 0; i < count; i++)
        sums[i % 8] += (double)numbers[i];
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

static Status one_pass(const char *folder, size_t batch_size, int threads, size_t *samples, double *sum, Error *err)
{
    DataOptions data = {.path = folder, .whole = true};
    DataParts parts = {0};
    TRY(data_open(&data, &parts, err));
    PictureSpec picture = picture_spec_default();
    picture.width = picture.height = SIZE;
    picture.channels = 3;
    picture_spec_use(&picture, picture_preset("imagenet"));
    LoaderOptions options = {.picture = &picture, .threads = threads};
    Loader *loader = NULL;
    Status status = loader_new(parts.train, &options, &loader, err);
    if (status == STATUS_OK)
        status = loader_start(loader, 1, false, batch_size, 0, err);
    LoadedBatch batch = {.size = 1};
    while (status == STATUS_OK && batch.size > 0) {
        status = loader_next(loader, &batch, err);
        if (status != STATUS_OK || batch.size == 0)
            break;
        *samples += batch.size;
        *sum += sum_of(batch.inputs[0], batch.size * NUMBERS);
    }
    loader_free(loader);
    data_close(&parts);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_data FOLDER BATCH THREADS\n");
        return 2;
    }
    Error err = {0};
    size_t samples = 0;
    double sum = 0, begin = now_ms();
    Status status =
        one_pass(argv[1], (size_t)strtoul(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10), &samples, &sum, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_data: %s\n", err.message);
        return (int)status;
    }
    printf("%.3f %zu %.6f\n", now_ms() - begin, samples, sum / ((double)samples * (double)NUMBERS));
    return 0;
}
