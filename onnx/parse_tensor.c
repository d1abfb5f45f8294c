/* Types and tensors of the text form: float[N,3] and float[2,2] {1.0, 2.0, ...}. */
#include "onnx/parse.h"

#include <inttypes.h>

/* ---- types ------------------------------------------------------------------------------------------------ */

static void parse_dim(Parser *p, Type *type)
{
    if (type->rank == RANK_MAX) {
        parser_bad(p, "more dims than a Type holds", "");
        return;
    }
    int i = type->rank++;
    type->dims[i] = -1;
    if (parser_accept(p, "?"))
        return;
    if (parser_at_name(p))
        type->symbols[i] = parser_name(p);
    else
        type->dims[i] = parser_integer(p);
}

static void parse_tensor_type(Parser *p, const char *element, Type *type)
{
    type->dtype = dtype_from_name(element);
    type->rank = 0;
    if (type->dtype == DTYPE_UNDEFINED)
        parser_bad(p, "unknown element type", element);
    if (!parser_accept(p, "["))
        return;
    if (parser_accept(p, "]")) {
        type->rank = -1;
        return;
    }
    do
        parse_dim(p, type);
    while (parser_ok(p) && parser_accept(p, ","));
    parser_expect(p, "]");
}

void parse_type(Parser *p, const char *word, Type *type)
{
    static const char *const kinds[] = {
        [TYPE_SEQUENCE] = "seq", [TYPE_OPTIONAL] = "optional", [TYPE_MAP] = "map", [TYPE_SPARSE] = "sparse_tensor"};
    memset(type, 0, sizeof *type);
    type->kind = TYPE_TENSOR;
    for (int kind = TYPE_SEQUENCE; kind <= TYPE_SPARSE; kind++)
        if (strcmp(word, kinds[kind]) == 0)
            type->kind = (TypeKind)kind;
    if (type->kind == TYPE_TENSOR) {
        parse_tensor_type(p, word, type);
        return;
    }
    parser_expect(p, "(");
    parse_tensor_type(p, parser_name(p), type);
    parser_expect(p, ")");
}

/* ---- tensors ---------------------------------------------------------------------------------------------- */

/* Elements in both readings; which counts is the dtype's affair. */
typedef struct Elements {
    double *floats;
    int64_t *ints;
    Bytes *strings;
    size_t count, wanted;
} Elements;

static void parse_element(Parser *p, DType dtype, Elements *e)
{
    if (e->count >= e->wanted) {
        parser_bad(p, "more elements than the shape has", "");
        return;
    }
    size_t i = e->count++;
    if (dtype == DTYPE_STRING) {
        e->strings[i] = parser_quoted(p);
    } else if (parser_accept(p, "true")) {
        e->floats[i] = 1, e->ints[i] = 1;
    } else if (parser_accept(p, "false")) {
        e->floats[i] = 0, e->ints[i] = 0;
    } else {
        bool whole = false;
        e->floats[i] = parser_number(p, &e->ints[i], &whole);
        if (!whole && (dtype_is_integer(dtype) || dtype == DTYPE_BOOL))
            parser_bad(p, "an integer expected in a tensor of", dtype_name(dtype));
    }
}

/* `{1, 2, 3}`; `...` repeats the last element to the end (zero when there is none), and may be followed by a hash. */
static void parse_elements(Parser *p, DType dtype, Elements *e)
{
    parser_expect(p, "{");
    while (parser_ok(p) && parser_peek(p) != '}') {
        if (!parser_accept(p, "...")) {
            parse_element(p, dtype, e);
        } else {
            size_t last = e->count;
            for (; e->count < e->wanted; e->count++) {
                e->floats[e->count] = last > 0 ? e->floats[last - 1] : 0;
                e->ints[e->count] = last > 0 ? e->ints[last - 1] : 0;
                e->strings[e->count] = last > 0 ? e->strings[last - 1] : (Bytes){"", 0};
            }
            for (parser_peek(p); parser_hex_digit(*p->at) >= 0;)
                p->at++;
        }
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, "}");
    if (parser_ok(p) && e->count != e->wanted)
        parser_bad(p, "fewer elements than the shape has", "");
}

static Tensor *tensor_of(Parser *p, const char *tensor_name, const Type *type, const Elements *e)
{
    void *data;
    bool is_complex = type->dtype == DTYPE_C64 || type->dtype == DTYPE_C128;
    if (type->dtype == DTYPE_STRING || is_complex) {
        Tensor *tensor = tensor_new(p->arena, tensor_name, type->dtype, type->rank, type->dims, &data);
        for (size_t i = 0; i < e->count; i++) {
            if (type->dtype == DTYPE_STRING)
                ((Bytes *)data)[i] = e->strings[i];
            else if (type->dtype == DTYPE_C64)
                ((float *)data)[i] = (float)e->floats[i];
            else
                ((double *)data)[i] = e->floats[i];
        }
        return tensor;
    }
    bool is_float = dtype_is_float(type->dtype);
    Array array = {.dtype = is_float ? DTYPE_F64 : DTYPE_I64, .rank = type->rank, .count = (int64_t)e->count};
    memcpy(array.dims, type->dims, sizeof array.dims);
    array.data = is_float ? (void *)e->floats : (void *)e->ints;
    Array *converted = NULL;
    if (array_convert(p->arena, &array, type->dtype, &converted, p->err) != STATUS_OK) {
        p->status = STATUS_REJECTED;
        return NULL;
    }
    return tensor_from_array(p->arena, tensor_name, converted);
}

Tensor *parse_tensor(Parser *p, const char *tensor_name, const Type *type)
{
    int64_t count = type->kind == TYPE_TENSOR ? type_count(type) : -1;
    if (parser_ok(p) && (count < 0 || count > INT32_MAX))
        parser_bad(p, "a tensor needs a shape of small numbers", "");
    if (!parser_ok(p))
        return NULL;
    bool is_complex = type->dtype == DTYPE_C64 || type->dtype == DTYPE_C128;
    Elements e = {.wanted = (size_t)count * (is_complex ? 2 : 1)};
    e.floats = arena_array(p->arena, double, e.wanted + 1);
    e.ints = arena_array(p->arena, int64_t, e.wanted + 1);
    e.strings = arena_array(p->arena, Bytes, e.wanted + 1);
    parse_elements(p, type->dtype, &e);
    return parser_ok(p) ? tensor_of(p, tensor_name, type, &e) : NULL;
}

/* `float[2] name {1, 2}`, the name optional. */
Tensor *parse_tensor_literal(Parser *p)
{
    Type type;
    parse_type(p, parser_name(p), &type);
    const char *tensor_name = parser_ok(p) && parser_at_name(p) ? parser_name(p) : NULL;
    return parse_tensor(p, tensor_name, &type);
}
