/* Picture files: every flavour gives the pixels that Pillow gives (tests/make_data_fixtures.py), damage is named. */
#include "tests/test.h"

#include <string.h>

#include "data/data.h"

static Status decode_file(const char *name, const char *ending, int least, Picture *picture, Error *err)
{
    char path[512];
    Mapping file;
    snprintf(path, sizeof path, "%s/data/%s%s", TESTS_FOLDER, name, ending);
    TRY(mapping_open(&file, path, err));
    Status status = picture_decode(picture, file.data, file.size, least, path, err);
    mapping_release(&file);
    return status;
}

/* Largest difference allowed: CMYK is converted with another rounding. */
static void compare_with_pillow(const char *ending, bool png, int allowed_cmyk)
{
    Error err = {0};
    Npz npz;
    Picture picture = {0};
    size_t seen = 0;
    assert_ok(npz_open(&npz, TESTS_FOLDER "/data/pictures.npz", &err), &err);
    for (size_t i = 0; i < npz.count; i++) {
        const Array *expected = npz.arrays[i];
        if (text_starts(npz.names[i], "png_") != png)
            continue;
        assert_ok(decode_file(npz.names[i], ending, 0, &picture, &err), &err);
        assert_int_equal(picture.height, expected->dims[0]);
        assert_int_equal(picture.width, expected->dims[1]);
        assert_int_equal(picture.channels, expected->rank == 3 ? 3 : 1);
        int allowed = strcmp(npz.names[i], "cmyk") == 0 ? allowed_cmyk : 0;
        for (int64_t k = 0; k < expected->count; k++)
            if (abs(picture.pixels[k] - ((unsigned char *)expected->data)[k]) > allowed)
                fail_msg("%s: byte %lld is %d, Pillow has %d", npz.names[i], (long long)k, picture.pixels[k],
                         ((unsigned char *)expected->data)[k]);
        seen++;
    }
    assert_true(seen >= 7);
    picture_release(&picture);
    npz_release(&npz);
}

static void jpegs_have_pillows_pixels_upright(void **state)
{
    (void)state;
    compare_with_pillow(".jpg", false, 1);
}

static void pngs_of_every_kind_have_their_pixels(void **state)
{
    (void)state;
    compare_with_pillow(".png", true, 0);
}

static void truncated_files_are_named(void **state)
{
    (void)state;
    static const char *const endings[] = {".jpg", ".png"};
    for (int i = 0; i < 2; i++) {
        Error err = {0};
        Picture picture = {0};
        assert_int_equal(decode_file("cut", endings[i], 0, &picture, &err), STATUS_REJECTED);
        assert_non_null(strstr(err.message, "cut"));
        picture_release(&picture);
    }
}

static void what_is_no_picture_is_refused(void **state)
{
    (void)state;
    Error err = {0};
    Picture picture = {0};
    assert_int_equal(picture_decode(&picture, (const unsigned char *)"GIF89a", 6, 0, "a.gif", &err), STATUS_REJECTED);
    assert_string_equal(err.message, "a.gif: is neither JPEG nor PNG");
    error_clear(&err);
    assert_int_equal(picture_decode(&picture, NULL, 0, 0, "b.jpg", &err), STATUS_REJECTED);
    assert_string_equal(err.message, "b.jpg: is empty");
    static const unsigned char begun[] = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F',
                                          0,    1,    1,    0,    0, 1,  0,   1,   0,   0};
    error_clear(&err);
    assert_int_equal(picture_decode(&picture, begun, sizeof begun, 0, "c.jpg", &err), STATUS_REJECTED);
    assert_string_equal(err.message, "c.jpg: not a readable JPEG: it ends before its size");
}

static void scaled_decode_stays_above_the_size_asked(void **state)
{
    (void)state;
    Error err = {0};
    Picture picture = {0};
    assert_ok(decode_file("rgb", ".jpg", 6, &picture, &err), &err); /* 40 x 24 at 1/4 */
    assert_int_equal(picture.width, 10);
    assert_int_equal(picture.height, 6);
    picture_release(&picture);
}

static void grey_and_colour_convert_as_pillow_does(void **state)
{
    (void)state;
    Error err = {0};
    Picture picture = {0};
    assert_ok(picture_resize_buffer(&picture, 1, 1, 3, &err), &err);
    memcpy(picture.pixels, (unsigned char[]){200, 100, 50}, 3);
    assert_ok(picture_to_channels(&picture, 1, &err), &err);
    assert_int_equal(picture.pixels[0], 124);
    assert_ok(picture_to_channels(&picture, 3, &err), &err);
    assert_int_equal(picture.pixels[2], 124);
    picture_release(&picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jpegs_have_pillows_pixels_upright),
        cmocka_unit_test(pngs_of_every_kind_have_their_pixels),
        cmocka_unit_test(truncated_files_are_named),
        cmocka_unit_test(what_is_no_picture_is_refused),
        cmocka_unit_test(scaled_decode_stays_above_the_size_asked),
        cmocka_unit_test(grey_and_colour_convert_as_pillow_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
