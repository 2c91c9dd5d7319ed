"""Draw stand-ins of datasets: drawn images in the dataset's own layout, for tests and demos without the dataset.

Folders, names, tables, sizes in pixels, groups and class balance are the dataset's, as far as they are published
(`Dataset.published`, paper E.1.1). Each class is a coloured shape: no score on them says anything about the dataset.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data.datasets import brain_mri, toy
from pipeline.data.records import STANDIN_MARK, Dataset, Published

SHAPES = tuple(toy.COLOURS)
MIN_IMAGES = 10  # of a class, so that training, validation and test all have some
SAVE_OPTIONS: dict[str, dict[str, Any]] = {".jpg": {"quality": 90}, ".png": {"compress_level": 1}, ".tif": {}}


@dataclass(frozen=True)
class DrawnImage:
    """An image that is to be drawn."""

    path: str
    """Relative to the stand-in's folder."""
    classes: tuple[int, ...]
    """The classes it shows, as indices of the dataset's classes."""
    size: tuple[int, int]
    """Width and height."""
    mode: str = "RGB"
    is_mask: bool = False


Contents = tuple[list[DrawnImage], dict[str, list[str]]]
"""The images of a stand-in, and its tables: file name to lines."""


def draw_standin(dataset: Dataset, root: Path, *, scale: float, progress: Callable[..., Iterable[Any]]) -> None:
    """Draw a stand-in of `dataset` under `root`, with the share `scale` of its images.

    Every call draws the same images. A stopped drawing continues; a finished one stays as it is. Raises `ValueError`
    for a dataset without a stand-in, a folder that holds anything else and a scale outside (0, 1].
    """
    if dataset.name not in CONTENTS or dataset.published is None:
        raise ValueError(f"there is no stand-in of {dataset.name!r}; known: {', '.join(CONTENTS)}")
    if not 0 < scale <= 1:
        raise ValueError(f"--scale is {scale}; give a fraction above 0, 1 for all images")
    what = f"a stand-in of {dataset.name}, drawn by pipeline.standin at scale {scale:g}; not the dataset\n"
    mark = root / STANDIN_MARK
    if mark.exists():
        if mark.read_text(encoding="utf-8") != what:
            raise ValueError(f"{root} holds another stand-in ({mark.read_text().strip()}); give a folder of its own")
        return
    if root.exists() and any(root.iterdir()) and not (root / ".lock").exists():
        raise ValueError(f"{root} is not empty; give the stand-in a folder of its own")
    with files.lock(root / ".lock", what=str(root)):
        images, tables = CONTENTS[dataset.name](dataset.published, dataset.classes, scale)
        for image in progress(images, total=len(images), what="drawing"):
            path = root / image.path
            if not path.exists():
                rng = np.random.default_rng(derive("stand-in", dataset.name, image.path))
                with files.publish(path, durable=False) as file:
                    draw_image(image, len(dataset.classes), rng).save(
                        file, Image.registered_extensions()[path.suffix], **SAVE_OPTIONS[path.suffix]
                    )
        for name, lines in tables.items():
            files.write_text(root / name, "\n".join(lines) + "\n")
        files.write_text(mark, what)


def draw_image(image: DrawnImage, classes: int, rng: np.random.Generator) -> Image.Image:
    """Draw a shape for each class that the image shows: its shape is its index modulo four, its hue is its own."""
    if image.is_mask:
        mask = Image.new("L", (toy.SIDE, toy.SIDE))
        mask.paste(255, (toy.SIDE // 4,) * 2 + (toy.SIDE * 3 // 4,) * 2)
        return mask.resize(image.size)

    def draw_class(index: int) -> Image.Image:
        red, green, blue = (255 * part for part in colorsys.hsv_to_rgb(index / classes, 0.4, 0.8))
        return Image.fromarray(toy.draw(SHAPES[index % len(SHAPES)], rng, colour=(red, green, blue)))

    if len(image.classes) == 1:
        canvas = draw_class(image.classes[0])
    else:
        canvas = Image.fromarray(rng.normal(95, 20, (toy.SIDE, toy.SIDE, 3)).clip(0, 255).astype(np.uint8))
        cells = rng.permutation(9)
        third = toy.SIDE // 3
        for index, cell in zip(image.classes, cells, strict=False):
            row, column = divmod(int(cell), 3)
            canvas.paste(draw_class(index).resize((third, third)), (column * third, row * third))
    return canvas.resize(image.size, Image.Resampling.NEAREST).convert(image.mode)


def scaled_count(count: int, scale: float) -> int:
    """The share `scale` of `count`, but at least ten (or all, if there are fewer)."""
    return min(count, max(MIN_IMAGES, round(count * scale)))


def _is_chosen(count: int, total: int, position: int) -> bool:
    """Choose `count` of `total` positions, evenly spread."""
    return position * count // total != (position + 1) * count // total


def _isic(published: Published, classes: tuple[str, ...], scale: float) -> Contents:
    labels = [label for label, count in published.counts["all"].items() for _ in range(scaled_count(count, scale))]
    ids = np.random.default_rng(derive("stand-in", "isic")).permutation(len(labels))
    without_lesion = round(len(labels) * 2084 / 25331)  # as in the metadata
    lesions = round((len(labels) - without_lesion) * 11847 / 23247)  # the metadata's lesions, of the rows with one
    images, truth, facts = [], [], []
    with_lesion = 0
    for position, (label, number) in enumerate(zip(labels, ids, strict=True)):
        if _is_chosen(without_lesion, len(labels), position):
            key, lesion, size = f"ISIC_{number:07d}_downsampled", "", (1024, 768)
        else:
            lesion_number = with_lesion * lesions // (len(labels) - without_lesion)
            with_lesion += 1
            source, size = ("HAM", (600, 450)) if lesion_number % 9 < 4 else ("BCN", (1024, 1024))
            key, lesion = f"ISIC_{number:07d}", f"{source}_{lesion_number:07d}"
        path = f"ISIC_2019_Training_Input/{key}.jpg"
        images.append(DrawnImage(path, (classes.index(label),), size))
        truth.append(",".join([key, *("1.0" if name == label else "0.0" for name in (*classes, "UNK"))]))
        facts.append(f"{key},,,{lesion},")
    return images, {
        "ISIC_2019_Training_GroundTruth.csv": [",".join(["image", *classes, "UNK"]), *sorted(truth)],
        "ISIC_2019_Training_Metadata.csv": ["image,age_approx,anatom_site_general,lesion_id,sex", *sorted(facts)],
    }


def _brain_mri(published: Published, classes: tuple[str, ...], scale: float) -> Contents:
    images: list[DrawnImage] = []
    for split, counts in published.counts.items():
        for label, count in counts.items():
            for number in range(scaled_count(count, scale)):
                size = (512, 512) if label != "notumor" else (219 + 37 * number % 294, 234 + 53 * number % 279)
                folder = brain_mri.FOLDERS[split]
                path = f"{folder}/{label}/{brain_mri.key_of(split, label, number)}.jpg"
                mode = "L" if number % 9 < 4 else "RGB"  # about the shares in the delivered dataset
                images.append(DrawnImage(path, (classes.index(label),), size, mode))
    return images, {}


def _dermofit(published: Published, classes: tuple[str, ...], scale: float) -> Contents:
    images: list[DrawnImage] = []
    for index, (label, count) in enumerate(published.counts["all"].items()):
        for number in range(scaled_count(count, scale)):
            lesion = f"{chr(ord('A') + index)}{number - (number % 10 == 9)}"
            key = lesion + {8: "a", 9: "b"}.get(number % 10, "")  # every tenth is a second image of its lesion
            drawn = len(images) // 2  # 205 to 1020 pixels a side, no two of one size (E.1.1)
            size = (205 + 37 * drawn % 816, 205 + (101 * drawn + drawn // 816) % 816)
            images.append(DrawnImage(f"{label}/{key}/{key}.png", (index,), size))
            images.append(DrawnImage(f"{label}/{key}/{key}mask.png", (), size, is_mask=True))
    return images, {}


def _autoimmune(published: Published, classes: tuple[str, ...], scale: float) -> Contents:
    total = min(published.total, max(4 * MIN_IMAGES, round(published.total * scale)))
    rng = np.random.default_rng(derive("stand-in", "autoimmune"))
    shares = np.array([0.3, 0.25, 0.2, 0.45, 0.5])  # ASSUMED: nobody published how many images show a class
    marks = rng.random((total, len(classes))) < shares
    images, rows = [], []
    for number, row in enumerate(marks):
        name = f"{number:03d}.tif"
        images.append(DrawnImage(name, tuple(int(index) for index in np.flatnonzero(row)), published.smallest))
        rows.append(",".join([name, f"P{number * 7 // total + 1}", *(str(int(mark)) for mark in row)]))
    return images, {"pictures.csv": [",".join(["image", "patient", *classes]), *rows]}


CONTENTS: dict[str, Callable[[Published, tuple[str, ...], float], Contents]] = {
    "autoimmune": _autoimmune,
    "brain_mri": _brain_mri,
    "dermofit": _dermofit,
    "isic": _isic,
}
