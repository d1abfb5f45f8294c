/* Models from files and to files, as the verbs need them: opened with the tool's operators, saved where they may be. */
#include "cli/cli.h"
#include "cli/print.h"
#include "runtime/runtime.h"

#include <unistd.h>

/* Puts the path before a message that does not begin with it. */
static void name_file(Error *err, const char *path)
{
    if (!text_starts(err->message, path))
        error_prefix(err, "%s", path);
}

Status document_open(const char *path, Model **document, Error *err)
{
    Status status = model_import(path, &builtin_ops, document, err);
    if (status != STATUS_OK)
        name_file(err, path);
    return status;
}

static bool calls_function(const Model *document, const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        if (model_function(document, node->domain, node->op_type, node->overload) != NULL)
            return true;
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && calls_function(document, node->attrs[i]->g))
                return true;
    }
    return false;
}

Status document_inline(Model *document, Error *err)
{
    if (document->function_count == 0 || !calls_function(document, document->graph))
        return STATUS_OK;
    size_t functions = document->function_count, before = document->graph->node_count;
    TRY(pass_inline(document, err));
    say_note("inlined %zu model-local functions: %zu nodes became %zu", functions, before, document->graph->node_count);
    return STATUS_OK;
}

Status document_check_output(const Model *document, const char *output, Error *err)
{
    if (document->path != NULL && file_same(document->path, output))
        return fail(err, STATUS_USAGE, "%s: the output would overwrite the input; choose another name", output);
    for (size_t i = 0; i < document->side_count; i++)
        if (file_same(document->side_paths[i], output))
            return fail(err, STATUS_USAGE, "%s: the output would overwrite the input's external data", output);
    return STATUS_OK;
}

Status document_save(const Model *document, const char *output, bool strip_doc, Error *err)
{
    const char *inputs[] = {document->path, NULL};
    ExportOptions options = {.strip_doc = strip_doc, .inputs_not_to_touch = document->path ? inputs : NULL};
    Status status = model_export(document, output, &options, err);
    if (status != STATUS_OK)
        name_file(err, output);
    return status;
}

size_t weight_bytes(const Graph *graph)
{
    size_t bytes = 0;
    for (size_t i = 0; i < graph->initializer_count; i++)
        bytes += graph->initializers[i]->constant == NULL ? 0 : graph->initializers[i]->constant->bytes;
    return bytes;
}

void document_remove(const char *output)
{
    Str side;
    str_init(&side);
    str_printf(&side, "%s.data", output);
    unlink(output);
    unlink(side.text);
    str_release(&side);
}

Status document_free_batch(Model *document, int64_t *baked, Error *err)
{
    BatchReport report;
    bool same = true;
    Status status = pass_batch(document, &report, err);
    if (baked != NULL)
        *baked = report.baked;
    if (status != STATUS_OK)
        return status;
    if (report.rewritten == 0)
        return STATUS_OK;
    TRY(samples_independent(document, report.baked, &same, err));
    if (!same)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: only a batch of %lld fits, and it does not show where the batch lies; export again with a "
                    "dynamic batch (dynamic_axes or dynamic_shapes)",
                    report.first, (long long)report.baked);
    say_note("the exporter baked a batch of %lld into %zu nodes (first %s): rewritten, so that any batch fits",
             (long long)report.baked, report.rewritten, report.first);
    return STATUS_OK;
}

void document_infer(Model *document)
{
    Error err = {STATUS_OK, ""};
    if (shapes_symbolic(document, NULL, &err) != STATUS_OK)
        say_warning("shapes are known only where the file tells them: %s", err.message);
}
