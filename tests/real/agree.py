#!/usr/bin/env python3
"""Does ONNX Runtime load a model, and say what regraft said?  Prints the largest difference relative to the largest output.

    python agree.py MODEL INPUTS.npz OUTPUTS.npz        OUTPUTS: what `regraft run` wrote
    python agree.py --make MODEL INPUTS.npz BATCH       random float inputs of the model's shapes
"""
import sys
import numpy as np
import onnx
import onnxruntime


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


if sys.argv[1] == "--make":
    random = np.random.default_rng(0)
    np.savez(sys.argv[3], **{i.name: random.normal(size=[int(sys.argv[4]) if k == 0 else d for k, d in enumerate(i.shape)]).astype(np.float32)
                             for i in session(sys.argv[2]).get_inputs()})
else:
    onnx.checker.check_model(sys.argv[1], full_check=True)
    run, given, ours = session(sys.argv[1]), np.load(sys.argv[2]), np.load(sys.argv[3])
    theirs = run.run(None, {i.name: given[i.name] for i in run.get_inputs()})
    print("%.1e" % max(np.abs(a - ours[o.name]).max() / max(np.abs(a).max(), 1e-6) for a, o in zip(theirs, run.get_outputs())))
