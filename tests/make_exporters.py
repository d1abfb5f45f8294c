#!/usr/bin/env python3
"""Small nets as other exporters write them, for test_exporters.c and sequences.sh: tests/exporters/<name>.onnx and data to train them on.

    python make_exporters.py OUT [name ...]      needs onnx, onnxruntime; sklearn: scikit-learn, skl2onnx; keras, tf:
                                                 tensorflow, tf2onnx; paddle: paddlepaddle 3.1, paddle2onnx 2.1

sklearn, keras, tf and paddle are what the exporter itself writes. matlab and ir3 are LOOK-ALIKES, built here with onnx.helper after what MATLAB's exporter (opset 8,
names with layer and parameter, one input called after its layer) and PyTorch 0.4 (IR version 3: initializers are inputs too) wrote, because these exporters
cannot be had. Each <name>.npz has the model's input x, targets y and the outputs that ONNX Runtime gives before training as `expected`.
"""
import os
import pathlib
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)


def keep(folder, name, model, x, y):
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / (name + ".onnx"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = session.get_inputs()
    outputs = session.run(None, {given[0].name: x})
    scores = next(o for o in reversed(outputs) if isinstance(o, np.ndarray) and o.dtype == np.float32)
    np.savez_compressed(folder / (name + ".npz"), **{given[0].name: x}, y=y, expected=scores)
    print(name, os.path.getsize(folder / (name + ".onnx")), [i.name for i in given], [o.name for o in session.get_outputs()], scores.shape,
          sorted({n.op_type for n in model.graph.node}), flush=True)


def points(count=90):
    x = random.normal(size=(count, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)


def pictures(count=60, last=True):
    y = np.arange(count) % 3
    x = random.normal(0, 0.4, (count, 12, 12, 1)).astype(np.float32)
    for i in range(count):
        x[i, 4 * y[i]:4 * y[i] + 4] += 1
    return (x if last else x.transpose(0, 3, 1, 2)), y


def sklearn(folder):
    from sklearn.neural_network import MLPClassifier
    from skl2onnx import to_onnx
    x, y = points()
    net = MLPClassifier((16, 12), activation="tanh", max_iter=15, random_state=0).fit(x, y)
    keep(folder, "sklearn", to_onnx(net, x[:1], options={"zipmap": False}, target_opset=17), x, y)


def keras(folder):
    import keras
    x, y = pictures()
    net = keras.Sequential([keras.layers.Input((12, 12, 1)), keras.layers.Conv2D(8, 3, padding="same", use_bias=False), keras.layers.BatchNormalization(),
                            keras.layers.ReLU(), keras.layers.DepthwiseConv2D(3, padding="same"), keras.layers.Activation("swish"),
                            keras.layers.MaxPooling2D(2), keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.2),
                            keras.layers.Dense(3, activation="softmax")])
    net(x[:2])
    net.export(str(folder / "keras.onnx"), format="onnx", verbose=False)
    keep(folder, "keras", onnx.load(folder / "keras.onnx"), x, y)


def tf(folder):
    import tensorflow as tensorflow
    import tf2onnx
    net = tensorflow.keras.Sequential([tensorflow.keras.layers.Input((8,), dtype="int32"), tensorflow.keras.layers.Embedding(40, 12),
                                       tensorflow.keras.layers.LSTM(10), tensorflow.keras.layers.Dense(3)])
    run = tensorflow.function(lambda t: net(t), input_signature=[tensorflow.TensorSpec((None, 8), tensorflow.int32, name="tokens")])
    model, _ = tf2onnx.convert.from_function(run, input_signature=run.input_signature, opset=15)
    x = random.integers(0, 40, (60, 8)).astype(np.int32)
    keep(folder, "tf", model, x, (x[:, 0] % 3).astype(np.int64))


def paddle(folder):
    """Weights in Constant nodes, as the exporter writes them when no other tool folds the file afterwards."""
    import paddle
    import paddle2onnx
    paddle.seed(0)
    x, y = pictures(last=False)
    nn = paddle.nn
    net = nn.Sequential(nn.Conv2D(1, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8), nn.Hardswish(), nn.MaxPool2D(2),
                        nn.Conv2D(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3), nn.Softmax())
    net(paddle.to_tensor(x))  # moves the running statistics
    net.eval()
    with tempfile.TemporaryDirectory() as saved:
        paddle.jit.save(net, saved + "/net", input_spec=[paddle.static.InputSpec([None, 1, 12, 12], "float32", name="image")])
        paddle2onnx.export(saved + "/net.json", saved + "/net.pdiparams", str(folder / "paddle.onnx"), opset_version=13, optimize_tool="None")
    keep(folder, "paddle", onnx.load(folder / "paddle.onnx"), x, y)


def weight(name, *shape):
    return numpy_helper.from_array((random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32), name)


def values(name, numbers):
    return numpy_helper.from_array(np.asarray(numbers, np.float32), name)


def old(folder, name, ir, opset, nodes, weights, input_name, output_name, classes, producer):
    graph = helper.make_graph(nodes, producer + "_net", [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["N" if ir > 3 else 1, 1, 12, 12])] +
                              [helper.make_tensor_value_info(w.name, TensorProto.FLOAT, w.dims) for w in weights],
                              [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["N" if ir > 3 else 1, classes])], weights)
    model = helper.make_model(graph, ir_version=ir, producer_name=producer, opset_imports=[helper.make_opsetid("", opset)])
    return model


def matlab(folder):
    """Zero-centred input with its mean as a weight, BatchNormalization of opset 8 with a layer's names, Dropout left in, Softmax last."""
    w = [weight("conv_1_W", 8, 1, 3, 3), weight("conv_1_B", 8), values("batchnorm_1_scale", [1] * 8), values("batchnorm_1_B", [0] * 8),
         values("batchnorm_1_mean", random.normal(0, 0.1, 8)), values("batchnorm_1_var", random.uniform(0.5, 1.5, 8)), weight("fc_W", 3, 8, 6, 6), weight("fc_B", 3),
         values("imageinput_Mean", random.normal(0, 0.1, (1, 12, 12)))]
    nodes = [helper.make_node("Sub", ["imageinput", "imageinput_Mean"], ["imageinput_Sub"], "imageinput_Sub"),
             helper.make_node("Conv", ["imageinput_Sub", "conv_1_W", "conv_1_B"], ["conv_1"], "conv_1", dilations=[1, 1], group=1, kernel_shape=[3, 3],
                              pads=[1, 1, 1, 1], strides=[1, 1]),
             helper.make_node("BatchNormalization", ["conv_1", "batchnorm_1_scale", "batchnorm_1_B", "batchnorm_1_mean", "batchnorm_1_var"], ["batchnorm_1"],
                              "batchnorm_1", epsilon=1e-5),
             helper.make_node("Relu", ["batchnorm_1"], ["relu_1"], "relu_1"),
             helper.make_node("MaxPool", ["relu_1"], ["maxpool_1"], "maxpool_1", kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[2, 2]),
             helper.make_node("Dropout", ["maxpool_1"], ["dropout"], "dropout", ratio=0.5),
             helper.make_node("Conv", ["dropout", "fc_W", "fc_B"], ["fc"], "fc", dilations=[1, 1], group=1, kernel_shape=[6, 6], pads=[0, 0, 0, 0], strides=[1, 1]),
             helper.make_node("Softmax", ["fc"], ["softmax"], "softmax", axis=1), helper.make_node("Flatten", ["softmax"], ["softmax_Flatten"], "softmax_Flatten", axis=1)]
    x, y = pictures(last=False)
    keep(folder, "matlab", old(folder, "matlab", 4, 8, nodes, w, "imageinput", "softmax_Flatten", 3, "MATLAB look-alike"), x, y)


def ir3(folder):
    """Numbers for names, batch 1 in the input's type, opset 7."""
    w = [weight("1", 8, 1, 3, 3), weight("2", 8), weight("3", 10, 288), weight("4", 10), weight("5", 3, 10), weight("6", 3)]
    nodes = [helper.make_node("Conv", ["0", "1", "2"], ["7"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1),
             helper.make_node("Relu", ["7"], ["8"]), helper.make_node("AveragePool", ["8"], ["9"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
             helper.make_node("Flatten", ["9"], ["11"], axis=1),
             helper.make_node("Gemm", ["11", "3", "4"], ["12"], alpha=1.0, beta=1.0, transB=1), helper.make_node("Relu", ["12"], ["13"]),
             helper.make_node("Gemm", ["13", "5", "6"], ["14"], alpha=1.0, beta=1.0, transB=1)]
    x, y = pictures(last=False)
    model = old(folder, "ir3", 3, 7, nodes, w, "0", "14", 3, "pytorch look-alike")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "ir3.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = np.concatenate([session.run(None, {"0": x[i:i + 1]})[0] for i in range(len(x))])
    np.savez_compressed(folder / "ir3.npz", **{"0": x}, y=y, expected=expected)
    print("ir3", os.path.getsize(folder / "ir3.onnx"), flush=True)


NETS = {"sklearn": sklearn, "keras": keras, "tf": tf, "paddle": paddle, "matlab": matlab, "ir3": ir3}

if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NETS:
        NETS[name](out)
