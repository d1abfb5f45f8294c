/* onnx/wire: what the scan refuses before anything is unpacked, what it cuts out, and what streaming writes. */
#include "tests/test.h"

#include <time.h>

#include "onnx.pb-c.h"
#include "onnx/wire.h"
#include "tests/wire_build.h"

static Status scan_as(const Str *bytes, const ProtobufCMessageDescriptor *type, WireScan *scan, Error *err)
{
    memset(err, 0, sizeof *err);
    return wire_scan(bytes->text, bytes->length, type, scan, err);
}

static void refused(const Str *bytes, const char *why)
{
    WireScan scan;
    Error err;
    assert_int_equal(scan_as(bytes, &onnx__model_proto__descriptor, &scan, &err), STATUS_REJECTED);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' expected in: %s", why, err.message);
    assert_null(scan.copy);
}

static void numbers_stay_where_they_are(void **state)
{
    (void)state;
    Str model, graph;
    str_init(&model), str_init(&graph);
    const float w[3] = {1, 2, 3};
    wire_tensor(&graph, GRAPH_INITIALIZER, "w", 3, w);
    wire_model(&model, &graph);
    WireScan scan;
    Error err;
    assert_ok(scan_as(&model, &onnx__model_proto__descriptor, &scan, &err), &err);
    assert_int_equal(scan.slice_count, 1);
    assert_int_equal(scan.slices[0].length, sizeof w);
    assert_int_equal(scan.slices[0].field, TENSOR_RAW_DATA);
    assert_true((const char *)scan.slices[0].data > model.text &&
                (const char *)scan.slices[0].data < model.text + model.length);
    assert_memory_equal(scan.slices[0].data, w, sizeof w);
    Onnx__ModelProto *proto = onnx__model_proto__unpack(NULL, scan.size, scan.copy);
    assert_non_null(proto);
    assert_string_equal(proto->graph->initializer[0]->name, "w");
    assert_ptr_equal(wire_slice(&scan, &proto->graph->initializer[0]->raw_data), &scan.slices[0]);
    onnx__model_proto__free_unpacked(proto, NULL);
    wire_release(&scan);
    str_release(&model), str_release(&graph);
}

static void floats_in_one_piece_are_cut_out_and_in_two_are_not(void **state)
{
    (void)state;
    const float numbers[2] = {1.5f, -2};
    Str one, two;
    str_init(&one), str_init(&two);
    wire_bytes(&one, TENSOR_FLOAT_DATA, numbers, sizeof numbers);
    wire_bytes(&two, TENSOR_FLOAT_DATA, numbers, sizeof numbers[0]);
    wire_float(&two, TENSOR_FLOAT_DATA, numbers[1]);
    WireScan scan;
    Error err;
    assert_ok(scan_as(&one, &onnx__tensor_proto__descriptor, &scan, &err), &err);
    assert_int_equal(scan.slice_count, 1);
    assert_int_equal(scan.slices[0].field, TENSOR_FLOAT_DATA);
    wire_release(&scan);
    assert_ok(scan_as(&two, &onnx__tensor_proto__descriptor, &scan, &err), &err);
    assert_int_equal(scan.slice_count, 0);
    Onnx__TensorProto *proto = onnx__tensor_proto__unpack(NULL, scan.size, scan.copy);
    assert_int_equal(proto->n_float_data, 2);
    assert_memory_equal(proto->float_data, numbers, sizeof numbers);
    onnx__tensor_proto__free_unpacked(proto, NULL);
    wire_release(&scan);
    str_release(&one), str_release(&two);
}

static void runs_of_single_numbers_become_one(void **state)
{
    (void)state;
    Str attr;
    str_init(&attr);
    for (int64_t i = -500; i < 500; i++)
        wire_int(&attr, 8, i); /* ints */
    wire_text(&attr, 1, "ints");
    WireScan scan;
    Error err;
    assert_ok(scan_as(&attr, &onnx__attribute_proto__descriptor, &scan, &err), &err);
    Onnx__AttributeProto *proto = onnx__attribute_proto__unpack(NULL, scan.size, scan.copy);
    assert_int_equal(proto->n_ints, 1000);
    for (int64_t i = -500; i < 500; i++)
        assert_int_equal(proto->ints[i + 500], i);
    onnx__attribute_proto__free_unpacked(proto, NULL);
    wire_release(&scan);
    str_release(&attr);
}

/* Subgraphs within subgraphs: 54 KB that overflow protobuf-c's stack. */
static void deep_nesting_is_refused_in_no_time(void **state)
{
    (void)state;
    Str inner, outer, model;
    str_init(&inner), str_init(&outer), str_init(&model);
    for (int depth = 0; depth < 5000; depth++) {
        Str attr, node;
        str_init(&attr), str_init(&node);
        wire_message(&attr, 6, &inner);
        wire_message(&node, NODE_ATTRIBUTE, &attr);
        wire_text(&node, NODE_OP, "If");
        wire_message(&outer, GRAPH_NODE, &node);
        Str swap = inner;
        inner = outer;
        outer = swap;
        str_clear(&outer);
        str_release(&attr), str_release(&node);
    }
    wire_model(&model, &inner);
    refused(&model, "more deeply than 100");
    str_release(&inner), str_release(&outer), str_release(&model);
}

static void deep_types_are_refused(void **state)
{
    (void)state;
    Str type, wrapped;
    str_init(&type), str_init(&wrapped);
    for (int depth = 0; depth < 300; depth++) { /* sequence of sequence of ... */
        wire_message(&wrapped, 1, &type);
        wire_message(&type, 4, &wrapped);
    }
    WireScan scan;
    Error err;
    assert_int_equal(scan_as(&type, &onnx__type_proto__descriptor, &scan, &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "more deeply"));
    str_release(&type), str_release(&wrapped);
}

static void a_million_empty_nodes_are_refused_before_they_cost_memory(void **state)
{
    (void)state;
    Str graph, model;
    str_init(&graph), str_init(&model);
    for (int i = 0; i < 1000000; i++)
        wire_bytes(&graph, GRAPH_NODE, "", 0);
    wire_model(&model, &graph);
    refused(&model, "without op_type");
    str_release(&graph), str_release(&model);
}

static void too_many_nodes_are_refused(void **state)
{
    (void)state;
    Str graph, model;
    str_init(&graph), str_init(&model);
    for (int i = 0; i <= WIRE_NODES_MAX; i++)
        wire_bytes(&graph, GRAPH_NODE, "\x22\x01X", 3);
    wire_model(&model, &graph);
    refused(&model, "limit of nodes");
    str_release(&graph), str_release(&model);
}

static void too_many_messages_are_refused(void **state)
{
    (void)state;
    Str model;
    str_init(&model);
    for (int i = 0; i <= WIRE_MESSAGES_MAX; i++)
        wire_bytes(&model, MODEL_METADATA, "", 0);
    refused(&model, "limit of messages");
    str_release(&model);
}

/* 400 KB of them take protobuf-c 15 seconds: it merges each with all before. */
static void repeated_graphs_are_refused(void **state)
{
    (void)state;
    Str graph, model;
    str_init(&graph), str_init(&model);
    wire_text(&graph, GRAPH_NAME, "g");
    wire_model(&model, &graph);
    for (int i = 0; i < 50000; i++)
        wire_bytes(&model, MODEL_GRAPH, "", 0);
    clock_t begin = clock();
    refused(&model, "'graph' occurs twice");
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 1);
    str_release(&graph), str_release(&model);
}

static void repeated_singular_fields_and_rival_members_are_refused(void **state)
{
    (void)state;
    Str bytes;
    str_init(&bytes);
    wire_int(&bytes, MODEL_IR_VERSION, 8);
    wire_int(&bytes, MODEL_IR_VERSION, 9);
    refused(&bytes, "'ir_version' occurs twice");
    str_clear(&bytes);
    wire_int(&bytes, 1, 4);        /* dim_value */
    wire_text(&bytes, 2, "batch"); /* dim_param, of the same oneof */
    WireScan scan;
    Error err;
    Status status = scan_as(&bytes, &onnx__tensor_shape_proto__dimension__descriptor, &scan, &err);
    assert_int_equal(status, STATUS_REJECTED);
    str_release(&bytes);
}

static void texts_with_a_nul_are_refused_and_bytes_are_not(void **state)
{
    (void)state;
    Str bytes;
    str_init(&bytes);
    wire_bytes(&bytes, 2, "pro\0ducer", 9);
    refused(&bytes, "NUL");
    str_clear(&bytes);
    wire_bytes(&bytes, 4, "a\0b", 3); /* AttributeProto.s */
    WireScan scan;
    Error err;
    assert_ok(scan_as(&bytes, &onnx__attribute_proto__descriptor, &scan, &err), &err);
    wire_release(&scan);
    str_release(&bytes);
}

static void lengths_beyond_the_end_are_refused(void **state)
{
    (void)state;
    const uint64_t lengths[] = {
        1, 127, 128, INT32_MAX, (uint64_t)INT32_MAX + 1, UINT32_MAX, UINT64_C(1) << 40, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        Str bytes;
        str_init(&bytes);
        wire_tag(&bytes, MODEL_GRAPH, 2);
        wire_varint(&bytes, lengths[i]);
        refused(&bytes, "truncated");
        str_release(&bytes);
    }
}

static void malformed_fields_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *bytes;
        size_t length;
        const char *why;
    } cases[] = {
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "tag"}, /* eleven bytes */
        {"\x08", 1, "ends early"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "ends early"},
        {"\x00\x01", 2, "field number"},
        {"\x0b\x0c", 2, "groups"},
        {"\x3c", 1, "groups"},
        {"\x38\x01", 2, "wire type"}, /* graph as a number */
        {"\x0a\x00", 2, "wire type"}, /* ir_version as bytes */
        {"\x0d\x00\x00", 3, "truncated"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str bytes;
        str_init(&bytes);
        str_append_bytes(&bytes, cases[i].bytes, cases[i].length);
        refused(&bytes, cases[i].why);
        str_release(&bytes);
    }
}

static void packed_numbers_must_be_whole(void **state)
{
    (void)state;
    const struct {
        unsigned field;
        const char *bytes;
        size_t length;
    } cases[] = {{4, "abc", 3},
                 {10, "abcd", 4},
                 {7, "\x80", 1},
                 {5, "\x01\xff", 2},
                 {7, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str tensor;
        str_init(&tensor);
        wire_bytes(&tensor, cases[i].field, cases[i].bytes, cases[i].length);
        WireScan scan;
        Error err;
        assert_int_equal(scan_as(&tensor, &onnx__tensor_proto__descriptor, &scan, &err), STATUS_REJECTED);
        str_release(&tensor);
    }
}

static void numbers_in_two_fields_are_refused(void **state)
{
    (void)state;
    Str tensor;
    str_init(&tensor);
    wire_bytes(&tensor, TENSOR_FLOAT_DATA, "abcd", 4);
    wire_bytes(&tensor, TENSOR_RAW_DATA, "abcd", 4);
    WireScan scan;
    Error err;
    assert_int_equal(scan_as(&tensor, &onnx__tensor_proto__descriptor, &scan, &err), STATUS_REJECTED);
    assert_non_null(strstr(err.message, "on top of other numbers"));
    str_release(&tensor);
}

static void tensors_of_training_stay_whole(void **state)
{
    (void)state;
    Str graph, training, model;
    str_init(&graph), str_init(&training), str_init(&model);
    wire_tensor(&graph, GRAPH_INITIALIZER, "w", 2, NULL);
    wire_message(&training, 1, &graph);
    wire_message(&model, MODEL_TRAINING, &training);
    WireScan scan;
    Error err;
    assert_ok(scan_as(&model, &onnx__model_proto__descriptor, &scan, &err), &err);
    assert_int_equal(scan.slice_count, 0);
    wire_release(&scan);
    str_clear(&model);
    Str tensor;
    str_init(&tensor);
    wire_int(&tensor, TENSOR_LOCATION, 1);
    wire_message(&graph, GRAPH_INITIALIZER, &tensor);
    wire_message(&training, 1, &graph);
    wire_message(&model, MODEL_TRAINING, &training);
    refused(&model, "is external"); /* whoever reads the copy would look for its side file */
    str_release(&tensor);
    str_release(&graph), str_release(&training), str_release(&model);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void messages_say_where_they_are(void **state)
{
    (void)state;
    Str node, graph, model;
    str_init(&node), str_init(&graph), str_init(&model);
    wire_node(&graph, "Relu", "x", "y");
    wire_text(&node, NODE_OP, "Relu");
    wire_text(&node, NODE_OP, "Relu");
    wire_message(&graph, GRAPH_NODE, &node);
    wire_model(&model, &graph);
    refused(&model, "in graph.node[1]");
    str_release(&node), str_release(&graph), str_release(&model);
}

static void written_messages_are_what_protobuf_packs(void **state)
{
    (void)state;
    Str graph, model, again;
    str_init(&graph), str_init(&model), str_init(&again);
    wire_node(&graph, "Relu", "x", "y");
    wire_tensor(&graph, GRAPH_INITIALIZER, "w", 4, NULL);
    wire_info(&graph, GRAPH_INPUT, "x", 4);
    wire_pair(&graph, 16, "key", "value");
    wire_int(&graph, 1000, 7); /* unknown */
    wire_model(&model, &graph);
    Onnx__ModelProto *proto = onnx__model_proto__unpack(NULL, model.length, (const uint8_t *)model.text);
    assert_non_null(proto);
    wire_keep_message(&again, 0, &proto->base);
    assert_int_equal(again.length, protobuf_c_message_get_packed_size(&proto->base));
    Onnx__ModelProto *back = onnx__model_proto__unpack(NULL, again.length, (const uint8_t *)again.text);
    assert_non_null(back);
    uint8_t a[2000], b[2000];
    size_t n = protobuf_c_message_pack(&proto->base, a);
    assert_int_equal(protobuf_c_message_pack(&back->base, b), n);
    assert_memory_equal(a, b, n);
    onnx__model_proto__free_unpacked(proto, NULL);
    onnx__model_proto__free_unpacked(back, NULL);
    str_release(&graph), str_release(&model), str_release(&again);
}

static void unknown_fields_survive_being_kept_and_hung_on(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    Str fields, out;
    str_init(&fields), str_init(&out);
    wire_int(&fields, 1000, -1);
    wire_text(&fields, 1001, "future");
    wire_float(&fields, 1002, 0.5f);
    Onnx__NodeProto *node = onnx__node_proto__unpack(NULL, fields.length, (const uint8_t *)fields.text);
    assert_non_null(node);
    Bytes kept = wire_unknown(&arena, &node->base);
    assert_int_equal(kept.length, fields.length);
    assert_memory_equal(kept.data, fields.text, kept.length);
    Onnx__NodeProto fresh = ONNX__NODE_PROTO__INIT;
    assert_true(wire_hang(&arena, &fresh.base, kept));
    wire_keep_message(&out, 0, &fresh.base);
    assert_int_equal(out.length, fields.length);
    assert_memory_equal(out.text, fields.text, out.length);
    assert_false(wire_hang(&arena, &fresh.base, (Bytes){"\x0a\x7f", 2}));
    onnx__node_proto__free_unpacked(node, NULL);
    str_release(&fields), str_release(&out);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stay_where_they_are),
        cmocka_unit_test(floats_in_one_piece_are_cut_out_and_in_two_are_not),
        cmocka_unit_test(runs_of_single_numbers_become_one),
        cmocka_unit_test(deep_nesting_is_refused_in_no_time),
        cmocka_unit_test(deep_types_are_refused),
        cmocka_unit_test(a_million_empty_nodes_are_refused_before_they_cost_memory),
        cmocka_unit_test(too_many_nodes_are_refused),
        cmocka_unit_test(too_many_messages_are_refused),
        cmocka_unit_test(repeated_graphs_are_refused),
        cmocka_unit_test(repeated_singular_fields_and_rival_members_are_refused),
        cmocka_unit_test(texts_with_a_nul_are_refused_and_bytes_are_not),
        cmocka_unit_test(lengths_beyond_the_end_are_refused),
        cmocka_unit_test(malformed_fields_are_refused),
        cmocka_unit_test(packed_numbers_must_be_whole),
        cmocka_unit_test(numbers_in_two_fields_are_refused),
        cmocka_unit_test(tensors_of_training_stay_whole),
        cmocka_unit_test(messages_say_where_they_are),
        cmocka_unit_test(written_messages_are_what_protobuf_packs),
        cmocka_unit_test(unknown_fields_survive_being_kept_and_hung_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
