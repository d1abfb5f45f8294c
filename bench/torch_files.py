#!/usr/bin/env python3
"""The PyTorch side of bench/run's cases on picture files: the usual ImageFolder, Resize, CenterCrop, ToTensor, Normalize and DataLoader.

    python torch_files.py loader FOLDER BATCH WORKERS        -> "milliseconds samples mean" of one pass, workers' start not counted
    python torch_files.py head FOLDER NET MODE WORKERS OUT   -> "milliseconds accuracy" of one epoch over the head, then OUT is saved
"""
import os, sys, time
import nets  # before torchvision
import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms


def folder_of(path):
    return datasets.ImageFolder(path, transforms.Compose([
        transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]))


def loader(path, batch, workers):
    # Workers that live on: what counts is the second pass, when they are there.
    data = DataLoader(folder_of(path), batch_size=int(batch), num_workers=int(workers), persistent_workers=True)
    for _ in range(2):
        begin, samples, total = time.perf_counter(), 0, 0.0
        for x, _labels in data:
            samples += len(x)
            total += float(x.sum(dtype=torch.float64))
        took = time.perf_counter() - begin
    print("%.3f %d %.6f" % (took * 1e3, samples, total / (samples * 3 * 224 * 224)))


def one_epoch(model, opt, train, val, channels_last):
    format = torch.channels_last if channels_last else torch.contiguous_format
    for x, y in train:
        loss = F.cross_entropy(model(x.to(memory_format=format)), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    right = count = 0
    with torch.no_grad():
        for x, y in val:
            right += int((model(x.to(memory_format=format)).argmax(1) == y).sum())
            count += len(y)
    return right / count


def head(path, net, mode, workers, out):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    model = nets.build(net)[0].eval()
    data = folder_of(path)
    for p in model.parameters():
        p.requires_grad = False
    model.classifier[-1] = nn.Linear(model.classifier[-1].in_features, len(data.classes))
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.classifier[-1].parameters(), 1e-2)
    parts = random_split(data, [len(data) - len(data) // 5, len(data) // 5], torch.Generator().manual_seed(0))
    train = DataLoader(parts[0], batch_size=32, shuffle=True, num_workers=int(workers))
    val = DataLoader(parts[1], batch_size=32, num_workers=int(workers))
    begin = time.perf_counter()
    accuracy = one_epoch(model, opt, train, val, mode == "channels_last")
    took = time.perf_counter() - begin
    torch.save(model.state_dict(), out)
    print("%.3f %.4f" % (took * 1e3, accuracy))


if __name__ == "__main__":
    {"loader": loader, "head": head}[sys.argv[1]](*sys.argv[2:])
