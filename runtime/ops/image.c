/* ImageDecoder: the bytes of a picture file to [height, width, channels]. JPEG and PNG go through data/; uncompressed
 * BMP and binary PNM are read here. JPEG 2000, TIFF and WebP are refused by name. Bytes that are no picture give an
 * empty tensor, as ONNX wants it. */
#include "runtime/ops/ops.h"

#include <string.h>

#include "data/data.h"

typedef struct Bits {
    const unsigned char *data;
    size_t size;
} Bits;

static uint32_t little(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

/* Rows of blue, green, red (and a fourth byte), bottom up unless the height is negative; each padded to four bytes. */
static Status decode_bmp(Bits in, Picture *picture, Error *err)
{
    if (in.size < 54)
        return fail(err, STATUS_REJECTED, "BMP of %zu bytes", in.size);
    const size_t offset = little(in.data + 10, 4), depth = little(in.data + 28, 2);
    const int32_t width = (int32_t)little(in.data + 18, 4), signed_height = (int32_t)little(in.data + 22, 4);
    const bool down = signed_height < 0;
    const int64_t height = down ? -(int64_t)signed_height : signed_height;
    const uint32_t compression = little(in.data + 30, 4);
    if (compression != 0 || (depth != 24 && depth != 32))
        return fail(err, STATUS_UNSUPPORTED, "BMP of %zu bits a pixel, compression %u", depth, compression);
    const size_t bytes = depth / 8, row = ((size_t)width * bytes + 3) / 4 * 4;
    if (width < 1 || height < 1 || width > 1 << 16 || height > 1 << 16 || offset > in.size ||
        row * (size_t)height > in.size - offset)
        return fail(err, STATUS_REJECTED, "BMP of %d by %lld pixels in %zu bytes", width, (long long)height, in.size);
    TRY(picture_resize_buffer(picture, width, (int)height, 3, err));
    for (int64_t y = 0; y < height; y++) {
        const unsigned char *from = in.data + offset + (size_t)(down ? y : height - 1 - y) * row;
        unsigned char *to = picture->pixels + (size_t)(y * width) * 3;
        for (int32_t x = 0; x < width; x++)
            for (size_t c = 0; c < 3; c++)
                to[(size_t)x * 3 + c] = from[(size_t)x * bytes + 2 - c];
    }
    return STATUS_OK;
}

/* The next number of a PNM header, behind blanks and comments; -1 when there is none. */
static int64_t pnm_number(Bits in, size_t *at)
{
    while (*at < in.size && (in.data[*at] <= ' ' || in.data[*at] == '#')) {
        const bool comment = in.data[(*at)++] == '#';
        while (comment && *at < in.size && in.data[*at] != '\n')
            (*at)++;
    }
    int64_t value = -1;
    for (; *at < in.size && in.data[*at] >= '0' && in.data[*at] <= '9' && value < 1 << 20; (*at)++)
        value = (value < 0 ? 0 : value * 10) + (in.data[*at] - '0');
    return value;
}

/* P5: grey, P6: RGB, both binary with 8 bits. */
static Status decode_pnm(Bits in, Picture *picture, Error *err)
{
    size_t at = 2;
    const int channels = in.data[1] == '6' ? 3 : 1;
    const int64_t width = pnm_number(in, &at), height = pnm_number(in, &at), top = pnm_number(in, &at);
    at++; /* one blank */
    if ((in.data[1] != '5' && in.data[1] != '6') || top != 255)
        return fail(err, STATUS_UNSUPPORTED, "PNM of kind P%c with values to %lld", in.data[1], (long long)top);
    if (width < 1 || height < 1 || width > 1 << 16 || height > 1 << 16 || at > in.size ||
        (size_t)(width * height * channels) > in.size - at)
        return fail(err, STATUS_REJECTED, "PNM of %lld by %lld pixels in %zu bytes", (long long)width,
                    (long long)height, in.size);
    TRY(picture_resize_buffer(picture, (int)width, (int)height, channels, err));
    memcpy(picture->pixels, in.data + at, (size_t)(width * height * channels));
    return STATUS_OK;
}

static bool begins(Bits in, size_t offset, const char *magic, size_t length)
{
    return in.size >= offset + length && memcmp(in.data + offset, magic, length) == 0;
}

static Status decode(Bits in, Picture *picture, const char *name, Error *err)
{
    if (begins(in, 0, "\xff\xd8", 2))
        return picture_decode_jpeg(picture, in.data, in.size, 0, name, err);
    if (begins(in, 0, "\x89PNG", 4))
        return picture_decode_png(picture, in.data, in.size, name, err);
    if (begins(in, 0, "BM", 2))
        return decode_bmp(in, picture, err);
    if (in.size > 2 && in.data[0] == 'P' && in.data[1] >= '1' && in.data[1] <= '7')
        return decode_pnm(in, picture, err);
    if (begins(in, 0, "II*\0", 4) || begins(in, 0, "MM\0*", 4))
        return fail(err, STATUS_UNSUPPORTED, "%s: TIFF is not decoded", name);
    if (begins(in, 8, "WEBP", 4))
        return fail(err, STATUS_UNSUPPORTED, "%s: WebP is not decoded", name);
    if (begins(in, 4, "jP  ", 4) || begins(in, 0, "\xff\x4f\xff\x51", 4))
        return fail(err, STATUS_UNSUPPORTED, "%s: JPEG 2000 is not decoded", name);
    return fail(err, STATUS_REJECTED, "%s: no picture", name);
}

static void swap_red_and_blue(unsigned char *pixels, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const unsigned char red = pixels[3 * i];
        pixels[3 * i] = pixels[3 * i + 2];
        pixels[3 * i + 2] = red;
    }
}

static Status decoder_output(EvalContext *context, Picture *picture, const char *format, Error *err)
{
    const int channels = strcmp(format, "Grayscale") == 0 ? 1 : 3;
    Array *out;
    if (picture->width > 0)
        TRY(picture_to_channels(picture, channels, err));
    const int64_t dims[3] = {picture->height, picture->width, channels};
    TRY(eval_output(context, 0, DTYPE_U8, 3, dims, &out, err));
    if (out->count > 0)
        memcpy(out->data, picture->pixels, (size_t)out->count);
    if (strcmp(format, "BGR") == 0)
        swap_red_and_blue(out->data, dims[0] * dims[1]);
    return STATUS_OK;
}

static Status decoder_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, DTYPE_U8, -1, NULL);
    return STATUS_OK;
}

static Status decoder_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const char *format = node_string(context->node, "pixel_format", "RGB");
    if (x->dtype != DTYPE_U8 || x->rank != 1)
        return eval_fail(context, err, "input is %s of rank %d, uint8 of rank 1 expected", dtype_name(x->dtype),
                         x->rank);
    if (strcmp(format, "RGB") != 0 && strcmp(format, "BGR") != 0 && strcmp(format, "Grayscale") != 0)
        return eval_fail(context, err, "pixel_format '%s'", format);
    Picture picture = {0};
    Error own = {0};
    Status status = decode((Bits){x->data, (size_t)x->count}, &picture, node_text(context->node), &own);
    if (status == STATUS_REJECTED) /* broken bytes: an empty result */
        picture.width = picture.height = 0;
    else if (status != STATUS_OK)
        status = fail(err, status, "%s", own.message);
    if (status == STATUS_OK || status == STATUS_REJECTED)
        status = decoder_output(context, &picture, format, err);
    picture_release(&picture);
    return status;
}

/* clang-format off */
const OpDef ops_image[] = {
    {.name = "ImageDecoder", .since = 20, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = decoder_infer, .eval = decoder_eval,
     .no_gradient = "pictures are data"},
    {0},
};
/* clang-format on */
