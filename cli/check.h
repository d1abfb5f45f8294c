/* Foresight: what a model will do when it is run or trained, said before anything runs.
 *
 * check_model.c looks at the document (forms, ties, tables, oddities of exporters); check_plan.c builds the working
 * graphs for inference and for training, without running them, and looks for what stops them. Codes are explained in
 * docs/check-codes.md. */
#ifndef REGRAFT_CLI_CHECK_H
#define REGRAFT_CLI_CHECK_H

#include "cli/cli.h"

typedef enum Level { LEVEL_ERROR, LEVEL_WARNING, LEVEL_INFO } Level;

typedef enum Code {
    CODE_UNKNOWN_OPERATOR,
    CODE_OPSET,
    CODE_CANNOT_RUN,
    CODE_NO_GRADIENT,
    CODE_NOTHING_TRAINS,
    CODE_SHAPES,
    CODE_DATA_DEPENDENT,
    CODE_BUILD,
    CODE_BATCHNORM_FOLDED,
    CODE_BATCHNORM_LIVE,
    CODE_DROPOUT_LIVE,
    CODE_TIED,
    CODE_UNTIED,
    CODE_FOLDED_TABLE,
    CODE_BAKED_BATCH,
    CODE_FIXED_BATCH,
    CODE_PREPROCESSING,
    CODE_HEAD_UNCLEAR,
    CODE_UNREACHED,
    CODE_RANDOM,
    CODE_NO_BIAS,
    CODE_INTERPRETED,
    CODE_FROZEN_MARKS,
    CODE_FUNCTIONS,
    CODE_INPUT_INITIALIZERS,
    CODE_LOCAL_PATHS,
    CODE_COUNT
} Code;

typedef struct CodeInfo {
    const char *id, *name; /* "E01", "unknown-operator" */
    Level level;
} CodeInfo;

extern const CodeInfo code_infos[CODE_COUNT];

typedef struct Finding {
    Code code;
    const char *node, *op_type; /* NULL: about the whole model */
    const char *text;
} Finding;

typedef struct Dim {
    const char *name;
    int64_t value;
} Dim;

typedef struct Check {
    Model *document;
    Arena *arena; /* the document's */
    ParamList params;
    const Dim *dims; /* symbolic dims that the user bound */
    size_t dim_count;
    int64_t batch;
    bool train; /* look at training too */
    Finding *findings;
    size_t count, capacity;
    bool runs, trains;
    size_t trained_tensors;
    int64_t trained_numbers;
} Check;

/* At most a few of a kind are kept one by one; `check_add` copies the text. `node` may be NULL. */
void check_add(Check *check, Code code, const Node *node, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
size_t check_level_count(const Check *check, Level level);

void check_model(Check *check);
void check_plan(Check *check);

#endif
