/* Mapping and atomic replacement; see file.h. */
#include "onnx/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const unsigned char nothing[1];

/* Reads until the end: pipes and files that others may cut short while we look at them. */
static Status read_all(Mapping *mapping, int fd, size_t hint, const char *path, Error *err)
{
    size_t capacity = hint + 1, size = 0;
    unsigned char *data = malloc(capacity);
    while (data != NULL) {
        ssize_t n = read(fd, data + size, capacity - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(data);
            return fail(err, STATUS_REJECTED, "%s: %s", path, strerror(errno));
        }
        if (n == 0)
            break;
        size += (size_t)n;
        if (size == capacity) {
            unsigned char *grown = realloc(data, capacity *= 2);
            if (grown == NULL)
                free(data);
            data = grown;
        }
    }
    if (data == NULL)
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory for %zu bytes", path, capacity);
    *mapping = (Mapping){data, size, false};
    return STATUS_OK;
}

/* A umask of 002 lets the user's own group write, which is nobody else where users have groups of their own. */
static bool others_write(const struct stat *info)
{
    bool ours = info->st_uid == geteuid() && info->st_gid == getegid();
    return (info->st_mode & S_IWOTH) != 0 || ((info->st_mode & S_IWGRP) != 0 && !ours);
}

Status mapping_open_fd(Mapping *mapping, int fd, const char *path, Error *err)
{
    *mapping = (Mapping){nothing, 0, true};
    struct stat info;
    if (fstat(fd, &info) != 0)
        return fail(err, STATUS_REJECTED, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return fail(err, STATUS_REJECTED, "%s: is a folder, a file was expected", path);
    if (!S_ISREG(info.st_mode) || others_write(&info))
        return read_all(mapping, fd, S_ISREG(info.st_mode) ? (size_t)info.st_size : 65536, path, err);
    if (info.st_size == 0)
        return STATUS_OK;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot map: %s", path, strerror(errno));
    *mapping = (Mapping){data, (size_t)info.st_size, true};
    return STATUS_OK;
}

Status mapping_open(Mapping *mapping, const char *path, Error *err)
{
    *mapping = (Mapping){nothing, 0, true};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, STATUS_REJECTED, "%s: %s", path, strerror(errno));
    Status status = mapping_open_fd(mapping, fd, path, err);
    close(fd);
    return status;
}

void mapping_release(Mapping *mapping)
{
    if (mapping->data != nothing && mapping->data != NULL) {
        if (mapping->mapped)
            munmap((void *)(size_t)mapping->data, mapping->size);
        else
            free((void *)(size_t)mapping->data);
    }
    *mapping = (Mapping){nothing, 0, true};
}

void mapping_rest(const Mapping *mapping)
{
    if (mapping->mapped && mapping->size > 0)
        (void)madvise((void *)(size_t)mapping->data, mapping->size, MADV_DONTNEED);
}

Status atomic_open(AtomicFile *file, const char *path, Error *err)
{
    memset(file, 0, sizeof *file);
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return fail(err, STATUS_ENVIRONMENT, "%s: is a folder, cannot be replaced by a file", path);
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return fail(err, STATUS_ENVIRONMENT, "%s: is a device or a pipe, cannot be replaced by a file", path);
    size_t room = strlen(path) + 16;
    file->path = strdup(path);
    file->temporary = malloc(room);
    if (file->path == NULL || file->temporary == NULL) {
        atomic_release(file);
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory", path);
    }
    snprintf(file->temporary, room, "%s.tmp-XXXXXX", path);
    int fd = mkostemp(file->temporary, O_CLOEXEC);
    if (fd < 0) {
        fail(err, STATUS_ENVIRONMENT, "%s: cannot write here: %s", path, strerror(errno));
        free(file->temporary);
        file->temporary = NULL;
        atomic_release(file);
        return STATUS_ENVIRONMENT;
    }
    mode_t mask = umask(0); /* mkostemp makes 0600; a new file should be what open(0666) gives */
    umask(mask);
    fchmod(fd, 0666 & ~mask);
    file->stream = fdopen(fd, "wb");
    if (file->stream == NULL) {
        close(fd);
        atomic_release(file);
        return fail(err, STATUS_ENVIRONMENT, "%s: %s", path, strerror(errno));
    }
    return STATUS_OK;
}

Status atomic_write(AtomicFile *file, const void *bytes, size_t size, Error *err)
{
    if (size > 0 && fwrite(bytes, 1, size, file->stream) != size)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot write: %s", file->path, strerror(errno));
    return STATUS_OK;
}

Status atomic_sync(AtomicFile *file, Error *err)
{
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot write: %s", file->path, strerror(errno));
    return STATUS_OK;
}

Status atomic_commit(AtomicFile *file, Error *err)
{
    FILE *stream = file->stream;
    file->stream = NULL;
    bool written = fflush(stream) == 0 && fsync(fileno(stream)) == 0;
    int cause = errno;
    if (fclose(stream) != 0 && written) {
        written = false;
        cause = errno;
    }
    if (written && rename(file->temporary, file->path) != 0) {
        written = false;
        cause = errno;
    }
    if (!written)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot write: %s", file->path, strerror(cause));
    free(file->temporary);
    file->temporary = NULL;
    return STATUS_OK;
}

void atomic_release(AtomicFile *file)
{
    if (file->stream != NULL)
        fclose(file->stream);
    if (file->temporary != NULL)
        unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    memset(file, 0, sizeof *file);
}

Status file_write_text(const char *path, const char *text, Error *err)
{
    AtomicFile file;
    TRY(atomic_open(&file, path, err));
    Status status = atomic_write(&file, text, strlen(text), err);
    if (status == STATUS_OK)
        status = atomic_commit(&file, err);
    atomic_release(&file);
    return status;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

Status folder_make(const char *path, Error *err)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory", path);
    Status status = STATUS_OK;
    for (char *p = copy + 1; status == STATUS_OK; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = fail(err, STATUS_ENVIRONMENT, "%s: cannot make the folder: %s", copy, strerror(errno));
        *p = end;
        if (end == '\0')
            break;
    }
    free(copy);
    return status;
}
