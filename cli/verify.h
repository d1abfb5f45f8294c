/* Reading back what was written, see verify.c. */
#ifndef REGRAFT_CLI_VERIFY_H
#define REGRAFT_CLI_VERIFY_H

#include "cli/cli.h"

enum { WITNESS_INPUTS = 16 };

/* What training itself computed for a few samples: the first output must come out of the file again. */
typedef struct Witness {
    Array inputs[WITNESS_INPUTS]; /* of the inputs that are fed, in order */
    size_t input_count;
    float *rows;
    size_t count;     /* numbers in `rows`; 0: there is no witness */
    double tolerance; /* of the largest number */
} Witness;

/* Reads `output` back: it must pass the checker, its shapes must fit, it must be what is in memory (as text, unless doc
 * strings were stripped, and byte for byte) and compute what is in memory computes; every initializer that `original`
 * (may be NULL) has under the same name must have the same bytes. `witness` may be NULL. STATUS_UNVERIFIED says what is
 * wrong, and the file is removed. */
Status document_verify(Model *document, Model *original, const Witness *witness, bool stripped, const char *output,
                       Error *err);

#endif
