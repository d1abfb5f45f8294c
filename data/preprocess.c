/* Pixels -> numbers: presets, the line of text that records a PictureSpec, normalisation. */
#include <math.h>
#include <string.h>

#include "data/data.h"

#define UNIT                                                                                                           \
    {0, 0, 0},                                                                                                         \
    {                                                                                                                  \
        1, 1, 1                                                                                                        \
    }
#define SYMMETRIC                                                                                                      \
    {0.5, 0.5, 0.5},                                                                                                   \
    {                                                                                                                  \
        0.5, 0.5, 0.5                                                                                                  \
    }
#define IMAGENET                                                                                                       \
    {0.485, 0.456, 0.406},                                                                                             \
    {                                                                                                                  \
        0.229, 0.224, 0.225                                                                                            \
    }
#define BYTES                                                                                                          \
    {0, 0, 0},                                                                                                         \
    {                                                                                                                  \
        1 / 255.0, 1 / 255.0, 1 / 255.0                                                                                \
    }

/* In the order of how common they are: the first of equally good ones is taken. */
const PicturePreset picture_presets[] = {
    {"imagenet", false, IMAGENET},
    {"-1..1", false, SYMMETRIC},
    {"0..1", false, UNIT},
    {"0..255", false, BYTES},
    {"imagenet-bgr", true, IMAGENET},
    {"-1..1-bgr", true, SYMMETRIC},
    {"0..1-bgr", true, UNIT},
    {"0..255-bgr", true, BYTES},
    {"caffe", true, {123.68 / 255, 116.779 / 255, 103.939 / 255}, {1 / 255.0, 1 / 255.0, 1 / 255.0}},
    {0},
};

const PicturePreset *picture_preset(const char *name)
{
    for (const PicturePreset *preset = picture_presets; preset->name != NULL; preset++)
        if (strcmp(preset->name, name) == 0)
            return preset;
    return NULL;
}

PictureSpec picture_spec_default(void)
{
    PictureSpec spec = {.channels = 3, .crop_fraction = 0.875};
    picture_spec_use(&spec, picture_preset("0..1"));
    return spec;
}

void picture_spec_use(PictureSpec *spec, const PicturePreset *preset)
{
    spec->bgr = preset->bgr;
    memcpy(spec->mean, preset->mean, sizeof spec->mean);
    memcpy(spec->deviation, preset->deviation, sizeof spec->deviation);
}

/* ---- text -------------------------------------------------------------------------------------------------- */

static const char *const filter_names[] = {"bilinear", "bicubic", "nearest", NULL};
static const char *const frame_names[] = {"crop", "squash", "pad", NULL};

static int find_name(const char *const *names, const char *text)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return -1;
}

void picture_spec_print(const PictureSpec *spec, Str *out)
{
    str_printf(out, "size=%dx%d\n", spec->height, spec->width);
    str_printf(out, "resize=%s\n", filter_names[spec->filter]);
    str_printf(out, "frame=%s\n", frame_names[spec->frame]);
    if (spec->frame == FRAME_CROP)
        str_printf(out, "crop=%.17g\n", spec->crop_fraction);
    str_printf(out, "channels=%s\n", spec->channels == 1 ? "grey" : spec->bgr ? "bgr" : "rgb");
    str_printf(out, "mean=%.17g,%.17g,%.17g\n", spec->mean[0], spec->mean[1], spec->mean[2]);
    str_printf(out, "std=%.17g,%.17g,%.17g\n", spec->deviation[0], spec->deviation[1], spec->deviation[2]);
    str_printf(out, "layout=%s\n", spec->channels_last ? "nhwc" : "nchw");
    str_printf(out, "decode=%s", spec->scaled_decode ? "scaled" : "full");
}

static bool parse_three(const char *text, double *values)
{
    char *end = NULL;
    for (int i = 0; i < 3; i++) {
        values[i] = strtod(text, &end);
        if (end == text || !isfinite(values[i]))
            return false;
        if (i < 2 && *end != ',') { /* one number for all */
            values[1] = values[2] = values[0];
            return i == 0 && *end == '\0';
        }
        text = end + 1;
    }
    return *end == '\0';
}

static bool parse_deviation(const char *text, double *values)
{
    return parse_three(text, values) && values[0] > 0 && values[1] > 0 && values[2] > 0;
}

static bool parse_size(const char *text, PictureSpec *spec)
{
    char end;
    if (sscanf(text, "%dx%d%c", &spec->height, &spec->width, &end) != 2) {
        if (sscanf(text, "%d%c", &spec->width, &end) != 1)
            return false;
        spec->height = spec->width;
    }
    return spec->width > 0 && spec->height > 0 && spec->width <= 1 << 16 && spec->height <= 1 << 16;
}

static bool parse_channels(const char *text, PictureSpec *spec)
{
    spec->channels = strcmp(text, "grey") == 0 ? 1 : 3;
    spec->bgr = strcmp(text, "bgr") == 0;
    return spec->channels == 1 || spec->bgr || strcmp(text, "rgb") == 0;
}

static bool parse_word(const char *key, const char *value, PictureSpec *spec)
{
    int index;
    char end;
    if (strcmp(key, "size") == 0)
        return parse_size(value, spec);
    if (strcmp(key, "channels") == 0)
        return parse_channels(value, spec);
    if (strcmp(key, "crop") == 0)
        return sscanf(value, "%lf%c", &spec->crop_fraction, &end) == 1 && spec->crop_fraction > 0 &&
               spec->crop_fraction <= 1;
    if (strcmp(key, "mean") == 0)
        return parse_three(value, spec->mean);
    if (strcmp(key, "std") == 0)
        return parse_deviation(value, spec->deviation);
    if (strcmp(key, "resize") == 0 && (index = find_name(filter_names, value)) >= 0) {
        spec->filter = (ResizeFilter)index;
        return true;
    }
    if (strcmp(key, "frame") == 0 && (index = find_name(frame_names, value)) >= 0) {
        spec->frame = (FrameMode)index;
        return true;
    }
    if (strcmp(key, "layout") == 0) {
        spec->channels_last = strcmp(value, "nhwc") == 0;
        return spec->channels_last || strcmp(value, "nchw") == 0;
    }
    if (strcmp(key, "decode") == 0) {
        spec->scaled_decode = strcmp(value, "scaled") == 0;
        return spec->scaled_decode || strcmp(value, "full") == 0;
    }
    if (strcmp(key, "preset") == 0 && picture_preset(value) != NULL) {
        picture_spec_use(spec, picture_preset(value));
        return true;
    }
    return false;
}

/* Words not given keep what `spec` holds. */
Status picture_spec_parse(const char *text, PictureSpec *spec, Error *err)
{
    while (*text != '\0') {
        char word[256], *value;
        size_t length = strcspn(text, " \n");
        if (length >= sizeof word)
            return fail(err, STATUS_REJECTED, "preprocessing '%.60s...': a word is too long", text);
        memcpy(word, text, length);
        word[length] = '\0';
        text += length;
        text += strspn(text, " \n");
        if (length == 0)
            continue;
        value = strchr(word, '=');
        if (value != NULL)
            *value++ = '\0';
        if (value == NULL || !parse_word(word, value, spec))
            return fail(err, STATUS_REJECTED, "preprocessing: '%s%s%s' is not understood", word, value ? "=" : "",
                        value ? value : "");
    }
    return STATUS_OK;
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

/* (pixel / 255 - mean) / deviation, each step rounded to float as torchvision's ToTensor and Normalize do */
static void fill_table(float table[256], double mean, double deviation)
{
    for (int i = 0; i < 256; i++)
        table[i] = ((float)i / 255.0f - (float)mean) / (float)deviation;
}

/* 0..255 exactly, where that is what is asked for */
static void fill_bytes(float table[256])
{
    for (int i = 0; i < 256; i++)
        table[i] = (float)i;
}

static bool is_pixel_as_is(const PictureSpec *spec, size_t channel)
{
    return spec->mean[channel] == 0 && fabs(spec->deviation[channel] * 255 - 1) < 1e-12;
}

Status picture_spec_check(const PictureSpec *spec, const char *input, Error *err)
{
    for (size_t c = 0; c < (size_t)spec->channels && spec->bytes; c++)
        if (!is_pixel_as_is(spec, c))
            return fail(err, STATUS_USAGE, "input '%s' takes uint8: pictures can only be 0..255 or 0..255-bgr there",
                        input);
    return STATUS_OK;
}

size_t picture_number_size(const PictureSpec *spec)
{
    return spec->bytes ? 1 : sizeof(float);
}

/* Where the numbers of channel `c` go in spec's layout: the first, and how far apart. */
static size_t channel_start(const Picture *picture, const PictureSpec *spec, size_t c, size_t *stride)
{
    size_t channels = (size_t)picture->channels, pixels = (size_t)picture->width * (size_t)picture->height;
    size_t place = spec->bgr && channels == 3 ? 2 - c : c;
    *stride = spec->channels_last ? channels : 1;
    return spec->channels_last ? place : place * pixels;
}

static void normalise_channel(const Picture *picture, const PictureSpec *spec, size_t c, float *out)
{
    float table[256];
    size_t pixels = (size_t)picture->width * (size_t)picture->height, channels = (size_t)picture->channels, stride;
    if (is_pixel_as_is(spec, c))
        fill_bytes(table);
    else
        fill_table(table, spec->mean[c], spec->deviation[c]);
    float *to = out + channel_start(picture, spec, c, &stride);
    for (size_t i = 0; i < pixels; i++)
        to[i * stride] = table[picture->pixels[i * channels + c]];
}

static void copy_channel(const Picture *picture, const PictureSpec *spec, size_t c, unsigned char *out)
{
    size_t pixels = (size_t)picture->width * (size_t)picture->height, channels = (size_t)picture->channels, stride;
    unsigned char *to = out + channel_start(picture, spec, c, &stride);
    for (size_t i = 0; i < pixels; i++)
        to[i * stride] = picture->pixels[i * channels + c];
}

void picture_normalise(const Picture *picture, const PictureSpec *spec, void *out)
{
    for (size_t c = 0; c < (size_t)picture->channels; c++)
        if (spec->bytes)
            copy_channel(picture, spec, c, out);
        else
            normalise_channel(picture, spec, c, out);
}
