"""Cases of kind `step` and `memory`: workers that hold the same net and take turns.

The order within a round is fixed, rounds alternate, and only steps after the warm-up count. A side whose first loss does not agree with
ours has computed something else, so it gives no ratio.
"""
import hashlib, os, shutil, statistics, subprocess

from cases import BUDGET_PART, BUDGET_TARGETS
from workers import Failed, Worker, last_line

OURS, RUNTIME = "regraft", "onnxruntime"


def recipe():
    """What exports depend on: another nets.py makes other nets."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "nets.py"), "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def export(context, net):
    folder = os.path.join(context.nets, net)
    stamp = os.path.join(folder, "recipe")
    if os.path.exists(stamp):
        with open(stamp) as f:
            if f.read() == recipe():
                return folder
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(context.nets, exist_ok=True)
    log = os.path.join(context.nets, net + ".export.log")
    with open(log, "w") as out:
        done = subprocess.run([context.python, "nets.py", context.nets, net], cwd=context.here, stdout=out, stderr=out)
    if done.returncode != 0:
        raise Failed(f"{net} cannot be exported: {last_line(log)}")
    with open(stamp, "w") as f:
        f.write(recipe())
    return folder


def our_command(context, case, folder, *keys):
    precision = ["precision=bf16"] if case.precision == "bf16" else []
    return [os.path.join(context.build, "bench_step"), os.path.join(folder, "model.onnx"), case.part, folder, "softmax_ce", case.optimizer,
            str(case.lr), *precision, *case.keys, *keys]


def torch_command(context, case, mode):
    return [context.python, "torch_worker.py", case.net, case.part, case.optimizer, str(case.lr), mode, case.precision]


def runtime_command(context, case, folder):
    if case.part == "forward":
        return [context.python, "ort_worker.py", folder, "forward"]
    return [context.ort_python, "ort_worker.py", folder, case.optimizer, str(case.lr)]


def start(context, case, name, command, warm=2):
    """A worker that has finished its first step and its warm-up; None, with the reason in the log, when it cannot."""
    worker = None
    try:
        worker = Worker(context, f"{case.name}.{name}", command)
        worker.name, worker.first = name, worker.step(1, keep=False)
        if warm:
            worker.step(warm, keep=False)
        return worker
    except Failed as why:
        if worker is not None:
            worker.kill()
        if name == OURS:
            raise Failed(f"Regraft: {why}") from None
        context.log(f"  {case.name}: {name} is not available: {why}")
        return None


def start_all(context, case, modes, runtime, warm=2):
    folder = export(context, case.net)
    workers = [start(context, case, OURS, our_command(context, case, folder), warm)]
    workers += [start(context, case, mode, torch_command(context, case, mode), warm) for mode in modes]
    if runtime and (case.part == "forward" or context.ort_python):
        workers.append(start(context, case, RUNTIME, runtime_command(context, case, folder), warm=1))
    return folder, [worker for worker in workers if worker is not None]


def prepare(context, case, modes, runtime):
    """What a later run would wait for: the export, kernels of torch.compile, training artifacts."""
    folder = export(context, case.net)
    slow = [(mode, torch_command(context, case, mode)) for mode in modes if mode == "compile"]
    if runtime and case.part != "forward" and context.ort_python:
        slow.append((RUNTIME, runtime_command(context, case, folder)))
    for name, command in slow:
        worker = start(context, case, name, command, warm=0)
        if worker is not None:
            worker.close()


def agrees(case, worker, ours):
    return abs(worker.first - ours.first) <= case.tolerance * max(1e-6, abs(worker.first))


def agreeing(context, case, workers):
    """Those of PyTorch, and ONNX Runtime's or None, that compute what we compute."""
    ours = workers[0]
    for worker in workers[1:]:
        if not agrees(case, worker, ours):
            context.log(f"  {case.name}: first loss {ours.first:.7g} here, {worker.first:.7g} in {worker.name}: does not count")
    good = [worker for worker in workers[1:] if agrees(case, worker, ours)]
    others = [worker for worker in good if worker.name != RUNTIME]
    if not others:
        seen = ", ".join(f"{worker.name} {worker.first:.7g}" for worker in workers[1:]) or "no mode of PyTorch ran"
        raise Failed(f"first losses differ: ours {ours.first:.7g}, {seen}")
    return others, next((worker for worker in good if worker.name == RUNTIME), None)


def take_turns(workers, rounds, steps):
    for _ in range(rounds):
        for worker in workers:
            worker.step(1 if worker.name == RUNTIME else steps)


def warn_of_spinning(context, case, workers):
    for worker in workers:
        if worker.idle > 0.03:
            context.log(f"  {case.name}: {worker.name} used {100 * worker.idle:.0f} % of a processor while waiting")


def batch_of(folder):
    with open(os.path.join(folder, "shapes.txt")) as f:
        return int(f.readline().split()[2])


def median(worker):
    return statistics.median(worker.times)


def measure_step(context, case, rounds, modes, runtime):
    folder, workers = start_all(context, case, modes, runtime and case.runtime)
    try:
        others, ort = agreeing(context, case, workers)
        taking = [workers[0], *others, *([ort] if ort else [])]
        take_turns(taking, rounds, case.steps)
        for worker in taking:
            worker.memory()
        warn_of_spinning(context, case, taking)
    finally:
        for worker in workers:
            worker.close()
    ours, best = workers[0], min(others, key=median)
    row = {"case": case.name, "ratio": median(best) / median(ours), "target": case.target, "ours_ms": median(ours), "best_ms": median(best),
           "best_mode": best.name, "ours_min_ms": min(ours.times), "best_min_ms": min(best.times),
           "min_ratio": min(best.times) / min(ours.times), "modes_ms": {w.name: median(w) for w in others},
           "batch": batch_of(folder), "precision": case.precision, "steps": len(ours.times),
           "loss": [ours.first, best.first], "ours_mb": ours.peak_kb / 1024, "best_mb": best.peak_kb / 1024,
           "ours_faults": ours.faults, "best_faults": best.faults, "idle": {w.name: round(w.idle, 3) for w in taking}}
    if ort:
        row.update(runtime_ms=median(ort), runtime_mb=ort.peak_kb / 1024)
    return [row]


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory_row(name, target, ours_kb, theirs, meaning):
    return {"case": name, "ratio": theirs.peak_kb / ours_kb, "target": target, "ours_mb": ours_kb / 1024, "best_mb": theirs.peak_kb / 1024,
            "best_mode": theirs.name, "ours_ms": None, "best_ms": None, "meaning": meaning}


def measure_budget(context, case, folder, ours, theirs, rounds):
    """The same step under a budget, beside the plain one."""
    budget = int(theirs.peak_kb * 1024 * BUDGET_PART)
    name, rows = f"memory={budget}", []
    limited = Worker(context, f"{case.name}.budget", our_command(context, case, folder, name))
    try:
        limited.name, limited.first = "budget", limited.step(1, keep=False)
        if not agrees(case, limited, ours):
            raise Failed(f"first loss {limited.first:.7g} with a budget, {ours.first:.7g} without")
        limited.step(1, keep=False)
        take_turns([ours, limited], rounds, case.steps)
        limited.memory()
    finally:
        limited.close()
    rows.append(memory_row(case.name + "_budget", BUDGET_TARGETS[0], limited.peak_kb, theirs,
                           f"peak of PyTorch / ours with {name} ({BUDGET_PART} of PyTorch's)"))
    rows.append({"case": case.name + "_budget_step", "ratio": median(ours) / median(limited), "target": BUDGET_TARGETS[1],
                 "ours_ms": median(limited), "best_ms": median(ours), "best_mode": "ours without a budget",
                 "meaning": "our step without a budget / with it"})
    return rows


def measure_memory(context, case, rounds, modes, runtime):
    folder, workers = start_all(context, case, modes, False, warm=1)
    ours = workers[0]
    try:
        others, _ = agreeing(context, case, workers)
        for worker in [ours, *others]:
            worker.memory()
        for worker in others:  # their memory is wanted by the next
            worker.close()
        theirs = min(others, key=lambda worker: worker.peak_kb)
        rows = [memory_row(case.name, case.target, ours.peak_kb, theirs, "peak of PyTorch / ours, whole processes")]
        try:
            rows += measure_budget(context, case, folder, ours, theirs, rounds)
        except Failed as why:
            rows += [{"case": case.name + "_budget", "error": f"not available: {why}"},
                     {"case": case.name + "_budget_step", "error": "not available: no run with a budget"}]
    finally:
        for worker in workers:
            worker.close()
    return rows
