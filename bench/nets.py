#!/usr/bin/env python3
"""The nets of bench/run: PyTorch modules with random weights, their exports, and one batch each.

    python nets.py OUT [case ...]      needs torch, torchvision, transformers, onnx, onnxscript

OUT/CASE/ holds model.onnx, input_K.bin, target.bin, shapes.txt (see bench_step.c). `build(case)` gives the same module, with the same
weights, to the PyTorch worker, so that first losses must agree.
"""
import os, sys, types, warnings
warnings.filterwarnings("ignore")
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
import numpy as np, torch, torch.nn as nn


def vision(name, batch=16, size=224):
    def make():
        import torchvision.models as tv
        model = getattr(tv, name)()
        for m in model.modules():
            if isinstance(m, nn.Dropout): m.p = 0.0
            if type(m).__name__ == "StochasticDepth": m.p = 0.0
        return model, {"x": torch.randn(batch, 3, size, size)}, torch.randint(0, 1000, (batch,))
    return make


class Logits(nn.Module):
    def __init__(self, model): super().__init__(); self.model = model
    def forward(self, input_ids): return self.model(input_ids=input_ids).logits


def bert(batch=8, length=128):
    def make():
        from transformers import BertConfig, BertForSequenceClassification
        config = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2, attn_implementation="sdpa")
        return Logits(BertForSequenceClassification(config)), {"input_ids": torch.randint(5, 30000, (batch, length))}, torch.randint(0, 2, (batch,))
    return make


class BiLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.fc = nn.Embedding(10000, 128), nn.LSTM(128, 256, batch_first=True, bidirectional=True), nn.Linear(512, 2)
    def forward(self, ids): return self.fc(self.rnn(self.embed(ids))[0].mean(1))


def bilstm(batch=32, length=128):
    return lambda: (BiLSTM(), {"ids": torch.randint(0, 10000, (batch, length))}, torch.randint(0, 2, (batch,)))


# case: (maker, export in training mode, trained part, optimizer, lr)
NETS = {
    "resnet50": (vision("resnet50"), True, "full", "sgd", 1e-3),
    "mobilenet_v2": (vision("mobilenet_v2"), True, "full", "sgd", 1e-3),
    "efficientnet_b0": (vision("efficientnet_b0"), True, "full", "sgd", 1e-3),
    "mobilenet_v3_large": (vision("mobilenet_v3_large"), True, "full", "sgd", 1e-3),
    "vit_b_16": (vision("vit_b_16", 8), False, "full", "adamw", 1e-5),
    "bert_base": (bert(), False, "full", "adamw", 1e-5),
    "bilstm": (bilstm(), False, "full", "adamw", 1e-4),
    "resnet50_forward": (vision("resnet50"), False, "forward", "sgd", 0),
    "mobilenet_v2_forward": (vision("mobilenet_v2"), False, "forward", "sgd", 0),
    "mobilenet_v2_last": (vision("mobilenet_v2"), False, "last:1", "sgd", 1e-3),
    "mobilenet_v2_batch1": (vision("mobilenet_v2", 1), False, "full", "sgd", 1e-4),
    "mobilenet_v2_batch4": (vision("mobilenet_v2", 4), True, "full", "sgd", 1e-3),
}


def build(case):
    torch.manual_seed(0)
    maker, live, part, optimizer, lr = NETS[case]
    model, inputs, target = maker()
    if not live:  # running statistics that make deep nets neither die nor explode
        model.train()
        with torch.no_grad(): model(*inputs.values())
    return model, inputs, target, live, part, optimizer, lr


def write(case, out):
    model, inputs, target, live, part, optimizer, lr = build(case)
    folder = os.path.join(out, case); os.makedirs(folder, exist_ok=True)
    tm = torch.onnx.TrainingMode
    torch.onnx.export(model.train() if live else model.eval(), tuple(inputs.values()), os.path.join(folder, "model.onnx"),
                      input_names=list(inputs), output_names=["logits"], dynamo=False, opset_version=17, do_constant_folding=not live,
                      training=tm.TRAINING if live else tm.EVAL, dynamic_axes={k: {0: "batch"} for k in [*inputs, "logits"]})
    with open(os.path.join(folder, "shapes.txt"), "w") as f:
        for k, (name, t) in enumerate([*inputs.items(), ("target", target)]):
            a = t.numpy(); key = "target" if name == "target" else f"input_{k}"
            a.tofile(os.path.join(folder, key + ".bin"))
            f.write(" ".join([key, str(a.dtype), *map(str, a.shape)]) + "\n")
    print(case, os.path.getsize(os.path.join(folder, "model.onnx")) >> 20, "MB", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    for case in sys.argv[2:] or NETS: write(case, sys.argv[1])
