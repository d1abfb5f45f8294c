/* What belongs to a whole model: its making and end, opsets, metadata, functions. Its graphs: graph.c. */
#include "onnx/onnx.h"
#include "onnx/op.h"

Model *model_new(const OpSet *ops)
{
    Model *model = calloc(1, sizeof *model);
    if (model == NULL)
        abort();
    arena_init(&model->arena);
    map_init(&model->function_index);
    model->ops = ops;
    model->ir_version = 10;
    model->graph = graph_new(model, "graph", NULL);
    return model;
}

void model_free(Model *model)
{
    if (model == NULL)
        return;
    for (Graph *graph = model->last_made; graph != NULL; graph = graph->made_before)
        map_release(&graph->values);
    map_release(&model->function_index);
    mapping_release(&model->file);
    for (size_t i = 0; i < model->side_count; i++)
        mapping_release(&model->side_files[i]);
    arena_release(&model->arena);
    free(model);
}

void model_rest(const Model *model)
{
    mapping_rest(&model->file);
    for (size_t i = 0; i < model->side_count; i++)
        mapping_rest(&model->side_files[i]);
}

int64_t model_opset(const Model *model, const char *domain)
{
    for (size_t i = 0; i < model->opset_count; i++)
        if (strcmp(domain_key(model->opsets[i].domain), domain_key(domain)) == 0)
            return model->opsets[i].version;
    return 0;
}

void model_set_opset(Model *model, const char *domain, int64_t version)
{
    for (size_t i = 0; i < model->opset_count; i++) {
        if (strcmp(domain_key(model->opsets[i].domain), domain_key(domain)) == 0) {
            model->opsets[i].version = version;
            return;
        }
    }
    model->opsets = arena_grow(&model->arena, model->opsets, model->opset_count, &model->opset_capacity, sizeof(Opset));
    model->opsets[model->opset_count++] = (Opset){.domain = arena_strdup(&model->arena, domain), .version = version};
}

static const char *pair_find(const Pair *pairs, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(pairs[i].key, key) == 0)
            return pairs[i].value;
    return NULL;
}

const char *model_metadata(const Model *model, const char *key)
{
    return pair_find(model->metadata, model->metadata_count, key);
}

const char *extra_metadata(const Extra *extra, const char *key)
{
    return pair_find(extra->metadata, extra->metadata_count, key);
}

const char *value_metadata(const Value *value, const char *key)
{
    return pair_find(value->notes, value->note_count, key);
}

void model_set_metadata(Model *model, const char *key, const char *value)
{
    size_t i = 0;
    while (i < model->metadata_count && strcmp(model->metadata[i].key, key) != 0)
        i++;
    if (value == NULL) {
        if (i == model->metadata_count)
            return;
        memmove(model->metadata + i, model->metadata + i + 1, (model->metadata_count - i - 1) * sizeof(Pair));
        model->metadata_count--;
        return;
    }
    const char *copy = arena_strdup(&model->arena, value);
    if (i < model->metadata_count) {
        model->metadata[i].value = copy;
        return;
    }
    model->metadata =
        arena_grow(&model->arena, model->metadata, model->metadata_count, &model->metadata_capacity, sizeof(Pair));
    model->metadata[model->metadata_count++] = (Pair){.key = arena_strdup(&model->arena, key), .value = copy};
}

static void function_key(Str *key, const char *domain, const char *name, const char *overload)
{
    str_clear(key);
    str_printf(key, "%s\n%s\n%s", domain_key(domain), name, overload == NULL ? "" : overload);
}

/* The first of a name counts. Functions are only ever added, so a count says whether the index knows all of them. */
static void index_functions(Model *model)
{
    Str key;
    str_init(&key);
    for (; model->functions_indexed < model->function_count; model->functions_indexed++) {
        Function *function = model->functions[model->functions_indexed];
        function_key(&key, function->domain, function->name, function->overload);
        if (!map_has(&model->function_index, key.text))
            map_set(&model->function_index, arena_strdup(&model->arena, key.text), function);
    }
    str_release(&key);
}

Function *model_function(const Model *model, const char *domain, const char *name, const char *overload)
{
    if (model->function_count == 0)
        return NULL;
    if (model->functions_indexed != model->function_count)
        index_functions((Model *)(uintptr_t)model);
    Str key;
    str_init(&key);
    function_key(&key, domain, name, overload);
    Function *function = map_get(&model->function_index, key.text);
    str_release(&key);
    return function;
}
