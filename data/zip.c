/* The archives that .npz files are: listing, inflating, writing. Entries stay in the mapped file; nothing is unpacked
 * before somebody asks. Format: PKWARE APPNOTE 6.3.9, zip64 included. Encryption, spanning and methods other than
 * stored and deflated are refused. */
#include <limits.h>
#include <string.h>
#include <zlib.h>

#include "data/data.h"

enum {
    END_SIZE = 22,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    COMMENT_MAX = 65535,
    INFLATE_LIMIT = 1040 /* deflate cannot expand more than 1032 times */
};

static const uint32_t end_mark = 0x06054b50, central_mark = 0x02014b50, local_mark = 0x04034b50;
static const uint32_t end64_mark = 0x06064b50, locator_mark = 0x07064b50;

static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

typedef struct Directory {
    uint64_t at, size, count;
} Directory;

static bool find_directory(const Mapping *file, Directory *directory)
{
    const unsigned char *data = file->data;
    if (file->size < END_SIZE)
        return false;
    size_t at = file->size - END_SIZE, stop = at > COMMENT_MAX ? at - COMMENT_MAX : 0;
    while (little(data + at, 4) != end_mark)
        if (at-- == stop)
            return false;
    *directory = (Directory){little(data + at + 16, 4), little(data + at + 12, 4), little(data + at + 10, 2)};
    if (at < LOCATOR_SIZE || little(data + at - LOCATOR_SIZE, 4) != locator_mark)
        return true;
    uint64_t end64 = little(data + at - LOCATOR_SIZE + 8, 8);
    if (end64 > file->size || file->size - end64 < END64_SIZE || little(data + end64, 4) != end64_mark)
        return false;
    *directory = (Directory){little(data + end64 + 48, 8), little(data + end64 + 40, 8), little(data + end64 + 32, 8)};
    return true;
}

/* Replaces fields that say "see zip64" by the extra field's numbers, in its order: size, packed, offset. */
static bool read_zip64(const unsigned char *extra, size_t length, ZipEntry *entry, uint64_t *offset)
{
    uint64_t *fields[] = {&entry->size, &entry->packed, offset};
    while (length >= 4) {
        size_t id = (size_t)little(extra, 2), room = (size_t)little(extra + 2, 2);
        if (room > length - 4)
            return false;
        const unsigned char *p = extra + 4;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX)
                continue;
            if (room < (size_t)(p - extra - 4) + 8)
                return false;
            *fields[i] = little(p, 8);
            p += 8;
        }
        extra += 4 + room;
        length -= 4 + room;
    }
    return true;
}

/* Reads the central header at *at and moves on. Returns why not, or NULL. */
static const char *read_entry(Zip *zip, const Mapping *file, uint64_t *at, uint64_t end, ZipEntry *entry)
{
    const unsigned char *p = file->data + *at;
    if (end - *at < CENTRAL_SIZE || little(p, 4) != central_mark)
        return "its directory is damaged";
    size_t name = (size_t)little(p + 28, 2), extra = (size_t)little(p + 30, 2), comment = (size_t)little(p + 32, 2);
    uint64_t offset = little(p + 42, 4);
    if (end - *at - CENTRAL_SIZE < name + extra + comment)
        return "its directory is damaged";
    if (little(p + 8, 2) & 1)
        return "it is encrypted";
    *entry = (ZipEntry){.method = (int)little(p + 10, 2),
                        .crc = (uint32_t)little(p + 16, 4),
                        .packed = little(p + 20, 4),
                        .size = little(p + 24, 4)};
    entry->name = arena_strndup(&zip->arena, (const char *)p + CENTRAL_SIZE, name);
    if (!read_zip64(p + CENTRAL_SIZE + name, extra, entry, &offset))
        return "its zip64 sizes are damaged";
    if (entry->method != 0 && entry->method != 8)
        return "it uses a compression other than deflate";
    if (offset > file->size || file->size - offset < LOCAL_SIZE || little(file->data + offset, 4) != local_mark)
        return "an entry starts outside of it (truncated?)";
    const unsigned char *local = file->data + offset;
    uint64_t start = offset + LOCAL_SIZE + little(local + 26, 2) + little(local + 28, 2);
    if (start > file->size || file->size - start < entry->packed)
        return "an entry ends outside of it (truncated?)";
    if (entry->method == 0 ? entry->size != entry->packed : entry->size / INFLATE_LIMIT > entry->packed)
        return "an entry's sizes contradict each other";
    entry->bytes = file->data + start;
    *at += CENTRAL_SIZE + name + extra + comment;
    return NULL;
}

Status zip_list(Zip *zip, const Mapping *file, const char *path, Error *err)
{
    memset(zip, 0, sizeof *zip);
    arena_init(&zip->arena);
    Directory directory;
    if (!find_directory(file, &directory) || directory.at > file->size || directory.size > file->size - directory.at ||
        directory.count > directory.size / CENTRAL_SIZE)
        return fail(err, STATUS_REJECTED, "%s: not a complete zip archive (truncated?)", path);
    zip->entries = arena_array(&zip->arena, ZipEntry, directory.count + 1);
    uint64_t at = directory.at, end = directory.at + directory.size;
    for (uint64_t i = 0; i < directory.count; i++) {
        const char *why = read_entry(zip, file, &at, end, &zip->entries[i]);
        if (why != NULL)
            return fail(err, STATUS_REJECTED, "%s: cannot be read as an archive: %s", path, why);
        zip->count++;
    }
    return STATUS_OK;
}

void zip_release(Zip *zip)
{
    arena_release(&zip->arena);
    memset(zip, 0, sizeof *zip);
}

/* zlib counts in 32 bits: feed it in pieces. */
static bool inflate_all(const ZipEntry *entry, unsigned char *out)
{
    z_stream stream = {0};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return false;
    uint64_t fed = 0, got = 0;
    int result = Z_OK;
    unsigned char spare;
    while (result == Z_OK) {
        uint64_t in = entry->packed - fed, room = entry->size - got;
        stream.next_in = (unsigned char *)(size_t)(entry->bytes + fed);
        stream.avail_in = in > INT_MAX ? INT_MAX : (uInt)in;
        stream.next_out = room > 0 ? out + got : &spare; /* a full output must still see the end mark */
        stream.avail_out = room > INT_MAX ? INT_MAX : room > 0 ? (uInt)room : 1;
        uInt in_before = stream.avail_in, out_before = stream.avail_out;
        result = inflate(&stream, Z_NO_FLUSH);
        fed += in_before - stream.avail_in;
        uInt made = out_before - stream.avail_out;
        if (made > room)
            break;
        got += made;
    }
    inflateEnd(&stream);
    return result == Z_STREAM_END && got == entry->size;
}

static uint32_t crc_all(const unsigned char *bytes, uint64_t size, uint32_t crc)
{
    while (size > 0) {
        uInt piece = size > INT_MAX ? INT_MAX : (uInt)size;
        crc = (uint32_t)crc32(crc, bytes, piece);
        bytes += piece;
        size -= piece;
    }
    return crc;
}

Status zip_extract(const ZipEntry *entry, void *out, const char *path, Error *err)
{
    if (entry->method == 0)
        memcpy(out, entry->bytes, entry->size);
    else if (!inflate_all(entry, out))
        return fail(err, STATUS_REJECTED, "%s: '%s' is damaged: its compressed data is not valid", path, entry->name);
    if (crc_all(out, entry->size, 0) != entry->crc)
        return fail(err, STATUS_REJECTED, "%s: '%s' is damaged: its checksum is wrong", path, entry->name);
    return STATUS_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

typedef struct Header {
    unsigned char bytes[128];
    size_t length;
} Header;

static void put(Header *header, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        header->bytes[header->length++] = (unsigned char)(value >> 8 * i);
}

/* What local and central headers share, from "version needed" to the name's length. Sizes always as zip64, as numpy
 * does. */
static void put_common(Header *h, uint32_t crc, size_t name)
{
    put(h, 45, 2);
    put(h, 0, 2);
    put(h, 0, 2);
    put(h, 0x00210000, 4); /* 1980-01-01: archives of equal arrays are equal */
    put(h, crc, 4);
    put(h, UINT32_MAX, 4);
    put(h, UINT32_MAX, 4);
    put(h, name, 2);
}

static Status write_local(AtomicFile *file, const ZipPart *part, uint32_t crc, uint64_t size, Error *err)
{
    Header h = {.length = 0};
    put(&h, local_mark, 4);
    put_common(&h, crc, strlen(part->name));
    put(&h, 20, 2);
    TRY(atomic_write(file, h.bytes, h.length, err));
    TRY(atomic_write(file, part->name, strlen(part->name), err));
    h.length = 0;
    put(&h, 1, 2);
    put(&h, 16, 2);
    put(&h, size, 8);
    put(&h, size, 8);
    TRY(atomic_write(file, h.bytes, h.length, err));
    TRY(atomic_write(file, part->bytes[0], part->sizes[0], err));
    return atomic_write(file, part->bytes[1], part->sizes[1], err);
}

static Status write_central(AtomicFile *file, const ZipPart *part, uint32_t crc, uint64_t size, uint64_t at, Error *err)
{
    Header h = {.length = 0};
    put(&h, central_mark, 4);
    put(&h, 45, 2);
    put_common(&h, crc, strlen(part->name));
    put(&h, 28, 2);
    put(&h, 0, 2); /* comment */
    put(&h, 0, 2); /* disk */
    put(&h, 0, 2);
    put(&h, 0, 4);
    put(&h, UINT32_MAX, 4);
    TRY(atomic_write(file, h.bytes, h.length, err));
    TRY(atomic_write(file, part->name, strlen(part->name), err));
    h.length = 0;
    put(&h, 1, 2);
    put(&h, 24, 2);
    put(&h, size, 8);
    put(&h, size, 8);
    put(&h, at, 8);
    return atomic_write(file, h.bytes, h.length, err);
}

static Status write_end(AtomicFile *file, uint64_t count, uint64_t at, uint64_t size, Error *err)
{
    Header h = {.length = 0};
    put(&h, end64_mark, 4);
    put(&h, END64_SIZE - 12, 8);
    put(&h, 45, 2);
    put(&h, 45, 2);
    put(&h, 0, 8); /* disks */
    put(&h, count, 8);
    put(&h, count, 8);
    put(&h, size, 8);
    put(&h, at, 8);
    put(&h, locator_mark, 4);
    put(&h, 0, 4);
    put(&h, at + size, 8);
    put(&h, 1, 4);
    put(&h, end_mark, 4);
    put(&h, 0, 4);
    put(&h, count < UINT16_MAX ? count : UINT16_MAX, 2);
    put(&h, count < UINT16_MAX ? count : UINT16_MAX, 2);
    put(&h, size < UINT32_MAX ? size : UINT32_MAX, 4);
    put(&h, at < UINT32_MAX ? at : UINT32_MAX, 4);
    put(&h, 0, 2);
    return atomic_write(file, h.bytes, h.length, err);
}

static Status write_parts(AtomicFile *file, const ZipPart *parts, size_t count, uint32_t *crcs, Error *err)
{
    uint64_t at = 0, directory = 0;
    for (size_t i = 0; i < count; i++) {
        crcs[i] = crc_all(parts[i].bytes[0], parts[i].sizes[0], 0);
        crcs[i] = crc_all(parts[i].bytes[1], parts[i].sizes[1], crcs[i]);
        TRY(write_local(file, &parts[i], crcs[i], parts[i].sizes[0] + parts[i].sizes[1], err));
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t size = parts[i].sizes[0] + parts[i].sizes[1], name = strlen(parts[i].name);
        TRY(write_central(file, &parts[i], crcs[i], size, at, err));
        at += LOCAL_SIZE + name + 20 + size;
        directory += CENTRAL_SIZE + name + 28;
    }
    return write_end(file, count, at, directory, err);
}

Status zip_write(const char *path, const ZipPart *parts, size_t count, Error *err)
{
    AtomicFile file;
    uint32_t *crcs = calloc(count + 1, sizeof *crcs);
    if (crcs == NULL)
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory for %zu entries", path, count);
    Status status = atomic_open(&file, path, err);
    if (status == STATUS_OK)
        status = write_parts(&file, parts, count, crcs, err);
    if (status == STATUS_OK)
        status = atomic_commit(&file, err);
    atomic_release(&file);
    free(crcs);
    return status;
}
