/* The text form's characters, words and numbers. Blanks and # remarks mean nothing; the first failure sticks. */
#include "onnx/parse.h"

#include <ctype.h>
#include <inttypes.h>

/* The line of the last thing that was read. */
static int line_of(const Parser *p)
{
    const char *end = p->at;
    while (end > p->text && isspace((unsigned char)end[-1]))
        end--;
    int line = 1;
    for (const char *c = p->text; c < end; c++)
        line += *c == '\n';
    return line;
}

void parser_bad(Parser *p, const char *what, const char *which)
{
    if (p->status == STATUS_OK)
        p->status = fail(p->err, STATUS_REJECTED, "line %d: %s%s%s%s", line_of(p), what, which[0] != '\0' ? " '" : "",
                         which, which[0] != '\0' ? "'" : "");
}

bool parser_ok(const Parser *p)
{
    return p->status == STATUS_OK;
}

/* The next character that means something. */
char parser_peek(Parser *p)
{
    for (;; p->at++) {
        if (*p->at == '#')
            while (*p->at != '\0' && *p->at != '\n')
                p->at++;
        if (*p->at == '\0' || !isspace((unsigned char)*p->at))
            return *p->at;
    }
}

bool parser_accept(Parser *p, const char *word)
{
    size_t length = strlen(word);
    parser_peek(p);
    if (!parser_ok(p) || strncmp(p->at, word, length) != 0)
        return false;
    p->at += length;
    return true;
}

void parser_expect(Parser *p, const char *word)
{
    if (!parser_ok(p) || parser_accept(p, word))
        return;
    char found[24] = "";
    for (size_t i = 0; i < sizeof found - 1 && p->at[i] != '\0' && p->at[i] != '\n'; i++)
        found[i] = p->at[i];
    char what[80];
    snprintf(what, sizeof what, "'%s' expected, found", word);
    parser_bad(p, what, found[0] != '\0' ? found : "the end");
}

int parser_hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c == '\0' ? NULL : strchr(digits, tolower((unsigned char)c));
    return found == NULL ? -1 : (int)(found - digits);
}

Bytes parser_quoted(Parser *p)
{
    Str text;
    str_init(&text);
    parser_expect(p, "\"");
    while (parser_ok(p) && *p->at != '"') {
        char c = *p->at++;
        if (c == '\0') {
            parser_bad(p, "a string does not end", "");
            break;
        }
        if (c == '\\' && *p->at == 'x' && parser_hex_digit(p->at[1]) >= 0 && parser_hex_digit(p->at[2]) >= 0) {
            c = (char)(parser_hex_digit(p->at[1]) * 16 + parser_hex_digit(p->at[2]));
            p->at += 3;
        } else if (c == '\\' && *p->at != '\0') {
            c = *p->at == 'n' ? '\n' : *p->at;
            p->at++;
        }
        str_append_bytes(&text, &c, 1);
    }
    if (parser_ok(p))
        p->at++;
    Bytes bytes = {arena_strndup(p->arena, text.text, text.length), text.length};
    str_release(&text);
    return bytes;
}

bool parser_at_name(Parser *p)
{
    char c = parser_peek(p);
    return c == '"' || c == '_' || isalpha((unsigned char)c);
}

/* An identifier or a quoted name; `dots` for operators with their domain. */
const char *parser_name_with(Parser *p, bool dots)
{
    if (!parser_ok(p))
        return "";
    if (parser_peek(p) == '"')
        return parser_quoted(p).data;
    const char *begin = p->at;
    if (isalpha((unsigned char)*p->at) || *p->at == '_')
        while (isalnum((unsigned char)*p->at) || *p->at == '_' || (dots && *p->at == '.'))
            p->at++;
    if (p->at == begin)
        parser_expect(p, "a name");
    return arena_strndup(p->arena, begin, (size_t)(p->at - begin));
}

const char *parser_name(Parser *p)
{
    return parser_name_with(p, false);
}

/* A number; *whole tells whether it was written as an integer. */
double parser_number(Parser *p, int64_t *integer, bool *whole)
{
    char *end_int = NULL, *end_float = NULL;
    parser_peek(p);
    double value = strtod(p->at, &end_float);
    *integer = *p->at == '-' ? (int64_t)strtoll(p->at, &end_int, 10) : (int64_t)strtoull(p->at, &end_int, 10);
    *whole = end_int == end_float && end_int != p->at;
    if (end_float == p->at)
        parser_expect(p, "a number");
    p->at = end_float;
    return value;
}

int64_t parser_integer(Parser *p)
{
    int64_t value = 0;
    bool whole = false;
    parser_number(p, &value, &whole);
    if (!whole)
        parser_bad(p, "an integer expected", "");
    return value;
}
