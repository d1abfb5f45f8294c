/* Parity with PyTorch: what parity.c (cases, comparing, the command line), parity_tool.c (driving the tool)
 * and parity_direct.c (training in this process) share. A case is a folder: model.onnx, case.json, train.npz,
 * probe.npz, expect.npz. */
#ifndef REGRAFT_TESTS_PARITY_H
#define REGRAFT_TESTS_PARITY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "data/data.h"

enum { PARITY_STEPS_MAX = 64, PARITY_OUTPUTS_MAX = 8 };

typedef struct ParityCase {
    const char *folder;
    json_t *json;
    Npz train, probe, expect;
    int64_t steps, batch;
} ParityCase;

/* What a run of a case gave: the loss before each update, and the outputs on the probe afterwards. */
typedef struct ParityResult {
    double loss[PARITY_STEPS_MAX];
    size_t output_count;
    const Array *outputs[PARITY_OUTPUTS_MAX]; /* in `arena` */
    Arena arena;
} ParityResult;

typedef enum ParityEngine { PARITY_PLAN, PARITY_PLAIN_PLAN, PARITY_INTERP, PARITY_NARROW_PLAN } ParityEngine;

const char *parity_string(const json_t *object, const char *key); /* "" when absent */
bool parity_listed(const json_t *names, const char *name);        /* in an array of strings; NULL: empty */
/* In the module that all of `names` are in ("head" of head.0.weight and head.3.bias), if they are in one. */
bool parity_in_module(const json_t *names, const char *name);

/* Does what the run says with the library itself. */
Status parity_direct(const ParityCase *c, const json_t *run, ParityEngine engine, ParityResult *result, Error *err);
/* The same through the command line of `tool`; files go to the folder `scratch`. */
Status parity_tool(const ParityCase *c, const json_t *run, const char *tool, const char *scratch, ParityResult *result,
                   Error *err);
/* Compares params_find with the case's lists; prints each difference. */
Status parity_parameters(const ParityCase *c, int *differences, Error *err);

#endif
