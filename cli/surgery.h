/* What cut, attach and freeze share: read, edit in memory, check, show the plan or write and read back. */
#ifndef REGRAFT_CLI_SURGERY_H
#define REGRAFT_CLI_SURGERY_H

#include "cli/args.h"
#include "cli/cli.h"

typedef struct Surgery {
    const char *output;
    bool dry_run, no_verify, strip_doc, json, quiet;
    bool own_plan; /* the verb prints its own plan */
} Surgery;

/* The rows that every surgery verb has; Fields has a member `surgery`. */
#define SURGERY_OPTIONS                                                                                                \
    {OPTION("--output", 'o', TEXT, surgery.output, "FILE", "where the result goes; never the input"),                  \
     .group = "Result"},                                                                                               \
        {OPTION("--dry-run", 'n', FLAG, surgery.dry_run, NULL,                                                         \
                "print what would change, as `diff` does; write nothing")},                                            \
        {OPTION("--json", 0, FLAG, surgery.json, NULL, "print what changes as JSON (regraft.surgery/1)")},             \
        {OPTION("--strip-doc", 0, FLAG, surgery.strip_doc, NULL,                                                       \
                "drop doc strings and stack traces, which hold paths of the exporting machine")},                      \
        {OPTION("--no-verify", 0, FLAG, surgery.no_verify, NULL, "do not read the result back and compare")},          \
    {                                                                                                                  \
        OPTION("--quiet", 'q', FLAG, surgery.quiet, NULL, "print nothing but warnings and errors")                     \
    }

/* `edit` changes the document and says on stderr what it did (say_note). */
typedef Status (*SurgeryEdit)(Model *document, void *context, Error *err);
Status surgery_run(const char *verb, const char *path, const Surgery *options, SurgeryEdit edit, void *context,
                   Error *err);

/* A value of the main graph by name; STATUS_USAGE with a near name. */
Status surgery_value(const Model *document, const char *name, Value **value, Error *err);

#endif
