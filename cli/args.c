/* Option tables -> typed fields, and the help text generated from the same table. Every mistake on the command line is
 * one STATUS_USAGE message that names the option and, where one is near, the option that was probably meant. */
#include "cli/args.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/print.h"
#include "onnx/base/arena.h"
#include "onnx/base/str.h"

enum { HELP_WIDTH = 100, HELP_INDENT = 26 };

static void *field(void *fields, const Option *option)
{
    return (char *)fields + option->offset;
}

/* Holds the lists of the one command line a process has. */
static Arena line;

static void list_add(TextList *list, const char *text)
{
    list->items = arena_grow(&line, list->items, list->count, &list->capacity, sizeof *list->items);
    list->items[list->count++] = text;
}

bool size_parse(const char *text, int64_t *bytes)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno || !isfinite(value) || value < 0)
        return false;
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        for (const char *u = units; u <= unit; u++)
            value *= 1024;
        end++;
    }
    if (text_starts(end, "iB"))
        end += 2;
    else if (*end == 'B')
        end++;
    if (*end || value > 9e18)
        return false;
    *bytes = (int64_t)value;
    return true;
}

static Status check_range(const Option *option, double value, const char *text, Error *err)
{
    if (option->positive && !(value > 0))
        return fail(err, STATUS_USAGE, "%s must be above 0, found '%s'", option->name, text);
    if (option->bounded && !(value >= option->minimum && value <= option->maximum))
        return fail(err, STATUS_USAGE, "%s must be between %g and %g, found '%s'", option->name, option->minimum,
                    option->maximum, text);
    return STATUS_OK;
}

static Status set_int(const Option *option, int64_t *place, const char *text, Error *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return fail(err, STATUS_USAGE, "%s takes a whole number, found '%s'", option->name, text);
    TRY(check_range(option, (double)value, text, err));
    *place = value;
    return STATUS_OK;
}

static Status set_size(const Option *option, int64_t *place, const char *text, Error *err)
{
    int64_t value;
    if (!size_parse(text, &value))
        return fail(err, STATUS_USAGE, "%s takes a size such as 500M or 2G, found '%s'", option->name, text);
    TRY(check_range(option, (double)value, text, err));
    *place = value;
    return STATUS_OK;
}

static Status set_real(const Option *option, double *place, const char *text, Error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return fail(err, STATUS_USAGE, "%s takes a number, found '%s'", option->name, text);
    TRY(check_range(option, value, text, err));
    *place = value;
    return STATUS_OK;
}

static Status set_choice(const Option *option, int *place, const char *text, Error *err)
{
    size_t count = 0;
    for (; option->choices[count]; count++) {
        if (strcmp(option->choices[count], text) == 0) {
            *place = (int)count;
            return STATUS_OK;
        }
    }
    Str all;
    str_init(&all);
    for (size_t i = 0; i < count; i++)
        str_printf(&all, "%s%s", i ? ", " : "", option->choices[i]);
    const char *near = text_nearest(text, option->choices, count);
    Status status = near ? fail(err, STATUS_USAGE, "%s is one of %s; found '%s' (did you mean '%s'?)", option->name,
                                all.text, text, near)
                         : fail(err, STATUS_USAGE, "%s is one of %s; found '%s'", option->name, all.text, text);
    str_release(&all);
    return status;
}

static void add_to_list(const Option *option, TextList *list, const char *text)
{
    if (!option->commas) {
        list_add(list, text);
        return;
    }
    for (char *part = arena_strdup(&line, text); part;) {
        char *comma = strchr(part, ',');
        if (comma)
            *comma = '\0';
        if (*part)
            list_add(list, part);
        part = comma ? comma + 1 : NULL;
    }
}

static Status set_option(const Option *option, void *place, const char *text, Error *err)
{
    switch (option->type) {
    case OPTION_FLAG:
        *(bool *)place = true;
        return STATUS_OK;
    case OPTION_INT:
        return set_int(option, place, text, err);
    case OPTION_SIZE:
        return set_size(option, place, text, err);
    case OPTION_REAL:
        return set_real(option, place, text, err);
    case OPTION_TEXT:
    case OPTION_OPTIONAL:
        *(const char **)place = text;
        return STATUS_OK;
    case OPTION_CHOICE:
        return set_choice(option, place, text, err);
    case OPTION_LIST:
        add_to_list(option, place, text);
        return STATUS_OK;
    }
    return STATUS_OK;
}

/* ---- finding options ----------------------------------------------------------------------------------- */

static const Option *find_long(const Usage *usage, const char *name, size_t length)
{
    for (const Option *option = usage->options; option->name; option++) {
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
            return option;
    }
    return NULL;
}

static const Option *find_letter(const Usage *usage, char letter)
{
    for (const Option *option = usage->options; option->name; option++) {
        if (option->letter == letter)
            return option;
    }
    return NULL;
}

static Status unknown_option(const Usage *usage, const char *text, Error *err)
{
    TextList names = {0};
    for (const Option *option = usage->options; option->name; option++)
        list_add(&names, option->name);
    list_add(&names, "--help");
    char name[80];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "="), text);
    const char *near = text_nearest(name, names.items, names.count);
    if (near)
        return fail(err, STATUS_USAGE, "%s: unknown option '%s' (did you mean '%s'?)", usage->verb, name, near);
    return fail(err, STATUS_USAGE, "%s: unknown option '%s'; 'regraft %s --help' lists them", usage->verb, name,
                usage->verb);
}

/* One option at argv[*i]; moves *i over a value that it takes. */
static Status parse_option(const Usage *usage, int argc, char **argv, int *i, void *fields, Args *args, Error *err)
{
    const char *text = argv[*i];
    bool is_long = text[1] == '-';
    size_t length = strcspn(text, "=");
    const Option *option = is_long ? find_long(usage, text, length) : find_letter(usage, text[1]);
    if (!option)
        return unknown_option(usage, text, err);
    const char *value = is_long ? (text[length] == '=' ? text + length + 1 : NULL) : (text[2] ? text + 2 : NULL);
    if (option->type == OPTION_FLAG && value)
        return fail(err, STATUS_USAGE, "%s takes no value, found '%s'", option->name, text);
    if (option->type == OPTION_OPTIONAL && !value)
        value = "";
    if (option->type != OPTION_FLAG && !value) {
        if (*i + 1 >= argc || text_starts(argv[*i + 1], "--"))
            return fail(err, STATUS_USAGE, "%s: %s needs a value (%s)", usage->verb, option->name, option->value);
        value = argv[++*i];
    }
    assert(option - usage->options < ARGS_MAX);
    args->given[option - usage->options] = true;
    return set_option(option, field(fields, option), value, err);
}

static Status check_complete(const Usage *usage, const Args *args, Error *err)
{
    if (args->count < usage->minimum)
        return fail(err, STATUS_USAGE, "%s: %s missing; usage: regraft %s %s", usage->verb,
                    args->count ? "an argument is" : usage->arguments, usage->verb, usage->arguments);
    if (args->count > usage->maximum)
        return fail(err, STATUS_USAGE, "%s: one argument too many: '%s'; usage: regraft %s %s", usage->verb,
                    args->items[usage->maximum], usage->verb, usage->arguments);
    for (const Option *option = usage->options; option->name; option++) {
        if (option->required && !args_given(args, option->name))
            return fail(err, STATUS_USAGE, "%s: %s %s is needed", usage->verb,
                        option->letter ? (char[]){'-', option->letter, '\0'} : option->name, option->value);
    }
    return STATUS_OK;
}

bool args_given(const Args *args, const char *name)
{
    for (size_t i = 0; args->usage->options[i].name; i++) {
        if (strcmp(args->usage->options[i].name, name) == 0)
            return args->given[i];
    }
    return false;
}

/* ---- help ---------------------------------------------------------------------------------------------- */

/* `text` wrapped to HELP_WIDTH; the cursor is at `column`, following lines start at `indent`. */
static void print_wrapped(const char *text, int column, int indent)
{
    while (*text) {
        int length = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + length > HELP_WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", length, text);
        column += length;
        text += length;
        if (*text == '\n') {
            printf("\n%*s", indent, "");
            column = indent;
        }
        while (*text == ' ' || *text == '\n')
            text++;
    }
    putchar('\n');
}

static void default_text(const Option *option, const void *place, Str *out)
{
    switch (option->type) {
    case OPTION_INT:
        if (*(const int64_t *)place && *(const int64_t *)place != -1) /* 0 and -1 stand for "not set" */
            str_printf(out, "%lld", (long long)*(const int64_t *)place);
        return;
    case OPTION_SIZE:
        if (*(const int64_t *)place)
            str_append(out, human_bytes((size_t) * (const int64_t *)place).text);
        return;
    case OPTION_REAL: {
        double value = *(const double *)place;
        if (value < 0 || value > 0) /* 0 and NaN stand for "not set" */
            str_printf(out, "%g", value);
        return;
    }
    case OPTION_TEXT:
        if (*(const char *const *)place)
            str_append(out, *(const char *const *)place);
        return;
    case OPTION_CHOICE:
        if (*(const int *)place >= 0)
            str_append(out, option->choices[*(const int *)place]);
        return;
    case OPTION_FLAG:
    case OPTION_LIST:
    case OPTION_OPTIONAL:
        return;
    }
}

static void print_option(const Option *option, const void *fields)
{
    Str text;
    str_init(&text);
    if (option->letter)
        str_printf(&text, "  -%c, %s", option->letter, option->name);
    else
        str_printf(&text, "      %s", option->name);
    if (option->value)
        str_printf(&text, option->type == OPTION_OPTIONAL ? "[=%s]" : " %s", option->value);
    int column = printf("%s", text.text);
    if (column + 2 > HELP_INDENT) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", HELP_INDENT - column, "");
    str_clear(&text);
    str_append(&text, option->help);
    for (size_t i = 0; option->type == OPTION_CHOICE && option->choices[i]; i++)
        str_printf(&text, "%s%s", i ? ", " : ": ", option->choices[i]);
    Str preset;
    str_init(&preset);
    default_text(option, (const char *)fields + option->offset, &preset);
    if (preset.length)
        str_printf(&text, " (default %s)", preset.text);
    if (option->required)
        str_append(&text, " (needed)");
    print_wrapped(text.text, HELP_INDENT, HELP_INDENT);
    str_release(&preset);
    str_release(&text);
}

static void print_help(const Usage *usage, const void *fields)
{
    for (size_t i = 0; i < sizeof usage->examples / sizeof *usage->examples && usage->examples[i]; i++)
        printf("%s  %s\n", i ? "" : "Examples:\n", usage->examples[i]);
    printf("\nUsage: regraft %s%s%s [options]\n\n", usage->verb, *usage->arguments ? " " : "", usage->arguments);
    print_wrapped(usage->summary, 0, 0);
    printf("\nOptions:\n");
    for (const Option *option = usage->options; option->name; option++) {
        if (option->group)
            printf("\n%s:\n", option->group);
        print_option(option, fields);
    }
    printf("  -h, --help%*sthis text\n", HELP_INDENT - 12, "");
    if (usage->notes) {
        putchar('\n');
        print_wrapped(usage->notes, 0, 0);
    }
}

/* ---- the whole line ------------------------------------------------------------------------------------ */

static bool asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

Status args_parse(const Usage *usage, int argc, char **argv, void *fields, Args *args, Error *err)
{
    *args = (Args){.usage = usage};
    if (asks_help(argc, argv)) {
        args->help = true;
        print_help(usage, fields);
        return STATUS_OK;
    }
    TextList items = {0};
    bool options = true;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1])
            TRY(parse_option(usage, argc, argv, &i, fields, args, err));
        else
            list_add(&items, argv[i]);
    }
    args->items = items.items;
    args->count = items.count;
    return check_complete(usage, args, err);
}
