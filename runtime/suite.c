/* Conformance: cases in the format of ONNX's backend tests, run by both engines and compared with what the file
 * expects.
 *
 * The tolerance is numpy's: |found - expected| <= atol + rtol * |expected|, NaN equal to NaN. Strings, shapes and types
 * must be equal, and so must integers. A node that draws random numbers is compared by type and shape alone: no two
 * generators agree. Every output must be expected by a file, every file must belong to an input or output, and data
 * sets must be numbered without a gap: a case cannot pass by comparing nothing. */
#include "runtime/runtime.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

enum { INPUTS_MAX = 256, PATH_ROOM = 4096 };

typedef struct Case {
    const char *folder;
    double rtol, atol;
    bool random; /* the model draws numbers */
    Model *document;
    Arena arena;               /* inputs, expected outputs, found ones */
    Array *inputs[INPUTS_MAX]; /* by position in the document's inputs; NULL: not given */
    Array *expected[INPUTS_MAX];
    size_t expected_count;
    SuiteResult *result;
} Case;

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void read_tolerance(Case *c)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/tolerance.json", c->folder);
    json_t *json = json_load_file(path, 0, NULL);
    json_t *rtol = json_object_get(json, "rtol"), *atol = json_object_get(json, "atol");
    c->rtol = json_is_number(rtol) ? json_number_value(rtol) : 1e-3;
    c->atol = json_is_number(atol) ? json_number_value(atol) : 1e-7;
    json_decref(json);
}

static ArrayKind kind_of(const Type *type)
{
    if (type->kind == TYPE_SEQUENCE)
        return ARRAY_SEQUENCE;
    return type->kind == TYPE_OPTIONAL ? ARRAY_OPTIONAL : ARRAY_TENSOR;
}

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* One `input_3.pb`; *array stays NULL when there is no such file. */
static Status read_value(Case *c, int set, const char *what, size_t index, const Value *value, Array **array,
                         Error *err)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/test_data_set_%d/%s_%zu.pb", c->folder, set, what, index);
    *array = NULL;
    if (!exists(path))
        return STATUS_OK;
    Mapping file;
    TRY(mapping_open(&file, path, err));
    Status status = array_import_proto(&c->arena, file.data, file.size, path, kind_of(&value->type), array, err);
    mapping_release(&file);
    if (status == STATUS_OK && value->type.dtype == DTYPE_BF16 && (*array)->dtype == DTYPE_U16)
        (*array)->dtype = DTYPE_BF16; /* older files hold its bits */
    return status;
}

/* Files of the set named `prefix`..; -1: no folder. */
static int count_entries(const char *folder, const char *prefix)
{
    DIR *entries = opendir(folder);
    int count = entries == NULL ? -1 : 0;
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (entries != NULL)
        closedir(entries);
    return count;
}

/* As many files as were read, so none lies beside the model's inputs and outputs. */
static Status check_files(const Case *c, int set, const char *prefix, Array *const *read, size_t count, Error *err)
{
    char path[PATH_ROOM];
    int given = 0, found;
    for (size_t i = 0; i < count; i++)
        given += read[i] != NULL;
    snprintf(path, sizeof path, "%s/test_data_set_%d", c->folder, set);
    found = count_entries(path, prefix);
    return found == given
               ? STATUS_OK
               : fail(err, STATUS_REJECTED, "test_data_set_%d holds %d files %s*, %d of them belong to the model", set,
                      found, prefix, given);
}

static Status read_set(Case *c, int set, Error *err)
{
    const Graph *graph = c->document->graph;
    if (graph->output_count == 0)
        return fail(err, STATUS_REJECTED, "the model has no outputs");
    if (graph->input_count > INPUTS_MAX || graph->output_count > INPUTS_MAX)
        return fail(err, STATUS_UNSUPPORTED, "more than %d inputs or outputs", INPUTS_MAX);
    for (size_t i = 0; i < graph->input_count; i++)
        TRY(read_value(c, set, "input", i, graph->inputs[i], &c->inputs[i], err));
    c->expected_count = graph->output_count;
    for (size_t i = 0; i < graph->output_count; i++)
        TRY(read_value(c, set, "output", i, graph->outputs[i], &c->expected[i], err));
    for (size_t i = 0; i < graph->output_count; i++)
        if (c->expected[i] == NULL)
            return fail(err, STATUS_REJECTED, "test_data_set_%d expects nothing of output %zu '%s'", set, i,
                        graph->outputs[i]->name);
    TRY(check_files(c, set, "input_", c->inputs, graph->input_count, err));
    return check_files(c, set, "output_", c->expected, graph->output_count, err);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* The first thing that differs, and the largest difference. */
static void differ(Case *c, const char *engine, size_t output, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void differ(Case *c, const char *engine, size_t output, const char *format, ...)
{
    if (c->result->outcome == SUITE_DIFFERS)
        return;
    c->result->outcome = SUITE_DIFFERS;
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(c->result->reason, sizeof c->result->reason, "%s: output %zu '%s' %s", engine, output,
             c->document->graph->outputs[output]->name, what);
}

static bool is_close(const Case *c, double found, double expected, double rtol)
{
    if (isnan(found) || isnan(expected))
        return isnan(found) && isnan(expected);
    if (isinf(found) || isinf(expected))
        return found == expected;
    return fabs(found - expected) <= c->atol + rtol * fabs(expected);
}

static void compare_numbers(Case *c, const char *engine, size_t output, const Array *found, const Array *expected)
{
    int64_t bad = 0, worst = 0;
    double largest = 0;
    /* two steps of bfloat16, as ONNX's own runner allows */
    double rtol = expected->dtype == DTYPE_BF16 ? fmax(c->rtol, 0x1p-6) : c->rtol;
    bool complex = expected->dtype == DTYPE_C64 || expected->dtype == DTYPE_C128;
    Array parts[2] = {*found, *expected};
    for (int k = 0; complex && k < 2; k++) {
        parts[k].dtype = expected->dtype == DTYPE_C64 ? DTYPE_F32 : DTYPE_F64;
        parts[k].count *= 2;
    }
    for (int64_t i = 0; i < parts[1].count; i++) {
        double a = array_f64_at(&parts[0], i), b = array_f64_at(&parts[1], i), error = fabs(a - b);
        bool exact = dtype_is_integer(expected->dtype) || expected->dtype == DTYPE_BOOL;
        if (exact && array_i64_at(found, i) == array_i64_at(expected, i))
            continue;
        if (error > c->result->max_error)
            c->result->max_error = error;
        if (!exact && is_close(c, a, b, rtol))
            continue;
        if (bad++ == 0 || error > largest) {
            largest = error;
            worst = i;
        }
    }
    if (bad > 0)
        differ(c, engine, output,
               "%" PRId64 " of %" PRId64 " elements differ, most at %" PRId64 ": %.9g expected, found %.9g", bad,
               parts[1].count, worst, array_f64_at(&parts[1], worst), array_f64_at(&parts[0], worst));
}

static void compare_strings(Case *c, const char *engine, size_t output, const Array *found, const Array *expected)
{
    const Bytes *a = found->data, *b = expected->data;
    for (int64_t i = 0; i < expected->count; i++)
        if (a[i].length != b[i].length || memcmp(a[i].data, b[i].data, a[i].length) != 0) {
            differ(c, engine, output, "element %" PRId64 ": '%.*s' expected, found '%.*s'", i, (int)b[i].length,
                   b[i].data, (int)a[i].length, a[i].data);
            return;
        }
}

/* An optional with something in it compares as what is in it. */
static const Array *unwrap(const Array *array)
{
    return array->kind == ARRAY_OPTIONAL && array->item_count == 1 ? array->items[0] : array;
}

static void compare(Case *c, const char *engine, size_t output, const Array *found, const Array *expected)
{
    if (found == NULL) {
        differ(c, engine, output, "was not computed");
        return;
    }
    found = unwrap(found);
    expected = unwrap(expected);
    if (found->kind != expected->kind || found->item_count != expected->item_count) {
        differ(c, engine, output, "is another kind of value: %zu items expected, found %zu", expected->item_count,
               found->item_count);
        return;
    }
    for (size_t i = 0; i < expected->item_count; i++)
        compare(c, engine, output, found->items[i], expected->items[i]);
    if (expected->kind != ARRAY_TENSOR)
        return;
    bool same_shape = found->rank == expected->rank && found->dtype == expected->dtype;
    for (int i = 0; same_shape && i < found->rank; i++)
        same_shape = found->dims[i] == expected->dims[i];
    if (!same_shape) {
        differ(c, engine, output, "is %s%s, expected %s%s", dtype_name(found->dtype),
               dims_text(&c->arena, found->rank, found->dims), dtype_name(expected->dtype),
               dims_text(&c->arena, expected->rank, expected->dims));
        return;
    }
    if (c->random)
        return;
    if (expected->dtype == DTYPE_STRING)
        compare_strings(c, engine, output, found, expected);
    else
        compare_numbers(c, engine, output, found, expected);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static bool draws(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        bool asleep = node_is(node, "Dropout") && node_input(node, 2) == NULL;
        if (node->op != NULL && (node->op->traits & OP_RANDOM) != 0 && !asleep)
            return true;
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && draws(node->attrs[i]->g))
                return true;
    }
    return false;
}

/* One engine's outputs against the expected ones. */
static Status run_engine(Case *c, const Run *run, bool planned, Error *err)
{
    Array *outputs[INPUTS_MAX] = {NULL};
    TRY((planned ? run_planned : run_interpreted)(run, outputs, &c->arena, 0, err));
    for (size_t i = 0; i < c->expected_count; i++)
        compare(c, planned ? "plan" : "interpreter", i, outputs[i], c->expected[i]);
    return STATUS_OK;
}

static Status run_engines(Case *c, Error *err)
{
    Run run;
    TRY(run_build(&run, c->document, (const Array **)c->inputs, err));
    c->random = draws(run.working->graph);
    Status status = run_engine(c, &run, false, err);
    if (status == STATUS_OK) {
        status = run_engine(c, &run, true, err);
        c->result->planned = status == STATUS_OK;
        if (status == STATUS_UNSUPPORTED) { /* the interpreter's alone to run */
            error_clear(err);
            status = STATUS_OK;
        }
    }
    model_free(run.working);
    return status;
}

static bool has_set(const char *folder, int set)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/test_data_set_%d", folder, set);
    return exists(path);
}

/* One data set, from a fresh import: inputs may replace initializers. */
static Status run_set(Case *c, int set, Error *err)
{
    char path[PATH_ROOM];
    if (!has_set(c->folder, set))
        return fail(err, STATUS_REJECTED, "test_data_set_%d is missing between others", set);
    snprintf(path, sizeof path, "%s/model.onnx", c->folder);
    TRY(model_import(path, &builtin_ops, &c->document, err));
    TRY(read_set(c, set, err));
    return run_engines(c, err);
}

static void note_failure(SuiteResult *result, Status status, const Error *err)
{
    if (result->outcome == SUITE_DIFFERS)
        return;
    result->outcome = status == STATUS_UNSUPPORTED ? SUITE_UNSUPPORTED : SUITE_DIFFERS;
    snprintf(result->reason, sizeof result->reason, "%s", err->message);
}

static bool is_case(const char *folder)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    return has_set(folder, 0) && exists(path);
}

Status suite_run(const char *folder, SuiteResult *result, Error *err)
{
    *result = (SuiteResult){.outcome = SUITE_PASSED};
    if (!is_case(folder))
        return fail(err, STATUS_REJECTED, "%s: no model.onnx with test_data_set_0", folder);
    int sets = count_entries(folder, "test_data_set_");
    for (int set = 0; set < sets && result->outcome == SUITE_PASSED; set++) {
        Case c = {.folder = folder, .result = result};
        Error local = {0};
        arena_init(&c.arena);
        read_tolerance(&c);
        Status status = run_set(&c, set, &local);
        if (status != STATUS_OK)
            note_failure(result, status, &local);
        model_free(c.document);
        arena_release(&c.arena);
    }
    return STATUS_OK;
}

/* ---- finding cases ----------------------------------------------------------------------------------------------- */

typedef struct FolderList {
    char **items;
    size_t count, capacity;
} FolderList;

static void list_add(FolderList *list, const char *path)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity * 2 + 64;
        char **grown = realloc(list->items, list->capacity * sizeof *grown);
        if (grown == NULL)
            abort();
        list->items = grown;
    }
    list->items[list->count] = strdup(path);
    if (list->items[list->count++] == NULL)
        abort();
}

static Status list_below(FolderList *list, const char *folder, int depth, Error *err)
{
    if (is_case(folder)) {
        list_add(list, folder);
        return STATUS_OK;
    }
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort);
    if (count < 0)
        return fail(err, STATUS_REJECTED, "%s: cannot be read as a folder", folder);
    Status status = STATUS_OK;
    for (int i = 0; i < count; i++) {
        char path[PATH_ROOM];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        struct stat info;
        bool inner = entries[i]->d_name[0] != '.' && stat(path, &info) == 0 && S_ISDIR(info.st_mode);
        if (inner && depth < 8 && status == STATUS_OK)
            status = list_below(list, path, depth + 1, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

Status suite_list(const char *root, char ***folders, size_t *count, Error *err)
{
    FolderList list = {0};
    Status status = list_below(&list, root, 0, err);
    if (status == STATUS_OK && list.count == 0)
        status = fail(err, STATUS_REJECTED, "%s: no folder below holds model.onnx and test_data_set_0", root);
    if (status != STATUS_OK) {
        suite_list_free(list.items, list.count);
        return status;
    }
    *folders = list.items;
    *count = list.count;
    return STATUS_OK;
}

void suite_list_free(char **folders, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(folders[i]);
    free(folders);
}
