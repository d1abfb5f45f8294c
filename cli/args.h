/* Options of a verb: a table that says each option's name, type, place in the verb's struct and help text. Parsing,
 * `--help` and did-you-mean all come from the table.
 *
 *     typedef struct Fields { const char *output; int64_t epochs; bool json; } Fields;
 *     static const Option options[] = {
 *         {OPTION("--output", 'o', TEXT, output, "FILE", "where the result goes"), .required = true},
 *         {OPTION("--epochs", 0, INT, epochs, "N", "passes over the data"), .positive = true},
 *         {OPTION("--json", 0, FLAG, json, NULL, "print JSON")},
 *         {0}};
 *
 * Fields keep what the verb put there when an option is not given: that is the default, and --help shows it. */
#ifndef REGRAFT_CLI_ARGS_H
#define REGRAFT_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onnx/base/error.h"

typedef enum OptionType {
    OPTION_FLAG,    /* bool: true when given */
    OPTION_INT,     /* int64_t */
    OPTION_SIZE,    /* int64_t bytes: 500M, 2G, 1.5GiB (all suffixes are powers of 1024) */
    OPTION_REAL,    /* double */
    OPTION_TEXT,    /* const char * */
    OPTION_CHOICE,  /* int: index into `choices` */
    OPTION_LIST,    /* TextList: repeat the option, or separate by commas where `commas` says so */
    OPTION_OPTIONAL /* const char *: the value may be left out (`--x` gives "", `--x=v` gives "v") */
} OptionType;

typedef struct TextList {
    const char **items;
    size_t count, capacity;
} TextList;

typedef struct Option {
    const char *name; /* with its dashes; the table ends with NULL */
    char letter;      /* 'o' for -o; 0: none */
    OptionType type;
    size_t offset;
    const char *value; /* how the value is called in help: "FILE"; NULL for flags */
    const char *help;
    const char *const *choices; /* OPTION_CHOICE: NULL-terminated */
    bool required;
    bool commas;    /* OPTION_LIST: "a,b" is two entries */
    bool positive;  /* OPTION_INT, OPTION_SIZE, OPTION_REAL: must be above 0 */
    double minimum; /* OPTION_INT, OPTION_REAL, when `bounded`: at least this */
    double maximum; /* ... and at most this */
    bool bounded;
    const char *group; /* a heading printed before this option in --help */
} Option;

/* The part that every row has; the verb's struct is called Fields. */
#define OPTION(name_, letter_, type_, field_, value_, help_)                                                           \
    .name = name_, .letter = letter_, .type = OPTION_##type_, .offset = offsetof(Fields, field_), .value = value_,     \
    .help = help_

typedef struct Usage {
    const char *verb;
    const char *arguments;   /* "MODEL" as in the synopsis; "" for none */
    const char *summary;     /* a sentence or two */
    const char *examples[4]; /* at least two, as typed; NULL ends */
    const Option *options;
    size_t minimum, maximum; /* positional arguments */
    const char *notes;       /* printed after the options; may be NULL */
} Usage;

enum { ARGS_MAX = 128 }; /* options a verb can have */

typedef struct Args {
    const char *const *items; /* positional arguments */
    size_t count;
    bool help; /* --help was given and has been printed: return STATUS_OK */
    const Usage *usage;
    bool given[ARGS_MAX]; /* by position in the table */
} Args;

/* Fills `fields`. STATUS_USAGE says what is wrong in one line. `args` and lists live as long as the process (a command
 * line is parsed once). */
Status args_parse(const Usage *usage, int argc, char **argv, void *fields, Args *args, Error *err);
bool args_given(const Args *args, const char *name);

/* "2G" -> 2147483648; false when it is no size. */
bool size_parse(const char *text, int64_t *bytes);

#endif
