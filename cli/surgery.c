/* The course of every surgery verb: read, edit, check, then print the plan or write, read back and compare. */
#include "cli/surgery.h"

#include <sys/stat.h>

#include "cli/compare.h"
#include "cli/print.h"
#include "cli/verify.h"

Status surgery_value(const Model *document, const char *name, Value **value, Error *err)
{
    const Graph *graph = document->graph;
    *value = graph_find(graph, name);
    if (*value != NULL)
        return STATUS_OK;
    Arena scratch;
    arena_init(&scratch);
    const char **names = arena_array(&scratch, const char *, graph->values.count + 1);
    size_t count = 0;
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            names[count++] = graph->values.entries[i].key;
    const char *near = text_nearest(name, names, count);
    Status status = near != NULL ? fail(err, STATUS_USAGE, "no tensor is called '%s' (did you mean '%s'?)", name, near)
                                 : fail(err, STATUS_USAGE, "no tensor is called '%s'", name);
    arena_release(&scratch);
    return status;
}

static void print_plan(const char *verb, const char *path, const Surgery *options, const Comparison *comparison)
{
    if (!options->json) {
        if (options->dry_run && !options->own_plan)
            comparison_print(comparison, 20);
        return;
    }
    Json json;
    json_begin(&json, "regraft.surgery/1");
    json_put_string(&json, "verb", verb);
    json_put_string(&json, "input", path);
    json_put_string(&json, "output", options->dry_run ? NULL : options->output);
    json_put_bool(&json, "dry_run", options->dry_run);
    json_put_bool(&json, "verified", !options->dry_run && !options->no_verify);
    comparison_json(comparison, &json);
    json_end(&json);
}

static size_t size_of(const char *path, const char *ending)
{
    Str whole;
    struct stat info;
    str_init(&whole);
    str_printf(&whole, "%s%s", path, ending);
    size_t bytes = stat(whole.text, &info) == 0 ? (size_t)info.st_size : 0;
    str_release(&whole);
    return bytes;
}

static void note_written(const Model *document, const Surgery *options, const Comparison *comparison)
{
    Str sizes;
    str_init(&sizes);
    str_printf(&sizes, "%s", human_bytes(size_of(options->output, "")).text);
    if (size_of(options->output, "") < weight_bytes(document->graph)) /* it cannot hold them */
        str_printf(&sizes, ", %s of weights beside it", human_bytes(size_of(options->output, ".data")).text);
    say_note("wrote %s (%s)%s; %zu initializers untouched byte for byte", options->output, sizes.text,
             options->no_verify ? "" : ", read back and compared", comparison->same_count);
    str_release(&sizes);
}

static Status write(Model *document, Model *original, const Surgery *options, Error *err)
{
    TRY(document_save(document, options->output, options->strip_doc, err));
    return options->no_verify ? STATUS_OK
                              : document_verify(document, original, NULL, options->strip_doc, options->output, err);
}

static Status operate(const char *verb, const char *path, Model *document, Model *original, const Surgery *options,
                      SurgeryEdit edit, void *context, Error *err)
{
    if (!options->dry_run)
        TRY(document_check_output(original, options->output, err));
    Status status = document_inline(document, err);
    if (status == STATUS_OK) {
        document_infer(document);
        status = edit(document, context, err);
        document_infer(document); /* new outputs */
    }
    if (status == STATUS_OK)
        status = model_check(document, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", path);
        return status;
    }
    Comparison comparison;
    compare_models(original, document, (CompareIgnore){0}, &comparison);
    if (!options->dry_run)
        status = write(document, original, options, err);
    if (status == STATUS_OK) {
        if (!options->dry_run)
            note_written(document, options, &comparison);
        print_plan(verb, path, options, &comparison);
    }
    comparison_release(&comparison);
    return status;
}

Status surgery_run(const char *verb, const char *path, const Surgery *options, SurgeryEdit edit, void *context,
                   Error *err)
{
    if (options->output == NULL && !options->dry_run)
        return fail(err, STATUS_USAGE, "%s: -o FILE is needed (or --dry-run)", verb);
    if (options->output != NULL && options->dry_run)
        say_warning("--dry-run writes nothing: -o %s has no effect", options->output);
    say_quietly(options->quiet);
    Model *original = NULL, *document = NULL;
    Status status = document_open(path, &original, err);
    if (status == STATUS_OK)
        status = document_open(path, &document, err);
    if (status == STATUS_OK)
        model_share(original, document);
    if (status == STATUS_OK)
        status = operate(verb, path, document, original, options, edit, context, err);
    model_free(original); /* uses the document's files */
    model_free(document);
    return status;
}
