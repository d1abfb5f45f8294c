/* Metrics as members of a JSON object, under the same keys in what `eval --json` prints and in the run folder of `tune`
 * (docs/formats.md). The figures are computed in runtime/metrics.c. */
#ifndef REGRAFT_CLI_SCORE_H
#define REGRAFT_CLI_SCORE_H

#include "cli/print.h"
#include "runtime/train.h"

/* The name of class `c`; never NULL. */
typedef const char *ClassName(const void *context, size_t c);

void json_put_classes(Json *json, const Metrics *m, ClassName *name, const void *context);
void json_put_column(Json *json, const ColumnMetrics *m, bool labels); /* of a label, or a number; or their mean */

#endif
