/* Family: pooling. Max, average and Lp pooling, sliding or global, and unpooling, with their gradients as internal
 * rows: MaxPoolTrain(x)            y, indices (optional), where: which element of the window won MaxPoolGrad(dy, where)
 * x_shape            dx AveragePoolGrad(dy)        x_shape            dx; GlobalAveragePoolGrad alike LpPoolGrad(dy, x,
 * y)                          dx Differentiating a MaxPool turns it into MaxPoolTrain. Kernels are in pool_kernel.c. */
#include "runtime/ops/pool.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/wide.h"

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static bool is_global(const Node *node)
{
    return strncmp(node->op_type, "Global", 6) == 0;
}

Status pool_shape(const Node *node, int rank, const int64_t *dims, PoolShape *shape, Error *err)
{
    Window *window = &shape->window;
    if (rank < 3)
        return infer_fail(node, err, "input of rank %d where at least [N, C, D] is expected", rank);
    shape->batch = dims[0];
    shape->channels = dims[1];
    if (!is_global(node))
        return window_read(node, rank - 2, dims + 2, NULL, window, err);
    memset(window, 0, sizeof *window);
    window->rank = rank - 2;
    for (int i = 0; i < window->rank; i++) {
        window->in[i] = window->kernel[i] = dims[i + 2];
        window->out[i] = window->stride[i] = window->dilation[i] = 1;
    }
    window_count(window);
    return STATUS_OK;
}

Status pool_shape_of(const Node *node, PoolShape *shape, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    size_t count = 0;
    const int64_t *written = node_ints(node, "x_shape", &count);
    return pool_shape(node, type->rank, written != NULL ? written : type->dims, shape, err);
}

int64_t pool_reached_end(const Window *w, int axis)
{
    return (w->out[axis] - 1) * w->stride[axis] + window_extent(w, axis) - w->in[axis] - w->begin[axis];
}

static void small_dims(const PoolShape *shape, int64_t dims[RANK_MAX])
{
    dims[0] = shape->batch;
    dims[1] = shape->channels;
    memcpy(dims + 2, shape->window.out, (size_t)shape->window.rank * sizeof dims[0]);
}

static void large_dims(const PoolShape *shape, int64_t dims[RANK_MAX])
{
    dims[0] = shape->batch;
    dims[1] = shape->channels;
    memcpy(dims + 2, shape->window.in, (size_t)shape->window.rank * sizeof dims[0]);
}

/* ---- infer, upgrade ------------------------------------------------------------------------------------------ */

static Status pool_infer(Node *node, Error *err)
{
    PoolShape shape;
    int64_t dims[RANK_MAX];
    const Type *x = &node->inputs[0]->type;
    TRY(pool_shape_of(node, &shape, err));
    small_dims(&shape, dims);
    type_set(&node->outputs[0]->type, x->dtype, x->rank, dims);
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, DTYPE_I64, x->rank, dims);
    if (node_output(node, 2) != NULL)
        type_set(&node->outputs[2]->type, DTYPE_I32, x->rank, dims);
    return STATUS_OK;
}

static Status pool_grad_infer(Node *node, Error *err)
{
    PoolShape shape;
    int64_t dims[RANK_MAX], small[RANK_MAX];
    const Type *dy = &node->inputs[0]->type;
    TRY(pool_shape_of(node, &shape, err));
    small_dims(&shape, small);
    if (memcmp(small, dy->dims, (size_t)dy->rank * sizeof small[0]) != 0)
        return infer_fail(node, err, "gradient %s where %s is expected", type_text(&node->graph->model->arena, dy),
                          dims_text(&node->graph->model->arena, dy->rank, small));
    large_dims(&shape, dims);
    type_set(&node->outputs[0]->type, dy->dtype, dy->rank, dims);
    return STATUS_OK;
}

static Status lp_pool_grad_infer(Node *node, Error *err)
{
    (void)err;
    node->outputs[0]->type = node->inputs[1]->type;
    return STATUS_OK;
}

/* Opset 1 wrote p as a float. */
static Status lp_upgrade(Node *node, Error *err)
{
    const Attr *p = node_attr(node, "p");
    if (p == NULL || p->type != ATTR_FLOAT)
        return STATUS_OK;
    if (p->f != floorf(p->f) || p->f < 1)
        return infer_fail(node, err, "attribute p is %g; whole numbers are expected", (double)p->f);
    node_set_int(node, "p", (int64_t)p->f);
    return STATUS_OK;
}

/* ---- eval: max ----------------------------------------------------------------------------------------------- */

typedef struct MaxRows { /* one plane */
    const double *x;
    double *y;
    int32_t *where;
    int64_t *at; /* position of the winner in the plane */
    int32_t k;
} MaxRows;

static void max_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    MaxRows *rows = context;
    for (int64_t i = 0; i < count; i++) {
        double x = rows->x[in + i * step];
        if (rows->where[out + i] >= 0 && !(x > rows->y[out + i]))
            continue;
        rows->y[out + i] = x;
        rows->where[out + i] = rows->k;
        rows->at[out + i] = in + i * step;
    }
}

/* Position `at` in a row-major plane, counted with the first axis fastest. */
static int64_t column_major(const Window *w, int64_t at)
{
    int64_t place[RANK_MAX] = {0}, result = 0;
    for (int i = w->rank - 1; i >= 0; i--) {
        place[i] = at % w->in[i];
        at /= w->in[i];
    }
    for (int i = w->rank - 1; i >= 0; i--)
        result = result * w->in[i] + place[i];
    return result;
}

static Status max_pool_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from;
    int64_t dims[RANK_MAX];
    PoolShape shape;
    WideOutput y;
    Array *indices = NULL, *where = NULL;
    TRY(pool_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    small_dims(&shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    if (node_output(context->node, 1) != NULL)
        TRY(eval_output(context, 1, DTYPE_I64, x->rank, dims, &indices, err));
    if (context->out_count > 2)
        TRY(eval_output(context, 2, DTYPE_I32, x->rank, dims, &where, err));
    else
        TRY(array_new(context->arena, DTYPE_I32, x->rank, dims, &where, err));
    const Window *w = &shape.window;
    bool columns = node_int(context->node, "storage_order", 0) == 1;
    int64_t *at = arena_array(context->arena, int64_t, (size_t)w->out_count);
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        MaxRows rows = {.x = from + plane * w->in_count,
                        .y = y.data + plane * w->out_count,
                        .where = (int32_t *)where->data + plane * w->out_count,
                        .at = at};
        memset(rows.where, 0xFF, (size_t)w->out_count * sizeof rows.where[0]); /* -1: nothing yet */
        for (int64_t k = 0; k < w->kernel_count; k++) {
            rows.k = (int32_t)k;
            window_rows(w, k, max_row, &rows);
        }
        for (int64_t o = 0; o < w->out_count && indices != NULL; o++)
            ((int64_t *)indices->data)[plane * w->out_count + o] =
                plane * w->in_count + (columns ? column_major(w, at[o]) : at[o]);
    }
    wide_store(&y);
    return STATUS_OK;
}

typedef struct MaxGradRows {
    const double *dy;
    const int32_t *where;
    double *dx;
    int32_t k;
} MaxGradRows;

static void max_grad_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    const MaxGradRows *rows = context;
    for (int64_t i = 0; i < count; i++)
        if (rows->where[out + i] == rows->k)
            rows->dx[in + i * step] += rows->dy[out + i];
}

static Status max_pool_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0), *where = eval_input(context, 1);
    const double *from;
    int64_t dims[RANK_MAX];
    size_t count = 0;
    PoolShape shape;
    WideOutput dx;
    TRY(pool_shape(context->node, dy->rank, node_ints(context->node, "x_shape", &count), &shape, err));
    TRY(wide_input(context, 0, &from, err));
    large_dims(&shape, dims);
    TRY(wide_output(context, 0, dy->dtype, dy->rank, dims, &dx, err));
    const Window *w = &shape.window;
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        MaxGradRows rows = {.dy = from + plane * w->out_count,
                            .where = (const int32_t *)where->data + plane * w->out_count,
                            .dx = dx.data + plane * w->in_count};
        for (int64_t k = 0; k < w->kernel_count; k++) {
            rows.k = (int32_t)k;
            window_rows(w, k, max_grad_row, &rows);
        }
    }
    wide_store(&dx);
    return STATUS_OK;
}

/* ---- eval: average ------------------------------------------------------------------------------------------- */

/* How many window elements count along one axis at output `o`: those inside the input, or inside the padded input. */
static int64_t counted(const Window *w, int axis, int64_t o, bool padding_counts)
{
    int64_t low = padding_counts ? -w->begin[axis] : 0;
    int64_t high = padding_counts ? w->in[axis] + w->end[axis] : w->in[axis];
    int64_t count = 0;
    for (int64_t k = 0; k < w->kernel[axis]; k++) {
        int64_t i = o * w->stride[axis] - w->begin[axis] + k * w->dilation[axis];
        count += i >= low && i < high;
    }
    return count;
}

/* share[o] = 1 / (elements that count at output o) */
static double *average_shares(EvalContext *context, const Window *w)
{
    double *share = arena_array(context->arena, double, (size_t)w->out_count);
    bool padding_counts = node_int(context->node, "count_include_pad", 0) != 0;
    for (int64_t o = 0; o < w->out_count; o++) {
        int64_t count = 1, rest = o;
        for (int i = w->rank - 1; i >= 0; i--) {
            count *= counted(w, i, rest % w->out[i], padding_counts);
            rest /= w->out[i];
        }
        share[o] = count > 0 ? 1.0 / (double)count : 0;
    }
    return share;
}

typedef struct SumRows {
    const double *from;
    double *to;
    const double *share; /* gradient: factor of each output */
    double power;        /* Lp: adds |x|^power */
} SumRows;

static void sum_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    const SumRows *rows = context;
    for (int64_t i = 0; i < count; i++)
        rows->to[out + i] += rows->from[in + i * step];
}

static void spread_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    const SumRows *rows = context;
    for (int64_t i = 0; i < count; i++)
        rows->to[in + i * step] += rows->from[out + i] * rows->share[out + i];
}

static Status average_pool_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from;
    int64_t dims[RANK_MAX];
    PoolShape shape;
    WideOutput y;
    TRY(pool_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    small_dims(&shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    const Window *w = &shape.window;
    const double *share = average_shares(context, w);
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        SumRows rows = {.from = from + plane * w->in_count, .to = y.data + plane * w->out_count};
        for (int64_t k = 0; k < w->kernel_count; k++)
            window_rows(w, k, sum_row, &rows);
        for (int64_t o = 0; o < w->out_count; o++)
            rows.to[o] *= share[o];
    }
    wide_store(&y);
    return STATUS_OK;
}

static Status average_pool_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0);
    const double *from;
    int64_t dims[RANK_MAX];
    size_t count = 0;
    PoolShape shape;
    WideOutput dx;
    TRY(pool_shape(context->node, dy->rank, node_ints(context->node, "x_shape", &count), &shape, err));
    TRY(wide_input(context, 0, &from, err));
    large_dims(&shape, dims);
    TRY(wide_output(context, 0, dy->dtype, dy->rank, dims, &dx, err));
    const Window *w = &shape.window;
    const double *share = average_shares(context, w);
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        SumRows rows = {.from = from + plane * w->out_count, .to = dx.data + plane * w->in_count, .share = share};
        for (int64_t k = 0; k < w->kernel_count; k++)
            window_rows(w, k, spread_row, &rows);
    }
    wide_store(&dx);
    return STATUS_OK;
}

/* ---- eval: Lp --------------------------------------------------------------------------------------------------- */

static void power_row(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    const SumRows *rows = context;
    for (int64_t i = 0; i < count; i++)
        rows->to[out + i] += pow(fabs(rows->from[in + i * step]), rows->power);
}

/* y = (sum of |x|^p)^(1/p) */
static Status lp_pool_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from, p = (double)node_int(context->node, "p", 2);
    int64_t dims[RANK_MAX];
    PoolShape shape;
    WideOutput y;
    TRY(pool_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    small_dims(&shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    const Window *w = &shape.window;
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        SumRows rows = {.from = from + plane * w->in_count, .to = y.data + plane * w->out_count, .power = p};
        for (int64_t k = 0; k < w->kernel_count; k++)
            window_rows(w, k, power_row, &rows);
        for (int64_t o = 0; o < w->out_count; o++)
            rows.to[o] = pow(rows.to[o], 1 / p);
    }
    wide_store(&y);
    return STATUS_OK;
}

/* dx = sum over windows of  dy * sign(x) * (|x| / y)^(p-1);  0 where y is 0 */
static Status lp_pool_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1);
    const double *dy, *from, *y, p = (double)node_int(context->node, "p", 2);
    double *factor;
    PoolShape shape;
    WideOutput dx;
    TRY(pool_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_input(context, 1, &from, err));
    TRY(wide_input(context, 2, &y, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    const Window *w = &shape.window;
    TRY(wide_scratch(context, w->out_count, &factor, err));
    for (int64_t plane = 0; plane < shape.batch * shape.channels; plane++) {
        for (int64_t o = 0; o < w->out_count; o++) {
            double norm = y[plane * w->out_count + o];
            factor[o] = norm > 0 ? pow(norm, 1 - p) : 0;
        }
        SumRows rows = {.from = dy + plane * w->out_count, .to = dx.data + plane * w->in_count, .share = factor};
        for (int64_t k = 0; k < w->kernel_count; k++)
            window_rows(w, k, spread_row, &rows);
    }
    for (int64_t i = 0; i < x->count; i++)
        dx.data[i] *= from[i] == 0 ? 0 : copysign(pow(fabs(from[i]), p - 1), from[i]);
    wide_store(&dx);
    return STATUS_OK;
}

/* ---- unpooling --------------------------------------------------------------------------------------------------- */

/* The shape that the indices of MaxUnpool count in: what the pooling it inverts had read. */
static Status unpooled_dims(const Node *node, int rank, const int64_t *dims, int64_t out[RANK_MAX], Error *err)
{
    Window window;
    if (rank < 3)
        return infer_fail(node, err, "input of rank %d where at least [N, C, D] is expected", rank);
    TRY(window_read_transposed(node, rank - 2, dims + 2, NULL, &window, err));
    out[0] = dims[0];
    out[1] = dims[1];
    memcpy(out + 2, window.in, (size_t)window.rank * sizeof out[0]);
    return STATUS_OK;
}

static Status max_unpool_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const int64_t *wanted = NULL;
    int64_t dims[RANK_MAX];
    size_t count = 0;
    TRY(unpooled_dims(node, x->rank, x->dims, dims, err));
    if (node_input(node, 2) != NULL) {
        if (!infer_has_ints(node, 2)) {
            node->outputs[0]->type.rank = -1;
            return STATUS_OK;
        }
        TRY(infer_ints(node, 2, &wanted, &count, err));
        if (count != (size_t)x->rank)
            return infer_fail(node, err, "output_shape has %zu elements for rank %d", count, x->rank);
    }
    type_set(&node->outputs[0]->type, x->dtype, x->rank, wanted != NULL ? wanted : dims);
    return STATUS_OK;
}

static Status max_unpool_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0), *indices = eval_input(context, 1);
    const double *from;
    const int64_t *wanted = NULL;
    int64_t dims[RANK_MAX], strides[RANK_MAX];
    size_t count = 0;
    WideOutput y;
    TRY(unpooled_dims(context->node, x->rank, x->dims, dims, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(eval_ints(context, 2, &wanted, &count, err));
    TRY(wide_output(context, 0, x->dtype, x->rank, wanted != NULL ? wanted : dims, &y, err));
    strides_dense(x->rank, y.array->dims, strides);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t at = array_i64_at(indices, i), place = 0;
        if (at < 0 || at >= dims_count(x->rank, dims))
            return eval_fail(context, err, "index %lld is outside of the unpooled tensor", (long long)at);
        for (int d = x->rank - 1; d >= 0; d--) {
            if (at % dims[d] >= y.array->dims[d])
                return eval_fail(context, err, "output_shape is too small in dim %d", d);
            place += at % dims[d] * strides[d];
            at /= dims[d];
        }
        y.data[place] = from[i];
    }
    wide_store(&y);
    return STATUS_OK;
}

/* dx[i] = dy[index of i]: a Gather from the part of dy that the indices count in. */
static Status max_unpool_grad(GradContext *context, Error *err)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    int64_t dims[RANK_MAX], all = -1;
    Value *dy = context->dy[0];
    if (!context->wants[0])
        return STATUS_OK;
    TRY(unpooled_dims(node, x->rank, x->dims, dims, err));
    for (int i = 2; i < x->rank; i++)
        if (dy != NULL && dy->type.dims[i] != dims[i])
            dy = compose_slice(b, dy, i, 0, dims[i]);
    if (dy != NULL)
        dy = build2(b, "Reshape", dy, build_ints(b, &all, 1));
    context->dx[0] = dy == NULL ? NULL : build2(b, "Gather", dy, node->inputs[1]);
    return b->status;
}

/* ---- grad -------------------------------------------------------------------------------------------------------- */

/* The gradient row has the attributes of the row it differentiates, and the shape of what that one pooled. */
static Value *build_pool_grad(GradContext *context, const char *op_type, Value *const *inputs, int count)
{
    const Type *x = &context->node->inputs[0]->type;
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, op_type, inputs, count, 1);
    if (node == NULL)
        return NULL;
    node_copy_attrs(node, context->node);
    node_set_ints(node, "x_shape", x->dims, (size_t)x->rank);
    if (is_global(context->node) && !is_global(node))
        node_set_ints(node, "kernel_shape", x->dims + 2, (size_t)x->rank - 2);
    return build_finish(&context->b, node);
}

static Status max_pool_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    if (!context->wants[0])
        return STATUS_OK;
    if (is_global(node))
        node_set_ints(node, "kernel_shape", x->dims + 2, (size_t)x->rank - 2);
    node_set_op(node, DOMAIN_INTERNAL, "MaxPoolTrain", 0);
    if (node->output_count < 2)
        node_set_output(node, 1, NULL);
    Value *where = node_add_output(node, NULL);
    TRY(node_infer(node, err));
    Value *inputs[] = {context->dy[0], where};
    context->dx[0] = build_pool_grad(context, "MaxPoolGrad", inputs, 2);
    return context->b.status;
}

static Status average_pool_grad(GradContext *context, Error *err)
{
    (void)err;
    const char *op_type = is_global(context->node) ? "GlobalAveragePoolGrad" : "AveragePoolGrad";
    if (context->wants[0])
        context->dx[0] = build_pool_grad(context, op_type, &context->dy[0], 1);
    return context->b.status;
}

static Status lp_pool_grad(GradContext *context, Error *err)
{
    (void)err;
    Value *inputs[] = {context->dy[0], context->node->inputs[0], context->node->outputs[0]};
    if (context->wants[0])
        context->dx[0] = build_pool_grad(context, "LpPoolGrad", inputs, 3);
    return context->b.status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const OpDef ops_pool[] = {
    {.name = "MaxPool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 2,
     .infer = pool_infer,
     .eval = max_pool_eval,
     .grad = max_pool_grad,
     .prepare = max_pool_prepare},
    {.name = "GlobalMaxPool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_infer,
     .eval = max_pool_eval,
     .grad = max_pool_grad,
     .prepare = max_pool_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "MaxPoolTrain",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 3,
     .max_outputs = 3,
     .infer = pool_infer,
     .eval = max_pool_eval,
     .prepare = max_pool_prepare,
     .no_gradient = "what MaxPool becomes when it is differentiated"},
    {.domain = DOMAIN_INTERNAL,
     .name = "MaxPoolGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_grad_infer,
     .eval = max_pool_grad_eval,
     .prepare = max_pool_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.name = "AveragePool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_infer,
     .eval = average_pool_eval,
     .grad = average_pool_grad,
     .prepare = average_pool_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "AveragePoolGrad",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_grad_infer,
     .eval = average_pool_grad_eval,
     .prepare = average_pool_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.name = "GlobalAveragePool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_infer,
     .eval = average_pool_eval,
     .grad = average_pool_grad,
     .prepare = global_average_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "GlobalAveragePoolGrad",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_grad_infer,
     .eval = average_pool_grad_eval,
     .prepare = global_average_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.name = "LpPool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_infer,
     .eval = lp_pool_eval,
     .grad = lp_pool_grad,
     .upgrade = lp_upgrade},
    {.name = "GlobalLpPool",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = pool_infer,
     .eval = lp_pool_eval,
     .grad = lp_pool_grad,
     .upgrade = lp_upgrade},
    {.domain = DOMAIN_INTERNAL,
     .name = "LpPoolGrad",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = lp_pool_grad_infer,
     .eval = lp_pool_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of LpPool"},
    {.name = "MaxUnpool",
     .since = 9,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = max_unpool_infer,
     .eval = max_unpool_eval,
     .grad = max_unpool_grad},
    {0},
};
