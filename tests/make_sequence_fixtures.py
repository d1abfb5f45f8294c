#!/usr/bin/env python3
"""tests/data/task_a.npz, task_b.npz: the multitask parity case's samples, as data sets of two tasks (sequences.sh).

    python make_sequence_fixtures.py        needs numpy
"""
import os
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
data = np.load(os.path.join(here, "parity_cases", "multitask", "train.npz"))
for name, target, samples in (("task_a", "y_0", 128), ("task_b", "y_1", 48)):
    np.savez_compressed(os.path.join(here, "data", name + ".npz"), x=data["x"][:samples].astype(np.float16), y=data[target][:samples].astype(np.int8))
