/* Products of a few rows by a matrix that many steps share, on processors with AVX-512: the matrix is packed once into
 * panels of 48 columns, and a tile of 8 rows and a panel stays in registers over all terms of the sum. The library
 * packs or strides through the matrix at every call and adds one product at a time.
 *
 * The lines of a tile's result are asked for before its sum begins: it is mostly memory that nobody holds yet.
 *
 * Every number is one chain of fused multiply-adds in the order of k, whatever rows or columns stand beside it. */
#include "runtime/ops/recurrent_panels.h"

#include <string.h>

#include "runtime/dnnl.h"

enum { LANES = 16, PANEL = 3 * LANES, TILE_ROWS = 8 };

int64_t panels_size(int64_t k, int64_t n)
{
    return k * ((n + LANES - 1) / LANES * LANES);
}

/* [k, width] of the matrix that lies column by column, `apart` floats from one to the next: blocks of it are turned. */
static void pack_columns(int64_t k, int64_t width, const float *from, int64_t apart, float *to, int64_t stride)
{
    for (int64_t block = 0; block < k; block += LANES) {
        int64_t count = k - block < LANES ? k - block : LANES;
        for (int64_t j = 0; j < width; j++) {
            const float *column = from + j * apart + block;
            for (int64_t l = 0; l < count; l++)
                to[(block + l) * stride + j] = column[l];
        }
    }
}

/* A panel is [k, width], width PANEL or what is left in whole vectors; columns that are not there are zeros. */
void panels_pack(const Panels *panels, int64_t begin, int64_t end, const float *from, int64_t k_stride,
                 int64_t n_stride, float *to)
{
    int64_t k = panels->k, n = panels->n;
    for (int64_t first = begin * PANEL; first < end * PANEL && first < n; first += PANEL) {
        int64_t width = n - first < PANEL ? n - first : PANEL, stride = (width + LANES - 1) / LANES * LANES;
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
    return (n + PANEL - 1) / PANEL;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

bool panels_usable(void)
{
    int wanted = (int)dnnl_cpu_isa_avx512_core;
    return ((int)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

/* ROWS rows of VECTORS vectors: c = (c +) sum over the terms of a b. The last vector's columns beyond `mask` are left
 * alone. */
#define TILE(ROWS, VECTORS)                                                                                            \
    __attribute__((target("avx512f"))) static void tile_##ROWS##_##VECTORS(const PanelTerm *terms, int count,          \
                                                                           int64_t row, int64_t column, bool add,      \
                                                                           float *c, int64_t ldc, __mmask16 mask)      \
    {                                                                                                                  \
        __m512 sums[ROWS][VECTORS];                                                                                    \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < VECTORS; v++)                                 \
        {                                                                                                              \
            __mmask16 here = v == VECTORS - 1 ? mask : (__mmask16)0xFFFF;                                              \
            __builtin_prefetch(c + i * ldc + v * LANES, 1, 3);                                                         \
            sums[i][v] = add ? _mm512_maskz_loadu_ps(here, c + i * ldc + v * LANES) : _mm512_setzero_ps();             \
        }                                                                                                              \
        for (int t = 0; t < count; t++) {                                                                              \
            int64_t k = terms[t].b->k, lda = terms[t].lda;                                                             \
            const float *a = terms[t].a + row * lda, *b = terms[t].b->data + column * k;                               \
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

#define TILES(ROWS) TILE(ROWS, 1) TILE(ROWS, 2) TILE(ROWS, 3)
TILES(8)
TILES(4)
TILES(2)
TILES(1)

typedef void (*Tile)(const PanelTerm *terms, int count, int64_t row, int64_t column, bool add, float *c, int64_t ldc,
                     __mmask16 mask);

/* By rows (8, 4, 2, 1) and vectors. */
static const Tile tiles[][3] = {{tile_8_1, tile_8_2, tile_8_3},
                                {tile_4_1, tile_4_2, tile_4_3},
                                {tile_2_1, tile_2_2, tile_2_3},
                                {tile_1_1, tile_1_2, tile_1_3}};

void panels_multiply(int64_t m, const PanelTerm *terms, int count, bool add, float *c, int64_t ldc)
{
    int64_t n = terms[0].b->n;
    for (int64_t column = 0; column < n; column += PANEL) {
        int64_t left = n - column < PANEL ? n - column : PANEL, vectors = (left + LANES - 1) / LANES;
        __mmask16 mask = (__mmask16)(0xFFFFU >> (vectors * LANES - left));
        int size = 0;
        for (int64_t row = 0; row < m; row += TILE_ROWS >> size) {
            while (m - row < TILE_ROWS >> size)
                size++;
            tiles[size][vectors - 1](terms, count, row, column, add, c + row * ldc + column, ldc, mask);
        }
    }
}

#else

bool panels_usable(void)
{
    return false;
}

void panels_multiply(int64_t m, const PanelTerm *terms, int count, bool add, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < terms[0].b->n; j++) {
            float sum = add ? c[i * ldc + j] : 0.0F;
            int64_t first = j / PANEL * PANEL, padded = (terms[0].b->n + LANES - 1) / LANES * LANES;
            int64_t width = padded - first < PANEL ? padded - first : PANEL;
            for (int t = 0; t < count; t++)
                for (int64_t l = 0; l < terms[t].b->k; l++)
                    sum += terms[t].a[i * terms[t].lda + l] *
                           terms[t].b->data[first * terms[t].b->k + l * width + (j - first)];
            c[i * ldc + j] = sum;
        }
}

#endif
