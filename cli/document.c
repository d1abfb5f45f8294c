/* Models from files and to files, as the surgery verbs need them: opened with the tool's operators, saved where they
 * may be, read back and compared. */
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

void document_infer(Model *document)
{
    Error err = {STATUS_OK, ""};
    if (shapes_symbolic(document, NULL, &err) != STATUS_OK)
        say_warning("shapes are known only where the file tells them: %s", err.message);
}

/* ---- verification -------------------------------------------------------------------------------------- */

static const Tensor *initializer_of(const Graph *graph, const char *name)
{
    const Value *value = graph_find(graph, name);
    return value != NULL && value->is_initializer ? value->constant : NULL;
}

static bool line_of(const char *lines, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = lines; at != NULL && (at = strstr(at, name)) != NULL; at++)
        if ((at == lines || at[-1] == '\n') && (at[length] == '\n' || at[length] == '\0'))
            return true;
    return false;
}

/* `made`: names of parameters that a new head brought; an old one may have borne the same name. */
static Status same_initializers(const Graph *written, const Graph *original, const char *made, bool all, Error *err)
{
    for (size_t i = 0; i < original->initializer_count; i++) {
        const Value *value = original->initializers[i];
        const Tensor *other = initializer_of(written, value->name);
        if (value->constant == NULL || (other == NULL && !all) || line_of(made, value->name))
            continue;
        if (other == NULL || !tensor_equal(value->constant, other))
            return fail(err, STATUS_UNVERIFIED, "initializer '%s' %s", value->name,
                        other == NULL ? "was not written" : "has other bytes than before");
    }
    return STATUS_OK;
}

/* Types of inner values are remarks behind #; a file need not hold them. */
static void drop_remarks(Str *text)
{
    char *to = text->text;
    for (const char *from = text->text; *from != '\0'; from++) {
        if (from[0] == ' ' && from[1] == '#')
            from += strcspn(from, "\n");
        *to++ = *from;
    }
    *to = '\0';
}

static Status same_graph(const Model *a, const Model *b, Error *err)
{
    Str first, second;
    str_init(&first);
    str_init(&second);
    model_print(a, &first);
    model_print(b, &second);
    if (first.length > 0 && second.length > 0) {
        drop_remarks(&first);
        drop_remarks(&second);
    }
    bool same = strcmp(first.text, second.text) == 0;
    size_t line = 1;
    for (size_t i = 0; !same && first.text[i] == second.text[i]; i++)
        line += first.text[i] == '\n';
    str_release(&first);
    str_release(&second);
    return same ? STATUS_OK
                : fail(err, STATUS_UNVERIFIED, "what was written is not what is in memory (line %zu of the text form)",
                       line);
}

/* Shapes that fitted before must still fit. */
static Status same_fit(Model *written, Model *original, Error *err)
{
    Error now = {STATUS_OK, ""};
    if (shapes_symbolic(written, NULL, &now) != STATUS_REJECTED || shapes_symbolic(original, NULL, NULL) != STATUS_OK)
        return STATUS_OK;
    return fail(err, STATUS_UNVERIFIED, "%s", now.message);
}

static Status verify(const Model *document, Model *original, const char *output, Error *err)
{
    Model *written;
    TRY(document_open(output, &written, err));
    Status status = model_check(written, err);
    if (status == STATUS_OK)
        status = same_graph(document, written, err);
    if (status == STATUS_OK)
        status = same_initializers(written->graph, document->graph, NULL, true, err);
    if (status == STATUS_OK && original != NULL)
        status =
            same_initializers(written->graph, original->graph, model_metadata(document, "regraft.head"), false, err);
    if (status == STATUS_OK && original != NULL)
        status = same_fit(written, original, err);
    model_free(written);
    return status;
}

Status document_verify(const Model *document, Model *original, const char *output, Error *err)
{
    Error found = {STATUS_OK, ""};
    if (verify(document, original, output, &found) == STATUS_OK)
        return STATUS_OK;
    unlink(output);
    return fail(err, STATUS_UNVERIFIED, "%s: verification failed, nothing kept: %s", output, found.message);
}
