/* Tables of picture files: columns `path` and `label` (classes by name), or `path` and columns of numbers (one vector
 * of targets a sample: regression, several labels). A column `split` says train, val or test. Paths are relative to the
 * table. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "data/dataset.h"

typedef struct Columns {
    size_t path, label, split; /* SIZE_MAX: none */
} Columns;

static const char *cell(const Csv *csv, size_t row, size_t column)
{
    return csv->cells[row * csv->columns + column];
}

static bool is_one_of(const char *text, const char *a, const char *b, const char *c)
{
    return strcasecmp(text, a) == 0 || strcasecmp(text, b) == 0 || strcasecmp(text, c) == 0;
}

static Columns find_columns(const Csv *csv)
{
    Columns found = {SIZE_MAX, SIZE_MAX, SIZE_MAX};
    for (size_t i = csv->columns; i-- > 0;) {
        const char *name = cell(csv, 0, i);
        if (is_one_of(name, "path", "file", "image") || strcasecmp(name, "filename") == 0)
            found.path = i;
        else if (is_one_of(name, "label", "class", "category"))
            found.label = i;
        else if (is_one_of(name, "split", "part", "set"))
            found.split = i;
    }
    return found;
}

static Status read_table(Csv *csv, const char *path, Error *err)
{
    return csv_read(csv, path, text_ends(path, ".tsv") ? '\t' : ',', err);
}

bool table_has_parts(const char *path, Error *err)
{
    Csv csv;
    if (read_table(&csv, path, err) != STATUS_OK)
        return false;
    bool has = find_columns(&csv).split != SIZE_MAX;
    csv_release(&csv);
    return has;
}

static bool in_part(const Csv *csv, const Columns *columns, size_t row, const char *part)
{
    if (part == NULL || columns->split == SIZE_MAX)
        return true;
    const char *text = cell(csv, row, columns->split);
    bool val = is_one_of(text, "val", "valid", "validation");
    return strcmp(part, "val") == 0 ? val : strcasecmp(text, part) == 0;
}

/* ---- labels by name ---------------------------------------------------------------------------------------------- */

static bool is_number(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

/* Numbers by value, then text. */
static int by_label(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    if (is_number(x) && is_number(y) && strlen(x) != strlen(y))
        return strlen(x) < strlen(y) ? -1 : 1;
    return strcmp(x, y);
}

/* Every different label of the table (of all parts, so that parts agree), sorted. */
static size_t find_labels(Store *store, const Csv *csv, size_t column)
{
    Map seen;
    map_init(&seen);
    for (size_t row = 1; row < csv->rows; row++)
        if (!map_has(&seen, cell(csv, row, column)))
            map_set(&seen, cell(csv, row, column), (void *)1);
    const char **names = arena_array(&store->arena, const char *, seen.live + 1);
    size_t count = 0;
    for (size_t i = 0; i < seen.count; i++)
        if (seen.entries[i].key != NULL)
            names[count++] = arena_strdup(&store->arena, seen.entries[i].key);
    map_release(&seen);
    qsort(names, count, sizeof *names, by_label);
    store->class_names[0] = names;
    return count;
}

static Status fill_labels(Store *store, const Csv *csv, const Columns *columns, const char *part,
                          const char *const *classes, Error *err)
{
    size_t count = 0, i = 0;
    if (classes == NULL)
        count = find_labels(store, csv, columns->label);
    else {
        while (classes[count] != NULL)
            count++;
        store->class_names[0] = arena_array(&store->arena, const char *, count + 1);
        for (size_t k = 0; k < count; k++)
            store->class_names[0][k] = arena_strdup(&store->arena, classes[k]);
    }
    Map index;
    map_init(&index);
    for (size_t k = 0; k < count; k++)
        map_set(&index, store->class_names[0][k], (void *)(uintptr_t)(k + 1));
    Status status = STATUS_OK;
    for (size_t row = 1; status == STATUS_OK && row < csv->rows; row++) {
        if (!in_part(csv, columns, row, part))
            continue;
        uintptr_t found = (uintptr_t)map_get(&index, cell(csv, row, columns->label));
        if (found == 0)
            status = fail(err, STATUS_REJECTED, "%s: row %zu: label '%s' is not one of the %zu classes", store->place,
                          row + 1, cell(csv, row, columns->label), count);
        store->labels[i++] = (int64_t)found - 1;
    }
    map_release(&index);
    store->targets[0] = (Field){.name = "y", .kind = FIELD_ARRAY, .is_class = true, .classes = count};
    store->targets[0].type.dtype = DTYPE_I64;
    return status;
}

/* ---- columns of numbers ------------------------------------------------------------------------------------------ */

static void name_columns(Store *store, const Csv *csv, const Columns *columns, size_t width)
{
    size_t count = 0;
    store->column_names = arena_array(&store->arena, const char *, width + 1);
    for (size_t c = 0; c < csv->columns; c++)
        if (c != columns->path && c != columns->split)
            store->column_names[count++] = arena_strdup(&store->arena, cell(csv, 0, c));
}

static Status fill_values(Store *store, const Csv *csv, const Columns *columns, const char *part, size_t width,
                          Error *err)
{
    float *out = store->values;
    for (size_t row = 1; row < csv->rows; row++)
        for (size_t c = 0; c < csv->columns && in_part(csv, columns, row, part); c++) {
            if (c == columns->path || c == columns->split)
                continue;
            char *end;
            const char *text = cell(csv, row, c);
            *out = strtof(text, &end);
            if (end == text || *end != '\0' || !isfinite(*out++))
                return fail(err, STATUS_REJECTED, "%s: row %zu, column '%s': '%s' is no number", store->place, row + 1,
                            cell(csv, 0, c), text);
        }
    Field *field = &store->targets[0];
    *field = (Field){.name = "y", .kind = FIELD_ARRAY, .zero_one = true};
    for (size_t i = 0; i < store->count * width; i++)
        field->zero_one = field->zero_one && (fabsf(store->values[i]) <= 0 || fabsf(store->values[i] - 1) <= 0);
    name_columns(store, csv, columns, width);
    field->type.dtype = DTYPE_F32;
    field->type.rank = 1;
    field->type.dims[0] = (int64_t)width;
    return STATUS_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static Status fill_table(Store *store, const Csv *csv, const char *part, const char *const *classes, bool unlabelled,
                         Error *err)
{
    Columns columns = find_columns(csv);
    size_t width = csv->columns - 1 - (columns.split != SIZE_MAX);
    if (columns.path == SIZE_MAX)
        return fail(err, STATUS_REJECTED, "%s: its heading has no column 'path'", store->place);
    store->is_files = true;
    store->input_count = 1;
    store->inputs[0] = (Field){.name = "", .kind = FIELD_PICTURE};
    store->inputs[0].type.rank = -1;
    for (size_t row = 1; row < csv->rows; row++)
        if (in_part(csv, &columns, row, part))
            TRY(files_add(&store->files, "", cell(csv, row, columns.path), err));
    store->count = store->files.count;
    if (store->count == 0)
        return fail(err, STATUS_REJECTED, "%s: no rows of part '%s'", store->place, part);
    if (width == 0 && unlabelled)
        return STATUS_OK;
    if (width == 0)
        return fail(err, STATUS_REJECTED, "%s: its heading has no column 'label'", store->place);
    store->target_count = 1;
    if (columns.label == SIZE_MAX) {
        store->values = calloc(store->count * width + 1, sizeof *store->values);
        return store->values == NULL ? fail(err, STATUS_ENVIRONMENT, "%s: no memory for its numbers", store->place)
                                     : fill_values(store, csv, &columns, part, width, err);
    }
    store->labels = calloc(store->count + 1, sizeof *store->labels);
    return store->labels == NULL ? fail(err, STATUS_ENVIRONMENT, "%s: no memory for its labels", store->place)
                                 : fill_labels(store, csv, &columns, part, classes, err);
}

/* The folder of the table is the root of its paths. */
static Status store_beside(const char *path, Store **store, Error *err)
{
    const char *slash = strrchr(path, '/');
    Str folder;
    str_init(&folder);
    if (slash == NULL)
        str_append(&folder, ".");
    else
        str_append_bytes(&folder, path, slash == path ? 1 : (size_t)(slash - path));
    Status status = store_new(folder.text, store, err);
    str_release(&folder);
    return status;
}

Status open_table(const char *path, const char *part, const char *const *classes, bool unlabelled, Store **store,
                  Error *err)
{
    Csv csv;
    TRY(read_table(&csv, path, err));
    Status status = store_beside(path, store, err);
    if (status == STATUS_OK) {
        const char *folder = (*store)->place;
        (*store)->place = path; /* for messages */
        status = fill_table(*store, &csv, part, classes, unlabelled, err);
        (*store)->place = folder;
    }
    csv_release(&csv);
    if (status != STATUS_OK) {
        store_release(*store);
        *store = NULL;
    }
    return status;
}
