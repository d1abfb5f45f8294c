/* What an exporter makes of a parameter when it folds what a reader does to it: a copy with other dims or axes, rows
 * that repeat a part, lengths or squares. A CopyLayout says which; here it is found in the numbers of two tensors, and
 * applied to numbers that training has moved. Whether such a copy is tied is for ties.c to judge. */
#include <math.h>
#include <string.h>

#include "passes/params.h"

/* ---- from the owner to the copy -------------------------------------------------------------------------------- */

int copy_layout_dims(const Tensor *tensor, int64_t dims[COPY_RANK_MAX])
{
    int rank = 0;
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] == 1)
            continue;
        if (rank == COPY_RANK_MAX)
            return -1;
        dims[rank++] = tensor->dims[i];
    }
    return rank;
}

/* Calls for every number of the copy, in its order, with its place in the owner; stops where `each` says no. */
static bool walk_copy(const CopyLayout *layout, const int64_t *dims, bool (*each)(int64_t from, int64_t to, void *),
                      void *context)
{
    int64_t strides[COPY_RANK_MAX] = {0}, at[COPY_RANK_MAX] = {0}, count = 1, from = 0;
    for (int i = 0; i < layout->rank; i++) {
        strides[i] = 1;
        for (int k = layout->perm[i] + 1; k < layout->rank; k++)
            strides[i] *= dims[k];
        count *= dims[i];
    }
    for (int64_t to = 0; to < count; to++) {
        if (!each(from, to, context))
            return false;
        for (int i = layout->rank; i-- > 0;) {
            from += strides[i];
            if (++at[i] < dims[layout->perm[i]])
                break;
            from -= strides[i] * at[i];
            at[i] = 0;
        }
    }
    return true;
}

typedef struct Bytewise {
    const char *from;
    char *to;
    size_t size;
} Bytewise;

static bool put(int64_t from, int64_t to, void *context)
{
    const Bytewise *b = context;
    memcpy(b->to + (size_t)to * b->size, b->from + (size_t)from * b->size, b->size);
    return true;
}

bool copy_is_computed(const CopyLayout *layout)
{
    return layout->length > 0 || layout->reduced != 0 || layout->squared;
}

/* Element `index` of the owner's lengths over the reduced axes, in the order of the axes that are left; `values` are
 * its numbers now, NULL: those of the file. */
static double length_at(const Tensor *owner, const float *values, const CopyLayout *layout, int64_t index)
{
    int64_t stride[RANK_MAX], at[RANK_MAX] = {0}, first = 0, step = 1, count = 1;
    for (int i = owner->rank; i-- > 0; step *= owner->dims[i])
        stride[i] = step;
    for (int i = owner->rank; i-- > 0;) {
        bool reduced = (layout->reduced >> i & 1) != 0;
        first += reduced ? 0 : index % owner->dims[i] * stride[i];
        index /= reduced ? 1 : owner->dims[i];
        count *= reduced ? owner->dims[i] : 1;
    }
    double sum = 0;
    for (int64_t n = 0, place = first; n < count; n++) {
        double x = values != NULL ? (double)values[place] : tensor_f64_at(owner, place);
        sum += x * x;
        for (int i = owner->rank; i-- > 0;) {
            if ((layout->reduced >> i & 1) == 0)
                continue;
            place += stride[i];
            if (++at[i] < owner->dims[i])
                break;
            place -= stride[i] * at[i];
            at[i] = 0;
        }
    }
    return layout->squared ? sum : sqrt(sum);
}

void copy_layout_apply(const CopyLayout *layout, const Tensor *owner, const Tensor *copy, size_t size, const void *from,
                       void *to)
{
    int64_t dims[COPY_RANK_MAX];
    copy_layout_dims(owner, dims);
    size_t row = (size_t)layout->length * size;
    for (int64_t i = 0; layout->length > 0 && i < tensor_count(copy) / layout->length; i++)
        memcpy((char *)to + (size_t)i * row, (const char *)from + (size_t)layout->start * size, row);
    for (int64_t i = 0; layout->reduced != 0 && i < tensor_count(copy); i++)
        ((float *)to)[i] = (float)length_at(owner, from, layout, i);
    if (layout->length > 0 || layout->reduced != 0)
        return;
    if (layout->rank == 0)
        memcpy(to, from, (size_t)tensor_count(owner) * size);
    else
        walk_copy(layout, dims, put, &(Bytewise){from, to, size});
    for (int64_t i = 0; layout->squared && i < tensor_count(copy); i++)
        ((float *)to)[i] *= ((float *)to)[i];
}

/* ---- the same numbers, moved ----------------------------------------------------------------------------------- */

static bool is_same(int64_t from, int64_t to, void *context)
{
    const Bytewise *b = context;
    return memcmp(b->from + (size_t)from * b->size, b->to + (size_t)to * b->size, b->size) == 0;
}

/* Is `copy` what `owner` holds with its axes in the order `layout->perm`? */
static bool is_permuted(const Tensor *owner, const Tensor *copy, const CopyLayout *layout)
{
    int64_t from[COPY_RANK_MAX], to[COPY_RANK_MAX];
    copy_layout_dims(owner, from);
    copy_layout_dims(copy, to);
    for (int i = 0; i < layout->rank; i++)
        if (to[i] != from[layout->perm[i]])
            return false;
    return walk_copy(layout, from, is_same, &(Bytewise){owner->data, (char *)copy->data, dtype_size(owner->dtype)});
}

/* Tries every order of `rank` axes: `used` are those that stand already. */
static bool find_order(const Tensor *owner, const Tensor *copy, CopyLayout *layout, int placed, unsigned used)
{
    if (placed >= layout->rank || placed >= COPY_RANK_MAX)
        return is_permuted(owner, copy, layout);
    for (int axis = 0; axis < layout->rank; axis++) {
        layout->perm[placed] = axis;
        if ((used >> axis & 1) == 0 && find_order(owner, copy, layout, placed + 1, used | 1U << axis))
            return true;
    }
    return false;
}

/* The same numbers in the same order under other dims, or with axes exchanged. */
bool is_moved_copy(const Tensor *owner, const Tensor *copy, CopyLayout *layout)
{
    int64_t dims[COPY_RANK_MAX];
    *layout = (CopyLayout){0};
    if (owner->dtype != copy->dtype || owner->bytes != copy->bytes || owner->dtype == DTYPE_STRING)
        return false;
    if (memcmp(owner->data, copy->data, owner->bytes) == 0)
        return true;
    layout->rank = copy_layout_dims(owner, dims);
    if (layout->rank < 2 || copy_layout_dims(copy, dims) != layout->rank || dtype_size(owner->dtype) == 0)
        return false;
    return find_order(owner, copy, layout, 0, 0);
}

/* ---- rows that repeat a part ----------------------------------------------------------------------------------- */

static bool rows_are(const Tensor *tensor, const char *row, size_t bytes)
{
    const char *data = tensor->data;
    for (size_t at = 0; at < tensor->bytes; at += bytes)
        if (memcmp(data + at, row, bytes) != 0)
            return false;
    return true;
}

int64_t repeated_row(const Tensor *owner, const Tensor *copy)
{
    int64_t length = copy->rank > 0 ? copy->dims[copy->rank - 1] : 0, count = tensor_count(owner);
    size_t size = dtype_size(owner->dtype), bytes = (size_t)(length > 0 ? length : 0) * size;
    if (length < 2 || owner->dtype != copy->dtype || size == 0 || tensor_is_uniform(copy) ||
        !rows_are(copy, copy->data, bytes))
        return -1;
    for (int64_t start = 0; start + length <= count; start += length)
        if (memcmp((const char *)owner->data + (size_t)start * size, copy->data, bytes) == 0)
            return start;
    return -1;
}

/* ---- lengths and squares --------------------------------------------------------------------------------------- */

/* Does `copy` have the owner's dims without those that are reduced? Dims of 1 do not count. */
static bool has_dims_left(const Tensor *owner, const Tensor *copy, unsigned reduced)
{
    int at = 0;
    for (int i = 0; i < owner->rank; i++) {
        if ((reduced >> i & 1) != 0 || owner->dims[i] == 1)
            continue;
        while (at < copy->rank && copy->dims[at] == 1)
            at++;
        if (at == copy->rank || copy->dims[at++] != owner->dims[i])
            return false;
    }
    while (at < copy->rank && copy->dims[at] == 1)
        at++;
    return at == copy->rank;
}

/* How far a length may be from what is found here: sums in another order, and a last bit of the type; 0: no type in
 * which lengths are looked for. */
static double length_tolerance(DType dtype)
{
    return dtype == DTYPE_F32    ? 1e-5
           : dtype == DTYPE_F64  ? 1e-10
           : dtype == DTYPE_F16  ? 2e-3
           : dtype == DTYPE_BF16 ? 1.6e-2
                                 : 0;
}

static bool is_length_over(const Tensor *owner, const Tensor *copy, CopyLayout *layout)
{
    double tolerance = length_tolerance(copy->dtype);
    int64_t count = tensor_count(copy);
    for (int64_t i = 0; i < count; i++) {
        double found = tensor_f64_at(copy, i), want = length_at(owner, NULL, layout, i);
        if (i == 0 && !(fabs(found - want) <= tolerance * want)) {
            layout->squared = true;
            want *= want;
        }
        if (!(fabs(found - want) <= tolerance * want))
            return false;
    }
    return true;
}

/* As many numbers do not agree within the tolerance by chance: of float32 two, of bfloat16 five. */
static bool is_no_chance(const Tensor *copy)
{
    const double chance = 1e-8;
    double tolerance = length_tolerance(copy->dtype);
    return tolerance > 0 && pow(tolerance, (double)tensor_count(copy)) < chance;
}

bool is_length(const Tensor *owner, const Tensor *copy, CopyLayout *layout)
{
    enum { AXES_MAX = 5 }; /* a kernel of three dims */
    if (owner->dtype != copy->dtype || !is_no_chance(copy) || owner->rank > AXES_MAX ||
        tensor_count(copy) >= tensor_count(owner))
        return false;
    for (unsigned reduced = 1; reduced < 1U << owner->rank; reduced++) {
        *layout = (CopyLayout){.reduced = reduced};
        if (has_dims_left(owner, copy, reduced) && is_length_over(owner, copy, layout))
            return true;
    }
    return false;
}

/* The square of number `index`, in the owner's own type. */
static void put_square(const Tensor *owner, int64_t index, void *to)
{
    double x = tensor_f64_at(owner, index), square = x * x;
    float narrow = (float)square;
    uint16_t half = owner->dtype == DTYPE_F16 ? f32_to_f16(narrow) : f32_to_bf16(narrow);
    size_t size = dtype_size(owner->dtype);
    memcpy(to, size == sizeof square ? (void *)&square : size == sizeof narrow ? (void *)&narrow : &half, size);
}

static bool is_square_at(const Tensor *owner, const Tensor *copy, int64_t index)
{
    char square[sizeof(double)];
    size_t size = dtype_size(owner->dtype);
    put_square(owner, index, square);
    return memcmp(square, (const char *)copy->data + (size_t)index * size, size) == 0;
}

/* Each number squared, to the bit, in whatever order: what is left of w * w behind which a sum is not folded. */
bool is_square(Arena *scratch, const Tensor *owner, const Tensor *copy, CopyLayout *layout)
{
    int64_t count = tensor_count(owner);
    size_t size = dtype_size(owner->dtype);
    if (owner->dtype != copy->dtype || length_tolerance(owner->dtype) == 0 || tensor_count(copy) != count || count < 2)
        return false;
    if (!is_square_at(owner, copy, 0) || !is_square_at(owner, copy, count - 1))
        return false;
    Tensor squares = *owner;
    char *numbers = arena_array(scratch, char, (size_t)count *size);
    squares.data = numbers;
    for (int64_t i = 0; i < count; i++)
        put_square(owner, i, numbers + (size_t)i * size);
    bool moved = is_moved_copy(&squares, copy, layout);
    layout->squared = true;
    return moved;
}
