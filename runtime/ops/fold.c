/* Family: fold. Col2Im, which adds overlapping blocks of columns up to an image, and Im2Col, its transpose and gradient
 * (internal):
 *     y[n, c, i] = sum over k, o that meet i of  x[n, c K + k, o],   i = o stride - begin + k dilation
 * with K block elements and one column o a block position. Runs through eval. */
#include "runtime/ops/ops.h"
#include "runtime/ops/wide.h"
#include "runtime/ops/window.h"

typedef struct Columns {
    Window window;
    int64_t batch, channels; /* of the image */
} Columns;

/* `image` and `block` as the inputs image_shape and block_shape say; x is [N, C K, L]. */
static Status columns_read(const Node *node, const int64_t *image, size_t image_count, const int64_t *block,
                           size_t block_count, Columns *columns, Error *err)
{
    int64_t elements;
    if (image_count != block_count || image_count > RANK_MAX - 2)
        return infer_fail(node, err, "an image of %zu and a block of %zu dims", image_count, block_count);
    for (size_t i = 0; i < block_count; i++)
        if (block[i] < 1 || block[i] > INT32_MAX || image[i] < 0 || image[i] > INT32_MAX)
            return infer_fail(node, err, "dim %zu: an image of %lld, a block of %lld", i, (long long)image[i],
                              (long long)block[i]);
    TRY(window_read(node, (int)image_count, image, block, &columns->window, err));
    elements = dims_count((int)block_count, block);
    if (elements < 1 || dims_count((int)image_count, image) < 0)
        return infer_fail(node, err, "the image or the block is too large");
    return STATUS_OK;
}

static Status check_columns(const Node *node, const Columns *c, int rank, const int64_t *dims, Error *err)
{
    const Window *w = &c->window;
    if (rank != 3 || dims[1] % w->kernel_count != 0 || dims[2] != w->out_count)
        return infer_fail(
            node, err, "its columns have %d dims, the last two %lld and %lld; a multiple of %lld and %lld are expected",
            rank, rank == 3 ? (long long)dims[1] : -1LL, rank == 3 ? (long long)dims[2] : -1LL,
            (long long)w->kernel_count, (long long)w->out_count);
    return STATUS_OK;
}

/* ---- Col2Im -------------------------------------------------------------------------------------------------- */

static int image_dims(const Columns *c, int64_t channels, int64_t batch, int64_t *dims)
{
    dims[0] = batch;
    dims[1] = channels;
    memcpy(dims + 2, c->window.in, (size_t)c->window.rank * sizeof *dims);
    return c->window.rank + 2;
}

static Status col2im_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const int64_t *image, *block;
    int64_t dims[RANK_MAX];
    size_t image_count, block_count;
    Columns c;
    if (!infer_has_ints(node, 1) || !infer_has_ints(node, 2))
        return STATUS_OK; /* the shape depends on data */
    TRY(infer_ints(node, 1, &image, &image_count, err));
    TRY(infer_ints(node, 2, &block, &block_count, err));
    TRY(columns_read(node, image, image_count, block, block_count, &c, err));
    TRY(check_columns(node, &c, x->rank, x->dims, err));
    int rank = image_dims(&c, x->dims[1] / c.window.kernel_count, x->dims[0], dims);
    type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    return STATUS_OK;
}

/* One block element of one channel: moves runs between a column [L] and the image. */
typedef struct Mover {
    double *image, *column;
    bool gather; /* Im2Col */
} Mover;

static void move_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    Mover *m = context;
    for (int64_t i = 0; i < count; i++) {
        if (m->gather)
            m->column[out + i] = m->image[in + i * step];
        else
            m->image[in + i * step] += m->column[out + i];
    }
}

/* `images` counts samples times channels. */
static void move_all(const Window *w, int64_t images, double *image, double *columns, bool gather)
{
    for (int64_t c = 0; c < images; c++)
        for (int64_t k = 0; k < w->kernel_count; k++) {
            Mover mover = {image + c * w->in_count, columns + (c * w->kernel_count + k) * w->out_count, gather};
            window_rows(w, k, move_row, &mover);
        }
}

static Status columns_eval(EvalContext *context, Columns *c, Error *err)
{
    const int64_t *image, *block;
    size_t image_count, block_count;
    TRY(eval_ints(context, 1, &image, &image_count, err));
    TRY(eval_ints(context, 2, &block, &block_count, err));
    return columns_read(context->node, image, image_count, block, block_count, c, err);
}

static Status col2im_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *columns;
    int64_t dims[RANK_MAX];
    WideOutput y;
    Columns c;
    TRY(columns_eval(context, &c, err));
    TRY(check_columns(context->node, &c, x->rank, x->dims, err));
    TRY(wide_input(context, 0, &columns, err));
    int64_t channels = x->dims[1] / c.window.kernel_count;
    TRY(wide_output(context, 0, x->dtype, image_dims(&c, channels, x->dims[0], dims), dims, &y, err));
    move_all(&c.window, x->dims[0] * channels, y.data, (double *)(uintptr_t)columns, false);
    wide_store(&y);
    return STATUS_OK;
}

static Status col2im_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *inputs[] = {context->dy[0], node->inputs[1], node->inputs[2]};
    Node *gather = build_node(b, DOMAIN_INTERNAL, "Im2Col", inputs, 3, 1);
    if (gather == NULL)
        return b->status;
    node_copy_attrs(gather, node);
    context->dx[0] = build_finish(b, gather);
    return b->status;
}

/* ---- Im2Col (image [N, C, ..], image_shape, block_shape) -> [N, C K, L] ---------------------------------------- */

static Status im2col_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const int64_t *image, *block;
    size_t image_count, block_count;
    Columns c;
    TRY(infer_ints(node, 1, &image, &image_count, err));
    TRY(infer_ints(node, 2, &block, &block_count, err));
    TRY(columns_read(node, image, image_count, block, block_count, &c, err));
    if (x->rank < 2)
        return infer_fail(node, err, "an image of %d dims", x->rank);
    int64_t dims[3] = {x->dims[0], x->dims[1] * c.window.kernel_count, c.window.out_count};
    type_set(&node->outputs[0]->type, x->dtype, 3, dims);
    return STATUS_OK;
}

static Status im2col_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *image;
    WideOutput y;
    Columns c;
    TRY(columns_eval(context, &c, err));
    TRY(wide_input(context, 0, &image, err));
    if (x->rank < 2)
        return eval_fail(context, err, "an image of %d dims", x->rank);
    int64_t dims[3] = {x->dims[0], x->dims[1] * c.window.kernel_count, c.window.out_count};
    TRY(wide_output(context, 0, x->dtype, 3, dims, &y, err));
    move_all(&c.window, x->dims[0] * x->dims[1], (double *)(uintptr_t)image, y.data, true);
    wide_store(&y);
    return STATUS_OK;
}

const OpDef ops_fold[] = {
    {.name = "Col2Im",
     .since = 18,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = col2im_infer,
     .eval = col2im_eval,
     .grad = col2im_grad},
    {.domain = DOMAIN_INTERNAL,
     .name = "Im2Col",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = im2col_infer,
     .eval = im2col_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of Col2Im"},
    {0},
};
