"""What bench/run needs around it: the machine's data, a build, and Pythons with PyTorch and ONNX Runtime.

BENCH_PYTHON and BENCH_ORT_PYTHON name Pythons to use; else the running one when it has everything, else a virtual environment
of bench's own under build/. Nothing outside build/ is touched.
"""
import glob, os, re, subprocess, sys
from dataclasses import dataclass, field

from workers import Failed

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# torchvision's wheel pins another torch than the index gives, and only its Python part is used: without dependencies.
TORCH_PACKAGES = [["torch==2.13.0", "numpy", "pillow", "onnx==1.23.2", "onnxscript", "onnxruntime", "transformers"], ["--no-deps", "torchvision==0.28.0"]]
ORT_PACKAGES = [["torch==2.13.0", "numpy<2", "onnx==1.16.2", "cerberus", "h5py", "onnxruntime-training-cpu==1.19.2"]]
TORCH_TEST = "import numpy, torch, onnx, onnxscript, onnxruntime, transformers, PIL, nets"
ORT_TEST = "import torch; from onnxruntime.training import artifacts"


@dataclass
class Context:
    """Where everything is, for one run."""
    threads: int
    build: str
    nets: str
    log: object
    here: str = HERE
    python: str = ""
    ort_python: str = ""
    versions: dict = field(default_factory=dict)


def can(python, test):
    return subprocess.run([python, "-c", test], cwd=HERE, capture_output=True).returncode == 0


def make_venv(name, packages, log):
    folder = os.path.join(ROOT, "build", name)
    python = os.path.join(folder, "bin/python")
    if os.path.exists(os.path.join(folder, ".done")):
        return python
    log(f"making {os.path.relpath(folder, ROOT)}: {' '.join(p for group in packages for p in group if p[0] != '-')}")
    commands = [[sys.executable, "-m", "venv", folder]] + [[python, "-m", "pip", "install", "-q", *group] for group in packages]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command[:5])}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    open(os.path.join(folder, ".done"), "w").close()
    return python


def find_python(variable, venv, packages, test, log):
    named = os.environ.get(variable)
    if named:
        if not can(named, test):
            raise Failed(f"{variable}={named} cannot `{test}`")
        return named
    if can(sys.executable, test):
        return sys.executable
    python = make_venv(venv, packages, log)
    if not can(python, test):
        raise Failed(f"{python} cannot `{test}`")
    return python


def find_pythons(context):
    context.python = find_python("BENCH_PYTHON", "bench-venv", TORCH_PACKAGES, TORCH_TEST, context.log)
    try:
        context.ort_python = find_python("BENCH_ORT_PYTHON", "bench-venv-ort", ORT_PACKAGES, ORT_TEST, context.log)
    except Failed as why:
        context.log(f"ONNX Runtime training is not available: {why}")


def build_regraft(context):
    if not os.path.exists(os.path.join(context.build, "CMakeCache.txt")):
        context.log("configuring the release build")
        run_or_fail(["cmake", "--preset", "release"], ROOT)
    run_or_fail(["cmake", "--build", context.build, "-j", str(os.cpu_count()), "--target", "bench", "regraft"], ROOT)


def run_or_fail(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise Failed(f"{' '.join(command[:3])}: " + next((line for line in lines if "error" in line.lower()), lines[-1] if lines else ""))


def physical_cores():
    """Cores, not hyperthreads, that this process may use."""
    allowed, cores = os.sched_getaffinity(0), set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"):
        if int(re.search(r"cpu(\d+)/", path).group(1)) in allowed:
            with open(path) as f:
                cores.add(f.read().strip())
    return len(cores) or len(allowed)


VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")  # widest first, as kernels are chosen by


def cpu_name():
    """Model name and widest vectors: a cloud's name for its processors says too little ("AMD EPYC" has been AVX2 and AVX-512 here)."""
    name, flags = "unknown CPU", set()
    with open("/proc/cpuinfo") as f:
        for line in f:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    return name + next((f", {vectors}" for vectors in VECTORS if vectors in flags), "")


def linked_onednn(program):
    """From the library's file name, which is there before any model is."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    found = re.search(r"libdnnl\.so\S* => (\S+)", out)
    name = os.path.basename(os.path.realpath(found.group(1))) if found else ""
    return name.removeprefix("libdnnl.so.") or "unknown"


def find_versions(context):
    script = ("import torch, re, onnx, onnxruntime; "
              "print(torch.__version__, (re.findall(r'MKL-DNN v([\\d.]+)', torch.__config__.show()) or ['unknown'])[0], onnx.__version__, onnxruntime.__version__)")
    words = subprocess.run([context.python, "-c", script], capture_output=True, text=True).stdout.split()
    names = ("PyTorch", "oneDNN of PyTorch", "onnx", "ONNX Runtime")
    context.versions = {"oneDNN of Regraft": linked_onednn(os.path.join(context.build, "bench_step")), **dict(zip(names, words))}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if commit:
        context.versions["commit"] = commit
    if context.ort_python:
        context.versions["ONNX Runtime training"] = "1.19.2"
