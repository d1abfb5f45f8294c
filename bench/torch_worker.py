#!/usr/bin/env python3
"""The PyTorch side of bench/run: one net of nets.py in one mode, steps on demand; the protocol is bench_step.c's.

    python torch_worker.py CASE eager|channels_last|compile|bf16 [threads]
"""
import resource, sys, time
import torch, torch.nn as nn, torch.nn.functional as F
import nets


def main(case, mode, threads=2):
    torch.set_num_threads(int(threads))
    begin = time.perf_counter()
    model, inputs, target, live, part, optimizer, lr = nets.build(case)
    model.train(live); x = list(inputs.values())
    if not live and part == "full":
        from torch.fx.experimental.optimization import fuse
        if any(isinstance(m, nn.BatchNorm2d) for m in model.modules()): model = fuse(model.eval())
    if mode in ("channels_last", "bf16", "compile") and x[0].dim() == 4:
        model = model.to(memory_format=torch.channels_last); x[0] = x[0].to(memory_format=torch.channels_last)
    if part == "forward":
        model.eval()
    elif part != "full":  # the last block before the head, and the head
        for p in model.parameters(): p.requires_grad = False
        for m in [model.features[-1], model.classifier]:
            for p in m.parameters(): p.requires_grad = True
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr) if optimizer == "adamw" else torch.optim.SGD(trained, lr, momentum=0.9)
    run = torch.compile(model) if mode == "compile" else model

    def step():
        if part == "forward":
            with torch.no_grad(): return run(*x)[0, 0]
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            loss = F.cross_entropy(run(*x).float(), target)
        opt.zero_grad(); loss.backward(); opt.step()
        return loss.detach()

    print("ready %.1f ms" % ((time.perf_counter() - begin) * 1e3), flush=True)
    for line in sys.stdin:
        word = line.split()
        if word[0] == "step":
            times = []
            for _ in range(int(word[1])):
                t = time.perf_counter(); loss = float(step()); times.append((time.perf_counter() - t) * 1e3)
            print(" ".join("%.3f" % t for t in times), "loss %.7g" % loss, flush=True)
        elif word[0] == "memory":
            usage = resource.getrusage(resource.RUSAGE_SELF); print(usage.ru_maxrss, usage.ru_minflt, flush=True)
        else:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
