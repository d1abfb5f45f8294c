#!/usr/bin/env python3
"""Small files that the tests of data/ read, with what numpy and Pillow make of them.

    python tests/make_data_fixtures.py        needs numpy and Pillow; writes tests/data/

pictures:  one file a feature (grey, CMYK, EXIF orientation, 16 bits, alpha, palette, interlaced) and pictures.npz with the
           pixels expected (JPEG as Pillow decodes it; PNG by arithmetic where Pillow and we differ: alpha over white)
resize:    resize.npz: one source, and Pillow's resize of it at several sizes, filters and boxes; the names say which
labels:    labels.npz: two labels a picture, in bytes
arrays:    arrays.npz, *.npy: types, byte orders, Fortran order, header versions
"""
import gzip, io, os, struct
import numpy as np
from PIL import Image

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
os.makedirs(here, exist_ok=True)
path = lambda name: os.path.join(here, name)


def scene(w, h, seed=0):
    """Smooth waves with some noise and hard edges: what a filter can get wrong."""
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([128 + 100 * np.sin(x / 3 + y / 7), 128 + 100 * np.cos(y / 4 - x / 11), (x * 5 + y * 3) % 256], -1)
    a[h // 3:h // 2, w // 4:w // 2] = (250, 10, 30)
    a += np.random.default_rng(seed).normal(0, 8, a.shape)
    return np.clip(a, 0, 255).astype(np.uint8)


def pictures():
    rgb = scene(40, 24); grey = rgb[..., 0]; expect = {}
    def jpeg(name, image, **kw):
        image.save(path(name + ".jpg"), quality=90, **kw)
        expect[name] = np.asarray(Image.open(path(name + ".jpg")).convert("L" if image.mode == "L" else "RGB"))
    jpeg("rgb", Image.fromarray(rgb)); jpeg("grey", Image.fromarray(grey)); jpeg("progressive", Image.fromarray(rgb), progressive=True)
    jpeg("cmyk", Image.fromarray(rgb).convert("CMYK"))
    for o in range(1, 9):
        exif = Image.Exif(); exif[0x0112] = o
        image = Image.fromarray(rgb[:16, :24]); image.save(path("orientation%d.jpg" % o), quality=95, subsampling=0, exif=exif)
        from PIL import ImageOps
        expect["orientation%d" % o] = np.asarray(ImageOps.exif_transpose(Image.open(path("orientation%d.jpg" % o))))
    def png(name, pixels, image=None, **kw):
        image.save(path(name + ".png"), **kw); expect[name] = pixels
    png("png_rgb", rgb, Image.fromarray(rgb)); png("png_grey", grey, Image.fromarray(grey))
    alpha = np.linspace(0, 255, grey.size).reshape(grey.shape).round().astype(np.uint8)
    over = lambda v: ((v.astype(int) * alpha.astype(int)[(...,) + (None,) * (v.ndim - 2)] + 255 * (255 - alpha.astype(int)[(...,) + (None,) * (v.ndim - 2)]) + 127) // 255).astype(np.uint8)
    png("png_alpha", over(rgb), Image.fromarray(np.dstack([rgb, alpha])))
    png("png_grey_alpha", over(grey), Image.fromarray(np.dstack([grey, alpha]), "LA"))
    palette = Image.fromarray(rgb).quantize(16); png("png_palette", np.asarray(palette.convert("RGB")), palette)
    two = Image.fromarray(((grey > 128) * 255).astype(np.uint8)).convert("1"); png("png_two", (np.asarray(two) * 255).astype(np.uint8), two)
    wide = (grey.astype(np.uint16) << 8) | 0x5A; png("png_16", grey, Image.fromarray(wide))
    np.savez_compressed(path("pictures.npz"), **expect)
    whole = open(path("rgb.jpg"), "rb").read(); open(path("cut.jpg"), "wb").write(whole[:len(whole) * 2 // 3])
    whole = open(path("png_rgb.png"), "rb").read(); open(path("cut.png"), "wb").write(whole[:len(whole) // 2])


def resize():
    source = scene(61, 47, 1); out = {"source_rgb": source, "source_grey": source[..., 1]}
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
    for kind in ("rgb", "grey"):
        image = Image.fromarray(out["source_" + kind])
        for f, code in filters.items():
            for w, h in [(20, 20), (61, 15), (30, 47), (61, 47), (90, 70), (1, 1), (64, 51)]:   # Pillow 13 filters down first where height shrinks more than width; all before, and we, never do
                out["%s %s %d %d 0 0 61 47" % (kind, f, w, h)] = np.asarray(image.resize((w, h), code))
            for w, h, box in [(16, 16, (5, 3, 45, 40)), (32, 20, (10.5, 2.25, 50.75, 33.5)), (25, 25, (20, 20, 30, 30))]:
                out["%s %s %d %d %s" % (kind, f, w, h, " ".join("%g" % b for b in box))] = np.asarray(image.resize((w, h), code, box))
    np.savez_compressed(path("resize.npz"), **out)


def arrays():
    g = np.random.default_rng(2); a = {}
    for t in ("b1", "i1", "u1", "<i2", ">i2", "<u4", "<i8", ">i8", "<f2", "<f4", ">f4", "<f8", "<c8"):
        a["type_" + t.strip("<").replace(">", "big_")] = (np.arange(6) * 1.25 - 2).astype(t).reshape(2, 3) if t[-2] not in "ub" else np.array([[0, 1, 2], [3, 0, 1]]).astype(t)
    a["fortran"] = np.asfortranarray(np.arange(24, dtype="<f4").reshape(2, 3, 4)); a["scalar"] = np.float32(2.5)
    a["empty"] = np.zeros((0, 3), "<f4"); a["text"] = np.array(["ants", "bées", ""]); a["bytes"] = np.array([b"ab", b"c"])
    np.savez_compressed(path("arrays.npz"), **a); np.savez(path("stored.npz"), x=np.arange(5, dtype="<i4"), y=np.arange(3, dtype="u1"))
    x = np.arange(6, dtype="<i4").reshape(2, 3)
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(path("version%d.npy" % version[0]), "wb") as f: np.lib.format.write_array(f, x, version=version)
    np.save(path("objects.npy"), np.array([{}], dtype=object), allow_pickle=True)


def idx():
    def write(name, a, code, zipped):
        data = struct.pack(">HBB", 0, code, a.ndim) + struct.pack(">%dI" % a.ndim, *a.shape) + a.tobytes()
        with (gzip.GzipFile(path(name), "wb", mtime=0) if zipped else open(path(name), "wb")) as f: f.write(data)
    pixels = np.arange(12 * 4 * 4, dtype=np.uint8).reshape(12, 4, 4); labels = np.arange(12, dtype=np.uint8) % 3
    os.makedirs(path("idx"), exist_ok=True)
    write("idx/train-images-idx3-ubyte.gz", pixels, 8, True); write("idx/train-labels-idx1-ubyte.gz", labels, 8, True)
    write("idx/t10k-images-idx3-ubyte", pixels[:6], 8, False); write("idx/t10k-labels-idx1-ubyte", labels[:6], 8, False)


def labels():  # several of bytes a picture, as ChestMNIST has them: bright on the left, bright above
    g = np.random.default_rng(4)
    pixels = g.integers(0, 120, (32, 8, 8), dtype=np.uint8); y = (np.arange(64).reshape(32, 2) >> np.array([1, 2]) & 1).astype(np.uint8)
    pixels[:, :, :4] += 100 * y[:, 0, None, None]; pixels[:, :4, :] += 35 * y[:, 1, None, None]
    np.savez_compressed(path("labels.npz"), train_images=pixels[:24], train_labels=y[:24], test_images=pixels[24:], test_labels=y[24:])


pictures(); resize(); arrays(); idx(); labels()
