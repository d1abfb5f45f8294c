#!/usr/bin/env python3
"""JPEGs that cost what photographs cost to decode: pictures.py OUT COUNT -> OUT/all/CLASS/NNNN.jpg, four classes in equal parts.

500 x 375, quality 90, about 60 kB: blurred noise of several scales (what photographs' spectra look like), and a tint and a grating whose
direction tells the class.
"""
import os, sys
import numpy as np
from PIL import Image

WIDTH, HEIGHT, CLASSES = 500, 375, ("bark", "grass", "sand", "water")


def noise(random, cell):
    small = random.normal(size=(HEIGHT // cell + 2, WIDTH // cell + 2, 3)).clip(-3, 3)
    layer = Image.fromarray(((small + 3) / 6 * 255).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
    return np.asarray(layer, np.float32) / 255 - 0.5


def picture(index, random):
    kind = index % len(CLASSES)
    total = sum(weight * noise(random, cell) for cell, weight in ((1, 0.12), (4, 0.25), (16, 0.4), (64, 0.6)))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    angle = kind * np.pi / len(CLASSES) + random.normal() * 0.1
    grating = np.sin((x * np.cos(angle) + y * np.sin(angle)) / random.uniform(3, 6))
    tint = np.eye(4, 3)[kind] * 0.15
    return Image.fromarray(((0.45 + total + 0.12 * grating[..., None] + tint).clip(0, 1) * 255).astype(np.uint8))


def main(out, count):
    for name in CLASSES:
        os.makedirs(os.path.join(out, "all", name), exist_ok=True)
    for i in range(count):
        path = os.path.join(out, "all", CLASSES[i % len(CLASSES)], f"{i:05d}.jpg")
        picture(i, np.random.default_rng(i)).save(path, quality=90)
    open(os.path.join(out, ".done"), "w").close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
