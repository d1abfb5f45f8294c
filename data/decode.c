/* Picture files by their content: which decoder, how it lies (EXIF), how many channels. The decoders are in jpeg.c and
 * png.c. */
#include <string.h>

#include "data/data.h"
#include "data/exif.h"

void picture_release(Picture *picture)
{
    block_free(picture->pixels);
    memset(picture, 0, sizeof *picture);
}

Status picture_reserve(Picture *picture, size_t bytes, Error *err)
{
    void *pixels;
    if (bytes <= picture->capacity)
        return STATUS_OK;
    TRY(block_alloc(&pixels, bytes, "a picture", err));
    block_free(picture->pixels);
    picture->pixels = pixels;
    picture->capacity = bytes;
    return STATUS_OK;
}

Status picture_resize_buffer(Picture *picture, int width, int height, int channels, Error *err)
{
    size_t bytes;
    if (width <= 0 || height <= 0 || !size_mul((size_t)width, (size_t)height, &bytes) ||
        !size_mul(bytes, (size_t)channels, &bytes))
        return fail(err, STATUS_REJECTED, "a picture of %d x %d pixels", width, height);
    TRY(picture_reserve(picture, bytes, err));
    picture->width = width;
    picture->height = height;
    picture->channels = channels;
    return STATUS_OK;
}

Status picture_decode(Picture *picture, const unsigned char *bytes, size_t size, int least, const char *name,
                      Error *err)
{
    static const unsigned char png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    if (size == 0)
        return fail(err, STATUS_REJECTED, "%s: is empty", name);
    if (size >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF)
        return picture_decode_jpeg(picture, bytes, size, least, name, err);
    if (size >= sizeof png && memcmp(bytes, png, sizeof png) == 0)
        return picture_decode_png(picture, bytes, size, name, err);
    return fail(err, STATUS_REJECTED, "%s: is neither JPEG nor PNG", name);
}

/* L = (19595 R + 38470 G + 7471 B + 0x8000) / 2^16: ITU-R 601-2 luma in fixed point */
static void to_grey(Picture *picture)
{
    size_t pixels = (size_t)picture->width * (size_t)picture->height;
    unsigned char *p = picture->pixels;
    for (size_t i = 0; i < pixels; i++)
        p[i] = (unsigned char)((19595u * p[3 * i] + 38470u * p[3 * i + 1] + 7471u * p[3 * i + 2] + 0x8000u) >> 16);
    picture->channels = 1;
}

Status picture_to_channels(Picture *picture, int channels, Error *err)
{
    if (picture->channels == channels)
        return STATUS_OK;
    if (channels == 1) {
        to_grey(picture);
        return STATUS_OK;
    }
    if (channels != 3)
        return fail(err, STATUS_REJECTED, "a picture has 1 or 3 channels, the model wants %d", channels);
    Picture rgb = {0};
    TRY(picture_resize_buffer(&rgb, picture->width, picture->height, 3, err));
    size_t pixels = (size_t)picture->width * (size_t)picture->height;
    for (size_t i = 0; i < pixels; i++)
        memset(rgb.pixels + 3 * i, picture->pixels[i], 3);
    picture_release(picture);
    *picture = rgb;
    return STATUS_OK;
}

/* ---- EXIF ---------------------------------------------------------------------------------------------------- */

static unsigned read_int(const unsigned char *p, int bytes, bool big)
{
    unsigned value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | p[big ? i : bytes - 1 - i];
    return value;
}

int exif_orientation(const unsigned char *tiff, size_t size)
{
    if (size < 8 || (memcmp(tiff, "II*", 3) != 0 && memcmp(tiff, "MM\0*", 4) != 0))
        return 1;
    bool big = tiff[0] == 'M';
    size_t at = read_int(tiff + 4, 4, big);
    if (at > size || size - at < 2)
        return 1;
    unsigned entries = read_int(tiff + at, 2, big);
    at += 2;
    for (unsigned i = 0; i < entries && size - at >= 12; i++, at += 12) {
        if (read_int(tiff + at, 2, big) != 0x0112) /* Orientation */
            continue;
        unsigned value = read_int(tiff + at + 8, 2, big);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

/* Where pixel (x, y) of the upright picture lies in the stored one, by orientation: EXIF 2.32, tag 0x0112. */
static size_t stored_at(const Picture *stored, int orientation, int x, int y)
{
    int w = stored->width - 1, h = stored->height - 1, sx = x, sy = y;
    switch (orientation) {
    case 2:
        sx = w - x;
        break;
    case 3:
        sx = w - x;
        sy = h - y;
        break;
    case 4:
        sy = h - y;
        break;
    case 5:
        sx = y;
        sy = x;
        break;
    case 6:
        sx = y;
        sy = h - x;
        break;
    case 7:
        sx = w - y;
        sy = h - x;
        break;
    case 8:
        sx = w - y;
        sy = x;
        break;
    default:
        break;
    }
    return (size_t)sy * (size_t)stored->width + (size_t)sx;
}

Status picture_set_upright(Picture *picture, int orientation, Error *err)
{
    if (orientation <= 1)
        return STATUS_OK;
    Picture upright = {0};
    bool turned = orientation >= 5;
    size_t channels = (size_t)picture->channels;
    TRY(picture_resize_buffer(&upright, turned ? picture->height : picture->width,
                              turned ? picture->width : picture->height, picture->channels, err));
    unsigned char *out = upright.pixels;
    for (int y = 0; y < upright.height; y++)
        for (int x = 0; x < upright.width; x++, out += channels)
            memcpy(out, picture->pixels + stored_at(picture, orientation, x, y) * channels, channels);
    picture_release(picture);
    *picture = upright;
    return STATUS_OK;
}
