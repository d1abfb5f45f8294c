"""tests/torch_vectors.h: numbers of PyTorch that test_optim.c meets. Run with PyTorch installed:
python3 tests/make_torch_vectors.py > tests/torch_vectors.h"""
import torch

torch.set_printoptions(precision=9)


def row(name, values):
    body = ", ".join(f"{float(v):.9g}" for v in torch.as_tensor(values).flatten())
    print(f"static const double {name}[] = {{{body}}};")


def clipped(clip):
    p = torch.nn.Parameter(torch.tensor([1, -2, 0.5]))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    for t in (1, 2, 3):
        p.grad = torch.tensor([0.5, -1, 2]) * t
        clip(p)
        optimizer.step()
    return p.data


def scheduled(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


print("/* Written by make_torch_vectors.py (PyTorch %s); do not edit. */" % torch.__version__.split("+")[0])
row("torch_clip_norm", clipped(lambda p: torch.nn.utils.clip_grad_norm_([p], 1.0)))
row("torch_clip_value", clipped(lambda p: torch.nn.utils.clip_grad_value_([p], 0.75)))
lr = torch.optim.lr_scheduler
row("torch_cosine", scheduled(lambda o: lr.CosineAnnealingLR(o, T_max=12), 12))
row("torch_linear", scheduled(lambda o: lr.LinearLR(o, start_factor=1.0, end_factor=1e-30, total_iters=12), 12))
row("torch_step", scheduled(lambda o: lr.StepLR(o, step_size=3, gamma=0.1), 12))

x = torch.tensor([[0.5, -1.25, 2.0], [1.5, 0.25, -0.75], [-2.0, 1.0, 0.125], [0.0, 3.0, -1.0]])
t, w = torch.tensor([2, 0, 1, 2]), torch.tensor([0.5, 1.0, 2.5])
row("torch_logits", x)
ce = torch.nn.functional.cross_entropy
row("torch_cross_entropy", [ce(x, t), ce(x, t, weight=w), ce(x, t, label_smoothing=0.1), ce(x, t, weight=w, label_smoothing=0.1)])
