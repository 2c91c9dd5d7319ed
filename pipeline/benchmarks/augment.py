"""Augmentation: from uint8 pixels in memory to augmented and normalised float32 batches on the CPU."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from pipeline.benchmarks.support import paper_loader
from pipeline.benchmarks.support.load_peers import throughput
from pipeline.benchmarks.support.measure import Case, Settings, compare, rate
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.benchmarks.support.tables import Table
from pipeline.learn import hardware
from pipeline.learn.augment import augment
from pipeline.learn.samples import draws
from pipeline.runs.spec import Augment
from pipeline.study.paper import AUGMENT, BLUR, OFF

TITLE = "augmented float32 batches on two cores, and each operation alone"
BATCH, THREADS = 16, 2
CONVERT = replace(
    AUGMENT, first_jitter=OFF, second_jitter=OFF, perspective_p=0.0, vertical_flip=0.0, horizontal_flip=0.0
)
ALWAYS = replace(OFF, p=1.0)
OPERATIONS = {
    "none: to float32, normalised": CONVERT,
    "brightness": replace(CONVERT, first_jitter=replace(ALWAYS, brightness=0.2)),
    "contrast": replace(CONVERT, first_jitter=replace(ALWAYS, contrast=0.2)),
    "saturation": replace(CONVERT, first_jitter=replace(ALWAYS, saturation=0.2)),
    "hue": replace(CONVERT, first_jitter=replace(ALWAYS, hue=0.2)),
    "flip": replace(CONVERT, horizontal_flip=1.0),
    "perspective": replace(CONVERT, first_jitter=ALWAYS, perspective_p=1.0),
    "rotation": replace(CONVERT, second_jitter=ALWAYS),
    "greyscale": replace(CONVERT, grey=1.0),
    "blur": replace(CONVERT, blur=replace(BLUR, p=1.0)),
    "solarisation": replace(CONVERT, solarise=1.0),
}


def run(settings: Settings) -> list[Table]:
    """Images a second: the paper's augmentation compared with its loader and torchvision's v2; each operation alone."""
    size, count, min_seconds = (64, 2 * BATCH, 0.01) if settings.quick else (384, 256, 2.0)
    folder, note = raw_folder(settings, count)
    hardware.make_deterministic(hardware.Hardware(device="cpu", model="", precision="float32", threads=THREADS))
    pixels = _pixels(folder, size)
    steps = itertools.count()

    def ours(spec: Augment) -> float:
        def work() -> None:
            for batch in torch.split(pixels, BATCH):
                augment(batch, spec, draws("bench", next(steps)))

        work()  # the first pass allocates the memory
        return rate(len(pixels), work)

    loader = partial(paper_loader.batches, folder, size=size, batch=BATCH)
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(AUGMENT.mean), list(AUGMENT.std))]
    transform = v2.Compose([*paper_loader.augmentation(v2), *last])

    def with_torchvision() -> None:
        for batch in torch.split(pixels, BATCH):
            torch.stack([transform(image.permute(2, 0, 1)) for image in batch])

    out = torch.empty(BATCH, 3, size, size)

    def write() -> None:
        for _ in torch.split(pixels, BATCH):
            out.fill_(1.0)

    cases = [
        Case(name="ours, uint8 in memory", measure=partial(ours, AUGMENT)),
        Case(name="the paper's loader, raw files", measure=partial(throughput, loader, min_seconds), role="peer"),
        Case(name="torchvision v2, uint8 in memory", measure=lambda: rate(len(pixels), with_torchvision), role="peer"),
        Case(name="writing the float32 bytes", measure=lambda: rate(len(pixels), write), role="limit"),
    ]
    notes = [
        f"{note}; batches of {BATCH} at {size}×{size}, float32, normalised, the paper's augmentation",
        f"ours and v2: images are decoded and resized before, {THREADS} threads; v2 augments one uint8 image at a time",
        "the paper's loader: Pillow and torchvision in two worker processes; includes decoding, excludes their start",
    ]
    single = [Case(name=name, measure=partial(ours, spec)) for name, spec in OPERATIONS.items()]
    single_notes = [
        "each operation on every image; all rows include conversion to float32 and normalisation",
        "hue, greyscale, blur and solarisation belong to DINO or to Table 9",
    ]
    return [
        compare("augmentation", "images/s", cases, settings, notes=notes),
        compare("one operation", "images/s", single, settings, notes=single_notes),
    ]


def _pixels(folder: Path, size: int) -> Tensor:
    """The images in the form of the pixel map: uint8 [n, size, size, 3]."""
    opened = (Image.open(path).convert("RGB").resize((size, size)) for path in sorted(folder.rglob("*.jpg")))
    return torch.from_numpy(np.stack([np.asarray(image) for image in opened]))
