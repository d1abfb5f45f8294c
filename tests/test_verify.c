/* What is written must be what is in memory: every way in which a file could differ is found, and the file is gone. */
#include "tests/graph_test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/print.h"
#include "cli/verify.h"
#include "onnx/gate.h"
#include "tests/wire_build.h"

static const char net[] =
    "<ir_version: 8, opset_import: [\"\" : 17]> "
    "g (float[N,4] x) => (float[N,2] y) <float[4,3] w = {0.5, -1.0, 2.0, ...}, float[2,3] v = {1.5, ...}> {"
    "  h = MatMul (x, w) r = Relu (h) y = Gemm <transB = 1> (r, v) }";

static char folder[] = "/tmp/regraft-verify-XXXXXX";

static const char *output(void)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/out.onnx", folder);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    say_quietly(true);
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(output());
    return rmdir(folder);
}

static Model *written(void)
{
    Error err = {STATUS_OK, ""};
    Model *model = parse_model(net);
    assert_ok(document_save(model, output(), false, &err), &err);
    return model;
}

static void assert_unverified(Model *model, const Witness *witness, bool stripped, const char *part)
{
    Error err = {STATUS_OK, ""};
    assert_int_equal(document_verify(model, NULL, witness, stripped, output(), &err), STATUS_UNVERIFIED);
    if (strstr(err.message, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, err.message);
    assert_int_not_equal(access(output(), F_OK), 0);
    model_free(model);
}

static void a_file_as_it_is_in_memory_stays(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = written();
    assert_ok(document_verify(model, NULL, NULL, false, output(), &err), &err);
    assert_int_equal(access(output(), F_OK), 0);
    model_free(model);
}

static void another_node_or_number_is_found(void **state)
{
    (void)state;
    Model *model = written();
    node_set_int(model->graph->last, "transB", 0);
    assert_unverified(model, NULL, false, "is not what is in memory");
    model = written();
    Tensor *weight = graph_find(model->graph, "v")->constant;
    float *changed = arena_copy(&model->arena, weight->data, weight->bytes);
    changed[5] += 1e-3f;
    weight->data = changed;
    assert_unverified(model, NULL, true, "initializer 'v' has other bytes than before");
}

/* Text and initializers are alike to this check; the numbers that come out are not. */
static void another_output_is_found(void **state)
{
    (void)state;
    Model *model = written();
    node_set_float(model->graph->last, "alpha", 1.0001f);
    assert_unverified(model, NULL, true, "output 'y' is ");
}

static void outputs_that_training_did_not_give_are_found(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    float x[4] = {1, 0.5f, -0.25f, 2}, y[2];
    Model *model = written();
    const float *w = graph_find(model->graph, "w")->constant->data, *v = graph_find(model->graph, "v")->constant->data;
    for (int c = 0; c < 2; c++) {
        y[c] = 0;
        for (int k = 0; k < 3; k++) {
            float h = 0;
            for (int i = 0; i < 4; i++)
                h += x[i] * w[3 * i + k];
            y[c] += fmaxf(h, 0) * v[3 * c + k];
        }
    }
    Witness witness = {.inputs = {{.dtype = DTYPE_F32, .rank = 2, .dims = {1, 4}, .count = 4, .data = x}},
                       .input_count = 1,
                       .rows = y,
                       .count = 2,
                       .tolerance = 1e-3};
    assert_ok(document_verify(model, NULL, &witness, false, output(), &err), &err);
    y[1] *= 1.01f;
    assert_unverified(model, &witness, false, "differs from training's by ");
}

/* 1000 (a - b) with a and b near 1000: one bit of an input is 0.06 of the output, in whatever order it is summed. */
static void what_rounding_does_is_no_fault_and_more_is_one(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    float x[8], y[4];
    for (int k = 0; k < 2; k++) {
        Model *model = parse_model("<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,2] x) => (float[N,1] y) "
                                   "<float[1,2] v = {1000.0, -1000.0}> { y = Gemm <transB = 1> (x, v) }");
        assert_ok(document_save(model, output(), false, &err), &err);
        for (int i = 0; i < 4; i++) {
            x[2 * i] = 1000.0f + (float)i / 64;
            x[2 * i + 1] = 1000;
            y[i] = 1000 * (x[2 * i] - x[2 * i + 1]) + (k == 0 ? 0.1f : 3.0f); /* 2e-3 and 6e-2 of the largest */
        }
        Witness witness = {.inputs = {{.dtype = DTYPE_F32, .rank = 2, .dims = {4, 2}, .count = 8, .data = x}},
                           .input_count = 1,
                           .rows = y,
                           .count = 4,
                           .tolerance = 1e-3};
        if (k == 1) {
            assert_unverified(model, &witness, false, "differs from training's by 3 ");
            continue;
        }
        assert_ok(document_verify(model, NULL, &witness, false, output(), &err), &err);
        model_free(model);
    }
}

/* One weight of 560 MB (a hole of zeros in the source) and a process that may take 64 MB more than it has. */
static int save_and_verify_within_64_mb(const char *path, Error *err)
{
    Model *original, *document;
    struct rlimit limit;
    Status status = document_open(path, &original, err);
    if (status == STATUS_OK)
        status = document_open(path, &document, err);
    FILE *statm = fopen("/proc/self/statm", "r");
    unsigned long data = 0;
    if (status != STATUS_OK || statm == NULL || fscanf(statm, "%*u %*u %*u %*u %*u %lu", &data) != 1)
        return 1;
    fclose(statm);
    limit.rlim_cur = limit.rlim_max = data * (rlim_t)sysconf(_SC_PAGESIZE) + (64 << 20);
    model_share(original, document);
    if (setrlimit(RLIMIT_DATA, &limit) != 0 ||
        graph_find(original->graph, "w")->constant->data != graph_find(document->graph, "w")->constant->data)
        return 1;
    status = document_save(document, output(), false, err);
    if (status == STATUS_OK)
        status = document_verify(document, original, NULL, false, output(), err);
    model_free(original);
    model_free(document);
    return status == STATUS_OK ? 0 : 1;
}

static void write_large(const char *path, const char *numbers, off_t bytes)
{
    Str model, graph, tensor;
    str_init(&model), str_init(&graph), str_init(&tensor);
    wire_int(&tensor, TENSOR_DIMS, bytes / (off_t)sizeof(float));
    wire_int(&tensor, TENSOR_TYPE, 1);
    wire_text(&tensor, TENSOR_NAME, "w");
    wire_pair(&tensor, TENSOR_EXTERNAL, "location", strrchr(numbers, '/') + 1);
    wire_int(&tensor, TENSOR_LOCATION, 1);
    wire_node(&graph, "Identity", "w", "y");
    wire_message(&graph, GRAPH_INITIALIZER, &tensor);
    wire_info(&graph, GRAPH_OUTPUT, "y", bytes / (off_t)sizeof(float));
    wire_model(&model, &graph);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(model.text, 1, model.length, file), model.length);
    fclose(file);
    str_release(&model), str_release(&graph), str_release(&tensor);
    int fd = open(numbers, O_CREAT | O_WRONLY, 0664); /* the user's own group does no harm */
    assert_int_equal(ftruncate(fd, bytes), 0);
    close(fd);
}

static void weights_are_never_copied_into_memory(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its shadow is data, too */
#endif
    char source[64], numbers[80];
    Error err = {STATUS_OK, ""};
    snprintf(source, sizeof source, "%s/large.onnx", folder);
    snprintf(numbers, sizeof numbers, "%s/large.bin", folder);
    mode_t mask = umask(002);
    write_large(source, numbers, (off_t)560 << 20);
    umask(mask);
    int result = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(save_and_verify_within_64_mb(source, &err));
    assert_int_equal(waitpid(child, &result, 0), child);
    unlink(source), unlink(numbers);
    document_remove(output());
    assert_int_equal(result, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_as_it_is_in_memory_stays),
        cmocka_unit_test(another_node_or_number_is_found),
        cmocka_unit_test(another_output_is_found),
        cmocka_unit_test(outputs_that_training_did_not_give_are_found),
        cmocka_unit_test(weights_are_never_copied_into_memory),
        cmocka_unit_test(what_rounding_does_is_no_fault_and_more_is_one),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
