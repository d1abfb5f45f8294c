/* Checkpoints: everything a run needs to go on as if it had not stopped, in plain order, so that they do not depend on
 * the machine that wrote them. One file: magic, version, sizes, position, settings, then floats: parameters,
 * optimizer states, running statistics, the best so far. Written atomically. */
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

static const char magic[8] = "RGCKPT1";
enum { VERSION = 2 };

typedef struct Header {
    char magic[8];
    uint32_t version, states;
    uint64_t parameters, statistics, best; /* floats each */
    Position position;
    RunSettings settings;
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
                        const RunSettings *settings, Error *err)
{
    Header header;
    memset(&header, 0, sizeof header);
    memcpy(header.magic, magic, sizeof magic);
    header.version = VERSION;
    header.states = state_blocks(store);
    header.parameters = params_plain_total(store);
    header.statistics = statistics_floats(store);
    header.best = best == NULL ? 0 : header.parameters + header.statistics;
    header.position = *position;
    header.settings = *settings;
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

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct Difference {
    int before, now; /* lengths */
    const char *written, *wanted;
} Difference;

/* Both are lists `key: value, key: value` of the same keys. The next place at which they differ, from *written on. */
static bool next_difference(const char **written, const char **wanted, Difference *found)
{
    while (**written != '\0' && **wanted != '\0') {
        *found = (Difference){(int)strcspn(*written, ","), (int)strcspn(*wanted, ","), *written, *wanted};
        *written += found->before + (int)strspn(*written + found->before, ", ");
        *wanted += found->now + (int)strspn(*wanted + found->now, ", ");
        if (found->before != found->now || strncmp(found->written, found->wanted, (size_t)found->now) != 0)
            return true;
    }
    return false;
}

static Status compare_settings(const char *path, const RunSettings *written, const RunSettings *wanted, Str *changed,
                               Error *err)
{
    Difference d;
    const char *a = written->fixed, *b = wanted->fixed;
    if (next_difference(&a, &b, &d))
        return fail(err, STATUS_REJECTED, "%s: is of another run: it has %.*s; this run has %.*s", path, d.before,
                    d.written, d.now, d.wanted);
    a = written->choices, b = wanted->choices;
    while (changed != NULL && next_difference(&a, &b, &d))
        str_printf(changed, "%s%.*s (before: %.*s)", changed->length > 0 ? ", " : "", d.now, d.wanted,
                   d.before - (int)strcspn(d.written, ":") - 2, d.written + strcspn(d.written, ":") + 2);
    return STATUS_OK;
}

static Status check_header(const char *path, const Mapping *mapping, const ParamStore *store,
                           const RunSettings *settings, Header *header, Str *changed, Error *err)
{
    if (mapping->size < sizeof *header || memcmp(mapping->data, magic, sizeof magic) != 0)
        return fail(err, STATUS_REJECTED, "%s: is not a checkpoint of this program", path);
    memcpy(header, mapping->data, sizeof *header);
    header->settings.fixed[sizeof header->settings.fixed - 1] = '\0';
    header->settings.choices[sizeof header->settings.choices - 1] = '\0';
    if (header->version != VERSION)
        return fail(err, STATUS_REJECTED, "%s: checkpoint version %u, this build reads %d", path, header->version,
                    VERSION);
    TRY(compare_settings(path, &header->settings, settings, changed, err));
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

Status checkpoint_read(const char *path, ParamStore *store, float **best, Position *position,
                       const RunSettings *settings, Str *changed, Error *err)
{
    Mapping mapping;
    Header header;
    *best = NULL;
    TRY(mapping_open(&mapping, path, err));
    Status status = check_header(path, &mapping, store, settings, &header, changed, err);
    if (status == STATUS_OK)
        status = read_blocks(store, &header, (const float *)(const void *)(mapping.data + sizeof header), best, err);
    if (status == STATUS_OK)
        *position = header.position;
    mapping_release(&mapping);
    return status;
}
