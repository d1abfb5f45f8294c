/* onnx/external: which side files are opened, and which tensors may point into them. Every attack of the advisories on
 * ONNX's external data has its case here. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "onnx/gate.h"
#include "onnx/op.h"
#include "tests/wire_build.h"

static const OpSet no_ops = {NULL, 0};

/* A folder with weights of 64 bytes in `w.bin` and in `sub/w.bin`, and the same file outside, beside the folder. */
typedef struct Place {
    char root[64];
    char path[256];
} Place;

static const char *in(Place *place, const char *name)
{
    snprintf(place->path, sizeof place->path, "%s/%s", place->root, name);
    return place->path;
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static int set_up(void **state)
{
    static Place place;
    snprintf(place.root, sizeof place.root, "/tmp/regraft-external-XXXXXX");
    assert_non_null(mkdtemp(place.root));
    assert_int_equal(mkdir(in(&place, "m"), 0700), 0);
    assert_int_equal(mkdir(in(&place, "m/sub"), 0700), 0);
    float numbers[16];
    for (int i = 0; i < 16; i++)
        numbers[i] = (float)i;
    write_bytes(in(&place, "m/w.bin"), numbers, sizeof numbers);
    write_bytes(in(&place, "m/sub/w.bin"), numbers, sizeof numbers);
    write_bytes(in(&place, "outside.bin"), numbers, sizeof numbers);
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    Place *place = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", place->root);
    return system(command);
}

/* A model whose float tensor `w` of n numbers has these entries of external data: key, value, ..., NULL. */
static void build(Str *model, int64_t n, const char *const *entries)
{
    Str graph, tensor;
    str_init(&graph), str_init(&tensor);
    wire_int(&tensor, TENSOR_DIMS, n);
    wire_int(&tensor, TENSOR_TYPE, 1);
    wire_text(&tensor, TENSOR_NAME, "w");
    for (; *entries != NULL; entries += 2)
        wire_pair(&tensor, TENSOR_EXTERNAL, entries[0], entries[1]);
    wire_int(&tensor, TENSOR_LOCATION, 1);
    wire_message(&graph, GRAPH_INITIALIZER, &tensor);
    wire_model(model, &graph);
    str_release(&graph), str_release(&tensor);
}

static Status import(Place *place, int64_t n, const char *const *entries, Model **model, Error *err)
{
    Str bytes;
    str_init(&bytes);
    build(&bytes, n, entries);
    write_bytes(in(place, "m/m.onnx"), bytes.text, bytes.length);
    str_release(&bytes);
    memset(err, 0, sizeof *err);
    return model_import(place->path, &no_ops, model, err);
}

static void refused(Place *place, int64_t n, const char *const *entries, const char *why)
{
    Model *model;
    Error err;
    assert_int_equal(import(place, n, entries, &model, &err), STATUS_REJECTED);
    if (strstr(err.message, why) == NULL || strstr(err.message, "initializer 'w'") == NULL)
        fail_msg("'%s' expected in: %s", why, err.message);
}

#define ENTRIES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void tensors_borrow_the_mapped_side_file(void **state)
{
    Model *model;
    Error err;
    const char *const *entries = ENTRIES("location", "sub/w.bin", "offset", "8", "length", "16", "future", "key");
    assert_ok(import(*state, 4, entries, &model, &err), &err);
    const Tensor *w = graph_find(model->graph, "w")->constant;
    assert_int_equal(w->storage, STORAGE_EXTERNAL);
    assert_int_equal(w->external_count, 4);
    assert_true(tensor_f64_at(w, 0) == 2);
    assert_int_equal(model->side_count, 1);
    const unsigned char *data = w->data;
    assert_true(data == model->side_files[0].data + 8);
    model_free(model);
}

static void two_tensors_share_one_mapping(void **state)
{
    Place *place = *state;
    Str graph, tensor, model_bytes;
    str_init(&graph), str_init(&tensor), str_init(&model_bytes);
    const char *const names[] = {"a", "b"};
    for (int i = 0; i < 2; i++) {
        wire_int(&tensor, TENSOR_DIMS, 4);
        wire_int(&tensor, TENSOR_TYPE, 1);
        wire_text(&tensor, TENSOR_NAME, names[i]);
        wire_pair(&tensor, TENSOR_EXTERNAL, "location", "w.bin"); /* they overlap, which is nobody's business */
        wire_int(&tensor, TENSOR_LOCATION, 1);
        wire_message(&graph, GRAPH_INITIALIZER, &tensor);
    }
    wire_model(&model_bytes, &graph);
    write_bytes(in(place, "m/m.onnx"), model_bytes.text, model_bytes.length);
    Model *model;
    Error err = {0};
    assert_ok(model_import(place->path, &no_ops, &model, &err), &err);
    assert_int_equal(model->side_count, 1);
    model_free(model);
    str_release(&graph), str_release(&tensor), str_release(&model_bytes);
}

static void paths_out_of_the_folder_are_refused(void **state)
{
    Place *place = *state;
    refused(place, 4, ENTRIES("location", "../outside.bin"), "has '..' in it");
    refused(place, 4, ENTRIES("location", "sub/../../outside.bin"), "has '..' in it");
    refused(place, 4, ENTRIES("location", "sub/.."), "has '..' in it");
    refused(place, 4, ENTRIES("location", "/etc/passwd"), "is an absolute path");
    refused(place, 4, ENTRIES("location", in(place, "outside.bin")), "is an absolute path");
    refused(place, 4, ENTRIES("location", "/proc/self/environ"), "is an absolute path");
    refused(place, 4, ENTRIES("location", "..\\outside.bin"), "has a backslash");
    refused(place, 4, ENTRIES("location", ""), "names no file");
    refused(place, 4, ENTRIES("location", "sub/"), "ends in a slash");
    refused(place, 4, ENTRIES("location", "W.BIN"), "does not exist");
    refused(place, 4, ENTRIES("location", "*/_ORT_MEM_ADDR_/*"), "does not exist");
    refused(place, 4, ENTRIES("offset", "0"), "names no file");
}

static void links_are_refused_wherever_they_are(void **state)
{
    Place *place = *state;
    char target[256];
    snprintf(target, sizeof target, "%s", in(place, "outside.bin"));
    assert_int_equal(symlink(target, in(place, "m/link.bin")), 0);
    refused(place, 4, ENTRIES("location", "link.bin"), "is a symbolic link");
    assert_int_equal(symlink("w.bin", in(place, "m/inner.bin")), 0); /* even to a file in the folder */
    refused(place, 4, ENTRIES("location", "inner.bin"), "is a symbolic link");
    assert_int_equal(symlink(place->root, in(place, "m/up")), 0);
    refused(place, 4, ENTRIES("location", "up/outside.bin"), "is a symbolic link");
    assert_int_equal(link(target, in(place, "m/hard.bin")), 0);
    refused(place, 4, ENTRIES("location", "hard.bin"), "is a hard link");
    unlink(in(place, "m/hard.bin"));
}

static void what_is_no_regular_file_is_refused_without_waiting(void **state)
{
    Place *place = *state;
    assert_int_equal(mkfifo(in(place, "m/fifo"), 0600), 0);
    refused(place, 4, ENTRIES("location", "fifo"), "not a regular file");
    refused(place, 4, ENTRIES("location", "sub"), "not a regular file");
    if (mknod(in(place, "m/zero"), S_IFCHR | 0600, (1 << 8) | 5) == 0)
        refused(place, 4, ENTRIES("location", "zero"), "not a regular file");
    unlink(in(place, "m/fifo"));
    unlink(in(place, "m/zero"));
}

static void offsets_and_lengths_must_fit(void **state)
{
    Place *place = *state;
    refused(place, 4, ENTRIES("location", "w.bin", "offset", "-1"), "is no number of bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", "0x10"), "is no number of bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", " 1"), "is no number of bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", ""), "is no number of bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", "99999999999999999999"), "is no number of bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", "9223372036854775807"), "the file has 64");
    refused(place, 4, ENTRIES("location", "w.bin", "offset", "52"), "wants 16 bytes; the file has 64");
    refused(place, 17, ENTRIES("location", "w.bin"), "wants 68 bytes; the file has 64");
    refused(place, 4, ENTRIES("location", "w.bin", "length", "15"), "external data of 15 bytes");
    refused(place, 4, ENTRIES("location", "w.bin", "length", "17"), "external data of 17 bytes");
    refused(place, INT64_C(1) << 40, ENTRIES("location", "w.bin", "length", "4398046511104"), "the file has 64");
    refused(place, 4, ENTRIES("location", "w.bin", "location", "w.bin"), "says 'location' twice");
}

static void bytes_without_a_folder_have_no_side_files(void **state)
{
    (void)state;
    Str bytes;
    str_init(&bytes);
    build(&bytes, 4, ENTRIES("location", "w.bin"));
    Model *model;
    Error err = {0};
    assert_int_equal(model_import_bytes(bytes.text, bytes.length, "m", &no_ops, &model, &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "has no folder"));
    str_release(&bytes);
}

/* Attributes and sparse tensors go the same way as initializers: readers have forgotten them. */
static void tensors_in_attributes_and_sparse_ones_are_confined_too(void **state)
{
    Place *place = *state;
    Str graph, node, attr, tensor, bytes;
    str_init(&graph), str_init(&node), str_init(&attr), str_init(&tensor), str_init(&bytes);
    for (int sparse = 0; sparse < 2; sparse++) {
        wire_int(&tensor, TENSOR_DIMS, 4);
        wire_int(&tensor, TENSOR_TYPE, 1);
        wire_text(&tensor, TENSOR_NAME, "s");
        wire_pair(&tensor, TENSOR_EXTERNAL, "location", "../outside.bin");
        wire_int(&tensor, TENSOR_LOCATION, 1);
        if (sparse) {
            wire_message(&node, 1, &tensor);
            wire_bytes(&node, 2, "", 0);
            wire_message(&graph, GRAPH_SPARSE, &node);
        } else {
            wire_text(&attr, 1, "value");
            wire_int(&attr, 20, ATTR_TENSOR);
            wire_message(&attr, 5, &tensor);
            wire_text(&node, NODE_OP, "Constant");
            wire_message(&node, NODE_ATTRIBUTE, &attr);
            wire_message(&graph, GRAPH_NODE, &node);
        }
        str_clear(&bytes);
        wire_model(&bytes, &graph);
        write_bytes(in(place, "m/m.onnx"), bytes.text, bytes.length);
        Model *model;
        Error err = {0};
        assert_int_equal(model_import(place->path, &no_ops, &model, &err), STATUS_REJECTED);
        assert_non_null(strstr(err.message, "has '..' in it"));
    }
    str_release(&graph), str_release(&node), str_release(&attr), str_release(&tensor), str_release(&bytes);
}

/* What older kernels do must refuse the same. */
static void the_way_without_openat2_follows_no_link_either(void **state)
{
    Place *place = *state;
    int folder = open(in(place, "m"), O_PATH | O_DIRECTORY);
    assert_true(folder >= 0);
    symlink("w.bin", in(place, "m/l.bin"));
    symlink("sub", in(place, "m/l"));
    for (int stepwise = 0; stepwise < 2; stepwise++) {
        int fd = external_open(folder, "sub/w.bin", stepwise);
        assert_true(fd >= 0);
        close(fd);
        fd = external_open(folder, "./sub//w.bin", stepwise);
        assert_true(fd >= 0);
        close(fd);
        errno = 0;
        assert_int_equal(external_open(folder, "l.bin", stepwise), -1);
        assert_int_equal(errno, ELOOP);
        assert_int_equal(external_open(folder, "l/w.bin", stepwise), -1);
        assert_int_equal(errno, ELOOP);
        assert_int_equal(external_open(folder, "none/w.bin", stepwise), -1);
        assert_int_equal(errno, ENOENT);
    }
    close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_borrow_the_mapped_side_file),
        cmocka_unit_test(two_tensors_share_one_mapping),
        cmocka_unit_test(paths_out_of_the_folder_are_refused),
        cmocka_unit_test(links_are_refused_wherever_they_are),
        cmocka_unit_test(what_is_no_regular_file_is_refused_without_waiting),
        cmocka_unit_test(offsets_and_lengths_must_fit),
        cmocka_unit_test(bytes_without_a_folder_have_no_side_files),
        cmocka_unit_test(tensors_in_attributes_and_sparse_ones_are_confined_too),
        cmocka_unit_test(the_way_without_openat2_follows_no_link_either),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
