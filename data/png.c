/* PNG through libspng. 16 bits are cut to their upper 8, transparency is laid over white, palettes become RGB; files
 * that are grey stay grey. */
#include <spng.h>
#include <string.h>

#include "data/exif.h"

enum { CHUNK_MAX = 8 << 20, CHUNKS_MAX = 64 << 20 };

static void over_white(const unsigned char *rgba, Picture *picture)
{
    size_t pixels = (size_t)picture->width * (size_t)picture->height, channels = (size_t)picture->channels;
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < channels; c++) {
            unsigned alpha = rgba[4 * i + 3], value = rgba[4 * i + c];
            picture->pixels[channels * i + c] = (unsigned char)((value * alpha + 255 * (255 - alpha) + 127) / 255);
        }
}

static Status decode(spng_ctx *png, Picture *picture, const char *name, int *orientation, Error *err)
{
    struct spng_ihdr head;
    struct spng_exif exif;
    size_t bytes;
    int code = spng_get_ihdr(png, &head);
    if (code == 0 && (uint64_t)head.width * head.height > PIXELS_MAX)
        return fail(err, STATUS_REJECTED, "%s: a PNG of %u x %u pixels is beyond the limit", name, head.width,
                    head.height);
    if (code == 0)
        code = spng_decoded_image_size(png, SPNG_FMT_RGBA8, &bytes);
    if (code != 0)
        return fail(err, STATUS_REJECTED, "%s: not a readable PNG: %s", name, spng_strerror(code));
    bool grey = head.color_type == SPNG_COLOR_TYPE_GRAYSCALE || head.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
    TRY(picture_resize_buffer(picture, (int)head.width, (int)head.height, grey ? 1 : 3, err));
    unsigned char *rgba;
    TRY(block_alloc((void **)&rgba, bytes, name, err));
    code = spng_decode_image(png, rgba, bytes, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS);
    if (code == 0)
        over_white(rgba, picture);
    block_free(rgba);
    if (code != 0)
        return fail(err, STATUS_REJECTED, "%s: damaged PNG: %s", name, spng_strerror(code));
    *orientation = spng_get_exif(png, &exif) == 0 ? exif_orientation((unsigned char *)exif.data, exif.length) : 1;
    return STATUS_OK;
}

Status picture_decode_png(Picture *picture, const unsigned char *bytes, size_t size, const char *name, Error *err)
{
    spng_ctx *png = spng_ctx_new(0);
    if (png == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory to decode %s", name);
    int orientation = 1;
    spng_set_chunk_limits(png, CHUNK_MAX, CHUNKS_MAX);
    spng_set_png_buffer(png, bytes, size);
    Status status = decode(png, picture, name, &orientation, err);
    spng_ctx_free(png);
    return status == STATUS_OK ? picture_set_upright(picture, orientation, err) : status;
}
