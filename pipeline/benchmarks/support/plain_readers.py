"""The plain loops over a hospital's files that most people write: pydicom, nibabel, openslide, webdataset, Pillow."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.benchmarks.support.shard_jobs import PROCESSES, in_forked_processes

TILE = 256
Reader = Callable[[Path], Iterator[Any]]
"""Gives the images of a file, uint8 [h, w] or [h, w, 3], one after another."""


def dicom(path: Path) -> Iterator[np.ndarray]:
    import pydicom
    from pydicom.pixels import apply_modality_lut

    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array
    if pixels.ndim == 2:
        values = apply_modality_lut(pixels, ds)
        pixels = (np.clip((values + 160) / 400, 0, 1) * 255).astype(np.uint8)
    yield pixels


def dicom_alone(path: Path) -> Iterator[np.ndarray]:
    import pydicom

    yield pydicom.dcmread(path).pixel_array


def nifti(path: Path) -> Iterator[np.ndarray]:
    import nibabel

    values = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata(dtype=np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    levels = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    for number in range(levels.shape[2]):
        yield levels[:, :, number].T[::-1, ::-1]


def nifti_alone(path: Path) -> Iterator[np.ndarray]:
    import nibabel

    values = np.asarray(nibabel.load(path).dataobj)
    yield from (values[:, :, number] for number in range(values.shape[2]))


def tiles(path: Path) -> Iterator[np.ndarray]:
    import openslide

    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                yield np.asarray(slide.read_region((left, top), 0, (TILE, TILE)).convert("RGB"))


def webdataset_images(path: Path) -> Iterator[np.ndarray]:
    import webdataset

    for (image,) in webdataset.WebDataset(str(path), shardshuffle=False).decode("pil").to_tuple("jpg"):
        yield np.asarray(image.convert("RGB"))


def jpegs_alone(path: Path) -> Iterator[np.ndarray]:
    import tarfile

    from pipeline.data import images

    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                file = tar.extractfile(member)
                assert file is not None
                yield images.decode(file.read()).pixels


def write_tars(paths: Sequence[Path], read: Reader, out: Path, size: int) -> None:
    """Two processes, each with every second file: read, resize with Pillow, JPEG, one tar each."""
    from webdataset import TarWriter

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    def work(number: int) -> None:
        with TarWriter(str(out / f"{number:06d}.tar")) as tar:
            for path in paths[number::PROCESSES]:
                for place, pixels in enumerate(read(path)):
                    small = Image.fromarray(pixels).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
                    data = io.BytesIO()
                    small.save(data, "JPEG", quality=95)
                    tar.write({"__key__": f"{path.stem.split('.')[0]}-{place}", "jpg": data.getvalue()})

    in_forked_processes(work)


def read_alone(paths: Sequence[Path], read: Reader) -> None:
    """Two processes, each with every second file, whose images are decoded and thrown away."""

    def work(number: int) -> None:
        for path in paths[number::PROCESSES]:
            for _ in read(path):
                pass

    in_forked_processes(work)
