/* What was written is read back and compared with what is in memory: as text, byte for byte, and by what it computes.
 *
 * The outputs of the file for one small batch must be those of the document in memory, bit for bit: both run through
 * the same kernels. After training there is a stronger witness, the outputs that the trained store itself gave; there
 * the graph was fused otherwise and narrow weights had more digits, so a tolerance remains, and what rounding alone
 * does is measured. */
#include "cli/verify.h"

#include <math.h>
#include <unistd.h>

#include "cli/print.h"
#include "onnx/base/rng.h"
#include "passes/surgery.h"
#include "runtime/runtime.h"

/* ---- text and bytes ---------------------------------------------------------------------------------------- */

static Tensor *initializer_of(const Graph *graph, const char *name)
{
    const Value *value = graph_find(graph, name);
    return value != NULL && value->is_initializer ? value->constant : NULL;
}

static bool line_of(const char *lines, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = lines; at != NULL && (at = strstr(at, name)) != NULL; at++)
        if ((at == lines || at[-1] == '\n') && (at[length] == '\n' || at[length] == '\0'))
            return true;
    return false;
}

/* What is equal is held once from here on: the written one uses the other's bytes.
 * `made`: names of parameters that a new head brought; an old one may have borne the same name. */
static Status same_initializers(const Model *a, const Model *b, const char *made, bool all, Error *err)
{
    const Graph *written = a->graph, *original = b->graph;
    size_t compared = 0;
    for (size_t i = 0; i < original->initializer_count; i++) {
        const Value *value = original->initializers[i];
        Tensor *other = initializer_of(written, value->name);
        if (value->constant == NULL || (other == NULL && !all) || line_of(made, value->name))
            continue;
        if (other == NULL || !tensor_equal(value->constant, other))
            return fail(err, STATUS_UNVERIFIED, "initializer '%s' %s", value->name,
                        other == NULL ? "was not written" : "has other bytes than before");
        compared += other->data == value->constant->data ? 0 : other->bytes;
        other->data = value->constant->data;
        if (compared < MODEL_REST_BYTES)
            continue;
        model_rest(a);
        model_rest(b);
        compared = 0;
    }
    return STATUS_OK;
}

/* Types of inner values are remarks behind #; a file need not hold them. */
static void drop_remarks(Str *text)
{
    char *to = text->text;
    for (const char *from = text->text; *from != '\0'; from++) {
        if (from[0] == ' ' && from[1] == '#')
            from += strcspn(from, "\n");
        *to++ = *from;
    }
    *to = '\0';
}

static Status same_graph(const Model *a, const Model *b, Error *err)
{
    Str first, second;
    str_init(&first);
    str_init(&second);
    model_print(a, &first);
    model_print(b, &second);
    if (first.length > 0 && second.length > 0) {
        drop_remarks(&first);
        drop_remarks(&second);
    }
    bool same = strcmp(first.text, second.text) == 0;
    size_t line = 1;
    for (size_t i = 0; !same && first.text[i] == second.text[i]; i++)
        line += first.text[i] == '\n';
    str_release(&first);
    str_release(&second);
    return same ? STATUS_OK
                : fail(err, STATUS_UNVERIFIED, "what was written is not what is in memory (line %zu of the text form)",
                       line);
}

/* Shapes that fitted before must still fit. */
static Status same_fit(Model *written, Model *original, Error *err)
{
    Error now = {STATUS_OK, ""};
    if (shapes_symbolic(written, NULL, &now) != STATUS_REJECTED || shapes_symbolic(original, NULL, NULL) != STATUS_OK)
        return STATUS_OK;
    return fail(err, STATUS_UNVERIFIED, "%s", now.message);
}

/* Two ways to compute the same are this many times further apart than three draws of one of them were seen to be. */
enum { WITNESS_ROUNDINGS = 8 };

/* ---- outputs ------------------------------------------------------------------------------------------------- */

/* One inference, planned where that can be, as the verb `run` does it; the outputs by position, in `arena`. */
static Status compute(Model *model, const Array **inputs, Array **outputs, Arena *arena, Error *err)
{
    Run run = {0};
    Status status = run_build(&run, model, inputs, err);
    if (status == STATUS_OK)
        status = run_planned(&run, outputs, arena, 0, err);
    if (status == STATUS_UNSUPPORTED && run.working != NULL) {
        error_clear(err);
        status = run_interpreted(&run, outputs, arena, 0, err);
    }
    model_free(run.working);
    return status;
}

/* Small whole numbers are valid as tokens, classes and indices; floats lie in [-1, 1). */
static Status fill_random(const Array *array, uint64_t stream, Error *err)
{
    Rng rng = rng_at(0x5eed, stream);
    if (array->dtype == DTYPE_F32) {
        for (int64_t i = 0; i < array->count; i++)
            ((float *)array->data)[i] = (float)(2 * rng_uniform(&rng) - 1);
    } else if (array->dtype == DTYPE_I64) {
        for (int64_t i = 0; i < array->count; i++)
            ((int64_t *)array->data)[i] = (int64_t)rng_below(&rng, 2);
    } else {
        return fail(err, STATUS_UNSUPPORTED, "no example can be made in %s", dtype_name(array->dtype));
    }
    return STATUS_OK;
}

static Status random_input(const Value *input, const Binding *binding, Arena *arena, uint64_t stream, const Array **out,
                           Error *err)
{
    DType wanted = input->type.dtype;
    bool number = dtype_is_float(wanted) || dtype_is_integer(wanted) || wanted == DTYPE_BOOL;
    Array *drawn, *converted;
    if (!number)
        return fail(err, STATUS_UNSUPPORTED, "no example can be made for input '%s'", input->name);
    TRY(array_new(arena, dtype_is_float(wanted) ? DTYPE_F32 : DTYPE_I64, binding->rank, binding->dims, &drawn, err));
    TRY(fill_random(drawn, stream, err));
    TRY(array_convert(arena, drawn, wanted, &converted, err));
    *out = converted;
    return STATUS_OK;
}

static Status random_inputs(Model *document, int64_t batch, Arena *arena, const Array **inputs, Error *err)
{
    const Graph *graph = document->graph;
    Binding *bindings = arena_array(arena, Binding, graph->input_count + 1);
    size_t count = shapes_example(document, batch, bindings);
    for (size_t i = 0; i < graph->input_count; i++) {
        if (!value_is_fed_input(graph->inputs[i]))
            continue;
        const Binding *binding = NULL;
        for (size_t k = 0; k < count && binding == NULL; k++)
            binding = strcmp(bindings[k].input, graph->inputs[i]->name) == 0 ? &bindings[k] : NULL;
        if (binding == NULL)
            return fail(err, STATUS_UNSUPPORTED, "no example can be made for input '%s'", graph->inputs[i]->name);
        TRY(random_input(graph->inputs[i], binding, arena, i, &inputs[i], err));
    }
    return STATUS_OK;
}

/* Two samples; one where the model was exported for one. */
static Status compute_example(Model *document, Arena *arena, const Array **inputs, Array **outputs, Error *err)
{
    Error first = {STATUS_OK, ""};
    for (int64_t batch = 2; batch >= 1; batch--) {
        Error why = {STATUS_OK, ""};
        Status status = random_inputs(document, batch, arena, inputs, &why);
        if (status == STATUS_OK)
            status = compute(document, inputs, outputs, arena, &why);
        if (status == STATUS_OK)
            return STATUS_OK;
        if (batch == 2)
            first = why;
    }
    return fail(err, first.status, "%s", first.message);
}

static Status same_array(const char *name, const Array *a, const Array *b, Error *err)
{
    bool alike = a->kind == ARRAY_TENSOR && b->kind == ARRAY_TENSOR && a->dtype == b->dtype && a->rank == b->rank &&
                 a->count == b->count && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
    if (!alike)
        return fail(err, STATUS_UNVERIFIED, "output '%s' has another type than in memory", name);
    if (a->dtype == DTYPE_STRING || memcmp(a->data, b->data, (size_t)a->count * dtype_size(a->dtype)) == 0)
        return STATUS_OK;
    for (int64_t i = 0; i < a->count; i++) {
        double x = array_f64_at(a, i), y = array_f64_at(b, i);
        if (x < y || x > y || isnan(x) != isnan(y))
            return fail(err, STATUS_UNVERIFIED, "output '%s' is %.9g in memory and %.9g in the file, at element %lld",
                        name, x, y, (long long)i);
    }
    return STATUS_OK;
}

/* Surgery on what is larger than this is bounded by the disk: running it would take several times as long, and a copy
 * of the weights. */
static const size_t recompute_bytes = (size_t)512 << 20;

/* The document in memory and the file, on made-up inputs. What cannot be run here is not compared, and said. */
static Status same_answers(Model *document, Model *written, Arena *arena, Error *err)
{
    const Graph *graph = document->graph;
    const Array **inputs = arena_array(arena, const Array *, graph->input_count + 1);
    Array **now = arena_array(arena, Array *, graph->output_count + 1);
    Array **then = arena_array(arena, Array *, graph->output_count + 1);
    Error why = {STATUS_OK, ""};
    if (compute_example(document, arena, inputs, now, &why) != STATUS_OK) {
        say_note("the file's outputs were not recomputed: %s", why.message);
        return STATUS_OK;
    }
    TRY(compute(written, inputs, then, arena, err));
    for (size_t i = 0; i < graph->output_count; i++)
        TRY(same_array(graph->outputs[i]->name, now[i], then[i], err));
    return STATUS_OK;
}

/* The first output of the file for the samples of the witness. */
static Status witness_output(Model *written, const Witness *witness, const Array *samples, const Array **output,
                             Arena *arena, Error *err)
{
    const Graph *graph = written->graph;
    const Array **inputs = arena_array(arena, const Array *, graph->input_count + 1);
    Array **outputs = arena_array(arena, Array *, graph->output_count + 1);
    for (size_t i = 0, k = 0; i < graph->input_count; i++) {
        Array *converted;
        if (!value_is_fed_input(graph->inputs[i]) || k >= witness->input_count)
            continue;
        TRY(array_convert(arena, &samples[k++], graph->inputs[i]->type.dtype, &converted, err));
        inputs[i] = converted;
    }
    TRY(compute(written, inputs, outputs, arena, err));
    if (outputs[0]->kind != ARRAY_TENSOR || outputs[0]->count != (int64_t)witness->count)
        return fail(err, STATUS_UNVERIFIED, "output '%s' has another shape than in training", graph->outputs[0]->name);
    *output = outputs[0];
    return STATUS_OK;
}

/* Every float one unit in its last place up or down: then every sum behind it is rounded otherwise. */
static Status shaken(const Array *sample, uint64_t stream, Arena *arena, Array *to, Error *err)
{
    Array *copy;
    *to = *sample;
    if (sample->dtype != DTYPE_F32)
        return STATUS_OK;
    TRY(array_new(arena, sample->dtype, sample->rank, sample->dims, &copy, err));
    Rng rng = rng_at(0x5eed, stream);
    for (int64_t i = 0; i < sample->count; i++)
        ((float *)copy->data)[i] =
            nextafterf(((const float *)sample->data)[i], rng_uniform(&rng) < 0.5 ? -INFINITY : INFINITY);
    *to = *copy;
    return STATUS_OK;
}

/* How far rounding alone moves the output: the same file, the same kernels, inputs that differ by a unit in the last
 * place. */
static Status rounding_of(Model *written, const Witness *witness, const Array *output, Arena *arena, double *most,
                          Error *err)
{
    Array *samples = arena_array(arena, Array, witness->input_count + 1);
    *most = 0;
    for (uint64_t draw = 0; draw < 3; draw++) {
        const Array *other;
        for (size_t i = 0; i < witness->input_count; i++)
            TRY(shaken(&witness->inputs[i], rng_mix(draw, i), arena, &samples[i], err));
        TRY(witness_output(written, witness, samples, &other, arena, err));
        for (int64_t i = 0; i < output->count; i++) /* a NaN counts for nothing */
            *most = fmax(*most, fabs(array_f64_at(other, i) - array_f64_at(output, i)));
    }
    return STATUS_OK;
}

/* The file against what training computed. Where that is further apart than it should be, the file itself is asked how
 * well float32 determines its outputs: a head on features that hardly differ subtracts large numbers that are nearly
 * equal. */
static Status same_as_witness(Model *written, const Witness *witness, Arena *arena, Error *err)
{
    const Array *output;
    const char *name = written->graph->outputs[0]->name;
    TRY(witness_output(written, witness, witness->inputs, &output, arena, err));
    double most = 0, off = 0, rounding;
    for (size_t i = 0; i < witness->count; i++) {
        double found = array_f64_at(output, (int64_t)i), wanted = (double)witness->rows[i];
        most = fmax(most, fabs(wanted));
        off = isnan(found) != isnan(wanted) ? INFINITY : fmax(off, fabs(found - wanted));
    }
    if (off <= witness->tolerance * most)
        return STATUS_OK;
    TRY(rounding_of(written, witness, output, arena, &rounding, err));
    if (isfinite(off) && off <= (double)WITNESS_ROUNDINGS * rounding) {
        say_note(
            "output '%s' is sure to about %.2g of %.2g only: that much it moves when inputs change in their last bit",
            name, fmax(off, rounding), most);
        return STATUS_OK;
    }
    return fail(err, STATUS_UNVERIFIED,
                "output '%s' differs from training's by %.3g (largest value %.3g, allowed %.3g)", name, off, most,
                fmax(witness->tolerance * most, (double)WITNESS_ROUNDINGS * rounding));
}

static Status same_outputs(Model *document, Model *written, const Witness *witness, Error *err)
{
    Arena arena;
    arena_init(&arena);
    Status status = STATUS_OK;
    if (weight_bytes(document->graph) <= recompute_bytes)
        status = same_answers(document, written, &arena, err);
    else if (witness == NULL)
        say_note("the file's outputs were not recomputed: %s of weights; every byte of them was compared",
                 human_bytes(weight_bytes(document->graph)).text);
    if (status == STATUS_OK && witness != NULL && witness->count > 0)
        status = same_as_witness(written, witness, &arena, err);
    arena_release(&arena);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static Status verify(Model *document, Model *original, const Witness *witness, bool stripped, const char *output,
                     Error *err)
{
    Model *written;
    TRY(document_open(output, &written, err));
    Status status = model_check(written, err);
    if (status == STATUS_OK)
        status = same_initializers(written, document, NULL, true, err);
    model_rest(written);
    if (status == STATUS_OK && !stripped)
        status = same_graph(document, written, err);
    if (status == STATUS_OK && original != NULL)
        status = same_initializers(written, original, model_metadata(document, "regraft.head"), false, err);
    if (status == STATUS_OK && original != NULL)
        status = same_fit(written, original, err);
    if (status == STATUS_OK)
        status = same_outputs(document, written, witness, err);
    model_free(written);
    return status;
}

Status document_verify(Model *document, Model *original, const Witness *witness, bool stripped, const char *output,
                       Error *err)
{
    Error found = {STATUS_OK, ""};
    if (verify(document, original, witness, stripped, output, &found) == STATUS_OK)
        return STATUS_OK;
    document_remove(output);
    return fail(err, STATUS_UNVERIFIED, "%s: verification failed, nothing kept: %s", output, found.message);
}
