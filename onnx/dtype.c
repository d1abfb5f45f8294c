/* Element types: names, sizes, and conversion between f32 and the narrow floats.
 *
 * The 8-, 6- and 4-bit floats differ in widths, bias and in what their top codes mean; one row a format (Format)
 * describes them and two short functions serve all. E8M0 has neither sign nor mantissa and is handled apart. */
#include "onnx/onnx.h"

#include <math.h>

typedef struct TypeRow {
    const char *name, *other, *brief; /* numpy's, the text form's, and a short one */
    size_t bits;
} TypeRow;

static const TypeRow rows[DTYPE_COUNT] = {
    [DTYPE_F32] = {"float32", "float", "f32", 32},
    [DTYPE_U8] = {"uint8", NULL, "u8", 8},
    [DTYPE_I8] = {"int8", NULL, "i8", 8},
    [DTYPE_U16] = {"uint16", NULL, "u16", 16},
    [DTYPE_I16] = {"int16", NULL, "i16", 16},
    [DTYPE_I32] = {"int32", NULL, "i32", 32},
    [DTYPE_I64] = {"int64", NULL, "i64", 64},
    [DTYPE_STRING] = {"string", NULL, NULL, 0},
    [DTYPE_BOOL] = {"bool", NULL, NULL, 8},
    [DTYPE_F16] = {"float16", "half", "f16", 16},
    [DTYPE_F64] = {"float64", "double", "f64", 64},
    [DTYPE_U32] = {"uint32", NULL, "u32", 32},
    [DTYPE_U64] = {"uint64", NULL, "u64", 64},
    [DTYPE_C64] = {"complex64", NULL, "c64", 64},
    [DTYPE_C128] = {"complex128", NULL, "c128", 128},
    [DTYPE_BF16] = {"bfloat16", NULL, "bf16", 16},
    [DTYPE_F8E4M3FN] = {"float8e4m3fn", NULL, NULL, 8},
    [DTYPE_F8E4M3FNUZ] = {"float8e4m3fnuz", NULL, NULL, 8},
    [DTYPE_F8E5M2] = {"float8e5m2", NULL, NULL, 8},
    [DTYPE_F8E5M2FNUZ] = {"float8e5m2fnuz", NULL, NULL, 8},
    [DTYPE_U4] = {"uint4", NULL, "u4", 4},
    [DTYPE_I4] = {"int4", NULL, "i4", 4},
    [DTYPE_F4E2M1] = {"float4e2m1", NULL, NULL, 4},
    [DTYPE_F8E8M0] = {"float8e8m0", NULL, NULL, 8},
    [DTYPE_U2] = {"uint2", NULL, "u2", 2},
    [DTYPE_I2] = {"int2", NULL, "i2", 2},
    [DTYPE_F6E2M3] = {"float6e2m3", NULL, NULL, 6},
    [DTYPE_F6E3M2] = {"float6e3m2", NULL, NULL, 6},
};

static const TypeRow *row_of(DType dtype)
{
    int number = (int)dtype; /* may come from a file */
    return number > 0 && number < DTYPE_COUNT ? &rows[number] : NULL;
}

const char *dtype_name(DType dtype)
{
    const TypeRow *row = row_of(dtype);
    return row == NULL ? "undefined" : row->name;
}

static bool same(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

DType dtype_from_name(const char *name)
{
    for (int i = 1; i < DTYPE_COUNT; i++)
        if (same(rows[i].name, name) || same(rows[i].other, name) || same(rows[i].brief, name))
            return (DType)i;
    return DTYPE_UNDEFINED;
}

size_t dtype_bits(DType dtype)
{
    const TypeRow *row = row_of(dtype);
    return row == NULL ? 0 : row->bits;
}

size_t dtype_size(DType dtype)
{
    if (dtype == DTYPE_STRING)
        return sizeof(Bytes);
    return (dtype_bits(dtype) + 7) / 8;
}

bool dtype_is_float(DType dtype)
{
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_F64:
    case DTYPE_F16:
    case DTYPE_BF16:
    case DTYPE_F8E4M3FN:
    case DTYPE_F8E4M3FNUZ:
    case DTYPE_F8E5M2:
    case DTYPE_F8E5M2FNUZ:
    case DTYPE_F4E2M1:
    case DTYPE_F6E2M3:
    case DTYPE_F6E3M2:
    case DTYPE_F8E8M0:
        return true;
    default:
        return false;
    }
}

bool dtype_is_integer(DType dtype)
{
    switch (dtype) {
    case DTYPE_U8:
    case DTYPE_I8:
    case DTYPE_U16:
    case DTYPE_I16:
    case DTYPE_U32:
    case DTYPE_I32:
    case DTYPE_U64:
    case DTYPE_I64:
    case DTYPE_U4:
    case DTYPE_I4:
    case DTYPE_U2:
    case DTYPE_I2:
        return true;
    default:
        return false;
    }
}

/* ---- 16 bits ---------------------------------------------------------------------------------------- */

static uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float bits_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31)
        return bits_f32(sign | 0x7f800000u | mantissa << 13);
    if (exponent > 0)
        return bits_f32(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = f32_bits(f), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    if (rest >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits */
        uint32_t sum = f32_bits(bits_f32(rest) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000u));
    }
    uint32_t odd = rest >> 13 & 1u;
    return (uint16_t)(sign | (rest - (112u << 23) + 0xfffu + odd) >> 13);
}

float bf16_to_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = f32_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* ---- 8, 6 and 4 bits ------------------------------------------------------------------------------------ */

typedef struct Format {
    int exponent_bits, mantissa_bits, bias;
    float max;        /* largest finite value */
    uint8_t nan;      /* without sign */
    uint8_t infinity; /* 0: the format has none */
    bool one_zero;    /* "uz": the code of -0 is the only NaN */
} Format;

static Format format_of(DType dtype)
{
    switch (dtype) {
    case DTYPE_F8E4M3FN:
        return (Format){4, 3, 7, 448, 0x7f, 0, false};
    case DTYPE_F8E4M3FNUZ:
        return (Format){4, 3, 8, 240, 0x80, 0, true};
    case DTYPE_F8E5M2:
        return (Format){5, 2, 15, 57344, 0x7f, 0x7c, false};
    case DTYPE_F8E5M2FNUZ:
        return (Format){5, 2, 16, 57344, 0x80, 0, true};
    case DTYPE_F6E2M3:
        return (Format){2, 3, 1, 7.5f, 0x20, 0, false};
    case DTYPE_F6E3M2:
        return (Format){3, 2, 3, 28, 0x20, 0, false};
    default: /* E2M1; like the 6-bit ones without NaN, which ml_dtypes and onnx map to -0 */
        return (Format){2, 1, 1, 6, 0x08, 0, false};
    }
}

static bool is_finite_only(DType dtype)
{
    return dtype == DTYPE_F4E2M1 || dtype == DTYPE_F6E2M3 || dtype == DTYPE_F6E3M2;
}

static bool code_is_nan(const Format *format, DType dtype, unsigned code, unsigned sign)
{
    if (format->one_zero)
        return code == 0 && sign != 0;
    if (dtype == DTYPE_F8E5M2)
        return code > 0x7c;
    return dtype == DTYPE_F8E4M3FN && code == 0x7f;
}

float f8_to_f32(uint8_t bits, DType dtype)
{
    if (dtype == DTYPE_F8E8M0)
        return bits == 0xff ? NAN : ldexpf(1.0f, bits - 127);
    Format format = format_of(dtype);
    int width = format.exponent_bits + format.mantissa_bits;
    unsigned sign = (unsigned)bits >> width & 1u, code = bits & ((1u << width) - 1);
    if (code_is_nan(&format, dtype, code, sign))
        return NAN;
    int exponent = (int)(code >> format.mantissa_bits), mantissa = (int)(code & ((1u << format.mantissa_bits) - 1));
    float value;
    if (format.infinity != 0 && code == format.infinity)
        value = INFINITY;
    else if (exponent == 0)
        value = ldexpf((float)mantissa, 1 - format.bias - format.mantissa_bits);
    else
        value = ldexpf((float)(mantissa + (1 << format.mantissa_bits)), exponent - format.bias - format.mantissa_bits);
    return sign != 0 ? -value : value;
}

/* Powers of two 2^-127 .. 2^127; code 255 is NaN. Rounds up, saturating at both ends, or, without `saturate`, to
 * nearest with everything out of range NaN: the two columns of Cast's table. */
static uint8_t f32_to_e8m0(float f, bool saturate)
{
    f = fabsf(f);
    if (isnan(f) || (!saturate && (f == 0 || isinf(f))))
        return 0xff;
    if (f == 0)
        return 0;
    if (isinf(f))
        return 0xfe;
    int exponent;
    float mantissa = frexpf(f, &exponent); /* in [0.5, 1) */
    int code = exponent - 1 + 127;
    if (saturate ? mantissa > 0.5f : mantissa >= 0.75f)
        code++;
    if (code > 0xfe)
        return saturate ? 0xfe : 0xff;
    return (uint8_t)(code < 0 ? 0 : code);
}

uint8_t f32_to_f8(float f, DType dtype, bool saturate)
{
    if (dtype == DTYPE_F8E8M0)
        return f32_to_e8m0(f, saturate);
    Format format = format_of(dtype);
    int width = format.exponent_bits + format.mantissa_bits;
    uint8_t sign = (uint8_t)(signbit(f) ? 1 << width : 0), sign_of_nan = format.one_zero ? 0 : sign;
    if (isnan(f))
        return is_finite_only(dtype) ? format.nan : (uint8_t)(format.nan | sign_of_nan);
    float magnitude = fabsf(f);
    int exponent = 1 - format.bias;
    if (magnitude >= ldexpf(1.0f, exponent))
        exponent = isinf(magnitude) ? 128 : ilogbf(magnitude);
    /* the value as a multiple of its last mantissa bit, rounded to nearest even */
    float steps = isinf(magnitude) ? INFINITY : rintf(ldexpf(magnitude, format.mantissa_bits - exponent));
    float rounded = ldexpf(steps, exponent - format.mantissa_bits);
    if (rounded > format.max) {
        if (!saturate && !is_finite_only(dtype))
            return format.infinity != 0 ? (uint8_t)(format.infinity | sign) : (uint8_t)(format.nan | sign_of_nan);
        steps = ldexpf(format.max, format.mantissa_bits - ilogbf(format.max));
        exponent = ilogbf(format.max);
    }
    /* a carry out of the mantissa raises the exponent by itself */
    int code = ((exponent + format.bias - 1) << format.mantissa_bits) + (int)steps;
    if (code == 0 && format.one_zero)
        return 0;
    return (uint8_t)(code | sign);
}
