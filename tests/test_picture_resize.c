/* Resampling is Pillow's bit for bit: resize.npz holds Pillow's results, and each name says how it was made. */
#include "tests/test.h"

#include <string.h>

#include "data/data.h"

typedef struct Case {
    char kind[8], filter[16];
    int width, height;
    Box box;
} Case;

static Picture source_of(const Npz *npz, const char *kind)
{
    const Array *array = npz_find(npz, strcmp(kind, "rgb") == 0 ? "source_rgb" : "source_grey");
    return (Picture){.width = (int)array->dims[1],
                     .height = (int)array->dims[0],
                     .channels = array->rank == 3 ? 3 : 1,
                     .pixels = array->data};
}

static bool case_of(const char *name, Case *c)
{
    return sscanf(name, "%7s %15s %d %d %lf %lf %lf %lf", c->kind, c->filter, &c->width, &c->height, &c->box.left,
                  &c->box.top, &c->box.right, &c->box.bottom) == 8;
}

/* A window of the result must be the same as that part of the whole. */
static void check_window(const Picture *source, const Case *c, ResizeFilter filter, const Picture *whole)
{
    Error err = {0};
    Picture part = {0};
    Window window = {c->width / 3, c->height / 4, (c->width + 1) / 2, (c->height + 1) / 2};
    assert_ok(picture_resize(source, c->box, filter, c->width, c->height, window, &part, &err), &err);
    for (int y = 0; y < window.height; y++) {
        size_t row = (size_t)window.width * (size_t)part.channels;
        size_t at = ((size_t)(window.top + y) * (size_t)whole->width + (size_t)window.left) * (size_t)part.channels;
        assert_memory_equal(part.pixels + (size_t)y * row, whole->pixels + at, row);
    }
    picture_release(&part);
}

static void resizing_equals_pillow_bit_for_bit(void **state)
{
    (void)state;
    Error err = {0};
    Npz npz;
    size_t seen = 0;
    assert_ok(npz_open(&npz, TESTS_FOLDER "/data/resize.npz", &err), &err);
    for (size_t i = 0; i < npz.count; i++) {
        Case c;
        if (!case_of(npz.names[i], &c))
            continue;
        Picture source = source_of(&npz, c.kind), result = {0};
        ResizeFilter filter = strcmp(c.filter, "bicubic") == 0 ? RESIZE_BICUBIC : RESIZE_BILINEAR;
        Window all = {0, 0, c.width, c.height};
        assert_ok(picture_resize(&source, c.box, filter, c.width, c.height, all, &result, &err), &err);
        assert_int_equal(npz.arrays[i]->count, (int64_t)c.width * c.height * result.channels);
        if (memcmp(result.pixels, npz.arrays[i]->data, (size_t)npz.arrays[i]->count) != 0)
            fail_msg("'%s' differs from Pillow", npz.names[i]);
        check_window(&source, &c, filter, &result);
        picture_release(&result);
        seen++;
    }
    assert_true(seen >= 40);
    npz_release(&npz);
}

static void nearest_takes_the_pixel_under_the_centre(void **state)
{
    (void)state;
    Error err = {0};
    unsigned char pixels[4] = {1, 2, 3, 4};
    Picture source = {.width = 4, .height = 1, .channels = 1, .pixels = pixels}, result = {0};
    Window all = {0, 0, 2, 1};
    assert_ok(picture_resize(&source, (Box){0, 0, 4, 1}, RESIZE_NEAREST, 2, 1, all, &result, &err), &err);
    assert_int_equal(result.pixels[0], 2);
    assert_int_equal(result.pixels[1], 4);
    picture_release(&result);
}

/* The memory of the result is used again, also for numbers on the way: what an earlier picture left there must not get
 * into a sum (sanitizers see an overflow in a lane that nobody reads). */
static void what_lies_in_used_memory_does_not_count(void **state)
{
    (void)state;
    Error err = {0};
    Picture source = {0}, fresh = {0}, used = {0};
    Window all = {0, 0, 9, 9};
    Box box = {0, 0, 23, 17};
    assert_ok(picture_resize_buffer(&source, 23, 17, 3, &err), &err);
    for (int i = 0; i < 23 * 17 * 3; i++)
        source.pixels[i] = (unsigned char)(i * 37);
    assert_ok(picture_resize(&source, box, RESIZE_BILINEAR, 9, 9, all, &fresh, &err), &err);
    assert_ok(picture_resize_buffer(&used, 200, 200, 3, &err), &err);
    memset(used.pixels, 0x7f, used.capacity);
    assert_ok(picture_resize(&source, box, RESIZE_BILINEAR, 9, 9, all, &used, &err), &err);
    assert_memory_equal(fresh.pixels, used.pixels, 9 * 9 * 3);
    picture_release(&source);
    picture_release(&fresh);
    picture_release(&used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizing_equals_pillow_bit_for_bit),
        cmocka_unit_test(nearest_takes_the_pixel_under_the_centre),
        cmocka_unit_test(what_lies_in_used_memory_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
