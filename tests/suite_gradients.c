/* Gradients against central differences, planned kernels against `eval`, over every family's cases (gradient_cases.h).
 *
 * Of each case: the graph in double with its gradients, evaluated by the interpreter and compared with differences of
 * the forward graph; then the same graph in float32, planned three times (plain_only, with layouts and fast paths, and
 * these with channels last), compared with the double numbers; then in bf16, where the processor has it, in the
 * library's layouts and with channels last. At the end every row that has `grad` or `prepare` must have been met.
 *
 * `suite_gradients [WORD..]` runs the cases whose family or name contains a word, without that last check; -v prints
 * each. */
#include "tests/test.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/kernel.h"
#include "runtime/ops/bf16.h"
#include "runtime/runtime.h"
#include "tests/gradient_cases.h"

enum { INPUTS_MAX = 16, DIFFERENCES_MAX = 48, DIFFERENCES_FEW = 6 };

typedef struct Suite {
    Map met;     /* "domain.Name" of rows that a case went through */
    Arena arena; /* its keys */
    const OpDef *tables[64];
    OpSet ops;                /* the built-in rows and Dot */
    int run, failed, written; /* written: compared with the evals of their composites */
    bool verbose, narrow;     /* narrow: the processor has bf16 */
} Suite;

/* ---- building ------------------------------------------------------------------------------------------ */

/* `text` with the word T replaced by the float type. */
static void append_typed(Str *out, const char *text, const char *type)
{
    for (const char *c = text; c && *c; c++) {
        bool starts = c == text || !(isalnum((unsigned char)c[-1]) || c[-1] == '_');
        bool ends = !(isalnum((unsigned char)c[1]) || c[1] == '_');
        if (*c == 'T' && starts && ends)
            str_append(out, type);
        else
            str_append_bytes(out, c, 1);
    }
}

static char *case_text(const GradientCase *c, DType dtype)
{
    const char *type = dtype == DTYPE_F64 ? "double" : "float";
    Str text;
    str_init(&text);
    str_printf(&text, "<ir_version: 11, opset_import: [%s]>\ng (", c->opsets ? c->opsets : "\"\" : 28");
    append_typed(&text, c->inputs, type);
    str_append(&text, ") => ()");
    if (c->constants) {
        str_append(&text, " <");
        append_typed(&text, c->constants, type);
        str_append(&text, ">");
    }
    str_append(&text, " {\n");
    append_typed(&text, c->nodes, type);
    str_append(&text, "\n}\n");
    return text.text;
}

/* One built case. Outputs of the graph: the case's outputs, then a gradient for each wrt that has one. */
typedef struct Built {
    Model *model;
    Graph *graph;
    int input_count; /* the case's own; behind them come the dy */
    int output_count, wrt_count;
    Value *outputs[INPUTS_MAX], *wrt[INPUTS_MAX];
} Built;

static Status find_words(Graph *graph, const char *words, Value **found, int *count, Error *err)
{
    *count = 0;
    while (words && *words) {
        size_t length = strcspn(words, " ");
        char name[64];
        if (length >= sizeof name || *count == INPUTS_MAX)
            return fail(err, STATUS_USAGE, "'%s' is too long", words);
        memcpy(name, words, length);
        name[length] = '\0';
        words += length + strspn(words + length, " ");
        if (length > 0 && !(found[(*count)++] = graph_find(graph, name)))
            return fail(err, STATUS_USAGE, "no value '%s'", name);
    }
    return STATUS_OK;
}

/* Dot(y0, dy0, y1, dy1, ..) = sum(y0 * dy0) + ..: the loss of every case. Its gradient is dy itself, so that no other
 * operator is needed; the node is taken out again once the gradients are there. */
static Status dot_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, 0, NULL);
    return STATUS_OK;
}

static Status dot_grad(GradContext *context, Error *err)
{
    (void)err;
    for (int i = 0; i < context->node->input_count; i += 2)
        context->dx[i] = context->wants[i] ? context->node->inputs[i + 1] : NULL;
    return STATUS_OK;
}

/* Narrow(x) = x, lying in bf16 and, where it has channels, in the plan's layout: how inputs reach rows in a bf16 plan.
 */
static Status narrow_run(Step *step, Error *err)
{
    (void)err;
    memcpy(step->out[0]->data, step->in[0]->data, step->out[0]->bytes);
    return STATUS_OK;
}

static Status narrow_prepare(PlanContext *context, Error *err)
{
    (void)err;
    int rank = context->node->inputs[0]->type.rank;
    bool channels = rank >= 3 && rank <= 5 && type_count(&context->node->inputs[0]->type) > 0;
    Layout layout = channels ? context->family : LAYOUT_PLAIN;
    kernel_input_as(context, 0, layout, context->compute);
    kernel_output_as(context, 0, layout, context->compute);
    kernel_run(context, narrow_run, "test");
    return STATUS_OK;
}

static const OpDef dot_rows[] = {
    {.domain = "test",
     .name = "Narrow",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = infer_same,
     .prepare = narrow_prepare},
    {.domain = "test",
     .name = "Dot",
     .min_inputs = 2,
     .max_inputs = -1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = dot_infer,
     .grad = dot_grad},
    {0},
};

static Status append_loss(Built *built, Value **loss, Error *err)
{
    Graph *graph = built->graph;
    Builder b = builder_at(graph, NULL, "loss", err);
    Value *pairs[2 * INPUTS_MAX];
    for (int i = 0; i < built->output_count; i++) {
        const Type *type = &built->outputs[i]->type;
        if (!type_known(type))
            return fail(err, STATUS_REJECTED, "the shape of '%s' is not known", built->outputs[i]->name);
        Value *dy = graph_add_value(graph, graph_unique_name(graph, "dy"));
        type_set(&dy->type, type->dtype, type->rank, type->dims);
        graph_add_input(graph, dy);
        pairs[2 * i] = built->outputs[i];
        pairs[2 * i + 1] = dy;
    }
    *loss = build_finish(&b, build_node(&b, "test", "Dot", pairs, 2 * built->output_count, 1));
    return b.status;
}

static void meet(Suite *suite, const Graph *graph)
{
    for (const Node *node = graph->first; node; node = node->next) {
        if (node->op)
            map_set(&suite->met, arena_printf(&suite->arena, "%s.%s", node->domain, node->op_type), suite);
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g)
                meet(suite, node->attrs[i]->g);
    }
}

static void built_release(Built *built)
{
    if (built->model)
        model_free(built->model);
}

/* AS_WRITTEN: composites and bodies stay, their own eval runs. */
typedef enum Form { AS_WRITTEN, FORWARD, WITH_GRADIENTS } Form;

/* Parses, upgrades, infers, writes composites out; appends gradients. */
static Status build(Suite *suite, const GradientCase *c, DType dtype, Form form, Built *built, Error *err)
{
    memset(built, 0, sizeof *built);
    char *text = case_text(c, dtype);
    Status status = model_parse(text, &suite->ops, &built->model, err);
    free(text);
    TRY(status);
    Graph *graph = built->graph = built->model->graph;
    meet(suite, graph);
    TRY(find_words(graph, c->outputs ? c->outputs : "y", built->outputs, &built->output_count, err));
    for (int i = 0; i < built->output_count; i++)
        graph_add_output(graph, built->outputs[i]);
    TRY(pass_upgrade(graph, err));
    TRY(pass_infer_known(graph, err));
    if (form != AS_WRITTEN)
        TRY(pass_unroll(graph, err));
    meet(suite, graph);
    built->input_count = (int)graph->input_count;
    for (int i = 0; i < built->output_count; i++) /* a pass may have put another value in its place */
        built->outputs[i] = graph->outputs[i];
    TRY(find_words(graph, c->wrt, built->wrt, &built->wrt_count, err));
    Value *loss = NULL;
    if (form == WITH_GRADIENTS && built->wrt_count > 0) {
        TRY(append_loss(built, &loss, err));
        TRY(pass_autodiff(graph, loss, built->wrt, (size_t)built->wrt_count, err));
        node_remove(loss->producer);
    }
    if (form != AS_WRITTEN)
        TRY(pass_expand(graph, err));
    meet(suite, graph);
    for (int i = 0; i < built->wrt_count; i++)
        if (built->wrt[i]->gradient)
            graph_add_output(graph, built->wrt[i]->gradient);
    for (int i = 0; i < built->output_count; i++)
        built->outputs[i] = graph->outputs[i];
    return graph_check(graph, err);
}

/* ---- values ---------------------------------------------------------------------------------------------- */

/* What `values` says of `name`: a list in braces (its start in *list), or low..high. */
static void find_range(const char *values, const char *name, double *low, double *high, const char **list)
{
    const size_t length = strlen(name);
    *list = NULL;
    for (const char *at = values; at && *at; at++) {
        bool here = (at == values || at[-1] == ' ') && strncmp(at, name, length) == 0 && at[length] == '=';
        if (!here)
            continue;
        at += length + 1;
        if (*at == '{') {
            *list = at + 1;
            return;
        }
        char *end;
        *low = strtod(at, &end);
        end -= end > at && end[-1] == '.'; /* "0..4": the first dot is not the number's */
        *high = text_starts(end, "..") ? strtod(end + 2, NULL) : *low;
        return;
    }
}

/* Floats are rounded to float32 so that both precisions see the same numbers. */
static void write_number(Array *array, int64_t i, double value)
{
    switch ((int)array->dtype) {
    case DTYPE_F32:
        ((float *)array->data)[i] = (float)value;
        break;
    case DTYPE_F64:
        ((double *)array->data)[i] = (double)(float)value;
        break;
    case DTYPE_I64:
        ((int64_t *)array->data)[i] = (int64_t)value;
        break;
    case DTYPE_I32:
        ((int32_t *)array->data)[i] = (int32_t)value;
        break;
    default: /* bool, int8, uint8 */
        ((uint8_t *)array->data)[i] = (uint8_t)(int)value;
    }
}

static Status fill_input(const GradientCase *c, const Value *value, int index, Arena *arena, Array **out, Error *err)
{
    const Type *type = &value->type;
    const bool real = dtype_is_float(type->dtype);
    double low = real ? -1 : 0, high = 1;
    const char *list;
    if (dtype_size(type->dtype) == 2 || type->dtype == DTYPE_STRING)
        return fail(err, STATUS_USAGE, "input '%s': the suite makes no %s", value->name, dtype_name(type->dtype));
    find_range(c->values, value->name, &low, &high, &list);
    TRY(array_new(arena, type->dtype, type->rank, type->dims, out, err));
    Rng rng = rng_at(7, (uint64_t)index);
    for (int64_t i = 0; i < (*out)->count; i++) {
        double u = rng_uniform(&rng), number = real ? low + u * (high - low) : floor(low + u * (high - low + 1));
        char *end;
        if (list) {
            number = strtod(list, &end);
            if (end == list)
                return fail(err, STATUS_USAGE, "input '%s': its list has fewer than %lld numbers", value->name,
                            (long long)(*out)->count);
            list = end + strspn(end, ", ");
        }
        write_number(*out, i, number);
    }
    return STATUS_OK;
}

/* Arrays for the case's inputs and the dy behind them. */
static Status fill_inputs(const GradientCase *c, const Built *built, Arena *arena, Array **in, Error *err)
{
    if (built->graph->input_count > 2 * INPUTS_MAX)
        return fail(err, STATUS_USAGE, "too many inputs");
    for (size_t i = 0; i < built->graph->input_count; i++)
        TRY(fill_input(c, built->graph->inputs[i], (int)i, arena, &in[i], err));
    return STATUS_OK;
}

/* ---- differences ------------------------------------------------------------------------------------------- */

/* sum(y * dy) of the forward graph, dy by position behind the case's inputs. */
static Status loss_of(const Built *forward, Array *const *in, Array *const *dy, double *loss, Error *err)
{
    Arena arena;
    arena_init(&arena);
    Array *out[INPUTS_MAX] = {0};
    *loss = 0;
    Status status = interp_run(forward->graph, (const Array *const *)in, out, &arena, 1, err);
    long double sum = 0;
    for (int i = 0; status == STATUS_OK && i < forward->output_count; i++)
        for (int64_t k = 0; k < out[i]->count; k++)
            sum += (long double)array_f64_at(out[i], k) * (long double)array_f64_at(dy[i], k);
    *loss = (double)sum;
    arena_release(&arena);
    return status;
}

static Status check_number(const char *what, double expected, double found, double scale, double tolerance, int64_t at,
                           Error *err)
{
    double error = fabs(expected - found) / scale;
    if (error <= tolerance || (isnan(expected) && isnan(found)) || expected == found)
        return STATUS_OK;
    return fail(err, STATUS_DIFFERS, "%s[%lld] is %.9g, %.9g expected (error %.2g, tolerance %.2g)", what,
                (long long)at, found, expected, error, tolerance);
}

/* Up to DIFFERENCES_MAX elements of one input, spread over it; DIFFERENCES_FEW where little is asked. */
static Status check_differences(const GradientCase *c, const Built *forward, Array *const *in, Array *const *dy,
                                int input, const Array *gradient, const char *name, Error *err)
{
    const double tolerance = c->tolerance > 0 ? c->tolerance : 1e-6;
    double *x = in[input]->data, numeric[DIFFERENCES_MAX], scale = 0.1;
    const int64_t n = in[input]->count, most = test_size() == TEST_FEW ? DIFFERENCES_FEW : DIFFERENCES_MAX;
    const int64_t checks = n < most ? n : most;
    for (int64_t i = 0; i < checks; i++) {
        const int64_t at = checks < n ? i * n / checks : i;
        const double kept = x[at], step = 1e-6 * fmax(1, fabs(kept));
        double above, below;
        x[at] = kept + step;
        TRY(loss_of(forward, in, dy, &above, err));
        x[at] = kept - step;
        TRY(loss_of(forward, in, dy, &below, err));
        x[at] = kept;
        numeric[i] = (above - below) / (2 * step);
        scale = fmax(scale, fabs(numeric[i]));
    }
    for (int64_t i = 0; i < checks; i++) {
        const int64_t at = checks < n ? i * n / checks : i;
        TRY(check_number(name, numeric[i], gradient ? array_f64_at(gradient, at) : 0, scale, tolerance, at, err));
    }
    return STATUS_OK;
}

/* ---- plans --------------------------------------------------------------------------------------------------- */

static Status check_plan_output(const GradientCase *c, const Value *value, const void *data, const Array *expected,
                                Error *err)
{
    const double tolerance = c->plan_tolerance > 0 ? c->plan_tolerance : 2e-5;
    const DType dtype = value->type.dtype;
    double scale = 0.1;
    if (expected->count > 0 && !data)
        return fail(err, STATUS_DIFFERS, "the plan has no output '%s'", value->name);
    for (int64_t i = 0; i < expected->count; i++)
        if (isfinite(array_f64_at(expected, i)))
            scale = fmax(scale, fabs(array_f64_at(expected, i)));
    Array found = {.kind = ARRAY_TENSOR, .dtype = dtype, .count = expected->count, .data = (void *)(uintptr_t)data};
    for (int64_t i = 0; i < expected->count; i++)
        TRY(check_number(value->name, array_f64_at(expected, i), array_f64_at(&found, i), scale, tolerance, i, err));
    return STATUS_OK;
}

/* |found - expected| / |expected| over the finite numbers of one output. */
static Status check_narrow_output(const GradientCase *c, const Value *value, const void *data, const Array *expected,
                                  Error *err)
{
    const double tolerance = c->narrow_tolerance > 0 ? c->narrow_tolerance : 2e-2;
    Array found = {
        .kind = ARRAY_TENSOR, .dtype = value->type.dtype, .count = expected->count, .data = (void *)(uintptr_t)data};
    double distance = 0, norm = 1e-4 * (double)expected->count;
    for (int64_t i = 0; i < expected->count; i++) {
        double a = array_f64_at(expected, i), b = array_f64_at(&found, i);
        if (isfinite(a) != isfinite(b))
            return fail(err, STATUS_DIFFERS, "%s[%lld] is %.9g, %.9g expected", value->name, (long long)i, b, a);
        if (!isfinite(a))
            continue;
        distance += (a - b) * (a - b);
        norm += a * a;
    }
    if (sqrt(distance / norm) <= tolerance || expected->count == 0)
        return STATUS_OK;
    return fail(err, STATUS_DIFFERS, "%s differs by %.3g of its norm, tolerance %.2g", value->name,
                sqrt(distance / norm), tolerance);
}

static Status check_plan(const GradientCase *c, const Built *built, Array *const *in, Array *const *expected,
                         const PlanOptions *wanted, Error *err)
{
    PlanOptions options = *wanted;
    options.training = built->wrt_count > 0;
    bool narrow = options.precision == PRECISION_BF16;
    Plan *plan = NULL;
    TRY(plan_build(built->model, NULL, &options, &plan, err));
    for (size_t i = 0; i < built->graph->input_count; i++) {
        void *to = plan_input(plan, i);
        if (to)
            memcpy(to, in[i]->data, (size_t)in[i]->count * dtype_size(in[i]->dtype));
    }
    Status status = plan_run(plan, 1, 0, false, err);
    for (size_t i = 0; status == STATUS_OK && i < built->graph->output_count; i++)
        status = narrow ? check_narrow_output(c, built->graph->outputs[i], plan_output(plan, i), expected[i], err)
                        : check_plan_output(c, built->graph->outputs[i], plan_output(plan, i), expected[i], err);
    plan_free(plan);
    return status;
}

/* The case built anew, since preparing may append to the model, and planned in one way. */
static Status check_planned_so(Suite *suite, const GradientCase *c, Array *const *expected, const char *name,
                               const PlanOptions *options, Arena *arena, Error *err)
{
    Built built = {0};
    Array *in[2 * INPUTS_MAX] = {0};
    Status status;
    TRY_DONE(build(suite, c, DTYPE_F32, WITH_GRADIENTS, &built, err));
    TRY_DONE(fill_inputs(c, &built, arena, in, err));
    if (!options->plain_only) {
        TRY_DONE(pass_fuse_elementwise(built.graph, err));
        TRY_DONE(graph_check(built.graph, err));
        meet(suite, built.graph);
    }
    TRY_DONE(check_plan(c, &built, in, expected, options, err));
done:
    if (status != STATUS_OK)
        error_prefix(err, "%s plan", name);
    built_release(&built);
    return status;
}

static Status check_plans(Suite *suite, const GradientCase *c, Array *const *expected, Arena *arena, Error *err)
{
    TRY(check_planned_so(suite, c, expected, "plain", &(PlanOptions){.plain_only = true}, arena, err));
    TRY(check_planned_so(suite, c, expected, "fast", &(PlanOptions){0}, arena, err));
    return check_planned_so(suite, c, expected, "channels-last", &(PlanOptions){.channels_last = true}, arena, err);
}

static void narrow_numbers(Array *array)
{
    for (int64_t i = 0; i < array->count; i++) {
        if (array->dtype == DTYPE_F32)
            ((float *)array->data)[i] = bf16_to_float(bf16_from_float(((float *)array->data)[i]));
        else if (array->dtype == DTYPE_F64)
            ((double *)array->data)[i] = (double)bf16_to_float(bf16_from_float((float)((double *)array->data)[i]));
    }
}

/* Running statistics are kept in f32, never computed. */
static bool is_statistic(const Value *value)
{
    for (size_t i = 0; i < value->use_count; i++)
        if (value->uses[i].index >= 3 && text_starts(value->uses[i].node->op_type, "BatchNorm"))
            return true;
    return false;
}

/* Every float input goes through a Narrow. */
static Status narrow_inputs(Graph *graph, Error *err)
{
    for (size_t i = 0; i < graph->input_count; i++) {
        Value *input = graph->inputs[i];
        if (input->type.dtype != DTYPE_F32 || input->use_count == 0 || is_statistic(input))
            continue;
        Node *node = graph_add_node(graph, graph->first, "test", "Narrow", 1, input->name, NULL, 0, 1);
        value_replace_uses(input, node->outputs[0]);
        node_add_input(node, input);
        TRY(node_infer(node, err));
    }
    return STATUS_OK;
}

static Status check_narrow(Suite *suite, const GradientCase *c, bool channels_last, Arena *arena, Error *err)
{
    const PlanOptions options = {.precision = PRECISION_BF16, .channels_last = channels_last};
    Built built = {0}, wide = {0};
    Array *in[2 * INPUTS_MAX] = {0}, *wide_in[2 * INPUTS_MAX] = {0}, *expected[2 * INPUTS_MAX] = {0};
    Status status;
    TRY_DONE(build(suite, c, DTYPE_F64, WITH_GRADIENTS, &wide, err));
    TRY_DONE(fill_inputs(c, &wide, arena, wide_in, err));
    TRY_DONE(build(suite, c, DTYPE_F32, WITH_GRADIENTS, &built, err));
    TRY_DONE(fill_inputs(c, &built, arena, in, err));
    for (size_t i = 0; i < built.graph->input_count; i++) {
        narrow_numbers(in[i]);
        narrow_numbers(wide_in[i]);
    }
    TRY_DONE(interp_run(wide.graph, (const Array *const *)wide_in, expected, arena, 1, err));
    TRY_DONE(pass_fuse_elementwise(built.graph, err));
    TRY_DONE(narrow_inputs(built.graph, err));
    TRY_DONE(check_plan(c, &built, in, expected, &options, err));
done:
    if (status != STATUS_OK)
        error_prefix(err, channels_last ? "channels-last bf16 plan" : "bf16 plan");
    built_release(&built);
    built_release(&wide);
    return status;
}

/* ---- one case -------------------------------------------------------------------------------------------------- */

static Status check_gradients(const GradientCase *c, const Built *built, const Built *forward, Array **in, Array **out,
                              Error *err)
{
    int next = built->output_count;
    for (int i = 0; i < built->wrt_count; i++) {
        const Value *wrt = built->wrt[i];
        int input = 0;
        while (input < built->input_count && built->graph->inputs[input] != wrt)
            input++;
        if (input == built->input_count)
            return fail(err, STATUS_USAGE, "'%s' is not an input", wrt->name);
        const Array *gradient = wrt->gradient ? out[next++] : NULL;
        char name[80];
        snprintf(name, sizeof name, "d %s", wrt->name);
        TRY(check_differences(c, forward, in, in + built->input_count, input, gradient, name, err));
    }
    return STATUS_OK;
}

static bool draws(const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        if (node->op != NULL && (node->op->traits & OP_RANDOM) != 0)
            return true;
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && draws(node->attrs[i]->g))
                return true;
    }
    return false;
}

/* What a composite or a body is written out as computes what its own eval does; `out` are the results of the first. */
static Status check_written_out(Suite *suite, const GradientCase *c, Array **in, Array *const *out, Error *err)
{
    Built written = {0};
    Array *own[2 * INPUTS_MAX] = {0};
    Arena arena;
    Error why = {STATUS_OK, ""};
    arena_init(&arena);
    Status status = build(suite, c, DTYPE_F64, AS_WRITTEN, &written, err);
    if (status == STATUS_OK && !draws(written.graph)) {
        status = interp_run(written.graph, (const Array *const *)in, own, &arena, 1, &why);
        if (status == STATUS_UNSUPPORTED) { /* it has no eval */
            status = STATUS_OK;
            own[0] = NULL;
        } else if (status != STATUS_OK) {
            fail(err, status, "%s", why.message);
        }
    }
    suite->written += status == STATUS_OK && own[0] != NULL;
    for (int i = 0; i < written.output_count && status == STATUS_OK && own[0] != NULL; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s as written", written.outputs[i]->name);
        if (own[i]->count != out[i]->count)
            status = fail(err, STATUS_DIFFERS, "%s has %lld elements, %lld expected", name, (long long)own[i]->count,
                          (long long)out[i]->count);
        for (int64_t k = 0; k < out[i]->count && status == STATUS_OK; k++) {
            double expected = array_f64_at(own[i], k);
            status = check_number(name, expected, array_f64_at(out[i], k), fmax(fabs(expected), 1), 1e-6, k, err);
        }
    }
    built_release(&written);
    arena_release(&arena);
    return status;
}

static Status run_case(Suite *suite, const GradientCase *c, Error *err)
{
    Built built = {0}, forward = {0};
    Array *in[2 * INPUTS_MAX] = {0}, *out[2 * INPUTS_MAX] = {0};
    Arena arena;
    arena_init(&arena);
    Status status;
    TRY_DONE(build(suite, c, DTYPE_F64, WITH_GRADIENTS, &built, err));
    TRY_DONE(fill_inputs(c, &built, &arena, in, err));
    TRY_DONE(interp_run(built.graph, (const Array *const *)in, out, &arena, 1, err));
    TRY_DONE(check_written_out(suite, c, in, out, err));
    if (built.wrt_count > 0) {
        TRY_DONE(build(suite, c, DTYPE_F64, FORWARD, &forward, err));
        TRY_DONE(check_gradients(c, &built, &forward, in, out, err));
    }
    if (!c->no_plan)
        TRY_DONE(check_plans(suite, c, out, &arena, err));
    for (int last = 0; last < 2 && !c->no_plan && suite->narrow; last++)
        TRY_DONE(check_narrow(suite, c, last == 1, &arena, err));
done:
    built_release(&built);
    built_release(&forward);
    arena_release(&arena);
    return status;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static bool chosen(const CaseFamily *family, const GradientCase *c, int word_count, char **words)
{
    for (int i = 0; i < word_count; i++)
        if (strstr(family->name, words[i]) || strstr(c->name, words[i]))
            return true;
    return word_count == 0;
}

static void run_family(Suite *suite, const CaseFamily *family, int word_count, char **words)
{
    for (const GradientCase *c = family->cases; c->name; c++) {
        if (!chosen(family, c, word_count, words))
            continue;
        Error err = {0};
        suite->run++;
        bool good = run_case(suite, c, &err) == STATUS_OK;
        suite->failed += !good;
        if (!good)
            printf("FAIL %s/%s: %s\n", family->name, c->name, err.message);
        else if (suite->verbose)
            printf("ok   %s/%s\n", family->name, c->name);
        fflush(stdout);
    }
}

/* Rows with a gradient or a planned kernel that no case went through. */
static int report_unmet(const Suite *suite)
{
    int unmet = 0;
    for (size_t f = 0; f < builtin_ops.count; f++)
        for (const OpDef *row = builtin_ops.families[f]; row->name; row++) {
            char key[128];
            snprintf(key, sizeof key, "%s.%s", row->domain ? row->domain : "", row->name);
            if ((!row->grad && !row->prepare) || map_has(&suite->met, key))
                continue;
            printf("FAIL %s has a %s and no case\n", key, row->grad ? "gradient" : "planned kernel");
            unmet++;
        }
    return unmet;
}

int main(int argc, char **argv)
{
    Suite suite = {0};
    suite.narrow = precision_check(PRECISION_BF16, NULL) == STATUS_OK;
    map_init(&suite.met);
    arena_init(&suite.arena);
    for (size_t i = 0; i < builtin_ops.count; i++)
        suite.tables[i] = builtin_ops.families[i];
    suite.tables[builtin_ops.count] = dot_rows;
    suite.ops = (OpSet){suite.tables, builtin_ops.count + 1};
    int first = 1;
    if (argc > 1 && strcmp(argv[1], "-v") == 0) {
        suite.verbose = true;
        first = 2;
    }
    for (const CaseFamily *family = case_families; family->name != NULL; family++)
        run_family(&suite, family, argc - first, argv + first);
    int unmet = argc == first ? report_unmet(&suite) : 0;
    printf("%d cases, %d of them compared as written, %d failed, %d rows without a case\n", suite.run, suite.written,
           suite.failed, unmet);
    map_release(&suite.met);
    arena_release(&suite.arena);
    return suite.failed > 0 || unmet > 0;
}
