/* The matrix product that MatMul, Gemm and their gradients share: shape rules and reference evaluation. See product.h.
 */
#include "runtime/ops/product.h"

#include "runtime/ops/ops.h"

/* An operand as the product sees it: dims and strides after its permutation, at least a matrix. */
typedef struct View {
    int rank;
    int64_t dims[RANK_MAX + 1], strides[RANK_MAX + 1];
} View;

static View view_of(const Type *type, const int64_t *perm, bool row_vector)
{
    View v = {.rank = type->rank};
    int64_t strides[RANK_MAX];
    strides_dense(type->rank, type->dims, strides);
    for (int i = 0; i < v.rank; i++) {
        int from = perm != NULL ? (int)perm[i] : i;
        v.dims[i] = type->dims[from];
        v.strides[i] = strides[from];
    }
    if (v.rank == 1) {
        v.rank = 2;
        int vector = row_vector ? 1 : 0;
        v.dims[vector] = type->dims[0];
        v.strides[vector] = 1;
        v.dims[1 - vector] = 1;
        v.strides[1 - vector] = 0;
    }
    return v;
}

/* Stride of batch dim `i` of `batch_rank`, counted as numpy aligns shapes: from the right; 0 where the operand is
 * repeated. */
static int64_t batch_stride(const View *v, int i, int batch_rank)
{
    int at = i - (batch_rank - (v->rank - 2));
    return at < 0 || v->dims[at] == 1 ? 0 : v->strides[at];
}

static void store_result(Product *p, const Type *a, const Type *b, const int64_t *perm_y)
{
    int64_t dims[RANK_MAX + 2], strides[RANK_MAX + 2];
    int rank = p->batch_rank, m_at = -1, n_at = -1;
    for (int i = 0; i < rank; i++)
        dims[i] = p->batch[i];
    if (a->rank > 1) {
        m_at = rank;
        dims[rank++] = p->m;
    }
    if (b->rank > 1) {
        n_at = rank;
        dims[rank++] = p->n;
    }
    p->y_rank = rank;
    for (int i = 0; i < rank; i++)
        p->y_dims[i] = dims[perm_y != NULL ? perm_y[i] : i];
    strides_dense(rank, p->y_dims, strides);
    for (int i = 0; i < rank; i++) {
        int at = perm_y != NULL ? (int)perm_y[i] : i;
        int64_t *stride = at == m_at ? &p->y_m : at == n_at ? &p->y_n : &p->y_batch[at];
        *stride = strides[i];
    }
}

const char *product_init(Product *p, const Type *a, const int64_t *perm_a, const Type *b, const int64_t *perm_b,
                         const int64_t *perm_y)
{
    *p = (Product){.m = 1, .n = 1};
    if (a->rank < 1 || b->rank < 1)
        return "a scalar has no rows and columns";
    View va = view_of(a, perm_a, true), vb = view_of(b, perm_b, false);
    p->m = va.dims[va.rank - 2];
    p->k = va.dims[va.rank - 1];
    p->n = vb.dims[vb.rank - 1];
    if (vb.dims[vb.rank - 2] != p->k)
        return "the inner dims differ";
    if (!dims_broadcast(va.rank - 2, va.dims, vb.rank - 2, vb.dims, &p->batch_rank, p->batch))
        return "the leading dims do not broadcast";
    if (p->batch_rank + 2 > RANK_MAX)
        return "the result has too many dims";
    for (int i = 0; i < p->batch_rank; i++) {
        p->a_batch[i] = batch_stride(&va, i, p->batch_rank);
        p->b_batch[i] = batch_stride(&vb, i, p->batch_rank);
    }
    p->a_m = va.strides[va.rank - 2];
    p->a_k = va.strides[va.rank - 1];
    p->b_k = vb.strides[vb.rank - 2];
    p->b_n = vb.strides[vb.rank - 1];
    store_result(p, a, b, perm_y);
    return NULL;
}

bool product_addend(Product *p, int rank, const int64_t *dims)
{
    int64_t n = rank > 0 ? dims[rank - 1] : 1, m = rank > 1 ? dims[rank - 2] : 1;
    p->c_n = n == 1 ? 0 : 1;
    p->c_m = m == 1 ? 0 : n;
    return rank <= 2 && (n == 1 || n == p->n) && (m == 1 || m == p->m);
}

#define FINISH_FLOAT(TYPE, sum, add) (TYPE)(alpha * (sum) + beta * (double)(add))
#define FINISH_INTEGER(TYPE, sum, add)                                                                                 \
    (alpha == 1 && beta == 1 ? (TYPE)((sum) + (uint64_t)(add))                                                         \
                             : (TYPE)(alpha * (double)(TYPE)(sum) + beta * (double)(add)))

/* y = alpha a b + beta c for one batch; `sums` holds one row of it. */
#define PRODUCT_MATRIX(NAME, TYPE, SUM, FINISH)                                                                        \
    static void matrix_##NAME(const Product *p, const void *pa, const void *pb, const void *pc, void *py, void *ps,    \
                              double alpha, double beta)                                                               \
    {                                                                                                                  \
        const TYPE *a = pa, *b = pb, *c = pc;                                                                          \
        TYPE *y = py;                                                                                                  \
        SUM *sums = ps;                                                                                                \
        for (int64_t i = 0; i < p->m; i++) {                                                                           \
            memset(sums, 0, (size_t)p->n * sizeof *sums);                                                              \
            for (int64_t l = 0; l < p->k; l++) {                                                                       \
                SUM factor = (SUM)a[i * p->a_m + l * p->a_k];                                                          \
                const TYPE *row = b + l * p->b_k;                                                                      \
                for (int64_t j = 0; j < p->n; j++)                                                                     \
                    sums[j] += factor * (SUM)row[j * p->b_n];                                                          \
            }                                                                                                          \
            for (int64_t j = 0; j < p->n; j++) {                                                                       \
                TYPE add = c != NULL ? c[i * p->c_m + j * p->c_n] : (TYPE)0;                                           \
                y[i * p->y_m + j * p->y_n] = FINISH(TYPE, sums[j], add);                                               \
            }                                                                                                          \
        }                                                                                                              \
    }

PRODUCT_MATRIX(f32, float, double, FINISH_FLOAT)
PRODUCT_MATRIX(f64, double, double, FINISH_FLOAT)
PRODUCT_MATRIX(i32, int32_t, uint64_t, FINISH_INTEGER)
PRODUCT_MATRIX(u32, uint32_t, uint64_t, FINISH_INTEGER)
PRODUCT_MATRIX(i64, int64_t, uint64_t, FINISH_INTEGER)
PRODUCT_MATRIX(u64, uint64_t, uint64_t, FINISH_INTEGER)

typedef void MatrixFunction(const Product *p, const void *a, const void *b, const void *c, void *y, void *sums,
                            double alpha, double beta);

static MatrixFunction *matrix_function(DType dtype)
{
    return dtype == DTYPE_F32   ? matrix_f32
           : dtype == DTYPE_F64 ? matrix_f64
           : dtype == DTYPE_I32 ? matrix_i32
           : dtype == DTYPE_U32 ? matrix_u32
           : dtype == DTYPE_I64 ? matrix_i64
           : dtype == DTYPE_U64 ? matrix_u64
                                : NULL;
}

Status product_eval(const Product *p, EvalContext *context, DType dtype, const void *a, const void *b, const void *c,
                    void *y, double alpha, double beta, Error *err)
{
    MatrixFunction *matrix = matrix_function(dtype);
    if (matrix == NULL)
        return eval_fail(context, err, "no matrix product of %s", dtype_name(dtype));
    double *sums = arena_array(context->arena, double, (size_t)p->n);
    const char *ca = a, *cb = b;
    char *cy = y;
    int64_t size = (int64_t)dtype_size(dtype), index[RANK_MAX] = {0}, count = dims_count(p->batch_rank, p->batch);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0, bt = 0, yt = 0;
        for (int d = 0; d < p->batch_rank; d++) {
            at += index[d] * p->a_batch[d];
            bt += index[d] * p->b_batch[d];
            yt += index[d] * p->y_batch[d];
        }
        matrix(p, ca + at * size, cb + bt * size, c, cy + yt * size, sums, alpha, beta);
        for (int d = p->batch_rank - 1; d >= 0 && ++index[d] == p->batch[d]; d--)
            index[d] = 0;
    }
    return STATUS_OK;
}
