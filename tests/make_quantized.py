#!/usr/bin/env python3
"""Small nets as onnxruntime's quantizer and graph optimizer write them, for test_quantized: tests/quantized/<name>.onnx and <name>.npz.

    python make_quantized.py OUT [name ...]      needs onnx, onnxruntime

qdq_* are statically quantised with QuantizeLinear/DequantizeLinear pairs, qoperator_* with integer operators, dynamic with ConvInteger and MatMulInteger;
conv_extended and attention_extended are what the optimizer of level "extended" writes of the float nets (com.microsoft operators). Each <name>.npz has the
inputs and `expected`, the first output that ONNX Runtime gives without optimizing the file further.
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

random = np.random.default_rng(0)


class Net:
    """Nodes and weights, added in order."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, *shape, scale=None, at=0.0):
        name = f"w{len(self.weights)}"
        scale = 1 / np.sqrt(np.prod(shape[1:])) if scale is None else scale
        self.weights.append(numpy_helper.from_array((random.normal(size=shape) * scale + at).astype(np.float32), name))
        return name

    def constant(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op, *inputs, **attributes):
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def conv(self, x, cin, cout, kernel=3, group=1, stride=1):
        pad = kernel // 2
        return self.add("Conv", x, self.weight(cout, cin // group, kernel, kernel), self.weight(cout, scale=0.1), kernel_shape=[kernel] * 2,
                        pads=[pad] * 4, group=group, strides=[stride] * 2)

    def model(self, inputs, output, shape):
        self.nodes[-1].output[0] = output
        graph = helper.make_graph(self.nodes, "net", [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
                                  [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def pictures(count=4):
    return {"x": random.normal(size=(count, 3, 12, 12)).astype(np.float32)}


def conv_net():
    """Stem, a residual block, an inverted one with a gate, pooled features and a classifier."""
    net = Net()
    x = net.add("Relu", net.conv("x", 3, 16))
    y = net.add("Relu", net.conv(x, 16, 16))
    x = net.add("Relu", net.add("Add", net.conv(y, 16, 16), x))
    y = net.add("Clip", net.conv(x, 16, 16, group=16, stride=2), net.constant(np.float32(0)), net.constant(np.float32(6)))
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", y), 16, 16, kernel=1))
    x = net.add("LeakyRelu", net.conv(net.add("Mul", y, gate), 16, 24, kernel=1), alpha=0.1)
    x = net.add("Concat", x, net.add("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.add("Gemm", x, net.weight(5, 40), net.weight(5, scale=0.1), transB=1)
    return net.model([("x", TensorProto.FLOAT, ["N", 3, 12, 12])], "y", ["N", 5])


WIDTH, HEADS, TOKENS, LAYERS = 16, 2, 6, 2


def norm(net, x, scale, bias):
    """LayerNormalization as exporters of old opsets wrote it."""
    centred = net.add("Sub", x, net.add("ReduceMean", x, axes=[-1]))
    variance = net.add("ReduceMean", net.add("Pow", centred, net.constant(np.float32(2))), axes=[-1])
    root = net.add("Sqrt", net.add("Add", variance, net.constant(np.float32(1e-5))))
    return net.add("Add", net.add("Mul", net.add("Div", centred, root), scale), bias)


def heads(net, x, order):
    shape = net.constant(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    return net.add("Transpose", net.add("Reshape", x, shape), perm=order)


def linear(net, x, wide, narrow):
    return net.add("Add", net.weight(narrow, scale=0.1), net.add("MatMul", x, net.weight(wide, narrow, scale=wide ** -0.5)))


def layer(net, x):
    q = heads(net, linear(net, x, WIDTH, WIDTH), [0, 2, 1, 3])
    k = heads(net, linear(net, x, WIDTH, WIDTH), [0, 2, 3, 1])
    v = heads(net, linear(net, x, WIDTH, WIDTH), [0, 2, 1, 3])
    scores = net.add("Div", net.add("MatMul", q, k), net.constant(np.float32(np.sqrt(WIDTH // HEADS))))
    y = net.add("Transpose", net.add("MatMul", net.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    y = linear(net, net.add("Reshape", y, net.constant(np.array([0, 0, WIDTH], np.int64))), WIDTH, WIDTH)
    x = norm(net, net.add("Add", y, x), net.weight(WIDTH, scale=0.1, at=1), net.weight(WIDTH, scale=0.1))
    y = linear(net, x, WIDTH, 4 * WIDTH)
    error = net.add("Erf", net.add("Div", y, net.constant(np.float32(np.sqrt(2)))))
    y = net.add("Mul", net.add("Mul", y, net.add("Add", error, net.constant(np.float32(1)))), net.constant(np.float32(0.5)))
    y = linear(net, y, 4 * WIDTH, WIDTH)
    return norm(net, net.add("Add", y, x), net.weight(WIDTH, scale=0.1, at=1), net.weight(WIDTH, scale=0.1))


def attention_net():
    net = Net()
    x = net.add("Gather", net.weight(20, WIDTH, scale=1), "tokens")
    x = net.add("Add", x, net.weight(TOKENS, WIDTH, scale=1))
    for _ in range(LAYERS):
        x = layer(net, x)
    net.add("Gemm", net.add("ReduceMean", x, axes=[1], keepdims=0), net.weight(3, WIDTH), net.weight(3, scale=0.1), transB=1)
    return net.model([("tokens", TensorProto.INT64, ["N", TOKENS])], "y", ["N", 3])


def rest():
    """Operators that the nets above have none of, each on the same quantised picture; read by nobody but who asks for their quanta."""
    net, parts = Net(), []
    scale, zero, narrow = net.constant(np.float32(0.0213)), net.constant(np.uint8(120)), net.constant(np.float32(0.0137))
    x = net.add("QuantizeLinear", "x", scale, zero)
    last = net.add("Transpose", x, perm=[0, 2, 3, 1])

    def part(op, *inputs, **attributes):
        parts.append(net.add(op, *inputs, domain="com.microsoft", **attributes))

    window = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])
    part("QLinearAveragePool", x, scale, zero, narrow, zero, **window)
    part("QLinearAveragePool", x, scale, zero, narrow, zero, count_include_pad=1, **window)
    part("QLinearAveragePool", last, scale, zero, narrow, zero, channels_last=1, **window)
    part("QLinearGlobalAveragePool", last, scale, zero, narrow, zero, channels_last=1)
    part("QLinearSoftmax", x, scale, zero, net.constant(np.float32(1 / 256)), net.constant(np.uint8(0)), axis=3, opset=13)
    part("QLinearSoftmax", x, scale, zero, net.constant(np.float32(1 / 256)), net.constant(np.uint8(0)), axis=2, opset=11)
    part("QLinearWhere", net.constant(random.random((12, 12)) < 0.5), x, scale, zero, parts[4], narrow, zero, scale, net.constant(np.uint8(100)))
    part("QLinearLeakyRelu", x, scale, "", narrow, "", alpha=0.2)
    part("QLinearAdd", x, scale, zero, net.constant(random.integers(0, 256, (3, 1, 12)).astype(np.uint8)), narrow, zero, scale, zero)
    flat = net.add("Reshape", x, net.constant(np.array([0, -1], np.int64)))
    weight, columns = net.constant(random.integers(-127, 128, (432, 6)).astype(np.int8)), random.random(6).astype(np.float32) / 100
    zeros, bias = net.constant(np.zeros(6, np.int8)), net.constant(random.integers(-9000, 9000, 6).astype(np.int32))
    part("QGemm", flat, scale, zero, weight, net.constant(columns), zeros, bias, net.constant(np.float32(0.5)), zero, alpha=0.5)
    net.add("QGemm", flat, scale, zero, weight, net.constant(columns), zeros, domain="com.microsoft")
    return net.model([("x", TensorProto.FLOAT, ["N", 3, 12, 12])], "y", ["N", 6])


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter([feeds])

    def get_next(self):
        return next(self.feeds, None)


def session(path, level="DISABLE_ALL", save=None):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, "ORT_" + level)
    options.intra_op_num_threads = 1
    if save:
        options.optimized_model_filepath = str(save)
    return onnxruntime.InferenceSession(path if isinstance(path, bytes) else str(path), options, providers=["CPUExecutionProvider"])


# Which input of an operator is the zero point of its output.
ZERO = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QLinearAdd": 7, "QLinearMul": 7, "QLinearConcat": 1, "QLinearWhere": 8, "QGemm": 8}


def keep(folder, name, feeds):
    path = folder / (name + ".onnx")
    model = onnx.load(path)
    model.producer_name, model.producer_version = "onnxruntime", ""
    onnx.save(model, path)
    expected = session(path).run(None, feeds)[0]
    last, kinds = {o.name for o in model.graph.output}, {i.name: i.data_type for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type.startswith("Q") and len(n.input) > ZERO.get(n.op_type, 4) and n.output[0] not in last]
    quanta = [n.output[0] for n in nodes]
    model.graph.output.extend(helper.make_tensor_value_info(n.output[0], kinds.get(n.input[ZERO.get(n.op_type, 4)], TensorProto.UINT8), None) for n in nodes)
    inner = session(model.SerializeToString()).run(quanta, feeds) if quanta else []
    np.savez_compressed(folder / (name + ".npz"), **feeds, expected=expected, **dict(zip(quanta, inner)))
    print(name, path.stat().st_size, expected.shape, sorted({n.domain + "." * bool(n.domain) + n.op_type for n in model.graph.node}), flush=True)


def static(folder, name, model, calibration, feeds, **options):
    source = folder / "float.onnx"
    onnx.save(model, source)
    quantize_static(source, folder / (name + ".onnx"), Reader(calibration), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, **options)
    source.unlink()
    keep(folder, name, feeds)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    conv, attention = conv_net(), attention_net()
    feeds, tokens = pictures(), {"tokens": random.integers(0, 20, (4, TOKENS))}
    calibration, texts = pictures(32), {"tokens": random.integers(0, 20, (32, TOKENS))}
    static(folder, "qdq_tensor", conv, calibration, feeds, quant_format=QuantFormat.QDQ)
    static(folder, "qdq_channel", conv, calibration, feeds, quant_format=QuantFormat.QDQ, per_channel=True)
    static(folder, "qdq_attention", attention, texts, tokens, quant_format=QuantFormat.QDQ, per_channel=True)
    static(folder, "qoperator", conv, calibration, feeds, quant_format=QuantFormat.QOperator)
    static(folder, "qoperator_channel", conv, calibration, feeds, quant_format=QuantFormat.QOperator, per_channel=True)
    static(folder, "qoperator_attention", attention, texts, tokens, quant_format=QuantFormat.QOperator, per_channel=True)
    onnx.save(rest(), folder / "qoperator_rest.onnx")
    keep(folder, "qoperator_rest", feeds)
    for name, model, inputs in ("conv", conv, feeds), ("attention", attention, tokens):
        onnx.save(model, folder / "float.onnx")
        session(folder / "float.onnx", "ENABLE_EXTENDED", folder / (name + "_extended.onnx"))
        keep(folder, name + "_extended", inputs)
        quantize_dynamic(folder / "float.onnx", folder / ("dynamic_" + name + ".onnx"), weight_type=QuantType.QUInt8)
        keep(folder, "dynamic_" + name, inputs)
        (folder / "float.onnx").unlink()


if __name__ == "__main__":
    main()
