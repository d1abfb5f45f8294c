/* Numpy's files: .npy (format versions 1 to 3, every numeric type, both byte orders, Fortran order, byte and unicode
 * strings) and .npz, which is a zip of them. Arrays come out row-major in this machine's byte order; they stay in the
 * mapped file when they lie there that way already. Object and structured arrays are refused: they are Python pickles.
 */
#include <inttypes.h>
#include <string.h>

#include "data/data.h"

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* ---- types --------------------------------------------------------------------------------------------------- */

typedef struct NumpyType {
    const char *code; /* kind and bytes, as in descr without the byte order */
    DType dtype;
    size_t swap; /* bytes that change places in the other byte order: complex numbers are two floats */
} NumpyType;

static const NumpyType numpy_types[] = {
    {"b1", DTYPE_BOOL, 1}, {"i1", DTYPE_I8, 1},  {"u1", DTYPE_U8, 1},  {"i2", DTYPE_I16, 2},  {"u2", DTYPE_U16, 2},
    {"i4", DTYPE_I32, 4},  {"u4", DTYPE_U32, 4}, {"i8", DTYPE_I64, 8}, {"u8", DTYPE_U64, 8},  {"f2", DTYPE_F16, 2},
    {"f4", DTYPE_F32, 4},  {"f8", DTYPE_F64, 8}, {"c8", DTYPE_C64, 4}, {"c16", DTYPE_C128, 8}};
enum { NUMPY_TYPES = sizeof numpy_types / sizeof *numpy_types };

/* ---- the header: a Python dict in text -------------------------------------------------------------------------- */

typedef struct Npy {
    char order; /* '<', '>', '|', '=' */
    char code[16];
    const NumpyType *type; /* NULL: strings */
    size_t item;           /* bytes an element in the file */
    bool fortran;
    int rank;
    int64_t dims[RANK_MAX], count;
    const unsigned char *bytes;
} Npy;

typedef struct Cursor {
    const char *at, *end;
} Cursor;

static bool accept(Cursor *c, char wanted)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t'))
        c->at++;
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool accept_text(Cursor *c, char *text, size_t room)
{
    char quote = accept(c, '\'') ? '\'' : accept(c, '"') ? '"' : 0;
    size_t length = 0;
    if (quote == 0)
        return false;
    while (c->at < c->end && *c->at != quote && length + 1 < room)
        text[length++] = *c->at++;
    text[length] = '\0';
    return accept(c, quote);
}

static bool accept_int(Cursor *c, int64_t *value)
{
    int64_t v = 0;
    accept(c, ' ');
    if (c->at == c->end || *c->at < '0' || *c->at > '9')
        return false;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(v, (int64_t)10, &v) || __builtin_add_overflow(v, (int64_t)(*c->at - '0'), &v))
            return false;
    if (c->at < c->end && *c->at == 'L') /* Python 2 wrote long integers so */
        c->at++;
    *value = v;
    return true;
}

static bool accept_shape(Cursor *c, Npy *npy)
{
    if (!accept(c, '('))
        return false;
    npy->rank = 0;
    while (!accept(c, ')')) {
        if (npy->rank == RANK_MAX || !accept_int(c, &npy->dims[npy->rank++]))
            return false;
        accept(c, ',');
    }
    return true;
}

static bool accept_word(Cursor *c, const char *word)
{
    accept(c, ' ');
    size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

/* Returns what is wrong, or NULL. */
static const char *parse_dict(Cursor c, Npy *npy)
{
    char key[32], descr[32] = "";
    bool has_order = false, has_shape = false;
    if (!accept(&c, '{'))
        return "its header is no dict";
    while (!accept(&c, '}')) {
        if (!accept_text(&c, key, sizeof key) || !accept(&c, ':'))
            return "its header is damaged";
        if (strcmp(key, "descr") == 0) {
            if (!accept_text(&c, descr, sizeof descr))
                return "it holds a structured array";
        } else if (strcmp(key, "fortran_order") == 0) {
            npy->fortran = accept_word(&c, "True");
            if (!npy->fortran && !accept_word(&c, "False"))
                return "its header is damaged";
            has_order = true;
        } else if (strcmp(key, "shape") == 0) {
            if (!accept_shape(&c, npy))
                return "its shape is damaged, or has more than 16 dims";
            has_shape = true;
        } else
            return "its header has a key that is not numpy's";
        accept(&c, ',');
    }
    size_t length = strlen(descr);
    if (!has_order || !has_shape || length < 2 || length > sizeof npy->code)
        return "its header is incomplete";
    bool marked = strchr("<>|=", descr[0]) != NULL;
    npy->order = marked ? descr[0] : '=';
    memcpy(npy->code, descr + marked, length - marked + 1);
    return NULL;
}

static const char *find_type(Npy *npy)
{
    for (int i = 0; i < NUMPY_TYPES; i++)
        if (strcmp(npy->code, numpy_types[i].code) == 0) {
            npy->type = &numpy_types[i];
            npy->item = dtype_size(npy->type->dtype);
            return NULL;
        }
    if (npy->code[0] == 'O')
        return "it holds Python objects (pickled); save it as numbers";
    if (npy->code[0] == 'V')
        return "it holds raw bytes (a type numpy does not know, such as bfloat16); save it as float32";
    if (npy->code[0] != 'S' && npy->code[0] != 'U')
        return "its element type is not known";
    npy->item = strtoul(npy->code + 1, NULL, 10) * (npy->code[0] == 'U' ? 4 : 1);
    return npy->item > 1 << 20 ? "its strings are longer than a megabyte" : NULL;
}

static const char *parse_npy(const unsigned char *bytes, size_t size, Npy *npy)
{
    if (size < 10 || memcmp(bytes, magic, sizeof magic) != 0)
        return "it does not begin as numpy's files do";
    int version = bytes[6];
    size_t prefix = version == 1 ? 10 : 12;
    if (version < 1 || version > 3 || size < prefix)
        return "its format version is not 1, 2 or 3";
    size_t length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    if (version > 1)
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (length > size - prefix)
        return "it ends inside its header";
    const char *text = (const char *)bytes + prefix;
    const char *why = parse_dict((Cursor){text, text + length}, npy);
    if (why == NULL)
        why = find_type(npy);
    if (why != NULL)
        return why;
    size_t total;
    npy->count = dims_count(npy->rank, npy->dims);
    if (npy->count < 0 || !size_mul((size_t)npy->count, npy->item, &total))
        return "its shape is too large";
    if (total > size - prefix - length)
        return "it ends before its last element (truncated?)";
    npy->bytes = bytes + prefix + length;
    return NULL;
}

/* ---- elements to row-major order, this byte order, aligned ------------------------------------------------------- */

static void swap_bytes(unsigned char *data, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++, data += bytes)
        for (size_t k = 0; k < bytes / 2; k++) {
            unsigned char t = data[k];
            data[k] = data[bytes - 1 - k];
            data[bytes - 1 - k] = t;
        }
}

/* `from` has its first dim fastest; `to` its last. */
static void copy_fortran(const Npy *npy, unsigned char *to)
{
    int64_t at[RANK_MAX] = {0};
    int64_t strides[RANK_MAX]; /* in elements of `from` */
    int64_t stride = 1;
    for (int d = 0; d < npy->rank; d++) {
        strides[d] = stride;
        stride *= npy->dims[d];
    }
    int64_t offset = 0;
    for (int64_t i = 0; i < npy->count; i++) {
        memcpy(to + (size_t)i * npy->item, npy->bytes + (size_t)offset * npy->item, npy->item);
        for (int d = npy->rank - 1; d >= 0; d--) {
            offset += strides[d];
            if (++at[d] < npy->dims[d])
                break;
            offset -= strides[d] * npy->dims[d];
            at[d] = 0;
        }
    }
}

static size_t put_utf8(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code >= 0x110000)
        code = 0xFFFD;
    int extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char leads[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(leads[extra] | code >> 6 * extra);
    for (int k = 1; k <= extra; k++)
        out[k] = (char)(0x80 | (code >> 6 * (extra - k) & 0x3F));
    return (size_t)extra + 1;
}

/* Fixed-width strings, padded with zeros at the end. */
static Bytes read_string(Arena *arena, const Npy *npy, const unsigned char *from)
{
    size_t length = 0;
    char *text = arena_alloc(arena, npy->item + 1);
    if (npy->code[0] == 'S') {
        memcpy(text, from, npy->item);
        for (length = npy->item; length > 0 && text[length - 1] == '\0';)
            length--;
        return (Bytes){text, length};
    }
    for (size_t i = 0; i < npy->item; i += 4) { /* 4 bytes of UTF-8 at most for 4 of UTF-32 */
        uint32_t code = 0;
        for (size_t k = 0; k < 4; k++)
            code |= (uint32_t)from[i + (npy->order == '>' ? 3 - k : k)] << 8 * k;
        if (code == 0)
            break;
        length += put_utf8(code, text + length);
    }
    return (Bytes){text, length};
}

static Status read_strings(Npz *npz, const Npy *npy, Array *array, void **block, const char *path, Error *err)
{
    size_t bytes;
    if (!size_mul((size_t)npy->count, npy->item, &bytes))
        return fail(err, STATUS_ENVIRONMENT, "%s: too many strings", path);
    unsigned char *rows;
    TRY(block_alloc((void **)&rows, bytes, path, err));
    if (npy->fortran && npy->rank > 1)
        copy_fortran(npy, rows);
    else
        memcpy(rows, npy->bytes, bytes);
    Status status = block_alloc(block, (size_t)npy->count * sizeof(Bytes), path, err);
    for (int64_t i = 0; status == STATUS_OK && i < npy->count; i++)
        ((Bytes *)*block)[i] = read_string(&npz->arena, npy, rows + (size_t)i * npy->item);
    block_free(rows);
    array->dtype = DTYPE_STRING;
    array->data = *block;
    return status;
}

/* *block: NULL when the array stays where it lies, in the mapped file or in `unpacked`. */
static Status read_elements(Npz *npz, const Npy *npy, Array *array, void **block, const char *path, Error *err)
{
    *array = (Array){.kind = ARRAY_TENSOR, .rank = npy->rank, .count = npy->count};
    memcpy(array->dims, npy->dims, sizeof array->dims);
    if (npy->type == NULL)
        return read_strings(npz, npy, array, block, path, err);
    array->dtype = npy->type->dtype;
    bool transposed = npy->fortran && npy->rank > 1, swapped = npy->order == '>' && npy->type->swap > 1;
    bool aligned = (uintptr_t)npy->bytes % npy->type->swap == 0;
    if (!transposed && !swapped && aligned) {
        array->data = (void *)(uintptr_t)npy->bytes;
        return STATUS_OK;
    }
    size_t bytes = (size_t)npy->count * npy->item;
    TRY(block_alloc(block, bytes, path, err));
    if (transposed)
        copy_fortran(npy, *block);
    else
        memcpy(*block, npy->bytes, bytes);
    if (swapped)
        swap_bytes(*block, bytes / npy->type->swap, npy->type->swap);
    array->data = *block;
    return STATUS_OK;
}

static Status read_array(Npz *npz, const unsigned char *bytes, size_t size, const char *name, void *unpacked,
                         const char *path, Error *err)
{
    Npy npy = {0};
    size_t i = npz->count;
    const char *why = parse_npy(bytes, size, &npy);
    if (why != NULL && name[0] != '\0')
        return fail(err, STATUS_REJECTED, "%s: array '%s' cannot be read: %s", path, name, why);
    if (why != NULL)
        return fail(err, STATUS_REJECTED, "%s: cannot be read: %s", path, why);
    void *block = NULL;
    npz->names[i] = arena_strdup(&npz->arena, name);
    npz->arrays[i] = arena_new(&npz->arena, Array);
    Status status = read_elements(npz, &npy, npz->arrays[i], &block, path, err);
    npz->blocks[i] = block != NULL ? block : unpacked;
    if (block != NULL)
        block_free(unpacked);
    npz->count++;
    return status;
}

/* ---- .npz ------------------------------------------------------------------------------------------------------- */

static Status read_entry(Npz *npz, const ZipEntry *entry, const char *path, Error *err)
{
    if (!text_ends(entry->name, ".npy"))
        return STATUS_OK;
    const char *name = arena_strndup(&npz->arena, entry->name, strlen(entry->name) - 4);
    if (entry->method == 0)
        return read_array(npz, entry->bytes, (size_t)entry->size, name, NULL, path, err);
    void *unpacked;
    TRY(block_alloc(&unpacked, (size_t)entry->size, path, err));
    Status status = zip_extract(entry, unpacked, path, err);
    size_t before = npz->count;
    if (status == STATUS_OK)
        status = read_array(npz, unpacked, (size_t)entry->size, name, unpacked, path, err);
    if (npz->count == before)
        block_free(unpacked);
    return status;
}

static void make_room(Npz *npz, size_t count)
{
    npz->names = arena_array(&npz->arena, const char *, count);
    npz->arrays = arena_array(&npz->arena, Array *, count);
    npz->blocks = arena_array(&npz->arena, void *, count);
}

static Status read_archive(Npz *npz, const char *path, Error *err)
{
    Zip zip;
    Status status = zip_list(&zip, &npz->file, path, err);
    if (status == STATUS_OK)
        make_room(npz, zip.count + 1);
    for (size_t i = 0; status == STATUS_OK && i < zip.count; i++)
        status = read_entry(npz, &zip.entries[i], path, err);
    zip_release(&zip);
    if (status == STATUS_OK && npz->count == 0)
        return fail(err, STATUS_REJECTED, "%s: holds no arrays", path);
    return status;
}

Status npz_open(Npz *npz, const char *path, Error *err)
{
    memset(npz, 0, sizeof *npz);
    arena_init(&npz->arena);
    Status status = mapping_open(&npz->file, path, err);
    if (status == STATUS_OK && npz->file.size >= sizeof magic && memcmp(npz->file.data, magic, sizeof magic) == 0) {
        make_room(npz, 1);
        status = read_array(npz, npz->file.data, npz->file.size, "", NULL, path, err);
    } else if (status == STATUS_OK) {
        status = read_archive(npz, path, err);
    }
    if (status != STATUS_OK)
        npz_release(npz);
    return status;
}

void npz_release(Npz *npz)
{
    for (size_t i = 0; i < npz->count; i++)
        block_free(npz->blocks[i]);
    mapping_release(&npz->file);
    arena_release(&npz->arena);
    memset(npz, 0, sizeof *npz);
}

const Array *npz_find(const Npz *npz, const char *name)
{
    for (size_t i = 0; i < npz->count; i++)
        if (strcmp(npz->names[i], name) == 0)
            return npz->arrays[i];
    return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static const char *numpy_code(DType dtype)
{
    for (int i = 0; i < NUMPY_TYPES; i++)
        if (numpy_types[i].dtype == dtype)
            return numpy_types[i].code;
    return NULL;
}

/* Strings become fixed-width bytes (S), as long as the longest. */
static Status fixed_strings(Arena *arena, const Array *array, char *code, size_t room, ZipPart *part, Error *err)
{
    const Bytes *strings = array->data;
    size_t width = 1, total;
    for (int64_t i = 0; i < array->count; i++)
        width = strings[i].length > width ? strings[i].length : width;
    if (!size_mul(width, (size_t)array->count, &total))
        return fail(err, STATUS_ENVIRONMENT, "strings too long to be written: %zu bytes each", width);
    char *rows = arena_alloc(arena, total + 1);
    for (int64_t i = 0; i < array->count; i++)
        memcpy(rows + (size_t)i * width, strings[i].data, strings[i].length);
    snprintf(code, room, "S%zu", width);
    part->bytes[1] = rows;
    part->sizes[1] = total;
    return STATUS_OK;
}

static Status describe_part(Arena *arena, const Array *array, ZipPart *part, Error *err)
{
    char code[32];
    if (array->kind != ARRAY_TENSOR)
        return fail(err, STATUS_UNSUPPORTED, "a sequence or optional cannot be written as one numpy array");
    if (array->dtype == DTYPE_STRING) {
        TRY(fixed_strings(arena, array, code, sizeof code, part, err));
    } else {
        Array *plain = (Array *)(uintptr_t)array;
        bool unpacked =
            dtype_is_integer(array->dtype) && numpy_code(array->dtype) == NULL; /* 2 and 4 bits: a byte each */
        if (dtype_is_float(array->dtype) && numpy_code(array->dtype) == NULL)
            TRY(array_convert(arena, array, DTYPE_F32, &plain, err));
        const char *known = numpy_code(plain->dtype);
        bool is_signed = plain->dtype == DTYPE_I4 || plain->dtype == DTYPE_I2;
        if (known == NULL && !unpacked)
            return fail(err, STATUS_UNSUPPORTED, "%s cannot be written as a numpy array", dtype_name(array->dtype));
        snprintf(code, sizeof code, "%s", known != NULL ? known : is_signed ? "i1" : "u1");
        part->bytes[1] = plain->data;
        part->sizes[1] = (size_t)plain->count * dtype_size(plain->dtype);
    }
    Str text;
    str_init(&text);
    bool bytes = code[0] == 'S' || strcmp(code + 1, "1") == 0;
    str_printf(&text, "{'descr': '%c%s', 'fortran_order': False, 'shape': (", bytes ? '|' : '<', code);
    for (int i = 0; i < array->rank; i++)
        str_printf(&text, "%" PRId64 "%s", array->dims[i], array->rank == 1 ? "," : i + 1 < array->rank ? ", " : "");
    str_append(&text, "), }");
    while ((10 + text.length + 1) % 64 != 0)
        str_append(&text, " ");
    str_append(&text, "\n");
    unsigned char *header = arena_alloc(arena, 10 + text.length);
    memcpy(header, magic, sizeof magic);
    header[6] = 1;
    header[7] = 0;
    header[8] = (unsigned char)text.length;
    header[9] = (unsigned char)(text.length >> 8);
    memcpy(header + 10, text.text, text.length);
    part->bytes[0] = header;
    part->sizes[0] = 10 + text.length;
    str_release(&text);
    return STATUS_OK;
}

Status npz_write(const char *path, const char *const *names, const Array *const *arrays, size_t count, Error *err)
{
    Arena arena;
    arena_init(&arena);
    ZipPart *parts = arena_array(&arena, ZipPart, count + 1);
    Status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        parts[i].name = arena_printf(&arena, "%s.npy", names[i]);
        status = describe_part(&arena, arrays[i], &parts[i], err);
        if (status != STATUS_OK)
            error_prefix(err, "%s: array '%s'", path, names[i]);
    }
    if (status == STATUS_OK)
        status = zip_write(path, parts, count, err);
    arena_release(&arena);
    return status;
}

Status npy_write(const char *path, const Array *array, Error *err)
{
    Arena arena;
    AtomicFile file = {0};
    ZipPart part = {0};
    arena_init(&arena);
    Status status = describe_part(&arena, array, &part, err);
    if (status == STATUS_OK)
        status = atomic_open(&file, path, err);
    if (status == STATUS_OK)
        status = atomic_write(&file, part.bytes[0], part.sizes[0], err);
    if (status == STATUS_OK)
        status = atomic_write(&file, part.bytes[1], part.sizes[1], err);
    if (status == STATUS_OK)
        status = atomic_commit(&file, err);
    atomic_release(&file);
    arena_release(&arena);
    return status;
}
