/* Checkpoints: everything a run needs to go on as if it had not stopped, in plain order, so that they do not depend on
 * the machine that wrote them. One file: magic, version, sizes, position, fingerprint, then floats: parameters,
 * optimizer states, running statistics, the best so far. Written atomically. */
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

static const char magic[8] = "RGCKPT1";

typedef struct Header {
    char magic[8];
    uint32_t version, states;
    uint64_t parameters, statistics, best; /* floats each */
    Position position;
    char fingerprint[128];
} Header;

static size_t statistics_floats(const ParamStore *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->state_count; i++)
        total += (size_t)tensor_count(store->state_origins[i]);
    return total;
}

static uint32_t state_blocks(const ParamStore *store)
{
    uint32_t count = 0;
    while (count < 3 && store->state[count] != NULL)
        count++;
    return count;
}

static Status write_blocks(AtomicFile *file, const ParamStore *store, const Header *header, const float *best,
                           Error *err)
{
    float *plain;
    TRY(block_alloc((void **)&plain, header->parameters * sizeof(float), "a checkpoint", err));
    Status status = STATUS_OK;
    for (uint32_t b = 0; b <= header->states && status == STATUS_OK; b++) {
        status = params_get_block(store, b == 0 ? store->data : store->state[b - 1], plain, err);
        if (status == STATUS_OK)
            status = atomic_write(file, plain, header->parameters * sizeof(float), err);
    }
    for (size_t i = 0; i < store->state_count && status == STATUS_OK; i++)
        status = atomic_write(file, store->state_data[i], (size_t)tensor_count(store->state_origins[i]) * sizeof(float),
                              err);
    if (status == STATUS_OK && header->best > 0)
        status = atomic_write(file, best, header->best * sizeof(float), err);
    block_free(plain);
    return status;
}

Status checkpoint_write(const char *path, const ParamStore *store, const float *best, const Position *position,
                        const char *fingerprint, Error *err)
{
    Header header;
    memset(&header, 0, sizeof header);
    memcpy(header.magic, magic, sizeof magic);
    header.version = 1;
    header.states = state_blocks(store);
    header.parameters = params_plain_total(store);
    header.statistics = statistics_floats(store);
    header.best = best == NULL ? 0 : header.parameters + header.statistics;
    header.position = *position;
    snprintf(header.fingerprint, sizeof header.fingerprint, "%s", fingerprint);
    AtomicFile file;
    TRY(atomic_open(&file, path, err));
    Status status = atomic_write(&file, &header, sizeof header, err);
    if (status == STATUS_OK)
        status = write_blocks(&file, store, &header, best, err);
    if (status == STATUS_OK)
        status = atomic_commit(&file, err);
    atomic_release(&file);
    return status;
}

/* ---- reading
 * --------------------------------------------------------------------------------------------------------- */

static Status check_header(const char *path, const Mapping *mapping, const ParamStore *store, const char *fingerprint,
                           Header *header, Error *err)
{
    if (mapping->size < sizeof *header || memcmp(mapping->data, magic, sizeof magic) != 0)
        return fail(err, STATUS_REJECTED, "%s: is not a checkpoint of this program", path);
    memcpy(header, mapping->data, sizeof *header);
    header->fingerprint[sizeof header->fingerprint - 1] = '\0';
    if (header->version != 1)
        return fail(err, STATUS_REJECTED, "%s: checkpoint version %u, this build reads 1", path, header->version);
    if (strcmp(header->fingerprint, fingerprint) != 0)
        return fail(err, STATUS_REJECTED, "%s: is of another run: it has %s; this run has %s", path,
                    header->fingerprint, fingerprint);
    size_t floats = header->parameters * (1 + (size_t)header->states) + header->statistics + header->best;
    if (header->parameters != params_plain_total(store) || header->states > 3 ||
        mapping->size != sizeof *header + floats * sizeof(float))
        return fail(err, STATUS_REJECTED, "%s: is damaged: %zu bytes where %zu were expected", path, mapping->size,
                    sizeof *header + floats * sizeof(float));
    return STATUS_OK;
}

static const float *read_statistics(ParamStore *store, const float *at)
{
    for (size_t i = 0; i < store->state_count; i++) {
        size_t n = (size_t)tensor_count(store->state_origins[i]);
        memcpy(store->state_data[i], at, n * sizeof *at);
        at += n;
    }
    return at;
}

static Status read_blocks(ParamStore *store, const Header *header, const float *at, float **best, Error *err)
{
    TRY(params_set_block(store, store->data, at, err));
    at += header->parameters;
    for (uint32_t b = 0; b < header->states; b++) {
        if (store->state[b] == NULL)
            TRY(block_alloc((void **)&store->state[b], store->total * sizeof(float), "optimizer state", err));
        TRY(params_set_block(store, store->state[b], at, err));
        at += header->parameters;
    }
    if (header->statistics != statistics_floats(store))
        return fail(err, STATUS_REJECTED, "the checkpoint has %llu running statistics, the model %zu",
                    (unsigned long long)header->statistics, statistics_floats(store));
    at = read_statistics(store, at);
    if (header->best == 0)
        return STATUS_OK;
    *best = malloc(header->best * sizeof **best);
    if (*best == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for the best parameters");
    memcpy(*best, at, header->best * sizeof **best);
    return STATUS_OK;
}

Status checkpoint_read(const char *path, ParamStore *store, float **best, Position *position, const char *fingerprint,
                       Error *err)
{
    Mapping mapping;
    Header header;
    *best = NULL;
    TRY(mapping_open(&mapping, path, err));
    Status status = check_header(path, &mapping, store, fingerprint, &header, err);
    if (status == STATUS_OK)
        status = read_blocks(store, &header, (const float *)(const void *)(mapping.data + sizeof header), best, err);
    if (status == STATUS_OK)
        *position = header.position;
    mapping_release(&mapping);
    return status;
}
