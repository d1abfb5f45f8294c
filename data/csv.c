/* Tables in text, RFC 4180: quoted cells may hold separators, line ends and doubled quotes; lines end in LF or CRLF; a
 * byte order mark is passed over. Every row must have as many cells as the first. */
#include <string.h>

#include "data/data.h"

typedef struct Reader {
    const char *at, *end;
    char separator;
    size_t line;
} Reader;

/* The next cell into the arena. *last: the row ends with it. */
static const char *read_cell(Reader *r, Arena *arena, bool *last, bool *closed)
{
    const char *start = r->at;
    char *text;
    size_t length = 0;
    *closed = true;
    if (r->at < r->end && *r->at == '"') {
        const char *p = ++r->at;
        while (p < r->end && (*p != '"' || (p + 1 < r->end && p[1] == '"')))
            p += *p == '"' ? 2 : 1;
        *closed = p < r->end;
        text = arena_alloc(arena, (size_t)(p - r->at) + 1);
        for (; r->at < p; r->at++) {
            text[length++] = *r->at;
            r->line += *r->at == '\n';
            r->at += *r->at == '"';
        }
        r->at = p < r->end ? p + 1 : p;
        while (r->at < r->end && *r->at != r->separator && *r->at != '\n' && *r->at != '\r')
            r->at++;
    } else {
        while (r->at < r->end && *r->at != r->separator && *r->at != '\n' && *r->at != '\r')
            r->at++;
        text = arena_strndup(arena, start, (size_t)(r->at - start));
    }
    *last = r->at == r->end || *r->at != r->separator;
    if (!*last) {
        r->at++;
    } else {
        r->at += r->at < r->end && *r->at == '\r';
        r->at += r->at < r->end && *r->at == '\n';
        r->line++;
    }
    return text;
}

static Status read_rows(Csv *csv, Reader *r, const char *path, Error *err)
{
    size_t count = 0, capacity = 0, in_row = 0;
    while (r->at < r->end) {
        bool last, closed;
        size_t line = r->line;
        if (in_row == 0 && (*r->at == '\n' || *r->at == '\r')) { /* empty lines */
            r->line += *r->at++ == '\n';
            continue;
        }
        csv->cells = arena_grow(&csv->arena, csv->cells, count, &capacity, sizeof *csv->cells);
        csv->cells[count++] = read_cell(r, &csv->arena, &last, &closed);
        in_row++;
        if (!closed)
            return fail(err, STATUS_REJECTED, "%s: line %zu: a quote is never closed", path, line);
        if (!last && r->at < r->end)
            continue;
        if (!last) { /* the file ends with a separator: an empty last cell */
            csv->cells = arena_grow(&csv->arena, csv->cells, count, &capacity, sizeof *csv->cells);
            csv->cells[count++] = "";
            in_row++;
        }
        if (csv->rows == 0)
            csv->columns = in_row;
        if (in_row != csv->columns)
            return fail(err, STATUS_REJECTED, "%s: line %zu: %zu cells, the heading has %zu", path, line, in_row,
                        csv->columns);
        csv->rows++;
        in_row = 0;
    }
    return STATUS_OK;
}

Status csv_read(Csv *csv, const char *path, char separator, Error *err)
{
    memset(csv, 0, sizeof *csv);
    Mapping file;
    TRY(mapping_open(&file, path, err));
    arena_init(&csv->arena);
    const char *text = (const char *)file.data;
    Reader reader = {text, text + file.size, separator, 1};
    if (file.size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        reader.at += 3;
    Status status = read_rows(csv, &reader, path, err);
    mapping_release(&file);
    if (status == STATUS_OK && csv->rows < 2)
        status = fail(err, STATUS_REJECTED, "%s: a heading and at least one row are needed", path);
    if (status != STATUS_OK)
        csv_release(csv);
    return status;
}

void csv_release(Csv *csv)
{
    arena_release(&csv->arena);
    memset(csv, 0, sizeof *csv);
}
