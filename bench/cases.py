"""What bench/run measures: one row a case, and how its ratio is meant. No import beyond Python's own.

Kinds (the module that measures it):
  step     milliseconds of one step, ours and PyTorch's, in turns                            stepping.py
  memory   peak memory of one step, plain and with a budget, and what the budget costs       stepping.py
  start    a whole process: start, import, plan, one finished step                           processes.py
  import   a file in memory: time and peak                                                   processes.py
  loader   a folder of JPEGs to batches                                                      processes.py
  head     a folder of JPEGs to a finished model, ten passes over the head                   processes.py
A ratio is always meant so that more is better, and a target is reached at `ratio >= target`.
"""
from dataclasses import dataclass, field

PICTURE_MODES = ("channels_last", "eager", "compile")
PLAIN_MODES = ("eager", "compile")


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    net: str                      # of nets.py
    target: float
    part: str = "full"            # what is trained: full, last:1, forward (nothing)
    optimizer: str = "sgd"
    lr: float = 1e-3
    precision: str = "f32"        # f32, bf16
    modes: tuple = PICTURE_MODES  # PyTorch's; the fastest counts
    steps: int = 2                # a round
    quick: tuple = ()             # the modes of --quick; empty: not in --quick
    quick_steps: int = 0          # a round of --quick; 0: as many
    runtime: bool = True          # ONNX Runtime too, in a column of its own
    rounds: int = 0               # at most so many; 0: as asked
    listed: bool = True           # in a run without --cases
    keys: tuple = field(default=())  # further arguments of bench_step

    @property
    def tolerance(self):          # of the first losses, relative
        return 2e-2 if self.precision == "bf16" else 1e-3


def step(name, target, net=None, **more):
    return Case(name, "step", net or name, target, **more)


ALL = [
    step("resnet50", 1.15, quick=("channels_last",), quick_steps=1),
    step("mobilenet_v2", 1.8, steps=3, quick=("channels_last",)),
    step("efficientnet_b0", 1.7),
    step("mobilenet_v3_large", 1.7, steps=3),
    step("vit_b_16", 1.1, optimizer="adamw", lr=1e-5, modes=PLAIN_MODES, steps=1),
    step("bert_base", 1.1, optimizer="adamw", lr=1e-5, modes=PLAIN_MODES, steps=1),
    step("bilstm", 1.5, optimizer="adamw", lr=1e-4, modes=PLAIN_MODES, steps=3, quick=("eager",)),
    step("resnet50_bf16", 1.1, "resnet50", precision="bf16", runtime=False),
    step("mobilenet_v2_bf16", 1.8, "mobilenet_v2", precision="bf16", steps=3, runtime=False, quick=("channels_last",)),
    step("bert_base_bf16", 1.15, "bert_base", optimizer="adamw", lr=1e-5, precision="bf16", modes=PLAIN_MODES, steps=1, runtime=False),
    step("resnet50_forward", 2.0, "resnet50_eval", part="forward", steps=3),
    step("mobilenet_v2_forward", 4.5, "mobilenet_v2_eval", part="forward", steps=5, quick=("channels_last",)),
    step("mobilenet_v2_last", 3.0, "mobilenet_v2_eval", part="last:1", steps=5, runtime=False),
    step("mobilenet_v2_batch1", 2.5, lr=1e-4, steps=10),
    step("mobilenet_v2_batch4", 2.5, steps=5),
    Case("resnet50_memory", "memory", "resnet50", 1.25, modes=("channels_last", "eager"), steps=1, quick=("channels_last",)),
    Case("mobilenet_v2_start", "start", "mobilenet_v2", 5.0, modes=("channels_last", "eager"), quick=("channels_last",)),
    Case("import", "import", "resnet50", 1.0, modes=("onnx.load",), quick=("onnx.load",)),
    Case("loader", "loader", "", 1.5, modes=("DataLoader",), quick=("DataLoader",)),
    Case("mobilenet_v2_head", "head", "mobilenet_v2_eval", 20.0, part="head", modes=("channels_last",), rounds=2),
    # Small ones that try the harness itself: bench/run --cases tiny,tiny_bf16,tiny_forward,tiny_memory,tiny_start
    step("tiny", 0.0, "resnet18_tiny", listed=False, modes=PICTURE_MODES),
    step("tiny_bf16", 0.0, "resnet18_tiny", precision="bf16", listed=False, modes=("channels_last",), runtime=False),
    step("tiny_forward", 0.0, "resnet18_tiny_eval", part="forward", listed=False, modes=("channels_last",)),
    step("tiny_last", 0.0, "resnet18_tiny_eval", part="last:1", listed=False, modes=("channels_last",), runtime=False),
    Case("tiny_memory", "memory", "resnet18_tiny", 0.0, listed=False, modes=("channels_last",), steps=1),
    Case("tiny_start", "start", "resnet18_tiny", 0.0, listed=False, modes=("channels_last",)),
]
BY_NAME = {case.name: case for case in ALL}

# The memory case has three rows: its own target is the first row's.
BUDGET_PART = 0.38           # of PyTorch's peak: what is asked of `memory=`, which may be passed by 3 %
BUDGET_TARGETS = (1 / 0.4, 1 / 1.35)  # peak with the budget; step without / step with it
IMPORT_MEMORY_TARGET = 1 / 1.2        # file / peak
HEAD_EPOCHS = 10
HEAD_PICTURES = 2000
LOADER_PICTURES = 300
LOADER_WORKERS = 2
