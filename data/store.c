/* Stores and the data sets over them: sharing, picking, splitting. */
#include <math.h>
#include <string.h>

#include "data/dataset.h"

Status store_new(const char *place, Store **store, Error *err)
{
    *store = calloc(1, sizeof **store);
    if (*store == NULL)
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory", place);
    (*store)->references = 1;
    arena_init(&(*store)->arena);
    (*store)->place = arena_strdup(&(*store)->arena, place);
    return STATUS_OK;
}

void store_release(Store *store)
{
    if (store == NULL || --store->references > 0)
        return;
    files_release(&store->files);
    shared_release(store->shared);
    free(store->labels);
    free(store->values);
    arena_release(&store->arena);
    free(store);
}

void store_number_classes(Store *store, int index)
{
    Field *field = &store->targets[index];
    if (store->class_names[index] != NULL || field->classes > 1 << 20)
        return;
    store->class_names[index] = arena_array(&store->arena, const char *, field->classes + 1);
    for (size_t i = 0; i < field->classes; i++)
        store->class_names[index][i] = arena_printf(&store->arena, "%zu", i);
}

/* ---- data sets ------------------------------------------------------------------------------------------------ */

static Status set_new(Store *store, size_t count, Dataset **set, Error *err)
{
    Dataset *made = calloc(1, sizeof *made);
    size_t *ids = malloc((count + 1) * sizeof *ids);
    if (made == NULL || ids == NULL) {
        free(made);
        free(ids);
        return fail(err, STATUS_ENVIRONMENT, "%s: no memory for %zu samples", store->place, count);
    }
    made->store = store;
    made->ids = ids;
    made->count = count;
    *set = made;
    return STATUS_OK;
}

Status dataset_new(Store *store, Dataset **set, Error *err)
{
    Status status = set_new(store, store->count, set, err);
    if (status != STATUS_OK) {
        store_release(store);
        return status;
    }
    for (size_t i = 0; i < store->count; i++)
        (*set)->ids[i] = i;
    memcpy((*set)->input_fields, store->inputs, sizeof store->inputs);
    memcpy((*set)->target_fields, store->targets, sizeof store->targets);
    return STATUS_OK;
}

static Status copy_relabel(const Dataset *from, Dataset *to, Error *err)
{
    if (from->relabel == NULL)
        return STATUS_OK;
    size_t count = from->store->targets[0].classes;
    to->relabel = malloc((count + 1) * sizeof *to->relabel);
    if (to->relabel == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu classes", count);
    memcpy(to->relabel, from->relabel, count * sizeof *to->relabel);
    to->class_names = from->class_names;
    return STATUS_OK;
}

Status dataset_pick(const Dataset *set, const size_t *ids, size_t count, Dataset **picked, Error *err)
{
    TRY(set_new(set->store, count, picked, err));
    set->store->references++;
    memcpy((*picked)->ids, ids, count * sizeof *ids);
    memcpy((*picked)->input_fields, set->input_fields, sizeof set->input_fields);
    memcpy((*picked)->target_fields, set->target_fields, sizeof set->target_fields);
    Status status = copy_relabel(set, *picked, err);
    if (status != STATUS_OK) {
        dataset_free(*picked);
        *picked = NULL;
    }
    return status;
}

Status dataset_first(const Dataset *set, size_t count, Dataset **subset, Error *err)
{
    return dataset_pick(set, set->ids, count < set->count ? count : set->count, subset, err);
}

void dataset_free(Dataset *set)
{
    if (set == NULL)
        return;
    free(set->ids);
    free(set->relabel);
    store_release(set->store);
    free(set);
}

static bool has_classes(const Dataset *set)
{
    return set->store->target_count > 0 && set->target_fields[0].is_class;
}

/* ---- choosing classes -------------------------------------------------------------------------------------------- */

static Status find_class(const Dataset *set, const char *name, size_t *index, Error *err)
{
    size_t count = set->store->targets[0].classes;
    const char **names = set->store->class_names[0];
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *index = i;
            return STATUS_OK;
        }
    const char *near = text_nearest(name, names, count);
    if (near != NULL)
        return fail(err, STATUS_USAGE, "%s: no class is called '%s' (did you mean '%s'?)", set->store->place, name,
                    near);
    return fail(err, STATUS_USAGE, "%s: no class is called '%s'", set->store->place, name);
}

Status dataset_keep_classes(Dataset *set, const char *const *names, Error *err)
{
    if (!has_classes(set) || set->store->class_names[0] == NULL)
        return fail(err, STATUS_USAGE, "%s: classes can only be chosen where there is one class a sample",
                    set->store->place);
    size_t classes = set->store->targets[0].classes, count = 0, left = 0;
    while (names[count] != NULL)
        count++;
    set->relabel = malloc((classes + 1) * sizeof *set->relabel);
    if (set->relabel == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu classes", classes);
    for (size_t i = 0; i < classes; i++)
        set->relabel[i] = -1;
    set->class_names = arena_array(&set->store->arena, const char *, count + 1);
    for (size_t k = 0; k < count; k++) {
        size_t index = 0;
        TRY(find_class(set, names[k], &index, err));
        if (set->relabel[index] >= 0)
            return fail(err, STATUS_USAGE, "class '%s' is chosen twice", names[k]);
        set->relabel[index] = (int64_t)k;
        set->class_names[k] = set->store->class_names[0][index];
    }
    for (size_t i = 0; i < set->count; i++) {
        size_t id = set->ids[i];
        set->ids[left] = id;
        left += dataset_label(set, 0, i) >= 0; /* reads ids[i], which is not behind `left` */
    }
    set->count = left;
    set->target_fields[0].classes = count;
    return STATUS_OK;
}

/* ---- splitting --------------------------------------------------------------------------------------------------- */

/* Positions in `set`, shuffled, then gathered by class; starts[c] is where class c begins. Without classes: one class.
 */
typedef struct Groups {
    size_t *order, *starts, classes;
} Groups;

static void groups_release(Groups *groups)
{
    free(groups->order);
    free(groups->starts);
}

static Status group(const Dataset *set, uint64_t seed, Groups *groups, Error *err)
{
    bool by_class = has_classes(set);
    groups->classes = by_class ? set->target_fields[0].classes : 1;
    groups->order = malloc((2 * set->count + 1) * sizeof *groups->order);
    groups->starts = calloc(groups->classes + 2, sizeof *groups->starts);
    if (groups->order == NULL || groups->starts == NULL) {
        groups_release(groups);
        return fail(err, STATUS_ENVIRONMENT, "no memory to split %zu samples", set->count);
    }
    size_t *shuffled = groups->order + set->count, *next = groups->starts + 1;
    for (size_t i = 0; i < set->count; i++)
        shuffled[i] = i;
    Rng rng = rng_at(seed, 0x5b117);
    rng_shuffle(&rng, shuffled, set->count);
    for (size_t i = 0; i < set->count; i++)
        next[by_class ? dataset_label(set, 0, i) : 0]++;
    for (size_t c = 0; c < groups->classes; c++)
        groups->starts[c + 1] += groups->starts[c];
    /* counting sort: starts[c] runs to the end of its class and is moved back afterwards */
    for (size_t i = 0; i < set->count; i++)
        groups->order[groups->starts[by_class ? dataset_label(set, 0, shuffled[i]) : 0]++] = shuffled[i];
    memmove(groups->starts + 1, groups->starts, groups->classes * sizeof *groups->starts);
    groups->starts[0] = 0;
    return STATUS_OK;
}

/* taken[i]: position i belongs to the first `part` of its class; at least `least` of it, never more than `most`. */
static Status take(const Dataset *set, double part, size_t most, uint64_t seed, bool *taken, Error *err)
{
    Groups groups;
    TRY(group(set, seed, &groups, err));
    for (size_t c = 0; c < groups.classes; c++) {
        size_t there = groups.starts[c + 1] - groups.starts[c], wanted = (size_t)llrint(part * (double)there);
        if (wanted == 0 && part > 0 && there >= 2)
            wanted = 1;
        wanted = wanted > most ? most : wanted;
        for (size_t k = 0; k < wanted; k++)
            taken[groups.order[groups.starts[c] + k]] = true;
    }
    groups_release(&groups);
    return STATUS_OK;
}

static Status pick_where(const Dataset *set, const bool *taken, bool wanted, Dataset **picked, Error *err)
{
    size_t *ids = malloc((set->count + 1) * sizeof *ids), count = 0;
    if (ids == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu samples", set->count);
    for (size_t i = 0; i < set->count; i++)
        if (taken[i] == wanted)
            ids[count++] = set->ids[i];
    Status status = dataset_pick(set, ids, count, picked, err);
    free(ids);
    return status;
}

Status dataset_split(const Dataset *set, double part, uint64_t seed, Dataset **rest, Dataset **held, Error *err)
{
    *rest = *held = NULL;
    bool *taken = calloc(set->count + 1, sizeof *taken);
    if (taken == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory to split %zu samples", set->count);
    Status status = take(set, part, SIZE_MAX, seed, taken, err);
    if (status == STATUS_OK)
        status = pick_where(set, taken, false, rest, err);
    if (status == STATUS_OK)
        status = pick_where(set, taken, true, held, err);
    if (status != STATUS_OK) {
        dataset_free(*rest);
        *rest = NULL;
    }
    free(taken);
    return status;
}

static void compact(Dataset *set, const bool *taken)
{
    size_t left = 0;
    for (size_t i = 0; i < set->count; i++)
        if (taken[i])
            set->ids[left++] = set->ids[i];
    set->count = left;
}

Status dataset_limit(Dataset *set, size_t count, uint64_t seed, Error *err)
{
    bool *taken = calloc(set->count + 1, sizeof *taken);
    if (taken == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu samples", set->count);
    Status status = take(set, 1, count, seed, taken, err);
    if (status == STATUS_OK)
        compact(set, taken);
    free(taken);
    return status;
}

Status dataset_sample(const Dataset *set, size_t count, uint64_t seed, Dataset **subset, Error *err)
{
    *subset = NULL;
    bool *taken = calloc(set->count + 1, sizeof *taken);
    if (taken == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu samples", set->count);
    double part = set->count <= count ? 1 : (double)count / (double)set->count;
    Status status = take(set, part, SIZE_MAX, rng_mix(seed, 0x5a), taken, err);
    if (status == STATUS_OK)
        status = pick_where(set, taken, true, subset, err);
    free(taken);
    return status;
}
