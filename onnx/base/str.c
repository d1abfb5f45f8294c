/* Text building and matching; see str.h. */
#include "onnx/base/str.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char empty[1] = "";

void str_init(Str *str)
{
    *str = (Str){empty, 0, 0};
}

void str_release(Str *str)
{
    if (str->capacity > 0)
        free(str->text);
    str_init(str);
}

void str_clear(Str *str)
{
    str->length = 0;
    if (str->capacity > 0)
        str->text[0] = '\0';
}

static void reserve(Str *str, size_t more)
{
    size_t wanted = str->length + more + 1;
    if (wanted <= str->capacity)
        return;
    size_t capacity = str->capacity < 64 ? 64 : str->capacity * 2;
    if (capacity < wanted)
        capacity = wanted;
    char *text = realloc(str->capacity > 0 ? str->text : NULL, capacity);
    if (text == NULL)
        abort();
    str->text = text;
    str->capacity = capacity;
}

void str_append_bytes(Str *str, const char *bytes, size_t length)
{
    reserve(str, length);
    if (length > 0)
        memcpy(str->text + str->length, bytes, length);
    str->length += length;
    str->text[str->length] = '\0';
}

void str_append(Str *str, const char *text)
{
    str_append_bytes(str, text, strlen(text));
}

void str_printf(Str *str, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        reserve(str, (size_t)n);
        vsnprintf(str->text + str->length, (size_t)n + 1, format, again);
        str->length += (size_t)n;
    }
    va_end(again);
}

/* Length of the well-formed UTF-8 sequence at `p`, 0 when malformed (overlong forms and surrogates too). */
static size_t utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF && (p[1] & 0xC0) == 0x80)
        return 2;
    if ((p[0] & 0xF0) == 0xE0 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80) {
        bool overlong = p[0] == 0xE0 && p[1] < 0xA0, surrogate = p[0] == 0xED && p[1] > 0x9F;
        return overlong || surrogate ? 0 : 3;
    }
    if (p[0] >= 0xF0 && p[0] <= 0xF4 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80) {
        bool overlong = p[0] == 0xF0 && p[1] < 0x90, beyond = p[0] == 0xF4 && p[1] > 0x8F;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

void str_append_json(Str *str, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    str_append(str, "\"");
    while (*p != '\0') {
        size_t n = utf8_length(p);
        if (n == 0) {
            str_append(str, "\\ufffd");
            p++;
        } else if (*p == '"' || *p == '\\') {
            str_printf(str, "\\%c", *p++);
        } else if (*p < 0x20 || *p == 0x7F) {
            str_printf(str, "\\u%04x", *p++);
        } else {
            str_append_bytes(str, (const char *)p, n);
            p += n;
        }
    }
    str_append(str, "\"");
}

bool text_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool text_ends(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

bool text_glob(const char *pattern, const char *text)
{
    return fnmatch(pattern, text, 0) == 0;
}

size_t text_distance(const char *a, const char *b)
{
    enum { LONGEST = 256 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= LONGEST || m >= LONGEST)
        return n > m ? n : m;
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[m];
}

const char *text_nearest(const char *text, const char *const *candidates, size_t count)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t d = text_distance(text, candidates[i]);
        if (strstr(candidates[i], text) != NULL && d > 2)
            d = 2;
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    size_t limit = 1 + strlen(text) / 3;
    return best_distance <= limit ? best : NULL;
}
