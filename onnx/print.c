/* The text form: ONNX's textual syntax with a few additions (docs/ir.md), so that a graph can be read, compared and,
 * for tests, written by hand. What parse.c reads back is the same model, except tensors of more than SHOWN elements
 * (`...` and a hash of their bytes stand for them), sparse tensors and what only export cares about (doc strings,
 * unknown fields). */
#include "onnx/onnx.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>

enum { SHOWN = 16 };

/* ---- words ------------------------------------------------------------------------------------------- */

static void print_quoted(Str *out, const char *text, size_t length)
{
    str_append(out, "\"");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            str_printf(out, "\\%c", c);
        else if (c == '\n')
            str_append(out, "\\n");
        else if (c < 32 || c == 127)
            str_printf(out, "\\x%02x", c);
        else
            str_append_bytes(out, text + i, 1);
    }
    str_append(out, "\"");
}

static void print_text(Str *out, const char *text)
{
    print_quoted(out, text, strlen(text));
}

static bool is_identifier(const char *text)
{
    if (!isalpha((unsigned char)text[0]) && text[0] != '_')
        return false;
    for (; *text != '\0'; text++)
        if (!isalnum((unsigned char)*text) && *text != '_')
            return false;
    return true;
}

static void print_name(Str *out, const char *name)
{
    if (is_identifier(name))
        str_append(out, name);
    else
        print_text(out, name);
}

static void print_float(Str *out, double value, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, value);
    str_append(out, text);
    if (isfinite(value) && strpbrk(text, ".e") == NULL)
        str_append(out, ".0");
}

/* ---- types and tensors --------------------------------------------------------------------------------- */

static const char *element_name(DType dtype)
{
    return dtype == DTYPE_F32 ? "float" : dtype == DTYPE_F64 ? "double" : dtype_name(dtype);
}

/* `float[batch,3]`; `float` is rank 0 and `float[]` of unknown rank, as in ONNX. */
static void print_tensor_type(Str *out, const Type *type)
{
    str_append(out, element_name(type->dtype));
    if (type->rank == 0)
        return;
    str_append(out, "[");
    for (int i = 0; i < type->rank; i++) {
        str_append(out, i > 0 ? "," : "");
        if (type->symbols[i] != NULL)
            print_name(out, type->symbols[i]);
        else if (type->dims[i] < 0)
            str_append(out, "?");
        else
            str_printf(out, "%" PRId64, type->dims[i]);
    }
    str_append(out, "]");
}

static void print_type(Str *out, const Type *type)
{
    static const char *const kinds[] = {
        [TYPE_SEQUENCE] = "seq", [TYPE_OPTIONAL] = "optional", [TYPE_MAP] = "map", [TYPE_SPARSE] = "sparse_tensor"};
    if (type->kind == TYPE_TENSOR) {
        print_tensor_type(out, type);
        return;
    }
    str_printf(out, "%s(", kinds[type->kind]);
    print_tensor_type(out, type);
    str_append(out, ")");
}

static uint64_t fnv(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 1099511628211u;
    return hash ^ hash >> 32;
}

/* FNV-1a over words, in four lanes that do not wait for each other: gigabytes of weights are printed, too. Enough to
 * see that two printed tensors differ. */
static uint64_t hash_of(const Tensor *tensor)
{
    uint64_t lanes[4] = {14695981039346656037u, 1, 2, 3}, words[4];
    const unsigned char *bytes = tensor->data;
    size_t count = tensor->dtype == DTYPE_STRING ? 0 : tensor->bytes, i = 0;
    for (; i + sizeof words <= count; i += sizeof words) {
        memcpy(words, bytes + i, sizeof words);
        for (int lane = 0; lane < 4; lane++)
            lanes[lane] = fnv(lanes[lane], words[lane]);
    }
    for (; i < count; i++)
        lanes[0] = fnv(lanes[0], bytes[i]);
    return fnv(fnv(fnv(lanes[0], lanes[1]), lanes[2]), lanes[3]);
}

static void print_element(Str *out, const Tensor *tensor, int64_t i)
{
    const Bytes *strings = tensor->data;
    if (tensor->dtype == DTYPE_STRING)
        print_quoted(out, strings[i].data, strings[i].length);
    else if (tensor->dtype == DTYPE_U64)
        str_printf(out, "%" PRIu64, (uint64_t)tensor_i64_at(tensor, i));
    else if (dtype_is_float(tensor->dtype))
        print_float(out, tensor_f64_at(tensor, i), tensor->dtype == DTYPE_F64 ? 17 : 9);
    else
        str_printf(out, "%" PRId64, tensor_i64_at(tensor, i));
}

/* Real and imaginary parts in turns. */
static void print_complex(Str *out, const Tensor *tensor, int64_t count)
{
    for (int64_t i = 0; i < 2 * count; i++) {
        float f = 0;
        double d = 0;
        if (tensor->dtype == DTYPE_C64)
            memcpy(&f, (const char *)tensor->data + (size_t)i * sizeof f, sizeof f);
        else
            memcpy(&d, (const char *)tensor->data + (size_t)i * sizeof d, sizeof d);
        str_append(out, i > 0 ? ", " : "");
        print_float(out, tensor->dtype == DTYPE_C64 ? (double)f : d, tensor->dtype == DTYPE_C64 ? 9 : 17);
    }
}

static void print_elements(Str *out, const Tensor *tensor)
{
    int64_t count = tensor_count(tensor);
    str_append(out, "{");
    if (count > SHOWN)
        str_printf(out, "... %016" PRIx64, hash_of(tensor));
    else if (tensor->dtype == DTYPE_C64 || tensor->dtype == DTYPE_C128)
        print_complex(out, tensor, count);
    else
        for (int64_t i = 0; i < count; i++) {
            str_append(out, i > 0 ? ", " : "");
            print_element(out, tensor, i);
        }
    str_append(out, "}");
}

static void print_tensor_shape(Str *out, const Tensor *tensor)
{
    str_append(out, element_name(tensor->dtype));
    for (int i = 0; i < tensor->rank; i++)
        str_printf(out, "%s%" PRId64, i == 0 ? "[" : ",", tensor->dims[i]);
    str_append(out, tensor->rank > 0 ? "]" : "");
}

static void print_tensor(Str *out, const Tensor *tensor)
{
    print_tensor_shape(out, tensor);
    str_append(out, " ");
    if (tensor->name != NULL && tensor->name[0] != '\0') {
        print_name(out, tensor->name);
        str_append(out, " ");
    }
    print_elements(out, tensor);
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static void print_graph(Str *out, const Graph *graph, int indent);

static const char *const attr_types[] = {
    [ATTR_UNDEFINED] = "undefined",    [ATTR_FLOAT] = "float",     [ATTR_INT] = "int",
    [ATTR_STRING] = "string",          [ATTR_TENSOR] = "tensor",   [ATTR_GRAPH] = "graph",
    [ATTR_FLOATS] = "floats",          [ATTR_INTS] = "ints",       [ATTR_STRINGS] = "strings",
    [ATTR_TENSORS] = "tensors",        [ATTR_GRAPHS] = "graphs",   [ATTR_SPARSE] = "sparse_tensor",
    [ATTR_SPARSES] = "sparse_tensors", [ATTR_TYPE] = "type_proto", [ATTR_TYPES] = "type_protos",
};

static void print_item(Str *out, const Attr *attr, size_t i, int indent)
{
    switch (attr->type) {
    case ATTR_FLOATS:
        print_float(out, (double)attr->floats[i], 9);
        break;
    case ATTR_INTS:
        str_printf(out, "%" PRId64, attr->ints[i]);
        break;
    case ATTR_STRINGS:
        print_quoted(out, attr->strings[i].data, attr->strings[i].length);
        break;
    case ATTR_TENSORS:
        print_tensor(out, attr->tensors[i]);
        break;
    case ATTR_GRAPHS:
        print_graph(out, attr->graphs[i], indent);
        break;
    case ATTR_TYPE:
    case ATTR_TYPES:
        print_quoted(out, attr->types[i].data, attr->types[i].length);
        break;
    default:
        str_append(out, "...");
        break;
    }
}

static void print_value_of(Str *out, const Attr *attr, int indent)
{
    switch (attr->type) {
    case ATTR_FLOAT:
        print_float(out, (double)attr->f, 9);
        break;
    case ATTR_INT:
        str_printf(out, "%" PRId64, attr->i);
        break;
    case ATTR_STRING:
        print_quoted(out, attr->s.data, attr->s.length);
        break;
    case ATTR_TENSOR:
        print_tensor(out, attr->t);
        break;
    case ATTR_GRAPH:
        print_graph(out, attr->g, indent);
        break;
    case ATTR_SPARSE:
    case ATTR_UNDEFINED:
        str_append(out, "...");
        break;
    default:
        str_append(out, "[");
        for (size_t i = 0; i < attr->count; i++) {
            str_append(out, i > 0 ? ", " : "");
            print_item(out, attr, i, indent);
        }
        str_append(out, "]");
        break;
    }
}

/* The type is written where the value alone would not tell it. */
static void print_attr(Str *out, const Attr *attr, int indent)
{
    bool is_list = attr->type >= ATTR_FLOATS && attr->type <= ATTR_GRAPHS;
    bool tells = attr->ref_attr_name == NULL && attr->type < ATTR_SPARSE && (!is_list || attr->count > 0);
    print_name(out, attr->name);
    if (!tells)
        str_printf(out, ": %s", attr_types[attr->type]);
    str_append(out, " = ");
    if (attr->ref_attr_name != NULL) {
        str_append(out, "@");
        print_name(out, attr->ref_attr_name);
    } else {
        print_value_of(out, attr, indent);
    }
}

/* ---- nodes and graphs ------------------------------------------------------------------------------------ */

static void print_values(Str *out, Value *const *values, int count)
{
    for (int i = 0; i < count; i++) {
        str_append(out, i > 0 ? ", " : "");
        print_name(out, values[i] == NULL ? "" : values[i]->name);
    }
}

static void print_operator(Str *out, const Node *node)
{
    bool dotted = node->domain[0] != '\0' && is_identifier(node->op_type);
    for (const char *c = node->domain; dotted && *c != '\0'; c++)
        dotted = isalnum((unsigned char)*c) || *c == '_' || *c == '.';
    if (node->domain[0] == '\0')
        print_name(out, node->op_type);
    else if (dotted)
        str_printf(out, "%s.%s", node->domain, node->op_type);
    else
        str_printf(out, "\"%s.%s\"", node->domain, node->op_type);
    if (node->overload != NULL && node->overload[0] != '\0') {
        str_append(out, ":");
        print_name(out, node->overload);
    }
}

static void print_node(Str *out, const Node *node, int indent)
{
    str_printf(out, "%*s", indent, "");
    if (node->name[0] != '\0') {
        str_append(out, "[");
        print_name(out, node->name);
        str_append(out, "] ");
    }
    print_values(out, node->outputs, node->output_count);
    str_append(out, node->output_count > 0 ? " = " : "= ");
    print_operator(out, node);
    for (size_t i = 0; i < node->attr_count; i++) {
        str_append(out, i == 0 ? " <" : ", ");
        print_attr(out, node->attrs[i], indent + 4);
    }
    str_append(out, node->attr_count > 0 ? "> (" : " (");
    print_values(out, node->inputs, node->input_count);
    str_append(out, ")");
    const Value *first = node_output(node, 0);
    if (first != NULL && !first->has_info && !first->is_output && first->type.kind != TYPE_UNKNOWN) {
        str_append(out, " # ");
        print_type(out, &first->type);
    }
    str_append(out, "\n");
}

static void print_value(Str *out, const Value *value, bool with_constant)
{
    if (value->type.kind != TYPE_UNKNOWN) {
        print_type(out, &value->type);
        str_append(out, " ");
    }
    print_name(out, value->name);
    if (with_constant && value->is_initializer) {
        str_append(out, " = ");
        print_elements(out, value->constant);
    }
}

static void print_inputs(Str *out, const Graph *graph)
{
    str_append(out, "(");
    for (size_t i = 0; i < graph->input_count; i++) {
        str_append(out, i > 0 ? ", " : "");
        print_value(out, graph->inputs[i], true);
    }
    str_append(out, ")");
}

static void print_outputs(Str *out, const Graph *graph)
{
    str_append(out, " => (");
    for (size_t i = 0; i < graph->output_count; i++) {
        const Value *value = graph->outputs[i];
        str_append(out, i > 0 ? ", " : "");
        print_value(out, value, value->graph == graph && !value->is_input);
    }
    str_append(out, ") ");
}

static void print_inner(Str *out, const Value *value, int indent, size_t *written)
{
    str_printf(out, "%s%*s", *written == 0 ? "<\n" : ",\n", indent + 4, "");
    if (value->type.kind == TYPE_UNKNOWN && value->constant != NULL) { /* a rank that Type cannot hold */
        print_tensor_shape(out, value->constant);
        str_append(out, " ");
    }
    print_value(out, value, true);
    (*written)++;
}

/* Initializers, and the types of inner values that the file told. */
static void print_inner_values(Str *out, const Graph *graph, int indent)
{
    size_t written = 0;
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (!graph->initializers[i]->is_input && !graph->initializers[i]->is_output)
            print_inner(out, graph->initializers[i], indent, &written);
    for (size_t i = 0; i < graph->values.count; i++) {
        const Value *value = graph->values.entries[i].value;
        if (graph->values.entries[i].key != NULL && value->has_info && !value->is_initializer && !value->is_input &&
            !value->is_output && value->type.kind != TYPE_UNKNOWN)
            print_inner(out, value, indent, &written);
    }
    if (written > 0)
        str_printf(out, "\n%*s>\n%*s", indent, "", indent, "");
}

static void print_body(Str *out, const Graph *graph, int indent)
{
    str_append(out, "{\n");
    for (const Node *node = graph->first; node != NULL; node = node->next)
        print_node(out, node, indent + 4);
    str_printf(out, "%*s}", indent, "");
}

static void print_graph(Str *out, const Graph *graph, int indent)
{
    print_name(out, graph->name);
    str_append(out, " ");
    print_inputs(out, graph);
    print_outputs(out, graph);
    print_inner_values(out, graph, indent);
    print_body(out, graph, indent);
}

void graph_print(const Graph *graph, Str *out)
{
    print_graph(out, graph, 0);
    str_append(out, "\n");
}

/* ---- models ------------------------------------------------------------------------------------------------ */

static void print_opsets(Str *out, const Opset *opsets, size_t count)
{
    str_append(out, "    opset_import: [");
    for (size_t i = 0; i < count; i++) {
        str_append(out, i > 0 ? ", " : "");
        print_text(out, opsets[i].domain);
        str_printf(out, " : %" PRId64, opsets[i].version);
    }
    str_append(out, "]");
}

static void print_field(Str *out, const char *name, const char *value)
{
    if (value == NULL)
        return;
    str_printf(out, ",\n    %s: ", name);
    print_text(out, value);
}

static void print_function(Str *out, const Function *function)
{
    str_append(out, "<\n");
    print_opsets(out, function->opsets, function->opset_count);
    print_field(out, "domain", function->domain);
    if (function->overload != NULL && function->overload[0] != '\0')
        print_field(out, "overload", function->overload);
    str_append(out, "\n>\n");
    print_name(out, function->name);
    size_t attrs = function->attr_count + function->default_count;
    for (size_t i = 0; i < attrs; i++) {
        str_append(out, i == 0 ? " <" : ", ");
        if (i < function->attr_count)
            print_name(out, function->attrs[i]);
        else
            print_attr(out, function->defaults[i - function->attr_count], 4);
    }
    str_append(out, attrs > 0 ? "> " : " ");
    print_inputs(out, function->graph);
    print_outputs(out, function->graph);
    print_inner_values(out, function->graph, 0);
    print_body(out, function->graph, 0);
    str_append(out, "\n");
}

void model_print(const Model *model, Str *out)
{
    str_printf(out, "<\n    ir_version: %" PRId64 ",\n", model->ir_version);
    print_opsets(out, model->opsets, model->opset_count);
    print_field(out, "producer_name", model->producer_name);
    print_field(out, "producer_version", model->producer_version);
    print_field(out, "domain", model->domain);
    if (model->has_model_version)
        str_printf(out, ",\n    model_version: %" PRId64, model->model_version);
    for (size_t i = 0; i < model->metadata_count; i++) {
        str_append(out, i == 0 ? ",\n    metadata_props: [" : ", ");
        print_text(out, model->metadata[i].key);
        str_append(out, " : ");
        print_text(out, model->metadata[i].value);
    }
    str_append(out, model->metadata_count > 0 ? "]\n>\n" : "\n>\n");
    graph_print(model->graph, out);
    for (size_t i = 0; i < model->function_count; i++)
        print_function(out, model->functions[i]);
}
