#!/usr/bin/env python3
"""Writes tests/data/fashion_small.npz: 30 training, 10 validation and 10 test pictures of each of Fashion-MNIST's classes 2, 5, 6 and 8, in
MedMNIST's layout.   python make_fashion_small.py IDX_FOLDER OUT.npz"""
import gzip, sys
import numpy as np


def idx(path):
    data = gzip.open(path).read()
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


x, y = idx(sys.argv[1] + "/train-images-idx3-ubyte.gz"), idx(sys.argv[1] + "/train-labels-idx1-ubyte.gz")
out, begin = {}, 0
for part, count in (("train", 30), ("val", 10), ("test", 10)):
    pick = np.concatenate([np.flatnonzero(y == c)[begin:begin + count] for c in (2, 5, 6, 8)])
    out[part + "_images"], out[part + "_labels"] = x[pick], np.searchsorted([2, 5, 6, 8], y[pick])[:, None].astype(np.uint8)
    begin += count
np.savez_compressed(sys.argv[2], **out)
