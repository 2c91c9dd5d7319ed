"""Damaged and lying images of every format, from a seed: each is decoded right, or refused with a printable reason.

python tests/support/mutated.py --count 10000 --first 0        (CI tries a few hundred: tests/data/test_mutated.py)
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from messy import GOOD, encoded, image_of, tiff
from PIL import Image, ImageOps

from pipeline.core import files, memory
from pipeline.data import images
from pipeline.data.decoders import tiff as tiff_files
from pipeline.data.formats.files import Source
from pipeline.data.shards.transcode import ShardSettings, Transcoded, transcode
from pipeline.data.workers import Workers

SETTINGS = ShardSettings(size=16, split="image", format="png", quality=None, keep_names=False)
BUDGET = 400_000_000  # bytes that a worker may take
CHECKED = ("PNG",)  # formats with checksums of all that decides the pixels: any damage must be seen


class Mutated(NamedTuple):
    """A mutated file: what it was, what was done, and its bytes."""

    kind: str
    done: tuple[str, ...]
    data: bytes


@cache
def wholes() -> dict[str, bytes]:
    """An undamaged file of each kind."""
    rng = np.random.default_rng(7)
    image = image_of("naevus", rng).resize((96, 72))
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    more: dict[str, bytes] = {
        "interlaced": _interlaced(np.asarray(image)),
        "deflate tiff": encoded(image, "TIFF", compression="tiff_deflate"),
        "lzw tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "packbits tiff": encoded(image.convert("P"), "TIFF", compression="packbits"),
        "jpeg tiff": encoded(image, "TIFF", compression="jpeg"),
        "12-bit tiff": tiff(wide >> 4, bits=12),
        "big tiff": tiff(wide, big_endian=True),
        "webp": encoded(image, "WEBP"),
        "lossless webp": encoded(image, "WEBP", lossless=True),
        "gif": encoded(image.quantize(32), "GIF"),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
        "pgm": encoded(image.convert("L"), "PPM"),
        "mpo": encoded(image, "MPO", save_all=True, append_images=[image.rotate(180)]),
        "restarts": encoded(image, "JPEG", restart_marker_blocks=3),
        "1-bit png": encoded(image.convert("1"), "PNG"),
    }
    return {kind: encode(image) for kind, (_, encode) in GOOD.items()} | more


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG of [h, w, 3]; Pillow writes none."""
    height, width = pixels.shape[:2]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, right, down in passes for row in pixels[y::down, x::right])
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


# --- What is done to a file ------------------------------------------------------------------------------------------


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _cut_with_an_end(data: bytearray, rng: random.Random) -> bytes:
    end = next(
        (bytes(data[-size:]) for start, size in ((b"\x89", 12), (b"\xff\xd8", 2)) if data.startswith(start)), b";"
    )
    return bytes(data[: rng.randrange(len(data))]) + end


def _zero(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    size = min(rng.choice([16, 256, 4096, len(data)]), len(data) - start)
    data[start : start + size] = bytes(size)
    return bytes(data)


def _swap(data: bytearray, rng: random.Random) -> bytes:
    """Two parts of the file, PNG's chunks where it has them."""
    places = [0, *sorted(rng.sample(range(1, len(data)), min(4, len(data) - 1))), len(data)]
    if data.startswith(b"\x89PNG"):
        places, at = [0, 8], 8
        while at + 12 <= len(data):
            at += 12 + int.from_bytes(data[at : at + 4], "big")
            places.append(at)
    parts = [bytes(data[start:end]) for start, end in zip(places, places[1:], strict=False)]
    one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return b"".join(parts)


def _lie(data: bytearray, rng: random.Random) -> bytes:
    """The header claims another size, depth or colour; checksums fit."""
    number = rng.choice([0, 1, 2, 7, 71, 73, 95, 97, 255, 4096, 20_000, 65_535, 250_000_000, 2**31 - 1])
    if data.startswith(b"\x89PNG"):
        place = rng.choice([16, 20])
        data[place : place + 4] = number.to_bytes(4, "big")
        if rng.random() < 0.3:
            data[rng.randrange(24, 29)] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16])
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif data.startswith(b"\xff\xd8"):
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        place = frame + rng.choice([5, 7])
        data[place : place + 2] = (number & 0xFFFF).to_bytes(2, "big")
    elif data[:2] in (b"II", b"MM"):
        return _edit_tag(data, rng)
    else:
        place = rng.randrange(min(len(data) - 4, 40))
        data[place : place + 4] = number.to_bytes(4, rng.choice(["big", "little"]))  # type: ignore[arg-type]
    return bytes(data)


def _edit_tag(data: bytearray, rng: random.Random) -> bytes:
    """One field of a TIFF's directory; other files get a random word."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0] if data[:2] in (b"II", b"MM") else len(data)
    if start + 2 > len(data):
        place = rng.randrange(len(data))
        data[place : place + 4] = rng.randbytes(4)
        return bytes(data)
    count = struct.unpack_from(f"{order}H", data, start)[0]
    place = start + 2 + 12 * rng.randrange(max(1, count)) + rng.choice([0, 2, 4, 8])
    value = rng.choice([0, 1, 2, 3, 5, 8, 16, 32, 255, 65_535, 2**20, 2**31, 2**32 - 1])
    data[place : place + 4] = (
        struct.pack(f"{order}I", value) if rng.random() < 0.7 else struct.pack(f"{order}HH", value & 65_535, 0)
    )
    return bytes(data)


def _double(data: bytearray, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return bytes(data[:end] + data[start:end] + data[end:])


def _prefix(data: bytearray, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\0", b"\n", b"\xff\xd8", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", b"P6 "]) + bytes(data)


def _append(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data) + rng.choice([bytes(200), bytes(data), rng.randbytes(50)])


WAYS: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "bits flipped": _flip,
    "cut": _cut,
    "cut, with an end": _cut_with_an_end,
    "zeros": _zero,
    "parts swapped": _swap,
    "lying header": _lie,
    "tag edited": _edit_tag,
    "a part twice": _double,
    "prefix": _prefix,
    "appended": _append,
}


def mutate(seed: int) -> Mutated:
    """A mutated file, always the same for a seed."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(wholes()))
    data, done = wholes()[kind], []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if data:
            way = rng.choice(sorted(WAYS))
            data, done = WAYS[way](bytearray(data), rng), [*done, way]
    return Mutated(kind, tuple(done), data)


# --- What must hold --------------------------------------------------------------------------------------------------


def judge(mutated: Mutated, answer: Transcoded | images.BadImage) -> str:
    """`written` or `refused`; raises `AssertionError` if the answer is none of both, or wrong pixels were written."""
    if isinstance(answer, images.BadImage):
        text = str(answer)
        assert text and text.isprintable() and "Traceback" not in text, (mutated[:2], text)
        assert "crashes the decoder" not in text, (mutated[:2], text)
        return "refused"
    stored = images.decode_stored(answer.data)
    with warnings.catch_warnings(), tiff_files.native_messages([]):
        warnings.simplefilter("ignore")
        assert (damage := _damage(mutated.data)) is None, (mutated[:2], damage)
        with Image.open(io.BytesIO(mutated.data)) as opened:
            format = opened.format
            if not opened.mode.startswith("I;16") and not tiff_files.has_wide_planes(opened):
                assert (stored == images.resize(_reference(opened), 16)).all(), mutated[:2]
    lying = {"lying header", "prefix", "tag edited"} & set(mutated.done)
    if format in CHECKED and not lying:
        whole = images.resize(images.decode(wholes()[mutated.kind]).pixels, 16)
        assert (stored == whole).all(), mutated[:2]
    return "written"


def _damage(data: bytes) -> str | None:
    """What an independent reader says of a file that was written; None if it is whole."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.format == "PNG":
                opened.verify()
            else:
                opened.load()
    except Exception as error:
        return None if _only_text_is_bad(data) else str(error)
    return None


def _reference(opened: Image.Image) -> np.ndarray:
    """Pillow's own way to upright RGB over black."""
    upright = ImageOps.exif_transpose(opened)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
    return np.asarray(upright.convert("RGB"))


def _only_text_is_bad(data: bytes) -> bool:
    """Whether a file is a PNG whose chunks that decide pixels have the right checksums."""
    place = 8 if data.startswith(b"\x89PNG") else len(data)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        fits = zlib.crc32(data[place + 4 : place + 8 + length]).to_bytes(4, "big") == data[place + 8 + length :][:4]
        if not fits and kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            return False
        if kind == b"IEND":
            return True
        place += 12 + length
    return False


def try_one(task: tuple[str, int]) -> tuple[Transcoded | images.BadImage, int]:
    """In a worker: the answer for a seed, by way of a file in a folder, and the most memory that the worker took."""
    folder, seed = task
    path = Path(folder) / f"{seed}.img"
    path.write_bytes(mutate(seed).data)
    try:
        answer = transcode((Source(path, files.sha256_file(path)), SETTINGS), memory=BUDGET)
    finally:
        path.unlink()
    status = Path("/proc/self/status").read_text()
    return answer, int(status.split("VmHWM:")[1].split()[0]) << 10


def run(seeds: range, workers: int = 1) -> tuple[Counter[str], int]:
    """Try all seeds in worker processes: how many were written and refused, and the most memory of a worker."""
    counts: Counter[str] = Counter()
    most = 0
    with tempfile.TemporaryDirectory() as folder, Workers(workers, seconds=60) as pool:
        answers = pool.map(try_one, [(folder, seed) for seed in seeds])
        for seed, found in zip(seeds, answers, strict=True):
            assert not isinstance(found, images.BadImage), (seed, mutate(seed)[:2], str(found))
            answer, took = found
            most = max(most, took)
            try:
                counts[judge(mutate(seed), answer)] += 1
            except AssertionError:
                print(f"seed {seed}", file=sys.stderr)
                raise
    assert most < BUDGET + memory.MAX_KEPT_BYTES
    return counts, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    counts, most = run(range(args.first, args.first + args.count), args.workers)
    print(
        f"{args.count} files from seed {args.first}: {counts['written']} written, {counts['refused']} refused, none "
        f"lost; a worker took at most {most / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
