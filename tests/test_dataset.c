/* Opening data: which samples and labels are found, how they are split, and the one line said when something is wrong.
 */
#include "tests/test.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/data.h"

#define FIXTURE(name) TESTS_FOLDER "/data/" name

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/regraft-data-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static void put_text(const char *name, const char *text)
{
    Error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    assert_ok(folder_make(path, &err), &err);
    *slash = '/';
    assert_ok(file_write_text(path, text, &err), &err);
}

/* `count` links to a fixture in root/folder. */
static void put_pictures(const char *folder, const char *fixture, int count)
{
    Error err = {0};
    char path[256], from[512];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    assert_ok(folder_make(path, &err), &err);
    snprintf(from, sizeof from, "%s/data/%s", TESTS_FOLDER, fixture);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s/%03d%s", root, folder, i, strrchr(fixture, '.'));
        assert_int_equal(symlink(from, path), 0);
    }
}

static const char *at_root(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void open_fails(DataOptions options, Status status, const char *part)
{
    Error err = {0};
    DataParts parts;
    assert_int_equal(data_open(&options, &parts, &err), status);
    if (strstr(err.message, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, err.message);
}

static void folders_are_classes_in_sorted_order(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    put_pictures("a/train/bees", "rgb.jpg", 3);
    put_pictures("a/train/ants/deep", "png_grey.png", 2);
    put_pictures("a/valid/bees", "rgb.jpg", 1);
    put_text("a/train/ants/notes.txt", "ignored");
    DataOptions options = {.path = at_root("a"), .held_out = 0.2};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_int_equal(dataset_count(parts.train), 5);
    assert_string_equal(dataset_class_name(parts.train, 0, 0), "ants");
    assert_string_equal(dataset_class_name(parts.val, 0, 1), "bees");
    assert_int_equal(dataset_label(parts.val, 0, 0), 1);
    assert_false(parts.was_held_out);
    assert_null(parts.test);
    const char *example;
    assert_int_equal(dataset_ignored(parts.train, &example), 1);
    assert_string_equal(example, "ants/notes.txt");
    Str name;
    str_init(&name);
    dataset_sample_name(parts.train, 0, &name);
    assert_string_equal(name.text, "ants/deep/000.png");
    str_release(&name);
    data_close(&parts);
}

static void without_a_validation_part_each_class_gives_its_share(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts, again;
    put_pictures("b/x", "rgb.jpg", 20);
    put_pictures("b/y", "rgb.jpg", 10);
    DataOptions options = {.path = at_root("b"), .held_out = 0.2, .seed = 3};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_ok(data_open(&options, &again, &err), &err);
    size_t counts[2];
    assert_true(parts.was_held_out);
    dataset_class_counts(parts.val, 0, counts);
    assert_int_equal(counts[0], 4);
    assert_int_equal(counts[1], 2);
    dataset_class_counts(parts.train, 0, counts);
    assert_int_equal(counts[0], 16);
    Str a, b;
    str_init(&a);
    str_init(&b);
    for (size_t i = 0; i < dataset_count(parts.val); i++) {
        dataset_sample_name(parts.val, i, &a);
        dataset_sample_name(again.val, i, &b);
        assert_string_equal(a.text, b.text);
    }
    str_release(&a);
    str_release(&b);
    data_close(&parts);
    data_close(&again);
}

static void classes_can_be_chosen_and_limited(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    const char *only[] = {"2", "0", NULL};
    DataOptions options = {.path = FIXTURE("idx"), .only = only, .per_class = 3};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_int_equal(dataset_count(parts.train), 6);
    assert_int_equal(dataset_count(parts.test), 4);
    assert_int_equal(dataset_class_count(parts.train, 0), 2);
    assert_string_equal(dataset_class_name(parts.train, 0, 0), "2");
    int64_t label;
    dataset_row(parts.test, true, 0, 0, &label);
    assert_int_equal(label, 1); /* sample 0 is of class 0, now second */
    data_close(&parts);
}

static void idx_files_are_parts_of_pictures(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Picture picture = {0};
    DataOptions options = {.path = FIXTURE("idx")};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_int_equal(dataset_count(parts.train), 12);
    assert_ok(dataset_picture(parts.train, 0, 2, 0, &picture, &err), &err);
    assert_int_equal(picture.channels, 1);
    assert_int_equal(picture.pixels[0], 32);
    picture_release(&picture);
    data_close(&parts);
}

static Array array_of(DType dtype, int rank, const int64_t *dims, void *data)
{
    Array array = {.dtype = dtype, .rank = rank, .count = dims_count(rank, dims), .data = data};
    memcpy(array.dims, dims, (size_t)rank * sizeof *dims);
    return array;
}

static void arrays_are_found_by_the_names_of_inputs(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    int32_t ids[6] = {1, 2, 3, 4, 5, 6};
    int64_t y[2] = {0, 1}, other[4] = {0, 1, -100, 2};
    Array a = array_of(DTYPE_I32, 2, (int64_t[]){2, 3}, ids), b = array_of(DTYPE_I64, 1, (int64_t[]){2}, y),
          c = array_of(DTYPE_I64, 2, (int64_t[]){2, 2}, other);
    const char *names[] = {"input_ids", "y_0", "y_1"}, *inputs[] = {"input_ids", NULL}, *wrong[] = {"mask", NULL};
    const Array *arrays[] = {&a, &b, &c};
    assert_ok(npz_write(at_root("t.npz"), names, arrays, 3, &err), &err);
    DataOptions options = {.path = at_root("t.npz"), .inputs = inputs};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_int_equal(dataset_target_count(parts.train), 2);
    assert_true(dataset_target(parts.train, 0)->is_class);
    assert_false(dataset_target(parts.train, 1)->is_class);
    assert_int_equal(dataset_target(parts.train, 1)->classes, 3);
    int64_t row[3];
    assert_ok(dataset_set_dtype(parts.train, false, 0, DTYPE_I64, &err), &err);
    dataset_row(parts.train, false, 0, 1, row);
    assert_int_equal(row[2], 6);
    dataset_row(parts.train, true, 1, 1, row);
    assert_int_equal(row[0], -100);
    data_close(&parts);
    options.inputs = wrong;
    open_fails(options, STATUS_REJECTED, "array 'mask' is missing; there are: input_ids, y_0, y_1");
}

/* Bytes for an input of their own rank are numbers as stored where it takes no picture. */
static void bytes_are_pictures_where_the_input_takes_some(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    unsigned char ids[8] = {1, 2, 3, 4, 5, 6, 7, 8}, image[24] = {0};
    int64_t y[2] = {0, 1};
    Array a = array_of(DTYPE_U8, 3, (int64_t[]){2, 2, 2}, ids),
          b = array_of(DTYPE_U8, 4, (int64_t[]){2, 3, 2, 2}, image), c = array_of(DTYPE_I64, 1, (int64_t[]){2}, y);
    const char *names[] = {"ids", "image", "y"}, *one[] = {"ids", NULL}, *other[] = {"image", NULL},
               *both[] = {"image", "ids", NULL};
    const Array *arrays[] = {&a, &b, &c};
    assert_ok(npz_write(at_root("bytes.npz"), names, arrays, 3, &err), &err);
    const struct {
        const char **inputs;
        int ranks[2];
        FieldKind kinds[2];
    } cases[] = {{one, {3}, {FIELD_ARRAY}},
                 {one, {4}, {FIELD_PICTURE}}, /* grey pictures for [N, 1, H, W] */
                 {other, {4}, {FIELD_PICTURE}},
                 {both, {4, 3}, {FIELD_ARRAY, FIELD_ARRAY}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        DataOptions options = {.path = at_root("bytes.npz"), .inputs = cases[i].inputs, .ranks = cases[i].ranks};
        assert_ok(data_open(&options, &parts, &err), &err);
        for (int k = 0; k < dataset_input_count(parts.train); k++)
            assert_int_equal(dataset_input(parts.train, k)->kind, cases[i].kinds[k]);
        data_close(&parts);
    }
}

static void tables_give_labels_and_parts(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    put_pictures("csv/p", "rgb.jpg", 4);
    put_text("csv/a.csv",
             "path,label,split\r\np/000.jpg,\"big, bee\",train\r\np/001.jpg,ant,train\np/002.jpg,ant,val\n");
    DataOptions options = {.path = at_root("csv/a.csv")};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_int_equal(dataset_count(parts.train), 2);
    assert_int_equal(dataset_count(parts.val), 1);
    assert_string_equal(dataset_class_name(parts.val, 0, 1), "big, bee");
    Picture picture = {0};
    assert_ok(dataset_picture(parts.val, 0, 0, 0, &picture, &err), &err);
    picture_release(&picture);
    data_close(&parts);
    put_text("csv/b.csv", "path,height,width\np/000.jpg,1.5,2\np/001.jpg,-1,0.25\n");
    options.path = at_root("csv/b.csv");
    assert_ok(data_open(&options, &parts, &err), &err);
    float row[2];
    dataset_row(parts.train, true, 0, 1, row);
    assert_true(row[0] == -1 && row[1] == 0.25f);
    data_close(&parts);
    put_text("csv/c.csv", "path,label\np/000.jpg,a,b\n");
    open_fails((DataOptions){.path = at_root("csv/c.csv")}, STATUS_REJECTED, "line 2: 3 cells, the heading has 2");
}

static void what_is_wrong_is_said_in_one_line(void **state)
{
    (void)state;
    put_pictures("one/train/ants", "rgb.jpg", 2);
    open_fails((DataOptions){.path = at_root("one")}, STATUS_REJECTED, "all 2 samples are of one class, 'ants'");
    put_pictures("hole/train/ants", "rgb.jpg", 2);
    put_pictures("hole/train/bees", "rgb.jpg", 0);
    open_fails((DataOptions){.path = at_root("hole")}, STATUS_REJECTED, "bees: the label folder holds no JPEG or PNG");
    put_pictures("odd/train/ants", "rgb.jpg", 2);
    put_pictures("odd/train/bees", "rgb.jpg", 2);
    put_pictures("odd/val/bee", "rgb.jpg", 2);
    open_fails((DataOptions){.path = at_root("odd")}, STATUS_REJECTED, "did you mean 'bees'?");
    open_fails((DataOptions){.path = at_root("nowhere")}, STATUS_REJECTED, "nowhere: No such file");
    open_fails((DataOptions){.path = FIXTURE("arrays.npz")}, STATUS_REJECTED, "arrays.npz");
}

static void a_sample_of_the_data_keeps_proportions(void **state)
{
    (void)state;
    Error err = {0};
    DataParts parts;
    Dataset *subset;
    size_t counts[2];
    put_pictures("c/x", "rgb.jpg", 30);
    put_pictures("c/y", "rgb.jpg", 10);
    DataOptions options = {.path = at_root("c")};
    assert_ok(data_open(&options, &parts, &err), &err);
    assert_ok(dataset_sample(parts.train, 8, 1, &subset, &err), &err);
    dataset_class_counts(subset, 0, counts);
    assert_int_equal(counts[0], 6);
    assert_int_equal(counts[1], 2);
    dataset_free(subset);
    data_close(&parts);
}

static void count_message(const char *message, void *context)
{
    assert_non_null(strstr(message, "cut."));
    ++*(int *)context;
}

/* Before anything is counted or split: the split is that of the readable ones alone. */
static void unreadable_pictures_are_as_if_they_were_not_there(void **state)
{
    (void)state;
    Error err = {0};
    DataParts with, without;
    int messages = 0;
    put_pictures("d/x", "rgb.jpg", 10);
    put_pictures("d/y", "rgb.jpg", 10);
    DataOptions options = {.path = at_root("d"), .held_out = 0.3, .seed = 1};
    assert_ok(data_open(&options, &without, &err), &err);
    char path[256];
    snprintf(path, sizeof path, "%s/d/x/0000cut.jpg", root);
    assert_int_equal(symlink(FIXTURE("cut.jpg"), path), 0);
    snprintf(path, sizeof path, "%s/d/y/005cut.png", root);
    assert_int_equal(symlink(FIXTURE("cut.png"), path), 0);
    options.skip_broken = true;
    options.on_broken = count_message;
    options.context = &messages;
    assert_ok(data_open(&options, &with, &err), &err);
    assert_int_equal(messages, 2);
    const Dataset *pairs[2][2] = {{with.train, without.train}, {with.val, without.val}};
    Str a, b;
    str_init(&a);
    str_init(&b);
    for (int p = 0; p < 2; p++) {
        assert_int_equal(dataset_count(pairs[p][0]), dataset_count(pairs[p][1]));
        for (size_t i = 0; i < dataset_count(pairs[p][0]); i++) {
            dataset_sample_name(pairs[p][0], i, &a);
            dataset_sample_name(pairs[p][1], i, &b);
            assert_string_equal(a.text, b.text);
        }
    }
    str_release(&a);
    str_release(&b);
    data_close(&with);
    data_close(&without);
}

static void a_class_without_a_readable_picture_is_an_error(void **state)
{
    (void)state;
    put_pictures("e/x", "rgb.jpg", 3);
    put_pictures("e/y", "cut.jpg", 2);
    open_fails((DataOptions){.path = at_root("e"), .skip_broken = true}, STATUS_REJECTED,
               "none of the 2 pictures of class 'y' can be read");
    put_pictures("f/x", "cut.jpg", 1);
    put_pictures("f/y", "cut.png", 1);
    open_fails((DataOptions){.path = at_root("f"), .skip_broken = true}, STATUS_REJECTED,
               "none of its pictures can be read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_classes_in_sorted_order),
        cmocka_unit_test(without_a_validation_part_each_class_gives_its_share),
        cmocka_unit_test(classes_can_be_chosen_and_limited),
        cmocka_unit_test(idx_files_are_parts_of_pictures),
        cmocka_unit_test(arrays_are_found_by_the_names_of_inputs),
        cmocka_unit_test(bytes_are_pictures_where_the_input_takes_some),
        cmocka_unit_test(tables_give_labels_and_parts),
        cmocka_unit_test(what_is_wrong_is_said_in_one_line),
        cmocka_unit_test(a_sample_of_the_data_keeps_proportions),
        cmocka_unit_test(unreadable_pictures_are_as_if_they_were_not_there),
        cmocka_unit_test(a_class_without_a_readable_picture_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
