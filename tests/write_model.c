/* write_model TEXT FILE: a model from its text form (docs/ir.md), for tests of the tool. TEXT is a file, or - for
 * standard input. */
#include <stdio.h>

#include "onnx/onnx.h"
#include "runtime/runtime.h"

static Status read_all(const char *path, Str *text, Error *err)
{
    FILE *stream = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (stream == NULL)
        return fail(err, STATUS_REJECTED, "%s: cannot be opened", path);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, stream)) > 0;)
        str_append_bytes(text, chunk, n);
    if (stream != stdin)
        fclose(stream);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: write_model TEXT FILE\n");
        return STATUS_USAGE;
    }
    Error err = {STATUS_OK, ""};
    Str text;
    str_init(&text);
    Model *model = NULL;
    Status status = read_all(argv[1], &text, &err);
    if (status == STATUS_OK)
        status = model_parse(text.text, &builtin_ops, &model, &err);
    if (status == STATUS_OK)
        status = model_export(model, argv[2], NULL, &err);
    if (status != STATUS_OK)
        fprintf(stderr, "write_model: %s\n", err.message);
    model_free(model);
    str_release(&text);
    return (int)status;
}
