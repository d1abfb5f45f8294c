/* What lies at a path, in parts: folders with train/ and val/ in them, archives with train_ and val_ arrays, tables
 * with a column for it, IDX files called train- and t10k-. Where there is no validation part, one is held out of the
 * training part, each class in proportion. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/dataset.h"

typedef enum Part { PART_TRAIN, PART_VAL, PART_TEST, PART_COUNT } Part;

typedef struct Parts {
    Dataset *sets[PART_COUNT];
} Parts;

static const char *const part_names[PART_COUNT][3] = {
    {"train", "training", "trn"}, {"val", "valid", "validation"}, {"test", "testing", "tst"}};

static bool join_existing(char *out, size_t room, const char *folder, const char *name, bool want_folder)
{
    struct stat info;
    int n = snprintf(out, room, "%s/%s", folder, name);
    return n > 0 && (size_t)n < room && stat(out, &info) == 0 && (bool)S_ISDIR(info.st_mode) == want_folder;
}

/* ---- one place of one kind --------------------------------------------------------------------------------------- */

/* The class names of train, for the others to follow. */
static const char *const *names_of(const DataOptions *options, const Parts *parts)
{
    if (options->classes != NULL || parts->sets[PART_TRAIN] == NULL)
        return options->classes;
    return parts->sets[PART_TRAIN]->store->class_names[0]; /* made with room for a NULL at the end */
}

static Status put(Store *store, Part part, Parts *parts, Error *err)
{
    return store == NULL ? STATUS_OK : dataset_new(store, &parts->sets[part], err);
}

static Status add_folder(const char *folder, Part part, const DataOptions *options, Parts *parts, Error *err)
{
    Store *store;
    TRY(open_folder(folder, names_of(options, parts), options->unlabelled, &store, err));
    return put(store, part, parts, err);
}

static Status add_archive(const char *path, const DataOptions *options, Parts *parts, Error *err)
{
    static const char *const prefixes[PART_COUNT] = {"train_", "val_", "test_"};
    Shared *shared;
    TRY(shared_open(path, &shared, err));
    Status status = STATUS_OK;
    bool any = false;
    for (int part = 0; status == STATUS_OK && part < PART_COUNT; part++) {
        Store *store;
        status = open_arrays(shared, path, prefixes[part], options, &store, err);
        any |= store != NULL;
        if (status == STATUS_OK)
            status = put(store, (Part)part, parts, err);
    }
    if (status == STATUS_OK && !any) {
        Store *store;
        status = open_arrays(shared, path, "", options, &store, err);
        if (status == STATUS_OK)
            status = put(store, PART_TRAIN, parts, err);
    }
    shared_release(shared);
    return status;
}

static Status add_table(const char *path, const DataOptions *options, Parts *parts, Error *err)
{
    bool divided = table_has_parts(path, err);
    for (int part = 0; part < (divided ? PART_COUNT : 1); part++) {
        Store *store;
        Status status = open_table(path, divided ? part_names[part][0] : NULL, names_of(options, parts),
                                   options->unlabelled, &store, err);
        if (status != STATUS_OK && part != PART_TRAIN && err->status == STATUS_REJECTED &&
            strstr(err->message, "no rows of part") != NULL) {
            error_clear(err);
            continue;
        }
        TRY(status);
        TRY(put(store, (Part)part, parts, err));
    }
    return STATUS_OK;
}

static Status add_idx(const char *path, Part part, const DataOptions *options, Parts *parts, Error *err)
{
    Store *store;
    TRY(open_idx(path, options->unlabelled, &store, err));
    return put(store, part, parts, err);
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static Status add_file(const char *path, Part part, const DataOptions *options, Parts *parts, Error *err)
{
    if (text_ends(path, ".npz") || text_ends(path, ".npy")) {
        TRY(add_archive(path, options, parts, err));
    } else if (text_ends(path, ".csv") || text_ends(path, ".tsv")) {
        TRY(add_table(path, options, parts, err));
    } else if (strstr(path, "idx3") != NULL) {
        TRY(add_idx(path, part, options, parts, err));
    } else if (options->unlabelled) {
        Store *store;
        TRY(store_new(".", &store, err));
        store->is_files = true;
        store->count = 1;
        store->input_count = 1;
        store->inputs[0] = (Field){.name = "", .kind = FIELD_PICTURE};
        store->inputs[0].type.rank = -1;
        Status status = files_add(&store->files, "", path, err);
        if (status != STATUS_OK)
            store_release(store);
        TRY(status);
        TRY(put(store, PART_TRAIN, parts, err));
    } else {
        return fail(err, STATUS_REJECTED, "%s: data comes from a folder, .npz, .csv, .tsv or IDX file", path);
    }
    return STATUS_OK;
}

/* train/, val/, test/ as folders, or as archives; false when there are none of them. */
static Status add_part_folders(const char *folder, const DataOptions *options, Parts *parts, bool *any, Error *err)
{
    char path[4096];
    for (int part = 0; part < PART_COUNT; part++)
        for (int k = 0; k < 3 && parts->sets[part] == NULL; k++) {
            char archive[32];
            snprintf(archive, sizeof archive, "%s.npz", part_names[part][k]);
            if (join_existing(path, sizeof path, folder, part_names[part][k], true)) {
                TRY(add_folder(path, (Part)part, options, parts, err));
                *any = true;
            } else if (join_existing(path, sizeof path, folder, archive, false)) {
                Parts one = {0};
                Status status = add_archive(path, options, &one, err);
                parts->sets[part] = one.sets[PART_TRAIN];
                dataset_free(one.sets[PART_VAL]);
                dataset_free(one.sets[PART_TEST]);
                TRY(status);
                *any = true;
            }
        }
    return STATUS_OK;
}

static Status add_idx_folder(const char *folder, const DataOptions *options, Parts *parts, bool *any, Error *err)
{
    static const struct {
        const char *name;
        Part part;
    } files[] = {{"train-images-idx3-ubyte", PART_TRAIN}, {"t10k-images-idx3-ubyte", PART_TEST}};
    char path[4096], zipped[64];
    for (int i = 0; i < 2; i++) {
        snprintf(zipped, sizeof zipped, "%s.gz", files[i].name);
        if (!join_existing(path, sizeof path, folder, files[i].name, false) &&
            !join_existing(path, sizeof path, folder, zipped, false))
            continue;
        TRY(add_idx(path, files[i].part, options, parts, err));
        *any = true;
    }
    return STATUS_OK;
}

static Status add_place(const char *path, Part part, const DataOptions *options, Parts *parts, Error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return fail(err, STATUS_REJECTED, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return add_file(path, part, options, parts, err);
    bool any = false;
    if (part == PART_TRAIN && !options->unlabelled)
        TRY(add_part_folders(path, options, parts, &any, err));
    if (!any)
        TRY(add_idx_folder(path, options, parts, &any, err));
    return any ? STATUS_OK : add_folder(path, part, options, parts, err);
}

/* A place of its own for val or test: whatever lies there is that part. */
static Status add_other(const char *path, Part part, const DataOptions *options, Parts *parts, Error *err)
{
    if (path == NULL)
        return STATUS_OK;
    Parts one = {0};
    DataOptions inner = *options;
    inner.classes = names_of(options, parts);
    Status status = add_place(path, part, &inner, &one, err);
    dataset_free(parts->sets[part]);
    parts->sets[part] = NULL;
    for (int i = 0; i < PART_COUNT; i++)
        if (one.sets[i] != NULL && parts->sets[part] == NULL && (i == (int)part || one.sets[part] == NULL))
            parts->sets[part] = one.sets[i];
        else
            dataset_free(one.sets[i]);
    return status;
}

/* ---- classes that agree ------------------------------------------------------------------------------------------ */

/* Numbered classes: val and test may use fewer than train; with names given, labels must stay below their number. */
static Status agree(const DataOptions *options, Parts *parts, Error *err)
{
    size_t named = 0;
    while (options->classes != NULL && options->classes[named] != NULL)
        named++;
    Dataset *first = parts->sets[PART_TRAIN];
    for (int part = 0; part < PART_COUNT; part++) {
        Dataset *set = parts->sets[part];
        if (set == NULL || set->store->target_count == 0 || !set->target_fields[0].is_class)
            continue;
        size_t limit = options->classes != NULL ? named : first != NULL ? first->target_fields[0].classes : SIZE_MAX;
        if (set->store->targets[0].classes > limit)
            return fail(err, STATUS_REJECTED, "%s: label %zu of the %s part is beyond the %zu classes of %s",
                        set->store->place, set->store->targets[0].classes - 1, part_names[part][0], limit,
                        options->classes != NULL ? "the model" : "the training part");
        if (limit == SIZE_MAX)
            continue;
        set->store->targets[0].classes = set->target_fields[0].classes = limit;
        const char *const *names = options->classes != NULL ? options->classes : first->store->class_names[0];
        const char **copies = arena_array(&set->store->arena, const char *, limit + 1);
        for (size_t i = 0; i < limit; i++)
            copies[i] = arena_strdup(&set->store->arena, names == NULL ? "" : names[i]);
        set->store->class_names[0] = copies;
    }
    return STATUS_OK;
}

static Status check_classes(const Dataset *set, Error *err)
{
    if (set == NULL || set->store->target_count == 0 || !set->target_fields[0].is_class)
        return STATUS_OK;
    size_t classes = set->target_fields[0].classes, *counts = calloc(classes + 1, sizeof *counts), used = 0, last = 0;
    if (counts == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu classes", classes);
    dataset_class_counts(set, 0, counts);
    for (size_t c = 0; c < classes; c++)
        if (counts[c] > 0) {
            used++;
            last = c;
        }
    free(counts);
    if (used > 1)
        return STATUS_OK;
    return fail(err, STATUS_REJECTED, "%s: all %zu samples are of one class, '%s'; at least two are needed",
                set->store->place, set->count, dataset_class_name(set, 0, last));
}

static Status choose(const DataOptions *options, Parts *parts, Error *err)
{
    for (int part = 0; part < PART_COUNT; part++) {
        Dataset *set = parts->sets[part];
        if (set == NULL)
            continue;
        if (options->only != NULL)
            TRY(dataset_keep_classes(set, options->only, err));
        if (options->skip_broken)
            TRY(dataset_drop_broken(set, options, err));
        if (options->per_class > 0 && part == PART_TRAIN)
            TRY(dataset_limit(set, options->per_class, options->seed, err));
        if (set->count == 0)
            return fail(err, STATUS_REJECTED, "%s: no samples are left in its %s part", set->store->place,
                        part_names[part][0]);
    }
    return STATUS_OK;
}

static Status hold_out(const DataOptions *options, Parts *parts, bool *was_held_out, Error *err)
{
    Dataset *train = parts->sets[PART_TRAIN], *rest, *held;
    if (options->whole || options->held_out <= 0 || parts->sets[PART_VAL] != NULL || train == NULL)
        return STATUS_OK;
    TRY(dataset_split(train, options->held_out, options->seed, &rest, &held, err));
    if (rest->count == 0 || held->count == 0) {
        dataset_free(rest);
        dataset_free(held);
        return fail(err, STATUS_REJECTED, "%s: %zu samples are too few to hold some out for validation",
                    train->store->place, train->count);
    }
    dataset_free(train);
    parts->sets[PART_TRAIN] = rest;
    parts->sets[PART_VAL] = held;
    *was_held_out = true;
    return STATUS_OK;
}

static Status open_all(const DataOptions *options, Parts *parts, bool *was_held_out, Error *err)
{
    TRY(add_place(options->path, PART_TRAIN, options, parts, err));
    TRY(add_other(options->val, PART_VAL, options, parts, err));
    TRY(add_other(options->test, PART_TEST, options, parts, err));
    if (!options->whole && parts->sets[PART_TRAIN] == NULL)
        return fail(err, STATUS_REJECTED, "%s: there is no training part (train/)", options->path);
    TRY(agree(options, parts, err));
    TRY(choose(options, parts, err));
    if (!options->whole)
        TRY(check_classes(parts->sets[PART_TRAIN], err));
    return hold_out(options, parts, was_held_out, err);
}

Status data_open(const DataOptions *options, DataParts *result, Error *err)
{
    Parts parts = {0};
    memset(result, 0, sizeof *result);
    Status status = open_all(options, &parts, &result->was_held_out, err);
    result->train = parts.sets[PART_TRAIN];
    result->val = parts.sets[PART_VAL];
    result->test = parts.sets[PART_TEST];
    if (status != STATUS_OK)
        data_close(result);
    return status;
}

void data_close(DataParts *parts)
{
    dataset_free(parts->train);
    dataset_free(parts->val);
    dataset_free(parts->test);
    memset(parts, 0, sizeof *parts);
}
