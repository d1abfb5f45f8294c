/* What the user sees. Data goes to stdout, messages to stderr; colour only on a terminal and without NO_COLOR.
 * Tables are collected first and printed with aligned columns; JSON is written member by member and always closed by
 * the caller in the reverse order. */
#ifndef REGRAFT_CLI_PRINT_H
#define REGRAFT_CLI_PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "onnx/base/error.h"
#include "onnx/base/str.h"

/* ---- streams ---------------------------------------------------------------------------------------------- */

void print_init(void);                /* terminals, NO_COLOR, SIGPIPE; call once */
bool print_is_terminal(FILE *stream); /* stdout or stderr */
int print_width(FILE *stream);        /* columns of the terminal; 100 elsewhere */
/* Flushes stdout. A closed pipe is the reader's choice and no error; a full disk is STATUS_ENVIRONMENT. */
Status print_finish(Error *err);

/* To stderr, as "regraft: ...", "regraft: warning: ...", "regraft: note: ...". --quiet drops notes. */
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_quietly(bool quiet);

typedef enum Style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_RED, STYLE_GREEN, STYLE_YELLOW, STYLE_BLUE } Style;
const char *style_on(FILE *stream, Style style); /* "" without colour */
const char *style_off(FILE *stream);

/* ---- numbers for people ------------------------------------------------------------------------------------ */

typedef struct Text {
    char text[32];
} Text;

Text human_bytes(size_t bytes);     /* "1.4 MB" (powers of 1000) */
Text human_count(int64_t count);    /* "25,557,032" */
Text human_seconds(double seconds); /* "0.21 s", "3 min 20 s", "1 h 05 min" */

/* ---- tables ------------------------------------------------------------------------------------------------ */

/* `aligns` has one letter a column: l or r. Cells are copied. */
typedef struct Table {
    const char *aligns;
    size_t columns;
    char **cells; /* rows * columns */
    Style *styles;
    size_t count, capacity;
} Table;

void table_init(Table *table, const char *aligns);
void table_release(Table *table);
void table_head(Table *table, const char *const *names); /* a bold first row */
void table_cell(Table *table, Style style, const char *format, ...) __attribute__((format(printf, 3, 4)));
void table_print(const Table *table, FILE *stream, int indent);

/* ---- JSON -------------------------------------------------------------------------------------------------- */

typedef struct Json {
    Str out;
    bool comma[32]; /* a value was written at this depth */
    bool array[32];
    int depth;
    bool after_key, one_line;
} Json;

void json_begin(Json *json, const char *schema);      /* { "schema": schema */
void json_begin_line(Json *json, const char *schema); /* the same, for an object a line */
void json_end(Json *json);                            /* } and prints it all to stdout, with a newline */
void json_key(Json *json, const char *key);
void json_open(Json *json, char bracket); /* '{' or '[' */
void json_close(Json *json, char bracket);
void json_string(Json *json, const char *text); /* NULL: null */
void json_int(Json *json, int64_t value);
void json_real(Json *json, double value); /* NaN and infinities: null */
void json_bool(Json *json, bool value);
/* key and value in one call */
void json_put_string(Json *json, const char *key, const char *text);
void json_put_int(Json *json, const char *key, int64_t value);
void json_put_real(Json *json, const char *key, double value);
void json_put_bool(Json *json, const char *key, bool value);
void json_put_open(Json *json, const char *key, char bracket);

#endif
