"""Augmentation: from stored pixels to augmented, normalised float32 batches on the CPU."""

from __future__ import annotations

import dataclasses
import itertools
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.benches import paper_loader
from pipeline.benches.base import Bench, Table, Way, compare, rate
from pipeline.benches.pictures import raw_folder
from pipeline.learn import augment, hardware
from pipeline.learn.samples import draws
from pipeline.paper import AUGMENT, OFF
from pipeline.spec import Augment, Blur, Jitter

TITLE = "augmented float32 batches of 16 on two cores, and each operation alone"
BATCH, THREADS = 16, 2
STILL = dataclasses.replace(
    AUGMENT, first_jitter=OFF, second_jitter=OFF, perspective_p=0.0, vertical_flip=0.0, horizontal_flip=0.0
)
ALWAYS = Jitter(p=1.0, brightness=0.0, contrast=0.0, saturation=0.0)
OPERATIONS = {
    "normalisation alone": STILL,
    "brightness": dataclasses.replace(STILL, first_jitter=dataclasses.replace(ALWAYS, brightness=0.2)),
    "contrast": dataclasses.replace(STILL, first_jitter=dataclasses.replace(ALWAYS, contrast=0.2)),
    "saturation": dataclasses.replace(STILL, first_jitter=dataclasses.replace(ALWAYS, saturation=0.2)),
    "hue": dataclasses.replace(STILL, first_jitter=dataclasses.replace(ALWAYS, hue=0.2)),
    "perspective": dataclasses.replace(STILL, first_jitter=ALWAYS, perspective_p=1.0),
    "rotation": dataclasses.replace(STILL, second_jitter=ALWAYS),
    "flip": dataclasses.replace(STILL, horizontal_flip=1.0),
    "greyscale": dataclasses.replace(STILL, grey=1.0),
    "blur": dataclasses.replace(STILL, blur=Blur(p=1.0, least=0.1, most=2.0, side=13)),
    "solarisation": dataclasses.replace(STILL, solarise=1.0),
}


def run(bench: Bench) -> list[Table]:
    """Pictures a second: the paper's augmentation beside its loader, then every operation on every picture."""
    size, steps = (64, 2) if bench.quick else (384, 16)
    folder, note = raw_folder(bench, 32 if bench.quick else 256)
    hardware.settle(hardware.Hardware(device="cpu", model="", precision="float32", threads=THREADS))
    paths = sorted(folder.rglob("*.jpg"))[:64]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path).resize((size, size))) for path in paths]))
    numbers = itertools.count()

    def ours(spec: Augment) -> float:
        def work() -> None:
            for step in range(steps):
                batch = pixels[torch.arange(step * BATCH, (step + 1) * BATCH) % len(pixels)]
                augment.augment(batch, spec, draws("bench", next(numbers)))

        return rate(steps * BATCH, work)

    out = torch.empty(BATCH, 3, size, size)

    def written() -> None:
        for step in range(steps):
            out.fill_(float(step))

    first = Way(name="ours, from uint8 pixels in memory", once=partial(ours, AUGMENT))
    peer = Way(name="Pillow and torchvision, raw files", role="peer", once=partial(_loader, folder, size))
    limit = Way(name="writing the float32 bytes", role="limit", once=lambda: rate(steps * BATCH, written))
    alone = [Way(name=name, once=partial(ours, spec)) for name, spec in OPERATIONS.items()]
    return [
        compare(
            "augmentation",
            "images/s",
            [first, peer, limit],
            bench,
            notes=[
                f"{note}; batches of {BATCH} at {size} pixels, float32, normalised, the paper's augmentation",
                f"ours: pixels that were decoded before, {THREADS} threads; a run draws which pictures have their turn",
                "peer: pipeline/benches/paper_loader.py, two workers, decoding included, after its first batch",
            ],
        ),
        compare(
            "one operation on every picture",
            "images/s",
            alone,
            bench,
            notes=["normalisation is part of each row; hue, greyscale, blur and solarisation are DINO's or Table 9's"],
        ),
    ]


def _loader(folder: Path, size: int) -> float:
    """Pictures a second of the paper's loader after its first batch, which waits for the workers to start."""
    batches = iter(paper_loader.batches(folder, size=size, batch=BATCH))
    next(batches)
    started = time.perf_counter()
    taken = sum(len(batch) for batch in batches)
    return taken / (time.perf_counter() - started)
