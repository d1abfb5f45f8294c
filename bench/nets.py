#!/usr/bin/env python3
"""The nets of bench/run: PyTorch modules with random weights, their exports, and one batch each.

    python nets.py OUT NET ...      needs torch, torchvision, transformers, onnx, onnxscript

OUT/NET/ holds model.onnx, input_K.bin, target.bin, shapes.txt (see bench_step.c). `build(net)` gives the same module, with the same
weights, to the PyTorch worker, so that first losses must agree.
"""
import os, sys, types, warnings
warnings.filterwarnings("ignore")
# torchvision's compiled part does not load beside every torch; its models, transforms and data sets need nothing of it.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
import torch, torch.nn as nn


def vision(name, batch=16, size=224):
    def make():
        import torchvision.models as tv
        model = getattr(tv, name)()
        for m in model.modules():
            if isinstance(m, nn.Dropout) or type(m).__name__ == "StochasticDepth":
                m.p = 0.0
        return model, {"x": torch.randn(batch, 3, size, size)}, torch.randint(0, 1000, (batch,))
    return make


class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids).logits


def bert(batch=8, length=128):
    def make():
        from transformers import BertConfig, BertForSequenceClassification
        config = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2, attn_implementation="sdpa")
        model = Logits(BertForSequenceClassification(config))
        return model, {"input_ids": torch.randint(5, 30000, (batch, length))}, torch.randint(0, 2, (batch,))
    return make


class BiLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10000, 128)
        self.rnn = nn.LSTM(128, 256, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(512, 2)

    def forward(self, ids):
        return self.fc(self.rnn(self.embed(ids))[0].mean(1))


def bilstm(batch=32, length=128):
    return lambda: (BiLSTM(), {"ids": torch.randint(0, 10000, (batch, length))}, torch.randint(0, 2, (batch,)))


# net: (maker, exported in training mode: BatchNorm uses the batch)
NETS = {
    "resnet50": (vision("resnet50"), True),
    "mobilenet_v2": (vision("mobilenet_v2"), True),
    "efficientnet_b0": (vision("efficientnet_b0"), True),
    "mobilenet_v3_large": (vision("mobilenet_v3_large"), True),
    "vit_b_16": (vision("vit_b_16", 8), False),
    "bert_base": (bert(), False),
    "bilstm": (bilstm(), False),
    "resnet50_eval": (vision("resnet50"), False),
    "mobilenet_v2_eval": (vision("mobilenet_v2"), False),
    "mobilenet_v2_batch1": (vision("mobilenet_v2", 1), True),
    "mobilenet_v2_batch4": (vision("mobilenet_v2", 4), True),
    "resnet18_tiny": (vision("resnet18", 2, 64), True),
    "resnet18_tiny_eval": (vision("resnet18", 2, 64), False),
}


def build(net):
    """(module, inputs by name, target, live)"""
    torch.manual_seed(0)
    maker, live = NETS[net]
    model, inputs, target = maker()
    if not live:  # running statistics of the batch itself, so that no layer's outputs shrink to rounding errors
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = 1.0
        model.train()
        with torch.no_grad():
            model(*inputs.values())
    return model, inputs, target, live


def write(net, out):
    model, inputs, target, live = build(net)
    folder = os.path.join(out, net)
    os.makedirs(folder, exist_ok=True)
    mode = torch.onnx.TrainingMode
    torch.onnx.export(model.train() if live else model.eval(), tuple(inputs.values()), os.path.join(folder, "model.onnx"),
                      input_names=list(inputs), output_names=["logits"], dynamo=False, opset_version=17, do_constant_folding=not live,
                      training=mode.TRAINING if live else mode.EVAL, dynamic_axes={k: {0: "batch"} for k in [*inputs, "logits"]})
    lines = []
    for k, (name, t) in enumerate([*inputs.items(), ("target", target)]):
        array, key = t.numpy(), "target" if name == "target" else f"input_{k}"
        array.tofile(os.path.join(folder, key + ".bin"))
        lines.append(" ".join([key, str(array.dtype), *map(str, array.shape)]))
    with open(os.path.join(folder, "shapes.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(net, os.path.getsize(os.path.join(folder, "model.onnx")) >> 20, "MB", flush=True)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        write(name, sys.argv[1])
