/* Products of a few rows by a matrix that many steps share, on processors with AVX-512 or AVX2: the matrix is packed
 * once into panels of 48 or 16 columns, and a tile of 8 or 6 rows and a panel stays in registers over all terms of the
 * sum. The library packs or strides through the matrix at every call and adds one
 * product at a time.
 *
 * The lines of a tile's result are asked for before its sum begins: it is mostly memory that nobody holds yet.
 *
 * Every number is one chain of fused multiply-adds in the order of k, whatever rows or columns stand beside it. */
#include "runtime/ops/recurrent_panels.h"

#include <string.h>

#include "runtime/dnnl.h"

/* Where a tile of the result lies. */
typedef struct Place {
    int64_t row, column, width; /* its first of the rows of `a`; its panel's first column, and how many that has */
    bool add;
} Place;

typedef void (*Tile)(const PanelTerm *terms, int count, const Place *at, float *c, int64_t ldc);

/* A kind of tiles: by rows, most first, and by vectors of LANES columns. */
enum { LANES = 16, SIZES = 4, VECTORS_MAX = 3 };
typedef struct Tiles {
    int rows[SIZES], vectors; /* the last of rows is 1; vectors: of a panel */
    Tile of[SIZES][VECTORS_MAX];
} Tiles;

/* One row and LANES columns in plain C, where the processor has neither; nothing is won by it. */
static void tile_plain(const PanelTerm *terms, int count, const Place *at, float *c, int64_t ldc)
{
    (void)ldc;
    for (int64_t j = 0; j < at->width; j++) {
        float sum = at->add ? c[j] : 0.0F;
        for (int t = 0; t < count; t++) {
            int64_t k = terms[t].b->k;
            const float *a = terms[t].a + at->row * terms[t].lda, *b = terms[t].b->data + at->column * k;
            for (int64_t l = 0; l < k; l++)
                sum += a[l] * b[l * LANES + j];
        }
        c[j] = sum;
    }
}

static const Tiles plain = {{1}, 1, {{tile_plain}}};

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* From LANES - width on: a lane's sign bit says that its column is there. */
static const int columns_there[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

/* c (+)= the terms' products in ROWS rows of VECTORS vectors; a tile has `width` columns, of which only the last
 * vector's can be missing: they are left alone. */
#define TILE_AVX512(ROWS, VECTORS)                                                                                     \
    __attribute__((target("avx512f"))) static void wide_##ROWS##_##VECTORS(const PanelTerm *terms, int count,          \
                                                                           const Place *at, float *c, int64_t ldc)     \
    {                                                                                                                  \
        __mmask16 mask = (__mmask16)(0xFFFFU >> ((VECTORS)*LANES - at->width));                                        \
        __m512 sums[ROWS][VECTORS];                                                                                    \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < VECTORS; v++)                                 \
        {                                                                                                              \
            __mmask16 here = v == VECTORS - 1 ? mask : (__mmask16)0xFFFF;                                              \
            __builtin_prefetch(c + i * ldc + v * LANES, 1, 3);                                                         \
            sums[i][v] = at->add ? _mm512_maskz_loadu_ps(here, c + i * ldc + v * LANES) : _mm512_setzero_ps();         \
        }                                                                                                              \
        for (int t = 0; t < count; t++) {                                                                              \
            int64_t k = terms[t].b->k, lda = terms[t].lda;                                                             \
            const float *a = terms[t].a + at->row * lda, *b = terms[t].b->data + at->column * k;                       \
            for (int64_t l = 0; l < k; l++) {                                                                          \
                __m512 w[VECTORS];                                                                                     \
                UNROLL for (int v = 0; v < VECTORS; v++) w[v] = _mm512_loadu_ps(b + (l * VECTORS + v) * LANES);        \
                UNROLL for (int i = 0; i < ROWS; i++)                                                                  \
                {                                                                                                      \
                    __m512 x = _mm512_set1_ps(a[i * lda + l]);                                                         \
                    UNROLL for (int v = 0; v < VECTORS; v++) sums[i][v] = _mm512_fmadd_ps(x, w[v], sums[i][v]);        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < VECTORS; v++)                                 \
        {                                                                                                              \
            __mmask16 here = v == VECTORS - 1 ? mask : (__mmask16)0xFFFF;                                              \
            _mm512_mask_storeu_ps(c + i * ldc + v * LANES, here, sums[i][v]);                                          \
        }                                                                                                              \
    }

/* The same in ROWS rows of two vectors of 8; columns of both can be missing. */
#define TILE_AVX2(ROWS)                                                                                                \
    __attribute__((target("avx2,fma"))) static void narrow_##ROWS(const PanelTerm *terms, int count, const Place *at,  \
                                                                  float *c, int64_t ldc)                               \
    {                                                                                                                  \
        const int *there = columns_there + LANES - at->width;                                                          \
        __m256i mask[2] = {_mm256_loadu_si256((const __m256i *)there),                                                 \
                           _mm256_loadu_si256((const __m256i *)(there + 8))};                                          \
        __m256 sums[ROWS][2];                                                                                          \
        UNROLL for (int i = 0; i < ROWS; i++)                                                                          \
        {                                                                                                              \
            __builtin_prefetch(c + i * ldc, 1, 3);                                                                     \
            UNROLL for (int v = 0; v < 2; v++) sums[i][v] =                                                            \
                at->add ? _mm256_maskload_ps(c + i * ldc + v * 8, mask[v]) : _mm256_setzero_ps();                      \
        }                                                                                                              \
        for (int t = 0; t < count; t++) {                                                                              \
            int64_t k = terms[t].b->k, lda = terms[t].lda;                                                             \
            const float *a = terms[t].a + at->row * lda, *b = terms[t].b->data + at->column * k;                       \
            for (int64_t l = 0; l < k; l++) {                                                                          \
                __m256 w[2];                                                                                           \
                UNROLL for (int v = 0; v < 2; v++) w[v] = _mm256_loadu_ps(b + l * LANES + v * 8);                      \
                UNROLL for (int i = 0; i < ROWS; i++)                                                                  \
                {                                                                                                      \
                    __m256 x = _mm256_broadcast_ss(a + i * lda + l);                                                   \
                    UNROLL for (int v = 0; v < 2; v++) sums[i][v] = _mm256_fmadd_ps(x, w[v], sums[i][v]);              \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < 2; v++)                                       \
            _mm256_maskstore_ps(c + i * ldc + v * 8, mask[v], sums[i][v]);                                             \
    }

#define TILES_AVX512(ROWS) TILE_AVX512(ROWS, 1) TILE_AVX512(ROWS, 2) TILE_AVX512(ROWS, 3)
TILES_AVX512(8)
TILES_AVX512(4)
TILES_AVX512(2)
TILES_AVX512(1)
TILE_AVX2(6)
TILE_AVX2(4)
TILE_AVX2(2)
TILE_AVX2(1)

static const Tiles wide = {{8, 4, 2, 1},
                           3,
                           {{wide_8_1, wide_8_2, wide_8_3},
                            {wide_4_1, wide_4_2, wide_4_3},
                            {wide_2_1, wide_2_2, wide_2_3},
                            {wide_1_1, wide_1_2, wide_1_3}}};
static const Tiles narrow = {{6, 4, 2, 1}, 1, {{narrow_6}, {narrow_4}, {narrow_2}, {narrow_1}}};

/* Of the processor's vectors, those that the library may use (DNNL_MAX_CPU_ISA). */
static const Tiles *tiles_here(void)
{
    int avx2 = (int)dnnl_cpu_isa_avx2, avx512 = (int)dnnl_cpu_isa_avx512_core;
    int isa = (int)dnnl_get_effective_cpu_isa();
    return (isa & avx512) == avx512 ? &wide : (isa & avx2) == avx2 ? &narrow : &plain;
}

#else

static const Tiles *tiles_here(void)
{
    return &plain;
}

#endif

bool panels_usable(void)
{
    return tiles_here() != &plain;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* In columns; it does not change while the process runs. */
static int64_t panel_width(void)
{
    return (int64_t)tiles_here()->vectors * LANES;
}

int64_t panels_size(int64_t k, int64_t n)
{
    return k * ((n + LANES - 1) / LANES * LANES);
}

/* [k, width] of the matrix that lies column by column, `apart` floats from one to the next: blocks of it are turned. */
static void pack_columns(int64_t k, int64_t width, const float *from, int64_t apart, float *to, int64_t stride)
{
    for (int64_t block = 0; block < k; block += LANES) {
        int64_t count = least(LANES, k - block);
        for (int64_t j = 0; j < width; j++) {
            const float *column = from + j * apart + block;
            for (int64_t l = 0; l < count; l++)
                to[(block + l) * stride + j] = column[l];
        }
    }
}

/* A panel is [k, width], width panel_width() or what is left in whole vectors; columns that are not there are zeros. */
void panels_pack(const Panels *panels, int64_t begin, int64_t end, const float *from, int64_t k_stride,
                 int64_t n_stride, float *to)
{
    int64_t k = panels->k, n = panels->n, panel_columns = panel_width();
    for (int64_t first = begin * panel_columns; first < end * panel_columns && first < n; first += panel_columns) {
        int64_t width = least(panel_columns, n - first), stride = (width + LANES - 1) / LANES * LANES;
        float *panel = to + first * k;
        if (width < stride)
            memset(panel, 0, (size_t)(k * stride) * sizeof *panel);
        if (k_stride == 1)
            pack_columns(k, width, from + first * n_stride, n_stride, panel, stride);
        else
            for (int64_t l = 0; l < k; l++)
                memcpy(panel + l * stride, from + l * k_stride + first, (size_t)width * sizeof *panel);
    }
}

int64_t panels_count(int64_t n)
{
    return (n + panel_width() - 1) / panel_width();
}

void panels_multiply(int64_t m, const PanelTerm *terms, int count, bool add, float *c, int64_t ldc)
{
    const Tiles *tiles = tiles_here();
    int64_t n = terms[0].b->n;
    Place at = {.add = add};
    for (at.column = 0; at.column < n; at.column += tiles->vectors * LANES) {
        int size = 0;
        at.width = least(tiles->vectors * LANES, n - at.column);
        for (at.row = 0; at.row < m; at.row += tiles->rows[size]) {
            while (m - at.row < tiles->rows[size])
                size++;
            tiles->of[size][(at.width - 1) / LANES](terms, count, &at, c + at.row * ldc + at.column, ldc);
        }
    }
}
