"""Augmentation: from uint8 pixels in memory to augmented, normalised float32 batches on the CPU."""

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
from pipeline.benchmarks.support.base import Bench, Table, Way, compare, rate
from pipeline.benchmarks.support.load_peers import throughput
from pipeline.benchmarks.support.raw_images import raw_folder
from pipeline.learn import hardware
from pipeline.learn.augment import augment
from pipeline.learn.samples import draws
from pipeline.runs.spec import Augment
from pipeline.study.paper import AUGMENT, BLUR, OFF

TITLE = "augmented float32 batches on two cores, and each operation alone"
BATCH, THREADS = 16, 2
STILL = replace(AUGMENT, first_jitter=OFF, second_jitter=OFF, perspective_p=0.0, vertical_flip=0.0, horizontal_flip=0.0)
ALWAYS = replace(OFF, p=1.0)
OPERATIONS = {
    "none: to float32, normalised": STILL,
    "brightness": replace(STILL, first_jitter=replace(ALWAYS, brightness=0.2)),
    "contrast": replace(STILL, first_jitter=replace(ALWAYS, contrast=0.2)),
    "saturation": replace(STILL, first_jitter=replace(ALWAYS, saturation=0.2)),
    "hue": replace(STILL, first_jitter=replace(ALWAYS, hue=0.2)),
    "flip": replace(STILL, horizontal_flip=1.0),
    "perspective": replace(STILL, first_jitter=ALWAYS, perspective_p=1.0),
    "rotation": replace(STILL, second_jitter=ALWAYS),
    "greyscale": replace(STILL, grey=1.0),
    "blur": replace(STILL, blur=replace(BLUR, p=1.0)),
    "solarisation": replace(STILL, solarise=1.0),
}


def run(bench: Bench) -> list[Table]:
    """Images a second: the paper's augmentation beside its loader and torchvision's v2, then each operation."""
    size, count, least = (64, 64, 0.2) if bench.quick else (384, 256, 2.0)
    folder, note = raw_folder(bench, count)
    hardware.settle(hardware.Hardware(device="cpu", model="", precision="float32", threads=THREADS))
    pixels = _pixels(folder, size)
    steps = itertools.count()

    def ours(spec: Augment) -> float:
        def work() -> None:
            for batch in torch.split(pixels, BATCH):
                augment(batch, spec, draws("bench", next(steps)))

        work()  # the first pass makes the memory its own
        return rate(len(pixels), work)

    loader = partial(paper_loader.batches, folder, size=size, batch=BATCH)
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(AUGMENT.mean), list(AUGMENT.std))]
    transform = v2.Compose([*paper_loader.augmentation(v2), *last])

    def torchvision() -> None:
        for batch in torch.split(pixels, BATCH):
            torch.stack([transform(image.permute(2, 0, 1)) for image in batch])

    out = torch.empty(BATCH, 3, size, size)

    def written() -> None:
        for _ in torch.split(pixels, BATCH):
            out.fill_(1.0)

    ways = [
        Way(name="ours, uint8 in memory", once=partial(ours, AUGMENT)),
        Way(
            name="the paper's loader, raw files",
            once=partial(throughput, loader, least),
            role="peer",
        ),
        Way(name="torchvision v2, uint8 in memory", once=lambda: rate(len(pixels), torchvision), role="peer"),
        Way(name="writing the float32 bytes", once=lambda: rate(len(pixels), written), role="limit"),
    ]
    notes = [
        f"{note}; batches of {BATCH} at {size}×{size}, float32, normalised, the paper's augmentation",
        f"ours and v2: images decoded and resized before, {THREADS} threads; v2 an image at a time on uint8",
        "the paper's loader: Pillow and torchvision in two worker processes, decoding included, once they have started",
    ]
    alone = [Way(name=name, once=partial(ours, spec)) for name, spec in OPERATIONS.items()]
    apart = [
        "on every image; to float32 and normalised in every row",
        "hue, greyscale, blur and solarisation are DINO's or Table 9's",
    ]
    return [
        compare("augmentation", "images/s", ways, bench, notes=notes),
        compare("one operation", "images/s", alone, bench, notes=apart),
    ]


def _pixels(folder: Path, size: int) -> Tensor:
    """The images as the pixel map holds them: uint8 [n, size, size, 3]."""
    opened = (Image.open(path).convert("RGB").resize((size, size)) for path in sorted(folder.rglob("*.jpg")))
    return torch.from_numpy(np.stack([np.asarray(image) for image in opened]))
