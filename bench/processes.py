"""Cases that are whole processes, begun anew in every round: start, import, loader, head. Turns are taken as in stepping.py."""
import json, os, statistics, subprocess

import cases
from stepping import OURS, export, our_command, torch_command
from workers import Failed, last_line, run_once


def pictures(context, count, edge=""):
    folder = os.path.join(context.nets, f"pictures-{count}")
    if not os.path.exists(os.path.join(folder, ".done")):
        context.log(f"  making {count} pictures")
        log = folder + ".log"
        with open(log, "w") as out:
            done = subprocess.run([context.python, "pictures.py", folder, str(count)], cwd=context.here, stdout=out, stderr=out)
        if done.returncode != 0:
            raise Failed(f"no pictures: {last_line(log)}")
    return os.path.join(folder, "all")


def take_turns(context, case, rounds, sides):
    """sides: {name: function -> (milliseconds, more)}; ours first. What fails is dropped with its reason."""
    times, more = {name: [] for name in sides}, {}
    sides = dict(sides)
    for round_number in range(-1, rounds):  # the first one warms the page cache and does not count
        for name in list(sides):
            try:
                took, more[name] = sides[name]()
            except Failed as why:
                if name == OURS:
                    raise Failed(f"Regraft: {why}") from None
                context.log(f"  {case.name}: {name} is not available: {why}")
                del sides[name]
                continue
            if round_number >= 0:
                times[name].append(took)
    if len(sides) < 2:
        raise Failed("no mode of PyTorch ran")
    return {name: times[name] for name in sides}, more


def row_of(case, times, meaning, **more):
    medians = {name: statistics.median(t) for name, t in times.items()}
    best = min((name for name in medians if name != OURS), key=medians.get)
    return {"case": case.name, "ratio": medians[best] / medians[OURS], "target": case.target, "ours_ms": medians[OURS], "best_ms": medians[best],
            "best_mode": best, "ours_min_ms": min(times[OURS]), "best_min_ms": min(times[best]),
            "modes_ms": {name: medians[name] for name in medians if name != OURS}, "meaning": meaning, **more}


# ---- start -----------------------------------------------------------------------------------------------------------


def measure_start(context, case, rounds, modes, runtime):
    folder = export(context, case.net)

    def one(name, command):
        took, out = run_once(context, f"{case.name}.{name}", command, "step 1\nquit\n")
        return took, float(out.split()[-1])
    sides = {OURS: lambda: one(OURS, our_command(context, case, folder))}
    for mode in modes:
        sides[mode] = lambda mode=mode: one(mode, torch_command(context, case, mode))
    times, losses = take_turns(context, case, rounds, sides)
    for name in list(times):
        if abs(losses[name] - losses[OURS]) > case.tolerance * abs(losses[OURS]):
            raise Failed(f"first losses differ: ours {losses[OURS]:.7g}, {name} {losses[name]:.7g}")
    return [row_of(case, times, "process start to the end after one training step", loss=[losses[OURS], losses[modes[0]]])]


# ---- import ----------------------------------------------------------------------------------------------------------

ONNX_LOAD = """
import resource, sys, time, onnx
begin = time.perf_counter(); model = onnx.load(sys.argv[1])
print((time.perf_counter() - begin) * 1e3, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(len(t.raw_data) for t in model.graph.initializer))
"""


def measure_import(context, case, rounds, modes, runtime):
    path = os.path.join(export(context, case.net), "model.onnx")

    def one(name, command):
        _, out = run_once(context, f"{case.name}.{name}", command)
        words = out.split()
        return float(words[0]), {"kb": int(words[1]), "bytes": int(words[2])}
    times, more = take_turns(context, case, rounds, {
        OURS: lambda: one(OURS, [os.path.join(context.build, "bench_import"), path]),
        "onnx.load": lambda: one("onnx.load", [context.python, "-c", ONNX_LOAD, path])})
    if more[OURS]["bytes"] != more["onnx.load"]["bytes"]:
        raise Failed(f"{more[OURS]['bytes']} bytes of weights here, {more['onnx.load']['bytes']} in onnx")
    size, peak = os.path.getsize(path), more[OURS]["kb"] * 1024
    memory = {"case": case.name + "_memory", "ratio": size / peak, "target": cases.IMPORT_MEMORY_TARGET, "ours_ms": None, "best_ms": None,
              "best_mode": "onnx.load", "ours_mb": peak / 2**20, "best_mb": more["onnx.load"]["kb"] / 1024,
              "meaning": "size of the file / our peak"}
    return [row_of(case, times, f"onnx.load / ours, {size / 1e6:.0f} MB, interpreter's start not counted, all weights read"), memory]


# ---- loader ----------------------------------------------------------------------------------------------------------


def measure_loader(context, case, rounds, modes, runtime):
    folder = pictures(context, cases.LOADER_PICTURES)

    def one(name, command):
        _, out = run_once(context, f"{case.name}.{name}", command)
        took, samples, mean = out.split()[-3:]
        return float(took), {"samples": int(samples), "mean": float(mean)}
    batch, workers = "16", str(cases.LOADER_WORKERS)
    times, more = take_turns(context, case, rounds, {
        OURS: lambda: one(OURS, [os.path.join(context.build, "bench_data"), folder, batch, workers]),
        "DataLoader": lambda: one("DataLoader", [context.python, "torch_files.py", "loader", folder, batch, workers])})
    ours, theirs = more[OURS], more["DataLoader"]
    if ours["samples"] != theirs["samples"] or abs(ours["mean"] - theirs["mean"]) > 1e-2:
        raise Failed(f"batches differ: {ours} here, {theirs} in PyTorch")
    row = row_of(case, times, f"one pass over {ours['samples']} JPEGs of 500x375, {workers} threads or workers")
    row.update(ours_per_second=ours["samples"] / row["ours_ms"] * 1e3, best_per_second=ours["samples"] / row["best_ms"] * 1e3)
    return [row]


# ---- head ------------------------------------------------------------------------------------------------------------


def tune_head(context, case, model, folder):
    out, run = os.path.join(context.nets, case.name + ".onnx"), os.path.join(context.nets, case.name + ".run")
    subprocess.run(["rm", "-rf", out, run])
    took, _ = run_once(context, f"{case.name}.{OURS}", [
        os.path.join(context.build, "regraft"), "tune", model, "--data", folder, "--train", "head", "--epochs", str(cases.HEAD_EPOCHS),
        "--preset", "imagenet", "--frame", "crop", "--seed", "0", "--threads", str(context.threads), "--run", run, "-o", out])
    with open(os.path.join(run, "result.json")) as f:
        result = json.load(f)
    arm = next(value for value in result.values() if isinstance(value, dict) and "val_accuracy" in value)
    return took, {"accuracy": arm["val_accuracy"], "bytes": os.path.getsize(out)}


def torch_head(context, case, mode, folder):
    out = os.path.join(context.nets, case.name + ".pt")
    took, text = run_once(context, f"{case.name}.{mode}", [context.python, "torch_files.py", "head", folder, case.net, mode,
                                                           str(cases.LOADER_WORKERS), out])
    epoch, accuracy = (float(word) for word in text.split()[-2:])
    return took + (cases.HEAD_EPOCHS - 1) * epoch, {"accuracy": accuracy}


def measure_head(context, case, rounds, modes, runtime):
    model = os.path.join(export(context, case.net), "model.onnx")
    folder = pictures(context, cases.HEAD_PICTURES)
    sides = {OURS: lambda: tune_head(context, case, model, folder)}
    for mode in modes:
        sides[mode] = lambda mode=mode: torch_head(context, case, mode, folder)
    times, more = take_turns(context, case, rounds, sides)
    worst = min(more[name]["accuracy"] for name in times if name != OURS)
    if more[OURS]["accuracy"] < worst - 0.05:
        raise Failed(f"accuracy {more[OURS]['accuracy']:.3f} here, {worst:.3f} after one pass in PyTorch")
    return [row_of(case, times, f"{cases.HEAD_PICTURES} JPEGs to a saved model; PyTorch: one pass timed, {cases.HEAD_EPOCHS} counted",
                   accuracy={name: more[name]["accuracy"] for name in times})]
