/* The tool: verbs, what they share, and the table that main.c walks.
 *
 * A verb is one file, cmd_NAME.c, with one function of the type below. It parses its own options (cli/args.h), writes
 * data to stdout and messages to stderr (cli/print.h), and returns a Status, which is the exit code; main prints
 * err->message. To add a verb: a prototype here, a line in `commands` in main.c, a file name in CMakeLists.txt. */
#ifndef REGRAFT_CLI_CLI_H
#define REGRAFT_CLI_CLI_H

#include "onnx/onnx.h"
#include "passes/passes.h"

/* argv[0] is the verb; argc counts it. */
typedef Status (*CommandRun)(int argc, char **argv, Error *err);

typedef struct Command {
    const char *name;
    CommandRun run;
    const char *help; /* one line for `regraft help` */
} Command;

/* ---- document.c: models from files and to files ------------------------------------------------------------- */

/* Imports with the tool's operators; messages begin with the path. */
Status document_open(const char *path, Model **document, Error *err);
/* Model-local functions that the main graph calls are inlined, which surgery needs; says so on stderr. */
Status document_inline(Model *document, Error *err);
/* A batch size that the exporter baked in is rewritten in the document, so that it takes any; says so on stderr.
 * STATUS_UNSUPPORTED names the node that cannot be rewritten. A model that takes any batch stays as it is. *baked (may be
 * NULL): the batch of the export, 0 when any fits. */
Status document_free_batch(Model *document, int64_t *baked, Error *err);
/* STATUS_USAGE when `output` is a file that the document was read from. Asked first, before any work. */
Status document_check_output(const Model *document, const char *output, Error *err);
Status document_save(const Model *document, const char *output, bool strip_doc, Error *err);
/* Takes back a model that document_save wrote, its side file too. */
void document_remove(const char *output);
size_t weight_bytes(const Graph *graph); /* of its initializers */
/* Types with symbols where inference reaches; a failure to infer is a warning, not an end. */
void document_infer(Model *document);

/* ---- cmd_*.c ---------------------------------------------------------------------------------------------- */

Status cmd_attach(int argc, char **argv, Error *err);
Status cmd_check(int argc, char **argv, Error *err);
Status cmd_cut(int argc, char **argv, Error *err);
Status cmd_diff(int argc, char **argv, Error *err);
Status cmd_eval(int argc, char **argv, Error *err);
Status cmd_features(int argc, char **argv, Error *err);
Status cmd_freeze(int argc, char **argv, Error *err);
Status cmd_heads(int argc, char **argv, Error *err);
Status cmd_inspect(int argc, char **argv, Error *err);
Status cmd_ops(int argc, char **argv, Error *err);
Status cmd_predict(int argc, char **argv, Error *err);
Status cmd_run(int argc, char **argv, Error *err);
Status cmd_tune(int argc, char **argv, Error *err);

#endif
