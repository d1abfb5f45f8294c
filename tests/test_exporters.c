/* Files of other exporters than PyTorch's (tests/make_exporters.py): what they compute is what ONNX Runtime said they
 * do. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "data/data.h"
#include "runtime/runtime.h"

static const Array *last_floats(Array *const *outputs, size_t count)
{
    const Array *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (outputs[i]->kind == ARRAY_TENSOR && outputs[i]->dtype == DTYPE_F32)
            found = outputs[i];
    return found;
}

static void outputs_are_those_of_onnx_runtime(void **state)
{
    (void)state;
    static const char *const names[] = {"sklearn", "keras", "tf", "paddle", "matlab", "ir3"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        Error err = {STATUS_OK, ""};
        char path[512];
        Model *model;
        Npz npz;
        Run run;
        Arena arena;
        arena_init(&arena);
        snprintf(path, sizeof path, "%s/exporters/%s.onnx", TESTS_FOLDER, names[n]);
        assert_ok(model_import(path, &builtin_ops, &model, &err), &err);
        snprintf(path, sizeof path, "%s/exporters/%s.npz", TESTS_FOLDER, names[n]);
        assert_ok(npz_open(&npz, path, &err), &err);
        const Graph *graph = model->graph;
        const Array **inputs = arena_array(&arena, const Array *, graph->input_count + 1);
        Array **outputs = arena_array(&arena, Array *, graph->output_count + 1);
        for (size_t i = 0; i < graph->input_count; i++)
            inputs[i] = npz_find(&npz, graph->inputs[i]->name); /* NULL: an initializer that is listed as an input */
        assert_ok(run_build(&run, model, inputs, &err), &err);
        assert_ok(run_planned(&run, outputs, &arena, 0, &err), &err);
        const Array *found = last_floats(outputs, graph->output_count), *wanted = npz_find(&npz, "expected");
        assert_non_null(found);
        assert_int_equal(found->count, wanted->count);
        for (int64_t i = 0; i < found->count; i++)
            if (!(fabs(array_f64_at(found, i) - array_f64_at(wanted, i)) < 1e-5))
                fail_msg("%s: element %lld is %.9g, ONNX Runtime has %.9g", names[n], (long long)i,
                         array_f64_at(found, i), array_f64_at(wanted, i));
        model_free(run.working);
        model_free(model);
        npz_release(&npz);
        arena_release(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(outputs_are_those_of_onnx_runtime)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
