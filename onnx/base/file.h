/* Files: mapping for reading, and replacing atomically for writing.
 *
 * A file that others than its owner and the user's own group may write is copied into memory. One that is mapped and
 * shrinks all the same, under mapping_guard, reads as zeros and is reported; without the guard, which a host program
 * may not want, it is SIGBUS. An AtomicFile collects into a temporary file beside the target and becomes the target by
 * rename after fsync; whatever goes wrong before, the target is untouched and the temporary file is removed. */
#ifndef REGRAFT_BASE_FILE_H
#define REGRAFT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "onnx/base/error.h"

typedef struct Mapping {
    const unsigned char *data; /* valid even when size is 0 */
    size_t size;
    bool mapped; /* else heap memory */
} Mapping;

/* Errors: STATUS_REJECTED when `path` is missing, a folder, unreadable; STATUS_ENVIRONMENT when memory ends. */
Status mapping_open(Mapping *mapping, const char *path, Error *err);
/* The same for a descriptor already opened and checked by the caller; `path` is for messages. The caller
 * closes the descriptor. */
Status mapping_open_fd(Mapping *mapping, int fd, const char *path, Error *err);
void mapping_release(Mapping *mapping);
/* Its pages may leave memory; whoever reads them again gets them from the file. */
void mapping_rest(const Mapping *mapping);
/* Installs a handler of SIGBUS for the whole process: for the tool, not for a library's host. */
void mapping_guard(void);
/* Whether a mapped file was found shorter than it had been: what was read since is not to be trusted. */
bool mapping_was_cut(void);

typedef struct AtomicFile {
    FILE *stream;
    char *path, *temporary;
} AtomicFile;

/* Errors: STATUS_ENVIRONMENT with the reason (read-only folder, full disk, something at `path` that is no
 * regular file). */
Status atomic_open(AtomicFile *file, const char *path, Error *err);
Status atomic_write(AtomicFile *file, const void *bytes, size_t size, Error *err);
/* Flush and fsync: whatever can fail for want of space has failed then. For those who rename several files at once. */
Status atomic_sync(AtomicFile *file, Error *err);
/* Flush, fsync, rename. Either the new file is whole or the old one is as it was. */
Status atomic_commit(AtomicFile *file, Error *err);
/* Drops what was not committed; safe after commit and on a zeroed AtomicFile. */
void atomic_release(AtomicFile *file);

/* Whole text at once, through an AtomicFile. */
Status file_write_text(const char *path, const char *text, Error *err);
/* True when both names lead to the same file (same device and inode; links are followed). */
bool file_same(const char *a, const char *b);
/* mkdir -p. */
Status folder_make(const char *path, Error *err);

#endif
