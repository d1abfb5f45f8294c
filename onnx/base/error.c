/* The one place that formats error messages; see error.h. */
#include "onnx/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

Status fail(Error *err, Status status, const char *format, ...)
{
    if (err == NULL || err->status != STATUS_OK)
        return err == NULL ? status : err->status;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    err->status = status;
    return status;
}

void error_prefix(Error *err, const char *format, ...)
{
    if (err == NULL || err->status == STATUS_OK)
        return;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof err->message)
        n = 0;
    snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", old);
}

void error_clear(Error *err)
{
    if (err == NULL)
        return;
    err->status = STATUS_OK;
    err->message[0] = '\0';
}
