/* The Regraft side of bench/run: one net, one batch, steps on demand, so that rounds can be interleaved with another
 * program.
 *
 *     bench_step MODEL MODE BATCH_FOLDER LOSS OPTIMIZER LR [key=value ...]
 *
 * MODE: full (every parameter is trained), head (the last linear layer), last:N, forward (frozen trunk, nothing
 * trained). BATCH_FOLDER holds `input_K.bin` for each graph input and `target.bin`, raw little-endian rows with
 * `shapes.txt` naming "input_K dtype dims...". Keys: `profile=1`, `precision=bf16`, `winograd=0` (direct convolutions
 * only), `memory=900M` (what the process may take). A key that this build does not know is an error. Commands on stdin,
 * answers on stdout, one line each:
 *
 *     step N   ->  milliseconds of each of N steps, then `loss L` (forward: the outputs' mean absolute value)
 *
 *     profile  ->  the plan, one line a step, then `.`
 *
 *     memory   ->  peak resident kilobytes, minor faults
 *
 *     version  ->  oneDNN's version
 *
 *     quit */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "passes/passes.h"
#include "runtime/dnnl.h"
#include "runtime/runtime.h"

typedef struct Bench {
    Model *document, *working;
    ParamList params;
    ParamStore *store;
    Plan *plan;
    PlanOptions plan_options;
    OptimizerSpec optimizer;
    LossSpec loss;
    Binding bindings[16];
    size_t binding_count, memory; /* memory: limit in bytes, 0: none */
    PlanBudget budget;
    bool trains;
    uint64_t step;
    Error err;
} Bench;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void check(Bench *bench, Status status)
{
    if (status == STATUS_OK)
        return;
    fprintf(stderr, "bench_step: %s\n", bench->err.message);
    exit((int)status);
}

static LossKind loss_kind(const char *name)
{
    return strcmp(name, "lm") == 0    ? LOSS_LM
           : strcmp(name, "mse") == 0 ? LOSS_MSE
           : strcmp(name, "bce") == 0 ? LOSS_BCE
                                      : LOSS_SOFTMAX_CE;
}

/* "input_0 float32 16 3 224 224" a line; the target is the last line. */
static size_t read_shapes(const char *folder, Binding *bindings, const Graph *graph, size_t limit)
{
    char path[1024], name[64], dtype[64], line[512];
    snprintf(path, sizeof path, "%s/shapes.txt", folder);
    FILE *file = fopen(path, "r");
    size_t count = 0;
    while (file != NULL && count < limit && fgets(line, sizeof line, file) != NULL) {
        int at = 0, more = 0;
        if (sscanf(line, "%63s %63s%n", name, dtype, &at) != 2 || strncmp(name, "input_", 6) != 0)
            continue;
        Binding *binding = &bindings[count];
        *binding = (Binding){.input = graph->inputs[count]->name};
        long long dim;
        while (sscanf(line + at, "%lld%n", &dim, &more) == 1 && binding->rank < RANK_MAX) {
            binding->dims[binding->rank++] = dim;
            at += more;
        }
        count++;
    }
    if (file == NULL || count == 0) {
        fprintf(stderr, "bench_step: %s: no shapes\n", path);
        exit(3);
    }
    fclose(file);
    return count;
}

static void choose_parameters(Bench *bench, const char *mode)
{
    check(bench, params_find(bench->document, false, &bench->params, &bench->err));
    bool all = strcmp(mode, "full") == 0, none = strcmp(mode, "forward") == 0;
    bool *selected = calloc(bench->params.count + 1, sizeof *selected);
    if (!all && !none)
        check(bench, params_select(bench->document, &bench->params, &mode, 1, selected, &bench->err));
    for (size_t i = 0; i < bench->params.count; i++)
        bench->params.items[i].trainable = all ? bench->params.items[i].trainable : !none && selected[i];
    free(selected);
    bench->trains = !none;
}

static void fill_inputs(Bench *bench, const char *folder)
{
    for (size_t i = 0; i < bench->working->graph->input_count; i++) {
        const Value *input = bench->working->graph->inputs[i];
        char path[1024];
        bool target = bench->trains && i + 1 == bench->working->graph->input_count;
        snprintf(path, sizeof path, target ? "%s/target.bin" : "%s/input_%zu.bin", folder, i);
        FILE *file = fopen(path, "rb");
        size_t bytes = (size_t)type_count(&input->type) * dtype_size(input->type.dtype);
        void *data = plan_input(bench->plan, i);
        if (data == NULL)
            continue;
        if (file == NULL || fread(data, 1, bytes, file) != bytes) {
            fprintf(stderr, "bench_step: %s: %zu bytes expected\n", path, bytes);
            exit(3);
        }
        fclose(file);
    }
}

/* 900M, 1.5G, 4096: bytes, K M G of 1024. */
static bool parse_bytes(const char *text, size_t *bytes)
{
    char *end;
    double number = strtod(text, &end);
    const char *unit = *end == '\0' ? "" : strchr("KMG", *end);
    if (end == text || !(number > 0) || unit == NULL || (*end != '\0' && end[1] != '\0'))
        return false;
    *bytes = (size_t)(number * (*unit == 'K' ? 1 << 10 : *unit == 'M' ? 1 << 20 : *unit == 'G' ? 1 << 30 : 1));
    return true;
}

/* key=value behind the other arguments. */
static void set_option(Bench *bench, const char *option)
{
    if (strncmp(option, "profile=", 8) == 0) {
        bench->plan_options.profile = option[8] == '1';
        return;
    }
    if (strncmp(option, "winograd=", 9) == 0) {
        bench->plan_options.winograd = option[9] == '1';
        return;
    }
    if (strncmp(option, "memory=", 7) == 0 && parse_bytes(option + 7, &bench->memory))
        return;
    if (strncmp(option, "precision=", 10) == 0 && precision_parse(option + 10, &bench->plan_options.precision))
        return;
    fprintf(stderr, "bench_step: '%s' is not available in this build\n", option);
    exit(2);
}

/* memory= is about the whole process: what it has and what the library will add is taken off first. */
static size_t left_of(size_t memory)
{
    size_t taken = process_resident() + PROCESS_LIBRARY_BYTES;
    return memory == 0 ? 0 : memory > taken ? memory - taken : 1;
}

static Status make_working(void *context, Model **working, Error *err)
{
    Bench *bench = context;
    WorkingOptions options = {.bindings = bench->bindings,
                              .binding_count = bench->binding_count,
                              .training = bench->trains,
                              .params = &bench->params,
                              .losses = bench->trains ? &bench->loss : NULL,
                              .loss_count = bench->trains ? 1 : 0,
                              .gradients = bench->trains};
    return working_build(bench->document, &options, working, err);
}

static void build(Bench *bench, char **argv)
{
    check(bench, model_import(argv[1], &builtin_ops, &bench->document, &bench->err));
    choose_parameters(bench, argv[2]);
    bench->binding_count = read_shapes(argv[3], bench->bindings, bench->document->graph, 16);
    bench->loss = (LossSpec){.kind = loss_kind(argv[4]), .weight = 1, .ignore_index = -1, .target_name = "target"};
    OptimizerKind kind = OPTIMIZER_SGD;
    if (!optimizer_parse(argv[5], &kind)) {
        fprintf(stderr, "bench_step: no optimizer '%s'\n", argv[5]);
        exit(2);
    }
    bench->optimizer = optimizer_default(kind);
    bench->optimizer.lr = strtod(argv[6], NULL);
    model_rest(bench->document);
    size_t memory = left_of(bench->memory);
    check(bench, params_new(&bench->params, &bench->store, &bench->err));
    model_rest(bench->document); /* parameters are in the store now */
    size_t states = (size_t)optimizer_states(&bench->optimizer) * bench->store->total * sizeof(float);
    memory = memory > states ? memory - states : memory > 0;
    bench->plan_options.training = bench->trains;
    PlanMaker maker = {make_working, bench};
    check(bench, plan_build_within(&maker, bench->store, &bench->plan_options, memory, &bench->working, &bench->plan,
                                   &bench->budget, &bench->err));
    fill_inputs(bench, argv[3]);
}

static void one_step(Bench *bench)
{
    bench->step++;
    check(bench, plan_run(bench->plan, 0, bench->step, false, &bench->err));
    double norm;
    if (bench->trains)
        check(bench,
              optimizer_step(&bench->optimizer, bench->store, bench->step, bench->optimizer.lr, &norm, &bench->err));
}

/* What the other side must agree with: the loss, or the mean absolute value of the outputs where nothing is trained. */
static double result(const Bench *bench)
{
    size_t last = bench->working->graph->output_count - 1;
    const float *out = plan_output(bench->plan, last);
    if (bench->trains)
        return (double)out[0];
    int64_t count = type_count(&bench->working->graph->outputs[last]->type);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += fabs((double)out[i]);
    return sum / (double)count;
}

static void steps(Bench *bench, int n)
{
    for (int i = 0; i < n; i++) {
        double begin = now_ms();
        one_step(bench);
        printf("%.3f ", now_ms() - begin);
    }
    printf("loss %.7g\n", result(bench));
}

static void answer(Bench *bench, const char *line)
{
    int n = 0;
    if (sscanf(line, "step %d", &n) == 1) {
        steps(bench, n);
    } else if (strncmp(line, "memory", 6) == 0) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        printf("%ld %ld\n", usage.ru_maxrss, usage.ru_minflt);
    } else if (strncmp(line, "version", 7) == 0) {
        const dnnl_version_t *v = dnnl_version();
        printf("%d.%d.%d\n", v->major, v->minor, v->patch);
    } else if (strncmp(line, "profile", 7) == 0) {
        Str text;
        str_init(&text);
        plan_describe(bench->plan, &text);
        printf("%s.\n", text.text);
        str_release(&text);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: bench_step MODEL MODE BATCH_FOLDER LOSS OPTIMIZER LR [key=value ...]\n");
        return 2;
    }
    Bench bench = {.plan_options = {.winograd = true}}; /* as `regraft tune` has it */
    for (int i = 7; i < argc; i++)
        set_option(&bench, argv[i]);
    double begin = now_ms();
    build(&bench, argv);
    PlanBill bill = plan_bill(bench.plan);
    printf("ready %.1f ms, activations %zu, parameters %zu, gradients %zu, constants %zu, workspace %zu, inputs %zu, "
           "again %.3f\n",
           now_ms() - begin, bill.activations, bill.parameters, bill.gradients, bill.constants, bill.workspace,
           bill.inputs, bench.budget.again);
    fflush(stdout);
    char line[128];
    while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "quit", 4) != 0)
        answer(&bench, line);
    plan_free(bench.plan);
    params_free(bench.store);
    model_free(bench.working);
    model_free(bench.document);
    return 0;
}
