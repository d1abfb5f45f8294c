/* Few rows times a packed matrix; see recurrent_panels.c. */
#ifndef REGRAFT_RUNTIME_RECURRENT_PANELS_H
#define REGRAFT_RUNTIME_RECURRENT_PANELS_H

#include <stdbool.h>
#include <stdint.h>

/* A matrix [k, n] in panels of columns. */
typedef struct Panels {
    int64_t k, n;
    const float *data;
} Panels;

typedef struct PanelTerm {
    const float *a; /* [m, k], rows lda apart */
    int64_t lda;
    const Panels *b;
} PanelTerm;

bool panels_usable(void);                  /* the processor has what makes this fast, and the library may use it */
int64_t panels_size(int64_t k, int64_t n); /* floats */
int64_t panels_count(int64_t n);
/* Packs panels begin..end of the matrix whose element (k, n) is from[k * k_stride + n * n_stride]; one of them is 1. */
void panels_pack(const Panels *panels, int64_t begin, int64_t end, const float *from, int64_t k_stride,
                 int64_t n_stride, float *to);
/* c [m, n] = (c +) the sum of the terms' products, all of n columns. */
void panels_multiply(int64_t m, const PanelTerm *terms, int count, bool add, float *c, int64_t ldc);

#endif
