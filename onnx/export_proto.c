/* Model -> ModelProto: a tree of protobuf-c messages that borrow texts and numbers from the model.
 *
 * The counterpart of import.c, section by section. A singular text is written when it is not empty or when its bit in
 * `blank` says that the file wrote an empty one; what the file held besides is hung on as unknown fields. So an
 * untouched model comes out as the same messages, fields in another order at most. Which file the numbers go to is
 * decided here, tensor by tensor; export.c writes them. */
#include "onnx/gate.h"

#include <inttypes.h>

enum { MOVE_BYTES = 1024, PAGE = 4096, CACHE_LINE = 64 };

#define MAKER(Type, init)                                                                                              \
    static Type *make_##init(Exporter *e)                                                                              \
    {                                                                                                                  \
        Type *proto = arena_new(&e->arena, Type);                                                                      \
        onnx__##init##__init(proto);                                                                                   \
        return proto;                                                                                                  \
    }

MAKER(Onnx__StringStringEntryProto, string_string_entry_proto)
MAKER(Onnx__OperatorSetIdProto, operator_set_id_proto)
MAKER(Onnx__TensorProto, tensor_proto)
MAKER(Onnx__SparseTensorProto, sparse_tensor_proto)
MAKER(Onnx__ValueInfoProto, value_info_proto)
MAKER(Onnx__AttributeProto, attribute_proto)
MAKER(Onnx__NodeProto, node_proto)
MAKER(Onnx__GraphProto, graph_proto)
MAKER(Onnx__FunctionProto, function_proto)
MAKER(Onnx__ModelProto, model_proto)

/* protobuf-c's structures hold plain pointers; packing does not write through them. */
static void *loose(const void *pointer)
{
    return (void *)(uintptr_t)pointer;
}

/* ---- leaves ------------------------------------------------------------------------------------------------- */

static char *text_or_blank(const char *text, unsigned field, uint32_t blank)
{
    bool there = text != NULL && (text[0] != '\0' || (blank >> field & 1) != 0);
    return there ? loose(text) : NULL;
}

static char *domain_text(const char *domain, unsigned field, uint32_t blank)
{
    if ((blank & BLANK_AI_ONNX) != 0 && domain[0] == '\0')
        return loose("ai.onnx");
    return text_or_blank(domain, field, blank);
}

static char *doc_text(const Exporter *e, const char *doc_string)
{
    return e->strip_doc ? NULL : loose(doc_string);
}

static Status hang(Exporter *e, ProtobufCMessage *message, Bytes fields)
{
    if (!wire_hang(&e->arena, message, fields))
        return fail(e->err, STATUS_REJECTED, "fields kept for %s are malformed", message->descriptor->short_name);
    return STATUS_OK;
}

static Status write_pair(Exporter *e, const Pair *pair, Onnx__StringStringEntryProto **to)
{
    *to = make_string_string_entry_proto(e);
    (*to)->key = text_or_blank(pair->key, 1, pair->blank);
    (*to)->value = text_or_blank(pair->value, 2, pair->blank);
    return hang(e, &(*to)->base, pair->unknown);
}

static Status write_pairs(Exporter *e, const Pair *pairs, size_t count, size_t *n, Onnx__StringStringEntryProto ***to)
{
    *to = arena_array(&e->arena, Onnx__StringStringEntryProto *, count);
    *n = 0;
    for (size_t i = 0; i < count; i++) {
        if (e->strip_doc && text_ends(pairs[i].key, "stack_trace"))
            continue;
        TRY(write_pair(e, &pairs[i], &(*to)[(*n)++]));
    }
    return STATUS_OK;
}

static Status write_opsets(Exporter *e, const Opset *opsets, size_t count, Onnx__OperatorSetIdProto ***to)
{
    *to = arena_array(&e->arena, Onnx__OperatorSetIdProto *, count);
    for (size_t i = 0; i < count; i++) {
        Onnx__OperatorSetIdProto *proto = (*to)[i] = make_operator_set_id_proto(e);
        proto->domain = domain_text(opsets[i].domain, 1, opsets[i].blank);
        proto->has_version = 1;
        proto->version = opsets[i].version;
        TRY(hang(e, &proto->base, opsets[i].unknown));
    }
    return STATUS_OK;
}

/* ---- tensors -------------------------------------------------------------------------------------------------- */

/* Where in the side file the numbers go; the same numbers go there once. */
static size_t move_numbers(Exporter *e, const Tensor *tensor)
{
    const char *key = arena_printf(&e->arena, "%p:%zu", tensor->data, tensor->bytes);
    uintptr_t known = (uintptr_t)map_get(&e->places, key);
    if (known > 0)
        return e->moved[known - 1].offset;
    size_t unit = tensor->bytes >= PAGE ? PAGE : CACHE_LINE;
    size_t offset = (e->side_size + unit - 1) / unit * unit;
    e->moved = arena_grow(&e->arena, e->moved, e->moved_count, &e->moved_capacity, sizeof(Moved));
    e->moved[e->moved_count++] = (Moved){tensor->data, tensor->bytes, offset};
    e->side_size = offset + tensor->bytes;
    map_set(&e->places, key, (void *)(uintptr_t)e->moved_count);
    return offset;
}

/* The entries as they were, with the new place; a checksum was that of another file. */
static Status write_moved(Exporter *e, const Tensor *tensor, Onnx__TensorProto *to)
{
    size_t offset = move_numbers(e, tensor);
    Pair place[] = {{.key = "location", .value = e->side_name},
                    {.key = "offset", .value = arena_printf(&e->arena, "%zu", offset)},
                    {.key = "length", .value = arena_printf(&e->arena, "%zu", tensor->bytes)}};
    bool placed[3] = {false, false, false};
    Pair *pairs = arena_array(&e->arena, Pair, tensor->external_count + 3);
    size_t count = 0;
    for (size_t i = 0; i < tensor->external_count; i++) {
        Pair pair = tensor->external[i];
        if (strcmp(pair.key, "checksum") == 0)
            continue;
        for (int k = 0; k < 3; k++) {
            if (strcmp(pair.key, place[k].key) != 0)
                continue;
            pair.value = place[k].value;
            placed[k] = true;
        }
        pairs[count++] = pair;
    }
    for (int k = 0; k < 3; k++)
        if (!placed[k])
            pairs[count++] = place[k];
    to->has_data_location = 1;
    to->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    if ((tensor->extra.blank >> TENSOR_RAW_DATA & 1) != 0)
        to->has_raw_data = 1;
    return write_pairs(e, pairs, count, &to->n_external_data, &to->external_data);
}

/* int32_data: one number an element, one a byte for packed types, one an element for the 6-bit ones. */
static void write_int32(Exporter *e, const Tensor *tensor, Onnx__TensorProto *to)
{
    size_t size = dtype_size(tensor->dtype);
    bool six = dtype_bits(tensor->dtype) == 6;
    bool is_signed = tensor->dtype == DTYPE_I8 || tensor->dtype == DTYPE_I16;
    size_t n = six ? (size_t)tensor_count(tensor) : tensor->bytes / size;
    to->n_int32_data = n;
    to->int32_data = arena_array(&e->arena, int32_t, n);
    const unsigned char *from = tensor->data;
    for (size_t i = 0; i < n; i++) {
        int32_t v = 0;
        if (six) {
            size_t bit = i * 6;
            int word = from[bit / 8] | (bit % 8 > 2 ? from[bit / 8 + 1] << 8 : 0);
            v = word >> bit % 8 & 63;
        } else {
            memcpy(&v, from + i * size, size);
            if (is_signed && size < 4)
                v = size == 1 ? (int8_t)v : (int16_t)v;
        }
        to->int32_data[i] = v;
    }
}

static void write_uint64(Exporter *e, const Tensor *tensor, Onnx__TensorProto *to)
{
    size_t size = dtype_size(tensor->dtype);
    to->n_uint64_data = tensor->bytes / size;
    to->uint64_data = arena_array(&e->arena, uint64_t, to->n_uint64_data);
    for (size_t i = 0; i < to->n_uint64_data; i++)
        memcpy(&to->uint64_data[i], (const char *)tensor->data + i * size, size);
}

static void write_strings(Exporter *e, const Tensor *tensor, Onnx__TensorProto *to)
{
    const Bytes *from = tensor->data;
    to->n_string_data = tensor->bytes / sizeof(Bytes);
    to->string_data = arena_array(&e->arena, ProtobufCBinaryData, to->n_string_data);
    for (size_t i = 0; i < to->n_string_data; i++)
        to->string_data[i] = (ProtobufCBinaryData){from[i].length, loose(from[i].data)};
}

/* The typed field of the tensor's type. Floats go out as they lie in memory. */
static void write_typed(Exporter *e, const Tensor *tensor, Onnx__TensorProto *to)
{
    switch (tensor->dtype) {
    case DTYPE_F32:
    case DTYPE_C64:
        to->n_float_data = tensor->bytes / sizeof(float);
        to->float_data = loose(tensor->data);
        break;
    case DTYPE_F64:
    case DTYPE_C128:
        to->n_double_data = tensor->bytes / sizeof(double);
        to->double_data = loose(tensor->data);
        break;
    case DTYPE_I64:
        to->n_int64_data = tensor->bytes / sizeof(int64_t);
        to->int64_data = arena_copy(&e->arena, tensor->data, tensor->bytes); /* aligned */
        break;
    case DTYPE_U32:
    case DTYPE_U64:
        write_uint64(e, tensor, to);
        break;
    case DTYPE_STRING:
        write_strings(e, tensor, to);
        break;
    default:
        write_int32(e, tensor, to);
        break;
    }
}

static Status write_tensor(Exporter *e, const Tensor *tensor, const char *name, bool may_move, Onnx__TensorProto **out)
{
    Onnx__TensorProto *to = *out = make_tensor_proto(e);
    to->name = loose(name);
    to->doc_string = doc_text(e, tensor->extra.doc_string);
    to->has_data_type = 1;
    to->data_type = (int32_t)tensor->dtype;
    to->n_dims = (size_t)tensor->rank;
    to->dims = tensor->dims;
    TRY(write_pairs(e, tensor->extra.metadata, tensor->extra.metadata_count, &to->n_metadata_props,
                    &to->metadata_props));
    TRY(hang(e, &to->base, tensor->extra.unknown));
    bool moved = tensor->storage == STORAGE_EXTERNAL || (may_move && e->move_all && tensor->bytes >= MOVE_BYTES);
    if (moved && tensor->dtype != DTYPE_STRING)
        return write_moved(e, tensor, to);
    TRY(write_pairs(e, tensor->external, tensor->external_count, &to->n_external_data, &to->external_data));
    to->has_data_location = (tensor->extra.blank >> TENSOR_DATA_LOCATION & 1) != 0;
    if (tensor->storage == STORAGE_TYPED || tensor->dtype == DTYPE_STRING) {
        write_typed(e, tensor, to);
        return STATUS_OK;
    }
    to->has_raw_data = 1;
    to->raw_data = (ProtobufCBinaryData){tensor->bytes, loose(tensor->data)};
    return STATUS_OK;
}

static Status write_sparse(Exporter *e, const SparseTensor *sparse, Onnx__SparseTensorProto **out)
{
    Onnx__SparseTensorProto *to = *out = make_sparse_tensor_proto(e);
    TRY(write_tensor(e, sparse->values, sparse->values->name, false, &to->values));
    TRY(write_tensor(e, sparse->indices, sparse->indices->name, false, &to->indices));
    to->n_dims = (size_t)sparse->rank;
    to->dims = sparse->dims;
    return hang(e, &to->base, sparse->unknown);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static Status write_graph(Exporter *e, const Graph *graph, Onnx__GraphProto **out);

static ProtobufCBinaryData binary(Bytes bytes)
{
    return (ProtobufCBinaryData){bytes.length, loose(bytes.data)};
}

static ProtobufCMessage *unpack(Exporter *e, const ProtobufCMessageDescriptor *type, Bytes bytes);

static Status write_type(Exporter *e, Bytes bytes, Onnx__TypeProto **to)
{
    *to = (Onnx__TypeProto *)unpack(e, &onnx__type_proto__descriptor, bytes);
    return *to == NULL ? fail(e->err, STATUS_REJECTED, "a kept type is malformed") : STATUS_OK;
}

static Status write_lists(Exporter *e, const Attr *attr, Onnx__AttributeProto *to)
{
    size_t n = attr->count;
    switch (attr->type) {
    case ATTR_STRINGS:
        to->n_strings = n;
        to->strings = arena_array(&e->arena, ProtobufCBinaryData, n);
        for (size_t i = 0; i < n; i++)
            to->strings[i] = binary(attr->strings[i]);
        break;
    case ATTR_TENSORS:
        to->n_tensors = n;
        to->tensors = arena_array(&e->arena, Onnx__TensorProto *, n);
        for (size_t i = 0; i < n; i++)
            TRY(write_tensor(e, attr->tensors[i], attr->tensors[i]->name, false, &to->tensors[i]));
        break;
    case ATTR_GRAPHS:
        to->n_graphs = n;
        to->graphs = arena_array(&e->arena, Onnx__GraphProto *, n);
        for (size_t i = 0; i < n; i++)
            TRY(write_graph(e, attr->graphs[i], &to->graphs[i]));
        break;
    case ATTR_SPARSES:
        to->n_sparse_tensors = n;
        to->sparse_tensors = arena_array(&e->arena, Onnx__SparseTensorProto *, n);
        for (size_t i = 0; i < n; i++)
            TRY(write_sparse(e, attr->sparses[i], &to->sparse_tensors[i]));
        break;
    case ATTR_TYPES:
        to->n_type_protos = n;
        to->type_protos = arena_array(&e->arena, Onnx__TypeProto *, n);
        for (size_t i = 0; i < n; i++)
            TRY(write_type(e, attr->types[i], &to->type_protos[i]));
        break;
    default:
        break;
    }
    return STATUS_OK;
}

static Status write_value(Exporter *e, const Attr *attr, Onnx__AttributeProto *to)
{
    switch (attr->type) {
    case ATTR_FLOAT:
        to->has_f = 1;
        to->f = attr->f;
        return STATUS_OK;
    case ATTR_INT:
        to->has_i = 1;
        to->i = attr->i;
        return STATUS_OK;
    case ATTR_STRING:
        to->has_s = 1;
        to->s = binary(attr->s);
        return STATUS_OK;
    case ATTR_FLOATS:
        to->n_floats = attr->count;
        to->floats = attr->floats;
        return STATUS_OK;
    case ATTR_INTS:
        to->n_ints = attr->count;
        to->ints = attr->ints;
        return STATUS_OK;
    case ATTR_TENSOR:
        return write_tensor(e, attr->t, attr->t->name, false, &to->t);
    case ATTR_GRAPH:
        return write_graph(e, attr->g, &to->g);
    case ATTR_SPARSE:
        return write_sparse(e, attr->sparse, &to->sparse_tensor);
    case ATTR_TYPE:
        return write_type(e, attr->types[0], &to->tp);
    default:
        return write_lists(e, attr, to);
    }
}

static Status write_attr(Exporter *e, const Attr *attr, Onnx__AttributeProto **out)
{
    Onnx__AttributeProto *to = *out = make_attribute_proto(e);
    uint32_t blank = attr->extra.blank;
    to->name = loose(attr->name);
    to->ref_attr_name = attr->ref_attr_name != NULL ? loose(attr->ref_attr_name) : text_or_blank("", 21, blank);
    to->doc_string = doc_text(e, attr->extra.doc_string);
    to->has_type = (blank & BLANK_NO_TYPE) == 0;
    to->type = (Onnx__AttributeProto__AttributeType)attr->type;
    TRY(hang(e, &to->base, attr->extra.unknown));
    return (blank & BLANK_NO_VALUE) != 0 ? STATUS_OK : write_value(e, attr, to);
}

static Status write_attrs(Exporter *e, Attr *const *attrs, size_t count, Onnx__AttributeProto ***to)
{
    *to = arena_array(&e->arena, Onnx__AttributeProto *, count);
    for (size_t i = 0; i < count; i++)
        TRY(write_attr(e, attrs[i], &(*to)[i]));
    return STATUS_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static char **write_names(Exporter *e, Value *const *values, size_t count)
{
    char **names = arena_array(&e->arena, char *, count);
    for (size_t i = 0; i < count; i++)
        names[i] = loose(values[i] == NULL ? "" : values[i]->name);
    return names;
}

static Status write_node(Exporter *e, const Node *node, Onnx__NodeProto **out)
{
    if (strcmp(node->domain, DOMAIN_INTERNAL) == 0)
        return fail(e->err, STATUS_UNSUPPORTED, "%s exists only while training and cannot be written to a file",
                    node_text(node));
    Onnx__NodeProto *to = *out = make_node_proto(e);
    uint32_t blank = node->extra.blank;
    to->n_input = (size_t)node->input_count;
    to->input = write_names(e, node->inputs, to->n_input);
    to->n_output = (size_t)node->output_count;
    to->output = write_names(e, node->outputs, to->n_output);
    to->name = text_or_blank(node->name, 3, blank);
    to->op_type = loose(node->op_type);
    to->domain = domain_text(node->domain, 7, blank);
    to->overload = text_or_blank(node->overload, 8, blank);
    to->doc_string = doc_text(e, node->extra.doc_string);
    to->n_attribute = node->attr_count;
    TRY(write_attrs(e, node->attrs, node->attr_count, &to->attribute));
    TRY(write_pairs(e, node->extra.metadata, node->extra.metadata_count, &to->n_metadata_props, &to->metadata_props));
    return hang(e, &to->base, node->extra.unknown);
}

static Status write_nodes(Exporter *e, const Graph *graph, size_t *n, Onnx__NodeProto ***to)
{
    *to = arena_array(&e->arena, Onnx__NodeProto *, graph->node_count);
    *n = 0;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        TRY(write_node(e, node, &(*to)[(*n)++]));
    return STATUS_OK;
}

/* ---- value infos ------------------------------------------------------------------------------------------------- */

static void *arena_take(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void arena_leave(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

/* What the importer packed itself: bounded already. */
static ProtobufCMessage *unpack(Exporter *e, const ProtobufCMessageDescriptor *type, Bytes bytes)
{
    ProtobufCAllocator allocator = {arena_take, arena_leave, &e->arena};
    return protobuf_c_message_unpack(type, &allocator, bytes.length, (const uint8_t *)bytes.data);
}

/* `proto` empty: the value is new. */
static Status write_info(Exporter *e, const Value *value, Bytes proto, Onnx__ValueInfoProto **out)
{
    Onnx__ValueInfoProto *to = NULL;
    if (proto.length > 0) {
        to = (Onnx__ValueInfoProto *)unpack(e, &onnx__value_info_proto__descriptor, proto);
        if (to == NULL)
            return fail(e->err, STATUS_REJECTED, "the kept type of a value is malformed");
    }
    if (to == NULL)
        to = make_value_info_proto(e);
    *out = to;
    if (e->strip_doc)
        to->doc_string = NULL;
    if (value == NULL)
        return STATUS_OK;
    to->name = loose(value->name);
    if (proto.length == 0 || type_hash(&value->type) != value->type_read)
        to->type = type_to_proto(&e->arena, &value->type);
    return STATUS_OK;
}

/* The entry of `value`, looked for from `start` on: lists change little. */
static Bytes info_find(const Info *infos, size_t count, size_t start, const Value *value)
{
    for (size_t i = 0; i < count; i++) {
        const Info *info = &infos[(start + i) % count];
        if (info->value == value)
            return info->proto;
    }
    return (Bytes){NULL, 0};
}

static Status write_listed(Exporter *e, Value *const *values, size_t count, const Info *infos, size_t info_count,
                           Onnx__ValueInfoProto ***to)
{
    *to = arena_array(&e->arena, Onnx__ValueInfoProto *, count);
    for (size_t i = 0; i < count; i++)
        TRY(write_info(e, values[i], info_find(infos, info_count, i, values[i]), &(*to)[i]));
    return STATUS_OK;
}

/* value_info: as it was, without values that are gone; then those that have got an entry since. */
static Status write_infos(Exporter *e, const Graph *graph, size_t *n, Onnx__ValueInfoProto ***to)
{
    Map written;
    map_init(&written);
    *to = arena_array(&e->arena, Onnx__ValueInfoProto *, graph->info_count + graph->values.count);
    *n = 0;
    Status status = STATUS_OK;
    for (size_t i = 0; i < graph->info_count && status == STATUS_OK; i++) {
        const Info *info = &graph->infos[i];
        if (info->value != NULL && (graph_find(graph, info->value->name) != info->value || !info->value->has_info))
            continue;
        status = write_info(e, info->value, info->proto, &(*to)[(*n)++]);
        if (info->value != NULL)
            map_set(&written, info->value->name, info->value);
    }
    for (size_t i = 0; i < graph->values.count && status == STATUS_OK; i++) {
        const MapEntry *entry = &graph->values.entries[i];
        const Value *value = entry->value;
        if (entry->key != NULL && value->has_info && !map_has(&written, value->name))
            status = write_info(e, value, (Bytes){NULL, 0}, &(*to)[(*n)++]);
    }
    map_release(&written);
    return status;
}

/* ---- graphs, functions, the model -------------------------------------------------------------------------------- */

static Status write_constants(Exporter *e, const Graph *graph, Onnx__GraphProto *to)
{
    to->n_initializer = graph->initializer_count;
    to->initializer = arena_array(&e->arena, Onnx__TensorProto *, graph->initializer_count);
    for (size_t i = 0; i < graph->initializer_count; i++) {
        const Value *value = graph->initializers[i];
        TRY(write_tensor(e, value->constant, value->name, true, &to->initializer[i]));
    }
    to->n_sparse_initializer = graph->sparse_count;
    to->sparse_initializer = arena_array(&e->arena, Onnx__SparseTensorProto *, graph->sparse_count);
    for (size_t i = 0; i < graph->sparse_count; i++)
        TRY(write_sparse(e, graph->sparse_initializers[i], &to->sparse_initializer[i]));
    return STATUS_OK;
}

static Status write_graph(Exporter *e, const Graph *graph, Onnx__GraphProto **out)
{
    Onnx__GraphProto *to = *out = make_graph_proto(e);
    to->name = text_or_blank(graph->name, 2, graph->extra.blank);
    to->doc_string = doc_text(e, graph->extra.doc_string);
    TRY(write_nodes(e, graph, &to->n_node, &to->node));
    TRY(write_constants(e, graph, to));
    to->n_input = graph->input_count;
    TRY(write_listed(e, graph->inputs, graph->input_count, graph->input_infos, graph->input_info_count, &to->input));
    to->n_output = graph->output_count;
    TRY(write_listed(e, graph->outputs, graph->output_count, graph->output_infos, graph->output_info_count,
                     &to->output));
    TRY(write_infos(e, graph, &to->n_value_info, &to->value_info));
    TRY(write_pairs(e, graph->extra.metadata, graph->extra.metadata_count, &to->n_metadata_props, &to->metadata_props));
    TRY(hang(e, &to->base, graph->quantization));
    return hang(e, &to->base, graph->extra.unknown);
}

static Status write_function(Exporter *e, const Function *function, Onnx__FunctionProto **out)
{
    Onnx__FunctionProto *to = *out = make_function_proto(e);
    const Graph *graph = function->graph;
    uint32_t blank = function->extra.blank;
    to->name = loose(function->name);
    to->domain = domain_text(function->domain, 10, blank);
    to->overload = text_or_blank(function->overload, 13, blank);
    to->doc_string = doc_text(e, function->extra.doc_string);
    to->n_input = graph->input_count;
    to->input = write_names(e, graph->inputs, graph->input_count);
    to->n_output = graph->output_count;
    to->output = write_names(e, graph->outputs, graph->output_count);
    to->n_attribute = function->attr_count;
    to->attribute = loose(function->attrs);
    to->n_attribute_proto = function->default_count;
    TRY(write_attrs(e, function->defaults, function->default_count, &to->attribute_proto));
    TRY(write_nodes(e, graph, &to->n_node, &to->node));
    to->n_opset_import = function->opset_count;
    TRY(write_opsets(e, function->opsets, function->opset_count, &to->opset_import));
    TRY(write_infos(e, graph, &to->n_value_info, &to->value_info));
    TRY(write_pairs(e, function->extra.metadata, function->extra.metadata_count, &to->n_metadata_props,
                    &to->metadata_props));
    return hang(e, &to->base, function->extra.unknown);
}

Status export_model(Exporter *e, const Model *model, Onnx__ModelProto **proto)
{
    Onnx__ModelProto *to = *proto = make_model_proto(e);
    to->has_ir_version = 1;
    to->ir_version = model->ir_version;
    to->producer_name = loose(model->producer_name);
    to->producer_version = loose(model->producer_version);
    to->domain = loose(model->domain);
    to->has_model_version = model->has_model_version;
    to->model_version = model->model_version;
    to->doc_string = doc_text(e, model->doc_string);
    to->n_opset_import = model->opset_count;
    TRY(write_opsets(e, model->opsets, model->opset_count, &to->opset_import));
    TRY(write_pairs(e, model->metadata, model->metadata_count, &to->n_metadata_props, &to->metadata_props));
    to->n_functions = model->function_count;
    to->functions = arena_array(&e->arena, Onnx__FunctionProto *, model->function_count);
    for (size_t i = 0; i < model->function_count; i++)
        TRY(write_function(e, model->functions[i], &to->functions[i]));
    TRY(write_graph(e, model->graph, &to->graph));
    return hang(e, &to->base, model->unknown);
}
