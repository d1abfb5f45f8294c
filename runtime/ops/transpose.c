/* Operators that permute elements: Transpose, DepthToSpace, SpaceToDepth. All three are one strided copy.
 *
 * A planned Transpose reads a channel tensor as it lies and, when channels go from last to second place (NHWC models,
 * ConvNeXt), writes the family's layout: one pass instead of a transpose and a reorder. */
#include "runtime/ops/ops.h"

#include <string.h>

/* ---- Transpose ---------------------------------------------------------------------------------------- */

/* perm[i] is the input's axis that becomes axis i; absent: reversed (ONNX Transpose-25). */
static Status transpose_perm(const Node *node, int rank, int *perm, Error *err)
{
    size_t count;
    const int64_t *wanted = node_ints(node, "perm", &count);
    bool seen[RANK_MAX] = {false};
    if (wanted && count != (size_t)rank)
        return infer_fail(node, err, "perm has %zu entries for an input of rank %d", count, rank);
    for (int i = 0; i < rank; i++) {
        perm[i] = rank - 1 - i;
        if (!wanted)
            continue;
        TRY(axis_normalize(node, wanted[i], rank, &perm[i], err));
        if (seen[perm[i]])
            return infer_fail(node, err, "perm names axis %d twice", perm[i]);
        seen[perm[i]] = true;
    }
    return STATUS_OK;
}

static Status transpose_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    int perm[RANK_MAX];
    int64_t dims[RANK_MAX];
    TRY(transpose_perm(node, type->rank, perm, err));
    for (int i = 0; i < type->rank; i++)
        dims[i] = type->dims[perm[i]];
    type_set(&node->outputs[0]->type, type->dtype, type->rank, dims);
    return STATUS_OK;
}

static Status transpose_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    int perm[RANK_MAX];
    int64_t dims[RANK_MAX], dense[RANK_MAX], from[RANK_MAX], to[RANK_MAX];
    TRY(transpose_perm(context->node, x->rank, perm, err));
    strides_dense(x->rank, x->dims, dense);
    for (int i = 0; i < x->rank; i++) {
        dims[i] = x->dims[perm[i]];
        from[i] = dense[perm[i]];
    }
    Array *out;
    TRY(eval_output(context, 0, x->dtype, x->rank, dims, &out, err));
    strides_dense(x->rank, dims, to);
    StridedCopy copy = strided_make(x->rank, dims, from, to, dtype_size(x->dtype));
    strided_run(&copy, x->data, out->data);
    return STATUS_OK;
}

static Status transpose_grad(GradContext *context, Error *err)
{
    int perm[RANK_MAX];
    int64_t inverse[RANK_MAX];
    const int rank = context->node->inputs[0]->type.rank;
    TRY(transpose_perm(context->node, rank, perm, err));
    for (int i = 0; i < rank; i++)
        inverse[perm[i]] = i;
    Node *node = build_node(&context->b, "", "Transpose", &context->dy[0], 1, 1);
    if (!node)
        return context->b.status;
    node_set_ints(node, "perm", inverse, (size_t)rank);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

static Status copy_run(Step *step, Error *err)
{
    (void)err;
    strided_run(step->state, step->in[0]->data, step->out[0]->data);
    return STATUS_OK;
}

static Status transpose_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type, *y = &node->outputs[0]->type;
    const int rank = x->rank;
    int perm[RANK_MAX];
    TRY(transpose_perm(node, rank, perm, err));
    Layout in_layout = kernel_family_fits(context, x) ? kernel_input_layout(context, 0) : LAYOUT_PLAIN;
    if (in_layout == LAYOUT_OPAQUE)
        in_layout = LAYOUT_PLAIN;
    /* Channels come from the last place: what follows is most likely a convolution. */
    bool to_channels = in_layout == LAYOUT_PLAIN && rank >= 3 && perm[1] == rank - 1 && perm[0] == 0;
    Layout out_layout = to_channels && kernel_family_fits(context, y) ? context->family : LAYOUT_PLAIN;
    const Slot *in = kernel_input_as(context, 0, in_layout, DTYPE_UNDEFINED);
    const Slot *out = kernel_output_as(context, 0, out_layout, in->dtype);

    SlotView from = slot_view(in, context->block, out_layout == LAYOUT_BLOCKED ? perm[1] : -1);
    int split = -1; /* where the input's channels go, when they lie in blocks */
    for (int i = 0; i < rank; i++)
        if (in_layout == LAYOUT_BLOCKED && perm[i] == 1)
            split = i;
    SlotView to = slot_view(out, context->block, split);
    int64_t dims[STRIDED_MAX], strides[STRIDED_MAX];
    int count = 0;
    for (int i = 0; i < rank; i++)
        for (int k = from.axis_first[perm[i]]; k < from.axis_first[perm[i] + 1]; k++) {
            dims[count] = from.dims[k];
            strides[count++] = from.strides[k];
        }
    StridedCopy *copy = kernel_state(context, sizeof *copy);
    *copy = strided_make(count, dims, strides, to.strides, dtype_size(in->dtype));
    kernel_run(context, copy_run, copy->tile >= 0 ? "own:tiles" : "own:strided");
    return STATUS_OK;
}

/* ---- DepthToSpace, SpaceToDepth ----------------------------------------------------------------------- */

typedef struct Depth {
    int64_t n, c, h, w, block; /* depth side: [n, c * block * block, h, w]; space side: [n, c, h * block, w * block] */
} Depth;

static Status depth_read(const Node *node, int rank, const int64_t *dims, Depth *depth, Error *err)
{
    int64_t block = node_int(node, "blocksize", 0);
    bool to_space = node_is(node, "DepthToSpace");
    if (rank != 4)
        return infer_fail(node, err, "input has rank %d, not 4", rank);
    if (block < 1 || block > 1 << 15)
        return infer_fail(node, err, "blocksize %lld", (long long)block);
    *depth = (Depth){dims[0], dims[1], dims[2], dims[3], block};
    if (to_space ? dims[1] % (block * block) != 0 : dims[2] % block != 0 || dims[3] % block != 0)
        return infer_fail(node, err, "[%lld,%lld,%lld,%lld] does not divide by blocksize %lld", (long long)dims[0],
                          (long long)dims[1], (long long)dims[2], (long long)dims[3], (long long)block);
    if (to_space) {
        depth->c /= block * block;
    } else {
        depth->h /= block;
        depth->w /= block;
    }
    return STATUS_OK;
}

static void depth_output(const Node *node, const Depth *d, int64_t *dims)
{
    bool to_space = node_is(node, "DepthToSpace");
    dims[0] = d->n;
    dims[1] = to_space ? d->c : d->c * d->block * d->block;
    dims[2] = to_space ? d->h * d->block : d->h;
    dims[3] = to_space ? d->w * d->block : d->w;
}

/* Over (n, c, row in block, column in block, h, w). In depth the block's place is before the channel (DCR) or behind it
 * (CRD). */
static StridedCopy depth_copy(const Node *node, const Depth *d, DType dtype)
{
    const int64_t b = d->block, plane = d->h * d->w;
    const bool crd = strcmp(node_string(node, "mode", "DCR"), "CRD") == 0;
    const int64_t dims[6] = {d->n, d->c, b, b, d->h, d->w};
    const int64_t place = crd ? plane : d->c * plane;
    const int64_t depth[6] = {d->c * b * b * plane, crd ? b * b * plane : plane, b * place, place, d->w, 1};
    const int64_t row = d->w * b;
    const int64_t space[6] = {d->c * d->h * b * row, d->h * b * row, row, 1, b * row, b};
    bool to_space = node_is(node, "DepthToSpace");
    return strided_make(6, dims, to_space ? depth : space, to_space ? space : depth, dtype_size(dtype));
}

static Status depth_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    Depth depth = {0};
    int64_t dims[4];
    TRY(depth_read(node, type->rank, type->dims, &depth, err));
    depth_output(node, &depth, dims);
    type_set(&node->outputs[0]->type, type->dtype, 4, dims);
    return STATUS_OK;
}

static Status depth_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    Depth depth = {0};
    int64_t dims[4];
    Array *out;
    TRY(depth_read(context->node, x->rank, x->dims, &depth, err));
    depth_output(context->node, &depth, dims);
    TRY(eval_output(context, 0, x->dtype, 4, dims, &out, err));
    StridedCopy copy = depth_copy(context->node, &depth, x->dtype);
    strided_run(&copy, x->data, out->data);
    return STATUS_OK;
}

static Status depth_prepare(PlanContext *context, Error *err)
{
    Depth depth = {0};
    const Slot *in = kernel_input_as(context, 0, LAYOUT_PLAIN, DTYPE_UNDEFINED);
    kernel_output_as(context, 0, LAYOUT_PLAIN, in->dtype);
    TRY(depth_read(context->node, in->rank, in->dims, &depth, err));
    StridedCopy *copy = kernel_state(context, sizeof *copy);
    *copy = depth_copy(context->node, &depth, in->dtype);
    kernel_run(context, copy_run, "own:strided");
    return STATUS_OK;
}

/* Each undoes the other in the same mode. */
static Status depth_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    const char *back = node_is(forward, "DepthToSpace") ? "SpaceToDepth" : "DepthToSpace";
    Node *node = build_node(&context->b, "", back, &context->dy[0], 1, 1);
    if (!node)
        return context->b.status;
    node_copy_attrs(node, forward);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

/* clang-format off */
const OpDef ops_transpose[] = {
    {.name = "Transpose", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = transpose_infer, .eval = transpose_eval,
     .grad = transpose_grad, .prepare = transpose_prepare},
    {.name = "DepthToSpace", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = depth_infer, .eval = depth_eval, .grad = depth_grad,
     .prepare = depth_prepare},
    {.name = "SpaceToDepth", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = depth_infer, .eval = depth_eval, .grad = depth_grad,
     .prepare = depth_prepare},
    {0},
};
/* clang-format on */
