/* Narrow floats against vectors of numpy and ml_dtypes, and the tables of ONNX's Cast. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "onnx/onnx.h"
#include "tests/dtype_vectors.h"

enum { VECTORS = sizeof dtype_vectors / sizeof dtype_vectors[0], CODES = sizeof f8_codes / sizeof f8_codes[0] };

static const DType f8_types[] = {DTYPE_F8E4M3FN, DTYPE_F8E4M3FNUZ, DTYPE_F8E5M2, DTYPE_F8E5M2FNUZ, DTYPE_F4E2M1};

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return isnan(f) ? 0x7fc00000u : bits;
}

static void sixteen_bit_floats_round_as_numpy_does(void **state)
{
    (void)state;
    for (int i = 0; i < VECTORS; i++) {
        float f = from_bits(dtype_vectors[i].f32);
        assert_int_equal(f32_to_f16(f), dtype_vectors[i].f16);
        assert_int_equal(f32_to_bf16(f), dtype_vectors[i].bf16);
    }
}

static void every_f16_and_bf16_survives_f32(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        if (!isnan(f16_to_f32((uint16_t)h)))
            assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)h)), h);
        if (!isnan(bf16_to_f32((uint16_t)h)))
            assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
    }
}

static void f8_and_f4_round_as_ml_dtypes_does(void **state)
{
    (void)state;
    for (int i = 0; i < VECTORS; i++) {
        for (int t = 0; t < 5; t++) {
            uint8_t mine = f32_to_f8(from_bits(dtype_vectors[i].f32), f8_types[t], false);
            uint8_t theirs = dtype_vectors[i].f8[t];
            if (mine != theirs) /* NaN has several codes */
                assert_true(isnan(f8_to_f32(mine, f8_types[t])) && isnan(f8_to_f32(theirs, f8_types[t])));
        }
    }
}

static void f8_codes_decode_as_ml_dtypes_does(void **state)
{
    (void)state;
    const DType types[] = {DTYPE_F8E4M3FN, DTYPE_F8E4M3FNUZ, DTYPE_F8E5M2, DTYPE_F8E5M2FNUZ, DTYPE_F8E8M0};
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < CODES; i++)
            assert_int_equal(to_bits(f8_to_f32(f8_codes[i], types[t])), f8_decoded[t][i]);
}

static void saturation_follows_the_table_of_cast(void **state)
{
    (void)state;
    const float max[] = {448, 240, 57344, 57344, 6};
    for (int t = 0; t < 5; t++) {
        assert_true(f8_to_f32(f32_to_f8(INFINITY, f8_types[t], true), f8_types[t]) == max[t]);
        assert_true(f8_to_f32(f32_to_f8(-1e9f, f8_types[t], true), f8_types[t]) == -max[t]);
    }
    assert_int_equal(f32_to_f8(0, DTYPE_F8E8M0, true), 0);
    assert_int_equal(f32_to_f8(INFINITY, DTYPE_F8E8M0, true), 0xfe);
    assert_int_equal(f32_to_f8(1.1f, DTYPE_F8E8M0, true), 128);
    assert_int_equal(f32_to_f8(1.1f, DTYPE_F8E8M0, false), 127);
    assert_int_equal(f32_to_f8(1.5f, DTYPE_F8E8M0, false), 128);
    assert_int_equal(f32_to_f8(NAN, DTYPE_F8E8M0, true), 0xff);
}

static void names_lead_back_to_their_types(void **state)
{
    (void)state;
    for (int i = 1; i < DTYPE_COUNT; i++)
        assert_int_equal(dtype_from_name(dtype_name((DType)i)), i);
    assert_int_equal(dtype_from_name("float"), DTYPE_F32);
    assert_int_equal(dtype_from_name("double"), DTYPE_F64);
    assert_int_equal(dtype_from_name("f16"), DTYPE_F16);
    assert_int_equal(dtype_from_name("decimal"), DTYPE_UNDEFINED);
    assert_string_equal(dtype_name((DType)99), "undefined");
}

static void sizes_count_packed_types_as_whole_bytes(void **state)
{
    (void)state;
    assert_int_equal(dtype_size(DTYPE_I4), 1);
    assert_int_equal(dtype_bits(DTYPE_U2), 2);
    assert_int_equal(dtype_size(DTYPE_C128), 16);
    assert_int_equal(dtype_size(DTYPE_STRING), sizeof(Bytes));
    assert_int_equal(dtype_size(DTYPE_UNDEFINED), 0);
    assert_true(dtype_is_float(DTYPE_F8E5M2) && !dtype_is_float(DTYPE_C64) && !dtype_is_float(DTYPE_I8));
    assert_true(dtype_is_integer(DTYPE_U4) && !dtype_is_integer(DTYPE_BOOL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bit_floats_round_as_numpy_does),  cmocka_unit_test(every_f16_and_bf16_survives_f32),
        cmocka_unit_test(f8_and_f4_round_as_ml_dtypes_does),       cmocka_unit_test(f8_codes_decode_as_ml_dtypes_does),
        cmocka_unit_test(saturation_follows_the_table_of_cast),    cmocka_unit_test(names_lead_back_to_their_types),
        cmocka_unit_test(sizes_count_packed_types_as_whole_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
