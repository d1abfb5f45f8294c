/* regraft inspect: what a model is: inputs and outputs, operators, parameters, BatchNorm, files, what metadata tells.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "onnx/op.h"

typedef struct Fields {
    bool json, parameters, nodes;
    const char *filter;
} Fields;

static const Option options[] = {
    {OPTION("--parameters", 'p', FLAG, parameters, NULL, "list every parameter: shape, first reader, frozen or not")},
    {OPTION("--nodes", 0, FLAG, nodes, NULL, "list every node with its inputs and outputs")},
    {OPTION("--filter", 0, TEXT, filter, "GLOB", "list only parameters and nodes whose name matches")},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON (regraft.inspect/1), one object a model")},
    {0}};

static const Usage usage = {.verb = "inspect",
                            .arguments = "MODEL...",
                            .summary = "Tells what a model is: inputs and outputs with symbolic shapes, opsets, "
                                       "operators, parameters (trainable, frozen, "
                                       "tied, folded by the exporter), the form of its BatchNorm, functions, external "
                                       "files, labels and preprocessing.",
                            .examples = {"regraft inspect model.onnx",
                                         "regraft inspect model.onnx --parameters --filter 'layer4*'",
                                         "regraft inspect a.onnx b.onnx --json"},
                            .options = options,
                            .minimum = 1,
                            .maximum = 1000};

/* ---- gathering ----------------------------------------------------------------------------------------- */

typedef struct Operator {
    const char *domain, *name;
    size_t count;
} Operator;

typedef struct Summary {
    Model *document;
    const char *path;
    size_t bytes;
    Operator *operators; /* most frequent first */
    size_t operator_count, operator_capacity, nodes, bodies;
    ParamList params;
    Status params_status;
    Error params_error;
    BatchNormForm batchnorm;
    size_t batchnorm_count;
    int64_t numbers, trainable, frozen, folded, constants;
    size_t parameter_bytes, trainable_count, frozen_count, folded_count, tied_count, untied_count;
} Summary;

static void count_operators(Summary *s, const Graph *graph)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        size_t i = 0;
        while (i < s->operator_count &&
               (strcmp(s->operators[i].name, node->op_type) != 0 || strcmp(s->operators[i].domain, node->domain) != 0))
            i++;
        if (i == s->operator_count) {
            s->operators = arena_grow(&s->document->arena, s->operators, i, &s->operator_capacity, sizeof(Operator));
            s->operators[s->operator_count++] = (Operator){node->domain, node->op_type, 0};
        }
        s->operators[i].count++;
        s->nodes++;
        for (size_t k = 0; k < node->attr_count; k++) {
            if (node->attrs[k]->g == NULL)
                continue;
            s->bodies++;
            count_operators(s, node->attrs[k]->g);
        }
    }
}

static int compare_operators(const void *a, const void *b)
{
    const Operator *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->name, y->name);
}

static void count_parameters(Summary *s)
{
    s->params_status = params_find(s->document, false, &s->params, &s->params_error);
    if (s->params_status == STATUS_OK)
        s->params_status = freeze_read(s->document, &s->params, &s->params_error);
    if (s->params_status != STATUS_OK)
        s->params.count = s->params.constant_count = 0;
    const char *marks = model_metadata(s->document, "regraft.frozen");
    for (size_t i = 0; i < s->params.count; i++) {
        const ParamInfo *info = &s->params.items[i];
        int64_t count = tensor_count(info->origin);
        s->untied_count += info->untied;
        if (info->tied_to >= 0) {
            s->tied_count++;
            continue;
        }
        s->numbers += count;
        s->parameter_bytes += info->origin->bytes;
        bool frozen = marks != NULL && !info->trainable && !info->looks_folded;
        s->folded += info->looks_folded ? count : 0;
        s->folded_count += info->looks_folded;
        s->frozen += frozen ? count : 0;
        s->frozen_count += frozen;
        s->trainable += !frozen && !info->looks_folded ? count : 0;
        s->trainable_count += !frozen && !info->looks_folded;
    }
    for (size_t i = 0; i < s->params.constant_count; i++)
        s->constants += tensor_count(s->params.constants[i]);
}

static void gather(Summary *s, Model *document, const char *path)
{
    struct stat info;
    *s = (Summary){.document = document, .path = path};
    s->bytes = stat(path, &info) == 0 ? (size_t)info.st_size : 0;
    count_operators(s, document->graph);
    if (s->operator_count > 0)
        qsort(s->operators, s->operator_count, sizeof *s->operators, compare_operators);
    s->batchnorm = batchnorm_form(document, &s->batchnorm_count);
    count_parameters(s);
}

static const char *batchnorm_text(const Summary *s)
{
    switch (s->batchnorm) {
    case BATCHNORM_NONE:
        return "none";
    case BATCHNORM_FOLDED:
        return "folded into convolutions by the exporter";
    case BATCHNORM_INFERENCE:
        return "inference form (running statistics)";
    case BATCHNORM_TRAINING:
        return "training form (statistics of the batch): outputs depend on the whole batch wherever this file is run";
    }
    return "";
}

static const char *const batchnorm_keys[] = {"none", "folded", "inference", "training"};

static bool chosen(const Fields *fields, const char *name)
{
    return fields->filter == NULL || text_glob(fields->filter, name);
}

/* ---- text ---------------------------------------------------------------------------------------------- */

static void print_values(const char *title, Value *const *values, size_t count, Arena *arena)
{
    printf("%s%s%s\n", style_on(stdout, STYLE_BOLD), title, style_off(stdout));
    Table table;
    table_init(&table, "ll");
    for (size_t i = 0; i < count; i++) {
        if (values[i]->is_input && values[i]->is_initializer)
            continue;
        table_cell(&table, STYLE_PLAIN, "%s", values[i]->name);
        table_cell(&table, STYLE_PLAIN, "%s", type_text(arena, &values[i]->type));
    }
    table_print(&table, stdout, 2);
    table_release(&table);
}

static void print_operators(const Summary *s)
{
    printf("%sOperators%s  %zu nodes", style_on(stdout, STYLE_BOLD), style_off(stdout), s->nodes);
    if (s->bodies > 0)
        printf(", %zu branch or loop bodies", s->bodies);
    int width = print_width(stdout), column = 0;
    for (size_t i = 0; i < s->operator_count; i++) {
        const Operator *op = &s->operators[i];
        char text[128];
        int length = snprintf(text, sizeof text, "%s%s%s %zu", op->domain, op->domain[0] != '\0' ? "." : "", op->name,
                              op->count);
        if (column == 0 || column + length + 2 > width) {
            printf("\n  ");
            column = 2;
        }
        column += printf("%s%s", text, i + 1 < s->operator_count ? ", " : "");
    }
    putchar('\n');
}

static void print_parameter_summary(const Summary *s)
{
    printf("%sParameters%s  ", style_on(stdout, STYLE_BOLD), style_off(stdout));
    if (s->params_status != STATUS_OK) {
        printf("not counted: %s\n", s->params_error.message);
        return;
    }
    printf("%s in %zu tensors (%s)\n", human_count(s->numbers).text, s->params.count - s->tied_count,
           human_bytes(s->parameter_bytes).text);
    printf("  trainable  %s in %zu\n", human_count(s->trainable).text, s->trainable_count);
    if (s->frozen_count > 0)
        printf("  frozen     %s in %zu (marked)\n", human_count(s->frozen).text, s->frozen_count);
    if (s->folded_count > 0)
        printf("  folded     %s in %zu %s that the exporter computed; not trained by default\n",
               human_count(s->folded).text, s->folded_count, s->folded_count > 1 ? "tables" : "table");
    if (s->tied_count > 0)
        printf("  tied       %zu exact %s, kept equal\n", s->tied_count, s->tied_count > 1 ? "copies" : "copy");
    if (s->untied_count > 0)
        printf("  shared     %zu tensors merged by the exporter are parameters of their own\n", s->untied_count);
    if (s->constants > 0)
        printf("  constants  %s numbers in %zu tensors (statistics, masks, tables)\n", human_count(s->constants).text,
               s->params.constant_count);
}

static void print_files(const Summary *s)
{
    const Model *m = s->document;
    for (size_t i = 0; i < m->side_count; i++)
        printf("%sExternal data%s  %s (%s)\n", style_on(stdout, STYLE_BOLD), style_off(stdout), m->side_paths[i],
               human_bytes(m->side_files[i].size).text);
    if (m->function_count > 0) {
        printf("%sFunctions%s  %zu model-local:", style_on(stdout, STYLE_BOLD), style_off(stdout), m->function_count);
        for (size_t i = 0; i < m->function_count && i < 6; i++)
            printf(" %s", m->functions[i]->name);
        puts(m->function_count > 6 ? " ..." : "");
    }
}

static size_t line_count(const char *text)
{
    size_t count = text[0] != '\0';
    for (; *text != '\0'; text++)
        count += *text == '\n' && text[1] != '\0';
    return count;
}

/* A value of several lines on one, cut where it gets long. */
static void print_value(const char *text)
{
    int room = print_width(stdout) - 30;
    for (int i = 0; text[i] != '\0'; i++) {
        if (i >= room) {
            printf("...");
            break;
        }
        if (text[i] == '\n')
            printf("%s", text[i + 1] != '\0' ? ", " : "");
        else
            putchar(text[i]);
    }
    putchar('\n');
}

static void print_metadata(const Summary *s)
{
    const Model *m = s->document;
    if (m->metadata_count == 0)
        return;
    printf("%sMetadata%s\n", style_on(stdout, STYLE_BOLD), style_off(stdout));
    for (size_t i = 0; i < m->metadata_count; i++) {
        const char *key = m->metadata[i].key, *value = m->metadata[i].value != NULL ? m->metadata[i].value : "";
        size_t lines = line_count(value);
        printf("  %s%s", key, lines > 1 ? "" : "  ");
        if (lines > 1)
            printf(" (%zu)  ", lines);
        print_value(value);
    }
}

static void print_parameters(const Fields *fields, const Summary *s)
{
    Table table;
    table_init(&table, "llll");
    static const char *const head[] = {"PARAMETER", "SHAPE", "READ BY", "STATE"};
    table_head(&table, head);
    for (size_t i = 0; i < s->params.count; i++) {
        const ParamInfo *info = &s->params.items[i];
        if (!chosen(fields, info->name))
            continue;
        const char *state = info->tied_to >= 0   ? "tied"
                            : info->looks_folded ? "folded"
                            : !info->trainable   ? "frozen"
                                                 : "trainable";
        table_cell(&table, STYLE_PLAIN, "%s", info->name);
        table_cell(&table, STYLE_PLAIN, "%s%s", dtype_name(info->origin->dtype),
                   dims_text(&s->document->arena, info->origin->rank, info->origin->dims));
        table_cell(&table, STYLE_PLAIN, "%s %s", info->op_type, info->node);
        table_cell(&table, info->trainable ? STYLE_PLAIN : STYLE_BLUE, "%s%s%s", state,
                   info->tied_to >= 0 ? " to " : "", info->tied_to >= 0 ? s->params.items[info->tied_to].name : "");
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void print_nodes(const Fields *fields, const Summary *s)
{
    Table table;
    table_init(&table, "rlll");
    static const char *const head[] = {"#", "OPERATOR", "NAME", "OUTPUT"};
    table_head(&table, head);
    size_t i = 0;
    for (const Node *node = s->document->graph->first; node != NULL; node = node->next, i++) {
        if (!chosen(fields, node->name))
            continue;
        const Value *output = node_output(node, 0);
        table_cell(&table, STYLE_DIM, "%zu", i);
        table_cell(&table, STYLE_PLAIN, "%s", node->op_type);
        table_cell(&table, STYLE_PLAIN, "%s", node->name);
        table_cell(&table, STYLE_PLAIN, "%s  %s", output != NULL ? output->name : "",
                   output != NULL && output->type.kind != TYPE_UNKNOWN ? type_text(&s->document->arena, &output->type)
                                                                       : "");
    }
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void print_summary(const Summary *s)
{
    const Model *m = s->document;
    printf("%s%s%s  %s, IR %lld", style_on(stdout, STYLE_BOLD), s->path, style_off(stdout), human_bytes(s->bytes).text,
           (long long)m->ir_version);
    for (size_t i = 0; i < m->opset_count; i++)
        printf(", %s %lld", m->opsets[i].domain[0] != '\0' ? m->opsets[i].domain : "opset",
               (long long)m->opsets[i].version);
    if (m->producer_name != NULL && m->producer_name[0] != '\0')
        printf(", by %s%s%s", m->producer_name,
               m->producer_version != NULL && m->producer_version[0] != '\0' ? " " : "",
               m->producer_version != NULL ? m->producer_version : "");
    putchar('\n');
    Arena *arena = &s->document->arena;
    print_values("Inputs", m->graph->inputs, m->graph->input_count, arena);
    print_values("Outputs", m->graph->outputs, m->graph->output_count, arena);
    print_operators(s);
    print_parameter_summary(s);
    printf("%sBatchNorm%s  %s", style_on(stdout, STYLE_BOLD), style_off(stdout), batchnorm_text(s));
    if (s->batchnorm_count > 0)
        printf(" (%zu)", s->batchnorm_count);
    putchar('\n');
    print_files(s);
    print_metadata(s);
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static void json_type(Json *json, const Type *type)
{
    json_put_string(json, "dtype", dtype_name(type->dtype));
    json_key(json, "shape");
    if (type->rank < 0) {
        json_string(json, NULL);
        return;
    }
    json_open(json, '[');
    for (int i = 0; i < type->rank; i++) {
        if (type->dims[i] >= 0)
            json_int(json, type->dims[i]);
        else
            json_string(json, type->symbols[i]);
    }
    json_close(json, ']');
}

static void json_values(Json *json, const char *key, Value *const *values, size_t count)
{
    json_put_open(json, key, '[');
    for (size_t i = 0; i < count; i++) {
        if (values[i]->is_input && values[i]->is_initializer)
            continue;
        json_open(json, '{');
        json_put_string(json, "name", values[i]->name);
        json_type(json, &values[i]->type);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void json_model(Json *json, const Summary *s)
{
    const Model *m = s->document;
    json_put_int(json, "ir_version", m->ir_version);
    json_put_string(json, "producer", m->producer_name);
    json_put_string(json, "producer_version", m->producer_version);
    json_put_open(json, "opsets", '{');
    for (size_t i = 0; i < m->opset_count; i++)
        json_put_int(json, m->opsets[i].domain[0] != '\0' ? m->opsets[i].domain : "ai.onnx", m->opsets[i].version);
    json_close(json, '}');
    json_values(json, "inputs", m->graph->inputs, m->graph->input_count);
    json_values(json, "outputs", m->graph->outputs, m->graph->output_count);
    json_put_int(json, "nodes", (int64_t)s->nodes);
    json_put_open(json, "operators", '{');
    for (size_t i = 0; i < s->operator_count; i++) {
        const Operator *op = &s->operators[i];
        const char *name =
            op->domain[0] == '\0' ? op->name : arena_printf(&s->document->arena, "%s.%s", op->domain, op->name);
        json_put_int(json, name, (int64_t)op->count);
    }
    json_close(json, '}');
    json_put_int(json, "functions", (int64_t)m->function_count);
    json_put_open(json, "external_files", '[');
    for (size_t i = 0; i < m->side_count; i++)
        json_string(json, m->side_paths[i]);
    json_close(json, ']');
    json_put_open(json, "metadata", '{');
    for (size_t i = 0; i < m->metadata_count; i++)
        json_put_string(json, m->metadata[i].key, m->metadata[i].value);
    json_close(json, '}');
}

static void json_parameters(Json *json, const Fields *fields, const Summary *s)
{
    json_put_open(json, "parameters", '{');
    json_put_int(json, "count", s->numbers);
    json_put_int(json, "tensors", (int64_t)(s->params.count - s->tied_count));
    json_put_int(json, "bytes", (int64_t)s->parameter_bytes);
    json_put_int(json, "trainable", s->trainable);
    json_put_int(json, "frozen", s->frozen);
    json_put_int(json, "folded", s->folded);
    json_put_int(json, "tied", (int64_t)s->tied_count);
    json_put_int(json, "constants", s->constants);
    if (s->params_status != STATUS_OK)
        json_put_string(json, "error", s->params_error.message);
    json_close(json, '}');
    if (!fields->parameters)
        return;
    json_put_open(json, "parameter_list", '[');
    for (size_t i = 0; i < s->params.count; i++) {
        const ParamInfo *info = &s->params.items[i];
        if (!chosen(fields, info->name))
            continue;
        json_open(json, '{');
        json_put_string(json, "name", info->name);
        json_put_string(json, "dtype", dtype_name(info->origin->dtype));
        json_put_open(json, "shape", '[');
        for (int k = 0; k < info->origin->rank; k++)
            json_int(json, info->origin->dims[k]);
        json_close(json, ']');
        json_put_string(json, "node", info->node);
        json_put_string(json, "operator", info->op_type);
        json_put_string(json, "scope", info->scope);
        json_put_bool(json, "trainable", info->trainable);
        json_put_bool(json, "norm", info->is_norm);
        json_put_bool(json, "folded", info->looks_folded);
        json_put_string(json, "tied_to", info->tied_to >= 0 ? s->params.items[info->tied_to].name : NULL);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void print_json(const Fields *fields, const Summary *s)
{
    Json json;
    json_begin(&json, "regraft.inspect/1");
    json_put_string(&json, "path", s->path);
    json_put_int(&json, "bytes", (int64_t)s->bytes);
    json_model(&json, s);
    json_parameters(&json, fields, s);
    json_put_open(&json, "batchnorm", '{');
    json_put_string(&json, "form", batchnorm_keys[s->batchnorm]);
    json_put_int(&json, "count", (int64_t)s->batchnorm_count);
    json_close(&json, '}');
    json_end(&json);
}

static Status inspect(const Fields *fields, const char *path, Error *err)
{
    Model *document;
    TRY(document_open(path, &document, err));
    document_infer(document);
    Summary summary;
    gather(&summary, document, path);
    if (fields->json) {
        print_json(fields, &summary);
    } else {
        print_summary(&summary);
        if (fields->parameters)
            print_parameters(fields, &summary);
        if (fields->nodes)
            print_nodes(fields, &summary);
    }
    model_free(document);
    return STATUS_OK;
}

Status cmd_inspect(int argc, char **argv, Error *err)
{
    Fields fields = {0};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    Status worst = STATUS_OK;
    for (size_t i = 0; i < args.count; i++) {
        if (i > 0 && !fields.json)
            putchar('\n');
        Error one = {STATUS_OK, ""};
        Status status = inspect(&fields, args.items[i], &one);
        if (status == STATUS_OK)
            continue;
        if (worst != STATUS_OK)
            say_error("%s", err->message);
        *err = one;
        worst = status;
    }
    return worst;
}
