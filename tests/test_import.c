/* onnx/import: what becomes of a sound model, and what every kind of unsound one is told. */
#include "tests/test.h"

#include <unistd.h>

#include "onnx/base/rng.h"
#include "onnx/op.h"
#include "tests/wire_build.h"

static const OpSet no_ops = {NULL, 0};

typedef struct Made {
    Str model, graph, part;
} Made;

static void made_init(Made *m)
{
    str_init(&m->model), str_init(&m->graph), str_init(&m->part);
}

static void made_release(Made *m)
{
    str_release(&m->model), str_release(&m->graph), str_release(&m->part);
}

/* x -> Relu -> y */
static void made_small(Made *m)
{
    made_init(m);
    wire_info(&m->graph, GRAPH_INPUT, "x", 4);
    wire_info(&m->graph, GRAPH_OUTPUT, "y", 4);
    wire_node(&m->graph, "Relu", "x", "y");
    wire_model(&m->model, &m->graph);
}

static Status import(const Str *bytes, Model **model, Error *err)
{
    memset(err, 0, sizeof *err);
    return model_import_bytes(bytes->text, bytes->length, "m", &no_ops, model, err);
}

static Model *imported(const Str *bytes)
{
    Model *model;
    Error err;
    assert_ok(import(bytes, &model, &err), &err);
    assert_ok(model_check(model, &err), &err);
    return model;
}

static void refused(const Str *bytes, const char *why)
{
    Model *model;
    Error err;
    assert_int_equal(import(bytes, &model, &err), STATUS_REJECTED);
    assert_null(model);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' expected in: %s", why, err.message);
}

/* The graph built so far, in a model, is refused. */
static void graph_refused(Made *m, const char *why)
{
    wire_model(&m->model, &m->graph);
    refused(&m->model, why);
    str_clear(&m->model);
}

/* ---- sound models ------------------------------------------------------------------------------------------- */

static void names_become_values_with_types(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    const float w[4] = {1, 2, 3, 4};
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 4);
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 4, w);
    wire_text(&m.part, NODE_INPUT, "x");
    wire_text(&m.part, NODE_INPUT, "");
    wire_text(&m.part, NODE_INPUT, "w");
    wire_text(&m.part, NODE_OUTPUT, "y");
    wire_text(&m.part, NODE_OP, "Clip");
    wire_message(&m.graph, GRAPH_NODE, &m.part);
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    const Graph *graph = model->graph;
    assert_int_equal(model_opset(model, ""), 17);
    assert_int_equal(graph->node_count, 1);
    assert_int_equal(graph->first->input_count, 3);
    assert_null(graph->first->inputs[1]);
    const Value *constant = graph->first->inputs[2];
    assert_true(constant->is_initializer && constant->use_count == 1);
    assert_memory_equal(constant->constant->data, w, sizeof w);
    assert_int_equal(graph->inputs[0]->type.dims[0], 4);
    assert_ptr_equal(graph->outputs[0]->producer, graph->first);
    model_free(model);
    made_release(&m);
}

static void nodes_in_any_order_are_sorted(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    wire_info(&m.graph, GRAPH_OUTPUT, "c", 4);
    wire_node(&m.graph, "Third", "b", "c");
    wire_node(&m.graph, "First", "x", "a");
    wire_node(&m.graph, "Second", "a", "b");
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    assert_string_equal(model->graph->first->op_type, "First");
    assert_string_equal(model->graph->last->op_type, "Third");
    model_free(model);
    made_release(&m);
}

static void an_initializer_may_be_an_input_too(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_info(&m.graph, GRAPH_INPUT, "w", 2);
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 2);
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 2, NULL);
    wire_node(&m.graph, "Relu", "w", "y");
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    const Value *w = graph_find(model->graph, "w");
    assert_true(w->is_input && w->is_initializer && !value_is_constant(w));
    model_free(model);
    made_release(&m);
}

/* A body that reads a value defined after its node in the file, and shadows nothing. */
static void bodies_see_the_graph_around_them(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str body, attr;
    str_init(&body), str_init(&attr);
    wire_node(&body, "Neg", "late", "inner");
    wire_info(&body, GRAPH_OUTPUT, "inner", 4);
    wire_text(&attr, 1, "then_branch");
    wire_message(&attr, 6, &body);
    wire_int(&attr, 20, ATTR_GRAPH);
    wire_text(&m.part, NODE_INPUT, "x");
    wire_text(&m.part, NODE_OUTPUT, "y");
    wire_text(&m.part, NODE_OP, "If");
    wire_message(&m.part, NODE_ATTRIBUTE, &attr);
    wire_message(&m.graph, GRAPH_NODE, &m.part);
    wire_node(&m.graph, "Abs", "x", "late");
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 4);
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    const Value *late = graph_find(model->graph, "late");
    assert_int_equal(late->use_count, 1);
    assert_string_equal(late->uses[0].node->op_type, "Neg");
    assert_string_equal(model->graph->first->op_type, "Abs");
    model_free(model);
    str_release(&body), str_release(&attr);
    made_release(&m);
}

static void sparse_initializers_are_held_dense_too(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str tensor;
    str_init(&tensor);
    const float values[2] = {5, 7};
    const int64_t places[2] = {1, 3};
    wire_tensor(&m.part, 1, "s", 2, values);
    wire_int(&tensor, TENSOR_DIMS, 2);
    wire_int(&tensor, TENSOR_TYPE, DTYPE_I64);
    wire_bytes(&tensor, TENSOR_RAW, places, sizeof places);
    wire_message(&m.part, 2, &tensor);
    wire_int(&m.part, 3, 2);
    wire_int(&m.part, 3, 2);
    wire_message(&m.graph, GRAPH_SPARSE, &m.part);
    wire_node(&m.graph, "Relu", "s", "y");
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 4);
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    const Tensor *dense = graph_find(model->graph, "s")->constant;
    assert_int_equal(dense->rank, 2);
    const float expected[4] = {0, 5, 0, 7};
    assert_memory_equal(dense->data, expected, sizeof expected);
    model_free(model);
    str_release(&tensor);
    made_release(&m);
}

/* One tensor of each kind of typed storage, as an attribute of a Constant. */
static void typed_numbers_arrive_as_bytes(void **state)
{
    (void)state;
    const struct {
        DType dtype;
        unsigned field;
        int64_t in[3];
        double out[3];
    } cases[] = {
        {DTYPE_I8, 5, {-1, 127, -128}, {-1, 127, -128}},
        {DTYPE_U8, 5, {0, 255, 3}, {0, 255, 3}},
        {DTYPE_I16, 5, {-300, 2, 3}, {-300, 2, 3}},
        {DTYPE_BOOL, 5, {1, 0, 1}, {1, 0, 1}},
        {DTYPE_F16, 5, {0x3c00, 0xc000, -0x4000}, {1, -2, -2}}, /* the last one sign-extended */
        {DTYPE_BF16, 5, {0x3f80, 0xc000, 0}, {1, -2, 0}},
        {DTYPE_I32, 5, {-1, INT32_MAX, INT32_MIN}, {-1, INT32_MAX, INT32_MIN}},
        {DTYPE_I64, 7, {-1, 1L << 40, 0}, {-1, 0x1p40, 0}},
        {DTYPE_U32, 11, {0, UINT32_MAX, 1}, {0, UINT32_MAX, 1}},
        {DTYPE_F6E2M3, 5, {1, 8, 63}, {0.125, 1, -7.5}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str tensor;
        str_init(&tensor);
        wire_int(&tensor, TENSOR_DIMS, 3);
        wire_int(&tensor, TENSOR_TYPE, cases[i].dtype);
        for (int k = 0; k < 3; k++)
            wire_int(&tensor, cases[i].field, cases[i].in[k]);
        Arena arena;
        arena_init(&arena);
        Array *array;
        Error err = {0};
        assert_ok(array_import_proto(&arena, tensor.text, tensor.length, "t", ARRAY_TENSOR, &array, &err), &err);
        for (int k = 0; k < 3; k++)
            assert_true(array_f64_at(array, k) == cases[i].out[k]);
        arena_release(&arena);
        str_release(&tensor);
    }
}

static void sequences_and_optionals_are_read(void **state)
{
    (void)state;
    Str sequence, optional;
    str_init(&sequence), str_init(&optional);
    const float numbers[2] = {1, 2};
    wire_int(&sequence, 2, 1);
    wire_tensor(&sequence, 3, "a", 2, numbers);
    wire_tensor(&sequence, 3, "b", 1, numbers);
    Arena arena;
    arena_init(&arena);
    Array *array;
    Error err = {0};
    assert_ok(array_import_proto(&arena, sequence.text, sequence.length, "s", ARRAY_SEQUENCE, &array, &err), &err);
    assert_int_equal(array->item_count, 2);
    assert_true(array_f64_at(array->items[0], 1) == 2);
    wire_message(&optional, 5, &sequence);
    assert_ok(array_import_proto(&arena, optional.text, optional.length, "o", ARRAY_OPTIONAL, &array, &err), &err);
    assert_int_equal(array->item_count, 1);
    assert_int_equal(array->items[0]->kind, ARRAY_SEQUENCE);
    str_clear(&optional);
    assert_ok(array_import_proto(&arena, optional.text, 0, "o", ARRAY_OPTIONAL, &array, &err), &err);
    assert_int_equal(array->item_count, 0);
    arena_release(&arena);
    str_release(&sequence), str_release(&optional);
}

/* ---- unsound graphs ---------------------------------------------------------------------------------------------- */

static void cycles_are_refused(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_node(&m.graph, "Relu", "b", "a");
    wire_node(&m.graph, "Relu", "a", "b");
    graph_refused(&m, "cycle");
    wire_node(&m.graph, "Relu", "a", "a"); /* itself */
    graph_refused(&m, "cycle");
    made_release(&m);
}

static void names_defined_twice_or_never_are_refused(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_node(&m.graph, "Relu", "", "a");
    wire_node(&m.graph, "Tanh", "", "a");
    graph_refused(&m, "Tanh (unnamed): its output 'a' is defined elsewhere");
    wire_node(&m.graph, "Relu", "nothing", "a");
    graph_refused(&m, "Relu (output 'a'): its input 0 'nothing' is neither computed nor given");
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 1);
    graph_refused(&m, "'y' is an output that nothing computes");
    wire_info(&m.graph, GRAPH_INPUT, "x", 1);
    wire_info(&m.graph, GRAPH_INPUT, "x", 1);
    graph_refused(&m, "'x' is listed as an input twice");
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 1, NULL);
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 1, NULL);
    graph_refused(&m, "'w' is an initializer twice");
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 1, NULL);
    wire_node(&m.graph, "Relu", "", "w");
    graph_refused(&m, "'w' is defined elsewhere");
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "", 1, NULL);
    graph_refused(&m, "has no name");
    made_release(&m);
}

static void nodes_without_an_operator_or_of_our_own_domain_are_refused(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_node(&m.graph, "", "", "a");
    graph_refused(&m, "has no operator");
    wire_text(&m.part, NODE_OP, "ReduceTo");
    wire_text(&m.part, NODE_DOMAIN, DOMAIN_INTERNAL);
    wire_message(&m.graph, GRAPH_NODE, &m.part);
    graph_refused(&m, "not for files");
    made_release(&m);
}

static void opsets_must_make_sense(void **state)
{
    (void)state;
    const int64_t versions[][2] = {{0, 0}, {-1, 0}, {INT64_MAX, 0}, {17, 18}};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        Made m;
        made_init(&m);
        wire_int(&m.model, MODEL_IR_VERSION, 8);
        for (int k = 0; k < 2 && (k == 0 || versions[i][k] != 0); k++) {
            wire_int(&m.part, 2, versions[i][k]);
            wire_message(&m.model, MODEL_OPSET, &m.part);
        }
        wire_message(&m.model, MODEL_GRAPH, &m.graph);
        refused(&m.model, "opset");
        made_release(&m);
    }
    Made m;
    made_init(&m);
    wire_node(&m.graph, "Relu", "", "a");
    wire_int(&m.model, MODEL_IR_VERSION, 8);
    wire_message(&m.model, MODEL_GRAPH, &m.graph);
    refused(&m.model, "imports no opset");
    made_release(&m);
}

static void what_is_no_model_is_refused(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    refused(&m.model, "an empty file");
    str_append(&m.model, "{\"json\": 1}");
    refused(&m.model, "m: ");
    str_clear(&m.model);
    wire_int(&m.model, MODEL_IR_VERSION, 8);
    refused(&m.model, "without a graph");
    str_clear(&m.model);
    wire_message(&m.model, MODEL_GRAPH, &m.graph);
    refused(&m.model, "no IR version");
    wire_int(&m.model, MODEL_IR_VERSION, 15);
    Model *model;
    Error err;
    assert_int_equal(import(&m.model, &model, &err), STATUS_UNSUPPORTED);
    made_release(&m);
    memset(&err, 0, sizeof err);
    assert_int_equal(model_import("/nowhere/m.onnx", &no_ops, &model, &err), STATUS_REJECTED);
    assert_int_equal(model_import("/", &no_ops, &model, NULL), STATUS_REJECTED);
}

/* ---- unsound attributes ------------------------------------------------------------------------------------------ */

static void attr_refused(Made *m, const Str *attr, const char *why)
{
    wire_text(&m->part, NODE_OP, "Op");
    wire_text(&m->part, NODE_OUTPUT, "y");
    wire_bytes(&m->part, NODE_ATTRIBUTE, attr->text, attr->length);
    wire_message(&m->graph, GRAPH_NODE, &m->part);
    graph_refused(m, why);
}

static void attributes_hold_what_their_type_says(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str attr;
    str_init(&attr);
    wire_int(&attr, 3, 7);
    wire_int(&attr, 20, ATTR_INT);
    attr_refused(&m, &attr, "without a name");
    str_clear(&attr);
    wire_text(&attr, 1, "axis");
    wire_int(&attr, 3, 7);
    wire_int(&attr, 20, ATTR_FLOAT);
    attr_refused(&m, &attr, "attribute 'axis' says type 1 and holds a value of type 2");
    str_clear(&attr);
    wire_text(&attr, 1, "axis");
    wire_int(&attr, 3, 7);
    wire_float(&attr, 2, 7);
    attr_refused(&m, &attr, "has two values");
    str_clear(&attr);
    wire_text(&attr, 1, "axis");
    attr_refused(&m, &attr, "neither type nor value");
    wire_int(&attr, 20, 99);
    attr_refused(&m, &attr, "which is none");
    str_clear(&attr);
    wire_text(&attr, 1, "value");
    wire_int(&attr, 20, ATTR_TENSOR);
    attr_refused(&m, &attr, "has no value");
    str_release(&attr);
    made_release(&m);
}

static void an_attribute_given_twice_is_refused(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str attr;
    str_init(&attr);
    wire_text(&attr, 1, "axis");
    wire_int(&attr, 3, 7);
    wire_bytes(&m.part, NODE_ATTRIBUTE, attr.text, attr.length);
    attr_refused(&m, &attr, "attribute 'axis' is given twice");
    str_release(&attr);
    made_release(&m);
}

/* ---- unsound tensors --------------------------------------------------------------------------------------------- */

/* What `tensor` is told as an initializer, and as a single value of the backend tests. */
static void tensor_refused(Str *tensor, const char *why)
{
    Made m;
    made_init(&m);
    wire_text(tensor, TENSOR_NAME, "w");
    wire_bytes(&m.graph, GRAPH_INITIALIZER, tensor->text, tensor->length);
    wire_model(&m.model, &m.graph);
    refused(&m.model, why);
    refused(&m.model, "initializer 'w'");
    made_release(&m);
    str_clear(tensor);
}

static void dims_and_types_must_make_sense(void **state)
{
    (void)state;
    Str t;
    str_init(&t);
    wire_int(&t, TENSOR_DIMS, 2);
    tensor_refused(&t, "without a data type");
    wire_int(&t, TENSOR_DIMS, -1);
    wire_int(&t, TENSOR_TYPE, 1);
    tensor_refused(&t, "dim 0 is -1");
    for (int i = 0; i < 3; i++)
        wire_int(&t, TENSOR_DIMS, INT64_C(1) << 40);
    wire_int(&t, TENSOR_TYPE, 1);
    tensor_refused(&t, "more elements than any memory");
    wire_int(&t, TENSOR_DIMS, INT64_C(1) << 62); /* times four bytes is zero */
    wire_int(&t, TENSOR_TYPE, 1);
    wire_bytes(&t, TENSOR_RAW, "", 0);
    tensor_refused(&t, "more elements than any memory");
    for (int i = 0; i < 10000; i++)
        wire_int(&t, TENSOR_DIMS, 2);
    wire_int(&t, TENSOR_TYPE, 1);
    tensor_refused(&t, "more elements than any memory");
    str_release(&t);
}

static void rank_zero_and_no_elements_are_fine(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_int(&m.part, TENSOR_TYPE, 1);
    wire_text(&m.part, TENSOR_NAME, "scalar");
    wire_bytes(&m.part, TENSOR_RAW, "abcd", 4);
    wire_message(&m.graph, GRAPH_INITIALIZER, &m.part);
    for (int i = 0; i < 10000; i++)
        wire_int(&m.part, TENSOR_DIMS, i % 2);
    wire_int(&m.part, TENSOR_TYPE, 1);
    wire_text(&m.part, TENSOR_NAME, "empty");
    wire_message(&m.graph, GRAPH_INITIALIZER, &m.part);
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    assert_int_equal(tensor_count(graph_find(model->graph, "scalar")->constant), 1);
    assert_int_equal(tensor_count(graph_find(model->graph, "empty")->constant), 0);
    assert_int_equal(graph_find(model->graph, "empty")->constant->rank, 10000);
    model_free(model);
    made_release(&m);
}

static void numbers_must_be_as_many_as_dims_say(void **state)
{
    (void)state;
    Str t;
    str_init(&t);
    wire_int(&t, TENSOR_DIMS, 2);
    wire_int(&t, TENSOR_TYPE, 1);
    wire_bytes(&t, TENSOR_RAW, "1234567", 7);
    tensor_refused(&t, "8 bytes expected for float32[2], found 7");
    wire_int(&t, TENSOR_DIMS, 2);
    wire_int(&t, TENSOR_TYPE, 1);
    tensor_refused(&t, "float32[2] without any numbers");
    wire_int(&t, TENSOR_DIMS, 2);
    wire_int(&t, TENSOR_TYPE, DTYPE_I64);
    wire_int(&t, 7, 5);
    tensor_refused(&t, "2 numbers expected in int64_data for int64[2], found 1");
    wire_int(&t, TENSOR_DIMS, 3);
    wire_int(&t, TENSOR_TYPE, DTYPE_STRING);
    wire_text(&t, 6, "a");
    tensor_refused(&t, "3 numbers expected in string_data");
    wire_int(&t, TENSOR_DIMS, 3);
    wire_int(&t, TENSOR_TYPE, DTYPE_I4);
    wire_bytes(&t, TENSOR_RAW, "123", 3);
    tensor_refused(&t, "2 bytes expected for int4[3], found 3");
    str_release(&t);
}

static void numbers_must_be_in_the_one_right_field(void **state)
{
    (void)state;
    Str t;
    str_init(&t);
    wire_int(&t, TENSOR_DIMS, 1);
    wire_int(&t, TENSOR_TYPE, 1);
    wire_bytes(&t, TENSOR_RAW, "1234", 4);
    wire_int(&t, 7, 1);
    tensor_refused(&t, "in two places");
    wire_int(&t, TENSOR_DIMS, 1);
    wire_int(&t, TENSOR_TYPE, 1);
    wire_int(&t, 7, 1);
    tensor_refused(&t, "float32 holds its numbers in float_data, found in int64_data");
    wire_int(&t, TENSOR_DIMS, 1);
    wire_int(&t, TENSOR_TYPE, DTYPE_I32);
    wire_bytes(&t, 4, "1234", 4);
    tensor_refused(&t, "int32 holds its numbers in int32_data, found in float_data");
    wire_int(&t, TENSOR_DIMS, 1);
    wire_int(&t, TENSOR_TYPE, DTYPE_STRING);
    wire_bytes(&t, TENSOR_RAW, "1234567890123456", 16);
    tensor_refused(&t, "strings cannot be in raw_data");
    wire_int(&t, TENSOR_DIMS, 1);
    wire_int(&t, TENSOR_TYPE, DTYPE_U8);
    wire_int(&t, 5, 256);
    tensor_refused(&t, "element 0 of int32_data is 256, which is no uint8");
    str_release(&t);
}

static void sparse_indices_must_lie_inside(void **state)
{
    (void)state;
    const struct {
        int64_t place, dim;
        const char *why;
    } cases[] = {
        {-1, 4, "outside"}, {4, 4, "outside"}, {0, -4, "shape"}, {0, INT64_C(1) << 50, "too large to be held"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Made m;
        made_init(&m);
        Str tensor;
        str_init(&tensor);
        wire_tensor(&m.part, 1, "s", 1, NULL);
        wire_int(&tensor, TENSOR_DIMS, 1);
        wire_int(&tensor, TENSOR_TYPE, DTYPE_I64);
        wire_bytes(&tensor, TENSOR_RAW, &cases[i].place, sizeof cases[i].place);
        wire_message(&m.part, 2, &tensor);
        wire_int(&m.part, 3, cases[i].dim);
        wire_message(&m.graph, GRAPH_SPARSE, &m.part);
        graph_refused(&m, cases[i].why);
        str_release(&tensor);
        made_release(&m);
    }
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static void functions_are_read_with_their_own_opsets(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str opset;
    str_init(&opset);
    wire_text(&m.part, 1, "Twice");
    wire_text(&m.part, 10, "local");
    wire_text(&m.part, 4, "a");
    wire_text(&m.part, 5, "b");
    wire_text(&m.part, 6, "alpha");
    Str node;
    str_init(&node);
    wire_text(&node, NODE_INPUT, "a");
    wire_text(&node, NODE_OUTPUT, "b");
    wire_text(&node, NODE_OP, "Relu");
    wire_message(&m.part, 7, &node);
    wire_int(&opset, 2, 13);
    wire_message(&m.part, 9, &opset);
    wire_message(&m.model, MODEL_FUNCTION, &m.part);
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    wire_model(&m.model, &m.graph);
    Model *model = imported(&m.model);
    const Function *function = model_function(model, "local", "Twice", NULL);
    assert_non_null(function);
    assert_int_equal(function->graph->first->opset, 13);
    assert_string_equal(function->attrs[0], "alpha");
    model_free(model);
    str_release(&opset), str_release(&node);
    made_release(&m);
}

/* ---- anything at all --------------------------------------------------------------------------------------------- */

static void a_model_cut_anywhere_is_refused_or_whole(void **state)
{
    (void)state;
    Made m;
    made_small(&m);
    wire_pair(&m.model, MODEL_METADATA, "key", "value");
    int whole = 0;
    for (size_t n = 0; n < m.model.length; n++) {
        char *exact = malloc(n + 1); /* so that a sanitizer sees reads beyond the end */
        memcpy(exact, m.model.text, n);
        Model *model;
        Error err = {0};
        Status status = model_import_bytes(exact, n, "m", &no_ops, &model, &err);
        assert_true(status == STATUS_OK || (status == STATUS_REJECTED && err.message[0] != '\0'));
        whole += status == STATUS_OK;
        model_free(model);
        free(exact);
    }
    assert_int_equal(whole, 1); /* before the metadata: a complete smaller model */
    made_release(&m);
}

/* Random changes to a model with a bit of everything: whatever comes, a Status comes back. */
static void damaged_models_never_crash(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    Str attr;
    str_init(&attr);
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    wire_info(&m.graph, GRAPH_OUTPUT, "y", 4);
    wire_info(&m.graph, GRAPH_INFO, "a", 4);
    wire_tensor(&m.graph, GRAPH_INITIALIZER, "w", 8, NULL);
    wire_node(&m.graph, "Relu", "x", "a");
    wire_text(&attr, 1, "value");
    wire_tensor(&attr, 5, "t", 3, NULL);
    wire_int(&attr, 20, ATTR_TENSOR);
    wire_text(&m.part, NODE_INPUT, "a");
    wire_text(&m.part, NODE_OUTPUT, "y");
    wire_text(&m.part, NODE_OP, "Op");
    wire_message(&m.part, NODE_ATTRIBUTE, &attr);
    wire_pair(&m.part, 9, "k", "v");
    wire_message(&m.graph, GRAPH_NODE, &m.part);
    wire_model(&m.model, &m.graph);
    Rng rng = rng_at(7, 0);
    for (int round = 0; round < 20000; round++) {
        size_t n = m.model.length;
        char *bytes = malloc(n);
        memcpy(bytes, m.model.text, n);
        for (uint64_t k = 1 + rng_below(&rng, 4); k > 0; k--)
            bytes[rng_below(&rng, n)] = (char)rng_u32(&rng);
        Model *model;
        Error err = {0};
        if (model_import_bytes(bytes, n - rng_below(&rng, 3), "m", &no_ops, &model, &err) == STATUS_OK)
            assert_ok(model_check(model, &err), &err);
        model_free(model);
        free(bytes);
    }
    str_release(&attr);
    made_release(&m);
}

static void many_inputs_and_values_are_read_quickly(void **state)
{
    (void)state;
    Made m;
    made_init(&m);
    wire_info(&m.graph, GRAPH_INPUT, "x", 4);
    for (int i = 0; i < 100000; i++)
        wire_text(&m.part, NODE_INPUT, "x");
    wire_text(&m.part, NODE_OP, "Sum");
    wire_text(&m.part, NODE_OUTPUT, "y");
    wire_message(&m.graph, GRAPH_NODE, &m.part);
    wire_model(&m.model, &m.graph);
    Model *model;
    Error err;
    assert_ok(import(&m.model, &model, &err), &err);
    assert_int_equal(model->graph->first->input_count, 100000);
    model_free(model);
    made_release(&m);
}

/* Weights stay in the file: importing 100 MB takes no second copy, raw or as floats. The file is sparse. */
static void weights_are_not_copied(void **state)
{
    (void)state;
    enum { COUNT = 25 * 1000 * 1000 };
    for (int typed = 0; typed < 2; typed++) {
        Str tensor, head;
        str_init(&tensor), str_init(&head);
        wire_int(&tensor, TENSOR_DIMS, COUNT);
        wire_int(&tensor, TENSOR_TYPE, 1);
        wire_text(&tensor, TENSOR_NAME, "w");
        wire_tag(&tensor, typed ? 4 : TENSOR_RAW, 2);
        wire_varint(&tensor, (uint64_t)COUNT * 4);
        const uint64_t tensor_size = tensor.length + (uint64_t)COUNT * 4;
        Str field; /* the graph, up to its numbers */
        str_init(&field);
        wire_tag(&field, GRAPH_INITIALIZER, 2);
        wire_varint(&field, tensor_size);
        wire_int(&head, MODEL_IR_VERSION, 8);
        wire_tag(&head, MODEL_GRAPH, 2);
        wire_varint(&head, field.length + tensor_size);
        str_append_bytes(&head, field.text, field.length);
        str_append_bytes(&head, tensor.text, tensor.length);
        char path[] = "/tmp/regraft-import-XXXXXX";
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, head.text, head.length), head.length);
        assert_int_equal(ftruncate(fd, (off_t)head.length + (off_t)COUNT * 4), 0);
        close(fd);
        Model *model;
        Error err = {0};
        assert_ok(model_import(path, &no_ops, &model, &err), &err);
        const Tensor *w = graph_find(model->graph, "w")->constant;
        const unsigned char *data = w->data;
        assert_true(data > model->file.data && data + w->bytes == model->file.data + model->file.size);
        assert_true(model->file.mapped && model->arena.used < 100000);
        model_free(model);
        unlink(path);
        str_release(&tensor), str_release(&head), str_release(&field);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_values_with_types),
        cmocka_unit_test(nodes_in_any_order_are_sorted),
        cmocka_unit_test(an_initializer_may_be_an_input_too),
        cmocka_unit_test(bodies_see_the_graph_around_them),
        cmocka_unit_test(sparse_initializers_are_held_dense_too),
        cmocka_unit_test(typed_numbers_arrive_as_bytes),
        cmocka_unit_test(sequences_and_optionals_are_read),
        cmocka_unit_test(cycles_are_refused),
        cmocka_unit_test(names_defined_twice_or_never_are_refused),
        cmocka_unit_test(nodes_without_an_operator_or_of_our_own_domain_are_refused),
        cmocka_unit_test(opsets_must_make_sense),
        cmocka_unit_test(what_is_no_model_is_refused),
        cmocka_unit_test(attributes_hold_what_their_type_says),
        cmocka_unit_test(an_attribute_given_twice_is_refused),
        cmocka_unit_test(dims_and_types_must_make_sense),
        cmocka_unit_test(rank_zero_and_no_elements_are_fine),
        cmocka_unit_test(numbers_must_be_as_many_as_dims_say),
        cmocka_unit_test(numbers_must_be_in_the_one_right_field),
        cmocka_unit_test(sparse_indices_must_lie_inside),
        cmocka_unit_test(functions_are_read_with_their_own_opsets),
        cmocka_unit_test(a_model_cut_anywhere_is_refused_or_whole),
        cmocka_unit_test(damaged_models_never_crash),
        cmocka_unit_test(many_inputs_and_values_are_read_quickly),
        cmocka_unit_test(weights_are_not_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
