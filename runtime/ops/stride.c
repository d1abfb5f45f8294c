/* Strided copies: the one loop behind every operator that moves elements without computing on them.
 *
 * strided_make drops dims of one, merges neighbours that are dense on both sides, and finds what can be copied at a
 * stroke: a run of bytes (contiguous on both sides), or a square tile (contiguous in `from` along one dim and in `to`
 * along another: a transpose; tiles keep both sides in cache). The rest is an odometer over the outer dims, split among
 * threads. */
#include "runtime/ops/ops.h"

#include <string.h>

enum { TILE = 32, PARALLEL_BYTES = 1 << 15 };

void strides_dense(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= dims[i];
    }
}

static void swap_dims(StridedCopy *copy, int i, int k)
{
    int64_t dim = copy->dims[i], from = copy->from[i], to = copy->to[i];
    copy->dims[i] = copy->dims[k], copy->from[i] = copy->from[k], copy->to[i] = copy->to[k];
    copy->dims[k] = dim, copy->from[k] = from, copy->to[k] = to;
}

/* Writes go forward: dims in decreasing order of their stride in `to` (insertion sort; ties keep their order). */
static void sort_by_target(StridedCopy *copy)
{
    for (int i = 1; i < copy->rank; i++)
        for (int k = i; k > 0 && llabs(copy->to[k]) > llabs(copy->to[k - 1]); k--)
            swap_dims(copy, k, k - 1);
}

static void merge_neighbours(StridedCopy *copy)
{
    int last = 0;
    for (int i = 1; i < copy->rank; i++) {
        bool dense = copy->from[last] == copy->from[i] * copy->dims[i] && copy->to[last] == copy->to[i] * copy->dims[i];
        if (dense) {
            copy->dims[last] *= copy->dims[i];
        } else {
            last++;
            copy->dims[last] = copy->dims[i];
        }
        copy->from[last] = copy->from[i];
        copy->to[last] = copy->to[i];
    }
    copy->rank = copy->rank > 0 ? last + 1 : 0;
}

StridedCopy strided_make(int rank, const int64_t *dims, const int64_t *from, const int64_t *to, size_t size)
{
    StridedCopy copy = {.size = size, .tile = -1, .outer = 1};
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        empty = empty || dims[i] == 0;
        if (dims[i] == 1)
            continue;
        copy.dims[copy.rank] = dims[i];
        copy.from[copy.rank] = from[i] * (int64_t)size;
        copy.to[copy.rank] = to[i] * (int64_t)size;
        copy.rank++;
    }
    if (empty) {
        copy.outer = 0;
        return copy;
    }
    sort_by_target(&copy);
    merge_neighbours(&copy);
    int last = copy.rank - 1;
    if (last >= 0 && copy.from[last] == (int64_t)size && copy.to[last] == (int64_t)size) {
        copy.size = size * (size_t)copy.dims[last];
        copy.rank = last--;
    }
    for (int i = 0; i < last; i++)
        if (copy.size == size && copy.from[i] == (int64_t)size && copy.to[last] == (int64_t)size)
            copy.tile = i;
    if (copy.tile >= 0)
        swap_dims(&copy, copy.tile, last - 1), copy.tile = last - 1;
    for (int i = 0; i < (copy.tile >= 0 ? copy.tile : last); i++)
        copy.outer *= copy.dims[i];
    if (copy.tile >= 0)
        copy.outer *= (copy.dims[copy.tile] + TILE - 1) / TILE;
    return copy;
}

/* A row of elements `from_step` apart becomes one of elements `to_step` apart. One body per element size; memcpy,
 * because a run of two floats need not be aligned like a number of eight bytes. */
#define DEFINE_ROW(name, type)                                                                                         \
    static void name(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n)                        \
    {                                                                                                                  \
        type value;                                                                                                    \
        memcpy(&value, from, sizeof value);                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            if (from_step != 0)                                                                                        \
                memcpy(&value, from + i * from_step, sizeof value);                                                    \
            memcpy(to + i * to_step, &value, sizeof value);                                                            \
        }                                                                                                              \
    }
DEFINE_ROW(row_1, uint8_t)
DEFINE_ROW(row_2, uint16_t)
DEFINE_ROW(row_4, uint32_t)
DEFINE_ROW(row_8, uint64_t)

static void row_any(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n, size_t size)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * to_step, from + i * from_step, size);
}

static void copy_row(const StridedCopy *copy, const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n)
{
    switch (copy->size) {
    case 1:
        row_1(from, from_step, to, to_step, n);
        break;
    case 2:
        row_2(from, from_step, to, to_step, n);
        break;
    case 4:
        row_4(from, from_step, to, to_step, n);
        break;
    case 8:
        row_8(from, from_step, to, to_step, n);
        break;
    default:
        row_any(from, from_step, to, to_step, n, copy->size);
    }
}

typedef uint32_t Four __attribute__((vector_size(16)));

/* buffer[r][c] = from[c * column_step + r]: rows and columns are multiples of four. Contiguous reads; the writes go to
 * 4 KB that fill every set of the first-level cache once, whatever power of two the real strides are. */
static void transpose_tile(const char *from, int64_t column_step, int64_t rows, int64_t columns,
                           uint32_t buffer[TILE][TILE])
{
    for (int64_t c = 0; c < columns; c += 4)
        for (int64_t r = 0; r < rows; r += 4) {
            Four x[4], t[4], y[4];
            for (int i = 0; i < 4; i++)
                memcpy(&x[i], from + (c + i) * column_step + r * 4, sizeof x[i]);
            t[0] = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
            t[1] = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
            t[2] = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
            t[3] = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
            y[0] = __builtin_shufflevector(t[0], t[1], 0, 1, 4, 5);
            y[1] = __builtin_shufflevector(t[0], t[1], 2, 3, 6, 7);
            y[2] = __builtin_shufflevector(t[2], t[3], 0, 1, 4, 5);
            y[3] = __builtin_shufflevector(t[2], t[3], 2, 3, 6, 7);
            for (int i = 0; i < 4; i++)
                memcpy(&buffer[r + i][c], &y[i], sizeof y[i]);
        }
}

/* One square of `rows` by `columns` elements of any size. */
static void copy_tile(const StridedCopy *copy, const char *from, char *to, int64_t rows, int64_t columns)
{
    const int i = copy->tile, k = copy->rank - 1;
    uint32_t buffer[TILE][TILE];
    if (copy->size == 4 && rows % 4 == 0 && columns % 4 == 0) {
        transpose_tile(from, copy->from[k], rows, columns, buffer);
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + r * copy->to[i], buffer[r], (size_t)columns * 4);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        copy_row(copy, from + r * copy->from[i], copy->from[k], to + r * copy->to[i], copy->to[k], columns);
}

/* Rows `first .. first + TILE` of the tile dim, square by square. */
static void copy_tiles(const StridedCopy *copy, int64_t first, const char *from, char *to)
{
    const int i = copy->tile, k = copy->rank - 1;
    int64_t rows = copy->dims[i] - first < TILE ? copy->dims[i] - first : TILE;
    from += first * copy->from[i];
    to += first * copy->to[i];
    for (int64_t c = 0; c < copy->dims[k]; c += TILE) {
        int64_t columns = copy->dims[k] - c < TILE ? copy->dims[k] - c : TILE;
        copy_tile(copy, from + c * copy->from[k], to + c * copy->to[k], rows, columns);
    }
}

typedef struct Job {
    const StridedCopy *copy;
    const char *from;
    char *to;
} Job;

static void run_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    const StridedCopy *copy = job->copy;
    const int outer_rank = copy->tile >= 0 ? copy->tile : copy->rank - 1;
    const int64_t tiles = copy->tile >= 0 ? (copy->dims[copy->tile] + TILE - 1) / TILE : 1;
    for (int64_t index = begin; index < end; index++) {
        int64_t rest = index / tiles;
        const char *from = job->from;
        char *to = job->to;
        for (int i = outer_rank - 1; i >= 0; i--) {
            int64_t at = rest % copy->dims[i];
            rest /= copy->dims[i];
            from += at * copy->from[i];
            to += at * copy->to[i];
        }
        if (copy->rank == 0) {
            memcpy(to, from, copy->size);
        } else if (copy->tile >= 0) {
            copy_tiles(copy, index % tiles * TILE, from, to);
        } else {
            const int k = copy->rank - 1;
            copy_row(copy, from, copy->from[k], to, copy->to[k], copy->dims[k]);
        }
    }
}

void strided_run(const StridedCopy *copy, const void *from, void *to)
{
    if (copy->outer == 0)
        return;
    Job job = {copy, from, to};
    int64_t inner = (int64_t)copy->size;
    if (copy->rank > 0)
        inner *= copy->dims[copy->rank - 1] * (copy->tile >= 0 ? TILE : 1);
    parallel_for(copy->outer, PARALLEL_BYTES / (inner > 0 ? inner : 1) + 1, run_range, &job);
}

static void view_add(SlotView *view, int64_t dim, int64_t stride)
{
    view->dims[view->rank] = dim;
    view->strides[view->rank++] = stride;
}

/* Where each logical axis lies in the bytes of a slot (kernel.h says how the layouts order them). */
SlotView slot_view(const Slot *slot, int block, int split_axis)
{
    SlotView view = {0};
    int64_t strides[RANK_MAX], spatial = 1;
    strides_dense(slot->rank, slot->dims, strides);
    for (int i = 2; i < slot->rank; i++)
        spatial *= slot->dims[i];
    int64_t channels = slot->rank > 1 ? slot->dims[1] : 1, inner = 1;
    if (slot->layout == LAYOUT_BLOCKED) {
        channels = (channels + block - 1) / block * block;
        inner = block;
    } else if (slot->layout == LAYOUT_NHWC) {
        inner = channels;
    }
    bool family = slot->layout == LAYOUT_BLOCKED || slot->layout == LAYOUT_NHWC;
    if (family) {
        strides[0] = channels * spatial;
        strides[1] = 1;
        for (int i = 2; i < slot->rank; i++)
            strides[i] *= inner;
    }
    for (int i = 0; i < slot->rank; i++) {
        view.axis_first[i] = view.rank;
        if (i == 1 && slot->layout == LAYOUT_BLOCKED) {
            view_add(&view, channels / block, spatial * block);
            view_add(&view, block, 1);
        } else if (i == split_axis) {
            view_add(&view, slot->dims[i] / block, strides[i] * block);
            view_add(&view, block, strides[i]);
        } else {
            view_add(&view, slot->dims[i], strides[i]);
        }
    }
    view.axis_first[slot->rank] = view.rank;
    return view;
}
