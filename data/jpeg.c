/* JPEG through libjpeg-turbo's 2.x interface (Debian 12 has no tj3 functions). Decoded in full with the accurate
 * transform, as Pillow does. A file that ends early is broken; oddities that lose no pixels are not. */
#include <string.h>
#include <turbojpeg.h>

#include "data/exif.h"

/* Walks the markers before the picture data to the EXIF block. */
static int find_orientation(const unsigned char *bytes, size_t size)
{
    size_t at = 2;
    while (size - at >= 4 && bytes[at] == 0xFF) {
        unsigned char marker = bytes[at + 1];
        size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (marker == 0xDA || length < 2 || length > size - at - 2)
            break;
        if (marker == 0xE1 && length >= 8 && memcmp(bytes + at + 4, "Exif\0\0", 6) == 0)
            return exif_orientation(bytes + at + 10, length - 8);
        at += 2 + length;
    }
    return 1;
}

static unsigned char multiply(unsigned a, unsigned b) /* a b / 255, rounded */
{
    unsigned t = a * b + 128;
    return (unsigned char)(((t >> 8) + t) >> 8);
}

/* CMYK files hold inverted ink (Adobe's way, and everybody's): R = (255 - C)(255 - K) / 255, and so on. */
static void cmyk_to_rgb(Picture *picture)
{
    size_t pixels = (size_t)picture->width * (size_t)picture->height;
    for (size_t i = 0; i < pixels; i++) {
        unsigned char ink[4];
        memcpy(ink, picture->pixels + 4 * i, 4);
        for (int c = 0; c < 3; c++)
            picture->pixels[3 * i + (size_t)c] = (unsigned char)(ink[3] - multiply(255u - ink[c], ink[3]));
    }
    picture->channels = 3;
}

/* The smallest of 1, 1/2, 1/4, 1/8 that leaves the shorter side at least `least`. Other factors are slow in the
 * library. */
static tjscalingfactor choose_scale(int width, int height, int least)
{
    tjscalingfactor scale = {1, 1};
    int shorter = width < height ? width : height;
    while (least > 0 && scale.denom < 8 && shorter / (scale.denom * 2) >= least)
        scale.denom *= 2;
    return scale;
}

static Status decode(tjhandle handle, Picture *picture, const unsigned char *bytes, size_t size, int least,
                     const char *name, Error *err)
{
    int width = 0, height = 0, sampling = 0, space = 0; /* a file that ends before they are said leaves them */
    if (tjDecompressHeader3(handle, bytes, (unsigned long)size, &width, &height, &sampling, &space) != 0 &&
        tjGetErrorCode(handle) == TJERR_FATAL)
        return fail(err, STATUS_REJECTED, "%s: not a readable JPEG: %s", name, tjGetErrorStr2(handle));
    if (width <= 0 || height <= 0)
        return fail(err, STATUS_REJECTED, "%s: not a readable JPEG: it ends before its size", name);
    if ((int64_t)width * height > PIXELS_MAX)
        return fail(err, STATUS_REJECTED, "%s: a JPEG of %d x %d pixels is beyond the limit", name, width, height);
    tjscalingfactor scale = choose_scale(width, height, least);
    width = TJSCALED(width, scale);
    height = TJSCALED(height, scale);
    bool cmyk = space == TJCS_CMYK || space == TJCS_YCCK, grey = space == TJCS_GRAY;
    TRY(picture_resize_buffer(picture, width, height, cmyk ? 4 : grey ? 1 : 3, err));
    int format = cmyk ? TJPF_CMYK : grey ? TJPF_GRAY : TJPF_RGB;
    if (tjDecompress2(handle, bytes, (unsigned long)size, picture->pixels, width, 0, height, format,
                      TJFLAG_ACCURATEDCT) != 0) {
        const char *why = tjGetErrorStr2(handle);
        if (tjGetErrorCode(handle) == TJERR_FATAL || strstr(why, "remature end") != NULL)
            return fail(err, STATUS_REJECTED, "%s: damaged JPEG: %s", name, why);
    }
    if (cmyk)
        cmyk_to_rgb(picture);
    return STATUS_OK;
}

Status picture_decode_jpeg(Picture *picture, const unsigned char *bytes, size_t size, int least, const char *name,
                           Error *err)
{
    tjhandle handle = tjInitDecompress();
    if (handle == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory to decode %s", name);
    Status status = decode(handle, picture, bytes, size, least, name, err);
    tjDestroy(handle);
    return status == STATUS_OK ? picture_set_upright(picture, find_orientation(bytes, size), err) : status;
}
