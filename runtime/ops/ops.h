/* The operator families, and what several of them share. One family a file; a family includes no other. */
#ifndef REGRAFT_RUNTIME_OPS_H
#define REGRAFT_RUNTIME_OPS_H

#include "onnx/op.h"
#include "runtime/kernel.h"

extern const OpDef ops_activation[];
extern const OpDef ops_arith[];
extern const OpDef ops_attention[];
extern const OpDef ops_batchnorm[];
extern const OpDef ops_cast[];
extern const OpDef ops_control[];
extern const OpDef ops_conv[], ops_detection[];
extern const OpDef ops_conv_integer[];
extern const OpDef ops_cumulate[];
extern const OpDef ops_deform_conv[];
extern const OpDef ops_det[];
extern const OpDef ops_dropout[];
extern const OpDef ops_einsum[];
extern const OpDef ops_flex_attention[];
extern const OpDef ops_fold[];
extern const OpDef ops_fused[];
extern const OpDef ops_generate[];
extern const OpDef ops_grid_sample[];
extern const OpDef ops_image[];
extern const OpDef ops_index[];
extern const OpDef ops_join[];
extern const OpDef ops_layernorm[];
extern const OpDef ops_linear_attention[];
extern const OpDef ops_logic[];
extern const OpDef ops_losses[];
extern const OpDef ops_losses_bce[];
extern const OpDef ops_lrn[];
extern const OpDef ops_math[];
extern const OpDef ops_matmul[];
extern const OpDef ops_matmul_integer[];
extern const OpDef ops_ml[];
extern const OpDef ops_norm[];
extern const OpDef ops_pad[];
extern const OpDef ops_pool[];
extern const OpDef ops_qoperator[];
extern const OpDef ops_quantize[];
extern const OpDef ops_random[];
extern const OpDef ops_rearrange[];
extern const OpDef ops_recurrent[];
extern const OpDef ops_reduce[];
extern const OpDef ops_resize[];
extern const OpDef ops_roi[];
extern const OpDef ops_scatter[];
extern const OpDef ops_select[];
extern const OpDef ops_sequence[];
extern const OpDef ops_shape[];
extern const OpDef ops_signal[];
extern const OpDef ops_softmax[];
extern const OpDef ops_text[];
extern const OpDef ops_training[];
extern const OpDef ops_transpose[];

/* ---- common.c: what rows of several families share ------------------------------------------------------- */

/* For `upgrade`: a 1-D int64 initializer of the node's graph named after `stem`. */
Value *node_ints_value(Node *node, const char *stem, const int64_t *values, size_t count);
Value *node_float_value(Node *node, const char *stem, DType dtype, double value); /* rank 0 */
/* Moves an INTS attribute to int64 input `index`; nothing happens when the attribute is absent. An INT attribute
 * becomes a 1-D input of one element. */
void upgrade_ints_to_input(Node *node, const char *attr, int index);

/* Input `index` of an eval as int64 values (int32 or int64 tensor); *values is NULL when the input is omitted. */
Status eval_ints(EvalContext *context, int index, const int64_t **values, size_t *count, Error *err);
int64_t eval_int_or(EvalContext *context, int index, int64_t absent); /* first element of input `index` */
/* Output `index` is `array` itself: copied for a tensor, shared for a sequence or an optional. */
Status eval_output_same(EvalContext *context, int index, const Array *array, Error *err);

Value *build_reshape(Builder *b, Value *x, int rank, const int64_t *dims);
Value *build_zeros(Builder *b, const Type *type); /* of that type; costs no memory before the step */
/* Rows whose gradient flows through unchanged: dx[0] = dy[0] in the shape of input 0. */
Status grad_reshape(GradContext *context, Error *err);

/* True when a tensor of this type can lie in the plan's channel family without padding (its channels fill whole
 * blocks). */
bool kernel_family_fits(const PlanContext *context, const Type *type);
/* Where logical `axis` is in slot_physical's dims; channels of a blocked slot count in blocks there. */
int physical_axis(Layout layout, int rank, int axis);
/* A row that runs on PLAIN slots of any dtype asks for all its inputs so; Slot is NULL where one is omitted. */
void kernel_inputs_plain(PlanContext *context);
uint64_t node_stream(const Node *node); /* of random numbers: from its first output's name, the same in every plan */

/* Indices are int32 or int64; negative ones count from the back. Outside the axis is an error naming node and value. */
int64_t index_at(DType dtype, const void *data, int64_t i);
Status index_check_dtype(const Node *node, DType dtype, Error *err);
Status index_check(const Node *node, int64_t at, int64_t i, int64_t dim, int64_t *out, Error *err);
Status index_list(const Node *node, DType dtype, const void *data, int64_t count, int64_t dim, int64_t *out,
                  Error *err);
/* Offset (by `strides`) of the element at flat position `i` of `dims`, with `at` in place of its index along `axis`. */
int64_t elements_offset(int64_t i, int rank, const int64_t *dims, const int64_t *strides, int axis, int64_t at);
/* Below, equal to or above zero; NaN is above every number, strings compare by bytes. */
int element_compare(DType dtype, const void *a, const void *b);

/* ---- regex.c: regular expressions in RE2's syntax --------------------------------------------------------- */

typedef struct Regex Regex;
Status regex_new(Arena *arena, Bytes pattern, Regex **regex, Error *err); /* names what is wrong or not supported */
bool regex_matches(const Regex *regex, Arena *arena, Bytes text);         /* all of it; `arena` is for scratch */
/* The character at *at, which moves behind it; U+FFFD for bytes that are not UTF-8. *at < end. */
int32_t utf8_next(const char **at, const char *end);

/* ---- stride.c: moving elements between strided views ------------------------------------------------------ */

enum { STRIDED_MAX = 2 * RANK_MAX + 2 };

/* Copies element (i0, i1, ..) at from + sum i*from[k] to to + sum i*to[k]; strides in elements, any sign, 0 in `from`
 * repeats. Everything that moves data without computing is one of these: Transpose, Slice, Concat, Expand, Tile,
 * DepthToSpace... */
typedef struct StridedCopy {
    int rank; /* after merging dims that lie behind each other on both sides */
    int64_t dims[STRIDED_MAX], from[STRIDED_MAX], to[STRIDED_MAX]; /* strides in bytes */
    size_t size;   /* bytes of an element; of a run of them once they are contiguous on both sides */
    int tile;      /* dim that is contiguous in `from` while the last one is in `to`: copied in square tiles; else -1 */
    int64_t outer; /* product of the dims that are not copied by one inner call */
} StridedCopy;

void strides_dense(int rank, const int64_t *dims, int64_t *strides);
StridedCopy strided_make(int rank, const int64_t *dims, const int64_t *from, const int64_t *to, size_t size);
/* Runs on the pool when it is worth it; the result does not depend on the number of threads. */
void strided_run(const StridedCopy *copy, const void *from, void *to);

/* The bytes of a slot as a strided view of its logical axes. A channel axis in blocks is two dims (block number, place
 * in the block) instead of one: axis_first[a] .. axis_first[a + 1] are the view's dims of logical axis a. */
typedef struct SlotView {
    int rank;
    int64_t dims[STRIDED_MAX], strides[STRIDED_MAX]; /* in elements */
    int axis_first[RANK_MAX + 1];
} SlotView;
/* `split_axis`: an axis to be split into blocks as well although the slot is plain (because the other side is blocked);
 * else -1. */
SlotView slot_view(const Slot *slot, int block, int split_axis);

#endif
