/* How long it takes to have a model in memory: bench_import MODEL -> "milliseconds kilobytes bytes", where the
 * kilobytes are the process's peak and the bytes those of all initializers. Every one of them is read once, so that a
 * mapped file gains nothing by leaving its weights on the disk: the other side's loader copies them. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "runtime/runtime.h"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The sum of the bytes: an answer that cannot be had without reading them. */
static unsigned long read_weights(const Graph *graph, size_t *bytes)
{
    unsigned long sum = 0;
    for (size_t i = 0; i < graph->initializer_count; i++) {
        const Tensor *tensor = graph->initializers[i]->constant;
        const unsigned char *at = tensor->data;
        for (size_t k = 0; k < tensor->bytes; k++)
            sum += at[k];
        *bytes += tensor->bytes;
    }
    return sum;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: bench_import MODEL\n");
        return 2;
    }
    Error err = {0};
    Model *model = NULL;
    double begin = now_ms();
    Status status = model_import(argv[1], &builtin_ops, &model, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_import: %s\n", err.message);
        return (int)status;
    }
    size_t bytes = 0;
    unsigned long sum = read_weights(model->graph, &bytes);
    double took = now_ms() - begin;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.3f %ld %zu %lu\n", took, usage.ru_maxrss, bytes, sum);
    model_free(model);
    return 0;
}
