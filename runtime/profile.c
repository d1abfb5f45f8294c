/* Where a plan's time went: a table for people, and Chrome's trace format for Perfetto. Operations come from the
 * operator's row (node_flops), bytes from the slots a step reads and writes; a step is as far from the peak as the
 * nearer of arithmetic and memory. */
#include <stdlib.h>
#include <string.h>

#include "runtime/plan.h"

typedef struct Line { /* of one operator or one step */
    const char *name, *kernel, *layout, *node;
    size_t steps;
    double seconds, flops, bytes, least; /* least: at the machine's peak */
} Line;

static bool is_narrow(const Step *step)
{
    return step->in_count > 0 && step->in[0] != NULL && step->in[0]->dtype == DTYPE_BF16;
}

static Line line_of(const Step *step, const MachinePeak *peak)
{
    static const char *const layouts[] = {"plain", "blocked", "nhwc", "opaque"};
    const Slot *out = step->out_count > 0 ? step->out[0] : NULL;
    Line line = {.name = step->node == NULL ? "(move)" : step->node->op_type,
                 .kernel = step->kernel,
                 .layout = out == NULL ? "" : layouts[out->layout],
                 .node = step->node == NULL ? "" : step->node->name,
                 .steps = 1,
                 .seconds = step->seconds,
                 .flops = step->node == NULL ? 0 : node_flops(step->node)};
    for (int i = 0; i < step->in_count; i++)
        line.bytes += step->in[i] == NULL ? 0 : (double)step->in[i]->bytes;
    for (int i = 0; i < step->out_count; i++)
        line.bytes += step->out[i] == NULL ? 0 : (double)step->out[i]->bytes;
    double rate = is_narrow(step) && peak->bf16_flops > 0 ? peak->bf16_flops : peak->f32_flops;
    double by_flops = rate > 0 ? line.flops / rate : 0, by_bytes = peak->bytes > 0 ? line.bytes / peak->bytes : 0;
    line.least = by_flops > by_bytes ? by_flops : by_bytes;
    return line;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const Line *)a)->seconds, y = ((const Line *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void print_line(Str *out, const Line *line, double total, size_t runs, bool step)
{
    double seconds = runs > 0 ? line->seconds / (double)runs : 0, safe = seconds > 0 ? seconds : 1;
    double near = seconds > 0 ? 100 * line->least / seconds : 0;
    str_printf(out, "%-26s %6zu %10.3f %6.1f %9.1f %8.1f %7.0f", line->name, step ? runs : line->steps, seconds * 1e3,
               total > 0 ? 100 * line->seconds / total : 0, line->flops / safe * 1e-9, line->bytes / safe * 1e-9, near);
    if (step)
        str_printf(out, "  %-26s %-8s %s", line->kernel, line->layout, line->node);
    str_append(out, "\n");
}

static size_t add_up(const Line *steps, size_t count, Line *sums)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < n && strcmp(sums[at].name, steps[i].name) != 0)
            at++;
        if (at == n)
            sums[n++] = (Line){.name = steps[i].name};
        sums[at].steps++;
        sums[at].seconds += steps[i].seconds;
        sums[at].flops += steps[i].flops;
        sums[at].bytes += steps[i].bytes;
        sums[at].least += steps[i].least;
    }
    return n;
}

void plan_profile(const Plan *plan, const MachinePeak *peak, Str *out)
{
    Arena arena;
    arena_init(&arena);
    Line *steps = arena_array(&arena, Line, plan->step_count + 1),
         *sums = arena_array(&arena, Line, plan->step_count + 1);
    double total = 0;
    for (size_t i = 0; i < plan->step_count; i++) {
        steps[i] = line_of(plan->steps[i], peak);
        total += steps[i].seconds;
    }
    size_t operators = add_up(steps, plan->step_count, sums);
    qsort(steps, plan->step_count, sizeof steps[0], by_time);
    qsort(sums, operators, sizeof sums[0], by_time);
    str_printf(out, "%zu runs of %.3f ms; peaks measured: %.1f GFLOP/s f32, %.1f bf16, %.1f GB/s\n", plan->runs,
               plan->runs > 0 ? total / (double)plan->runs * 1e3 : 0, peak->f32_flops * 1e-9, peak->bf16_flops * 1e-9,
               peak->bytes * 1e-9);
    str_printf(out, "\n%-26s %6s %10s %6s %9s %8s %7s\n", "operator", "steps", "ms", "%", "GFLOP/s", "GB/s", "% peak");
    for (size_t i = 0; i < operators; i++)
        print_line(out, &sums[i], total, plan->runs, false);
    str_printf(out, "\n%-26s %6s %10s %6s %9s %8s %7s  %-26s %-8s %s\n", "step", "calls", "ms", "%", "GFLOP/s", "GB/s",
               "% peak", "kernel", "layout", "node");
    for (size_t i = 0; i < plan->step_count; i++)
        print_line(out, &steps[i], total, plan->runs, true);
    arena_release(&arena);
}

/* Complete events ("X") of the last run, times in microseconds since its begin. */
void plan_trace(const Plan *plan, Str *out)
{
    static const MachinePeak none;
    double start = plan->step_count > 0 ? plan->steps[0]->begin : 0;
    str_append(out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    for (size_t i = 0; i < plan->step_count; i++) {
        const Step *step = plan->steps[i];
        Line line = line_of(step, &none);
        str_append(out, i == 0 ? "{\"name\":" : ",\n{\"name\":");
        str_append_json(out, line.name);
        str_printf(out,
                   ",\"cat\":\"step\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"node\":",
                   (step->begin - start) * 1e6, step->took * 1e6);
        str_append_json(out, line.node);
        str_append(out, ",\"kernel\":");
        str_append_json(out, line.kernel);
        str_printf(out, ",\"layout\":\"%s\",\"flops\":%.0f,\"bytes\":%.0f}}", line.layout, line.flops, line.bytes);
    }
    str_append(out, "\n]}\n");
}
