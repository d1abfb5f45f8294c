/* Batches: the same numbers in the same order at any number of threads, bounded rings, broken files, presets. */
#include "tests/test.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "data/data.h"

static char root[64];

static void link_picture(const char *folder, const char *name, const char *fixture)
{
    Error err = {0};
    char path[256], from[512];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    assert_ok(folder_make(path, &err), &err);
    snprintf(from, sizeof from, "%s/data/%s", TESTS_FOLDER, fixture);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    assert_int_equal(symlink(from, path), 0);
}

static int make_root(void **state)
{
    (void)state;
    static const char *const fixtures[] = {"rgb.jpg",       "grey.jpg", "png_rgb.png",
                                           "png_alpha.png", "cmyk.jpg", "progressive.jpg"};
    snprintf(root, sizeof root, "/tmp/regraft-loader-XXXXXX");
    if (mkdtemp(root) == NULL)
        return 1;
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "%02d%s", i, strrchr(fixtures[i % 6], '.'));
        link_picture(i % 2 ? "good/b" : "good/a", name, fixtures[i % 6]);
        link_picture(i % 2 ? "bad/b" : "bad/a", name, i == 4 ? "cut.png" : fixtures[i % 6]);
    }
    return 0;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static Dataset *open_set(const char *name, DataParts *parts)
{
    Error err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/%s", root, name);
    DataOptions options = {.path = path};
    assert_ok(data_open(&options, parts, &err), &err);
    return parts->train;
}

static PictureSpec small_spec(void)
{
    PictureSpec spec = picture_spec_default();
    spec.width = spec.height = 16;
    return spec;
}

enum { SAMPLE = 3 * 16 * 16 };

/* One pass as one array of numbers and one of ids. */
static size_t run_pass(Loader *loader, uint64_t epoch, bool train, size_t batch, size_t skip, float *pixels,
                       size_t *ids)
{
    Error err = {0};
    size_t count = 0;
    LoadedBatch b;
    assert_ok(loader_start(loader, epoch, train, batch, skip, &err), &err);
    for (;;) {
        assert_ok(loader_next(loader, &b, &err), &err);
        if (b.size == 0)
            return count;
        assert_true(b.size <= batch);
        memcpy(pixels + count * SAMPLE, b.inputs[0], b.size * SAMPLE * sizeof *pixels);
        memcpy(ids + count, b.ids, b.size * sizeof *ids);
        count += b.size;
    }
}

static void threads_do_not_change_order_or_pixels(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("good", &parts);
    PictureSpec spec = small_spec();
    AugmentSpec augment = {
        .flip = true, .crop_area = 0.4, .crop_ratio = 1.3, .brightness = 0.2, .saturation = 0.3, .erase = 0.5};
    float *first = malloc(12 * SAMPLE * sizeof *first), *other = malloc(12 * SAMPLE * sizeof *other);
    size_t ids[12], other_ids[12];
    for (int threads = 1; threads <= 5; threads += 2) {
        Loader *loader;
        LoaderOptions options = {.picture = &spec, .augment = &augment, .seed = 7, .threads = threads, .memory = 1};
        assert_ok(loader_new(set, &options, &loader, &err), &err);
        for (uint64_t epoch = 1; epoch <= 3; epoch++)
            assert_int_equal(run_pass(loader, epoch, true, 5, 0, other, other_ids), 12);
        if (threads == 1) {
            memcpy(first, other, 12 * SAMPLE * sizeof *first);
            memcpy(ids, other_ids, sizeof ids);
        }
        assert_memory_equal(first, other, 12 * SAMPLE * sizeof *first);
        assert_memory_equal(ids, other_ids, sizeof ids);
        loader_free(loader);
    }
    free(first);
    free(other);
    data_close(&parts);
}

static Status pass_of_rank(const Dataset *set, const PictureSpec *spec, int rank, int ranks, size_t batch,
                           float *pixels, size_t *ids, size_t *count, Error *err)
{
    Loader *loader;
    LoaderOptions options = {.picture = spec, .seed = 7, .rank = rank, .ranks = ranks};
    assert_ok(loader_new(set, &options, &loader, err), err);
    Status status = loader_start(loader, 1, true, batch, 0, err);
    if (status == STATUS_OK)
        *count = run_pass(loader, 1, true, batch, 0, pixels, ids);
    loader_free(loader);
    return status;
}

static void processes_take_every_batch_apart(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("good", &parts);
    PictureSpec spec = small_spec();
    enum { BATCH = 10 }; /* 12 samples: a batch of 10 and one of 2 */
    float *whole = malloc(12 * SAMPLE * sizeof *whole), *part = malloc(12 * SAMPLE * sizeof *part);
    size_t ids[12], own[2][12], counts[2], count;
    assert_ok(pass_of_rank(set, &spec, 0, 0, BATCH, whole, ids, &count, &err), &err);
    for (int rank = 0; rank < 2; rank++) {
        assert_ok(pass_of_rank(set, &spec, rank, 2, BATCH, part, own[rank], &counts[rank], &err), &err);
        assert_int_equal(counts[rank], 6);
        assert_memory_equal(own[rank], ids + 5 * rank, 5 * sizeof *ids);
        assert_memory_equal(part, whole + 5 * rank * SAMPLE, 5 * SAMPLE * sizeof *part);
        assert_int_equal(own[rank][5], ids[10 + rank]);
    }
    assert_int_equal(pass_of_rank(set, &spec, 0, 3, BATCH, part, ids, &count, &err), STATUS_USAGE);
    err = (Error){0};
    assert_int_equal(pass_of_rank(set, &spec, 0, 13, 26, part, ids, &count, &err), STATUS_REJECTED);
    free(whole);
    free(part);
    data_close(&parts);
}

static void a_pass_can_begin_at_a_later_batch(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("good", &parts);
    PictureSpec spec = small_spec();
    Loader *loader;
    float *whole = malloc(12 * SAMPLE * sizeof *whole), *rest = malloc(12 * SAMPLE * sizeof *rest);
    size_t ids[12], rest_ids[12];
    LoaderOptions options = {.picture = &spec, .seed = 1};
    assert_ok(loader_new(set, &options, &loader, &err), &err);
    assert_int_equal(run_pass(loader, 4, true, 5, 0, whole, ids), 12);
    assert_int_equal(run_pass(loader, 4, true, 5, 1, rest, rest_ids), 7);
    assert_memory_equal(whole + 5 * SAMPLE, rest, 7 * SAMPLE * sizeof *rest);
    assert_memory_equal(ids + 5, rest_ids, 7 * sizeof *ids);
    loader_free(loader);
    free(whole);
    free(rest);
    data_close(&parts);
}

static void evaluation_keeps_the_order_and_an_unfinished_pass_can_be_left(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("good", &parts);
    PictureSpec spec = small_spec();
    Loader *loader;
    LoadedBatch b;
    float *pixels = malloc(12 * SAMPLE * sizeof *pixels);
    size_t ids[12];
    LoaderOptions options = {.picture = &spec, .memory = 1};
    assert_ok(loader_new(set, &options, &loader, &err), &err);
    assert_ok(loader_start(loader, 0, true, 2, 0, &err), &err);
    assert_ok(loader_next(loader, &b, &err), &err);
    assert_int_equal(run_pass(loader, 0, false, 12, 0, pixels, ids), 12);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(ids[i], i);
    loader_free(loader);
    free(pixels);
    data_close(&parts);
}

static void count_message(const char *message, void *context)
{
    assert_non_null(strstr(message, "04.jpg"));
    ++*(int *)context;
}

static void a_broken_file_is_fatal_or_left_out_and_named(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("bad", &parts);
    PictureSpec spec = small_spec();
    Loader *loader;
    LoadedBatch b;
    int messages = 0;
    float *pixels = malloc(12 * SAMPLE * sizeof *pixels);
    size_t ids[12];
    LoaderOptions options = {.picture = &spec};
    assert_ok(loader_new(set, &options, &loader, &err), &err);
    assert_ok(loader_start(loader, 0, false, 12, 0, &err), &err);
    assert_int_equal(loader_next(loader, &b, &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "a/04.jpg"));
    loader_free(loader);
    error_clear(&err);
    options = (LoaderOptions){.picture = &spec, .skip_broken = true, .on_broken = count_message, .context = &messages};
    assert_ok(loader_new(set, &options, &loader, &err), &err);
    for (int pass = 0; pass < 2; pass++)
        assert_int_equal(run_pass(loader, 0, false, 1, 0, pixels, ids), 11);
    assert_int_equal(messages, 1);
    assert_int_equal(loader_broken(loader), 1);
    loader_free(loader);
    free(pixels);
    data_close(&parts);
}

static void presets_shift_scale_and_order_channels(void **state)
{
    (void)state;
    unsigned char pixels[3] = {255, 128, 0};
    Picture picture = {.width = 1, .height = 1, .channels = 3, .pixels = pixels};
    float out[3];
    PictureSpec spec = picture_spec_default();
    picture_spec_use(&spec, picture_preset("-1..1"));
    picture_normalise(&picture, &spec, out);
    assert_true(out[0] == 1 && out[2] == -1);
    picture_spec_use(&spec, picture_preset("0..255-bgr"));
    picture_normalise(&picture, &spec, out);
    assert_true(out[0] == 0 && out[1] == 128 && out[2] == 255);
    picture_spec_use(&spec, picture_preset("imagenet"));
    picture_normalise(&picture, &spec, out);
    assert_true(fabsf(out[1] - (128 / 255.0f - 0.456f) / 0.224f) < 1e-6f);
}

/* What a loader gives a model that takes uint8 is what it gives as floats under 0..255. */
static void a_model_of_bytes_gets_the_pixels_as_they_are(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *set = open_set("good", &parts);
    PictureSpec spec = small_spec();
    LoaderOptions options = {.picture = &spec};
    LoadedBatch floats, bytes;
    Loader *loader, *other;
    picture_spec_use(&spec, picture_preset("0..255-bgr"));
    assert_ok(loader_new(set, &options, &loader, &err), &err);
    spec.bytes = true;
    assert_ok(loader_new(set, &options, &other, &err), &err);
    assert_ok(loader_start(loader, 0, false, 12, 0, &err), &err);
    assert_ok(loader_start(other, 0, false, 12, 0, &err), &err);
    assert_ok(loader_next(loader, &floats, &err), &err);
    assert_ok(loader_next(other, &bytes, &err), &err);
    assert_int_equal(bytes.size, 12);
    for (size_t i = 0; i < 12 * SAMPLE; i++)
        assert_true(((const float *)floats.inputs[0])[i] == (float)((const unsigned char *)bytes.inputs[0])[i]);
    loader_free(loader);
    loader_free(other);
    assert_ok(picture_spec_check(&spec, "x", &err), &err);
    picture_spec_use(&spec, picture_preset("imagenet"));
    assert_int_equal(picture_spec_check(&spec, "x", &err), STATUS_USAGE);
    error_clear(&err);
    data_close(&parts);
}

static void a_preprocessing_line_reads_back_as_it_was(void **state)
{
    (void)state;
    Error err = {0};
    PictureSpec spec = small_spec(), again = picture_spec_default();
    picture_spec_use(&spec, picture_preset("imagenet-bgr"));
    spec.frame = FRAME_PAD;
    spec.filter = RESIZE_BICUBIC;
    Str text, second;
    str_init(&text);
    str_init(&second);
    picture_spec_print(&spec, &text);
    assert_ok(picture_spec_parse(text.text, &again, &err), &err);
    picture_spec_print(&again, &second);
    assert_string_equal(text.text, second.text);
    assert_int_equal(picture_spec_parse("size=0", &again, &err), STATUS_REJECTED);
    str_release(&text);
    str_release(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_order_or_pixels),
        cmocka_unit_test(processes_take_every_batch_apart),
        cmocka_unit_test(a_pass_can_begin_at_a_later_batch),
        cmocka_unit_test(evaluation_keeps_the_order_and_an_unfinished_pass_can_be_left),
        cmocka_unit_test(a_broken_file_is_fatal_or_left_out_and_named),
        cmocka_unit_test(presets_shift_scale_and_order_channels),
        cmocka_unit_test(a_model_of_bytes_gets_the_pixels_as_they_are),
        cmocka_unit_test(a_preprocessing_line_reads_back_as_it_was),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
