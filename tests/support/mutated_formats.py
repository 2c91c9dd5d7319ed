"""Damaged DICOM, NIfTI and multi-page TIFF, from a seed: sharded, each file accounted for, no job ended.

python tests/support/mutated_formats.py --count 2000 --first 0        (CI tries some: tests/data/formats)
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

import hospital
import mutated
import nibabel
import numpy as np
import pydicom
from PIL import Image

from pipeline.core.console import silent
from pipeline.data.formats.reading import Reading
from pipeline.data.layouts import UserDataset
from pipeline.data.layouts.options import Options
from pipeline.data.shards import summary
from pipeline.data.shards.plan import make_plan
from pipeline.data.shards.transcode import ShardSettings
from pipeline.data.shards.write import write_shards

SETTINGS = ShardSettings(
    size=16,
    split="image",
    format="png",
    quality=None,
    keep_names=False,
    reading=Reading(frames="all", slices="all"),
)
DICOM = (
    *(
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
    ),
    *("MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_rle_16bit.dcm"),
    *("SC_rgb_rle_2frame.dcm", "SC_ybr_full_422_uncompressed.dcm", "image_dfl.dcm", "examples_palette.dcm"),
    *(
        "dicomdirtests/77654033/CR1/6154",
        "JPGExtended.dcm",
        "dicomdirtests/DICOMDIR",
        "test-SR.dcm",
        "SC_rgb_gdcm_KY.dcm",
    ),
)
NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 255, 256, 4095, 65_535, 0x7FFF, 0xFFFE)


@cache
def wholes() -> dict[str, bytes]:
    """An undamaged file of each kind."""
    out = {name: (hospital.test_files() / name).read_bytes() for name in DICOM}
    rng = np.random.default_rng(3)
    values = rng.integers(-100, 900, (12, 10, 4)).astype(np.int16)
    out["nifti"] = nibabel.Nifti1Image(values, np.diag([-1, 1, 1, 1])).to_bytes()
    out["nifti 2"] = nibabel.Nifti2Image(values.astype(np.float32), np.eye(4)).to_bytes()
    with tempfile.TemporaryDirectory() as folder:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), Path(folder) / "1.nii.gz")
        out["packed nifti"] = (Path(folder) / "1.nii.gz").read_bytes()
    pages = [Image.fromarray(rng.integers(0, 255, (20, 16, 3), np.uint8)) for _ in range(3)]
    for compression in ("raw", "tiff_deflate", "tiff_lzw"):
        file = io.BytesIO()
        pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], compression=compression)
        out[f"{compression} pages"] = file.getvalue()
    file = io.BytesIO()
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:])
    out["gif"] = file.getvalue()
    return out


def _lie(data: bytearray, rng: random.Random) -> bytes:
    """A small number in the first kilobytes becomes another; in DICOM often the value of an element of group 28."""
    place = rng.randrange(min(len(data) - 2, 4000))
    if (found := data.find(b"\x28\x00", rng.randrange(len(data)))) > 0 and rng.random() < 0.7:
        place = min(found + rng.choice([2, 4, 6, 8]), len(data) - 2)
    struct.pack_into(rng.choice("<>") + "H", data, place, rng.choice(NUMBERS))
    return bytes(data)


WAYS = {name: way for name, way in mutated.WAYS.items() if name not in ("lying header", "tag edited")} | {
    "number changed": _lie
}


@cache
def _id_of(name: str) -> bytes:
    """The id of a whole file's image; of two files with one id none would be decoded."""
    if name not in DICOM:
        return b""
    return str(
        pydicom.dcmread(io.BytesIO(wholes()[name]), specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID", "")
    ).encode()


def mutate(seed: int) -> bytes:
    """A mutated file, always the same for a seed."""
    rng = random.Random(seed)
    name = rng.choice(sorted(wholes()))
    data, id = wholes()[name], _id_of(name)
    if len(id) > 20:
        data = data.replace(id, id[:-6] + f"{seed + 100_000:06d}".encode())
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if len(data) > 4:
            data = WAYS[rng.choice(sorted(WAYS))](bytearray(data), rng)
    return data


def run(seeds: range, *, workers: int = 2) -> Counter[str]:
    """Shard the files of some seeds; returns what became of the files, and raises `AssertionError` if one is lost."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        (raw / "whole.dcm").write_bytes(wholes()["CT_small.dcm"])
        for seed in seeds:
            (raw / f"{seed}.bin").write_bytes(mutate(seed) or b"\0")
        dataset = UserDataset("mutated", "dicom", Options(volumes=True))
        plan = make_plan(dataset, raw, SETTINGS, workers=workers, progress=silent)
        shards = write_shards(plan, Path(folder) / "out", workers=workers, max_bad=1, strict=False, progress=silent)
        said = summary.account(plan, shards.manifest["quarantined"])
        became: dict[str, set[str]] = {}
        counts: Counter[str] = Counter()
        for line in said:
            assert line.replace("\t", " ").isprintable(), line
            what, why, name = line.split("\t")
            became.setdefault(name.split(" (file ")[0].split(" (unread")[0].split(", image ")[0], set()).add(what)
            if "crashes the decoder" in why or "processor time" in why:
                counts[why] += 1
        lost = [seed for seed in seeds if f"{seed}.bin" not in became]
        assert not lost, lost
        for name in became:
            counts["written" if "written" in became[name] else min(became[name])] += 1
        counts["images written"] = len(shards.rows["key"])
        return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    counts = run(range(args.first, args.first + args.count))
    print(dict(counts), f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
