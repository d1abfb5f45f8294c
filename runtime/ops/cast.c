/* Conversions between element types: Cast, CastLike, BitCast.
 *
 * Numbers go through array_convert; apart from it are handled the 8-bit floats with an attribute that says how to leave
 * their range, and strings. Between floats a gradient flows back, converted; it does not flow through integers. */
#include "runtime/ops/elementwise.h"

#include <errno.h>
#include <inttypes.h>

/* ---- 8-bit floats: saturate and round_mode ----------------------------------------------------------------------- */

typedef enum RoundMode { ROUND_UP, ROUND_DOWN, ROUND_NEAREST } RoundMode;

static RoundMode round_mode(const Node *node)
{
    const char *mode = node_string(node, "round_mode", "up");
    return strcmp(mode, "down") == 0 ? ROUND_DOWN : strcmp(mode, "nearest") == 0 ? ROUND_NEAREST : ROUND_UP;
}

/* A power of two 2^(code - 127); 255 is NaN. Beyond the range: its ends with `saturate`, else NaN. */
static uint8_t to_e8m0(float x, RoundMode mode, bool saturate)
{
    x = fabsf(x);
    if (isnan(x))
        return 0xff;
    if (x == 0 || isinf(x))
        return !saturate ? 0xff : x == 0 ? 0 : 0xfe;
    int exponent;
    float mantissa = frexpf(x, &exponent); /* [0.5, 1) */
    int code = exponent + 126;
    if (mode == ROUND_UP ? mantissa > 0.5F : mode == ROUND_NEAREST && mantissa >= 0.75F)
        code++;
    if (code < 0 || code > 0xfe)
        return !saturate ? 0xff : code < 0 ? 0 : 0xfe;
    return (uint8_t)code;
}

static bool is_f8(DType dtype)
{
    return dtype == DTYPE_F8E4M3FN || dtype == DTYPE_F8E4M3FNUZ || dtype == DTYPE_F8E5M2 || dtype == DTYPE_F8E5M2FNUZ ||
           dtype == DTYPE_F8E8M0;
}

static Status to_f8(EvalContext *context, const Array *in, DType to, Error *err)
{
    bool saturate = node_int(context->node, "saturate", 1) != 0;
    RoundMode mode = round_mode(context->node);
    Array *out;
    TRY(eval_output(context, 0, to, in->rank, in->dims, &out, err));
    uint8_t *codes = out->data;
    for (int64_t i = 0; i < in->count; i++) {
        float x = (float)array_f64_at(in, i);
        codes[i] = to == DTYPE_F8E8M0 ? to_e8m0(x, mode, saturate) : f32_to_f8(x, to, saturate);
    }
    return STATUS_OK;
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

/* The shortest text that reads back as the same number, written as numpy does: 0.1, 1e-07, 1.5e+20. */
static Bytes float_text(Arena *arena, double x, bool single)
{
    if (isnan(x) || isinf(x)) {
        const char *text = isnan(x) ? "nan" : x < 0 ? "-inf" : "inf";
        return (Bytes){text, strlen(text)};
    }
    char text[400]; /* of %f of a double */
    int digits = 0;
    do
        snprintf(text, sizeof text, "%.*e", digits, x);
    while ((single ? (double)strtof(text, NULL) != x : strtod(text, NULL) != x) && ++digits < 17);
    int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (x == 0 || (exponent >= -4 && exponent < 16)) {
        int decimals = digits - exponent;
        snprintf(text, sizeof text, "%.*f", decimals > 1 ? decimals : 1, x);
    }
    size_t length = strlen(text);
    return (Bytes){arena_strndup(arena, text, length), length};
}

static Bytes number_text(Arena *arena, const Array *in, int64_t i)
{
    if (dtype_is_float(in->dtype))
        return float_text(arena, array_f64_at(in, i), in->dtype != DTYPE_F64);
    char *text;
    if (in->dtype == DTYPE_BOOL)
        text = arena_strdup(arena, array_i64_at(in, i) != 0 ? "True" : "False");
    else if (in->dtype == DTYPE_U64)
        text = arena_printf(arena, "%" PRIu64, (uint64_t)array_i64_at(in, i));
    else
        text = arena_printf(arena, "%" PRId64, array_i64_at(in, i));
    return (Bytes){text, strlen(text)};
}

static Status to_strings(EvalContext *context, const Array *in, Error *err)
{
    Array *out;
    TRY(eval_output(context, 0, DTYPE_STRING, in->rank, in->dims, &out, err));
    for (int64_t i = 0; i < in->count; i++)
        ((Bytes *)out->data)[i] = number_text(context->arena, in, i);
    return STATUS_OK;
}

/* Numbers as C and the standard's text write them; "inf" and "nan" in any case. Whole numbers keep all their digits. */
static Status from_strings(EvalContext *context, const Array *in, DType to, Error *err)
{
    int64_t dims[1] = {in->count};
    Array *numbers;
    bool whole = dtype_is_integer(to);
    TRY(array_new(context->arena, whole ? DTYPE_I64 : DTYPE_F64, 1, dims, &numbers, err));
    for (int64_t i = 0; i < in->count; i++) {
        Bytes bytes = ((const Bytes *)in->data)[i];
        char *text = arena_strndup(context->arena, bytes.data, bytes.length), *end = text;
        errno = 0;
        if (whole)
            ((int64_t *)numbers->data)[i] =
                to == DTYPE_U64 ? (int64_t)strtoull(text, &end, 10) : (int64_t)strtoll(text, &end, 10);
        if (!whole || *end == '.' || *end == 'e' || *end == 'E') {
            double value = strtod(text, &end);
            if (whole)
                ((int64_t *)numbers->data)[i] = (int64_t)value;
            else
                ((double *)numbers->data)[i] = value;
        }
        if (end == text || *end != '\0')
            return eval_fail(context, err, "'%s' is not a number", text);
    }
    numbers->rank = in->rank;
    memcpy(numbers->dims, in->dims, sizeof numbers->dims);
    return array_convert(context->arena, numbers, to, &context->out[0], err);
}

/* ---- Cast, CastLike ---------------------------------------------------------------------------------------------- */

static bool is_like(const Node *node)
{
    return strcmp(node->op_type, "CastLike") == 0;
}

static Status cast_array(EvalContext *context, const Array *in, DType to, Error *err)
{
    if (in->dtype == to)
        return eval_output_same(context, 0, in, err);
    if (in->dtype == DTYPE_STRING)
        return from_strings(context, in, to, err);
    if (to == DTYPE_STRING)
        return to_strings(context, in, err);
    if (is_f8(to))
        return to_f8(context, in, to, err);
    return array_convert(context->arena, in, to, &context->out[0], err);
}

static Status cast_eval(EvalContext *context, Error *err)
{
    DType to = is_like(context->node) ? context->in[1]->dtype : (DType)node_int(context->node, "to", 0);
    Status status = cast_array(context, context->in[0], to, err);
    if (status != STATUS_OK)
        error_prefix(err, "%s", node_text(context->node));
    return status;
}

static Status cast_infer(Node *node, Error *err)
{
    DType to = is_like(node) ? node->inputs[1]->type.dtype : (DType)node_int(node, "to", 0);
    if (dtype_size(to) == 0)
        return infer_fail(node, err, "to an unknown element type (%d)", (int)to);
    TRY(infer_same(node, err));
    node->outputs[0]->type.dtype = to;
    return STATUS_OK;
}

static Status cast_grad(GradContext *context, Error *err)
{
    (void)err;
    DType from = context->node->inputs[0]->type.dtype;
    if (context->dy[0] == NULL || !context->wants[0] || !dtype_is_float(from))
        return STATUS_OK;
    context->dx[0] = context->dy[0];
    if (context->dy[0]->type.dtype == from)
        return STATUS_OK;
    Node *back = build_node(&context->b, "", "Cast", &context->dy[0], 1, 1);
    if (back != NULL)
        node_set_int(back, "to", (int64_t)from);
    context->dx[0] = build_finish(&context->b, back);
    return context->b.status;
}

/* Before opset 6 the type was a name. */
static Status cast_upgrade(Node *node, Error *err)
{
    const Attr *attr = node_attr(node, "to");
    if (attr == NULL || attr->type != ATTR_STRING)
        return STATUS_OK;
    char name[24] = "";
    for (size_t i = 0; i < attr->s.length && i < sizeof name - 1; i++) {
        char c = attr->s.data[i];
        name[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    DType to = dtype_from_name(name);
    if (to == DTYPE_UNDEFINED)
        return infer_fail(node, err, "to an unknown element type ('%s')", attr->s.data);
    node_set_int(node, "to", (int64_t)to);
    return STATUS_OK;
}

/* ---- planned: the pairs that masks, indices and scores need ------------------------------------------------------ */

typedef void (*Convert)(const void *from, void *to, int64_t begin, int64_t end);

#define CONVERT(name, from_type, to_type, expression)                                                                  \
    static void name(const void *from, void *to, int64_t begin, int64_t end)                                           \
    {                                                                                                                  \
        const from_type *in = from;                                                                                    \
        to_type *out = to;                                                                                             \
        for (int64_t i = begin; i < end; i++) {                                                                        \
            from_type x = in[i];                                                                                       \
            out[i] = (to_type)(expression);                                                                            \
        }                                                                                                              \
    }

CONVERT(i64_to_f32, int64_t, float, x)
CONVERT(i32_to_f32, int32_t, float, x)
CONVERT(u8_to_f32, uint8_t, float, x)
CONVERT(bool_to_f32, uint8_t, float, x != 0)
CONVERT(f32_to_bool, float, uint8_t, x != 0)
CONVERT(i64_to_bool, int64_t, uint8_t, x != 0)
CONVERT(i32_to_bool, int32_t, uint8_t, x != 0)
CONVERT(bool_to_i64, uint8_t, int64_t, x != 0)
CONVERT(i64_to_i32, int64_t, int32_t, x)
CONVERT(i32_to_i64, int32_t, int64_t, x)

static Convert convert_for(DType from, DType to)
{
    static const struct {
        DType from, to;
        Convert convert;
    } pairs[] = {
        {DTYPE_I64, DTYPE_F32, i64_to_f32},   {DTYPE_I32, DTYPE_F32, i32_to_f32},
        {DTYPE_U8, DTYPE_F32, u8_to_f32},     {DTYPE_BOOL, DTYPE_F32, bool_to_f32},
        {DTYPE_F32, DTYPE_BOOL, f32_to_bool}, {DTYPE_I64, DTYPE_BOOL, i64_to_bool},
        {DTYPE_I32, DTYPE_BOOL, i32_to_bool}, {DTYPE_BOOL, DTYPE_I64, bool_to_i64},
        {DTYPE_I64, DTYPE_I32, i64_to_i32},   {DTYPE_I32, DTYPE_I64, i32_to_i64},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (pairs[i].from == from && pairs[i].to == to)
            return pairs[i].convert;
    return NULL;
}

typedef struct CastState {
    Convert convert;
    Step *step;
} CastState;

static void cast_range(int64_t begin, int64_t end, void *context)
{
    const CastState *state = context;
    state->convert(state->step->in[0]->data, state->step->out[0]->data, begin, end);
}

static Status cast_run(Step *step, Error *err)
{
    (void)err;
    enum { GRAIN = 16384 };
    parallel_for(slot_count(step->out[0]), GRAIN, cast_range, step->state);
    return STATUS_OK;
}

static Status cast_prepare(PlanContext *context, Error *err)
{
    DType from = context->node->inputs[0]->type.dtype, to = context->node->outputs[0]->type.dtype;
    if (from == to) {
        kernel_output_view(context, 0, 0);
        return STATUS_OK;
    }
    Convert convert = convert_for(from, to);
    if (convert == NULL)
        return kernel_eval(context, err);
    CastState *state = kernel_state(context, sizeof *state);
    *state = (CastState){convert, context->step};
    kernel_input(context, 0, LAYOUT_PLAIN);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_run(context, cast_run, "own:cast");
    return STATUS_OK;
}

/* ---- BitCast: the same bits under another type ------------------------------------------------------------------- */

static Status bitcast_infer(Node *node, Error *err)
{
    DType from = node->inputs[0]->type.dtype, to = (DType)node_int(node, "to", 0);
    if (dtype_bits(to) == 0 || dtype_bits(to) != dtype_bits(from))
        return infer_fail(node, err, "%s and %s are not of the same width", dtype_name(from), dtype_name(to));
    TRY(infer_same(node, err));
    node->outputs[0]->type.dtype = to;
    return STATUS_OK;
}

static Status bitcast_eval(EvalContext *context, Error *err)
{
    const Array *in = context->in[0];
    DType to = (DType)node_int(context->node, "to", 0);
    size_t bits = dtype_bits(to);
    if (bits == 0 || bits != dtype_bits(in->dtype))
        return eval_fail(context, err, "%s and %s are not of the same width", dtype_name(in->dtype), dtype_name(to));
    Array *out;
    TRY(eval_output(context, 0, to, in->rank, in->dims, &out, err));
    if (bits >= 8) {
        memcpy(out->data, in->data, (size_t)in->count * dtype_size(to));
        return STATUS_OK;
    }
    bool is_signed = to == DTYPE_I4 || to == DTYPE_I2;
    for (int64_t i = 0; i < in->count; i++) {
        int code = ((const uint8_t *)in->data)[i] & ((1 << bits) - 1);
        ((int8_t *)out->data)[i] = (int8_t)(is_signed && code >> (bits - 1) ? code - (1 << bits) : code);
    }
    return STATUS_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

const OpDef ops_cast[] = {
    {.name = "Cast",
     .since = 1,
     .last = OPSET_NEWEST,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ELEMENTWISE | OP_ANY_DTYPE,
     .infer = cast_infer,
     .eval = cast_eval,
     .grad = cast_grad,
     .upgrade = cast_upgrade,
     .prepare = cast_prepare},
    {.name = "CastLike",
     .since = 15,
     .last = OPSET_NEWEST,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ANY_DTYPE,
     .infer = cast_infer,
     .eval = cast_eval,
     .grad = cast_grad,
     .prepare = cast_prepare},
    {.name = "BitCast",
     .since = 26,
     .last = OPSET_NEWEST,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ELEMENTWISE | OP_ANY_DTYPE,
     .infer = bitcast_infer,
     .eval = bitcast_eval,
     .no_gradient = "bits taken for something else have no derivative"},
    {0},
};
