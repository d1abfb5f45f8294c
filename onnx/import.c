/* ModelProto -> Model: the one reader of untrusted models.
 *
 * The wire scan has bounded everything before (onnx/wire.h); here names become pointers. A graph is read in two steps,
 * first all values that it defines (inputs, initializers, outputs of nodes), then its nodes with their inputs and
 * bodies, so that a file may list nodes in any order and bodies find what is around them. Then every graph is sorted.
 * What the IR has no field for is kept in wire format for export. Checks here are those that make the IR sound; whether
 * an operator's inputs make sense is inference's business. */
#include "onnx/gate.h"

#include <inttypes.h>

enum { IR_NEWEST = 14, ATTRIBUTES_MAX = 1024 /* of one node */, OPSETS_MAX = 1024 };

/* ---- leaves --------------------------------------------------------------------------------------------------- */

static const char *read_domain(const Gate *gate, const char *domain, unsigned field, uint32_t *blank)
{
    if (domain != NULL && strcmp(domain, "ai.onnx") == 0) {
        *blank |= BLANK_AI_ONNX;
        return "";
    }
    return gate_text_blank(gate, domain, field, blank);
}

static Status read_opsets(const Gate *gate, size_t count, Onnx__OperatorSetIdProto *const *from, Opset **opsets)
{
    if (count > OPSETS_MAX)
        return fail(gate->err, STATUS_REJECTED, "%zu opsets; at most %d are read", count, OPSETS_MAX);
    *opsets = arena_array(gate->arena, Opset, count);
    for (size_t i = 0; i < count; i++) {
        Opset *to = &(*opsets)[i];
        to->domain = read_domain(gate, from[i]->domain, 1, &to->blank);
        to->version = from[i]->version;
        to->unknown = wire_unknown(gate->arena, &from[i]->base);
        if (to->version < 1 || to->version > INT32_MAX)
            return fail(gate->err, STATUS_REJECTED, "opset %" PRId64 " of domain '%s'", to->version, to->domain);
        for (size_t k = 0; k < i; k++)
            if (strcmp((*opsets)[k].domain, to->domain) == 0 && (*opsets)[k].version != to->version)
                return fail(gate->err, STATUS_REJECTED, "opsets %" PRId64 " and %" PRId64 " of domain '%s'",
                            (*opsets)[k].version, to->version, to->domain);
    }
    return STATUS_OK;
}

static void read_extra(const Gate *gate, const ProtobufCMessage *message, const char *doc_string, size_t pairs,
                       Onnx__StringStringEntryProto *const *metadata, Extra *extra)
{
    extra->doc_string = gate_text(gate, doc_string);
    gate_pairs(gate, pairs, metadata, &extra->metadata, &extra->metadata_count);
    extra->metadata_capacity = extra->metadata_count;
    extra->unknown = wire_unknown(gate->arena, message);
}

/* Adds messages without a place in the IR to kept fields. */
static Bytes keep_too(const Gate *gate, Bytes kept, unsigned field, size_t count, ProtobufCMessage *const *messages)
{
    if (count == 0)
        return kept;
    Str out;
    str_init(&out);
    str_append_bytes(&out, kept.length > 0 ? kept.data : "", kept.length);
    for (size_t i = 0; i < count; i++)
        wire_keep_message(&out, field, messages[i]);
    Bytes more = {arena_strndup(gate->arena, out.text, out.length), out.length};
    str_release(&out);
    return more;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static const char *graph_text(const Gate *gate, const Graph *graph)
{
    if (graph->parent_node != NULL)
        return arena_printf(gate->arena, "body of %s", node_text(graph->parent_node));
    return arena_printf(gate->arena, "graph '%s'", graph->name);
}

static Status reject_value(const Gate *gate, const Graph *graph, const char *name, const char *what)
{
    return fail(gate->err, STATUS_REJECTED, "%s: '%s' %s", graph_text(gate, graph), name, what);
}

static Status read_inputs(Gate *gate, Graph *graph, size_t count, Onnx__ValueInfoProto *const *from)
{
    graph->input_infos = arena_array(gate->arena, Info, count);
    graph->input_info_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *name = from[i]->name;
        if (name == NULL || name[0] == '\0')
            return fail(gate->err, STATUS_REJECTED, "%s: input %zu has no name", graph_text(gate, graph), i);
        if (graph_find(graph, name) != NULL)
            return reject_value(gate, graph, name, "is listed as an input twice");
        Value *value = graph_add_value(graph, name);
        type_from_proto(gate->arena, from[i]->type, &value->type);
        graph->input_infos[i] = (Info){value, gate_bytes(gate, &from[i]->base)};
        graph_add_input(graph, value);
    }
    return STATUS_OK;
}

static Status read_initializers(Gate *gate, Graph *graph, size_t count, Onnx__TensorProto *const *from)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = from[i]->name;
        if (name == NULL || name[0] == '\0')
            return fail(gate->err, STATUS_REJECTED, "%s: initializer %zu has no name", graph_text(gate, graph), i);
        const Value *known = graph_find(graph, name);
        if (known != NULL && known->is_initializer)
            return reject_value(gate, graph, name, "is an initializer twice");
        Tensor *tensor;
        TRY(gate_tensor(gate, from[i], arena_printf(&gate->scratch, "initializer '%s'", name), &tensor));
        graph_add_initializer(graph, tensor);
    }
    return STATUS_OK;
}

static Status read_sparse_initializers(Gate *gate, Graph *graph, size_t count, Onnx__SparseTensorProto *const *from)
{
    graph->sparse_initializers = arena_array(gate->arena, SparseTensor *, count);
    graph->sparse_names = arena_array(gate->arena, const char *, count);
    for (size_t i = 0; i < count; i++) {
        const char *name = from[i]->values == NULL ? NULL : from[i]->values->name;
        if (name == NULL || name[0] == '\0')
            return fail(gate->err, STATUS_REJECTED, "%s: sparse initializer %zu has no name", graph_text(gate, graph),
                        i);
        Value *value = graph_find(graph, name);
        if (value != NULL && value->constant != NULL)
            return reject_value(gate, graph, name, "is an initializer twice");
        SparseTensor *sparse;
        TRY(gate_sparse(gate, from[i], arena_printf(&gate->scratch, "sparse initializer '%s'", name), &sparse));
        graph->sparse_initializers[graph->sparse_count] = sparse;
        graph->sparse_names[graph->sparse_count++] = sparse->values->name;
        if (value == NULL)
            value = graph_add_value(graph, name);
        TRY(gate_densify(gate, sparse, name, &value->constant));
        if (value->type.kind == TYPE_UNKNOWN && sparse->rank <= RANK_MAX)
            value->type = (Type){.kind = TYPE_TENSOR, .dtype = value->constant->dtype, .rank = -1};
    }
    return STATUS_OK;
}

/* A node without inputs and attributes, so that its outputs exist. */
static Status read_node(Gate *gate, Graph *graph, const Onnx__NodeProto *from, size_t index)
{
    if (from->op_type == NULL || from->op_type[0] == '\0')
        return fail(gate->err, STATUS_REJECTED, "%s: node %zu '%s' has no operator", graph_text(gate, graph), index,
                    from->name == NULL ? "" : from->name);
    uint32_t blank = 0;
    const char *domain = read_domain(gate, from->domain, 7, &blank);
    if (strcmp(domain, DOMAIN_INTERNAL) == 0)
        return fail(gate->err, STATUS_REJECTED, "node '%s': domain " DOMAIN_INTERNAL " is not for files",
                    from->name == NULL ? "" : from->name);
    int64_t opset = domain[0] == '\0' ? 0 : 1; /* vendors' domains often go unimported and have one version */
    for (size_t i = 0; i < gate->opset_count; i++)
        if (strcmp(gate->opsets[i].domain, domain) == 0)
            opset = gate->opsets[i].version;
    if (opset == 0)
        return fail(gate->err, STATUS_REJECTED, "%s '%s': the model imports no opset of the default domain",
                    from->op_type, from->name == NULL ? "" : from->name);
    Node *node = graph_add_node(graph, NULL, domain, from->op_type, (int)opset, from->name, NULL, 0, 0);
    node->overload = gate_text_blank(gate, from->overload, 8, &blank);
    if (from->name != NULL && from->name[0] == '\0')
        blank |= 1u << 3;
    read_extra(gate, &from->base, from->doc_string, from->n_metadata_props, from->metadata_props, &node->extra);
    node->extra.unknown = keep_too(gate, node->extra.unknown, 10, from->n_device_configurations,
                                   (ProtobufCMessage *const *)(void *)from->device_configurations);
    node->extra.blank = blank;
    for (size_t i = 0; i < from->n_output; i++) {
        const char *name = from->output[i];
        if (name[0] == '\0') {
            node_set_output(node, (int)i, NULL);
            continue;
        }
        if (graph_find(graph, name) != NULL)
            return fail(gate->err, STATUS_REJECTED, "%s: its output '%s' is defined elsewhere too", node_text(node),
                        name);
        node_set_output(node, (int)i, graph_add_value(graph, name));
    }
    return STATUS_OK;
}

static Status read_nodes(Gate *gate, Graph *graph, size_t count, Onnx__NodeProto *const *from)
{
    for (size_t i = 0; i < count; i++)
        TRY(read_node(gate, graph, from[i], i));
    return STATUS_OK;
}

/* value_info, as a list: entries may name inputs, outputs or nothing at all. */
static void read_infos(const Gate *gate, Graph *graph, size_t count, Onnx__ValueInfoProto *const *from)
{
    graph->infos = arena_array(gate->arena, Info, count);
    graph->info_count = count;
    for (size_t i = 0; i < count; i++) {
        Value *value = from[i]->name == NULL ? NULL : graph_find(graph, from[i]->name);
        graph->infos[i] = (Info){value, gate_bytes(gate, &from[i]->base)};
        if (value == NULL)
            continue;
        value->has_info = true;
        if (value->is_initializer)
            gate_pairs(gate, from[i]->n_metadata_props, from[i]->metadata_props, &value->notes, &value->note_count);
        if (value->type.kind == TYPE_UNKNOWN)
            type_from_proto(gate->arena, from[i]->type, &value->type);
    }
}

static Status read_output(const Gate *gate, Graph *graph, const char *name)
{
    Value *value = graph_resolve(graph, name);
    if (value == NULL)
        return reject_value(gate, graph, name, "is an output that nothing computes");
    graph_add_output(graph, value);
    return STATUS_OK;
}

static Status read_outputs(const Gate *gate, Graph *graph, size_t count, Onnx__ValueInfoProto *const *from)
{
    graph->output_infos = arena_array(gate->arena, Info, count);
    graph->output_info_count = count;
    for (size_t i = 0; i < count; i++) {
        if (from[i]->name == NULL || from[i]->name[0] == '\0')
            return fail(gate->err, STATUS_REJECTED, "%s: output %zu has no name", graph_text(gate, graph), i);
        TRY(read_output(gate, graph, from[i]->name));
        Value *value = graph->outputs[i];
        graph->output_infos[i] = (Info){value, gate_bytes(gate, &from[i]->base)};
        if (value->type.kind == TYPE_UNKNOWN && value->graph == graph)
            type_from_proto(gate->arena, from[i]->type, &value->type);
    }
    return STATUS_OK;
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static Status read_graph(Gate *gate, const Onnx__GraphProto *from, Graph *parent, Node *parent_node, Graph **graph);

/* The type whose field is set; ATTR_UNDEFINED when none is. STATUS_REJECTED when there are two. */
static Status attr_found(const Gate *gate, const Onnx__AttributeProto *from, const char *who, AttrType *found)
{
    const bool set[] = {[ATTR_FLOAT] = from->has_f,
                        [ATTR_INT] = from->has_i,
                        [ATTR_STRING] = from->has_s,
                        [ATTR_TENSOR] = from->t != NULL,
                        [ATTR_GRAPH] = from->g != NULL,
                        [ATTR_FLOATS] = from->n_floats > 0,
                        [ATTR_INTS] = from->n_ints > 0,
                        [ATTR_STRINGS] = from->n_strings > 0,
                        [ATTR_TENSORS] = from->n_tensors > 0,
                        [ATTR_GRAPHS] = from->n_graphs > 0,
                        [ATTR_SPARSE] = from->sparse_tensor != NULL,
                        [ATTR_SPARSES] = from->n_sparse_tensors > 0,
                        [ATTR_TYPE] = from->tp != NULL,
                        [ATTR_TYPES] = from->n_type_protos > 0};
    *found = ATTR_UNDEFINED;
    for (int i = ATTR_FLOAT; i <= ATTR_TYPES; i++) {
        if (!set[i])
            continue;
        if (*found != ATTR_UNDEFINED)
            return fail(gate->err, STATUS_REJECTED, "%s has two values", who);
        *found = (AttrType)i;
    }
    return STATUS_OK;
}

static Status attr_type(const Gate *gate, const Onnx__AttributeProto *from, const char *who, Attr *attr)
{
    AttrType found;
    TRY(attr_found(gate, from, who, &found));
    if (!from->has_type) {
        if (found == ATTR_UNDEFINED)
            return fail(gate->err, STATUS_REJECTED, "%s has neither type nor value", who);
        attr->extra.blank |= BLANK_NO_TYPE;
        attr->type = found;
        return STATUS_OK;
    }
    int type = (int)from->type;
    if (type <= ATTR_UNDEFINED || type > ATTR_TYPES)
        return fail(gate->err, STATUS_REJECTED, "%s has type %d, which is none", who, type);
    if (found != ATTR_UNDEFINED && (int)found != type)
        return fail(gate->err, STATUS_REJECTED, "%s says type %d and holds a value of type %d", who, type, (int)found);
    attr->type = (AttrType)type;
    if (found == ATTR_UNDEFINED)
        attr->extra.blank |= BLANK_NO_VALUE;
    return STATUS_OK;
}

static Bytes read_bytes(const Gate *gate, const ProtobufCBinaryData *from)
{
    return (Bytes){arena_strndup(gate->arena, (const char *)from->data, from->len), from->len};
}

static void read_numbers(const Gate *gate, const Onnx__AttributeProto *from, Attr *attr)
{
    if (attr->type == ATTR_FLOATS) {
        attr->count = from->n_floats;
        attr->floats = arena_copy(gate->arena, from->floats, from->n_floats * sizeof *from->floats);
    } else if (attr->type == ATTR_INTS) {
        attr->count = from->n_ints;
        attr->ints = arena_copy(gate->arena, from->ints, from->n_ints * sizeof *from->ints);
    } else if (attr->type == ATTR_STRINGS) {
        attr->count = from->n_strings;
        attr->strings = arena_array(gate->arena, Bytes, from->n_strings);
        for (size_t i = 0; i < from->n_strings; i++)
            attr->strings[i] = read_bytes(gate, &from->strings[i]);
    }
}

static void read_types(const Gate *gate, size_t count, Onnx__TypeProto *const *from, Attr *attr)
{
    attr->count = count;
    attr->types = arena_array(gate->arena, Bytes, count);
    for (size_t i = 0; i < count; i++)
        attr->types[i] = gate_bytes(gate, &from[i]->base);
}

static Status read_tensors(Gate *gate, const Onnx__AttributeProto *from, const char *who, Attr *attr)
{
    attr->count = from->n_tensors;
    attr->tensors = arena_array(gate->arena, Tensor *, from->n_tensors);
    for (size_t i = 0; i < from->n_tensors; i++)
        TRY(gate_tensor(gate, from->tensors[i], who, &attr->tensors[i]));
    return STATUS_OK;
}

static Status read_sparses(Gate *gate, const Onnx__AttributeProto *from, const char *who, Attr *attr)
{
    attr->count = from->n_sparse_tensors;
    attr->sparses = arena_array(gate->arena, SparseTensor *, from->n_sparse_tensors);
    for (size_t i = 0; i < from->n_sparse_tensors; i++)
        TRY(gate_sparse(gate, from->sparse_tensors[i], who, &attr->sparses[i]));
    return STATUS_OK;
}

static Status read_graphs(Gate *gate, const Onnx__AttributeProto *from, Graph *graph, Node *node, Attr *attr)
{
    attr->count = from->n_graphs;
    attr->graphs = arena_array(gate->arena, Graph *, from->n_graphs);
    for (size_t i = 0; i < from->n_graphs; i++)
        TRY(read_graph(gate, from->graphs[i], graph, node, &attr->graphs[i]));
    return STATUS_OK;
}

/* The one value that a type asks for must be there, unless the attribute is a reference to the caller's. */
static bool value_missing(const Attr *attr)
{
    bool needs =
        attr->type == ATTR_TENSOR || attr->type == ATTR_GRAPH || attr->type == ATTR_SPARSE || attr->type == ATTR_TYPE;
    return needs && (attr->extra.blank & BLANK_NO_VALUE) != 0 && attr->ref_attr_name == NULL;
}

static Status read_value(Gate *gate, const Onnx__AttributeProto *from, const char *who, Graph *graph, Node *node,
                         Attr *attr)
{
    if ((attr->extra.blank & BLANK_NO_VALUE) != 0 && attr->type != ATTR_STRING)
        return STATUS_OK;
    switch (attr->type) {
    case ATTR_FLOAT:
        attr->f = from->f;
        return STATUS_OK;
    case ATTR_INT:
        attr->i = from->i;
        return STATUS_OK;
    case ATTR_STRING:
        attr->s = read_bytes(gate, &from->s);
        return STATUS_OK;
    case ATTR_TENSOR:
        return gate_tensor(gate, from->t, who, &attr->t);
    case ATTR_SPARSE:
        return gate_sparse(gate, from->sparse_tensor, who, &attr->sparse);
    case ATTR_GRAPH:
        return read_graph(gate, from->g, graph, node, &attr->g);
    case ATTR_TYPE:
        read_types(gate, 1, &from->tp, attr);
        return STATUS_OK;
    case ATTR_TYPES:
        read_types(gate, from->n_type_protos, from->type_protos, attr);
        return STATUS_OK;
    case ATTR_TENSORS:
        return read_tensors(gate, from, who, attr);
    case ATTR_SPARSES:
        return read_sparses(gate, from, who, attr);
    case ATTR_GRAPHS:
        return read_graphs(gate, from, graph, node, attr);
    case ATTR_FLOATS:
    case ATTR_INTS:
    case ATTR_STRINGS:
        read_numbers(gate, from, attr);
        return STATUS_OK;
    case ATTR_UNDEFINED:
        break;
    }
    return STATUS_OK;
}

/* `owner` is for messages; `node` is NULL for a function's default. */
static Status read_attr(Gate *gate, const Onnx__AttributeProto *from, const char *owner, Graph *graph, Node *node,
                        Attr **out)
{
    if (from->name == NULL || from->name[0] == '\0')
        return fail(gate->err, STATUS_REJECTED, "%s: an attribute without a name", owner);
    const char *who = arena_printf(&gate->scratch, "%s: attribute '%s'", owner, from->name);
    Attr *attr = arena_new(gate->arena, Attr);
    attr->name = gate_text(gate, from->name);
    attr->extra.doc_string = gate_text(gate, from->doc_string);
    attr->extra.unknown = wire_unknown(gate->arena, &from->base);
    if (from->ref_attr_name != NULL && from->ref_attr_name[0] != '\0')
        attr->ref_attr_name = gate_text(gate, from->ref_attr_name);
    else if (from->ref_attr_name != NULL)
        attr->extra.blank |= 1u << 21;
    TRY(attr_type(gate, from, who, attr));
    if (value_missing(attr))
        return fail(gate->err, STATUS_REJECTED, "%s has no value", who);
    TRY(read_value(gate, from, who, graph, node, attr));
    *out = attr;
    return STATUS_OK;
}

static Status read_attrs(Gate *gate, size_t count, Onnx__AttributeProto *const *from, const char *owner, Graph *graph,
                         Node *node, Attr ***attrs)
{
    if (count > ATTRIBUTES_MAX)
        return fail(gate->err, STATUS_REJECTED, "%s: %zu attributes; at most %d are read", owner, count,
                    ATTRIBUTES_MAX);
    *attrs = arena_array(gate->arena, Attr *, count);
    for (size_t i = 0; i < count; i++) {
        TRY(read_attr(gate, from[i], owner, graph, node, &(*attrs)[i]));
        for (size_t k = 0; k < i; k++)
            if (strcmp((*attrs)[k]->name, (*attrs)[i]->name) == 0)
                return fail(gate->err, STATUS_REJECTED, "%s: attribute '%s' is given twice", owner, (*attrs)[i]->name);
    }
    return STATUS_OK;
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

/* Inputs and attributes of a node whose outputs exist already. */
static Status connect_node(Gate *gate, Node *node, const Onnx__NodeProto *from)
{
    for (size_t i = 0; i < from->n_input; i++) {
        const char *name = from->input[i];
        Value *value = name[0] == '\0' ? NULL : graph_resolve(node->graph, name);
        if (name[0] != '\0' && value == NULL)
            return fail(gate->err, STATUS_REJECTED, "%s: its input %zu '%s' is neither computed nor given",
                        node_text(node), i, name);
        node_add_input(node, value);
    }
    node->attr_count = node->attr_capacity = from->n_attribute;
    if (from->n_attribute == 0)
        return STATUS_OK;
    Status status =
        read_attrs(gate, from->n_attribute, from->attribute, node_text(node), node->graph, node, &node->attrs);
    if (status != STATUS_OK)
        node->attr_count = 0;
    return status;
}

static Status connect_nodes(Gate *gate, Graph *graph, Onnx__NodeProto *const *from)
{
    size_t i = 0;
    for (Node *node = graph->first; node != NULL; node = node->next)
        TRY(connect_node(gate, node, from[i++]));
    return STATUS_OK;
}

static void note_types(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL) {
            Value *value = graph->values.entries[i].value;
            value->type_read = type_hash(&value->type);
        }
}

static Status fill_graph(Gate *gate, const Onnx__GraphProto *from, Graph *graph)
{
    read_extra(gate, &from->base, from->doc_string, from->n_metadata_props, from->metadata_props, &graph->extra);
    graph->name = gate_text_blank(gate, from->name, 2, &graph->extra.blank);
    graph->quantization = keep_too(gate, (Bytes){NULL, 0}, 14, from->n_quantization_annotation,
                                   (ProtobufCMessage *const *)(void *)from->quantization_annotation);
    TRY(read_inputs(gate, graph, from->n_input, from->input));
    TRY(read_initializers(gate, graph, from->n_initializer, from->initializer));
    TRY(read_sparse_initializers(gate, graph, from->n_sparse_initializer, from->sparse_initializer));
    TRY(read_nodes(gate, graph, from->n_node, from->node));
    TRY(read_outputs(gate, graph, from->n_output, from->output));
    read_infos(gate, graph, from->n_value_info, from->value_info);
    note_types(graph);
    TRY(connect_nodes(gate, graph, from->node));
    return graph_sort(graph, gate->err);
}

static Status read_graph(Gate *gate, const Onnx__GraphProto *from, Graph *parent, Node *parent_node, Graph **graph)
{
    *graph = graph_new(gate->model, from->name, parent);
    (*graph)->parent_node = parent_node;
    return fill_graph(gate, from, *graph);
}

static Status fill_function(Gate *gate, const Onnx__FunctionProto *from, Graph *graph)
{
    for (size_t i = 0; i < from->n_input; i++) {
        if (from->input[i][0] == '\0')
            return fail(gate->err, STATUS_REJECTED, "input %zu has no name", i);
        if (graph_find(graph, from->input[i]) != NULL)
            return reject_value(gate, graph, from->input[i], "is listed as an input twice");
        graph_add_input(graph, graph_add_value(graph, from->input[i]));
    }
    TRY(read_nodes(gate, graph, from->n_node, from->node));
    for (size_t i = 0; i < from->n_output; i++)
        TRY(read_output(gate, graph, from->output[i]));
    read_infos(gate, graph, from->n_value_info, from->value_info);
    note_types(graph);
    TRY(connect_nodes(gate, graph, from->node));
    return graph_sort(graph, gate->err);
}

static Status read_function(Gate *gate, const Onnx__FunctionProto *from, Function **out)
{
    Function *function = *out = arena_new(gate->arena, Function);
    uint32_t blank = 0;
    function->domain = read_domain(gate, from->domain, 10, &blank);
    function->name = gate_text_blank(gate, from->name, 1, &blank);
    function->overload = gate_text_blank(gate, from->overload, 13, &blank);
    if (function->name[0] == '\0')
        return fail(gate->err, STATUS_REJECTED, "a function without a name");
    read_extra(gate, &from->base, from->doc_string, from->n_metadata_props, from->metadata_props, &function->extra);
    function->extra.blank = blank;
    TRY(read_opsets(gate, from->n_opset_import, from->opset_import, &function->opsets));
    function->opset_count = from->n_opset_import;
    function->attrs = arena_array(gate->arena, const char *, from->n_attribute);
    function->attr_count = from->n_attribute;
    for (size_t i = 0; i < from->n_attribute; i++)
        function->attrs[i] = gate_text(gate, from->attribute[i]);
    function->graph = graph_new(gate->model, function->name, NULL);
    gate->opsets = function->opsets;
    gate->opset_count = function->opset_count;
    TRY(read_attrs(gate, from->n_attribute_proto, from->attribute_proto, function->name, function->graph, NULL,
                   &function->defaults));
    function->default_count = from->n_attribute_proto;
    return fill_function(gate, from, function->graph);
}

static Status read_functions(Gate *gate, const Onnx__ModelProto *from, Model *model)
{
    model->functions = arena_array(gate->arena, Function *, from->n_functions);
    Map seen;
    map_init(&seen);
    Status status = STATUS_OK;
    for (size_t i = 0; i < from->n_functions && status == STATUS_OK; i++) {
        Function *function;
        status = read_function(gate, from->functions[i], &function);
        if (status != STATUS_OK) {
            error_prefix(gate->err, "function '%s'", from->functions[i]->name == NULL ? "" : from->functions[i]->name);
            break;
        }
        const char *key =
            arena_printf(&gate->scratch, "%s\n%s\n%s", function->domain, function->name, function->overload);
        if (map_has(&seen, key))
            status = fail(gate->err, STATUS_REJECTED, "function '%s' is defined twice", function->name);
        map_set(&seen, key, function);
        model->functions[model->function_count++] = function;
    }
    map_release(&seen);
    return status;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static Status read_header(const Gate *gate, const Onnx__ModelProto *from, Model *model)
{
    if (!from->has_ir_version || from->ir_version < 1)
        return fail(gate->err, STATUS_REJECTED, "not an ONNX model: it names no IR version");
    if (from->ir_version > IR_NEWEST)
        return fail(gate->err, STATUS_UNSUPPORTED,
                    "IR version %" PRId64 " is newer than %d, the newest this program knows", from->ir_version,
                    IR_NEWEST);
    if (from->graph == NULL)
        return fail(gate->err, STATUS_REJECTED, "a model without a graph");
    model->ir_version = from->ir_version;
    model->producer_name = gate_text(gate, from->producer_name);
    model->producer_version = gate_text(gate, from->producer_version);
    model->domain = gate_text(gate, from->domain);
    model->doc_string = gate_text(gate, from->doc_string);
    model->has_model_version = from->has_model_version != 0;
    model->model_version = from->model_version;
    gate_pairs(gate, from->n_metadata_props, from->metadata_props, &model->metadata, &model->metadata_count);
    model->metadata_capacity = model->metadata_count;
    model->unknown = wire_unknown(gate->arena, &from->base);
    model->unknown = keep_too(gate, model->unknown, 20, from->n_training_info,
                              (ProtobufCMessage *const *)(void *)from->training_info);
    model->unknown = keep_too(gate, model->unknown, 26, from->n_configuration,
                              (ProtobufCMessage *const *)(void *)from->configuration);
    TRY(read_opsets(gate, from->n_opset_import, from->opset_import, &model->opsets));
    model->opset_count = model->opset_capacity = from->n_opset_import;
    return STATUS_OK;
}

/* Before IR version 3 a model imported no opsets: version 1 was the only one. */
static const Opset opset_of_old = {.domain = "", .version = 1};

static Status read_model(Gate *gate, const Onnx__ModelProto *from, Model *model)
{
    TRY(read_header(gate, from, model));
    TRY(read_functions(gate, from, model));
    gate->opsets = model->opsets;
    gate->opset_count = model->opset_count;
    if (model->ir_version < 3 && model->opset_count == 0) {
        gate->opsets = arena_copy(gate->arena, &opset_of_old, sizeof opset_of_old);
        gate->opset_count = 1;
    }
    return fill_graph(gate, from->graph, model->graph);
}

/* Reads `bytes`, which stay as long as the model, into `model`. */
static Status import_into(Model *model, const void *bytes, size_t size, const char *name, Error *err)
{
    Gate gate = {.model = model, .arena = &model->arena, .err = err};
    arena_init(&gate.scratch);
    map_init(&gate.sides);
    ProtobufCMessage *message;
    Status status = size == 0 ? fail(err, STATUS_REJECTED, "an empty file") : STATUS_OK;
    if (status == STATUS_OK)
        status = gate_unpack(&gate, bytes, size, &onnx__model_proto__descriptor, &message);
    if (status == STATUS_OK)
        status = read_model(&gate, (const Onnx__ModelProto *)message, model);
    if (status != STATUS_OK)
        error_prefix(err, "%s", name);
    gate_release(&gate);
    return status;
}

Status model_import(const char *path, const OpSet *ops, Model **model, Error *err)
{
    *model = NULL;
    Model *made = model_new(ops);
    made->path = arena_strdup(&made->arena, path);
    Status status = mapping_open(&made->file, path, err);
    if (status == STATUS_OK)
        status = import_into(made, made->file.data, made->file.size, path, err);
    if (status != STATUS_OK) {
        model_free(made);
        return status;
    }
    *model = made;
    return STATUS_OK;
}

Status model_import_bytes(const void *bytes, size_t size, const char *name_for_messages, const OpSet *ops,
                          Model **model, Error *err)
{
    *model = NULL;
    Model *made = model_new(ops);
    const void *kept = arena_copy(&made->arena, bytes, size);
    Status status = import_into(made, kept, size, name_for_messages, err);
    if (status != STATUS_OK) {
        model_free(made);
        return status;
    }
    *model = made;
    return STATUS_OK;
}
