/* Constant tensors, host arrays, conversion between dtypes. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "onnx/onnx.h"

static void counts_refuse_overflow_and_negative_dims(void **state)
{
    (void)state;
    assert_int_equal(dims_count(0, NULL), 1);
    assert_int_equal(dims_count(3, (int64_t[]){2, 3, 4}), 24);
    assert_int_equal(dims_count(2, (int64_t[]){5, -1}), -1);
    assert_int_equal(dims_count(3, (int64_t[]){INT64_MAX, 3, 2}), -1);
    assert_int_equal(dims_count(3, (int64_t[]){INT64_MAX, 3, 0}), 0);
}

static void packed_elements_unpack_and_pack_again(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    const DType types[] = {DTYPE_I4, DTYPE_U4, DTYPE_I2, DTYPE_U2, DTYPE_F4E2M1};
    for (int t = 0; t < 5; t++) {
        void *data;
        Tensor *tensor = tensor_new(&arena, "w", types[t], 1, (int64_t[]){7}, &data);
        assert_int_equal(tensor->bytes, dtype_bits(types[t]) == 4 ? 4 : 2);
        memcpy(data, "\x98\xfa\x31\x07", tensor->bytes);
        if (dtype_bits(types[t]) == 2)
            ((char *)data)[1] &= 0x3f;
        Error err = {STATUS_OK, ""};
        Array *array;
        assert_ok(array_from_tensor(&arena, tensor, &array, &err), &err);
        for (int64_t i = 0; i < 7; i++)
            assert_true(array_f64_at(array, i) == tensor_f64_at(tensor, i));
        assert_true(tensor_equal(tensor, tensor_from_array(&arena, "w", array)));
    }
    arena_release(&arena);
}

static void signed_packed_elements_are_sign_extended(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    void *data;
    Tensor *tensor = tensor_new(&arena, NULL, DTYPE_I4, 1, (int64_t[]){2}, &data);
    *(unsigned char *)data = 0x7f;
    assert_int_equal(tensor_i64_at(tensor, 0), -1);
    assert_int_equal(tensor_i64_at(tensor, 1), 7);
    arena_release(&arena);
}

static void aligned_bytes_are_borrowed_and_others_copied(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    _Alignas(8) char bytes[16] = {0};
    int64_t dims[1] = {2};
    Tensor tensor = {.dtype = DTYPE_F32, .rank = 1, .dims = dims, .data = bytes, .bytes = 8};
    Error err = {STATUS_OK, ""};
    Array *array;
    assert_ok(array_from_tensor(&arena, &tensor, &array, &err), &err);
    assert_ptr_equal(array->data, bytes);
    tensor.data = bytes + 1;
    assert_ok(array_from_tensor(&arena, &tensor, &array, &err), &err);
    assert_int_equal((uintptr_t)array->data % 4, 0);
    arena_release(&arena);
}

/* One value from one dtype to another, read back as double. */
static double convert(Arena *arena, DType from, double value, DType to)
{
    Array one = {.dtype = DTYPE_F64, .count = 1, .data = &value}, *a = NULL, *b = NULL;
    assert_int_equal(array_convert(arena, &one, from, &a, NULL), STATUS_OK);
    assert_int_equal(array_convert(arena, a, to, &b, NULL), STATUS_OK);
    return array_f64_at(b, 0);
}

static void conversion_wraps_integers_and_truncates_floats(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    assert_true(convert(&arena, DTYPE_I16, 200, DTYPE_I8) == -56);
    assert_true(convert(&arena, DTYPE_F32, -1.9, DTYPE_I32) == -1);
    assert_true(convert(&arena, DTYPE_F32, -1, DTYPE_U8) == 255);
    assert_true(convert(&arena, DTYPE_F32, 0.5, DTYPE_BOOL) == 1);
    assert_true(convert(&arena, DTYPE_F64, 0x1p63, DTYPE_U64) == 0x1p63);
    assert_true(convert(&arena, DTYPE_F64, NAN, DTYPE_I64) == -0x1p63);
    assert_true(convert(&arena, DTYPE_I32, 9, DTYPE_I4) == -7);
    assert_true(convert(&arena, DTYPE_I32, -1, DTYPE_U2) == 3);
    assert_true(convert(&arena, DTYPE_BF16, 3, DTYPE_F16) == 3);
    assert_true(convert(&arena, DTYPE_F32, 1e9, DTYPE_F8E4M3FN) == 448);
    arena_release(&arena);
}

static void int64_keeps_all_its_bits_on_the_way_to_uint64(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    int64_t value = INT64_MAX;
    Array one = {.dtype = DTYPE_I64, .count = 1, .data = &value}, *out = NULL;
    assert_int_equal(array_convert(&arena, &one, DTYPE_U64, &out, NULL), STATUS_OK);
    assert_true(*(uint64_t *)out->data == (uint64_t)INT64_MAX);
    arena_release(&arena);
}

static void strings_do_not_convert(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    Error err = {STATUS_OK, ""};
    Bytes text = {"1", 1};
    Array one = {.dtype = DTYPE_STRING, .count = 1, .data = &text}, *out = NULL;
    assert_int_equal(array_convert(&arena, &one, DTYPE_F32, &out, &err), STATUS_UNSUPPORTED);
    assert_string_equal(err.message, "string does not convert to float32");
    arena_release(&arena);
}

static void arrays_beyond_rank_or_memory_are_refused(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    int64_t dims[RANK_MAX + 1] = {0};
    Array *array;
    Error err = {STATUS_OK, ""};
    assert_int_equal(array_new(&arena, DTYPE_F32, RANK_MAX + 1, dims, &array, &err), STATUS_UNSUPPORTED);
    error_clear(&err);
    dims[0] = dims[1] = (int64_t)1 << 40;
    assert_int_equal(array_new(&arena, DTYPE_F32, 2, dims, &array, &err), STATUS_ENVIRONMENT);
    arena_release(&arena);
}

static void tensors_are_equal_when_type_shape_and_bytes_are(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    int64_t values[4] = {1, 2, 3, 4};
    Tensor *a = tensor_new_i64(&arena, "a", 1, (int64_t[]){4}, values);
    Tensor *b = tensor_new_i64(&arena, "b", 1, (int64_t[]){4}, values);
    Tensor *c = tensor_new_i64(&arena, "c", 2, (int64_t[]){2, 2}, values);
    assert_true(tensor_equal(a, b));
    assert_false(tensor_equal(a, c));
    assert_string_equal(dims_text(&arena, c->rank, c->dims), "[2,2]");
    assert_true(tensor_f64_at(tensor_new_scalar(&arena, NULL, DTYPE_BF16, 1.5), 0) == 1.5);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_refuse_overflow_and_negative_dims),
        cmocka_unit_test(packed_elements_unpack_and_pack_again),
        cmocka_unit_test(signed_packed_elements_are_sign_extended),
        cmocka_unit_test(aligned_bytes_are_borrowed_and_others_copied),
        cmocka_unit_test(conversion_wraps_integers_and_truncates_floats),
        cmocka_unit_test(int64_keeps_all_its_bits_on_the_way_to_uint64),
        cmocka_unit_test(strings_do_not_convert),
        cmocka_unit_test(arrays_beyond_rank_or_memory_are_refused),
        cmocka_unit_test(tensors_are_equal_when_type_shape_and_bytes_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
