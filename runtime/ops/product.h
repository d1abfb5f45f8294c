/* One matrix product behind all of them: Y = alpha A B + beta C over batches, with every operand described by strides,
 * so that transposes and broadcasting cost nothing. MatMul, Gemm, their fused forms and their gradients fill a Product
 * and share its shape rules, its reference evaluation (product.c) and its planned kernel (product_kernel.c). */
#ifndef REGRAFT_RUNTIME_PRODUCT_H
#define REGRAFT_RUNTIME_PRODUCT_H

#include "runtime/kernel.h"

typedef struct Product {
    int64_t m, n, k;
    int batch_rank;
    int64_t batch[RANK_MAX];                                         /* broadcast batch dims of Y */
    int64_t a_batch[RANK_MAX], b_batch[RANK_MAX], y_batch[RANK_MAX]; /* strides in elements; 0 where repeated */
    int64_t a_m, a_k, b_k, b_n, y_m, y_n;
    int64_t c_m, c_n; /* of the addend, which all batches share */
    int y_rank;       /* Y as it lies in memory: the product's dims after perm_y, row-major */
    int64_t y_dims[RANK_MAX];
} Product;

/* numpy.matmul of A and B seen through permutations (as Transpose has them; NULL: as they lie), the result stored
 * through perm_y. Returns NULL, or why the shapes do not fit. 1-D operands gain a dim that Y drops; permutations then
 * stay NULL. */
const char *product_init(Product *p, const Type *a, const int64_t *perm_a, const Type *b, const int64_t *perm_b,
                         const int64_t *perm_y);
/* The strides of an addend of shape `c` that is repeated to [m, n]; false when it does not fit. */
bool product_addend(Product *p, int rank, const int64_t *dims);

/* The reference: sums in double, integers wrap. `c` may be NULL. STATUS_UNSUPPORTED for other dtypes than f32, f64 and
 * the 32- and 64-bit integers. */
Status product_eval(const Product *p, EvalContext *context, DType dtype, const void *a, const void *b, const void *c,
                    void *y, double alpha, double beta, Error *err);

/* The planned kernel of a node whose inputs are A, B and (optionally) C and whose output 0 is Y. */
Status product_prepare(const Product *p, PlanContext *context, double alpha, double beta, Error *err);

#endif
