/* Folders of pictures: a sub-folder is a class, and everything below it, at any depth, belongs to it. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_folder(const char *root, const char *name)
{
    struct stat info;
    Str path;
    str_init(&path);
    str_printf(&path, "%s/%s", root, name);
    bool yes = stat(path.text, &info) == 0 && S_ISDIR(info.st_mode);
    str_release(&path);
    return yes;
}

static Status list_classes(Store *store, const char ***names, size_t *count, Error *err)
{
    size_t capacity = 0;
    DIR *stream = opendir(store->place);
    if (stream == NULL)
        return fail(err, STATUS_REJECTED, "%s: %s", store->place, strerror(errno));
    *names = NULL;
    *count = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (entry->d_name[0] == '.' || !is_folder(store->place, entry->d_name))
            continue;
        *names = arena_grow(&store->arena, *names, *count, &capacity, sizeof **names);
        (*names)[(*count)++] = arena_strdup(&store->arena, entry->d_name);
    }
    closedir(stream);
    if (*count > 0)
        qsort(*names, *count, sizeof **names, by_text);
    return STATUS_OK;
}

/* A class that the model (or the training part) does not have is an error, one that is missing here is none. */
static Status check_known(const Store *store, const char **found, size_t count, const char *const *classes, Error *err)
{
    size_t known = 0;
    while (classes[known] != NULL)
        known++;
    for (size_t i = 0; i < count; i++) {
        size_t k = 0;
        while (k < known && strcmp(classes[k], found[i]) != 0)
            k++;
        if (k < known)
            continue;
        const char *near = text_nearest(found[i], classes, known);
        return fail(err, STATUS_REJECTED, "%s: folder '%s' is not one of the %zu classes%s%s%s", store->place, found[i],
                    known, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    }
    return STATUS_OK;
}

static Status add_class(Store *store, size_t label, Error *err)
{
    size_t before = store->files.count;
    const char *name = store->class_names[0][label];
    if (!is_folder(store->place, name))
        return STATUS_OK;
    TRY(files_walk(&store->files, store->place, name, err));
    if (store->files.count == before)
        return fail(err, STATUS_REJECTED, "%s/%s: the label folder holds no JPEG or PNG pictures", store->place, name);
    int64_t *grown = realloc(store->labels, store->files.count * sizeof *grown);
    if (grown == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu labels", store->files.count);
    store->labels = grown;
    for (size_t i = before; i < store->files.count; i++)
        grown[i] = (int64_t)label;
    return STATUS_OK;
}

static Status add_labelled(Store *store, const char *const *classes, Error *err)
{
    const char **found = NULL;
    size_t count = 0;
    TRY(list_classes(store, &found, &count, err));
    if (count == 0)
        return fail(err, STATUS_REJECTED, "%s: no label folders in it (pictures are sorted into one folder a class)",
                    store->place);
    if (classes != NULL)
        TRY(check_known(store, found, count, classes, err));
    size_t total = count;
    for (total = classes == NULL ? count : 0; classes != NULL && classes[total] != NULL;)
        total++;
    store->class_names[0] = arena_array(&store->arena, const char *, total + 1);
    for (size_t i = 0; i < total; i++) {
        store->class_names[0][i] = classes == NULL ? found[i] : arena_strdup(&store->arena, classes[i]);
        TRY(add_class(store, i, err));
    }
    store->target_count = 1;
    store->targets[0] = (Field){.name = "y", .kind = FIELD_ARRAY, .is_class = true, .classes = total};
    store->targets[0].type.dtype = DTYPE_I64;
    return STATUS_OK;
}

static Status fill_folder(Store *store, const char *const *classes, bool unlabelled, Error *err)
{
    store->is_files = true;
    store->input_count = 1;
    store->inputs[0] = (Field){.name = "", .kind = FIELD_PICTURE};
    store->inputs[0].type.rank = -1;
    if (unlabelled)
        TRY(files_walk(&store->files, store->place, "", err));
    else
        TRY(add_labelled(store, classes, err));
    store->count = store->files.count;
    if (store->count == 0)
        return fail(err, STATUS_REJECTED, "%s: no JPEG or PNG pictures in it", store->place);
    return STATUS_OK;
}

Status open_folder(const char *folder, const char *const *classes, bool unlabelled, Store **store, Error *err)
{
    TRY(store_new(folder, store, err));
    Status status = fill_folder(*store, classes, unlabelled, err);
    if (status != STATUS_OK) {
        store_release(*store);
        *store = NULL;
    }
    return status;
}
