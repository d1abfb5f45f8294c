/* Pillow's resampling (src/libImaging/Resample.c describes the method), which torchvision's transforms use on pictures:
 * separable, the filter widened by the scale when shrinking, 8-bit between the two passes, weights in fixed point. With
 * the same rounding in the same order (across, then down, as every Pillow before 13 does), so that results are equal
 * bit for bit. */
#include <math.h>
#include <string.h>

#include "data/data.h"

/* Whole loops compiled once per instruction set, as in runtime/ops/vector.h, which this folder does not see. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR_CLONES
#endif

enum { PRECISION = 32 - 8 - 2 }; /* bits after the point: 8 bits of pixel, 2 of headroom for bicubic's overshoot */

typedef struct Weights {
    int *first, *count; /* [n] source pixels that one result pixel reads */
    int32_t *values;    /* [n, room] */
    int room, n;
} Weights;

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Keys' cubic with a = -1/2: w(x) = (a+2)|x|^3 - (a+3)|x|^2 + 1 for |x| < 1, a|x|^3 - 5a|x|^2 + 8a|x| - 4a for |x| < 2
 */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* One side: source pixels [from, to) of `size`, made `result` pixels, of which [start, start + n) are wanted. */
typedef struct Side {
    int size, result, start, n;
    double from, to;
} Side;

static void fill_weights(const Side *side, ResizeFilter filter, double support, double scale, double *real, Weights *w)
{
    double widen = scale < 1 ? 1 : scale;
    for (int i = 0; i < side->n; i++) {
        double center = side->from + (side->start + i + 0.5) * scale, sum = 0;
        int first = (int)(center - support + 0.5), last = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        last = last > side->size ? side->size : last;
        w->first[i] = first;
        w->count[i] = last - first;
        for (int k = 0; k < w->count[i]; k++) {
            double x = (k + first - center + 0.5) * (1.0 / widen);
            real[k] = filter == RESIZE_BICUBIC ? cubic(x) : triangle(x);
            sum += real[k];
        }
        for (int k = 0; k < w->count[i]; k++) {
            double share = (sum != 0 ? real[k] / sum : real[k]) * (1 << PRECISION);
            w->values[(size_t)i * (size_t)w->room + (size_t)k] = (int32_t)(share < 0 ? share - 0.5 : share + 0.5);
        }
    }
}

/* The same number of source pixels for every result, with weights of zero: a loop of one length runs without the
 * processor guessing wrong where each ends. What would pass the end begins earlier. */
static void even_out(const Side *side, Weights *w)
{
    int taps = 0;
    for (int i = 0; i < w->n; i++)
        taps = w->count[i] > taps ? w->count[i] : taps;
    for (int i = 0; i < w->n && taps <= side->size; i++) {
        int32_t *values = w->values + (size_t)i * (size_t)w->room;
        int shift = w->first[i] + taps > side->size ? w->first[i] + taps - side->size : 0;
        memmove(values + shift, values, (size_t)w->count[i] * sizeof *values);
        memset(values, 0, (size_t)shift * sizeof *values);
        w->first[i] -= shift;
        w->count[i] = taps;
    }
}

static Status weights_init(const Side *side, ResizeFilter filter, Weights *w, Error *err)
{
    double scale = (side->to - side->from) / side->result;
    double support = (filter == RESIZE_BICUBIC ? 2.0 : 1.0) * (scale < 1 ? 1 : scale);
    size_t n = (size_t)side->n, room = (size_t)ceil(support) * 2 + 1;
    w->n = side->n;
    w->room = (int)room;
    TRY(block_alloc((void **)&w->values, n * room * sizeof *w->values, "resizing", err));
    w->first = calloc(2 * n + 1, sizeof *w->first);
    double *real = calloc(room, sizeof *real);
    if (w->first == NULL || real == NULL) {
        free(real);
        return fail(err, STATUS_ENVIRONMENT, "no memory for resizing to %d pixels", side->result);
    }
    w->count = w->first + n;
    fill_weights(side, filter, support, scale, real, w);
    free(real);
    return STATUS_OK;
}

static void weights_release(Weights *w)
{
    block_free(w->values);
    free(w->first);
}

static unsigned char clip(int32_t sum)
{
    int32_t value = sum >> PRECISION;
    return value < 0 ? 0 : value > 255 ? 255 : (unsigned char)value;
}

/* One row [source width, 1] -> [n, 1] */
static void row_1(const unsigned char *restrict from, const Weights *w, unsigned char *restrict to)
{
    for (int i = 0; i < w->n; i++) {
        const unsigned char *p = from + w->first[i];
        const int32_t *weight = w->values + (size_t)i * (size_t)w->room;
        int32_t sum = 1 << (PRECISION - 1);
        for (int k = 0; k < w->count[i]; k++)
            sum += p[k] * weight[k];
        to[i] = clip(sum);
    }
}

/* A row [n, 3] of bytes as [n, 4] of numbers; the fourth means nothing. Four pixels are spread by one shuffle, which
 * reads one byte after them and three more: never beyond the row. */
VECTOR_CLONES static void widen(const unsigned char *restrict from, int n, int32_t *restrict to)
{
    typedef unsigned char Bytes16 __attribute__((vector_size(16)));
    int i = 0;
    for (; i + 6 <= n; i += 4) {
        Bytes16 bytes;
        unsigned char pixels[16];
        memcpy(&bytes, from + 3 * i, sizeof bytes);
        bytes = __builtin_shufflevector(bytes, bytes, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12);
        memcpy(pixels, &bytes, sizeof pixels);
        for (int k = 0; k < 16; k++)
            to[4 * i + k] = pixels[k];
    }
    for (; i < n; i++) {
        for (int c = 0; c < 3; c++)
            to[4 * i + c] = from[3 * i + c];
        to[4 * i + 3] = 0; /* what lies there from before could overflow in the sum */
    }
}

/* One row [source width, 4] -> [n, 3] */
VECTOR_CLONES static void row_3(const int32_t *restrict from, const Weights *w, unsigned char *restrict to)
{
    typedef int32_t Sums __attribute__((vector_size(16)));
    for (int i = 0; i < w->n; i++) {
        const int32_t *p = from + (size_t)w->first[i] * 4;
        const int32_t *weight = w->values + (size_t)i * (size_t)w->room;
        Sums sums = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1), 0};
        for (int k = 0; k < w->count[i]; k++, p += 4) {
            Sums pixel;
            memcpy(&pixel, p, sizeof pixel);
            sums += pixel * weight[k];
        }
        sums >>= PRECISION; /* then 0 below and 255 above, without branches */
        sums &= ~(sums >> 31);
        sums |= (255 - sums) >> 31;
        for (int c = 0; c < 3; c++)
            to[3 * i + c] = (unsigned char)sums[c];
    }
}

/* Rows [count of w, row] -> [n, row]. `sums`: one row of accumulators. */
VECTOR_CLONES static void columns(const unsigned char *from, int first_row, size_t row, const Weights *w,
                                  int32_t *restrict sums, unsigned char *restrict to)
{
    for (int i = 0; i < w->n; i++, to += row) {
        const unsigned char *restrict p = from + (size_t)(w->first[i] - first_row) * row;
        const int32_t *weight = w->values + (size_t)i * (size_t)w->room;
        for (size_t x = 0; x < row; x++)
            sums[x] = 1 << (PRECISION - 1);
        for (int k = 0; k < w->count[i]; k++, p += row)
            for (size_t x = 0; x < row; x++)
                sums[x] += p[x] * weight[k];
        for (size_t x = 0; x < row; x++)
            to[x] = clip(sums[x]);
    }
}

static void copy_row(const unsigned char *from, const Side *side, int channels, unsigned char *to)
{
    memcpy(to, from + ((size_t)side->from + (size_t)side->start) * (size_t)channels,
           (size_t)side->n * (size_t)channels);
}

/* A side that keeps its pixels is copied, as Pillow does. */
static bool is_copy(const Side *side)
{
    return side->from == (int)side->from && side->to - side->from == side->result;
}

static Status both_passes(const Picture *from, const Side *across, const Side *down, const Weights *x, const Weights *y,
                          Picture *to, Error *err)
{
    int channels = from->channels;
    bool copy_x = is_copy(across), copy_y = is_copy(down);
    int first = copy_y ? (int)down->from + down->start : y->first[0];
    int last = copy_y ? first + down->n : y->first[y->n - 1] + y->count[y->n - 1];
    size_t row = (size_t)across->n * (size_t)channels, stride = (size_t)from->width * (size_t)channels;
    /* Behind the result, in memory that the next picture uses again: a row of numbers, a row of sums, all rows between.
     */
    size_t result_bytes = ((size_t)down->n * row + 63) / 64 * 64, wide_row = (size_t)from->width * 4;
    TRY(picture_reserve(to, result_bytes + (wide_row + row) * sizeof(int32_t) + (size_t)(last - first) * row, err));
    int32_t *wide = (int32_t *)(void *)(to->pixels + result_bytes), *sums = wide + wide_row;
    unsigned char *middle = copy_y ? to->pixels : (unsigned char *)(sums + row);
    for (int r = first; r < last; r++) {
        const unsigned char *source = from->pixels + (size_t)r * stride;
        unsigned char *result = middle + (size_t)(r - first) * row;
        if (copy_x) {
            copy_row(source, across, channels, result);
        } else if (channels == 3) {
            widen(source, from->width, wide);
            row_3(wide, x, result);
        } else {
            row_1(source, x, result);
        }
    }
    if (!copy_y)
        columns(middle, first, row, y, sums, to->pixels);
    return STATUS_OK;
}

static void nearest(const Picture *from, const Side *across, const Side *down, Picture *to)
{
    double scale_x = (across->to - across->from) / across->result, scale_y = (down->to - down->from) / down->result;
    unsigned char *out = to->pixels;
    for (int i = 0; i < down->n; i++) {
        int y = (int)(down->from + (down->start + i + 0.5) * scale_y);
        y = y < 0 ? 0 : y >= from->height ? from->height - 1 : y;
        for (int j = 0; j < across->n; j++, out += from->channels) {
            int x = (int)(across->from + (across->start + j + 0.5) * scale_x);
            x = x < 0 ? 0 : x >= from->width ? from->width - 1 : x;
            memcpy(out, from->pixels + ((size_t)y * (size_t)from->width + (size_t)x) * (size_t)from->channels,
                   (size_t)from->channels);
        }
    }
}

Status picture_resize(const Picture *from, Box box, ResizeFilter filter, int width, int height, Window window,
                      Picture *to, Error *err)
{
    Side across = {from->width, width, window.left, window.width, box.left, box.right};
    Side down = {from->height, height, window.top, window.height, box.top, box.bottom};
    TRY(picture_resize_buffer(to, window.width, window.height, from->channels, err));
    if (filter == RESIZE_NEAREST) {
        nearest(from, &across, &down, to);
        return STATUS_OK;
    }
    Weights x = {0}, y = {0};
    Status status = is_copy(&across) ? STATUS_OK : weights_init(&across, filter, &x, err);
    if (status == STATUS_OK && !is_copy(&down))
        status = weights_init(&down, filter, &y, err);
    if (x.n > 0)
        even_out(&across, &x);
    if (status == STATUS_OK)
        status = both_passes(from, &across, &down, &x, &y, to, err);
    weights_release(&x);
    weights_release(&y);
    return status;
}
