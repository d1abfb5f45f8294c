/* onnx/export: nothing is lost, nothing is overwritten, and on failure nothing is left behind. */
#include "tests/test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "onnx.pb-c.h"
#include "onnx/op.h"
#include "onnx/wire.h"
#include "tests/wire_build.h"

static const OpSet no_ops = {NULL, 0};

typedef struct Place {
    char root[64];
    Arena arena; /* paths */
} Place;

static const char *in(Place *place, const char *name)
{
    return arena_printf(&place->arena, "%s/%s", place->root, name);
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static int set_up(void **state)
{
    static Place place;
    snprintf(place.root, sizeof place.root, "/tmp/regraft-export-XXXXXX");
    assert_non_null(mkdtemp(place.root));
    arena_init(&place.arena);
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    Place *place = *state;
    arena_release(&place->arena);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", place->root);
    return system(command);
}

static size_t files_in(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* ---- a model with a bit of everything ---------------------------------------------------------------------------- */

/* A field no schema knows yet. */
static void unknown(Str *message)
{
    wire_int(message, 1000, 42);
    wire_text(message, 1001, "from the future");
}

static void put_tensor(Str *out, unsigned field, DType dtype, unsigned numbers, const char *name)
{
    Str tensor, segment;
    str_init(&tensor), str_init(&segment);
    wire_int(&tensor, TENSOR_DIMS, 2);
    wire_int(&tensor, TENSOR_TYPE, dtype);
    wire_text(&tensor, TENSOR_NAME, name);
    wire_text(&tensor, 12, "a doc");
    wire_pair(&tensor, 16, "key", "");
    wire_int(&tensor, TENSOR_LOCATION, 0);
    wire_int(&segment, 1, 3);
    wire_message(&tensor, 3, &segment);
    unknown(&tensor);
    for (int i = 0; i < 2; i++) {
        if (numbers == 4)
            wire_float(&tensor, numbers, (float)i + 0.5f);
        else if (numbers == 6)
            wire_text(&tensor, numbers, i == 0 ? "" : "text");
        else if (numbers == 10)
            wire_tag(&tensor, numbers, 1), str_append_bytes(&tensor, "\0\0\0\0\0\0\xf0\x3f", 8);
        else
            wire_int(&tensor, numbers, i);
    }
    wire_message(out, field, &tensor);
    str_release(&tensor), str_release(&segment);
}

static void put_attributes(Str *node)
{
    Str attr, inner;
    str_init(&attr), str_init(&inner);
    wire_text(&attr, 1, "reference"); /* in a function it would mean something */
    wire_text(&attr, 21, "alpha");
    wire_int(&attr, 20, ATTR_FLOAT);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "old"); /* without a type */
    wire_int(&attr, 3, 0);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "zero"); /* without a value */
    wire_int(&attr, 20, ATTR_INT);
    wire_text(&attr, 13, "");
    unknown(&attr);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "texts");
    wire_bytes(&attr, 9, "a\0b", 3);
    wire_bytes(&attr, 9, "", 0);
    wire_int(&attr, 20, ATTR_STRINGS);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "tensors");
    put_tensor(&attr, 10, DTYPE_I64, 7, "t1");
    put_tensor(&attr, 10, DTYPE_STRING, 6, "t2");
    put_tensor(&attr, 10, DTYPE_F64, 10, "t3");
    put_tensor(&attr, 10, DTYPE_U32, 11, "t4");
    put_tensor(&attr, 10, DTYPE_BOOL, 5, "t5");
    put_tensor(&attr, 10, DTYPE_F6E3M2, 5, "t6");
    wire_int(&attr, 20, ATTR_TENSORS);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "types");
    wire_text(&inner, 6, "TENSOR");
    wire_message(&attr, 15, &inner);
    wire_int(&attr, 20, ATTR_TYPES);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "type");
    wire_text(&inner, 6, "IMAGE");
    unknown(&inner);
    wire_message(&attr, 14, &inner);
    wire_int(&attr, 20, ATTR_TYPE);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "body");
    wire_node(&inner, "Neg", "x", "inner");
    wire_info(&inner, GRAPH_OUTPUT, "x", 9); /* a value of the graph around, as an output */
    wire_tensor(&inner, GRAPH_INITIALIZER, "own", 3, NULL);
    wire_message(&attr, 6, &inner);
    wire_int(&attr, 20, ATTR_GRAPH);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    str_release(&attr), str_release(&inner);
}

/* An input whose type is, in turn: sequence of tensors, optional of that, map, opaque, sparse tensor, none. */
static void put_typed_inputs(Str *graph)
{
    for (int kind = 0; kind < 6; kind++) {
        Str tensor, type, inner, info;
        str_init(&tensor), str_init(&type), str_init(&inner), str_init(&info);
        const unsigned fields[6] = {4, 9, 5, 7, 8, 0};
        wire_int(&tensor, 1, kind == 4 ? DTYPE_F16 : DTYPE_F32);
        if (kind < 2) { /* elem_type */
            wire_message(&type, 1, &tensor);
            wire_message(&inner, 1, &type);
            if (kind == 1) {
                wire_message(&type, 4, &inner);
                wire_message(&inner, 1, &type);
            }
        } else if (kind == 2) {
            wire_int(&inner, 1, DTYPE_I64);
            wire_message(&type, 1, &tensor);
            wire_message(&inner, 2, &type);
        } else if (kind == 3) {
            wire_text(&inner, 1, "domain");
            wire_text(&inner, 2, "");
        } else {
            str_append_bytes(&inner, tensor.text, tensor.length);
        }
        if (kind < 5)
            wire_message(&type, fields[kind], &inner);
        char name[16];
        snprintf(name, sizeof name, "in%d", kind);
        wire_text(&info, 1, name);
        wire_message(&info, 2, &type);
        wire_text(&info, 3, "a doc");
        wire_message(graph, GRAPH_INPUT, &info);
        str_release(&tensor), str_release(&type), str_release(&inner), str_release(&info);
    }
}

static void put_sparse(Str *out, unsigned field)
{
    Str sparse, indices;
    str_init(&sparse), str_init(&indices);
    wire_tensor(&sparse, 1, "v", 1, NULL);
    wire_int(&indices, TENSOR_DIMS, 1);
    wire_int(&indices, TENSOR_DIMS, 2);
    wire_int(&indices, TENSOR_TYPE, DTYPE_I64);
    wire_int(&indices, 7, 0);
    wire_int(&indices, 7, 2);
    wire_message(&sparse, 2, &indices);
    wire_int(&sparse, 3, 2);
    wire_int(&sparse, 3, 3);
    wire_message(out, field, &sparse);
    str_release(&sparse), str_release(&indices);
}

static void put_lists(Str *node)
{
    Str attr, graph;
    str_init(&attr), str_init(&graph);
    wire_text(&attr, 1, "ints");
    wire_int(&attr, 8, -1);
    wire_int(&attr, 8, 2);
    wire_int(&attr, 20, ATTR_INTS);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "floats");
    wire_float(&attr, 7, 1.5f);
    wire_int(&attr, 20, ATTR_FLOATS);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "float");
    wire_float(&attr, 2, 1.5f);
    wire_int(&attr, 20, ATTR_FLOAT);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "string");
    wire_text(&attr, 4, "");
    wire_int(&attr, 20, ATTR_STRING);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "sparse");
    put_sparse(&attr, 22);
    wire_int(&attr, 20, ATTR_SPARSE);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "sparses");
    put_sparse(&attr, 23);
    put_sparse(&attr, 23);
    wire_int(&attr, 20, ATTR_SPARSES);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    wire_text(&attr, 1, "graphs");
    wire_node(&graph, "Neg", "x", "g1");
    wire_message(&attr, 11, &graph);
    wire_node(&graph, "Neg", "x", "g2");
    wire_message(&attr, 11, &graph);
    wire_int(&attr, 20, ATTR_GRAPHS);
    wire_message(node, NODE_ATTRIBUTE, &attr);
    str_release(&attr), str_release(&graph);
}

static void put_graph(Str *model)
{
    Str graph, node, part;
    str_init(&graph), str_init(&node), str_init(&part);
    wire_text(&graph, GRAPH_NAME, "");
    wire_text(&graph, 10, "of the graph");
    wire_info(&graph, GRAPH_INPUT, "x", 4);
    put_typed_inputs(&graph);
    wire_info(&graph, GRAPH_OUTPUT, "x", 5); /* an input that is an output, with another type there */
    wire_info(&graph, GRAPH_OUTPUT, "y", 4);
    wire_info(&graph, GRAPH_INFO, "nobody", 1);
    wire_info(&graph, GRAPH_INFO, "w", 2);
    wire_info(&graph, GRAPH_INFO, "x", 4);
    wire_tensor(&graph, GRAPH_INITIALIZER, "w", 2, NULL);
    put_tensor(&graph, GRAPH_INITIALIZER, DTYPE_F32, 4, "f");
    wire_text(&node, NODE_INPUT, "x");
    wire_text(&node, NODE_INPUT, "");
    wire_text(&node, NODE_OUTPUT, "y");
    wire_text(&node, NODE_OUTPUT, "");
    wire_text(&node, NODE_NAME, "");
    wire_text(&node, NODE_OP, "Op");
    wire_text(&node, NODE_DOMAIN, "ai.onnx");
    wire_text(&node, 8, "");
    wire_pair(&node, 9, "pkg.torch.onnx.stack_trace", "/home/somebody/secret.py");
    wire_text(&part, 1, "device0");
    wire_int(&part, 3, 2);
    wire_message(&node, 10, &part);
    unknown(&node);
    put_attributes(&node);
    put_lists(&node);
    wire_message(&graph, GRAPH_NODE, &node);
    wire_text(&part, 1, "w");
    wire_pair(&part, 2, "SCALE_TENSOR", "f");
    wire_message(&graph, 14, &part);
    wire_tensor(&part, 1, "sparse", 1, NULL);
    wire_int(&node, TENSOR_DIMS, 1);
    wire_int(&node, TENSOR_TYPE, DTYPE_I64);
    wire_int(&node, 7, 1);
    wire_message(&part, 2, &node);
    wire_int(&part, 3, 4);
    unknown(&part);
    wire_message(&graph, GRAPH_SPARSE, &part);
    unknown(&graph);
    wire_message(model, MODEL_GRAPH, &graph);
    str_release(&graph), str_release(&node), str_release(&part);
}

static void put_function(Str *model)
{
    Str function, part;
    str_init(&function), str_init(&part);
    wire_text(&function, 1, "F");
    wire_text(&function, 10, "local");
    wire_text(&function, 13, "v2");
    wire_text(&function, 4, "a");
    wire_text(&function, 5, "a");
    wire_text(&function, 6, "alpha");
    wire_text(&part, 1, "beta");
    wire_float(&part, 2, 0);
    wire_int(&part, 20, ATTR_FLOAT);
    wire_message(&function, 11, &part);
    wire_info(&function, 12, "a", 3);
    wire_text(&part, 1, "ai.onnx");
    wire_int(&part, 2, 18);
    unknown(&part);
    wire_message(&function, 9, &part);
    wire_pair(&function, 14, "", "v");
    unknown(&function);
    wire_message(model, MODEL_FUNCTION, &function);
    str_release(&function), str_release(&part);
}

static void put_everything(Str *model)
{
    Str part, graph;
    str_init(&part), str_init(&graph);
    wire_int(model, MODEL_IR_VERSION, 14);
    wire_text(model, 2, "");
    wire_text(model, 4, "org.example");
    wire_int(model, 5, 0);
    wire_text(model, 6, "of the model");
    wire_int(&part, 2, 22);
    wire_message(model, MODEL_OPSET, &part);
    wire_pair(model, MODEL_METADATA, "labels", "cat\ndog");
    wire_tensor(&graph, GRAPH_INITIALIZER, "step", 1, NULL);
    wire_message(&part, 2, &graph);
    wire_pair(&part, 4, "w", "w_new");
    wire_message(model, MODEL_TRAINING, &part);
    wire_text(&part, 1, "device0");
    wire_int(&part, 2, 1);
    wire_message(model, 26, &part);
    put_function(model);
    put_graph(model);
    unknown(model);
    str_release(&part), str_release(&graph);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* Fields in the schema's order, numbers packed as the schema says: equal bytes are equal messages. */
static void canonical(const void *bytes, size_t size, Str *out)
{
    Onnx__ModelProto *proto = onnx__model_proto__unpack(NULL, size, bytes);
    assert_non_null(proto);
    uint8_t *packed = malloc(onnx__model_proto__get_packed_size(proto) + 1);
    size_t n = onnx__model_proto__pack(proto, packed);
    str_append_bytes(out, (const char *)packed, n);
    free(packed);
    onnx__model_proto__free_unpacked(proto, NULL);
}

static void same_messages(const Str *expected, const char *path)
{
    Mapping file;
    Error err = {0};
    assert_ok(mapping_open(&file, path, &err), &err);
    Str a, b;
    str_init(&a), str_init(&b);
    canonical(expected->text, expected->length, &a);
    canonical(file.data, file.size, &b);
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.text, b.text, a.length);
    str_release(&a), str_release(&b);
    mapping_release(&file);
}

static void same_bytes(const char *a, const char *b)
{
    Mapping x, y;
    Error err = {0};
    assert_ok(mapping_open(&x, a, &err), &err);
    assert_ok(mapping_open(&y, b, &err), &err);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    mapping_release(&x), mapping_release(&y);
}

static Model *import(const char *path)
{
    Model *model;
    Error err = {0};
    assert_ok(model_import(path, &no_ops, &model, &err), &err);
    return model;
}

static void export(const Model *model, const char *path, const ExportOptions *options)
{
    Error err = {0};
    assert_ok(model_export(model, path, options, &err), &err);
}

/* ---- nothing is lost --------------------------------------------------------------------------------------------- */

static void hazard_36_an_untouched_model_keeps_every_field_known_or_not(void **state)
{
    Place *place = *state;
    Str bytes;
    str_init(&bytes);
    put_everything(&bytes);
    write_bytes(in(place, "all.onnx"), bytes.text, bytes.length);
    Model *model = import(in(place, "all.onnx"));
    export(model, in(place, "once.onnx"), NULL);
    same_messages(&bytes, in(place, "once.onnx"));
    model_free(model);
    model = import(in(place, "once.onnx"));
    export(model, in(place, "twice.onnx"), NULL);
    same_bytes(in(place, "once.onnx"), in(place, "twice.onnx"));
    model_free(model);
    str_release(&bytes);
}

static void changes_and_only_they_arrive(void **state)
{
    Place *place = *state;
    Str bytes;
    str_init(&bytes);
    put_everything(&bytes);
    write_bytes(in(place, "all.onnx"), bytes.text, bytes.length);
    Model *model = import(in(place, "all.onnx"));
    Graph *graph = model->graph;
    Value *y = graph_find(graph, "y");
    graph_rename_value(graph, y, "logits");
    type_set(&y->type, DTYPE_F16, 1, (const int64_t[]){7});
    graph_rename_value(graph, graph_find(graph, "w"), "weight");
    Value *input = graph_find(graph, "x");
    Node *node = graph_add_node(graph, NULL, "", "Relu", 22, "new", &input, 1, 0);
    Value *added = node_add_output(node, "added");
    type_set(&added->type, DTYPE_F32, 1, (const int64_t[]){-1});
    added->type.symbols[0] = "batch";
    added->has_info = true;
    export(model, in(place, "changed.onnx"), NULL);
    model_free(model);
    Mapping file;
    Error err = {0};
    assert_ok(mapping_open(&file, in(place, "changed.onnx"), &err), &err);
    Onnx__ModelProto *proto = onnx__model_proto__unpack(NULL, file.size, file.data);
    assert_string_equal(proto->graph->output[1]->name, "logits");
    assert_int_equal(proto->graph->output[1]->type->tensor_type->elem_type, DTYPE_F16);
    assert_int_equal(proto->graph->output[0]->type->tensor_type->shape->dim[0]->dim_value, 5); /* as it was */
    assert_string_equal(proto->graph->initializer[0]->name, "weight");
    assert_int_equal(proto->graph->n_value_info, 4);
    assert_string_equal(proto->graph->value_info[1]->name, "weight");
    assert_string_equal(proto->graph->value_info[3]->name, "added");
    assert_string_equal(proto->graph->value_info[3]->type->tensor_type->shape->dim[0]->dim_param, "batch");
    assert_string_equal(proto->graph->node[0]->domain, "ai.onnx");
    assert_null(proto->graph->node[1]->domain);
    onnx__model_proto__free_unpacked(proto, NULL);
    mapping_release(&file);
    str_release(&bytes);
}

static void types_of_every_kind_can_change(void **state)
{
    Place *place = *state;
    Str bytes;
    str_init(&bytes);
    put_everything(&bytes);
    write_bytes(in(place, "all.onnx"), bytes.text, bytes.length);
    Model *model = import(in(place, "all.onnx"));
    assert_int_equal(graph_find(model->graph, "in0")->type.kind, TYPE_SEQUENCE);
    assert_int_equal(graph_find(model->graph, "in1")->type.kind, TYPE_OPTIONAL);
    assert_int_equal(graph_find(model->graph, "in2")->type.kind, TYPE_MAP);
    assert_int_equal(graph_find(model->graph, "in3")->type.kind, TYPE_UNKNOWN);
    assert_int_equal(graph_find(model->graph, "in4")->type.kind, TYPE_SPARSE);
    const char *const names[3] = {"in0", "in1", "in4"};
    for (int i = 0; i < 3; i++) {
        Type *type = &graph_find(model->graph, names[i])->type;
        assert_int_equal(type->dtype, i == 2 ? DTYPE_F16 : DTYPE_F32);
        type->dtype = DTYPE_F64;
    }
    export(model, in(place, "typed.onnx"), NULL);
    model_free(model);
    model = import(in(place, "typed.onnx"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(graph_find(model->graph, names[i])->type.dtype, DTYPE_F64);
    assert_int_equal(graph_find(model->graph, "in1")->type.kind, TYPE_OPTIONAL);
    model_free(model);
    str_release(&bytes);
}

static void documentation_goes_when_asked(void **state)
{
    Place *place = *state;
    Str bytes;
    str_init(&bytes);
    put_everything(&bytes);
    write_bytes(in(place, "all.onnx"), bytes.text, bytes.length);
    Model *model = import(in(place, "all.onnx"));
    export(model, in(place, "bare.onnx"), &(ExportOptions){.strip_doc = true});
    model_free(model);
    Mapping file;
    Error err = {0};
    assert_ok(mapping_open(&file, in(place, "bare.onnx"), &err), &err);
    const char *const gone[] = {"a doc", "of the graph", "of the model", "secret.py"};
    for (size_t i = 0; i < 4; i++)
        assert_null(memmem(file.data, file.size, gone[i], strlen(gone[i])));
    assert_non_null(memmem(file.data, file.size, "cat\ndog", 7));
    mapping_release(&file);
    str_release(&bytes);
}

/* ---- nothing is overwritten -------------------------------------------------------------------------------------- */

/* A model of `count` initializers w0, w1, ... of 1000 floats each. */
static void write_weights(const char *path, int count)
{
    Str model, graph;
    str_init(&model), str_init(&graph);
    float numbers[1000];
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 1000; k++)
            numbers[k] = (float)(i * 1000 + k);
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        wire_tensor(&graph, GRAPH_INITIALIZER, name, 1000, numbers);
    }
    wire_model(&model, &graph);
    write_bytes(path, model.text, model.length);
    str_release(&model), str_release(&graph);
}

static void check_weights(const Model *model, int count)
{
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        const Tensor *w = graph_find(model->graph, name)->constant;
        assert_int_equal(tensor_count(w), 1000);
        assert_true(tensor_f64_at(w, 999) == i * 1000 + 999);
    }
}

static void the_source_is_never_overwritten_under_any_name(void **state)
{
    Place *place = *state;
    write_weights(in(place, "source.onnx"), 1);
    Model *model = import(in(place, "source.onnx"));
    Error err = {0};
    assert_int_equal(model_export(model, in(place, "source.onnx"), NULL, &err), STATUS_USAGE);
    assert_int_equal(symlink("source.onnx", in(place, "alias.onnx")), 0);
    memset(&err, 0, sizeof err);
    assert_int_equal(model_export(model, in(place, "alias.onnx"), NULL, &err), STATUS_USAGE);
    assert_int_equal(link(in(place, "source.onnx"), in(place, "hard.onnx")), 0);
    memset(&err, 0, sizeof err);
    assert_int_equal(model_export(model, in(place, "hard.onnx"), NULL, &err), STATUS_USAGE);
    write_bytes(in(place, "other.npz"), "x", 1);
    const char *const inputs[] = {in(place, "other.npz"), NULL};
    memset(&err, 0, sizeof err);
    assert_int_equal(model_export(model, inputs[0], &(ExportOptions){.inputs_not_to_touch = inputs}, &err),
                     STATUS_USAGE);
    model_free(model);
}

static void external_data_stays_external_and_its_source_stays(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 3);
    Model *model = import(in(place, "inline.onnx"));
    export(model, in(place, "ext.onnx"), &(ExportOptions){.external = true});
    model_free(model);
    model = import(in(place, "ext.onnx"));
    assert_int_equal(model->side_count, 1);
    check_weights(model, 3);
    Error err = {0};
    assert_int_equal(model_export(model, in(place, "ext.onnx.data"), NULL, &err), STATUS_USAGE); /* its own weights */
    export(model, in(place, "again.onnx"), NULL); /* by itself: the source had it */
    model_free(model);
    same_bytes(in(place, "ext.onnx.data"), in(place, "again.onnx.data"));
    model = import(in(place, "again.onnx"));
    assert_int_equal(model->side_count, 1);
    check_weights(model, 3);
    const Tensor *w1 = graph_find(model->graph, "w1")->constant;
    assert_string_equal(w1->location, "again.onnx.data");
    assert_int_equal(w1->offset % 64, 0);
    model_free(model);
}

static void a_side_file_of_another_model_is_not_replaced(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 1);
    write_bytes(in(place, "shared.onnx.data"), "precious", 8);
    Model *model = import(in(place, "inline.onnx"));
    Error err = {0};
    assert_int_equal(model_export(model, in(place, "shared.onnx"), &(ExportOptions){.external = true}, &err),
                     STATUS_USAGE);
    assert_non_null(strstr(err.message, "shared.onnx.data"));
    export(model, in(place, "own.onnx"), &(ExportOptions){.external = true});
    export(model, in(place, "own.onnx"), &(ExportOptions){.external = true}); /* both are its own: fine */
    model_free(model);
}

static void shared_weights_are_written_once(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 2);
    Model *model = import(in(place, "inline.onnx"));
    Tensor *w0 = graph_find(model->graph, "w0")->constant, *w1 = graph_find(model->graph, "w1")->constant;
    w1->data = w0->data;
    export(model, in(place, "tied.onnx"), &(ExportOptions){.external = true});
    model_free(model);
    struct stat info;
    assert_int_equal(stat(in(place, "tied.onnx.data"), &info), 0);
    assert_int_equal(info.st_size, 4000);
}

/* ---- on failure nothing is left ---------------------------------------------------------------------------------- */

static void internal_operators_are_refused_and_nothing_is_written(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 1);
    Model *model = import(in(place, "inline.onnx"));
    graph_add_node(model->graph, NULL, DOMAIN_INTERNAL, "ReduceTo", 0, "r", NULL, 0, 1);
    size_t before = files_in(place->root);
    Error err = {0};
    assert_int_equal(model_export(model, in(place, "internal.onnx"), NULL, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "ReduceTo 'r'"));
    assert_int_equal(files_in(place->root), before);
    model_free(model);
}

static void a_target_that_cannot_be_written_is_named(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 1);
    Model *model = import(in(place, "inline.onnx"));
    Error err = {0};
    assert_int_equal(model_export(model, in(place, "no/such/folder.onnx"), NULL, &err), STATUS_ENVIRONMENT);
    memset(&err, 0, sizeof err);
    assert_int_equal(model_export(model, place->root, NULL, &err), STATUS_ENVIRONMENT);
    memset(&err, 0, sizeof err);
    assert_int_equal(model_export(model, "/dev/null", NULL, &err), STATUS_ENVIRONMENT);
    model_free(model);
}

static void a_full_disk_leaves_the_old_files_and_no_new_ones(void **state)
{
    Place *place = *state;
    write_weights(in(place, "inline.onnx"), 10);
    write_bytes(in(place, "target.onnx"), "old", 3);
    write_bytes(in(place, "target.onnx.data"), "old data", 8);
    Model *model = import(in(place, "inline.onnx"));
    size_t before = files_in(place->root);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 20000; /* less than the weights; writes beyond fail, as on a full disk */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    for (int external = 0; external < 2; external++) {
        Error err = {0};
        Status status =
            model_export(model, in(place, "target.onnx"), &(ExportOptions){.external = external != 0}, &err);
        assert_int_equal(status, STATUS_ENVIRONMENT);
    }
    setrlimit(RLIMIT_FSIZE, &old);
    model_free(model);
    assert_int_equal(files_in(place->root), before);
    struct stat info;
    assert_int_equal(stat(in(place, "target.onnx"), &info), 0);
    assert_int_equal(info.st_size, 3);
}

/* ---- files that change ------------------------------------------------------------------------------------------- */

/* In a child: the guard is the process's, and it stays noted that a file was cut. */
static void a_file_that_shrinks_is_an_error_and_no_signal(void **state)
{
    Place *place = *state;
    write_weights(in(place, "shrinks.onnx"), 100);
    chmod(in(place, "shrinks.onnx"), 0644);
    pid_t child = fork();
    if (child == 0) {
        mapping_guard();
        Model *model = import(in(place, "shrinks.onnx"));
        int failed = truncate(in(place, "shrinks.onnx"), 5000);
        Error err = {0};
        Status status = model_export(model, in(place, "out.onnx"), NULL, &err);
        bool told = failed == 0 && status == STATUS_REJECTED && strstr(err.message, "shorter") != NULL;
        _exit(told && access(in(place, "out.onnx"), F_OK) != 0 ? 0 : 1);
    }
    int end;
    assert_int_equal(waitpid(child, &end, 0), child);
    assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 0);
}

/* Weights in a side file of more than 2 GB: offsets do not fit into 32 bits. The file is sparse and takes no room. */
static void hazard_35_models_beyond_two_gigabytes_are_read_through_external_data(void **state)
{
    Place *place = *state;
    Str model_bytes, graph, tensor;
    str_init(&model_bytes), str_init(&graph), str_init(&tensor);
    wire_int(&tensor, TENSOR_DIMS, 3);
    wire_int(&tensor, TENSOR_DIMS, INT64_C(200) << 20);
    wire_int(&tensor, TENSOR_TYPE, 1);
    wire_text(&tensor, TENSOR_NAME, "w");
    wire_pair(&tensor, TENSOR_EXTERNAL, "location", "huge.bin");
    wire_pair(&tensor, TENSOR_EXTERNAL, "offset", "1073741824");
    wire_int(&tensor, TENSOR_LOCATION, 1);
    wire_message(&graph, GRAPH_INITIALIZER, &tensor);
    wire_model(&model_bytes, &graph);
    write_bytes(in(place, "huge.onnx"), model_bytes.text, model_bytes.length);
    write_bytes(in(place, "huge.bin"), "", 0);
    off_t size = ((off_t)1 << 30) + ((off_t)2400 << 20);
    if (truncate(in(place, "huge.bin"), size) != 0)
        skip();
    FILE *file = fopen(in(place, "huge.bin"), "r+b");
    const float last = 42;
    fseeko(file, size - (off_t)sizeof last, SEEK_SET);
    fwrite(&last, sizeof last, 1, file);
    fclose(file);
    chmod(in(place, "huge.bin"), 0644);
    Model *model = import(in(place, "huge.onnx"));
    const Tensor *w = graph_find(model->graph, "w")->constant;
    assert_true(tensor_f64_at(w, tensor_count(w) - 1) == 42);
    model_free(model);
    unlink(in(place, "huge.bin"));
    str_release(&model_bytes), str_release(&graph), str_release(&tensor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hazard_36_an_untouched_model_keeps_every_field_known_or_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changes_and_only_they_arrive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(types_of_every_kind_can_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(documentation_goes_when_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_source_is_never_overwritten_under_any_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(external_data_stays_external_and_its_source_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_side_file_of_another_model_is_not_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shared_weights_are_written_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(internal_operators_are_refused_and_nothing_is_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_target_that_cannot_be_written_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_files_and_no_new_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_shrinks_is_an_error_and_no_signal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hazard_35_models_beyond_two_gigabytes_are_read_through_external_data, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
