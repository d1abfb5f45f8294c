/* Numpy's files: what numpy wrote reads back as numpy meant it, what we write is read the same, damage is named. */
#include "tests/test.h"

#include <string.h>
#include <unistd.h>

#include "data/data.h"

#define FILE_AT(name) TESTS_FOLDER "/data/" name

static void every_type_and_byte_order_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        DType dtype;
        double values[6];
    } cases[] = {{"type_b1", DTYPE_BOOL, {0, 1, 1, 1, 0, 1}},
                 {"type_u1", DTYPE_U8, {0, 1, 2, 3, 0, 1}},
                 {"type_i1", DTYPE_I8, {-2, 0, 0, 1, 3, 4}},
                 {"type_i2", DTYPE_I16, {-2, 0, 0, 1, 3, 4}},
                 {"type_big_i2", DTYPE_I16, {-2, 0, 0, 1, 3, 4}},
                 {"type_u4", DTYPE_U32, {0, 1, 2, 3, 0, 1}},
                 {"type_i8", DTYPE_I64, {-2, 0, 0, 1, 3, 4}},
                 {"type_big_i8", DTYPE_I64, {-2, 0, 0, 1, 3, 4}},
                 {"type_f2", DTYPE_F16, {-2, -0.75, 0.5, 1.75, 3, 4.25}},
                 {"type_f4", DTYPE_F32, {-2, -0.75, 0.5, 1.75, 3, 4.25}},
                 {"type_big_f4", DTYPE_F32, {-2, -0.75, 0.5, 1.75, 3, 4.25}},
                 {"type_f8", DTYPE_F64, {-2, -0.75, 0.5, 1.75, 3, 4.25}}};
    Error err = {0};
    Npz npz;
    assert_ok(npz_open(&npz, FILE_AT("arrays.npz"), &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Array *array = npz_find(&npz, cases[i].name);
        assert_non_null(array);
        assert_int_equal(array->dtype, cases[i].dtype);
        assert_int_equal(array->rank, 2);
        for (int k = 0; k < 6; k++)
            assert_true(array_f64_at(array, k) == cases[i].values[k]);
    }
    npz_release(&npz);
}

static void fortran_order_becomes_row_major(void **state)
{
    (void)state;
    Error err = {0};
    Npz npz;
    assert_ok(npz_open(&npz, FILE_AT("arrays.npz"), &err), &err);
    const Array *array = npz_find(&npz, "fortran");
    assert_int_equal(array->rank, 3);
    for (int k = 0; k < 24; k++)
        assert_true(((float *)array->data)[k] == (float)k);
    npz_release(&npz);
}

static void strings_scalars_and_empty_arrays_are_read(void **state)
{
    (void)state;
    Error err = {0};
    Npz npz;
    assert_ok(npz_open(&npz, FILE_AT("arrays.npz"), &err), &err);
    const Bytes *text = npz_find(&npz, "text")->data, *bytes = npz_find(&npz, "bytes")->data;
    assert_string_equal(text[1].data, "b\xC3\xA9"
                                      "es");
    assert_int_equal(text[2].length, 0);
    assert_int_equal(bytes[0].length, 2);
    assert_int_equal(npz_find(&npz, "scalar")->rank, 0);
    assert_int_equal(npz_find(&npz, "empty")->count, 0);
    npz_release(&npz);
}

static void all_three_header_versions_are_read(void **state)
{
    (void)state;
    static const char *const files[] = {FILE_AT("version1.npy"), FILE_AT("version2.npy"), FILE_AT("version3.npy")};
    for (int v = 0; v < 3; v++) {
        Error err = {0};
        Npz npz;
        assert_ok(npz_open(&npz, files[v], &err), &err);
        const Array *array = npz_find(&npz, "");
        assert_int_equal(array->dims[1], 3);
        assert_int_equal(((int32_t *)array->data)[5], 5);
        npz_release(&npz);
    }
}

static void what_was_written_is_read_back(void **state)
{
    (void)state;
    Error err = {0};
    Npz first, again;
    char path[] = "/tmp/regraft-npy-XXXXXX";
    close(mkstemp(path));
    assert_ok(npz_open(&first, FILE_AT("arrays.npz"), &err), &err);
    assert_ok(npz_write(path, first.names, (const Array *const *)first.arrays, first.count, &err), &err);
    assert_ok(npz_open(&again, path, &err), &err);
    assert_int_equal(first.count, again.count);
    for (size_t i = 0; i < first.count; i++) {
        const Array *a = first.arrays[i], *b = npz_find(&again, first.names[i]);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->rank, b->rank);
        assert_int_equal(a->count, b->count);
        if (a->dtype != DTYPE_STRING)
            assert_memory_equal(a->data, b->data, (size_t)a->count * dtype_size(a->dtype));
    }
    npz_release(&first);
    npz_release(&again);
    unlink(path);
}

static void types_numpy_lacks_are_widened(void **state)
{
    (void)state;
    Error err = {0};
    char path[] = "/tmp/regraft-npy-XXXXXX";
    close(mkstemp(path));
    uint16_t halves[2] = {f32_to_bf16(1.5f), f32_to_bf16(-2.0f)};
    Array array = {.dtype = DTYPE_BF16, .rank = 1, .dims = {2}, .count = 2, .data = halves};
    assert_ok(npy_write(path, &array, &err), &err);
    Npz npz;
    assert_ok(npz_open(&npz, path, &err), &err);
    assert_int_equal(npz.arrays[0]->dtype, DTYPE_F32);
    assert_true(((float *)npz.arrays[0]->data)[1] == -2.0f);
    npz_release(&npz);
    unlink(path);
}

/* A damaged copy must be refused, or give the arrays that its checksums vouch for; never crash. */
static void no_damage_is_read_as_numbers(void **state)
{
    (void)state;
    Error err = {0};
    Mapping whole;
    char path[] = "/tmp/regraft-npy-XXXXXX";
    close(mkstemp(path));
    assert_ok(mapping_open(&whole, FILE_AT("stored.npz"), &err), &err);
    unsigned char *copy = malloc(whole.size);
    for (size_t length = 0; length < whole.size; length++) {
        FILE *file = fopen(path, "wb");
        fwrite(whole.data, 1, length, file);
        fclose(file);
        Npz npz;
        error_clear(&err);
        assert_int_equal(npz_open(&npz, path, &err), STATUS_REJECTED);
    }
    for (size_t at = 0; at < whole.size; at++) {
        memcpy(copy, whole.data, whole.size);
        copy[at] ^= 0x81;
        FILE *file = fopen(path, "wb");
        fwrite(copy, 1, whole.size, file);
        fclose(file);
        Npz npz;
        error_clear(&err);
        if (npz_open(&npz, path, &err) == STATUS_OK)
            npz_release(&npz);
    }
    free(copy);
    mapping_release(&whole);
    unlink(path);
}

static void pickles_are_refused_by_name(void **state)
{
    (void)state;
    Error err = {0};
    Npz npz;
    assert_int_equal(npz_open(&npz, FILE_AT("objects.npy"), &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "Python objects"));
    error_clear(&err);
    assert_int_equal(npz_open(&npz, FILE_AT("missing.npz"), &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "missing.npz"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_byte_order_is_read),
        cmocka_unit_test(fortran_order_becomes_row_major),
        cmocka_unit_test(strings_scalars_and_empty_arrays_are_read),
        cmocka_unit_test(all_three_header_versions_are_read),
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(types_numpy_lacks_are_widened),
        cmocka_unit_test(no_damage_is_read_as_numbers),
        cmocka_unit_test(pickles_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
