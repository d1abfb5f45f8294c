/* Weights in side files: which file, which bytes, and nothing else.
 *
 * A model is data from somebody else, and `location` is a path in it. Eight advisories are about exactly this (hazards:
 * `..`, absolute paths, links in any component, hard links, devices, offsets past the end), so: the text is checked,
 * the kernel is asked to resolve it beneath the model's folder without following links (openat2), and what was opened
 * is looked at, not what was named. Each file is mapped once, however many tensors lie in it. */
#include "onnx/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIDE_FILES_MAX = 1 << 15 }; /* a process may map 65530 times */

/* O_NONBLOCK: opening a FIFO does not wait for a writer. */
enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

/* ---- opening ----------------------------------------------------------------------------------------------- */

/* Component by component, none of them a link. `location` has no `..`. */
static int open_stepwise(int folder, const char *location)
{
    int here = dup(folder);
    while (here >= 0) {
        while (*location == '/')
            location++;
        size_t length = strcspn(location, "/");
        bool last = location[length] == '\0';
        char *name = strndup(location, length);
        int next =
            name == NULL ? -1 : openat(here, name, (last ? OPEN_FLAGS : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW);
        int cause = !last && errno == ENOTDIR ? ELOOP : errno;
        free(name);
        close(here);
        if (last || next < 0) {
            errno = cause;
            return next;
        }
        here = next;
        location += length;
    }
    return -1;
}

int external_open(int folder, const char *location, bool stepwise)
{
    if (!stepwise) {
        struct open_how how = {.flags = OPEN_FLAGS,
                               .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
        long fd = syscall(SYS_openat2, folder, location, &how, sizeof how);
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
            return (int)fd;
    }
    return open_stepwise(folder, location);
}

static bool has_component(const char *path, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = path; p != NULL; p = strchr(p, '/'), p += p != NULL)
        if (strncmp(p, name, length) == 0 && (p[length] == '/' || p[length] == '\0'))
            return true;
    return false;
}

/* Why a location cannot be one, or NULL. */
static const char *location_fault(const char *location)
{
    if (location == NULL || location[0] == '\0')
        return "names no file";
    if (location[0] == '/')
        return "is an absolute path";
    if (has_component(location, ".."))
        return "has '..' in it";
    if (strchr(location, '\\') != NULL)
        return "has a backslash in it";
    if (location[strlen(location) - 1] == '/')
        return "ends in a slash";
    return NULL;
}

static const char *open_fault(int cause)
{
    switch (cause) {
    case ELOOP:
        return "is a symbolic link or lies behind one (copy the file into the model's folder)";
    case EXDEV:
        return "leads out of the model's folder";
    case ENOENT:
        return "does not exist";
    case ENXIO:
        return "is not a regular file";
    default:
        return strerror(cause);
    }
}

static Status check_regular(int fd, const char *who, const char *location, Error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return fail(err, STATUS_REJECTED, "%s: external data '%s': %s", who, location, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return fail(err, STATUS_REJECTED, "%s: external data '%s' is not a regular file", who, location);
    if (info.st_nlink > 1)
        return fail(err, STATUS_REJECTED,
                    "%s: external data '%s' is a hard link to a file that has other names (copy it instead)", who,
                    location);
    return STATUS_OK;
}

static const char *folder_of(Arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return ".";
    return slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

static Status side_open(Gate *gate, const char *location, const char *who, Mapping *mapping, const char **path)
{
    const char *folder_name = folder_of(gate->arena, gate->model->path);
    *path = arena_printf(gate->arena, "%s/%s", folder_name, location);
    int folder = open(folder_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return fail(gate->err, STATUS_REJECTED, "%s: folder '%s': %s", who, folder_name, strerror(errno));
    int fd = external_open(folder, location, false);
    int cause = errno;
    close(folder);
    if (fd < 0)
        return fail(gate->err, STATUS_REJECTED, "%s: external data '%s' %s", who, location, open_fault(cause));
    Status status = check_regular(fd, who, location, gate->err);
    if (status == STATUS_OK)
        status = mapping_open_fd(mapping, fd, *path, gate->err);
    close(fd);
    return status;
}

/* The mapping of a side file, opened when it is seen first. */
static Status side_find(Gate *gate, const char *location, const char *who, const Mapping **side)
{
    Model *model = gate->model;
    uintptr_t index = (uintptr_t)map_get(&gate->sides, location);
    if (index > 0) {
        *side = &model->side_files[index - 1];
        return STATUS_OK;
    }
    if (model->side_count >= SIDE_FILES_MAX)
        return fail(gate->err, STATUS_REJECTED, "%s: more than %d files of external data", who, SIDE_FILES_MAX);
    Mapping mapping;
    const char *path;
    TRY(side_open(gate, location, who, &mapping, &path));
    size_t capacity = model->side_capacity;
    model->side_paths = arena_grow(gate->arena, (void *)(uintptr_t)model->side_paths, model->side_count, &capacity,
                                   sizeof(const char *));
    model->side_files =
        arena_grow(gate->arena, model->side_files, model->side_count, &model->side_capacity, sizeof(Mapping));
    model->side_paths[model->side_count] = path;
    model->side_files[model->side_count++] = mapping;
    map_set(&gate->sides, arena_strdup(gate->arena, location), (void *)(uintptr_t)model->side_count);
    *side = &model->side_files[model->side_count - 1];
    return STATUS_OK;
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

/* The entry called `key`, NULL when absent; twice is an error. */
static Status entry_find(const Gate *gate, const Tensor *tensor, const char *who, const char *key, const char **value)
{
    *value = NULL;
    for (size_t i = 0; i < tensor->external_count; i++) {
        if (strcmp(tensor->external[i].key, key) != 0)
            continue;
        if (*value != NULL)
            return fail(gate->err, STATUS_REJECTED, "%s: external data says '%s' twice", who, key);
        *value = tensor->external[i].value;
    }
    return STATUS_OK;
}

/* A number of bytes in decimal digits, or `absent`. */
static Status entry_number(const Gate *gate, const Tensor *tensor, const char *who, const char *key, int64_t absent,
                           int64_t *number)
{
    const char *text;
    TRY(entry_find(gate, tensor, who, key, &text));
    *number = absent;
    if (text == NULL)
        return STATUS_OK;
    int64_t n = 0;
    bool sound = text[0] != '\0';
    for (const char *p = text; sound && *p != '\0'; p++)
        sound =
            *p >= '0' && *p <= '9' && !__builtin_mul_overflow(n, 10, &n) && !__builtin_add_overflow(n, *p - '0', &n);
    if (!sound)
        return fail(gate->err, STATUS_REJECTED, "%s: external data: %s '%s' is no number of bytes", who, key, text);
    *number = n;
    return STATUS_OK;
}

Status external_read(Gate *gate, Tensor *tensor, const char *who)
{
    const char *location;
    int64_t offset, length, size = (int64_t)tensor->bytes;
    TRY(entry_find(gate, tensor, who, "location", &location));
    TRY(entry_number(gate, tensor, who, "offset", 0, &offset));
    TRY(entry_number(gate, tensor, who, "length", size, &length));
    if (tensor->dtype == DTYPE_STRING)
        return fail(gate->err, STATUS_REJECTED, "%s: strings cannot be external data", who);
    const char *fault = location_fault(location);
    if (fault != NULL)
        return fail(gate->err, STATUS_REJECTED, "%s: external data '%s' %s", who, location == NULL ? "" : location,
                    fault);
    if (length != size)
        return fail(gate->err, STATUS_REJECTED, "%s: external data of %" PRId64 " bytes, but %s%s takes %" PRId64, who,
                    length, dtype_name(tensor->dtype), dims_text(gate->arena, tensor->rank, tensor->dims), size);
    if (gate->model == NULL || gate->model->path == NULL)
        return fail(gate->err, STATUS_REJECTED, "%s: external data '%s' of a model that has no folder", who, location);
    const Mapping *side = NULL;
    TRY(side_find(gate, location, who, &side));
    if (offset > INT64_MAX - size || (uint64_t)(offset + size) > side->size)
        return fail(gate->err, STATUS_REJECTED,
                    "%s: external data at byte %" PRId64 " of '%s' wants %" PRId64 " bytes; the file has %zu", who,
                    offset, location, size, side->size);
    tensor->storage = STORAGE_EXTERNAL;
    tensor->location = arena_strdup(gate->arena, location);
    tensor->offset = offset;
    tensor->data = side->data + offset;
    return STATUS_OK;
}

/* ---- one mapping for two models ------------------------------------------------------------------------------- */

static bool maps_alike(const Mapping *a, const Mapping *b)
{
    return a->mapped && b->mapped && a->size == b->size;
}

/* Where the same bytes lie in the other mapping, or `data` itself when they do not lie in this one. */
static const void *moved_over(const Mapping *from, const Mapping *to, const void *data)
{
    uintptr_t at = (uintptr_t)data, begin = (uintptr_t)from->data;
    return at < begin || at >= begin + from->size || !maps_alike(from, to) ? data : to->data + (at - begin);
}

void model_share(Model *twin, const Model *model)
{
    if (twin->path == NULL || model->path == NULL || !file_same(twin->path, model->path) ||
        twin->side_count != model->side_count)
        return;
    size_t side = 0; /* tensors lie in files in turns */
    for (Graph *graph = twin->last_made; graph != NULL; graph = graph->made_before)
        for (size_t i = 0; i < graph->initializer_count; i++) {
            Tensor *tensor = graph->initializers[i]->constant;
            if (tensor == NULL || tensor->bytes == 0)
                continue;
            const void *before = tensor->data;
            tensor->data = moved_over(&twin->file, &model->file, before);
            for (size_t n = 0; n < twin->side_count && tensor->data == before; n++) {
                side = n == 0 ? side : (side + 1) % twin->side_count;
                tensor->data = moved_over(&twin->side_files[side], &model->side_files[side], before);
            }
        }
}
