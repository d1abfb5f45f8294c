#!/usr/bin/env python3
"""Makes fashion6.onnx: a small CNN that PyTorch trained on six of Fashion-MNIST's ten classes.

    python make_fashion6.py IDX_FOLDER OUT.onnx       needs torch and numpy; IDX_FOLDER holds train-images-idx3-ubyte.gz ...

scripts/demo.sh adapts the result to the other four classes. Kept: T-shirt, Trouser, Dress, Coat, Sneaker, Ankle boot
(labels 0 1 3 4 7 9); left for the demo: Pullover, Sandal, Shirt, Bag (2 5 6 8). Input: [N,1,28,28], pixels / 255.
"""
import gzip, sys
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F

KEPT = [0, 1, 3, 4, 7, 9]


def idx(path):
    data = gzip.open(path).read()
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


class SmallCNN(nn.Module):
    def __init__(self, classes):
        super().__init__()
        def block(i, o): return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.stem, self.body = block(1, 16), nn.Sequential(block(16, 32), nn.MaxPool2d(2), block(32, 48), nn.MaxPool2d(2), block(48, 96))
        self.fc = nn.Linear(96, classes)

    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1), 1))


def main(folder, out):
    torch.manual_seed(0); torch.set_num_threads(2)
    def split(part):
        x, y = idx(f"{folder}/{part}-images-idx3-ubyte.gz"), idx(f"{folder}/{part}-labels-idx1-ubyte.gz")
        keep = np.isin(y, KEPT)
        return torch.tensor(x[keep] / 255.0, dtype=torch.float32)[:, None], torch.tensor([KEPT.index(v) for v in y[keep]])
    x, y = split("train"); tx, ty = split("t10k")
    model = SmallCNN(len(KEPT)); epochs, size = 3, 128
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, epochs * (len(x) // size))
    for epoch in range(epochs):
        model.train(); order = torch.randperm(len(x))
        for i in range(len(x) // size):
            pick = order[i * size:(i + 1) * size]
            optimizer.zero_grad(); F.cross_entropy(model(x[pick]), y[pick]).backward(); optimizer.step(); schedule.step()
        model.eval()
        with torch.no_grad(): right = sum((model(tx[i:i + 500]).argmax(1) == ty[i:i + 500]).sum().item() for i in range(0, len(tx), 500))
        print(f"epoch {epoch + 1}: {right / len(tx):.4f} on the test pictures of the six classes", flush=True)
    torch.onnx.export(model.eval(), (tx[:2],), out, input_names=["image"], output_names=["logits"], dynamo=False, opset_version=17,
                      dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}})


if __name__ == "__main__":
    main(*sys.argv[1:3])
