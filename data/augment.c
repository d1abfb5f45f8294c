/* Framing a picture to the model's size, and making another picture of it on the way: random resized crop, flip, colour
 * jitter, erasing. Every random number comes from the caller's counter-based generator, and each step draws a fixed
 * number of them, so that switching one off does not move the others. */
#include <math.h>
#include <string.h>

#include "data/data.h"

enum { PAD_GREY = 114, CROP_TRIES = 10 };

/* ---- where to look -------------------------------------------------------------------------------------------- */

/* torchvision's Resize(shorter side to size / fraction) and CenterCrop(size) in one: long sides cut down to whole
 * pixels, offsets rounded half to even. */
static Status frame_crop(const Picture *picture, const PictureSpec *spec, Picture *out, Error *err)
{
    double wide = floor(spec->width / spec->crop_fraction + 1e-9),
           high = floor(spec->height / spec->crop_fraction + 1e-9);
    double w = picture->width, h = picture->height;
    bool by_width = wide / w >= high / h;
    int width = by_width ? (int)wide : (int)(high * w / h), height = by_width ? (int)(wide * h / w) : (int)high;
    width = width < spec->width ? spec->width : width;
    height = height < spec->height ? spec->height : height;
    Window window = {(int)rint((width - spec->width) / 2.0), (int)rint((height - spec->height) / 2.0), spec->width,
                     spec->height};
    return picture_resize(picture, (Box){0, 0, w, h}, spec->filter, width, height, window, out, err);
}

static Status frame_box(const Picture *picture, Box box, const PictureSpec *spec, Picture *out, Error *err)
{
    Window window = {0, 0, spec->width, spec->height};
    return picture_resize(picture, box, spec->filter, spec->width, spec->height, window, out, err);
}

static Status frame_pad(const Picture *picture, const PictureSpec *spec, Picture *scratch, Picture *out, Error *err)
{
    double scale = fmin((double)spec->width / picture->width, (double)spec->height / picture->height);
    int width = (int)fmax(1, rint(picture->width * scale)), height = (int)fmax(1, rint(picture->height * scale));
    Window window = {0, 0, width, height};
    TRY(picture_resize(picture, (Box){0, 0, picture->width, picture->height}, spec->filter, width, height, window,
                       scratch, err));
    TRY(picture_resize_buffer(out, spec->width, spec->height, picture->channels, err));
    size_t channels = (size_t)picture->channels, row = (size_t)width * channels;
    memset(out->pixels, PAD_GREY, (size_t)spec->width * (size_t)spec->height * channels);
    size_t left = (size_t)((spec->width - width) / 2), top = (size_t)((spec->height - height) / 2);
    for (size_t y = 0; y < (size_t)height; y++)
        memcpy(out->pixels + ((top + y) * (size_t)spec->width + left) * channels, scratch->pixels + y * row, row);
    return STATUS_OK;
}

/* torchvision's RandomResizedCrop: area uniform, aspect uniform in its logarithm; the centre when ten tries do not fit.
 */
static Box random_box(const Picture *picture, const AugmentSpec *augment, Rng *random)
{
    double w = picture->width, h = picture->height, spread = log(augment->crop_ratio);
    Box found = {0, 0, w, h};
    bool done = false;
    for (int i = 0; i < CROP_TRIES; i++) {
        double area = w * h * (augment->crop_area + (1 - augment->crop_area) * rng_uniform(random));
        double aspect = exp(spread * (2 * rng_uniform(random) - 1)), x = rng_uniform(random), y = rng_uniform(random);
        double bw = rint(sqrt(area * aspect)), bh = rint(sqrt(area / aspect));
        if (done || bw < 1 || bh < 1 || bw > w || bh > h)
            continue;
        double left = floor(x * (w - bw + 1)), top = floor(y * (h - bh + 1));
        found = (Box){left, top, left + bw, top + bh};
        done = true;
    }
    return found;
}

/* ---- what to change ------------------------------------------------------------------------------------------- */

static void flip(Picture *picture)
{
    size_t channels = (size_t)picture->channels, width = (size_t)picture->width;
    for (int y = 0; y < picture->height; y++) {
        unsigned char *row = picture->pixels + (size_t)y * width * channels;
        for (size_t x = 0; x < width / 2; x++)
            for (size_t c = 0; c < channels; c++) {
                unsigned char *a = row + x * channels + c, *b = row + (width - 1 - x) * channels + c, t = *a;
                *a = *b;
                *b = t;
            }
    }
}

static unsigned char clip(float value)
{
    return value <= 0 ? 0 : value >= 255 ? 255 : (unsigned char)(value + 0.5f);
}

static float luma(const unsigned char *p)
{
    return 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2];
}

/* Each is a blend: with black, with the mean grey, with the pixel's own grey (as Pillow's ImageEnhance). */
static void jitter(Picture *picture, double brightness, double contrast, double saturation)
{
    size_t channels = (size_t)picture->channels, pixels = (size_t)picture->width * (size_t)picture->height;
    float b = (float)brightness, k = (float)contrast, s = (float)saturation;
    double sum = 0;
    for (size_t i = 0; i < pixels; i++) {
        const unsigned char *p = picture->pixels + i * channels;
        sum += (double)(channels == 3 ? luma(p) : p[0]);
    }
    float mean = (float)(sum / (double)pixels) * b;
    for (size_t i = 0; i < pixels; i++) {
        unsigned char *p = picture->pixels + i * channels;
        float grey = channels == 3 ? luma(p) * b : 0;
        grey = mean + (grey - mean) * k;
        for (size_t c = 0; c < channels; c++) {
            float value = mean + (p[c] * b - mean) * k;
            p[c] = clip(channels == 3 ? grey + (value - grey) * s : value);
        }
    }
}

/* A rectangle of 2 % to a third of the area becomes grey (torchvision's RandomErasing with a fixed value). */
static void erase(Picture *picture, double size, double aspect, double x, double y)
{
    double w = picture->width, h = picture->height;
    double area = w * h * (0.02 + 0.31 * size), ratio = exp(log(1 / 0.3) * (2 * aspect - 1));
    size_t bw = (size_t)fmin(w, rint(sqrt(area * ratio))), bh = (size_t)fmin(h, rint(sqrt(area / ratio)));
    size_t left = (size_t)(x * (w - (double)bw)), top = (size_t)(y * (h - (double)bh));
    size_t channels = (size_t)picture->channels;
    for (size_t row = top; row < top + bh; row++)
        memset(picture->pixels + (row * (size_t)picture->width + left) * channels, PAD_GREY, bw * channels);
}

static void change(Picture *picture, const AugmentSpec *augment, Rng *random)
{
    double draws[9];
    for (int i = 0; i < 9; i++)
        draws[i] = rng_uniform(random);
    if (augment->flip && draws[0] < 0.5)
        flip(picture);
    if (augment->brightness > 0 || augment->contrast > 0 || augment->saturation > 0)
        jitter(picture, 1 + augment->brightness * (2 * draws[1] - 1), 1 + augment->contrast * (2 * draws[2] - 1),
               1 + augment->saturation * (2 * draws[3] - 1));
    if (draws[4] < augment->erase)
        erase(picture, draws[5], draws[6], draws[7], draws[8]);
}

Status picture_frame(const Picture *picture, const PictureSpec *spec, const AugmentSpec *augment, Rng *random,
                     Picture *scratch, Picture *out, Error *err)
{
    Box whole = {0, 0, picture->width, picture->height};
    if (augment != NULL && augment->crop_area > 0 && augment->crop_area < 1)
        TRY(frame_box(picture, random_box(picture, augment, random), spec, out, err));
    else if (spec->frame == FRAME_PAD)
        TRY(frame_pad(picture, spec, scratch, out, err));
    else if (spec->frame == FRAME_SQUASH)
        TRY(frame_box(picture, whole, spec, out, err));
    else
        TRY(frame_crop(picture, spec, out, err));
    TRY(picture_to_channels(out, spec->channels, err));
    if (augment != NULL)
        change(out, augment, random);
    return STATUS_OK;
}
