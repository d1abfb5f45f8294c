/* A few samples with the outputs that training itself computed for them, kept until the file is read back: so that an
 * error in writing parameters back, in a layout or a type, cannot hide. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"

static Status keep_inputs(Witness *witness, const Batch *batch, Error *err)
{
    for (int i = 0; i < batch->input_count && i < WITNESS_INPUTS; i++) {
        const Type *type = &batch->input_types[i];
        Array *array = &witness->inputs[i];
        *array = (Array){.dtype = type->dtype, .rank = type->rank, .count = type_count(type)};
        memcpy(array->dims, type->dims, sizeof array->dims);
        size_t bytes = (size_t)array->count * dtype_size(array->dtype);
        array->data = malloc(bytes + 1);
        if (array->data == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory for %zu bytes to verify with", bytes);
        memcpy(array->data, batch->inputs[i], bytes);
        witness->input_count = (size_t)i + 1;
    }
    return STATUS_OK;
}

/* Rounding of the narrowest type that what was trained is written in, with room for it to add up over the layers. The
 * graph that trains is fused otherwise than the one that runs, hence not zero for float32. */
static double tolerance(const ParamList *params)
{
    double most = 1e-3;
    for (size_t i = 0; i < params->count; i++) {
        DType dtype = params->items[i].origin->dtype;
        double of = dtype == DTYPE_F16 ? 0.05 : dtype == DTYPE_BF16 ? 0.25 : 1e-3;
        most = fmax(most, of);
    }
    return most;
}

enum { WITNESS_SAMPLES = 4 };

/* In one batch, as the file will get them: some models' outputs depend on what shares a batch. */
size_t witness_samples(const Tune *tune)
{
    if (tune->only_batch > 0)
        return tune->only_batch;
    return tune->batch > 0 && tune->batch < WITNESS_SAMPLES ? tune->batch : WITNESS_SAMPLES;
}

/* All of the few samples in this process, whoever else trains with it. */
static Status whole_source(Tune *tune, const Dataset *few, DatasetSource *source, Error *err)
{
    Comm *comm = tune->comm;
    tune->comm = NULL;
    Status status = tune_source(tune, few, false, source, err);
    tune->comm = comm;
    return status;
}

static Status first_batch(Tune *tune, const Dataset *few, Error *err)
{
    DatasetSource source;
    Batch batch;
    Status status = whole_source(tune, few, &source, err);
    if (status == STATUS_OK)
        status = source.source.start(&source.source, 0, false, dataset_count(few), err);
    if (status == STATUS_OK)
        status = source.source.next(&source.source, &batch, err);
    if (status == STATUS_OK)
        status = keep_inputs(&tune->witness, &batch, err);
    dataset_source_release(&source);
    return status;
}

static Status trainer_rows(Tune *tune, Trainer *trainer, const Dataset *few, Error *err)
{
    DatasetSource source;
    Witness *witness = &tune->witness;
    size_t width = 0;
    Error why = {STATUS_OK, ""};
    Status status = whole_source(tune, few, &source, err);
    if (status == STATUS_OK)
        status = trainer_evaluate(trainer, &source.source, 0, &witness->rows, &width, NULL, &why);
    dataset_source_release(&source);
    witness->count = status == STATUS_OK ? width * dataset_count(few) : 0;
    if (status != STATUS_OK && why.status == STATUS_UNSUPPORTED) /* an output that has no float row a sample */
        return STATUS_OK;
    return status == STATUS_OK ? STATUS_OK : fail(err, status, "%s", why.message);
}

static Status take(Tune *tune, Trainer *trainer, size_t samples, Error *err)
{
    Dataset *few = NULL;
    witness_release(&tune->witness);
    tune->witness.tolerance = tolerance(&tune->params);
    TRY(dataset_first(tune->data.train, samples, &few, err));
    Status status = first_batch(tune, few, err);
    if (status == STATUS_OK)
        status = trainer_rows(tune, trainer, few, err);
    dataset_free(few);
    return status;
}

Status witness_take(Tune *tune, Trainer *trainer, Error *err)
{
    size_t few = witness_samples(tune), all = dataset_count(tune->data.train);
    witness_release(&tune->witness);
    if (tune->losses[0].output != 0) /* the first output is no scores */
        return STATUS_OK;
    Error why = {STATUS_OK, ""};
    if (take(tune, trainer, few, &why) == STATUS_OK)
        return STATUS_OK;
    if (few < tune->batch && tune->batch <= all) /* what was trained may run with that batch alone */
        return take(tune, trainer, tune->batch, err);
    return fail(err, why.status, "%s", why.message);
}

Status witness_take_probe(Tune *tune, const Probe *probe, const float *features, size_t count, Error *err)
{
    Dataset *few = NULL;
    Witness *witness = &tune->witness;
    witness_release(witness);
    witness->tolerance = tolerance(&tune->params);
    size_t most = witness_samples(tune);
    TRY(dataset_first(tune->data.train, count < most ? count : most, &few, err));
    size_t samples = dataset_count(few);
    Status status = first_batch(tune, few, err);
    witness->rows = malloc((samples * probe->classes + 1) * sizeof *witness->rows);
    if (status == STATUS_OK && witness->rows == NULL)
        status = fail(err, STATUS_ENVIRONMENT, "no memory to verify with");
    if (status == STATUS_OK) {
        probe_predict(probe, features, samples, witness->rows);
        witness->count = samples * probe->classes;
    }
    dataset_free(few);
    return status;
}

void witness_release(Witness *witness)
{
    for (size_t i = 0; i < witness->input_count; i++)
        free(witness->inputs[i].data);
    free(witness->rows);
    memset(witness, 0, sizeof *witness);
}
