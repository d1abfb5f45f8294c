/* The oneDNN 3.x C API in terms of 2.6: everything this project calls that 2.6 does not have, as static inlines of the
 * same name. Delete this file when oneDNN 2 is no longer supported.
 *
 * Three things changed between the majors. Memory descriptors became handles: here a handle is a heap copy of 2.6's
 * struct. The two calls "fill an operation descriptor, make a primitive descriptor" became one: here V2_CREATE does
 * both. Some operations take separate descriptors for source and destination, where 2.6 has one: there the caller keeps
 * both equal. What cannot be hidden: batch normalization's backward wants DNNL_ARG_SHIFT on 2.6 and refuses it on 3.x,
 * and eltwise hardsigmoid is absent. Nothing here runs in a step. */
#ifndef REGRAFT_RUNTIME_DNNL_V2_H
#define REGRAFT_RUNTIME_DNNL_V2_H

#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR >= 3
#error "runtime/dnnl_v2.h is for oneDNN 2.6"
#endif

/* ---- helpers of this file --------------------------------------------------------------------------- */

#define V2_TRY(call)                                                                                                   \
    do {                                                                                                               \
        dnnl_status_t v2_status_ = (call);                                                                             \
        if (v2_status_ != dnnl_success)                                                                                \
            return v2_status_;                                                                                         \
    } while (0)

/* The body of every ..._primitive_desc_create: fill `operation` by `init`, then make the primitive descriptor. */
#define V2_CREATE(type, hint, init, ...)                                                                               \
    type operation;                                                                                                    \
    V2_TRY(init(&operation, __VA_ARGS__));                                                                             \
    return dnnl_primitive_desc_create(descriptor, &operation, attr, engine, (hint))

static inline dnnl_status_t v2_md_new(dnnl_md *md)
{
    *md = (dnnl_md)calloc(1, sizeof **md);
    return *md != NULL ? dnnl_success : dnnl_out_of_memory;
}

/* ---- memory descriptors ------------------------------------------------------------------------------- */

static inline dnnl_status_t dnnl_memory_desc_destroy(dnnl_md md)
{
    free(md);
    return dnnl_success;
}

static inline dnnl_status_t dnnl_memory_desc_clone(dnnl_md *md, const_dnnl_md existing)
{
    V2_TRY(v2_md_new(md));
    **md = *existing;
    return dnnl_success;
}

/* Creates, and gives the handle back when filling it fails. */
#define V2_MD_CREATE(init, ...)                                                                                        \
    do {                                                                                                               \
        V2_TRY(v2_md_new(md));                                                                                         \
        dnnl_status_t v2_status = init(*md, __VA_ARGS__);                                                              \
        if (v2_status != dnnl_success) {                                                                               \
            free(*md);                                                                                                 \
            *md = NULL;                                                                                                \
        }                                                                                                              \
        return v2_status;                                                                                              \
    } while (0)

static inline dnnl_status_t dnnl_memory_desc_create_with_tag(dnnl_md *md, int rank, const dnnl_dims_t dims,
                                                             dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    V2_MD_CREATE(dnnl_memory_desc_init_by_tag, rank, dims, type, tag);
}

static inline dnnl_status_t dnnl_memory_desc_create_with_strides(dnnl_md *md, int rank, const dnnl_dims_t dims,
                                                                 dnnl_data_type_t type, const dnnl_dims_t strides)
{
    V2_MD_CREATE(dnnl_memory_desc_init_by_strides, rank, dims, type, strides);
}

static inline dnnl_status_t dnnl_memory_desc_create_submemory(dnnl_md *md, const_dnnl_md parent, const dnnl_dims_t dims,
                                                              const dnnl_dims_t offsets)
{
    V2_MD_CREATE(dnnl_memory_desc_init_submemory, parent, dims, offsets);
}

/* These two names exist on 2.6 with a struct to fill as first argument. */
static inline dnnl_status_t v2_memory_desc_reshape(dnnl_md *md, const_dnnl_md in, int rank, const dnnl_dims_t dims)
{
    V2_MD_CREATE(dnnl_memory_desc_reshape, in, rank, dims);
}
#define dnnl_memory_desc_reshape v2_memory_desc_reshape

static inline dnnl_status_t v2_memory_desc_permute_axes(dnnl_md *md, const_dnnl_md in, const int *permutation)
{
    V2_MD_CREATE(dnnl_memory_desc_permute_axes, in, permutation);
}
#define dnnl_memory_desc_permute_axes v2_memory_desc_permute_axes

enum {
    dnnl_query_ndims_s32 = 9001,
    dnnl_query_dims,
    dnnl_query_data_type,
    dnnl_query_strides,
    dnnl_query_padded_dims,
    dnnl_query_inner_nblks_s32,
    dnnl_query_inner_blks,
    dnnl_query_inner_idxs,
    dnnl_query_format_kind
};

static inline dnnl_status_t dnnl_memory_desc_query(const_dnnl_md md, int what, void *result)
{
    switch (what) {
    case dnnl_query_ndims_s32:
        *(int *)result = md->ndims;
        return dnnl_success;
    case dnnl_query_dims:
        *(const dnnl_dims_t **)result = &md->dims;
        return dnnl_success;
    case dnnl_query_padded_dims:
        *(const dnnl_dims_t **)result = &md->padded_dims;
        return dnnl_success;
    case dnnl_query_data_type:
        *(dnnl_data_type_t *)result = md->data_type;
        return dnnl_success;
    case dnnl_query_format_kind:
        *(dnnl_format_kind_t *)result = md->format_kind;
        return dnnl_success;
    case dnnl_query_strides:
        *(const dnnl_dims_t **)result = &md->format_desc.blocking.strides;
        return dnnl_success;
    case dnnl_query_inner_nblks_s32:
        *(int *)result = md->format_desc.blocking.inner_nblks;
        return dnnl_success;
    case dnnl_query_inner_blks:
        *(const dnnl_dims_t **)result = &md->format_desc.blocking.inner_blks;
        return dnnl_success;
    case dnnl_query_inner_idxs:
        *(const dnnl_dims_t **)result = &md->format_desc.blocking.inner_idxs;
        return dnnl_success;
    default:
        return dnnl_invalid_arguments;
    }
}

/* ---- post-ops, renamed values --------------------------------------------------------------------------- */

#define dnnl_post_ops_append_eltwise(ops, algorithm, alpha, beta)                                                      \
    dnnl_post_ops_append_eltwise(ops, 1.0f, algorithm, alpha, beta)
#define dnnl_post_ops_append_sum(ops, scale, zero_point, type) dnnl_post_ops_append_sum_v3(ops, scale, zero_point, type)
#define dnnl_cpu_isa_default dnnl_cpu_isa_all

/* ---- convolution, deconvolution --------------------------------------------------------------------------- */

/* Both have the same three calls; dilation 0 means none, on 2.6 too. */
#define V2_CONVOLUTION(name)                                                                                           \
    static inline dnnl_status_t dnnl_##name##_forward_primitive_desc_create(                                           \
        dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, dnnl_alg_kind_t algorithm,     \
        const_dnnl_md src, const_dnnl_md weights, const_dnnl_md bias, const_dnnl_md dst, const dnnl_dims_t strides,    \
        const dnnl_dims_t dilates, const dnnl_dims_t pad_left, const dnnl_dims_t pad_right,                            \
        const_dnnl_primitive_attr_t attr)                                                                              \
    {                                                                                                                  \
        V2_CREATE(dnnl_##name##_desc_t, NULL, dnnl_dilated_##name##_forward_desc_init, kind, algorithm, src, weights,  \
                  bias, dst, strides, dilates, pad_left, pad_right);                                                   \
    }                                                                                                                  \
    static inline dnnl_status_t dnnl_##name##_backward_data_primitive_desc_create(                                     \
        dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_alg_kind_t algorithm, const_dnnl_md diff_src,    \
        const_dnnl_md weights, const_dnnl_md diff_dst, const dnnl_dims_t strides, const dnnl_dims_t dilates,           \
        const dnnl_dims_t pad_left, const dnnl_dims_t pad_right, const_dnnl_primitive_desc_t hint,                     \
        const_dnnl_primitive_attr_t attr)                                                                              \
    {                                                                                                                  \
        V2_CREATE(dnnl_##name##_desc_t, hint, dnnl_dilated_##name##_backward_data_desc_init, algorithm, diff_src,      \
                  weights, diff_dst, strides, dilates, pad_left, pad_right);                                           \
    }                                                                                                                  \
    static inline dnnl_status_t dnnl_##name##_backward_weights_primitive_desc_create(                                  \
        dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_alg_kind_t algorithm, const_dnnl_md src,         \
        const_dnnl_md diff_weights, const_dnnl_md diff_bias, const_dnnl_md diff_dst, const dnnl_dims_t strides,        \
        const dnnl_dims_t dilates, const dnnl_dims_t pad_left, const dnnl_dims_t pad_right,                            \
        const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)                                            \
    {                                                                                                                  \
        V2_CREATE(dnnl_##name##_desc_t, hint, dnnl_dilated_##name##_backward_weights_desc_init, algorithm, src,        \
                  diff_weights, diff_bias, diff_dst, strides, dilates, pad_left, pad_right);                           \
    }
V2_CONVOLUTION(convolution)
V2_CONVOLUTION(deconvolution)

/* ---- pooling --------------------------------------------------------------------------------------------- */

static inline dnnl_status_t
dnnl_pooling_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                           dnnl_prop_kind_t kind, dnnl_alg_kind_t algorithm, const_dnnl_md src,
                                           const_dnnl_md dst, const dnnl_dims_t strides, const dnnl_dims_t kernel,
                                           const dnnl_dims_t dilation, const dnnl_dims_t pad_left,
                                           const dnnl_dims_t pad_right, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_pooling_v2_desc_t, NULL, dnnl_pooling_v2_forward_desc_init, kind, algorithm, src, dst, strides,
              kernel, dilation, pad_left, pad_right);
}

static inline dnnl_status_t dnnl_pooling_backward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_alg_kind_t algorithm, const_dnnl_md diff_src,
    const_dnnl_md diff_dst, const dnnl_dims_t strides, const dnnl_dims_t kernel, const dnnl_dims_t dilation,
    const dnnl_dims_t pad_left, const dnnl_dims_t pad_right, const_dnnl_primitive_desc_t hint,
    const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_pooling_v2_desc_t, hint, dnnl_pooling_v2_backward_desc_init, algorithm, diff_src, diff_dst, strides,
              kernel, dilation, pad_left, pad_right);
}

/* ---- normalization: 2.6 has one descriptor for src and dst, and one for their gradients -------------------- */

static inline dnnl_status_t
dnnl_batch_normalization_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                                       dnnl_prop_kind_t kind, const_dnnl_md src, const_dnnl_md dst,
                                                       float epsilon, unsigned flags, const_dnnl_primitive_attr_t attr)
{
    (void)dst;
    V2_CREATE(dnnl_batch_normalization_desc_t, NULL, dnnl_batch_normalization_forward_desc_init, kind, src, epsilon,
              flags);
}

static inline dnnl_status_t dnnl_batch_normalization_backward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, const_dnnl_md diff_src,
    const_dnnl_md diff_dst, const_dnnl_md src, float epsilon, unsigned flags, const_dnnl_primitive_desc_t hint,
    const_dnnl_primitive_attr_t attr)
{
    (void)diff_src;
    V2_CREATE(dnnl_batch_normalization_desc_t, hint, dnnl_batch_normalization_backward_desc_init, kind, diff_dst, src,
              epsilon, flags);
}

static inline dnnl_status_t dnnl_layer_normalization_forward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, const_dnnl_md src,
    const_dnnl_md dst, const_dnnl_md statistics, float epsilon, unsigned flags, const_dnnl_primitive_attr_t attr)
{
    (void)dst;
    V2_CREATE(dnnl_layer_normalization_desc_t, NULL, dnnl_layer_normalization_forward_desc_init, kind, src, statistics,
              epsilon, flags);
}

static inline dnnl_status_t dnnl_layer_normalization_backward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, const_dnnl_md diff_src,
    const_dnnl_md diff_dst, const_dnnl_md src, const_dnnl_md statistics, float epsilon, unsigned flags,
    const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    (void)diff_src;
    V2_CREATE(dnnl_layer_normalization_desc_t, hint, dnnl_layer_normalization_backward_desc_init, kind, diff_dst, src,
              statistics, epsilon, flags);
}

static inline dnnl_status_t
dnnl_lrn_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind,
                                       dnnl_alg_kind_t algorithm, const_dnnl_md src, const_dnnl_md dst, dnnl_dim_t size,
                                       float alpha, float beta, float k, const_dnnl_primitive_attr_t attr)
{
    (void)dst;
    V2_CREATE(dnnl_lrn_desc_t, NULL, dnnl_lrn_forward_desc_init, kind, algorithm, src, size, alpha, beta, k);
}

static inline dnnl_status_t
dnnl_lrn_backward_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                        dnnl_alg_kind_t algorithm, const_dnnl_md diff_src, const_dnnl_md diff_dst,
                                        const_dnnl_md src, dnnl_dim_t size, float alpha, float beta, float k,
                                        const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    (void)diff_src;
    V2_CREATE(dnnl_lrn_desc_t, hint, dnnl_lrn_backward_desc_init, algorithm, diff_dst, src, size, alpha, beta, k);
}

/* ---- elementwise: eltwise, prelu, binary, softmax ----------------------------------------------------------- */

static inline dnnl_status_t dnnl_eltwise_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                       dnnl_engine_t engine, dnnl_prop_kind_t kind,
                                                                       dnnl_alg_kind_t algorithm, const_dnnl_md src,
                                                                       const_dnnl_md dst, float alpha, float beta,
                                                                       const_dnnl_primitive_attr_t attr)
{
    (void)dst;
    V2_CREATE(dnnl_eltwise_desc_t, NULL, dnnl_eltwise_forward_desc_init, kind, algorithm, src, alpha, beta);
}

static inline dnnl_status_t dnnl_eltwise_backward_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                        dnnl_engine_t engine, dnnl_alg_kind_t algorithm,
                                                                        const_dnnl_md diff_src, const_dnnl_md diff_dst,
                                                                        const_dnnl_md data, float alpha, float beta,
                                                                        const_dnnl_primitive_desc_t hint,
                                                                        const_dnnl_primitive_attr_t attr)
{
    (void)diff_src;
    V2_CREATE(dnnl_eltwise_desc_t, hint, dnnl_eltwise_backward_desc_init, algorithm, diff_dst, data, alpha, beta);
}

static inline dnnl_status_t dnnl_prelu_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                     dnnl_engine_t engine, dnnl_prop_kind_t kind,
                                                                     const_dnnl_md src, const_dnnl_md weights,
                                                                     const_dnnl_md dst,
                                                                     const_dnnl_primitive_attr_t attr)
{
    (void)dst;
    V2_CREATE(dnnl_prelu_desc_t, NULL, dnnl_prelu_forward_desc_init, kind, src, weights);
}

static inline dnnl_status_t
dnnl_prelu_backward_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, const_dnnl_md src,
                                          const_dnnl_md weights, const_dnnl_md diff_src, const_dnnl_md diff_weights,
                                          const_dnnl_md diff_dst, const_dnnl_primitive_desc_t hint,
                                          const_dnnl_primitive_attr_t attr)
{
    (void)diff_dst;
    V2_CREATE(dnnl_prelu_desc_t, hint, dnnl_prelu_backward_desc_init, src, weights, diff_src, diff_weights);
}

static inline dnnl_status_t dnnl_binary_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                                              dnnl_alg_kind_t algorithm, const_dnnl_md src0,
                                                              const_dnnl_md src1, const_dnnl_md dst,
                                                              const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_binary_desc_t, NULL, dnnl_binary_desc_init, algorithm, src0, src1, dst);
}

static inline dnnl_status_t dnnl_softmax_forward_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                       dnnl_engine_t engine, dnnl_prop_kind_t kind,
                                                                       dnnl_alg_kind_t algorithm, const_dnnl_md src,
                                                                       const_dnnl_md dst, int axis,
                                                                       const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_softmax_v2_desc_t, NULL, dnnl_softmax_v2_forward_desc_init, kind, algorithm, src, dst, axis);
}

static inline dnnl_status_t dnnl_softmax_backward_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                        dnnl_engine_t engine, dnnl_alg_kind_t algorithm,
                                                                        const_dnnl_md diff_src, const_dnnl_md diff_dst,
                                                                        const_dnnl_md dst, int axis,
                                                                        const_dnnl_primitive_desc_t hint,
                                                                        const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_softmax_v2_desc_t, hint, dnnl_softmax_v2_backward_desc_init, algorithm, diff_src, diff_dst, dst,
              axis);
}

/* ---- matrices: matmul, inner product, reduction --------------------------------------------------------------- */

static inline dnnl_status_t dnnl_matmul_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                                              const_dnnl_md src, const_dnnl_md weights,
                                                              const_dnnl_md bias, const_dnnl_md dst,
                                                              const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_matmul_desc_t, NULL, dnnl_matmul_desc_init, src, weights, bias, dst);
}

static inline dnnl_status_t dnnl_inner_product_forward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, const_dnnl_md src,
    const_dnnl_md weights, const_dnnl_md bias, const_dnnl_md dst, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_inner_product_desc_t, NULL, dnnl_inner_product_forward_desc_init, kind, src, weights, bias, dst);
}

static inline dnnl_status_t dnnl_inner_product_backward_data_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, const_dnnl_md diff_src, const_dnnl_md weights,
    const_dnnl_md diff_dst, const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_inner_product_desc_t, hint, dnnl_inner_product_backward_data_desc_init, diff_src, weights, diff_dst);
}

static inline dnnl_status_t dnnl_inner_product_backward_weights_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, const_dnnl_md src, const_dnnl_md diff_weights,
    const_dnnl_md diff_bias, const_dnnl_md diff_dst, const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_inner_product_desc_t, hint, dnnl_inner_product_backward_weights_desc_init, src, diff_weights,
              diff_bias, diff_dst);
}

static inline dnnl_status_t dnnl_reduction_primitive_desc_create(dnnl_primitive_desc_t *descriptor,
                                                                 dnnl_engine_t engine, dnnl_alg_kind_t algorithm,
                                                                 const_dnnl_md src, const_dnnl_md dst, float p,
                                                                 float epsilon, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_reduction_desc_t, NULL, dnnl_reduction_desc_init, algorithm, src, dst, p, epsilon);
}

/* ---- concat, sum: 2.6 takes arrays of structs and another order of arguments --------------------------------- */

static inline dnnl_memory_desc_t *v2_md_array(int count, const_dnnl_md const *mds)
{
    dnnl_memory_desc_t *copies = (dnnl_memory_desc_t *)calloc((size_t)count, sizeof *copies);
    for (int i = 0; copies != NULL && i < count; i++)
        copies[i] = *mds[i];
    return copies;
}

static inline dnnl_status_t v2_concat_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                                            const_dnnl_md dst, int count, int axis,
                                                            const_dnnl_md const *srcs, const_dnnl_primitive_attr_t attr)
{
    dnnl_memory_desc_t *copies = v2_md_array(count, srcs);
    if (copies == NULL)
        return dnnl_out_of_memory;
    dnnl_status_t status = dnnl_concat_primitive_desc_create(descriptor, dst, count, axis, copies, attr, engine);
    free(copies);
    return status;
}
#define dnnl_concat_primitive_desc_create v2_concat_primitive_desc_create

static inline dnnl_status_t v2_sum_primitive_desc_create(dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine,
                                                         const_dnnl_md dst, int count, const float *scales,
                                                         const_dnnl_md const *srcs, const_dnnl_primitive_attr_t attr)
{
    dnnl_memory_desc_t *copies = v2_md_array(count, srcs);
    if (copies == NULL)
        return dnnl_out_of_memory;
    dnnl_status_t status = dnnl_sum_primitive_desc_create(descriptor, dst, count, scales, copies, attr, engine);
    free(copies);
    return status;
}
#define dnnl_sum_primitive_desc_create v2_sum_primitive_desc_create

/* ---- recurrent nets: gradients of weights are always accumulated on 2.6 ---------------------------------------- */

static inline dnnl_status_t dnnl_vanilla_rnn_forward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, dnnl_alg_kind_t activation,
    dnnl_rnn_direction_t direction, const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md weights_layer,
    const_dnnl_md weights_iter, const_dnnl_md bias, const_dnnl_md dst_layer, const_dnnl_md dst_iter, unsigned flags,
    float alpha, float beta, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_rnn_desc_t, NULL, dnnl_vanilla_rnn_forward_desc_init, kind, activation, direction, src_layer,
              src_iter, weights_layer, weights_iter, bias, dst_layer, dst_iter, flags, alpha, beta);
}

static inline dnnl_status_t dnnl_vanilla_rnn_backward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, dnnl_alg_kind_t activation,
    dnnl_rnn_direction_t direction, const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md weights_layer,
    const_dnnl_md weights_iter, const_dnnl_md bias, const_dnnl_md dst_layer, const_dnnl_md dst_iter,
    const_dnnl_md diff_src_layer, const_dnnl_md diff_src_iter, const_dnnl_md diff_weights_layer,
    const_dnnl_md diff_weights_iter, const_dnnl_md diff_bias, const_dnnl_md diff_dst_layer, const_dnnl_md diff_dst_iter,
    unsigned flags, float alpha, float beta, const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_rnn_desc_t, hint, dnnl_vanilla_rnn_backward_desc_init, kind, activation, direction, src_layer,
              src_iter, weights_layer, weights_iter, bias, dst_layer, dst_iter, diff_src_layer, diff_src_iter,
              diff_weights_layer, diff_weights_iter, diff_bias, diff_dst_layer, diff_dst_iter, flags, alpha, beta);
}

static inline dnnl_status_t dnnl_lstm_forward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, dnnl_rnn_direction_t direction,
    const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md src_iter_c, const_dnnl_md weights_layer,
    const_dnnl_md weights_iter, const_dnnl_md weights_peephole, const_dnnl_md weights_projection, const_dnnl_md bias,
    const_dnnl_md dst_layer, const_dnnl_md dst_iter, const_dnnl_md dst_iter_c, unsigned flags,
    const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_rnn_desc_t, NULL, dnnl_lstm_forward_desc_init_v3, kind, direction, src_layer, src_iter, src_iter_c,
              weights_layer, weights_iter, weights_peephole, weights_projection, bias, dst_layer, dst_iter, dst_iter_c,
              flags);
}

static inline dnnl_status_t dnnl_lstm_backward_primitive_desc_create(
    dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind, dnnl_rnn_direction_t direction,
    const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md src_iter_c, const_dnnl_md weights_layer,
    const_dnnl_md weights_iter, const_dnnl_md weights_peephole, const_dnnl_md weights_projection, const_dnnl_md bias,
    const_dnnl_md dst_layer, const_dnnl_md dst_iter, const_dnnl_md dst_iter_c, const_dnnl_md diff_src_layer,
    const_dnnl_md diff_src_iter, const_dnnl_md diff_src_iter_c, const_dnnl_md diff_weights_layer,
    const_dnnl_md diff_weights_iter, const_dnnl_md diff_weights_peephole, const_dnnl_md diff_weights_projection,
    const_dnnl_md diff_bias, const_dnnl_md diff_dst_layer, const_dnnl_md diff_dst_iter, const_dnnl_md diff_dst_iter_c,
    unsigned flags, const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
    V2_CREATE(dnnl_rnn_desc_t, hint, dnnl_lstm_backward_desc_init_v3, kind, direction, src_layer, src_iter, src_iter_c,
              weights_layer, weights_iter, weights_peephole, weights_projection, bias, dst_layer, dst_iter, dst_iter_c,
              diff_src_layer, diff_src_iter, diff_src_iter_c, diff_weights_layer, diff_weights_iter,
              diff_weights_peephole, diff_weights_projection, diff_bias, diff_dst_layer, diff_dst_iter, diff_dst_iter_c,
              flags);
}

/* gru and lbr_gru (ONNX's linear_before_reset) are called alike. */
#define V2_GRU(name)                                                                                                   \
    static inline dnnl_status_t dnnl_##name##_forward_primitive_desc_create(                                           \
        dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind,                                \
        dnnl_rnn_direction_t direction, const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md weights_layer,  \
        const_dnnl_md weights_iter, const_dnnl_md bias, const_dnnl_md dst_layer, const_dnnl_md dst_iter,               \
        unsigned flags, const_dnnl_primitive_attr_t attr)                                                              \
    {                                                                                                                  \
        V2_CREATE(dnnl_rnn_desc_t, NULL, dnnl_##name##_forward_desc_init, kind, direction, src_layer, src_iter,        \
                  weights_layer, weights_iter, bias, dst_layer, dst_iter, flags);                                      \
    }                                                                                                                  \
    static inline dnnl_status_t dnnl_##name##_backward_primitive_desc_create(                                          \
        dnnl_primitive_desc_t *descriptor, dnnl_engine_t engine, dnnl_prop_kind_t kind,                                \
        dnnl_rnn_direction_t direction, const_dnnl_md src_layer, const_dnnl_md src_iter, const_dnnl_md weights_layer,  \
        const_dnnl_md weights_iter, const_dnnl_md bias, const_dnnl_md dst_layer, const_dnnl_md dst_iter,               \
        const_dnnl_md diff_src_layer, const_dnnl_md diff_src_iter, const_dnnl_md diff_weights_layer,                   \
        const_dnnl_md diff_weights_iter, const_dnnl_md diff_bias, const_dnnl_md diff_dst_layer,                        \
        const_dnnl_md diff_dst_iter, unsigned flags, const_dnnl_primitive_desc_t hint,                                 \
        const_dnnl_primitive_attr_t attr)                                                                              \
    {                                                                                                                  \
        V2_CREATE(dnnl_rnn_desc_t, hint, dnnl_##name##_backward_desc_init, kind, direction, src_layer, src_iter,       \
                  weights_layer, weights_iter, bias, dst_layer, dst_iter, diff_src_layer, diff_src_iter,               \
                  diff_weights_layer, diff_weights_iter, diff_bias, diff_dst_layer, diff_dst_iter, flags);             \
    }
V2_GRU(gru)
V2_GRU(lbr_gru)

#endif
