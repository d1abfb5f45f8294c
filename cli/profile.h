/* --profile and --trace of `tune` and `run`. */
#ifndef REGRAFT_CLI_PROFILE_H
#define REGRAFT_CLI_PROFILE_H

#include "onnx/base/error.h"
#include "onnx/base/str.h"

/* The table to stderr (results have stdout), the trace to the file `path`; what is NULL is left out. */
Status profile_write(const Str *table, const Str *trace, const char *path, Error *err);

#endif
