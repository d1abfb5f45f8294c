/* Str: a growing text buffer, always terminated. Bytes: a borrowed run of bytes that may hold NULs. */
#ifndef REGRAFT_BASE_STR_H
#define REGRAFT_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Bytes {
    const char *data;
    size_t length;
} Bytes;

typedef struct Str {
    char *text; /* "" before the first append, never NULL */
    size_t length, capacity;
} Str;

void str_init(Str *str);
void str_release(Str *str);
void str_clear(Str *str);
void str_append(Str *str, const char *text);
void str_append_bytes(Str *str, const char *bytes, size_t length);
void str_printf(Str *str, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `text` as a JSON string with its quotes; bytes that are not UTF-8 come out as U+FFFD. */
void str_append_json(Str *str, const char *text);

bool text_starts(const char *text, const char *prefix);
bool text_ends(const char *text, const char *suffix);
/* Shell-like pattern over the whole text: `*` any run (slashes and dots too), `?` one character, `[a-c]` a set. */
bool text_glob(const char *pattern, const char *text);
/* Edit distance, for "did you mean". */
size_t text_distance(const char *a, const char *b);
/* The candidate nearest to `text`, or NULL when none is near enough to be worth suggesting. */
const char *text_nearest(const char *text, const char *const *candidates, size_t count);

#endif
