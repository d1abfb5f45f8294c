#!/usr/bin/env python3
"""The ONNX Runtime side of bench/run's steps, on the very model.onnx that Regraft reads; the protocol is bench_step.c's.

    python ort_worker.py FOLDER forward          inference, the newest onnxruntime
    python ort_worker.py FOLDER sgd|adamw LR     training, onnxruntime-training 1.19 (artifacts of onnxblock; its SGD has no momentum)
"""
import os, resource, sys, time
import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def read_batch(folder):
    arrays = {}
    with open(os.path.join(folder, "shapes.txt")) as f:
        for line in f:
            key, dtype, *dims = line.split()
            arrays[key] = np.fromfile(os.path.join(folder, key + ".bin"), dtype).reshape([int(d) for d in dims])
    target = arrays.pop("target")
    return list(arrays.values()), target


def inference(folder, inputs):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
    feed = {i.name: a for i, a in zip(session.get_inputs(), inputs)}
    return lambda: np.abs(session.run(None, feed)[0]).mean()


def make_artifacts(folder, optimizer, out):
    """Everything in floating point that is no running statistic is trained."""
    import onnx
    from onnxruntime.training import artifacts
    model = onnx.load(os.path.join(folder, "model.onnx"))
    statistics = {name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    trained = [t.name for t in model.graph.initializer
               if t.data_type == onnx.TensorProto.FLOAT and t.name not in statistics and len(t.dims) > 0]
    kind = artifacts.OptimType.AdamW if optimizer == "adamw" else artifacts.OptimType.SGD
    artifacts.generate_artifacts(model, requires_grad=trained, loss=artifacts.LossType.CrossEntropyLoss, optimizer=kind,
                                 artifact_directory=out, ort_format=False)


def training(folder, inputs, target, optimizer, lr):
    from onnxruntime.training.api import CheckpointState, Module, Optimizer
    import onnxruntime
    out = os.path.join(folder, "ort-" + optimizer)
    done = os.path.join(out, ".done")
    if not os.path.exists(done):
        os.makedirs(out, exist_ok=True)
        make_artifacts(folder, optimizer, out)
        open(done, "w").close()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    state = CheckpointState.load_checkpoint(os.path.join(out, "checkpoint"))
    model = Module(os.path.join(out, "training_model.onnx"), state, None, "cpu", options)
    opt = Optimizer(os.path.join(out, "optimizer_model.onnx"), model)
    opt.set_learning_rate(lr)
    model.train()

    def step():
        loss = model(*inputs, target)
        opt.step()
        model.lazy_reset_grad()
        return float(loss)
    return step


def main(folder, kind, lr="0"):
    begin = time.perf_counter()
    inputs, target = read_batch(folder)
    step = inference(folder, inputs) if kind == "forward" else training(folder, inputs, target, kind, float(lr))
    print("ready %.1f ms" % ((time.perf_counter() - begin) * 1e3), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "step":
            times = []
            for _ in range(int(words[1])):
                begin = time.perf_counter()
                loss = step()
                times.append((time.perf_counter() - begin) * 1e3)
            print(" ".join("%.3f" % t for t in times), "loss %.7g" % loss, flush=True)
        elif words[0] == "memory":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(usage.ru_maxrss, usage.ru_minflt, flush=True)
        else:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
