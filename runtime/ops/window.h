/* A sliding window over spatial dims: what convolutions and poolings have in common. Output position o and kernel
 * position k of an axis meet input position  i = o*stride - begin + k*dilation,  when that is inside [0, in).
 * Private to the families conv, pool and their likes. */
#ifndef REGRAFT_RUNTIME_OPS_WINDOW_H
#define REGRAFT_RUNTIME_OPS_WINDOW_H

#include "onnx/op.h"

typedef struct Window {
    int rank; /* spatial dims */
    int64_t in[RANK_MAX], out[RANK_MAX], kernel[RANK_MAX], stride[RANK_MAX], dilation[RANK_MAX];
    int64_t begin[RANK_MAX], end[RANK_MAX];    /* padding; negative values crop */
    int64_t in_count, out_count, kernel_count; /* elements */
} Window;

/* Reads kernel_shape, strides, dilations, pads, auto_pad and ceil_mode of a convolution or pooling whose input has the
 * spatial dims `in`. `kernel` is the shape when another input says it (weights), else NULL: then the attribute must. */
Status window_read(const Node *node, int rank, const int64_t *in, const int64_t *kernel, Window *window, Error *err);
/* The same from the other end, for ConvTranspose: `small` are the dims of the node's input, which is what the window
 * gives (out); window->in becomes the node's output. */
Status window_read_transposed(const Node *node, int rank, const int64_t *small, const int64_t *kernel, Window *window,
                              Error *err);
/* Writes the window as explicit attributes (strides, dilations, pads, kernel_shape), removing auto_pad and ceil_mode.
 */
void window_write(const Window *window, Node *node);
void window_count(Window *window);
int64_t window_extent(const Window *window, int axis); /* of the dilated kernel: (kernel - 1)*dilation + 1 */

/* Calls `row` for each run of outputs along the last axis that kernel element `k` meets: outputs out..out+count-1 meet
 * inputs in, in+step, in+2*step... (positions in dense [out...] and [in...]). */
typedef void WindowRow(void *context, int64_t out, int64_t in, int64_t count, int64_t step);
void window_rows(const Window *window, int64_t k, WindowRow *row, void *context);

#endif
