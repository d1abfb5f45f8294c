#!/usr/bin/env python3
"""Exported models against other programs: agreement.py REGRAFT [MODEL...]

Without models, four are made from examples/fashion6.onnx: a tuned one, a probe, several classes fewer, a cut trunk. Each must pass
onnx.checker with full check, and ONNX Runtime and OpenCV's dnn must give the outputs of `regraft run` to 1e-4 of the largest.
Ends with 77 (skipped) where onnxruntime is not installed; onnx and OpenCV are left out where they are missing, and that is said.
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy
    import onnxruntime
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        print(f"without {name}: not installed")
        return None


onnx, cv2 = optional("onnx"), optional("cv2")
TOLERANCE = 1e-4  # of the largest output, and of 1


def make_models(regraft, folder):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    model, data = os.path.join(root, "examples/fashion6.onnx"), os.path.join(root, "tests/data/fashion_small.npz")
    tune = [regraft, "tune", model, "--data", data, "--preset", "0..1", "-q", "--seed", "1", "-o"]
    commands = {
        "tuned": tune + ["OUT", "--epochs", "2"],
        "probe": tune + ["OUT", "--train", "head"],
        "hidden": tune + ["OUT", "--hidden", "16", "--epochs", "1"],
        "trunk": [regraft, "cut", model, "-q", "-o", "OUT"],
    }
    made = []
    for name, command in commands.items():
        path = os.path.join(folder, name + ".onnx")
        subprocess.run([path if word == "OUT" else word for word in command], check=True, stdout=subprocess.DEVNULL)
        made.append(path)
    return made


def example(session):
    generator = numpy.random.default_rng(0)
    arrays = {}
    for wanted in session.get_inputs():
        shape = [dim if isinstance(dim, int) else 2 for dim in wanted.shape]
        whole = "int" in wanted.type
        arrays[wanted.name] = (
            generator.integers(0, 2, shape).astype(numpy.int64 if "64" in wanted.type else numpy.int32)
            if whole else generator.standard_normal(shape).astype(numpy.float32))
    return arrays


def differ(a, b):
    return float(numpy.abs(a - b).max()) / max(1.0, float(numpy.abs(b).max()))


def compare(regraft, path, folder):
    """Names what disagrees."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays, given, found = example(session), os.path.join(folder, "in.npz"), os.path.join(folder, "out.npz")
    numpy.savez(given, **arrays)
    subprocess.run([regraft, "run", path, "--input", given, "--output", found], check=True)
    ours = numpy.load(found)
    names = [output.name for output in session.get_outputs()]
    worst = max(differ(ours[name], array) for name, array in zip(names, session.run(None, arrays)))
    wrong = [] if worst <= TOLERANCE else ["onnxruntime"]
    line = f"{os.path.basename(path)}: onnxruntime {worst:.1e}"
    if onnx is not None:
        onnx.checker.check_model(path, full_check=True)
        line += ", checker ok"
    if cv2 is not None and len(arrays) == 1 and len(names) == 1:
        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(next(iter(arrays.values()))[:1])
        opencv = differ(net.forward().reshape(ours[names[0]][:1].shape), ours[names[0]][:1])
        line += f", OpenCV {opencv:.1e}"
        wrong += [] if opencv <= TOLERANCE else ["OpenCV"]
    print(line + (f"  FAIL: {', '.join(wrong)}" if wrong else ""))
    return not wrong


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    regraft = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        models = sys.argv[2:] or make_models(regraft, folder)
        results = [compare(regraft, model, folder) for model in models]
    sys.exit(0 if all(results) else 1)


main()
