#!/usr/bin/env python3
"""Two parity cases of sequences, in the format of the others (tests/parity_cases/README.md).

    python make_parity_sequences.py MAKE_PY OUT        MAKE_PY: the parity generator; needs what it needs

bag     EmbeddingBag by the dynamo exporter: a Loop over a sequence of rows, with If inside, written out before it is trained
tagger  tags of words spelt in characters: padding_idx, which only the exporter's metadata tell, and targets that do not count (-100)
"""
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("make", sys.argv[1])
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
import torch
import torch.nn as nn


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(120, 12, mode="mean")
        self.head = nn.Linear(12, 3)

    def forward(self, input_ids):
        return self.head(torch.tanh(self.embedding(input_ids)))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8, padding_idx=0)
        self.conv = nn.Conv1d(8, 12, 3, padding=1)
        self.rnn = nn.GRU(12, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 4)

    def forward(self, letters):
        n, words, length = letters.shape
        x = torch.relu(self.conv(self.embedding(letters.reshape(-1, length)).transpose(1, 2))).amax(2)
        return self.head(self.rnn(x.reshape(n, words, 12))[0])


def tagged(g):
    letters = torch.randint(1, 40, (6, 8, 5), generator=g)
    words, length = torch.randint(3, 9, (6,), generator=g), torch.randint(2, 6, (6, 8), generator=g)
    letters = letters * (torch.arange(5) < length[..., None])
    return {"letters": letters}, torch.where(torch.arange(8)[None] < words[:, None], letters[:, :, 0] % 4, -100)


CASES = {"bag": (Bag, make.lstm_ids(6, 7, 120, 3), "softmax_ce", "dynamo", "eval", [make.SGD, make.ADAMW], "head"),
         "tagger": (Tagger, tagged, "lm", "dynamo", "eval", [make.ADAMW], "head")}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in CASES:
        make.make(name, sys.argv[2], CASES)
