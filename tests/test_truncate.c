/* A file that ends early: at every byte of a small model it is refused, or, where one top-level field has just ended, a
 * complete smaller model; never a crash, never half a tensor. */
#include "tests/graph_test.h"

#include <stdlib.h>
#include <unistd.h>

#include "onnx/base/file.h"

static const char net[] =
    "<ir_version: 8, opset_import: [\"\" : 17, \"ai.onnx.ml\" : 3], producer_name: \"hand\", metadata_props: "
    "[\"names\" : \"{0: 'a'}\"]> "
    "net (float[N,3,8,8] image) => (float[N,10] scores) <float[4,3,3,3] w = {0.1, ...}, float[10,4] v = {0.25, ...}> {"
    "  c = Conv <kernel_shape = [3, 3]> (image, w) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p)"
    "  scores = Gemm <transB = 1, alpha = 0.5> (f, v) }";

/* Length of a varint at `at`, its value in *value. */
static size_t varint(const unsigned char *bytes, size_t at, uint64_t *value)
{
    size_t length = 0;
    *value = 0;
    do
        *value |= (uint64_t)(bytes[at + length] & 0x7f) << (7 * length);
    while ((bytes[at + length++] & 0x80) != 0);
    return length;
}

/* Does a top-level field end at `size`? */
static bool is_border(const unsigned char *bytes, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint64_t key, value;
        at += varint(bytes, at, &key);
        at += varint(bytes, at, &value);
        if ((key & 7) == 2)
            at += (size_t)value;
    }
    return at == size;
}

static void at_every_byte_a_model_is_refused_or_a_smaller_one(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    char path[] = "/tmp/regraft-truncate-XXXXXX";
    int fd = mkstemp(path);
    close(fd);
    Model *model = parse_model(net);
    assert_ok(model_export(model, path, NULL, &err), &err);
    model_free(model);
    Mapping file;
    assert_ok(mapping_open(&file, path, &err), &err);
    size_t size = file.size, complete = 0;
    unsigned char *bytes = malloc(size);
    memcpy(bytes, file.data, size);
    mapping_release(&file);
    while (size-- > 0) {
        assert_int_equal(truncate(path, (off_t)size), 0);
        err = (Error){STATUS_OK, ""};
        Status status = model_import(path, &builtin_ops, &model, &err);
        if (status == STATUS_OK) {
            complete++;
            assert_true(is_border(bytes, size));
            assert_ok(model_check(model, &err), &err);
            model_free(model);
            continue;
        }
        if (status != STATUS_REJECTED && status != STATUS_UNSUPPORTED) /* unsupported: no graph, no IR version left */
            fail_msg("%zu bytes: status %d: %s", size, (int)status, err.message);
        assert_true(err.message[0] != '\0' && strchr(err.message, '\n') == NULL);
    }
    assert_true(complete < 8); /* there are few top-level fields, and the graph must be among them */
    free(bytes);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(at_every_byte_a_model_is_refused_or_a_smaller_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
