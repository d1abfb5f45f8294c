/* write_large KIND NODES FILE: a large model of a kind of tests/large_graphs.h, to measure the tool with. Without
 * arguments: the kinds. */
#include "tests/large_graphs.h"

#include <stdio.h>

#include "onnx/onnx.h"
#include "runtime/runtime.h"

int main(int argc, char **argv)
{
    const LargeKind *kind = NULL;
    for (size_t i = 0; argc == 4 && i < LARGE_KINDS; i++)
        if (strcmp(argv[1], large_kinds[i].name) == 0)
            kind = &large_kinds[i];
    if (kind == NULL) {
        fprintf(stderr, "usage: write_large KIND NODES FILE; kinds:");
        for (size_t i = 0; i < LARGE_KINDS; i++)
            fprintf(stderr, " %s", large_kinds[i].name);
        fprintf(stderr, "\n");
        return STATUS_USAGE;
    }
    Error err = {STATUS_OK, ""};
    Str text;
    str_init(&text);
    kind->write((size_t)strtoull(argv[2], NULL, 10), &text);
    Model *model = NULL;
    Status status = model_parse(text.text, &builtin_ops, &model, &err);
    if (status == STATUS_OK)
        status = model_export(model, argv[3], NULL, &err);
    if (status != STATUS_OK)
        fprintf(stderr, "write_large: %s\n", err.message);
    model_free(model);
    str_release(&text);
    return (int)status;
}
