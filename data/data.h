/* Bytes on disk -> batches. Knows pictures, arrays and labels; knows no graph.
 *
 *   folder, .npz, IDX, CSV ─► data_open ─► Dataset (train, val, test) ─► Loader ─► batches, decoded ahead by own
 * threads
 *
 * A Dataset says what one sample holds: fields, which are inputs (a picture, or arrays by name) and targets (labels). A
 * picture becomes numbers as its PictureSpec says, the same way in training, evaluation and prediction. Order, pictures
 * and augmentation depend on (seed, epoch, sample) alone, never on threads. The sections below follow the files, in the
 * order data flows. */
#ifndef REGRAFT_DATA_H
#define REGRAFT_DATA_H

#include "onnx/base/rng.h"
#include "onnx/onnx.h"

/* ---- zip.c: the archives that .npz files are ------------------------------------------------------------- */

typedef struct ZipEntry {
    const char *name;
    int method; /* 0 stored, 8 deflated */
    uint32_t crc;
    uint64_t packed, size;
    const unsigned char *bytes; /* packed, in the mapped file */
} ZipEntry;

typedef struct Zip {
    Arena arena;
    ZipEntry *entries;
    size_t count;
} Zip;

/* Lists a mapped archive (zip64 too), which must outlive the Zip. STATUS_REJECTED: damaged, encrypted, another
 * compression. */
Status zip_list(Zip *zip, const Mapping *file, const char *path, Error *err);
void zip_release(Zip *zip);
/* Inflates into `out` of entry->size bytes and checks the CRC. */
Status zip_extract(const ZipEntry *entry, void *out, const char *path, Error *err);

typedef struct ZipPart {
    const char *name;
    const void *bytes[2]; /* written one after the other */
    size_t sizes[2];
} ZipPart;

Status zip_write(const char *path, const ZipPart *parts, size_t count, Error *err); /* atomically, stored */

/* ---- npy.c: numpy's files -------------------------------------------------------------------------------- */

/* The arrays of one .npz (or of one .npy, named ""). Stored entries stay in the mapped file. */
typedef struct Npz {
    Mapping file;
    Arena arena;
    const char **names;
    Array **arrays; /* row-major, this machine's byte order */
    void **blocks;  /* owned bytes, or NULL */
    size_t count;
} Npz;

/* STATUS_REJECTED: no such file, damaged, object arrays. Numpy's S and U arrays come as strings. */
Status npz_open(Npz *npz, const char *path, Error *err);
void npz_release(Npz *npz);
const Array *npz_find(const Npz *npz, const char *name); /* NULL when absent */
/* Arrays that numpy has no type for (bfloat16, 8-bit floats) are widened to float32. */
Status npz_write(const char *path, const char *const *names, const Array *const *arrays, size_t count, Error *err);
Status npy_write(const char *path, const Array *array, Error *err);

/* ---- idx.c: LeCun's IDX (MNIST and its kin), gzipped or not ------------------------------------------------- */

Status idx_read(const char *path, Array **array, Error *err);
void idx_free(Array *array);

/* ---- csv.c: RFC 4180 ----------------------------------------------------------------------------------------- */

typedef struct Csv {
    Arena arena;
    const char **cells; /* rows * columns; the first row is the heading */
    size_t rows, columns;
} Csv;

Status csv_read(Csv *csv, const char *path, char separator, Error *err);
void csv_release(Csv *csv);

/* ---- decode.c, jpeg.c, png.c: picture files ------------------------------------------------------------------ */

/* 8-bit pixels, row-major, `channels` a pixel: 1 grey, 3 RGB. */
typedef struct Picture {
    int width, height, channels;
    unsigned char *pixels;
    size_t capacity; /* bytes at `pixels`, reused by the next picture */
} Picture;

void picture_release(Picture *picture);
Status picture_reserve(Picture *picture, size_t bytes, Error *err); /* pixels are lost when it grows */
Status picture_resize_buffer(Picture *picture, int width, int height, int channels, Error *err);
/* Decodes JPEG or PNG, told apart by content. 16-bit is cut to 8, alpha is laid over white, palettes and CMYK become
 * RGB, EXIF orientation is applied. `least`: when > 0 a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as its shorter
 * side stays at least that. */
Status picture_decode(Picture *picture, const unsigned char *bytes, size_t size, int least, const char *name,
                      Error *err);
Status picture_decode_jpeg(Picture *picture, const unsigned char *bytes, size_t size, int least, const char *name,
                           Error *err);
Status picture_decode_png(Picture *picture, const unsigned char *bytes, size_t size, const char *name, Error *err);
Status picture_to_channels(Picture *picture, int channels,
                           Error *err); /* grey <-> RGB, weights of ITU-R 601-2 as Pillow's */

/* ---- resize.c: Pillow's resampling ----------------------------------------------------------------------------- */

typedef enum ResizeFilter { RESIZE_BILINEAR, RESIZE_BICUBIC, RESIZE_NEAREST } ResizeFilter;

typedef struct Box { /* in pixels of the source, fractions allowed */
    double left, top, right, bottom;
} Box;

/* Resizes the part `box` of `from` to width x height, anti-aliased, and keeps `window` of that: what is outside is not
 * computed. Equal to Pillow's resize(box=...).crop() to the last bit. */
typedef struct Window {
    int left, top, width, height;
} Window;

Status picture_resize(const Picture *from, Box box, ResizeFilter filter, int width, int height, Window window,
                      Picture *to, Error *err);

/* ---- preprocess.c: pixels -> numbers --------------------------------------------------------------------------- */

typedef enum FrameMode {
    FRAME_CROP,   /* shorter side to size / crop_fraction, then the centre (torchvision's Resize, CenterCrop) */
    FRAME_SQUASH, /* both sides to size */
    FRAME_PAD     /* longer side to size, centred on grey 114 */
} FrameMode;

typedef struct PictureSpec {
    int width, height, channels; /* of the model's input */
    ResizeFilter filter;
    FrameMode frame;
    double crop_fraction; /* 0.875: 256 -> 224 */
    bool channels_last;   /* [H,W,C] instead of [C,H,W] */
    bool bgr;
    bool scaled_decode;
    bool bytes; /* the model takes uint8: pixels as they are; mean and deviation must be those of 0..255 */
    double mean[3], deviation[3]; /* value = (pixel / 255 - mean) / deviation; channels as in the file: RGB */
} PictureSpec;

typedef struct PicturePreset {
    const char *name;
    bool bgr;
    double mean[3], deviation[3];
} PicturePreset;

extern const PicturePreset picture_presets[]; /* ends with a NULL name */
const PicturePreset *picture_preset(const char *name);
/* Size 0, RGB, 0-1, bilinear, crop 0.875. */
PictureSpec picture_spec_default(void);
void picture_spec_use(PictureSpec *spec, const PicturePreset *preset);
/* As key=value, one a line (docs/formats.md), for metadata; and back: words apart by spaces or line ends, in any order;
 * what is not named keeps what `spec` holds. */
void picture_spec_print(const PictureSpec *spec, Str *out);
Status picture_spec_parse(const char *text, PictureSpec *spec, Error *err);

/* ---- augment.c ------------------------------------------------------------------------------------------------- */

typedef struct AugmentSpec {
    bool flip;
    double crop_area,
        crop_ratio; /* random resized crop: area in [crop_area, 1], aspect in [1/crop_ratio, crop_ratio]; area 1: off */
    double brightness, contrast, saturation; /* factors in [1-x, 1+x] */
    double erase;                            /* probability of one erased rectangle */
} AugmentSpec;

/* `picture` framed, augmented (`augment` NULL: not) and cut to spec's size, still 8-bit RGB or grey. `random`: where
 * the numbers come from. */
Status picture_frame(const Picture *picture, const PictureSpec *spec, const AugmentSpec *augment, Rng *random,
                     Picture *scratch, Picture *out, Error *err);
/* In spec's layout, as floats or (`spec->bytes`) as bytes; picture has spec's size and channels. */
void picture_normalise(const Picture *picture, const PictureSpec *spec, void *out);
size_t picture_number_size(const PictureSpec *spec); /* of one such number, in bytes */
/* STATUS_USAGE when the model's input `input` takes bytes and the spec asks for other numbers than 0..255. */
Status picture_spec_check(const PictureSpec *spec, const char *input, Error *err);

/* ---- files.c: names of many files in little memory --------------------------------------------------------------- */

/* Paths relative to a root, in one block of text; a folder's name is stored once. */
typedef struct FileList {
    char *text;
    size_t text_used, text_room;
    struct FileName {
        uint64_t folder, name; /* offsets in text */
    } * items;
    size_t count, room;
    size_t ignored;      /* files that are no JPEG or PNG by name */
    uint64_t example_at; /* one of those, in text */
} FileList;

void files_release(FileList *list);
/* Every .jpg, .jpeg, .png below root/folder ("" for root itself), appended in the order of their paths. Hidden files
 * and folders are passed over, links are followed, except in circles. */
Status files_walk(FileList *list, const char *root, const char *folder, Error *err);
Status files_add(FileList *list, const char *folder, const char *name, Error *err);
void files_name(const FileList *list, size_t i, Str *name);                   /* "ants/0013.jpg" */
void files_path(const FileList *list, size_t i, const char *root, Str *path); /* with the root before it */

/* ---- open.c, open_folder.c, open_arrays.c, open_csv.c: finding samples and labels --------------------------- */

typedef struct Dataset Dataset;

enum { FIELDS_MAX = 16 }; /* inputs, or targets, of one sample */

typedef enum FieldKind {
    FIELD_PICTURE, /* comes as float or uint8 [C,H,W] or [H,W,C] by the PictureSpec */
    FIELD_ARRAY    /* as stored, converted to `type.dtype` */
} FieldKind;

typedef struct Field {
    const char *name; /* of the model's input; "" for what goes to its only one; targets: "y", "y_0" ... */
    FieldKind kind;
    Type type;      /* of one sample: no batch dim. Pictures: rank -1 */
    bool is_class;  /* target: one class index a sample */
    size_t classes; /* integer targets: how many values */
    bool zero_one;  /* target of numbers: every one is 0 or 1 */
} Field;

typedef struct DataOptions {
    const char *path;          /* folder, .npz, .csv, .tsv, IDX file of pictures; unlabelled: one picture too */
    const char *val, *test;    /* other places for these, or NULL */
    bool whole;                /* eval, predict: nothing is held out; without parts everything is `train` */
    bool unlabelled;           /* predict: labels are not needed */
    double held_out;           /* part of train that becomes val when there is none; 0: none */
    uint64_t seed;             /* of that split and of `per_class` */
    const char *const *inputs; /* names of the model's inputs, for arrays; NULL-terminated; NULL: any */
    const int *ranks;          /* of these, with the batch; below 0: not known. NULL: none is */
    const char *const
        *classes;            /* NULL-terminated: names in the model's order, no others allowed; NULL: found, sorted */
    const char *const *only; /* NULL-terminated: just these classes, in this order; NULL: all */
    size_t per_class;        /* at most so many of each class in train; 0: all */
    bool skip_broken;        /* decode every picture now and leave out those that cannot be read */
    void (*on_broken)(const char *message, void *context); /* once a file */
    void *context;
} DataOptions;

typedef struct DataParts {
    Dataset *train, *val, *test; /* NULL when there is none */
    bool was_held_out;           /* val came out of train */
} DataParts;

/* STATUS_REJECTED says what is wrong with the data: nothing there, one class only, an empty class folder, arrays
 * missing or of unequal length; STATUS_USAGE for options that do not fit them. */
Status data_open(const DataOptions *options, DataParts *parts, Error *err);
void data_close(DataParts *parts);

/* ---- dataset.c: one part ------------------------------------------------------------------------------------- */

size_t dataset_count(const Dataset *set);
int dataset_input_count(const Dataset *set);
int dataset_target_count(const Dataset *set);
const Field *dataset_input(const Dataset *set, int index);
const Field *dataset_target(const Dataset *set, int index);
/* What a loader converts an array field to: f32, f64, i64, i32, u8 or bool. */
Status dataset_set_dtype(Dataset *set, bool target, int index, DType dtype, Error *err);
size_t dataset_class_count(const Dataset *set, int target);
const char *dataset_class_name(const Dataset *set, int target, size_t index);
/* What target `target` calls its number `index`: the heading of a table's column; NULL: it has no names. */
const char *dataset_column_name(const Dataset *set, int target, size_t index);
/* How many samples each class has: `counts` [classes]. */
void dataset_class_counts(const Dataset *set, int target, size_t *counts);
int64_t dataset_label(const Dataset *set, int target, size_t sample);  /* class targets; -1: none */
void dataset_sample_name(const Dataset *set, size_t sample, Str *out); /* "ants/0013.jpg", or "17" */
/* Files that are no JPEG or PNG by name; *example (may be NULL) is one of them, NULL when there is none. */
size_t dataset_ignored(const Dataset *set, const char **example);
bool dataset_is_files(const Dataset *set);
/* The picture of field `input` of a sample, decoded but not framed; `least` as in picture_decode. */
Status dataset_picture(const Dataset *set, int input, size_t sample, int least, Picture *picture, Error *err);
/* The bytes of an array field of a sample, converted, to `out`. */
void dataset_row(const Dataset *set, bool target, int index, size_t sample, void *out);
/* At most `count` samples, classes in proportion, as a data set of its own (to search on). */
Status dataset_sample(const Dataset *set, size_t count, uint64_t seed, Dataset **subset, Error *err);
/* The first samples, at most `count`. */
Status dataset_first(const Dataset *set, size_t count, Dataset **subset, Error *err);
void dataset_free(Dataset *set);

/* ---- frame.c: pictures kept -------------------------------------------------------------------------------------- */

/* The pictures of a set with class labels, decoded and framed to spec's size now and kept as bytes; unreadable ones are
 * left out. Targets of several numbers become two classes: above or below the mean of the one that divides best.
 * Loading it with FRAME_SQUASH and the same size only normalises. */
Status dataset_frame(const Dataset *set, const PictureSpec *spec, Dataset **framed, Error *err);

/* ---- loader.c ---------------------------------------------------------------------------------------------------- */

typedef struct Loader Loader;

/* How long each sample of a sequence is, and which array fields [T, ...] are cut to the longest of their batch. Lengths
 * of batches are rounded up to multiples of `step`, so that there are few shapes. */
typedef struct Lengths {
    uint32_t *of;         /* [samples of the set] */
    size_t longest, step; /* T, what samples are padded to; step <= T */
    bool cut_input[FIELDS_MAX], cut_target[FIELDS_MAX];
} Lengths;

typedef struct LoaderOptions {
    const PictureSpec *picture; /* needed when a field is a picture */
    const Lengths
        *lengths; /* NULL: every batch is as long as the data; else passes that shuffle put alike lengths together */
    const AugmentSpec *augment; /* used in passes that train; NULL: none */
    uint64_t seed;
    bool keep_order;  /* not shuffled in training either */
    bool skip_broken; /* leave unreadable pictures out (batches get shorter); else they are fatal */
    int threads;      /* 0: as many as processors */
    int rank, ranks;  /* of several processes that share every batch: this one's part of each; ranks 0: alone */
    size_t memory;    /* bytes of batches ahead; 0: 32 MB, at least three batches; else at least two */
    void (*on_broken)(const char *message, void *context); /* once a file, from the thread that calls next */
    void *context;
} LoaderOptions;

typedef struct LoadedBatch {
    size_t size;         /* samples; 0: the pass is over */
    size_t length;       /* with lengths: what the fields that are cut were cut to */
    const size_t *ids;   /* which, in the data set's numbering */
    void *const *inputs; /* by the data set's fields; [size, ...], valid until the next call */
    void *const *targets;
} LoadedBatch;

/* Mixes the order of a pass over `count` samples, by (seed, epoch) alone; the generator as that leaves it. */
Rng loader_shuffle(uint64_t seed, uint64_t epoch, size_t *order, size_t count);
/* Leaves in `order` what process `rank` of `ranks` takes of every batch: contiguous parts, of the last, shorter one
 * too. Returns how many. */
size_t loader_own_part(size_t *order, size_t count, size_t batch, size_t rank, size_t ranks);

Status loader_new(const Dataset *set, const LoaderOptions *options, Loader **loader, Error *err);
void loader_free(Loader *loader);
/* Begins pass `epoch` in batches of `batch`, at batch number `skip` (to resume). `train`: shuffled and augmented. */
Status loader_start(Loader *loader, uint64_t epoch, bool train, size_t batch, size_t skip, Error *err);
Status loader_next(Loader *loader, LoadedBatch *batch, Error *err);
size_t loader_broken(const Loader *loader); /* files skipped so far */

#endif
