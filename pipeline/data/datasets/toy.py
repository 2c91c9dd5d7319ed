"""Generated images, learnable but not trivial: `python -m pipeline.shard toy` makes and shards them.

Each image shows one bright shape (disc, ring, square or cross) of random size, position and rotation over textured
noise with a distractor line. The colours of the classes differ on average and overlap. The classes are unbalanced and
a fifth of the images has no label. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset, Listing

COLOURS = {"disc": (210, 140, 130), "ring": (140, 205, 140), "square": (140, 145, 215), "cross": (205, 205, 130)}
COUNTS = {"disc": 260, "ring": 200, "square": 160, "cross": 100, "unlabelled": 180}
SIDE = 96


class Toy(Dataset):
    name = "toy"
    classes = ("cross", "disc", "ring", "square")
    task = "multi-class"
    metric = "balanced_accuracy"
    label_fractions = (0.1, 1.0)
    obtain = "It is generated: omit --raw."

    def listing(self, root: Path) -> Listing:
        listing = UserDataset(self.name, "folder").listing(root)
        return replace(listing, passed_over=())  # the files that `generate` keeps for itself

    def generate(self, root: Path) -> None:
        """Draw the images under `root`, always the same ones; does nothing if the folder is complete."""
        done = root / ".complete"
        if done.exists():
            return
        with files.lock(root / ".lock", patience=60, what=str(root)):
            if done.exists():  # drawn meanwhile, perhaps by another user
                return
            for label, count in COUNTS.items():
                for number in range(count):
                    rng = np.random.default_rng(derive("toy", label, number))
                    shape = label if label in self.classes else str(rng.choice(self.classes))
                    with files.publish(root / label / f"{number:04d}.png", durable=False) as file:
                        Image.fromarray(draw(shape, rng)).save(file, "PNG")
            files.write_text(done, "all images are drawn\n")


def draw(shape: str, rng: np.random.Generator, *, colour: tuple[float, float, float] | None = None) -> np.ndarray:
    """One image of `shape`, uint8 [SIDE, SIDE, 3]; `colour` (default: the shape's own) is the mean of its pixels."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    radius = rng.uniform(0.15, 0.3)
    centre_x, centre_y = rng.uniform(-0.18, 0.18, size=2)
    angle = rng.uniform(0, np.pi)
    u = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
    v = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
    far, box = np.hypot(u, v), np.maximum(abs(u), abs(v))
    inside = {
        "disc": far < radius,
        "ring": (far < radius) & (far > 0.55 * radius),
        "square": box < 0.85 * radius,
        "cross": (box < radius) & (np.minimum(abs(u), abs(v)) < 0.3 * radius),
    }[shape]
    coarse = Image.fromarray(rng.uniform(60, 140, (8, 8)).astype(np.uint8)).resize((SIDE, SIDE))
    image = np.asarray(coarse, dtype=np.float64)[..., None] * rng.uniform(0.7, 1.1, 3)
    line = abs(np.cos(angle + 1) * x + np.sin(angle + 1) * y - rng.uniform(-0.4, 0.4)) < 0.015
    image[line] *= 0.5
    image[inside] = image[inside] * 0.35 + 0.65 * rng.normal(colour or COLOURS[shape], 35)
    image += rng.normal(0, 14, image.shape)
    return image.clip(0, 255).astype(np.uint8)


DATASET = Toy()
