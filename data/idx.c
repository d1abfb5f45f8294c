/* LeCun's IDX format (MNIST and its kin): a magic number that says type and rank, big-endian dims, then the elements,
 * big-endian too. Plain or gzipped; zlib reads both alike. */
#include <string.h>
#include <zlib.h>

#include "data/data.h"

static DType idx_dtype(int code)
{
    switch (code) {
    case 0x08:
        return DTYPE_U8;
    case 0x09:
        return DTYPE_I8;
    case 0x0B:
        return DTYPE_I16;
    case 0x0C:
        return DTYPE_I32;
    case 0x0D:
        return DTYPE_F32;
    case 0x0E:
        return DTYPE_F64;
    default:
        return DTYPE_UNDEFINED;
    }
}

static bool read_exactly(gzFile file, unsigned char *out, size_t size)
{
    while (size > 0) {
        unsigned piece = size > 1 << 20 ? 1 << 20 : (unsigned)size;
        if (gzread(file, out, piece) != (int)piece)
            return false;
        out += piece;
        size -= piece;
    }
    return true;
}

static void to_little(unsigned char *data, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++, data += bytes)
        for (size_t k = 0; k < bytes / 2; k++) {
            unsigned char t = data[k];
            data[k] = data[bytes - 1 - k];
            data[bytes - 1 - k] = t;
        }
}

static Status read_idx(gzFile file, const char *path, Array *head, void **block, Error *err)
{
    unsigned char magic[4], dim[4];
    if (!read_exactly(file, magic, 4) || magic[0] != 0 || magic[1] != 0 ||
        (head->dtype = idx_dtype(magic[2])) == DTYPE_UNDEFINED || magic[3] == 0 || magic[3] > RANK_MAX)
        return fail(err, STATUS_REJECTED, "%s: not an IDX file", path);
    head->rank = magic[3];
    for (int i = 0; i < head->rank; i++) {
        if (!read_exactly(file, dim, 4))
            return fail(err, STATUS_REJECTED, "%s: ends inside its header", path);
        head->dims[i] = (int64_t)dim[0] << 24 | dim[1] << 16 | dim[2] << 8 | dim[3];
    }
    head->count = dims_count(head->rank, head->dims);
    size_t bytes, size = dtype_size(head->dtype);
    if (head->count < 0 || !size_mul((size_t)head->count, size, &bytes) || bytes > (size_t)1 << 40)
        return fail(err, STATUS_REJECTED, "%s: its header claims more than a terabyte", path);
    /* grow with what is really there: a short file may claim any size */
    size_t have = 0, room = 0;
    unsigned char *data = NULL, spare;
    while (have < bytes) {
        room = room == 0 ? 1 << 20 : room * 2;
        room = room > bytes ? bytes : room;
        unsigned char *grown = realloc(data, room);
        if (grown == NULL || !read_exactly(file, grown + have, room - have)) {
            free(grown == NULL ? data : grown);
            return fail(err, grown == NULL ? STATUS_ENVIRONMENT : STATUS_REJECTED,
                        grown == NULL ? "%s: no memory for it" : "%s: ends before its last element (truncated?)", path);
        }
        data = grown;
        have = room;
    }
    if (gzread(file, &spare, 1) != 0) {
        free(data);
        return fail(err, STATUS_REJECTED, "%s: is longer than its header says", path);
    }
    to_little(data, (size_t)head->count, size);
    *block = data;
    return STATUS_OK;
}

Status idx_read(const char *path, Array **array, Error *err)
{
    gzFile file = gzopen(path, "rb");
    if (file == NULL)
        return fail(err, STATUS_REJECTED, "%s: cannot be opened", path);
    gzbuffer(file, 1 << 17);
    Array head = {.kind = ARRAY_TENSOR};
    void *data = NULL;
    Status status = read_idx(file, path, &head, &data, err);
    gzclose(file);
    if (status != STATUS_OK)
        return status;
    *array = calloc(1, sizeof **array);
    if (*array == NULL) {
        free(data);
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory", path);
    }
    **array = head;
    (*array)->data = data;
    return STATUS_OK;
}

void idx_free(Array *array)
{
    if (array != NULL)
        free(array->data);
    free(array);
}
