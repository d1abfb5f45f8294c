#!/usr/bin/env python3
"""Parity cases of vision nets, in the format of the others (tests/parity_cases/README.md).

    python make_parity_vision.py MAKE_PY OUT        MAKE_PY: the parity generator; needs what it needs

shared           one Transformer block called three times (as in ALBERT), TorchScript: its folded weights come back as aliases
shared-dynamo    the same by the dynamo exporter: a folded copy of each large weight a call, small ones merged
siamese-live     an encoder with live BatchNorm called on two inputs: its running statistics move twice a step, and twice in tracing
vit-fixed-batch  a ViT that TorchScript traced at a batch of 1 without dynamic axes, trained at a batch of 4
neighbours       a graph of ten nodes: the first dim counts nodes that read each other, and no other number of them fits
"""
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("make", sys.argv[1])
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.models as models


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.block, self.head = nn.Conv2d(1, 20, 4, 4), Block(20, 2, 56), nn.Linear(20, 6)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for _ in range(3):
            x = self.block(x)
        return self.head(x.mean(1))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
                                     nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                     nn.Flatten(), nn.Linear(72, 10))
        self.head = nn.Linear(20, 2)

    def forward(self, a, b):
        u, v = self.encoder(a), self.encoder(b)
        return self.head(torch.cat([(u - v).abs(), u * v], 1))


def pairs(g):
    y = torch.randint(0, 2, (6,), generator=g)
    a, b = (torch.round(torch.randn(6, 1, 12, 12, generator=g) * 16) / 32 for _ in range(2))
    return {"a": a, "b": torch.where(y.view(-1, 1, 1, 1) > 0, a, b)}, y


def vit():
    return models.VisionTransformer(image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=24, mlp_dim=32,
                                    num_classes=6)


class Neighbours(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.near = nn.Linear(6, 12), nn.Linear(6, 12, bias=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x, near):
        h = F.relu(self.own(x) + self.near(x[near].mean(1)))
        told = torch.zeros_like(h).index_add(0, near.reshape(-1), h[torch.arange(30) // 3])
        return self.head(h + told)


def graph(g):
    x, near = torch.randn(10, 6, generator=g), torch.randint(0, 10, (10, 3), generator=g)
    return {"x": x, "near": near}, x[near].mean(1)[:, :3].argmax(1)


CASES = {
    "neighbours": (Neighbours, graph, "softmax_ce", "dynamo", "eval", [make.SLOW], "head"),
    "shared": (Shared, make.images(6, 1, 12, 6), "softmax_ce", "torchscript", "eval", [make.ADAMW], "head"),
    "shared-dynamo": (Shared, make.images(6, 1, 12, 6), "softmax_ce", "dynamo", "eval", [make.SGD, make.ADAMW], "head"),
    "siamese-live": (Siamese, pairs, "softmax_ce", "torchscript", "train", [make.SLOW], "head"),
    "vit-fixed-batch": (vit, make.images(4, 3, 16, 6), "softmax_ce", "torchscript", "eval", [make.SGD, make.ADAMW], "heads.head"),
}
export = make.export


def export_fixed(model, inputs, path, exporter, mode, outputs):
    """One sample, or one graph, and no dynamic axes, for the cases that ask for it."""
    if "neighbours" in path:
        program = torch.onnx.export(model.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=["logits"], dynamo=True,
                                    external_data=False, verbose=False)
        return program.save(path, external_data=False)
    if "fixed-batch" not in path:
        return export(model, inputs, path, exporter, mode, outputs)
    one = {name: value[:1] for name, value in inputs.items()}
    torch.onnx.export(model.eval(), tuple(one.values()), path, input_names=list(one), output_names=["logits"], dynamo=False,
                      opset_version=17)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make.export = export_fixed
    for name in CASES:
        make.make(name, sys.argv[2], CASES)
