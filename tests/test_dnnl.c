/* runtime/dnnl.c and dnnl_v2.h: what is asked of the library, descriptors, calls bound to slots, and that every
 * operation this project names can be described on the library at hand, whichever major version it is. */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "runtime/kernel.h"

static DnnlEngine engine;

static int open_engine(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(dnnl_engine_open(&engine, DTYPE_F32, &err), &err);
    return 0;
}

static int close_engine(void **state)
{
    (void)state;
    dnnl_engine_close(&engine);
    return 0;
}

static dnnl_md md_of(dnnl_format_tag_t tag, int rank, const int64_t *dims)
{
    dnnl_md md = NULL;
    Error err = {0};
    assert_ok(dnnl_md_tag(&md, DTYPE_F32, rank, dims, tag, &err), &err);
    return md;
}

#define MD(tag, ...)                                                                                                   \
    md_of(tag, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

/* ---- engine and descriptors ------------------------------------------------------------------------------------- */

static void the_library_names_a_channel_layout(void **state)
{
    (void)state;
    assert_true(engine.block == 16 || engine.block == 8 || engine.block == 0);
    assert_non_null(engine.isa);
}

static void plain_descriptors_are_dense_and_rank_0_is_one_element(void **state)
{
    (void)state;
    const int64_t dims[] = {2, 3, 5};
    const dnnl_dims_t *strides = NULL;
    dnnl_md md = NULL, scalar = NULL;
    int rank = 0;
    Error err = {0};
    assert_ok(dnnl_md_plain(&md, DTYPE_F32, 3, dims, &err), &err);
    assert_int_equal(dnnl_md_bytes(md), 30 * sizeof(float));
    assert_int_equal(dnnl_memory_desc_query(md, dnnl_query_strides, (void *)&strides), dnnl_success);
    assert_int_equal((*strides)[0], 15);
    assert_int_equal((*strides)[1], 5);
    assert_int_equal((*strides)[2], 1);
    assert_ok(dnnl_md_plain(&scalar, DTYPE_F32, 0, NULL, &err), &err);
    assert_int_equal(dnnl_memory_desc_query(scalar, dnnl_query_ndims_s32, &rank), dnnl_success);
    assert_int_equal(rank, 1);
    assert_int_equal(dnnl_md_bytes(scalar), sizeof(float));
    dnnl_memory_desc_destroy(md);
    dnnl_memory_desc_destroy(scalar);
}

static void blocked_descriptors_count_their_padding_and_say_their_blocks(void **state)
{
    (void)state;
    const dnnl_dims_t *blocks = NULL, *axes = NULL, *padded = NULL;
    int count = 0;
    dnnl_md md = MD(dnnl_nChw16c, 1, 17, 2, 3), same = MD(dnnl_nChw16c, 1, 17, 2, 3),
            other = MD(dnnl_nhwc, 1, 17, 2, 3);
    assert_int_equal(dnnl_md_bytes(md), 32 * 6 * sizeof(float));
    assert_int_equal(dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &count), dnnl_success);
    assert_int_equal(dnnl_memory_desc_query(md, dnnl_query_inner_blks, (void *)&blocks), dnnl_success);
    assert_int_equal(dnnl_memory_desc_query(md, dnnl_query_inner_idxs, (void *)&axes), dnnl_success);
    assert_int_equal(dnnl_memory_desc_query(md, dnnl_query_padded_dims, (void *)&padded), dnnl_success);
    assert_int_equal(count, 1);
    assert_int_equal((*blocks)[0], 16);
    assert_int_equal((*axes)[0], 1);
    assert_int_equal((*padded)[1], 32);
    assert_true(dnnl_md_same(md, same));
    assert_false(dnnl_md_same(md, other));
    assert_false(dnnl_md_same(md, NULL));
    dnnl_memory_desc_destroy(md);
    dnnl_memory_desc_destroy(same);
    dnnl_memory_desc_destroy(other);
}

static void what_the_library_does_not_have_is_refused_by_name(void **state)
{
    (void)state;
    const int64_t dims[RANK_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    dnnl_md md = NULL;
    Error err = {0};
    assert_int_equal(dnnl_md_plain(&md, DTYPE_I64, 1, dims, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "int64"));
    error_clear(&err);
    assert_int_equal(dnnl_md_plain(&md, DTYPE_F32, RANK_MAX, dims, &err), STATUS_UNSUPPORTED);
    error_clear(&err);
    assert_int_equal(dnnl_fail(&err, dnnl_unimplemented, "a thing"), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "a thing"));
    assert_int_equal(dnnl_fail(NULL, dnnl_success, ""), STATUS_OK);
}

static void descriptors_are_cloned_permuted_reshaped_and_cut(void **state)
{
    (void)state;
    const dnnl_dims_t folded = {2, 60}, part = {2, 2, 4, 5}, from = {0, 1, 0, 0};
    const int turn[] = {0, 2, 3, 1};
    const dnnl_dims_t *dims = NULL;
    dnnl_md md = MD(dnnl_nchw, 2, 3, 4, 5), made[4] = {NULL};
    assert_int_equal(dnnl_memory_desc_clone(&made[0], md), dnnl_success);
    assert_true(dnnl_md_same(made[0], md));
    assert_int_equal(dnnl_memory_desc_permute_axes(&made[1], md, turn), dnnl_success);
    assert_int_equal(dnnl_memory_desc_query(made[1], dnnl_query_dims, (void *)&dims), dnnl_success);
    assert_int_equal((*dims)[2], 3);
    assert_int_equal(dnnl_memory_desc_reshape(&made[2], md, 2, folded), dnnl_success);
    assert_int_equal(dnnl_memory_desc_create_submemory(&made[3], md, part, from), dnnl_success);
    for (int i = 0; i < 4; i++)
        dnnl_memory_desc_destroy(made[i]);
    dnnl_memory_desc_destroy(md);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* The forward descriptor lives on as a hint until the next forward one comes. */
static dnnl_primitive_desc_t described, hint;

static void check(const char *name, dnnl_status_t status, bool forward)
{
    if (status != dnnl_success)
        fail_msg("%s: status %d", name, (int)status);
    dnnl_primitive_t primitive = NULL;
    assert_int_equal(dnnl_primitive_create(&primitive, described), dnnl_success);
    dnnl_primitive_destroy(primitive);
    assert_true(strlen(dnnl_implementation(described)) > 0);
    if (forward && hint != NULL)
        dnnl_primitive_desc_destroy(hint);
    if (forward)
        hint = described;
    else
        dnnl_primitive_desc_destroy(described);
    described = NULL;
}

#define FORWARD(name, ...)                                                                                             \
    check(#name " forward", dnnl_##name##_forward_primitive_desc_create(&described, __VA_ARGS__), true)
#define BACKWARD(name, ...)                                                                                            \
    check(#name " backward", dnnl_##name##_backward_primitive_desc_create(&described, __VA_ARGS__), false)
#define BACKWARD_DATA(name, ...)                                                                                       \
    check(#name " backward data", dnnl_##name##_backward_data_primitive_desc_create(&described, __VA_ARGS__), false)
#define BACKWARD_WEIGHTS(name, ...)                                                                                    \
    check(#name " backward weights", dnnl_##name##_backward_weights_primitive_desc_create(&described, __VA_ARGS__),    \
          false)
#define SINGLE(name, ...) check(#name, dnnl_##name##_primitive_desc_create(&described, __VA_ARGS__), false)

static int drop_hint(void **state)
{
    (void)state;
    if (hint != NULL)
        dnnl_primitive_desc_destroy(hint);
    hint = NULL;
    return 0;
}

static void release(dnnl_md *mds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dnnl_memory_desc_destroy(mds[i]);
}

#define RELEASE(...) release((dnnl_md[]){__VA_ARGS__}, sizeof((dnnl_md[]){__VA_ARGS__}) / sizeof(dnnl_md))

static void convolutions_and_poolings_can_be_described(void **state)
{
    (void)state;
    dnnl_engine_t e = engine.engine;
    dnnl_primitive_attr_t a = engine.user_scratchpad;
    const dnnl_dims_t one = {1, 1}, none = {0, 0}, two = {2, 2};
    dnnl_md x = MD(dnnl_nhwc, 2, 32, 8, 8), half = MD(dnnl_nhwc, 2, 32, 4, 4), bias = MD(dnnl_a, 32);
    dnnl_md w = MD(dnnl_format_tag_any, 32, 32, 3, 3);
    FORWARD(convolution, e, dnnl_forward_training, dnnl_convolution_direct, x, w, bias, x, one, none, one, one, a);
    BACKWARD_DATA(convolution, e, dnnl_convolution_direct, x, w, x, one, none, one, one, hint, a);
    BACKWARD_WEIGHTS(convolution, e, dnnl_convolution_direct, x, w, bias, x, one, none, one, one, hint, a);
    FORWARD(deconvolution, e, dnnl_forward_training, dnnl_deconvolution_direct, x, w, bias, x, one, none, one, one, a);
    BACKWARD_DATA(deconvolution, e, dnnl_deconvolution_direct, x, w, x, one, none, one, one, hint, a);
    BACKWARD_WEIGHTS(deconvolution, e, dnnl_deconvolution_direct, x, w, bias, x, one, none, one, one, hint, a);
    FORWARD(pooling, e, dnnl_forward_training, dnnl_pooling_max, x, half, two, two, none, none, none, a);
    assert_true(dnnl_md_bytes(dnnl_query_md(hint, dnnl_query_workspace_md, 0)) > 0);
    BACKWARD(pooling, e, dnnl_pooling_max, x, half, two, two, none, none, none, hint, a);
    RELEASE(x, half, bias, w);
}

static void normalisations_can_be_described(void **state)
{
    (void)state;
    dnnl_engine_t e = engine.engine;
    dnnl_primitive_attr_t a = engine.user_scratchpad;
    unsigned flags = (unsigned)dnnl_use_scale | (unsigned)dnnl_use_shift;
    dnnl_md x = MD(dnnl_nhwc, 2, 32, 8, 8), l = MD(dnnl_tnc, 4, 8, 64), s = MD(dnnl_ab, 4, 8);
    FORWARD(batch_normalization, e, dnnl_forward_training, x, x, 1e-5f, flags | (unsigned)dnnl_fuse_norm_relu, a);
    BACKWARD(batch_normalization, e, dnnl_backward, x, x, x, 1e-5f, flags | (unsigned)dnnl_fuse_norm_relu, hint, a);
    FORWARD(layer_normalization, e, dnnl_forward_training, l, l, s, 1e-5f, flags, a);
    BACKWARD(layer_normalization, e, dnnl_backward, l, l, l, s, 1e-5f, flags, hint, a);
    FORWARD(lrn, e, dnnl_forward_training, dnnl_lrn_across_channels, x, x, 5, 1e-4f, 0.75f, 1.0f, a);
    BACKWARD(lrn, e, dnnl_lrn_across_channels, x, x, x, 5, 1e-4f, 0.75f, 1.0f, hint, a);
    RELEASE(x, l, s);
}

static void elementwise_operations_can_be_described(void **state)
{
    (void)state;
    dnnl_engine_t e = engine.engine;
    dnnl_primitive_attr_t a = engine.user_scratchpad;
    dnnl_md x = MD(dnnl_nhwc, 2, 32, 8, 8), c = MD(dnnl_abcd, 1, 32, 1, 1), l = MD(dnnl_tnc, 4, 8, 64);
    dnnl_md slope = MD(dnnl_format_tag_any, 1, 32, 1, 1);
    FORWARD(eltwise, e, dnnl_forward_training, dnnl_eltwise_gelu_erf, x, x, 0.0f, 0.0f, a);
    BACKWARD(eltwise, e, dnnl_eltwise_gelu_erf, x, x, x, 0.0f, 0.0f, hint, a);
    FORWARD(prelu, e, dnnl_forward_training, x, slope, x, a);
    BACKWARD(prelu, e, x, slope, x, slope, x, hint, a);
    FORWARD(softmax, e, dnnl_forward_training, dnnl_softmax_log, l, l, 2, a);
    BACKWARD(softmax, e, dnnl_softmax_log, l, l, l, 2, hint, a);
    SINGLE(binary, e, dnnl_binary_mul, x, c, x, a);
    RELEASE(x, c, l, slope);
}

static void matrix_operations_can_be_described(void **state)
{
    (void)state;
    dnnl_engine_t e = engine.engine;
    dnnl_primitive_attr_t a = engine.user_scratchpad;
    const float scales[] = {1, 1};
    dnnl_md m = MD(dnnl_ab, 32, 64), w = MD(dnnl_ba, 64, 16), row = MD(dnnl_ab, 1, 16), y = MD(dnnl_ab, 32, 16);
    dnnl_md v = MD(dnnl_ab, 16, 64), bias = MD(dnnl_a, 16), sum = MD(dnnl_ab, 32, 1), turned = MD(dnnl_ba, 32, 64);
    const const_dnnl_md pair[] = {m, m};
    SINGLE(matmul, e, m, w, row, y, a);
    FORWARD(inner_product, e, dnnl_forward_training, m, v, bias, y, a);
    BACKWARD_DATA(inner_product, e, m, v, y, hint, a);
    BACKWARD_WEIGHTS(inner_product, e, m, v, bias, y, hint, a);
    SINGLE(reduction, e, dnnl_reduction_sum, m, sum, 0.0f, 0.0f, a);
    SINGLE(concat, e, NULL, 2, 1, pair, a);
    SINGLE(sum, e, m, 2, scales, pair, a);
    SINGLE(reorder, m, e, turned, e, a);
    RELEASE(m, w, row, y, v, bias, sum, turned);
}

static void recurrent_nets_can_be_described(void **state)
{
    (void)state;
    dnnl_engine_t e = engine.engine;
    dnnl_primitive_attr_t a = engine.user_scratchpad;
    dnnl_rnn_direction_t d = dnnl_unidirectional_left2right;
    const dnnl_format_tag_t any = dnnl_format_tag_any;
    dnnl_md s = MD(any, 5, 3, 32), i = MD(any, 1, 1, 3, 32);
    for (int64_t gates = 1; gates <= 4; gates++) {
        dnnl_md w = MD(any, 1, 1, 32, gates, 32), b = MD(any, 1, 1, gates, 32), b4 = MD(any, 1, 1, 4, 32);
        if (gates == 1) {
            FORWARD(vanilla_rnn, e, dnnl_forward_training, dnnl_eltwise_tanh, d, s, i, w, w, b, s, i, 0, 0.0f, 0.0f, a);
            BACKWARD(vanilla_rnn, e, dnnl_backward, dnnl_eltwise_tanh, d, s, i, w, w, b, s, i, s, i, w, w, b, s, i, 0,
                     0.0f, 0.0f, hint, a);
        } else if (gates == 3) {
            FORWARD(gru, e, dnnl_forward_training, d, s, i, w, w, b, s, i, 0, a);
            BACKWARD(gru, e, dnnl_backward, d, s, i, w, w, b, s, i, s, i, w, w, b, s, i, 0, hint, a);
            FORWARD(lbr_gru, e, dnnl_forward_training, d, s, i, w, w, b4, s, i, 0, a);
            BACKWARD(lbr_gru, e, dnnl_backward, d, s, i, w, w, b4, s, i, s, i, w, w, b4, s, i, 0, hint, a);
        } else if (gates == 4) {
            FORWARD(lstm, e, dnnl_forward_training, d, s, i, i, w, w, NULL, NULL, b, s, i, i, 0, a);
            BACKWARD(lstm, e, dnnl_backward, d, s, i, i, w, w, NULL, NULL, b, s, i, i, s, i, i, w, w, NULL, NULL, b, s,
                     i, i, 0, hint, a);
        }
        RELEASE(w, b, b4);
    }
    RELEASE(s, i);
}

static void post_ops_are_appended_alike(void **state)
{
    (void)state;
    dnnl_post_ops_t ops = NULL;
    assert_int_equal(dnnl_post_ops_create(&ops), dnnl_success);
    assert_int_equal(dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, 0.0f, 6.0f), dnnl_success);
    assert_int_equal(dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef), dnnl_success);
    assert_int_equal(dnnl_post_ops_len(ops), 2);
    dnnl_post_ops_destroy(ops);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static void a_call_reads_and_writes_where_its_slots_lie(void **state)
{
    (void)state;
    Error err = {0};
    Arena arena;
    float a[6] = {-1, 2, -3, 4, -5, 6}, b[6] = {1, -1, 1, -1, 1, -1}, y[6] = {0};
    Slot x_slot = {.dtype = DTYPE_F32, .rank = 2, .dims = {2, 3}, .data = a};
    Slot y_slot = {.dtype = DTYPE_F32, .rank = 2, .dims = {2, 3}, .data = y};
    dnnl_primitive_desc_t descriptor = NULL;
    DnnlCall *call = NULL;
    arena_init(&arena);
    const DnnlArg args[] = {{DNNL_ARG_SRC, &x_slot}, {DNNL_ARG_DST, &y_slot}};
    assert_int_equal(dnnl_eltwise_forward_primitive_desc_create(&descriptor, engine.engine, dnnl_forward_inference,
                                                                dnnl_eltwise_relu, slot_md(&x_slot), slot_md(&y_slot),
                                                                0.0f, 0.0f, engine.user_scratchpad),
                     dnnl_success);
    assert_ok(dnnl_call_new(&engine, &arena, descriptor, args, 2, &call, &err), &err);
    dnnl_call_bind(call, NULL);
    assert_ok(dnnl_call_run(&engine, call, &err), &err);
    for (int i = 0; i < 6; i++)
        assert_true(y[i] == (a[i] > 0 ? a[i] : 0));
    x_slot.data = b; /* inputs move: bound anew */
    dnnl_call_bind(call, NULL);
    assert_ok(dnnl_call_run(&engine, call, &err), &err);
    assert_true(y[0] == 1.0f && y[1] == 0.0f);
    dnnl_call_free(call);
    dnnl_memory_desc_destroy(x_slot.md);
    dnnl_memory_desc_destroy(y_slot.md);
    arena_release(&arena);
}

static void a_convolution_call_takes_its_scratchpad_from_outside(void **state)
{
    (void)state;
    Error err = {0};
    Arena arena;
    static float x[2 * 3 * 3], w[2 * 2 * 3 * 3], y[2 * 3 * 3], scratch[1 << 16];
    Slot slots[3] = {{.dtype = DTYPE_F32, .rank = 4, .dims = {1, 2, 3, 3}, .data = x},
                     {.dtype = DTYPE_F32, .rank = 4, .dims = {2, 2, 3, 3}, .data = w},
                     {.dtype = DTYPE_F32, .rank = 4, .dims = {1, 2, 3, 3}, .data = y}};
    const dnnl_dims_t one = {1, 1}, none = {0, 0};
    dnnl_primitive_desc_t descriptor = NULL;
    DnnlCall *call = NULL;
    arena_init(&arena);
    x[4] = 2; /* the middle of channel 0 */
    for (int i = 0; i < 9; i++)
        w[i] = (float)i; /* from channel 0 to channel 0 */
    assert_int_equal(dnnl_convolution_forward_primitive_desc_create(&descriptor, engine.engine, dnnl_forward_inference,
                                                                    dnnl_convolution_direct, slot_md(&slots[0]),
                                                                    slot_md(&slots[1]), NULL, slot_md(&slots[2]), one,
                                                                    none, one, one, engine.user_scratchpad),
                     dnnl_success);
    const DnnlArg args[] = {{DNNL_ARG_SRC, &slots[0]}, {DNNL_ARG_WEIGHTS, &slots[1]}, {DNNL_ARG_DST, &slots[2]}};
    assert_ok(dnnl_call_new(&engine, &arena, descriptor, args, 3, &call, &err), &err);
    assert_true(call->scratchpad <= sizeof scratch);
    dnnl_call_bind(call, scratch);
    assert_ok(dnnl_call_run(&engine, call, &err), &err);
    for (int i = 0; i < 9; i++) /* the kernel, turned round, times 2 */
        assert_true(y[i] == (float)(2 * (8 - i)));
    dnnl_call_free(call);
    for (int i = 0; i < 3; i++)
        dnnl_memory_desc_destroy(slots[i].md);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_names_a_channel_layout),
        cmocka_unit_test(plain_descriptors_are_dense_and_rank_0_is_one_element),
        cmocka_unit_test(blocked_descriptors_count_their_padding_and_say_their_blocks),
        cmocka_unit_test(what_the_library_does_not_have_is_refused_by_name),
        cmocka_unit_test(descriptors_are_cloned_permuted_reshaped_and_cut),
        cmocka_unit_test_teardown(convolutions_and_poolings_can_be_described, drop_hint),
        cmocka_unit_test_teardown(normalisations_can_be_described, drop_hint),
        cmocka_unit_test_teardown(elementwise_operations_can_be_described, drop_hint),
        cmocka_unit_test_teardown(matrix_operations_can_be_described, drop_hint),
        cmocka_unit_test_teardown(recurrent_nets_can_be_described, drop_hint),
        cmocka_unit_test(post_ops_are_appended_alike),
        cmocka_unit_test(a_call_reads_and_writes_where_its_slots_lie),
        cmocka_unit_test(a_convolution_call_takes_its_scratchpad_from_outside),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
