/* Inside of data/: what a Dataset is. A Store holds the samples of one place (files, or arrays); a Dataset is a list of
 * sample numbers over a Store, so that splits share everything. */
#ifndef REGRAFT_DATA_DATASET_H
#define REGRAFT_DATA_DATASET_H

#include "data/data.h"

/* Arrays that several Stores look into. */
typedef struct Shared {
    int references;
    Npz npz;
    Array *idx[2];
} Shared;

typedef struct Store {
    int references;
    Arena arena;
    const char *place; /* for messages: the folder or file */
    size_t count;
    bool is_files;
    FileList files; /* is_files: sample i is files.items[i] */
    Shared *shared; /* else NULL */
    int input_count, target_count;
    Field inputs[FIELDS_MAX], targets[FIELDS_MAX];
    const Array *input_arrays[FIELDS_MAX], *target_arrays[FIELDS_MAX]; /* [count, ...]; NULL for picture files */
    int64_t *labels;                      /* [count] of target 0 when it comes from folders or text; else NULL */
    float *values;                        /* [count, k] of target 0 when it comes from columns of a table; else NULL */
    const char **class_names[FIELDS_MAX]; /* [classes], of class targets */
    const char **column_names;            /* [k], with `values` */
} Store;

struct Dataset {
    Store *store;
    size_t *ids, count; /* which samples of the store, in order */
    int64_t *relabel;   /* [classes of the store]: new class or -1; NULL: as they are */
    size_t classes;     /* with relabel */
    const char **class_names;
    Field input_fields[FIELDS_MAX], target_fields[FIELDS_MAX];
};

/* ---- store.c ------------------------------------------------------------------------------------------------- */

Status store_new(const char *place, Store **store, Error *err);
void store_release(Store *store); /* one reference less */
/* Gives target `index` the class names "0", "1", ... where it has none. */
void store_number_classes(Store *store, int index);
/* A data set of every sample; takes the caller's reference over. */
Status dataset_new(Store *store, Dataset **set, Error *err);
/* The same samples' `count` of `ids` (of the store); shares the store. */
Status dataset_pick(const Dataset *set, const size_t *ids, size_t count, Dataset **picked, Error *err);
/* Only `names` remain, in that order, numbered anew. */
Status dataset_keep_classes(Dataset *set, const char *const *names, Error *err);
/* At most `count` of each class, drawn by `seed`. */
Status dataset_limit(Dataset *set, size_t count, uint64_t seed, Error *err);
/* Splits off `part` of each class (of everything, without classes), at least one where there are two. */
Status dataset_split(const Dataset *set, double part, uint64_t seed, Dataset **rest, Dataset **held, Error *err);

/* ---- readable.c ---------------------------------------------------------------------------------------------- */

/* Takes pictures out that cannot be decoded; names each through options->on_broken. STATUS_REJECTED: none is left, or
 * none of a class. */
Status dataset_drop_broken(Dataset *set, const DataOptions *options, Error *err);

/* ---- open_*.c: one place ------------------------------------------------------------------------------------- */

/* Class folders of `folder`. `classes` (NULL-terminated, or NULL) fixes names and order. */
Status open_folder(const char *folder, const char *const *classes, bool unlabelled, Store **store, Error *err);
Status open_table(const char *path, const char *part, const char *const *classes, bool unlabelled, Store **store,
                  Error *err);
bool table_has_parts(const char *path, Error *err);
/* Arrays whose names begin with `prefix` ("train_", "" ...). *store NULL when none does. */
Status open_arrays(Shared *shared, const char *path, const char *prefix, const DataOptions *options, Store **store,
                   Error *err);
Status shared_open(const char *path, Shared **shared, Error *err);
void shared_release(Shared *shared);
/* `pictures`: an IDX file, its labels beside it. */
Status open_idx(const char *pictures, bool unlabelled, Store **store, Error *err);

#endif
