"""Generate 200 images with every kind of bad input among them, like the folder of a hospital.

python tests/support/messy.py DIR
python -m pipeline.shard messy --layout csv --raw DIR --max-bad 0.5
"""

from __future__ import annotations

import csv
import io
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 200
CLASSES = ("keratosis", "melanoma", "naevus")
COLOURS = {"keratosis": (200, 160, 90), "melanoma": (90, 50, 40), "naevus": (170, 90, 60)}
SECRET = "Jane Doe"


@dataclass
class Messy:
    """The contents of a messy folder: usable files, rows that must be quarantined, images without a label."""

    good: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    """File and a part of its reason, one entry a row of the CSV."""
    unlabelled: list[str] = field(default_factory=list)
    """The files in `good` that have no label."""
    twins: int = 0
    """How many good files are byte-identical to another one."""

    @property
    def total(self) -> int:
        """The number of rows and of images without a row."""
        return len(self.good) + len(self.bad)


def tiff(pixels: np.ndarray, *, photometric: int = 1, big_endian: bool = False, bits: int = 0) -> bytes:
    """An uncompressed TIFF of any integer or float pixels [h, w] or [h, w, 3]; `bits=12` packs two in three bytes.

    It is written by hand because Pillow writes neither 16-bit RGB nor images whose zero is white.
    """
    order = ">" if big_endian else "<"
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(np.uint32)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    else:
        bits = pixels.dtype.itemsize * 8
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [2 if channels == 3 else photometric]),
        (273, "I", [0]),  # the offset of the pixels, set below
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(data)]),
        (339, "H", [kind] * channels),
    ]
    after = 8 + 2 + 12 * len(tags) + 4
    body, extra = b"", b""
    start = after + sum(len(values) * 2 for _, code, values in tags if code == "H" and len(values) > 2)
    for tag, code, values in tags:
        values = [start] if tag == 273 else values
        raw = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(raw) > 4:
            value = struct.pack(f"{order}I", after + len(extra))
            extra += raw
        else:
            value = raw.ljust(4, b"\0")
        body += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[code], len(values)) + value
    head = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + body + struct.pack(f"{order}I", 0) + extra + data


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _exif(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[274] = 6  # on its side
    exif[315] = SECRET
    return encoded(image, "JPEG", exif=exif)


def _palette(image: Image.Image) -> bytes:
    return encoded(image.quantize(16), "PNG", transparency=0)


def _alpha(image: Image.Image) -> bytes:
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(clear, "PNG")


def _wide(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(np.uint16) * 257


GOOD: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "jpeg": ("jpg", lambda p: encoded(p, "JPEG")),
    "progressive": ("jpg", lambda p: encoded(p, "JPEG", progressive=True)),
    "cmyk": ("jpg", lambda p: encoded(p.convert("CMYK"), "JPEG")),
    "grey jpeg": ("jpeg", lambda p: encoded(p.convert("L"), "JPEG")),
    "exif": ("JPG", _exif),
    "png": ("png", lambda p: encoded(p, "PNG")),
    "palette": ("png", _palette),
    "alpha": ("png", _alpha),
    "16-bit png": ("png", lambda p: encoded(Image.fromarray(_wide(p)), "PNG")),
    "tiff": ("tif", lambda p: encoded(p, "TIFF")),
    "grey tiff": ("tif", lambda p: encoded(p.convert("L"), "TIFF")),
    "16-bit tiff": ("tiff", lambda p: encoded(Image.fromarray(_wide(p)), "TIFF")),
    "16-bit rgb tiff": ("tiff", lambda p: tiff(np.asarray(p).astype(np.uint16) * 257)),
}


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _pages(image: Image.Image) -> bytes:
    return encoded(image, "TIFF", save_all=True, append_images=[image.rotate(90)])


# for each kind its extension, its bytes and a part of the reason in its quarantine entry
BAD: dict[str, tuple[str, Callable[[Image.Image], bytes], str]] = {
    "broken": ("png", lambda p: encoded(p, "PNG")[:60] + bytes(5000), "is damaged: the checksum of its part IDAT"),
    "truncated jpeg": (
        "jpg",
        lambda p: _half(encoded(p, "JPEG", quality=95)),
        "is damaged: premature end",
    ),
    "truncated png": ("png", lambda p: _half(encoded(p, "PNG")), "truncated"),
    "truncated tiff": ("tif", lambda p: _half(encoded(p, "TIFF")), "truncated"),
    "empty": ("jpg", lambda p: b"", "is empty"),
    "text": ("jpg", lambda p: b"Dear colleague, please find the images enclosed.\n", "no image format known"),
    "pdf": ("png", lambda p: b"%PDF-1.7\n" + bytes(300), "is PDF, which is not read here"),
    "dicom": ("dcm", lambda p: bytes(128) + b"DICM" + bytes(300), "is DICOM"),
    "dicom in disguise": ("jpg", lambda p: bytes(128) + b"DICM" + bytes(300), "is DICOM"),
    "pages": ("tif", _pages, "holds 2 images"),
    "float": ("tif", lambda p: encoded(p.convert("F"), "TIFF"), "32-bit"),
}


def image_of(label: str, rng: np.random.Generator) -> Image.Image:
    """A coloured blob on skin, 48 × 36."""
    y, x = np.mgrid[0:36, 0:48]
    inside = np.hypot(x - rng.uniform(16, 32), y - rng.uniform(12, 24)) < rng.uniform(6, 12)
    pixels = np.full((36, 48, 3), (225, 190, 170), dtype=np.float64)
    pixels[inside] = COLOURS[label]
    return Image.fromarray((pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


def make(root: Path) -> Messy:
    """Write the 200 images and `images.csv` (image, label, patient, split) under `root`, always the same ones."""
    rng = np.random.default_rng(2019)
    messy = Messy()
    rows: list[tuple[str, str, str, str]] = []
    made = 0

    def write(folder: str, suffix: str, data: bytes) -> str:
        nonlocal made
        path = root / folder / f"{SECRET.replace(' ', '_')}_{made:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made += 1
        return str(path.relative_to(root))

    def good(kind: str, label: str, *, split: str = "", data: bytes | None = None) -> tuple[str, bytes]:
        suffix, encode = GOOD[kind]
        data = encode(image_of(label, rng)) if data is None else data
        name = write(label, suffix, data)
        messy.good.append(name)
        rows.append((name, label, f"{SECRET} {made // 4}", split))
        return name, data

    for label in CLASSES:  # every bad kind in every class
        for suffix, encode, reason in BAD.values():
            name = write(label, suffix, encode(image_of(label, rng)))
            rows.append((name, label, f"{SECRET} {made // 4}", ""))
            messy.bad.append((name, reason))
        rows.append((f"{label}/never_delivered.jpg", label, "", ""))
        messy.bad.append((f"{label}/never_delivered.jpg", "no such file"))

    name, _ = good("jpeg", "naevus")  # the same row twice: the first one stays
    rows.append(rows[-1])
    messy.bad.append((name, "the same row again"))
    for wrong in (("image", "melanoma", "", ""), ("image", "naevus", "", "test")):  # contradicting rows: none stays
        name, _ = good("png", "naevus")
        messy.good.remove(name)
        rows.append((name, *wrong[1:]))
        messy.bad += [(name, "with differing rows")] * 2
    name, _ = good("jpeg", "keratosis", split="holdout")
    messy.good.remove(name)
    messy.bad.append((name, "split 'holdout' is none of train, val, test"))
    name, _ = good("jpeg", "keratosis")
    messy.good.remove(name)
    rows[-1] = (name, "keratosis|naevus", "", "")
    messy.bad.append((name, "2 classes in one row: keratosis, naevus"))

    for number in range(6):  # byte-identical files with two names
        _, data = good("jpeg", CLASSES[number % 3])
        good("jpeg", CLASSES[number % 3], data=data)
        messy.twins += 2
    for number in range(16):  # without a label: an empty cell or no row
        name = write("unlabelled", "jpg", GOOD["jpeg"][1](image_of(CLASSES[number % 3], rng)))
        messy.good.append(name)
        messy.unlabelled.append(name)
        if number % 2:
            rows.append((name, "", "", ""))
    while made < IMAGES:
        good(list(GOOD)[made % len(GOOD)], CLASSES[made % 3])

    with open(root / "images.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "patient", "split"), *rows])
    return messy


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    contents = make(Path(sys.argv[1]))
    print(f"{IMAGES} images: {len(contents.good)} usable, {len(contents.unlabelled)} of them without a label;")
    print(f"{len(contents.bad)} of {contents.total} rows will be quarantined. Next:")
    print(f"python -m pipeline.shard messy --layout csv --raw {sys.argv[1]} --max-bad 0.5")
