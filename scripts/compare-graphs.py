#!/usr/bin/env python3
"""Random graphs against ONNX Runtime: forward results of `regraft run`, planned and interpreted.

    python scripts/compare-graphs.py BUILD [SEED [COUNT]]

BUILD is a build folder with tests (suite_graphs writes the graphs). Needs onnxruntime and numpy; a developer's check, not CI's.
Prints what differs by more than 2e-4 of the largest value, and exits with 1 then."""
import os, subprocess, sys, tempfile
import numpy as np
import onnxruntime as ort

TOLERANCE = 2e-4


def reference(path, rng):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {i.name: rng.uniform(-1, 1, i.shape).astype(np.float32) for i in session.get_inputs()}
    return inputs, dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))


def differences(expected, found):
    if set(expected) != set(found):
        yield f"outputs {sorted(found)}, expected {sorted(expected)}"
    for name in sorted(set(expected) & set(found)):
        a, b = expected[name], found[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{name} is {b.dtype}{b.shape}, expected {a.dtype}{a.shape}"
        elif not np.array_equal(np.isfinite(a), np.isfinite(b)):
            yield f"{name}: other values are finite"
        elif a.size and np.abs(a - b).max() > TOLERANCE * max(0.1, np.abs(a).max()):
            yield f"{name} differs by {np.abs(a - b).max():.3g} of {np.abs(a).max():.3g}"


def main(build, seed="1", count="500"):
    rng, bad, refused = np.random.default_rng(int(seed)), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{build}/tests/suite_graphs", "--write", folder, seed, count], check=True)
        for number in range(int(count)):
            path = f"{folder}/graph_{number}.onnx"
            try:
                inputs, expected = reference(path, rng)
            except Exception as error:  # what ONNX Runtime does not run is no judge
                refused += 1
                print(f"graph {number}: not run by ONNX Runtime: {str(error)[:200]}")
                continue
            np.savez(f"{folder}/in.npz", **inputs)
            for engine in "plan", "interpreter":
                command = [f"{build}/regraft", "run", path, "-i", f"{folder}/in.npz", "-o", f"{folder}/out.npz", "--engine", engine]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    bad += 1
                    print(f"graph {number}, {engine}: {done.stderr.strip()[:300]}")
                    continue
                for difference in differences(expected, dict(np.load(f"{folder}/out.npz"))):
                    bad += 1
                    print(f"graph {number}, {engine}: {difference}")
                os.remove(f"{folder}/out.npz")
    print(f"seed {seed}: {count} graphs, {bad} differences, {refused} not run by ONNX Runtime {ort.__version__}")
    return bad > 0


sys.exit(main(*sys.argv[1:]))
