/* Streams, styles, tables, JSON: everything that turns values into what a person or a script reads. */
#include "cli/print.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The one piece of process-wide state: what the two streams are. Set once by print_init. */
static struct {
    bool out_terminal, err_terminal, color, quiet;
} screen;

/* ---- streams ------------------------------------------------------------------------------------------- */

void print_init(void)
{
    const char *term = getenv("TERM");
    const char *no_color = getenv("NO_COLOR");
    screen.out_terminal = isatty(STDOUT_FILENO) == 1;
    screen.err_terminal = isatty(STDERR_FILENO) == 1;
    screen.color = !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes shows as an error of write, like a full disk */
    if (screen.err_terminal)
        setvbuf(stderr, NULL, _IOLBF, 0);
}

bool print_is_terminal(FILE *stream)
{
    return stream == stdout ? screen.out_terminal : stream == stderr && screen.err_terminal;
}

int print_width(FILE *stream)
{
    struct winsize size;
    if (print_is_terminal(stream) && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col;
    return 100;
}

Status print_finish(Error *err)
{
    errno = 0;
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    if (!failed || errno == EPIPE)
        return STATUS_OK;
    return fail(err, STATUS_ENVIRONMENT, "writing to standard output failed: %s",
                errno ? strerror(errno) : "write error");
}

void say_quietly(bool quiet)
{
    screen.quiet = quiet;
}

static void print_message(const char *kind, Style style, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "regraft: %s%s%s", style_on(stderr, style), kind, style_off(stderr));
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void say_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message("", STYLE_PLAIN, format, args);
    va_end(args);
}

void say_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message("warning: ", STYLE_YELLOW, format, args);
    va_end(args);
}

void say_note(const char *format, ...)
{
    if (screen.quiet)
        return;
    va_list args;
    va_start(args, format);
    print_message("", STYLE_PLAIN, format, args);
    va_end(args);
}

const char *style_on(FILE *stream, Style style)
{
    static const char *const codes[] = {"", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m", "\033[34m"};
    return screen.color && print_is_terminal(stream) ? codes[style] : "";
}

const char *style_off(FILE *stream)
{
    return screen.color && print_is_terminal(stream) ? "\033[0m" : "";
}

/* ---- numbers for people -------------------------------------------------------------------------------- */

Text human_bytes(size_t bytes)
{
    Text text;
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1000;
        unit++;
    }
    snprintf(text.text, sizeof text.text, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

Text human_count(int64_t count)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
    Text text;
    size_t at = 0;
    for (int i = 0; i < length; i++) {
        text.text[at++] = digits[i];
        int left = length - 1 - i;
        if (left && left % 3 == 0 && digits[i] != '-')
            text.text[at++] = ',';
    }
    text.text[at] = '\0';
    return text;
}

Text human_seconds(double seconds)
{
    Text text;
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(text.text, sizeof text.text, "?");
    } else if (seconds < 59.95) {
        snprintf(text.text, sizeof text.text, seconds < 9.995 ? "%.2f s" : "%.1f s", seconds);
    } else if (seconds < 3600) {
        int whole = (int)(seconds + 0.5);
        snprintf(text.text, sizeof text.text, "%d min %02d s", whole / 60, whole % 60);
    } else {
        int minutes = (int)(seconds / 60 + 0.5);
        snprintf(text.text, sizeof text.text, "%d h %02d min", minutes / 60, minutes % 60);
    }
    return text;
}

/* ---- tables -------------------------------------------------------------------------------------------- */

void table_init(Table *table, const char *aligns)
{
    *table = (Table){.aligns = aligns, .columns = strlen(aligns)};
}

void table_release(Table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table->styles);
    *table = (Table){0};
}

static void table_add(Table *table, Style style, char *text)
{
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 64;
        table->cells = realloc(table->cells, table->capacity * sizeof *table->cells);
        table->styles = realloc(table->styles, table->capacity * sizeof *table->styles);
        if (!table->cells || !table->styles)
            abort();
    }
    table->cells[table->count] = text;
    table->styles[table->count++] = style;
}

void table_head(Table *table, const char *const *names)
{
    for (size_t i = 0; i < table->columns; i++)
        table_cell(table, STYLE_BOLD, "%s", names[i]);
}

void table_cell(Table *table, Style style, const char *format, ...)
{
    va_list args;
    char *text;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    table_add(table, style, text);
}

/* Columns of a text in UTF-8: continuation bytes take none. */
static int text_columns(const char *text)
{
    int columns = 0;
    for (; *text; text++)
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}

void table_print(const Table *table, FILE *stream, int indent)
{
    int width[16] = {0};
    size_t columns = table->columns < 16 ? table->columns : 16;
    for (size_t i = 0; i < table->count; i++) {
        int needed = text_columns(table->cells[i]);
        if (needed > width[i % columns])
            width[i % columns] = needed;
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % columns;
        int padding = width[column] - text_columns(table->cells[i]);
        bool last = column + 1 == columns;
        fprintf(stream, "%*s", column ? 2 : indent, "");
        if (table->aligns[column] == 'r')
            fprintf(stream, "%*s", padding, "");
        fprintf(stream, "%s%s%s", style_on(stream, table->styles[i]), table->cells[i], style_off(stream));
        if (table->aligns[column] == 'l' && !last)
            fprintf(stream, "%*s", padding, "");
        if (last)
            fputc('\n', stream);
    }
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static void json_before_value(Json *json)
{
    if (json->after_key) {
        json->after_key = false;
        return;
    }
    if (json->comma[json->depth])
        str_append(&json->out,
                   !json->one_line && (json->depth == 1 || (json->depth == 2 && json->array[2])) ? ",\n" : ", ");
    json->comma[json->depth] = true;
}

void json_open(Json *json, char bracket)
{
    json_before_value(json);
    str_append_bytes(&json->out, &bracket, 1);
    json->depth++;
    json->comma[json->depth] = false;
    json->array[json->depth] = bracket == '[';
}

void json_close(Json *json, char bracket)
{
    json->depth--;
    str_append_bytes(&json->out, &bracket, 1);
}

void json_begin(Json *json, const char *schema)
{
    *json = (Json){0};
    str_init(&json->out);
    json_open(json, '{');
    json_put_string(json, "schema", schema);
}

void json_begin_line(Json *json, const char *schema)
{
    json_begin(json, schema);
    json->one_line = true;
}

void json_end(Json *json)
{
    json_close(json, '}');
    fwrite(json->out.text, 1, json->out.length, stdout);
    fputc('\n', stdout);
    str_release(&json->out);
}

void json_key(Json *json, const char *key)
{
    json_before_value(json);
    str_append_json(&json->out, key);
    str_append(&json->out, ": ");
    json->after_key = true;
}

void json_string(Json *json, const char *text)
{
    json_before_value(json);
    if (text)
        str_append_json(&json->out, text);
    else
        str_append(&json->out, "null");
}

void json_int(Json *json, int64_t value)
{
    json_before_value(json);
    str_printf(&json->out, "%lld", (long long)value);
}

void json_real(Json *json, double value)
{
    json_before_value(json);
    if (isfinite(value))
        str_printf(&json->out, "%.9g", value);
    else
        str_append(&json->out, "null");
}

void json_bool(Json *json, bool value)
{
    json_before_value(json);
    str_append(&json->out, value ? "true" : "false");
}

void json_put_string(Json *json, const char *key, const char *text)
{
    json_key(json, key);
    json_string(json, text);
}

void json_put_int(Json *json, const char *key, int64_t value)
{
    json_key(json, key);
    json_int(json, value);
}

void json_put_real(Json *json, const char *key, double value)
{
    json_key(json, key);
    json_real(json, value);
}

void json_put_bool(Json *json, const char *key, bool value)
{
    json_key(json, key);
    json_bool(json, value);
}

void json_put_open(Json *json, const char *key, char bracket)
{
    json_key(json, key);
    json_open(json, bracket);
}
