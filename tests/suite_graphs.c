/* Random small graphs of mixed operators (random_graphs.c), run in every way there is.
 *
 * Of each: the graph in double through the interpreter is the reference. Against it: the file's own way (export and
 * import are not part of it), all passes and a plan of inference; a training plan with plain kernels and one with
 * layouts and fast paths, with gradients of every parameter and input; and the gradients in double against central
 * differences.
 *
 * `suite_graphs [-v] [SEED [COUNT]]` (COUNT: 150; 60 and 2000 of other sizes) prints the seed; `suite_graphs --write
 * DIR SEED COUNT` writes the graphs as DIR/graph_N.onnx for scripts/compare-graphs.py. */
#include "tests/random_graphs.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "onnx/base/rng.h"
#include "runtime/runtime.h"

enum { CHECKS = 6 };

static bool verbose;
static int failures;

/* ---- checks ------------------------------------------------------------------------------------------------------ */

typedef struct Trial {
    uint64_t seed, number;
    Arena arena;
    Array *in[VALUES_MAX]; /* double: the graph's inputs, then dy */
    int in_count;
} Trial;

static void wrong(const Trial *trial, const char *where, const char *detail)
{
    printf("FAIL seed %llu, graph %llu: %s: %s\n", (unsigned long long)trial->seed, (unsigned long long)trial->number,
           where, detail);
    failures++;
}

static Status fill(Trial *trial, const Graph *graph, Error *err)
{
    Rng rng = rng_at(trial->seed, rng_mix(trial->number, 99));
    for (size_t i = (size_t)trial->in_count; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        TRY(array_new(&trial->arena, DTYPE_F64, type->rank, type->dims, &trial->in[i], err));
        for (int64_t k = 0; k < trial->in[i]->count; k++)
            ((double *)trial->in[i]->data)[k] = (double)(float)(rng_uniform(&rng) * 2 - 1);
        trial->in_count++;
    }
    return STATUS_OK;
}

static void compare(const Trial *trial, const char *where, const Value *value, const void *data, const Array *expected,
                    double tolerance)
{
    char text[200];
    double scale = 0.1;
    for (int64_t i = 0; i < expected->count; i++)
        scale = fmax(scale, fabs(array_f64_at(expected, i)));
    if (data == NULL) {
        wrong(trial, where, value->name);
        return;
    }
    for (int64_t i = 0; i < expected->count; i++) {
        double a = array_f64_at(expected, i), b = (double)((const float *)data)[i];
        if (fabs(a - b) <= tolerance * scale)
            continue;
        snprintf(text, sizeof text, "%s[%lld] is %.9g, %.9g expected", value->name, (long long)i, b, a);
        wrong(trial, where, text);
        return;
    }
}

static Status run_plan(const Trial *trial, const char *where, Model *model, const PlanOptions *options,
                       Array *const *expected, double tolerance, Error *err)
{
    const Graph *graph = model->graph;
    Plan *plan = NULL;
    TRY(plan_build(model, NULL, options, &plan, err));
    for (size_t i = 0; i < graph->input_count; i++) {
        float *to = plan_input(plan, i);
        for (int64_t k = 0; to != NULL && k < trial->in[i]->count; k++)
            to[k] = (float)array_f64_at(trial->in[i], k);
    }
    Status status = plan_run(plan, 1, 0, false, err);
    for (size_t i = 0; i < graph->output_count && status == STATUS_OK; i++)
        compare(trial, where, graph->outputs[i], plan_output(plan, i), expected[i], tolerance);
    plan_free(plan);
    return status;
}

/* ---- with gradients ---------------------------------------------------------------------------------------------- */

/* loss = sum over outputs of sum(y dy), dy being further inputs; then gradients of all floats, as further outputs. */
static Status append_gradients(Graph *graph, Error *err)
{
    Value *wrt[4 * VALUES_MAX], *loss = NULL;
    size_t count = 0, outputs = graph->output_count, inputs = graph->input_count;
    Builder b = builder_at(graph, NULL, "loss", err);
    for (size_t i = 0; i < outputs; i++) {
        const Type *type = &graph->outputs[i]->type;
        Value *dy = graph_add_value(graph, graph_unique_name(graph, "dy"));
        type_set(&dy->type, type->dtype, type->rank, type->dims);
        graph_add_input(graph, dy);
        Value *product = build2(&b, "Mul", graph->outputs[i], dy);
        Node *sum = build_node(&b, "", "ReduceSum", &product, 1, 1);
        if (sum == NULL)
            return b.status;
        node_set_int(sum, "keepdims", 0);
        Value *part = build_finish(&b, sum);
        loss = loss == NULL ? part : build2(&b, "Add", loss, part);
    }
    TRY(b.status);
    for (size_t i = 0; i < inputs; i++)
        wrt[count++] = graph->inputs[i];
    for (size_t i = 0; i < graph->initializer_count && count < 4 * VALUES_MAX; i++)
        if (graph->initializers[i]->type.rank > 0 && graph->initializers[i]->constant->dtype == loss->type.dtype &&
            graph->initializers[i]->use_count > 0 && graph->initializers[i]->name[0] == 'c')
            wrt[count++] = graph->initializers[i];
    TRY(pass_autodiff(graph, loss, wrt, count, err));
    for (size_t i = 0; i < count; i++) {
        const Type *type = &wrt[i]->type;
        Value *own = wrt[i]->gradient != NULL /* one gradient may be that of two values; none is zero */
                         ? build1(&b, "Identity", wrt[i]->gradient)
                         : build2(&b, "Expand", build_scalar(&b, type->dtype, 0),
                                  build_ints(&b, type->dims, (size_t)type->rank));
        TRY(b.status);
        graph_rename_value(graph, own,
                           graph_unique_name(graph, arena_printf(&graph->model->arena, "d %s", wrt[i]->name)));
        graph_add_output(graph, own);
    }
    return STATUS_OK;
}

/* Initializers stay what they are: folding a constant part would take their gradients away. */
static Status prepare(Model *model, bool fused, Error *err)
{
    Graph *graph = model->graph;
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (dtype_is_float(graph->initializers[i]->constant->dtype) && graph->initializers[i]->type.rank > 0)
            graph->initializers[i]->role = ROLE_PARAMETER;
    TRY(pass_upgrade(graph, err));
    TRY(pass_infer_known(graph, err));
    if (fused) {
        TRY(pass_clean(graph, err));
        TRY(pass_fuse(graph, err));
        TRY(pass_fuse_matmul(graph, err));
    }
    TRY(append_gradients(graph, err));
    for (size_t i = 0; i < graph->initializer_count; i++)
        graph->initializers[i]->role = ROLE_CONSTANT;
    TRY(pass_expand(graph, err));
    if (fused)
        TRY(pass_fuse_elementwise(graph, err));
    return graph_check(graph, err);
}

static Status loss_at(const Trial *trial, const Graph *graph, size_t outputs, double *loss, Error *err)
{
    Arena arena;
    Array *out[8 * VALUES_MAX] = {NULL};
    long double sum = 0;
    arena_init(&arena);
    Status status = interp_run(graph, (const Array *const *)trial->in, out, &arena, 1, err);
    for (size_t i = 0; i < outputs && status == STATUS_OK; i++)
        for (int64_t k = 0; k < out[i]->count; k++)
            sum += (long double)array_f64_at(out[i], k) *
                   (long double)array_f64_at(trial->in[(size_t)trial->in_count - outputs + i], k);
    *loss = (double)sum;
    arena_release(&arena);
    return status;
}

/* A few elements of each input by differences. Where steps of two sizes disagree there is a kink between: not counted.
 */
static Status check_differences(const Trial *trial, const Graph *forward, Array *const *gradients, Error *err)
{
    const double steps[2] = {1e-5, 2.5e-6};
    const size_t outputs = forward->output_count;
    char text[160];
    for (size_t i = 0; i < forward->input_count; i++) {
        double *x = trial->in[i]->data, scale = 0.1;
        for (int64_t k = 0; k < gradients[i]->count; k++)
            scale = fmax(scale, fabs(array_f64_at(gradients[i], k)));
        for (int64_t c = 0; c < CHECKS && c < trial->in[i]->count; c++) {
            const int64_t at = c * trial->in[i]->count / CHECKS;
            double slope[2], above, below, kept = x[at];
            for (int s = 0; s < 2; s++) {
                x[at] = kept + steps[s];
                TRY(loss_at(trial, forward, outputs, &above, err));
                x[at] = kept - steps[s];
                TRY(loss_at(trial, forward, outputs, &below, err));
                x[at] = kept;
                slope[s] = (above - below) / (2 * steps[s]);
            }
            double found = array_f64_at(gradients[i], at);
            if (fabs(slope[0] - slope[1]) > 1e-6 * scale || fabs(found - slope[1]) <= 1e-5 * scale)
                continue;
            snprintf(text, sizeof text, "d %s[%lld] is %.9g, by differences %.9g", forward->inputs[i]->name,
                     (long long)at, found, slope[1]);
            wrong(trial, "gradient", text);
            return STATUS_OK;
        }
    }
    return STATUS_OK;
}

/* ---- one graph --------------------------------------------------------------------------------------------------- */

static Status check_inference(Trial *trial, Array *const *expected, Error *err)
{
    Model *model = random_graph(trial->seed, trial->number, DTYPE_F32), *working = NULL;
    Status status = working_build(model, &(WorkingOptions){0}, &working, err);
    if (status == STATUS_OK)
        status = run_plan(trial, "inference", working, &(PlanOptions){0}, expected, 2e-4, err);
    model_free(working);
    model_free(model);
    return status;
}

static Status check_training(Trial *trial, bool fast, Array *const *expected, Error *err)
{
    Model *model = random_graph(trial->seed, trial->number, DTYPE_F32);
    Status status = prepare(model, fast, err);
    const PlanOptions options = {.training = true, .plain_only = !fast};
    if (status == STATUS_OK)
        status = run_plan(trial, fast ? "training" : "training, plain", model, &options, expected, 5e-4, err);
    model_free(model);
    return status;
}

static Status check_graph(Trial *trial, Error *err)
{
    Model *reference = random_graph(trial->seed, trial->number, DTYPE_F64);
    Model *forward = random_graph(trial->seed, trial->number, DTYPE_F64);
    const size_t outputs = forward->graph->output_count;
    Array *expected[8 * VALUES_MAX] = {NULL};
    Status status;
    TRY_DONE(pass_upgrade(forward->graph, err));
    TRY_DONE(prepare(reference, false, err));
    TRY_DONE(fill(trial, reference->graph, err));
    TRY_DONE(interp_run(reference->graph, (const Array *const *)trial->in, expected, &trial->arena, 1, err));
    TRY_DONE(check_differences(trial, forward->graph, expected + outputs, err));
    TRY_DONE(check_inference(trial, expected, err));
    TRY_DONE(check_training(trial, false, expected, err));
    TRY_DONE(check_training(trial, true, expected, err));
done:
    model_free(reference);
    model_free(forward);
    return status;
}

static void run_trial(uint64_t seed, uint64_t number)
{
    Trial trial = {.seed = seed, .number = number};
    Error err = {0};
    arena_init(&trial.arena);
    if (verbose) {
        Str text;
        Model *model = random_graph(seed, number, DTYPE_F32);
        str_init(&text);
        graph_print(model->graph, &text);
        printf("%s\n", text.text);
        str_release(&text);
        model_free(model);
    }
    if (check_graph(&trial, &err) != STATUS_OK)
        wrong(&trial, "refused", err.message);
    arena_release(&trial.arena);
}

static int write_graphs(const char *folder, uint64_t seed, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        char path[400];
        Error err = {0};
        Model *model = random_graph(seed, i, DTYPE_F32);
        snprintf(path, sizeof path, "%s/graph_%llu.onnx", folder, (unsigned long long)i);
        Status status = model_export(model, path, &(ExportOptions){0}, &err);
        model_free(model);
        if (status != STATUS_OK) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const uint64_t counts[] = {[TEST_FEW] = 60, [TEST_SAMPLE] = 150, [TEST_ALL] = 2000};
    int at = 1;
    if (argc == 5 && strcmp(argv[1], "--write") == 0)
        return write_graphs(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    if (at < argc && strcmp(argv[at], "-v") == 0) {
        verbose = random_graph_tells = true;
        at++;
    }
    uint64_t seed = at < argc ? strtoull(argv[at++], NULL, 10) : 1, first = 0, count = counts[test_size()];
    if (at < argc)
        count = strtoull(argv[at++], NULL, 10);
    if (at < argc) /* one alone */
        first = strtoull(argv[at], NULL, 10), count = first + 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (uint64_t i = first; i < count; i++)
        run_trial(seed, i);
    printf("seed %llu: %llu graphs, %d failed\n", (unsigned long long)seed, (unsigned long long)(count - first),
           failures);
    return failures > 0;
}
