/* Windows: reading the attributes that all convolutions and poolings share, and walking their rows. The arithmetic is
 * the ONNX text's of Conv, ConvTranspose and MaxPool; auto_pad is resolved here and nowhere else. */
#include "runtime/ops/window.h"

#include <string.h>

int64_t window_extent(const Window *window, int axis)
{
    return (window->kernel[axis] - 1) * window->dilation[axis] + 1;
}

void window_count(Window *window)
{
    window->in_count = dims_count(window->rank, window->in);
    window->out_count = dims_count(window->rank, window->out);
    window->kernel_count = dims_count(window->rank, window->kernel);
}

/* ---- attributes -------------------------------------------------------------------------------------------- */

/* An INTS attribute of `count` elements into `out`; absent: all `absent`. */
static Status read_list(const Node *node, const char *name, int count, int64_t absent, int64_t least, int64_t *out,
                        Error *err)
{
    size_t found = 0;
    const int64_t *values = node_ints(node, name, &found);
    if (values != NULL && found != (size_t)count)
        return infer_fail(node, err, "attribute %s has %zu elements where %d are expected", name, found, count);
    for (int i = 0; i < count; i++) {
        out[i] = values != NULL ? values[i] : absent;
        if (out[i] < least || out[i] > INT32_MAX)
            return infer_fail(node, err, "attribute %s holds %lld", name, (long long)out[i]);
    }
    return STATUS_OK;
}

static Status read_kernel(const Node *node, int rank, const int64_t *kernel, Window *window, Error *err)
{
    bool written = node_attr(node, "kernel_shape") != NULL;
    memset(window, 0, sizeof *window);
    if (rank < 1 || rank > RANK_MAX - 2)
        return infer_fail(node, err, "%d spatial dims where 1 to %d are expected", rank, RANK_MAX - 2);
    window->rank = rank;
    if (written)
        TRY(read_list(node, "kernel_shape", rank, 1, 1, window->kernel, err));
    else if (kernel == NULL)
        return infer_fail(node, err, "attribute kernel_shape is missing");
    for (int i = 0; i < rank && kernel != NULL; i++) {
        if (written && window->kernel[i] != kernel[i])
            return infer_fail(node, err, "attribute kernel_shape says %lld in dim %d, the weights have %lld",
                              (long long)window->kernel[i], i, (long long)kernel[i]);
        window->kernel[i] = kernel[i];
    }
    TRY(read_list(node, "strides", rank, 1, 1, window->stride, err));
    return read_list(node, "dilations", rank, 1, 1, window->dilation, err);
}

typedef enum AutoPad { PAD_EXPLICIT, PAD_VALID, PAD_SAME_UPPER, PAD_SAME_LOWER } AutoPad;

static Status read_pads(const Node *node, Window *window, AutoPad *pad, Error *err)
{
    static const char *const names[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    const char *name = node_string(node, "auto_pad", "NOTSET");
    int64_t pads[2 * RANK_MAX] = {0};
    int found = -1;
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0)
            found = i;
    if (found < 0)
        return infer_fail(node, err, "attribute auto_pad is '%s'", name);
    *pad = (AutoPad)found;
    if (*pad == PAD_EXPLICIT)
        TRY(read_list(node, "pads", 2 * window->rank, 0, -INT32_MAX, pads, err));
    for (int i = 0; i < window->rank; i++) {
        window->begin[i] = pads[i];
        window->end[i] = pads[window->rank + i];
    }
    return STATUS_OK;
}

/* Splits the total between both ends, the odd one at the end for `upper`. What is missing is missing at the end. */
static void split_padding(Window *window, int axis, int64_t total, bool upper)
{
    window->begin[axis] = total < 0 ? 0 : upper ? total / 2 : total - total / 2;
    window->end[axis] = total - window->begin[axis];
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static Status out_of_axis(const Node *node, Window *w, int i, AutoPad pad, bool ceil_mode, Error *err)
{
    int64_t extent = window_extent(w, i);
    if (pad == PAD_SAME_UPPER || pad == PAD_SAME_LOWER) {
        w->out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
        int64_t total = (w->out[i] - 1) * w->stride[i] + extent - w->in[i];
        split_padding(w, i, total > 0 ? total : 0, pad == PAD_SAME_UPPER);
        return STATUS_OK;
    }
    int64_t slack = w->in[i] + w->begin[i] + w->end[i] - extent;
    if (slack < 0)
        return infer_fail(node, err, "a window of %lld does not fit into spatial dim %d of %lld (padding included)",
                          (long long)extent, i, (long long)(slack + extent));
    w->out[i] = slack / w->stride[i] + 1;
    if (ceil_mode && pad == PAD_EXPLICIT && slack % w->stride[i] != 0) {
        w->out[i]++; /* unless it would start in the padding behind the input */
        if ((w->out[i] - 1) * w->stride[i] >= w->in[i] + w->begin[i])
            w->out[i]--;
    }
    return STATUS_OK;
}

Status window_read(const Node *node, int rank, const int64_t *in, const int64_t *kernel, Window *window, Error *err)
{
    AutoPad pad;
    TRY(read_kernel(node, rank, kernel, window, err));
    TRY(read_pads(node, window, &pad, err));
    memcpy(window->in, in, (size_t)rank * sizeof in[0]);
    for (int i = 0; i < rank; i++)
        TRY(out_of_axis(node, window, i, pad, node_int(node, "ceil_mode", 0) != 0, err));
    window_count(window);
    return STATUS_OK;
}

/* total = stride*(small - 1) + output_padding + extent - output_shape,  Conv-22/ConvTranspose-22. */
Status window_read_transposed(const Node *node, int rank, const int64_t *small, const int64_t *kernel, Window *window,
                              Error *err)
{
    int64_t shape[RANK_MAX], extra[RANK_MAX];
    AutoPad pad;
    TRY(read_kernel(node, rank, kernel, window, err));
    TRY(read_pads(node, window, &pad, err));
    TRY(read_list(node, "output_padding", rank, 0, 0, extra, err));
    TRY(read_list(node, "output_shape", rank, -1, -1, shape, err));
    bool same = pad == PAD_SAME_UPPER || pad == PAD_SAME_LOWER;
    memcpy(window->out, small, (size_t)rank * sizeof small[0]);
    for (int i = 0; i < rank; i++) {
        int64_t full = window->stride[i] * (small[i] - 1) + extra[i] + window_extent(window, i);
        int64_t wanted = shape[i] >= 0 ? shape[i] : same ? small[i] * window->stride[i] : -1;
        if (wanted >= 0)
            split_padding(window, i, full - wanted, pad == PAD_SAME_UPPER);
        window->in[i] = full - window->begin[i] - window->end[i];
        window->end[i] -= extra[i]; /* seen from the large side, output padding is what no window reaches */
        if (window->in[i] < 0)
            return infer_fail(node, err, "padding %lld and %lld leave nothing of spatial dim %d",
                              (long long)window->begin[i], (long long)window->end[i], i);
    }
    window_count(window);
    return STATUS_OK;
}

void window_write(const Window *window, Node *node)
{
    size_t rank = (size_t)window->rank;
    int64_t pads[2 * RANK_MAX];
    for (int i = 0; i < window->rank; i++) {
        pads[i] = window->begin[i];
        pads[window->rank + i] = window->end[i];
    }
    node_remove_attr(node, "auto_pad");
    node_remove_attr(node, "ceil_mode");
    node_set_ints(node, "kernel_shape", window->kernel, rank);
    node_set_ints(node, "strides", window->stride, rank);
    node_set_ints(node, "dilations", window->dilation, rank);
    node_set_ints(node, "pads", pads, 2 * rank);
}

/* ---- walking --------------------------------------------------------------------------------------------------- */

/* Outputs [*first, *last) of an axis whose input for kernel position k is inside. */
static void valid_outputs(const Window *w, int axis, int64_t k, int64_t *first, int64_t *last)
{
    int64_t shift = k * w->dilation[axis] - w->begin[axis]; /* input of output 0 */
    int64_t stride = w->stride[axis];
    *first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    *last = w->in[axis] - 1 < shift ? 0 : (w->in[axis] - 1 - shift) / stride + 1;
    if (*last > w->out[axis])
        *last = w->out[axis];
}

void window_rows(const Window *w, int64_t k, WindowRow *row, void *context)
{
    int64_t place[RANK_MAX] = {0}, first[RANK_MAX], last[RANK_MAX], at[RANK_MAX];
    int inner = w->rank - 1;
    for (int i = inner; i >= 0; i--) {
        place[i] = k % w->kernel[i];
        k /= w->kernel[i];
        valid_outputs(w, i, place[i], &first[i], &last[i]);
        if (first[i] >= last[i])
            return;
        at[i] = first[i];
    }
    for (;;) {
        int64_t out = 0, in = 0;
        for (int i = 0; i < w->rank; i++) {
            out = out * w->out[i] + at[i];
            in = in * w->in[i] + at[i] * w->stride[i] - w->begin[i] + place[i] * w->dilation[i];
        }
        row(context, out, in, last[inner] - first[inner], w->stride[inner]);
        int axis = inner - 1;
        while (axis >= 0 && ++at[axis] == last[axis]) {
            at[axis] = first[axis];
            axis--;
        }
        if (axis < 0)
            return;
    }
}
