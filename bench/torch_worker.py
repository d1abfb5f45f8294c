#!/usr/bin/env python3
"""The PyTorch side of bench/run's steps: one net of nets.py in one mode, steps on demand; the protocol is bench_step.c's.

    python torch_worker.py NET PART OPTIMIZER LR eager|channels_last|compile f32|bf16

compile means torch.compile of the channels_last model. bf16 is autocast with f32 weights. Nothing trained: no_grad, eval, and with
compile the inductor's freezing, which folds BatchNorm as Regraft's plan does.
"""
import os, resource, sys, time
import torch, torch.nn as nn, torch.nn.functional as F
import nets


def prepared(net, part, mode):
    model, inputs, target, live = nets.build(net)
    model.train(live)
    x = list(inputs.values())
    if mode in ("channels_last", "compile") and x[0].dim() == 4:
        model, x[0] = model.to(memory_format=torch.channels_last), x[0].to(memory_format=torch.channels_last)
    return model, x, target


def last_block(model):
    """What `last:1` trains: the head and the last module with parameters before it."""
    if hasattr(model, "features"):
        return [model.features[-1], model.classifier]
    return [model.layer4[-1].conv2, model.layer4[-1].bn2, model.fc]


def train_part(model, part):
    if part == "full":
        return
    for p in model.parameters():
        p.requires_grad = False
    for block in last_block(model) if part == "last:1" else []:
        for p in block.parameters():
            p.requires_grad = True


def make_step(model, x, target, part, optimizer, lr, mode, bf16):
    train_part(model, part)
    autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    if part == "forward":
        model.eval()
        if mode == "compile":
            from torch._inductor import config
            config.freezing = True
        run = torch.compile(model) if mode == "compile" else model

        def forward():
            with torch.no_grad(), autocast():
                return run(*x).float()
        return forward
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr) if optimizer == "adamw" else torch.optim.SGD(trained, lr, momentum=0.9)
    run = torch.compile(model) if mode == "compile" else model

    def step():
        with autocast():
            loss = F.cross_entropy(run(*x).float(), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.detach()
    return step


def main(net, part, optimizer, lr, mode, precision):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    begin = time.perf_counter()
    model, x, target = prepared(net, part, mode)
    step = make_step(model, x, target, part, optimizer, float(lr), mode, precision == "bf16")
    print("ready %.1f ms" % ((time.perf_counter() - begin) * 1e3), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "step":
            times = []
            for _ in range(int(words[1])):
                begin = time.perf_counter()
                result = step()
                times.append((time.perf_counter() - begin) * 1e3)
            print(" ".join("%.3f" % t for t in times), "loss %.7g" % float(result.abs().mean()), flush=True)
        elif words[0] == "memory":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(usage.ru_maxrss, usage.ru_minflt, flush=True)
        else:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
