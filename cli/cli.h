/* The tool: verbs, what they share, and the table that main.c walks.
 *
 * A verb is one file, cmd_NAME.c, with one function of the type below. It parses its own options (cli/args.h), writes
 * data to stdout and messages to stderr (cli/print.h), and returns a Status, which is the exit code; main prints
 * err->message. To add a verb: a prototype here, a line in `commands` in main.c, a file name in CMakeLists.txt. */
#ifndef REGRAFT_CLI_CLI_H
#define REGRAFT_CLI_CLI_H

#include "onnx/onnx.h"

/* argv[0] is the verb; argc counts it. */
typedef Status (*CommandRun)(int argc, char **argv, Error *err);

typedef struct Command {
    const char *name;
    CommandRun run;
    const char *help; /* one line for `regraft help` */
} Command;

/* ---- cmd_*.c ---------------------------------------------------------------------------------------------- */

#endif
