/* Names of many files in little memory: one block of text, a folder's name once, 16 bytes a file beside it. A million
 * names take about fifty megabytes and a few seconds. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "data/data.h"

enum { DEPTH_MAX = 32 };

void files_release(FileList *list)
{
    free(list->text);
    free(list->items);
    memset(list, 0, sizeof *list);
}

static Status add_text(FileList *list, const char *text, uint64_t *at, Error *err)
{
    size_t length = strlen(text) + 1;
    if (list->text_room - list->text_used < length) {
        size_t room = list->text_room * 2 + length + 4096;
        char *grown = realloc(list->text, room);
        if (grown == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory for %zu bytes of file names", room);
        list->text = grown;
        list->text_room = room;
    }
    memcpy(list->text + list->text_used, text, length);
    *at = list->text_used;
    list->text_used += length;
    return STATUS_OK;
}

static Status add_item(FileList *list, uint64_t folder, const char *name, Error *err)
{
    if (list->count == list->room) {
        size_t room = list->room * 2 + 256;
        void *grown = realloc(list->items, room * sizeof *list->items);
        if (grown == NULL)
            return fail(err, STATUS_ENVIRONMENT, "no memory for the names of %zu files", room);
        list->items = grown;
        list->room = room;
    }
    list->items[list->count].folder = folder;
    TRY(add_text(list, name, &list->items[list->count].name, err));
    list->count++;
    return STATUS_OK;
}

Status files_add(FileList *list, const char *folder, const char *name, Error *err)
{
    uint64_t at = 0;
    TRY(add_text(list, folder, &at, err));
    return add_item(list, at, name, err);
}

static bool is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL &&
           (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 || strcasecmp(dot, ".png") == 0);
}

/* ---- the walk -------------------------------------------------------------------------------------------------- */

typedef struct Place { /* the folders above: a link back to one of them is not followed */
    const struct Place *up;
    dev_t device;
    ino_t inode;
    int depth;
} Place;

static Status walk(FileList *list, const char *root, const char *folder, const Place *up, Error *err);

static void join(Str *path, const char *a, const char *b)
{
    str_clear(path);
    str_append(path, a);
    if (a[0] != '\0' && b[0] != '\0' && !text_ends(a, "/"))
        str_append(path, "/");
    str_append(path, b);
}

static Status visit(FileList *list, const char *root, const char *folder, uint64_t folder_at,
                    const struct dirent *entry, const Place *here, Str *path, Str *below, Error *err)
{
    bool is_folder = entry->d_type == DT_DIR, is_file = entry->d_type == DT_REG;
    join(below, folder, entry->d_name);
    if (!is_folder && !is_file) {
        struct stat info;
        join(path, root, below->text);
        if (stat(path->text, &info) != 0)
            return STATUS_OK; /* a dangling link */
        is_folder = S_ISDIR(info.st_mode);
        is_file = S_ISREG(info.st_mode);
    }
    if (is_folder)
        return walk(list, root, below->text, here, err);
    if (!is_file)
        return STATUS_OK;
    if (is_picture(entry->d_name))
        return add_item(list, folder_at, entry->d_name, err);
    if (list->ignored++ == 0)
        return add_text(list, below->text, &list->example_at, err);
    return STATUS_OK;
}

static Status walk(FileList *list, const char *root, const char *folder, const Place *up, Error *err)
{
    Str path, below;
    str_init(&path);
    str_init(&below);
    join(&path, root, folder);
    struct stat info;
    uint64_t folder_at = 0;
    Status status = STATUS_OK;
    DIR *stream = opendir(path.text);
    if (stream == NULL || stat(path.text, &info) != 0) {
        status = fail(err, STATUS_REJECTED, "%s: %s", path.text, strerror(errno));
        goto done;
    }
    Place here = {up, info.st_dev, info.st_ino, up == NULL ? 0 : up->depth + 1};
    for (const Place *p = up; p != NULL; p = p->up)
        if ((p->device == here.device && p->inode == here.inode) || here.depth > DEPTH_MAX)
            goto done;
    TRY_DONE(add_text(list, folder, &folder_at, err));
    for (struct dirent *entry; status == STATUS_OK && (entry = readdir(stream)) != NULL;)
        if (entry->d_name[0] != '.')
            status = visit(list, root, folder, folder_at, entry, &here, &path, &below, err);
done:
    if (stream != NULL)
        closedir(stream);
    str_release(&path);
    str_release(&below);
    return status;
}

static int by_path(const void *a, const void *b, void *context)
{
    const struct FileName *x = a, *y = b;
    const char *text = context;
    int order = x->folder == y->folder ? 0 : strcmp(text + x->folder, text + y->folder);
    return order != 0 ? order : strcmp(text + x->name, text + y->name);
}

Status files_walk(FileList *list, const char *root, const char *folder, Error *err)
{
    size_t before = list->count;
    TRY(walk(list, root, folder, NULL, err));
    if (list->count > before)
        qsort_r(list->items + before, list->count - before, sizeof *list->items, by_path, list->text);
    return STATUS_OK;
}

void files_name(const FileList *list, size_t i, Str *name)
{
    join(name, list->text + list->items[i].folder, list->text + list->items[i].name);
}

void files_path(const FileList *list, size_t i, const char *root, Str *path)
{
    const char *name = list->text + list->items[i].name;
    if (name[0] == '/') { /* from a table, or from the command line */
        str_clear(path);
        str_append(path, name);
        return;
    }
    join(path, root, list->text + list->items[i].folder);
    if (path->length > 0 && path->text[path->length - 1] != '/')
        str_append(path, "/");
    str_append(path, name);
}
