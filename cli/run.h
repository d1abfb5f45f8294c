/* regraft run, in two files: cmd_run.c (options, results, suites) and run_gradient.c (gradients of inputs). */
#ifndef REGRAFT_CLI_RUN_H
#define REGRAFT_CLI_RUN_H

#include "cli/args.h"
#include "data/data.h"
#include "runtime/runtime.h"

typedef struct RunFields {
    const char *input, *output, *suite, *of, *loss, *trace;
    TextList gradients;
    int engine;
    int64_t seed, threads, ignore_index, klass; /* klass -1: the largest score of each sample */
    bool json, profile;
} RunFields;

/* What of --gradient can be told before anything runs. */
Status run_check_gradient(const RunFields *fields, const Graph *graph, Error *err);
/* `gradients` [fields->gradients.count]: of the inputs named there. `inputs` and `outputs` are those of the run.
 * Nothing happens without
 * --gradient. */
Status run_gradient(const RunFields *fields, Model *model, const Npz *npz, const Array *const *inputs,
                    Array *const *outputs, Array **gradients, Arena *arena, Error *err);

#endif
