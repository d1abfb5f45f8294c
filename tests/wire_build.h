/* Wire format by hand, for tests of what reads it: hostile messages that no library would write. */
#ifndef REGRAFT_TESTS_WIRE_BUILD_H
#define REGRAFT_TESTS_WIRE_BUILD_H

#include "onnx/base/str.h"

#include <stdint.h>
#include <string.h>

static inline void wire_varint(Str *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        char byte = (char)(value | 0x80);
        str_append_bytes(out, &byte, 1);
    }
    char last = (char)value;
    str_append_bytes(out, &last, 1);
}

static inline void wire_tag(Str *out, unsigned field, unsigned type)
{
    wire_varint(out, (uint64_t)field << 3 | type);
}

static inline void wire_int(Str *out, unsigned field, int64_t value)
{
    wire_tag(out, field, 0);
    wire_varint(out, (uint64_t)value);
}

static inline void wire_float(Str *out, unsigned field, float value)
{
    wire_tag(out, field, 5);
    str_append_bytes(out, (const char *)&value, sizeof value);
}

static inline void wire_bytes(Str *out, unsigned field, const void *bytes, size_t length)
{
    wire_tag(out, field, 2);
    wire_varint(out, length);
    str_append_bytes(out, bytes, length);
}

static inline void wire_text(Str *out, unsigned field, const char *text)
{
    wire_bytes(out, field, text, strlen(text));
}

/* Puts `inner` into `out` and empties it for reuse. */
static inline void wire_message(Str *out, unsigned field, Str *inner)
{
    wire_bytes(out, field, inner->text, inner->length);
    str_clear(inner);
}

/* Key and value, as in metadata_props. */
static inline void wire_pair(Str *out, unsigned field, const char *key, const char *value)
{
    Str pair;
    str_init(&pair);
    wire_text(&pair, 1, key);
    wire_text(&pair, 2, value);
    wire_message(out, field, &pair);
    str_release(&pair);
}

/* ---- pieces of models: numbers are fields of onnx/proto/onnx.proto ------------------------------------------- */

enum {
    MODEL_IR_VERSION = 1,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    MODEL_METADATA = 14,
    MODEL_TRAINING = 20,
    MODEL_FUNCTION = 25,
    GRAPH_NODE = 1,
    GRAPH_NAME = 2,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    GRAPH_OUTPUT = 12,
    GRAPH_INFO = 13,
    GRAPH_SPARSE = 15,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_OP = 4,
    NODE_ATTRIBUTE = 5,
    NODE_DOMAIN = 7,
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_NAME = 8,
    TENSOR_RAW = 9,
    TENSOR_EXTERNAL = 13,
    TENSOR_LOCATION = 14
};

/* A node with one input and one output; "" for none. */
static inline void wire_node(Str *graph, const char *op, const char *input, const char *output)
{
    Str node;
    str_init(&node);
    if (input[0] != '\0')
        wire_text(&node, NODE_INPUT, input);
    if (output[0] != '\0')
        wire_text(&node, NODE_OUTPUT, output);
    wire_text(&node, NODE_OP, op);
    wire_message(graph, GRAPH_NODE, &node);
    str_release(&node);
}

/* A float tensor's value info of rank 1, [n]. */
static inline void wire_info(Str *graph, unsigned field, const char *name, int64_t n)
{
    Str dim, shape, tensor, type, info;
    str_init(&dim), str_init(&shape), str_init(&tensor), str_init(&type), str_init(&info);
    wire_int(&dim, 1, n);
    wire_message(&shape, 1, &dim);
    wire_int(&tensor, 1, 1);
    wire_message(&tensor, 2, &shape);
    wire_message(&type, 1, &tensor);
    wire_text(&info, 1, name);
    wire_message(&info, 2, &type);
    wire_message(graph, field, &info);
    str_release(&dim), str_release(&shape), str_release(&tensor), str_release(&type), str_release(&info);
}

/* A float tensor [n] in raw_data, into field `field`; `numbers` NULL: zeros. */
static inline void wire_tensor(Str *out, unsigned field, const char *name, int64_t n, const float *numbers)
{
    Str tensor;
    str_init(&tensor);
    static const float zeros[256];
    wire_int(&tensor, TENSOR_DIMS, n);
    wire_int(&tensor, TENSOR_TYPE, 1);
    wire_text(&tensor, TENSOR_NAME, name);
    wire_bytes(&tensor, TENSOR_RAW, numbers == NULL ? zeros : numbers, (size_t)n * sizeof(float));
    wire_message(out, field, &tensor);
    str_release(&tensor);
}

/* A model around `graph`, which is emptied: IR version 8, opset 17. */
static inline void wire_model(Str *model, Str *graph)
{
    Str opset;
    str_init(&opset);
    wire_text(&opset, 1, "");
    wire_int(&opset, 2, 17);
    wire_int(model, MODEL_IR_VERSION, 8);
    wire_message(model, MODEL_OPSET, &opset);
    wire_message(model, MODEL_GRAPH, graph);
    str_release(&opset);
}

#endif
