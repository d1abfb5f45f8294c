/* Shows a profile and writes a trace; see profile.h. */
#include "cli/profile.h"

#include <stdio.h>

#include "onnx/base/file.h"

Status profile_write(const Str *table, const Str *trace, const char *path, Error *err)
{
    if (table != NULL && table->length > 0)
        fprintf(stderr, "\n%s\n", table->text);
    if (trace != NULL && trace->length > 0)
        return file_write_text(path, trace->text, err);
    return STATUS_OK;
}
