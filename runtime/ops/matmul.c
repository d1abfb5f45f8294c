/* Family: matmul. MatMul and Gemm, com.microsoft's FusedMatMul and FusedGemm, and the internal MatMulStrided: a MatMul
 * that reads its operands through permutations and may add a bias, so that neither gradients nor attention need a
 * Transpose that moves bytes. All of them are a Product (product.h); this file holds the rows, their shapes and their
 * gradients. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/product.h"

/* ---- shapes ----------------------------------------------------------------------------------------------- */

static bool perm_valid(const int64_t *perm, size_t count, int rank)
{
    unsigned seen = 0;
    if (count != (size_t)rank)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (perm[i] < 0 || perm[i] >= rank || (seen >> perm[i] & 1U) != 0)
            return false;
        seen |= 1U << perm[i];
    }
    return true;
}

/* The permutation attribute `name`, NULL when absent. */
static Status node_perm(const Node *node, const char *name, int rank, const int64_t **perm, Error *err)
{
    size_t count = 0;
    *perm = node_ints(node, name, &count);
    if (*perm != NULL && !perm_valid(*perm, count, rank))
        return infer_fail(node, err, "%s is no permutation of %d dims", name, rank);
    return STATUS_OK;
}

static Status product_fail(const Node *node, const char *reason, Error *err)
{
    Arena *arena = &node->graph->model->arena;
    return infer_fail(node, err, "%s: %s times %s", reason, type_text(arena, &node->inputs[0]->type),
                      type_text(arena, &node->inputs[1]->type));
}

static Status matmul_product(const Node *node, Product *p, Error *err)
{
    const char *reason = product_init(p, &node->inputs[0]->type, NULL, &node->inputs[1]->type, NULL, NULL);
    return reason == NULL ? STATUS_OK : product_fail(node, reason, err);
}

/* Gemm: Y [M, N] = alpha A' B' + beta C with A' = A or A transposed. */
static Status gemm_product(const Node *node, Product *p, Error *err)
{
    static const int64_t swapped[] = {1, 0};
    const Type *a = &node->inputs[0]->type, *b = &node->inputs[1]->type;
    if (a->rank != 2 || b->rank != 2)
        return product_fail(node, "both must be matrices", err);
    const char *reason = product_init(p, a, node_int(node, "transA", 0) != 0 ? swapped : NULL, b,
                                      node_int(node, "transB", 0) != 0 ? swapped : NULL, NULL);
    if (reason != NULL)
        return product_fail(node, reason, err);
    const Value *c = node_input(node, 2);
    if (c != NULL && !product_addend(p, c->type.rank, c->type.dims))
        return infer_fail(node, err, "C %s does not broadcast to [%lld,%lld]",
                          type_text(&node->graph->model->arena, &c->type), (long long)p->m, (long long)p->n);
    return STATUS_OK;
}

/* Y = perm_y(alpha perm_a(A) perm_b(B) + bias [N]) */
static Status strided_product(const Node *node, Product *p, Error *err)
{
    const Type *a = &node->inputs[0]->type, *b = &node->inputs[1]->type;
    const int64_t *perm_a, *perm_b, *perm_y;
    size_t count = 0;
    TRY(node_perm(node, "perm_a", a->rank, &perm_a, err));
    TRY(node_perm(node, "perm_b", b->rank, &perm_b, err));
    perm_y = node_ints(node, "perm_y", &count);
    if (a->rank < 2 || b->rank < 2)
        return product_fail(node, "both must be matrices", err);
    if (perm_y != NULL && !perm_valid(perm_y, count, a->rank > b->rank ? a->rank : b->rank))
        return infer_fail(node, err, "perm_y is no permutation of the result's dims");
    const char *reason = product_init(p, a, perm_a, b, perm_b, perm_y);
    if (reason != NULL)
        return product_fail(node, reason, err);
    const Value *bias = node_input(node, 2);
    if (bias != NULL && (bias->type.rank != 1 || !product_addend(p, 1, bias->type.dims)))
        return infer_fail(node, err, "bias %s does not fit %lld columns",
                          type_text(&node->graph->model->arena, &bias->type), (long long)p->n);
    return STATUS_OK;
}

static Status product_types(Node *node, const Product *p)
{
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, p->y_rank, p->y_dims);
    return STATUS_OK;
}

static Status matmul_infer(Node *node, Error *err)
{
    Product p;
    TRY(matmul_product(node, &p, err));
    return product_types(node, &p);
}

static Status gemm_infer(Node *node, Error *err)
{
    Product p;
    TRY(gemm_product(node, &p, err));
    return product_types(node, &p);
}

static Status strided_infer(Node *node, Error *err)
{
    Product p;
    TRY(strided_product(node, &p, err));
    return product_types(node, &p);
}

/* ---- eval ------------------------------------------------------------------------------------------------- */

/* A type as product_init reads it, from an array: while evaluating, shapes come from the arrays, not from the graph. */
static Type array_type(const Array *array)
{
    Type type = {.kind = TYPE_TENSOR};
    type_set(&type, array->dtype, array->rank, array->dims);
    return type;
}

static Status product_run(EvalContext *context, const Product *p, double alpha, double beta, Error *err)
{
    const Array *a = eval_input(context, 0), *b = eval_input(context, 1), *c = eval_input(context, 2);
    Array *y = NULL;
    if (a->dtype != b->dtype || (c != NULL && c->dtype != a->dtype))
        return eval_fail(context, err, "operands of %s and %s", dtype_name(a->dtype), dtype_name(b->dtype));
    TRY(eval_output(context, 0, a->dtype, p->y_rank, p->y_dims, &y, err));
    return product_eval(p, context, a->dtype, a->data, b->data, c != NULL ? c->data : NULL, y->data, alpha, beta, err);
}

static Status matmul_eval(EvalContext *context, Error *err)
{
    Product p;
    Type a = array_type(eval_input(context, 0)), b = array_type(eval_input(context, 1));
    const char *reason = product_init(&p, &a, NULL, &b, NULL, NULL);
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    return product_run(context, &p, 1, 1, err);
}

static Status gemm_eval(EvalContext *context, Error *err)
{
    static const int64_t swapped[] = {1, 0};
    const Node *node = context->node;
    const Array *c = eval_input(context, 2);
    Product p;
    Type a = array_type(eval_input(context, 0)), b = array_type(eval_input(context, 1));
    if (a.rank != 2 || b.rank != 2)
        return eval_fail(context, err, "operands of %d and %d dims", a.rank, b.rank);
    const char *reason = product_init(&p, &a, node_int(node, "transA", 0) != 0 ? swapped : NULL, &b,
                                      node_int(node, "transB", 0) != 0 ? swapped : NULL, NULL);
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    if (c != NULL && !product_addend(&p, c->rank, c->dims))
        return eval_fail(context, err, "C does not broadcast to [%lld,%lld]", (long long)p.m, (long long)p.n);
    return product_run(context, &p, (double)node_float(node, "alpha", 1), (double)node_float(node, "beta", 1), err);
}

static Status strided_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *bias = eval_input(context, 2);
    Product p;
    size_t count;
    Type a = array_type(eval_input(context, 0)), b = array_type(eval_input(context, 1));
    const char *reason = product_init(&p, &a, node_ints(node, "perm_a", &count), &b, node_ints(node, "perm_b", &count),
                                      node_ints(node, "perm_y", &count));
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    if (bias != NULL && !product_addend(&p, bias->rank, bias->dims))
        return eval_fail(context, err, "the bias does not fit %lld columns", (long long)p.n);
    return product_run(context, &p, (double)node_float(node, "alpha", 1), 1, err);
}

/* ---- gradients -------------------------------------------------------------------------------------------- */

/* Both operands and the result of Y = perm_y(alpha A' B'), A' = perm_a(A), as matrices of at least two dims. */
typedef struct Factors {
    Value *a, *b, *dy;
    int64_t perm_a[RANK_MAX], perm_b[RANK_MAX], perm_y[RANK_MAX];
    int rank; /* of Y */
    double alpha;
} Factors;

static void perm_or_identity(const Node *node, const char *name, int rank, int64_t *perm)
{
    size_t count;
    const int64_t *given = node_ints(node, name, &count);
    perm_identity(rank, perm);
    for (int i = 0; given != NULL && i < rank; i++)
        perm[i] = given[i];
}

static void swap_last(int rank, const int64_t *perm, int64_t *swapped)
{
    memcpy(swapped, perm, (size_t)rank * sizeof *perm);
    swapped[rank - 1] = perm[rank - 2];
    swapped[rank - 2] = perm[rank - 1];
}

/* `product` [batch.., R, C] is the gradient of `of` seen through `perm`; batch dims that `of` lacks or repeats are
 * summed. */
static Value *sum_batches(Builder *b, Value *product, const Value *of, const int64_t *perm)
{
    int64_t axes[RANK_MAX], seen[RANK_MAX], inverse[RANK_MAX];
    size_t count = 0;
    int rank = of->type.rank;
    if (product == NULL)
        return NULL;
    int extra = product->type.rank - rank;
    for (int i = 0; i < rank; i++)
        seen[i] = of->type.dims[perm[i]];
    for (int i = 0; i < product->type.rank - 2; i++)
        if (i < extra || (seen[i - extra] == 1 && product->type.dims[i] != 1))
            axes[count++] = i;
    Value *sum = compose_reduce(b, "ReduceSum", product, axes, count, true);
    perm_invert(rank, perm, inverse);
    return compose_transpose(b, compose_reshape(b, sum, rank, seen), inverse);
}

static bool same_batches(const Value *x, const int64_t *perm_x, const Value *y, const int64_t *perm_y)
{
    for (int i = 0; i < x->type.rank - 2; i++)
        if (x->type.dims[perm_x[i]] != y->type.dims[perm_y[i]])
            return false;
    return x->type.rank == y->type.rank;
}

/* dA' = alpha dY' B'^T */
static Value *left_gradient(Builder *b, const Factors *f)
{
    int64_t perm_dy[RANK_MAX], perm_b[RANK_MAX], perm_out[RANK_MAX];
    perm_invert(f->rank, f->perm_y, perm_dy);
    swap_last(f->b->type.rank, f->perm_b, perm_b);
    perm_invert(f->a->type.rank, f->perm_a, perm_out);
    if (same_batches(f->a, f->perm_a, f->dy, perm_dy))
        return compose_strided(b, f->dy, perm_dy, f->b, perm_b, perm_out, f->a->type.rank, f->alpha);
    Value *full = compose_strided(b, f->dy, perm_dy, f->b, perm_b, NULL, 0, f->alpha);
    return sum_batches(b, full, f->a, f->perm_a);
}

/* x [.., R, C] as a matrix of all its rows: a view. */
static Value *flat_rows(Builder *b, Value *x)
{
    int rank = x->type.rank;
    int64_t dims[2] = {dims_count(rank - 1, x->type.dims), x->type.dims[rank - 1]};
    return compose_reshape(b, x, 2, dims);
}

/* Of A and dY the one that moves, and how, for the rows of both to lie in one order; `moves` counts its elements. */
typedef struct Alignment {
    bool possible, moves_a;
    int64_t moves, perm[RANK_MAX];
} Alignment;

/* `moved`, whose logical dims are at perm_moved, comes to lie like the other, which holds logical dim order[i] at i. */
static void consider_moving(Alignment *best, const Value *moved, const int64_t *perm_moved, const int64_t *order,
                            bool moves_a)
{
    int64_t perm[RANK_MAX];
    int rank = moved->type.rank;
    if (order[rank - 1] != rank - 1) /* the other's columns lie apart */
        return;
    for (int i = 0; i < rank; i++)
        perm[i] = perm_moved[order[i]];
    int64_t moves = perm_is_identity(rank, perm) ? 0 : dims_count(rank, moved->type.dims);
    if (best->possible && best->moves <= moves)
        return;
    *best = (Alignment){.possible = true, .moves_a = moves_a, .moves = moves};
    memcpy(best->perm, perm, sizeof perm);
}

/* The cheaper of moving A and moving dY; not possible when summing the batches' products moves less. */
static Alignment rows_alignment(const Factors *f, const int64_t *perm_dy)
{
    int64_t order_a[RANK_MAX];
    int rank = f->rank;
    Alignment best = {0};
    perm_invert(rank, f->perm_a, order_a);
    consider_moving(&best, f->a, f->perm_a, f->perm_y, true);
    consider_moving(&best, f->dy, perm_dy, order_a, false);
    int64_t rows = f->dy->type.dims[perm_dy[rank - 2]], columns = f->dy->type.dims[perm_dy[rank - 1]];
    int64_t batches = dims_count(rank, f->dy->type.dims) / (rows * columns > 0 ? rows * columns : 1);
    best.possible = best.possible && best.moves <= batches * dims_count(2, f->b->type.dims);
    return best;
}

/* dB' = alpha A'^T dY'. A weight that all batches share meets all rows at once: one product, no sum over batches; where
 * A and dY hold their rows in different orders, the smaller is transposed first. */
static Value *right_gradient(Builder *b, const Factors *f)
{
    static const int64_t swapped[] = {1, 0};
    int64_t perm_dy[RANK_MAX], perm_a[RANK_MAX], perm_out[RANK_MAX];
    int rank = f->b->type.rank;
    perm_invert(f->rank, f->perm_y, perm_dy);
    perm_invert(rank, f->perm_b, perm_out);
    if (rank == 2 && f->a->type.rank > 2) {
        Alignment align = rows_alignment(f, perm_dy);
        if (align.possible) {
            Value *a = align.moves_a ? compose_transpose(b, f->a, align.perm) : f->a;
            Value *dy = align.moves_a ? f->dy : compose_transpose(b, f->dy, align.perm);
            return compose_strided(b, flat_rows(b, a), swapped, flat_rows(b, dy), NULL, perm_out, 2, f->alpha);
        }
    }
    swap_last(f->a->type.rank, f->perm_a, perm_a);
    if (same_batches(f->b, f->perm_b, f->dy, perm_dy))
        return compose_strided(b, f->a, perm_a, f->dy, perm_dy, perm_out, rank, f->alpha);
    Value *full = compose_strided(b, f->a, perm_a, f->dy, perm_dy, NULL, 0, f->alpha);
    return sum_batches(b, full, f->b, f->perm_b);
}

/* Y = A B: dA = dY B^T, dB = A^T dY (Giles, "Collected matrix derivative results for forward and reverse mode
 * algorithmic differentiation", 2008, section 2.2.2), summed over the batches an operand was repeated for. */
static Status matmul_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *a = context->node->inputs[0], *w = context->node->inputs[1], *dy = context->dy[0];
    int64_t full[RANK_MAX];
    int rank = context->node->outputs[0]->type.rank, at = 0;
    bool row = a->type.rank == 1, column = w->type.rank == 1;
    for (int i = 0; i < rank - !row - !column; i++)
        full[at++] = dy->type.dims[i];
    full[at++] = row ? 1 : a->type.dims[a->type.rank - 2];
    full[at++] = column ? 1 : w->type.dims[w->type.rank - 1];
    Factors f = {.rank = at, .alpha = 1, .dy = compose_reshape(b, dy, at, full)};
    int64_t row_dims[2] = {1, a->type.dims[0]}, column_dims[2] = {w->type.dims[0], 1};
    f.a = row ? compose_reshape(b, a, 2, row_dims) : a;
    f.b = column ? compose_reshape(b, w, 2, column_dims) : w;
    if (b->status != STATUS_OK)
        return b->status;
    perm_identity(f.a->type.rank, f.perm_a);
    perm_identity(f.b->type.rank, f.perm_b);
    perm_identity(f.rank, f.perm_y);
    if (context->wants[0])
        context->dx[0] = compose_like(b, left_gradient(b, &f), a);
    if (context->wants[1])
        context->dx[1] = compose_like(b, right_gradient(b, &f), w);
    return b->status;
}

/* The bias is added to every row: its gradient is the sum of dY over all dims but the one that holds the columns. */
static Value *bias_gradient(Builder *b, const Factors *f)
{
    int64_t axes[RANK_MAX];
    size_t count = 0;
    for (int i = 0; i < f->rank; i++)
        if (f->perm_y[i] != f->rank - 1)
            axes[count++] = i;
    return compose_reduce(b, "ReduceSum", f->dy, axes, count, false);
}

/* As matmul_grad; transposing back goes into the permutations, so the gradients are MatMulStrided themselves. */
static Status strided_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    Factors f = {.a = node->inputs[0],
                 .b = node->inputs[1],
                 .dy = context->dy[0],
                 .rank = node->outputs[0]->type.rank,
                 .alpha = (double)node_float(node, "alpha", 1)};
    perm_or_identity(node, "perm_a", f.a->type.rank, f.perm_a);
    perm_or_identity(node, "perm_b", f.b->type.rank, f.perm_b);
    perm_or_identity(node, "perm_y", f.rank, f.perm_y);
    if (context->wants[0])
        context->dx[0] = left_gradient(b, &f);
    if (context->wants[1])
        context->dx[1] = right_gradient(b, &f);
    if (node_input(node, 2) != NULL && context->wants[2])
        context->dx[2] = bias_gradient(b, &f);
    return b->status;
}

static Value *build_gemm(Builder *b, Value *a, bool trans_a, Value *w, bool trans_b, float alpha)
{
    Value *inputs[] = {a, w};
    Node *node = build_node(b, "", "Gemm", inputs, 2, 1);
    if (node == NULL)
        return NULL;
    if (trans_a)
        node_set_int(node, "transA", 1);
    if (trans_b)
        node_set_int(node, "transB", 1);
    if (alpha != 1)
        node_set_float(node, "alpha", alpha);
    return build_finish(b, node);
}

/* Y = alpha A' B' + beta C: dA' = alpha dY B'^T, dB' = alpha A'^T dY, dC = beta dY summed to C's shape; A = A'^T when
 * transA, so dA = (dA')^T = alpha B' dY^T (Giles 2008, as above). */
static Status gemm_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *a = node->inputs[0], *w = node->inputs[1], *c = node_input(node, 2), *dy = context->dy[0];
    bool trans_a = node_int(node, "transA", 0) != 0, trans_b = node_int(node, "transB", 0) != 0;
    float alpha = node_float(node, "alpha", 1);
    if (context->wants[0])
        context->dx[0] =
            trans_a ? build_gemm(b, w, trans_b, dy, true, alpha) : build_gemm(b, dy, false, w, !trans_b, alpha);
    if (context->wants[1])
        context->dx[1] =
            trans_b ? build_gemm(b, dy, true, a, trans_a, alpha) : build_gemm(b, a, !trans_a, dy, false, alpha);
    if (c != NULL && context->wants[2])
        context->dx[2] = compose_scale(b, build_reduce_to(b, dy, c), (double)node_float(node, "beta", 1));
    return b->status;
}

/* ---- planned kernels -------------------------------------------------------------------------------------- */

static Status matmul_prepare(PlanContext *context, Error *err)
{
    Product p;
    TRY(matmul_product(context->node, &p, err));
    return product_prepare(&p, context, 1, 1, err);
}

static Status gemm_prepare(PlanContext *context, Error *err)
{
    Product p;
    TRY(gemm_product(context->node, &p, err));
    return product_prepare(&p, context, (double)node_float(context->node, "alpha", 1),
                           (double)node_float(context->node, "beta", 1), err);
}

static Status strided_prepare(PlanContext *context, Error *err)
{
    Product p;
    TRY(strided_product(context->node, &p, err));
    return product_prepare(&p, context, (double)node_float(context->node, "alpha", 1), 1, err);
}

/* ---- versions and fused forms ----------------------------------------------------------------------------- */

/* Gemm before 7 broadcast C only when its attribute said so, and in numpy's way either way. */
static Status gemm_upgrade(Node *node, Error *err)
{
    (void)err;
    node_remove_attr(node, "broadcast");
    return STATUS_OK;
}

/* How FusedMatMul sees an operand: with transBatch it is stored as [M, batch.., K]; trans swaps the last two dims of
 * what that gives (onnxruntime's docs/ContribOperators.md, com.microsoft.FusedMatMul). Vectors are left alone. */
static void fused_perm(const Node *node, int rank, const char *trans, const char *trans_batch, int64_t *perm)
{
    perm_identity(rank, perm);
    if (rank < 2)
        return;
    if (node_int(node, trans_batch, 0) != 0) {
        for (int i = 0; i < rank - 2; i++)
            perm[i] = i + 1;
        perm[rank - 2] = 0;
    }
    if (node_int(node, trans, 0) != 0) {
        int64_t last = perm[rank - 1];
        perm[rank - 1] = perm[rank - 2];
        perm[rank - 2] = last;
    }
}

static Status fused_infer(Node *node, Error *err)
{
    Product p;
    int64_t perm_a[RANK_MAX], perm_b[RANK_MAX];
    fused_perm(node, node->inputs[0]->type.rank, "transA", "transBatchA", perm_a);
    fused_perm(node, node->inputs[1]->type.rank, "transB", "transBatchB", perm_b);
    const char *reason = product_init(&p, &node->inputs[0]->type, perm_a, &node->inputs[1]->type, perm_b, NULL);
    return reason == NULL ? product_types(node, &p) : product_fail(node, reason, err);
}

static Status fused_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    Value *x = node->inputs[0], *y = node->inputs[1], *result;
    int64_t perm_a[RANK_MAX], perm_b[RANK_MAX];
    double alpha = (double)node_float(node, "alpha", 1);
    fused_perm(node, x->type.rank, "transA", "transBatchA", perm_a);
    fused_perm(node, y->type.rank, "transB", "transBatchB", perm_b);
    if (x->type.rank >= 2 && y->type.rank >= 2)
        result = compose_strided(b, x, perm_a, y, perm_b, NULL, 0, alpha);
    else
        result = compose_scale(b, build2(b, "MatMul", compose_transpose(b, x, perm_a), compose_transpose(b, y, perm_b)),
                               alpha);
    compose_replace(b, node->outputs[0], result);
    return b->status;
}

/* Gemm and an activation, named with its attributes (onnxruntime's docs/ContribOperators.md, com.microsoft.FusedGemm).
 */
static Status fused_gemm_expand(Node *node, Builder *b, Error *err)
{
    static const char *const moved[] = {"activation_alpha", "activation_beta", "activation_gamma"};
    const char *activation = node_string(node, "activation", NULL);
    if (activation == NULL)
        return infer_fail(node, err, "no activation is named");
    Node *gemm = build_node(b, "", "Gemm", node->inputs, node->input_count, 1);
    if (gemm == NULL)
        return b->status;
    node_copy_attrs(gemm, node);
    node_remove_attr(gemm, "activation");
    for (size_t i = 0; i < sizeof moved / sizeof moved[0]; i++)
        node_remove_attr(gemm, moved[i]);
    Value *sum = build_finish(b, gemm);
    Node *last = build_node(b, "", activation, &sum, 1, 1);
    for (size_t i = 0; last != NULL && i < sizeof moved / sizeof moved[0]; i++)
        if (node_attr(node, moved[i]) != NULL)
            node_set_float(last, moved[i] + strlen("activation_"), node_float(node, moved[i], 0));
    Value *result = build_finish(b, last);
    compose_replace(b, node->outputs[0], result);
    return b->status;
}

/* ---- cost ---------------------------------------------------------------------------------------------------- */

static double product_flops(const Product *p, Status status)
{
    double flops = 2 * (double)p->m * (double)p->n * (double)p->k;
    for (int i = 0; i < p->batch_rank; i++)
        flops *= (double)p->batch[i];
    return status == STATUS_OK ? flops : 0;
}

static double matmul_flops(const Node *node)
{
    Product p;
    Error ignored = {0};
    Status status = matmul_product(node, &p, &ignored);
    return product_flops(&p, status);
}

static double gemm_flops(const Node *node)
{
    Product p = {0};
    Error ignored = {0};
    Status status = gemm_product(node, &p, &ignored);
    return product_flops(&p, status);
}

static double strided_flops(const Node *node)
{
    Product p = {0};
    Error ignored = {0};
    Status status = strided_product(node, &p, &ignored);
    return product_flops(&p, status);
}

const OpDef ops_matmul[] = {
    {.name = "MatMul",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = matmul_infer,
     .eval = matmul_eval,
     .grad = matmul_grad,
     .flops = matmul_flops,
     .prepare = matmul_prepare},
    {.name = "Gemm",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = gemm_infer,
     .eval = gemm_eval,
     .grad = gemm_grad,
     .upgrade = gemm_upgrade,
     .flops = gemm_flops,
     .prepare = gemm_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "MatMulStrided",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = strided_infer,
     .eval = strided_eval,
     .grad = strided_grad,
     .flops = strided_flops,
     .prepare = strided_prepare,
     .no_case = "internal; the gradient suite compares its kernels with eval"},
    {.domain = "com.microsoft",
     .name = "FusedMatMul",
     .since = 1,
     .last = 1,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = fused_infer,
     .eval = eval_expanded,
     .expand = fused_expand,
     .no_case = "not an ONNX operator; gradient cases and tests/test_microsoft.c"},
    {.domain = "com.microsoft",
     .name = "FusedGemm",
     .since = 1,
     .last = 1,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = gemm_infer,
     .eval = eval_expanded,
     .expand = fused_gemm_expand,
     .no_case = "not an ONNX operator; gradient cases and tests/test_microsoft.c"},
    {0},
};
