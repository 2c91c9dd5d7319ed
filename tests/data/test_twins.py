"""Near twins: found as by brute force; what counts as a twin, on drawn images and on real ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.fft import dctn

from pipeline.core.seeds import derive
from pipeline.data import sketches, twins


def smooth_noise(count: int, seed: int, side: int = 64) -> np.ndarray:
    """Random images with detail at several scales: uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, side, side))
    for cells in (4, 8, 16, 32):
        out += np.kron(rng.uniform(0, 60, (count, cells, cells)), np.ones((side // cells, side // cells)))
    return np.repeat(out.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two details, with SciPy's DCT."""
    details = []
    for grey in (a, b):
        found = dctn(grey.astype(float), norm="ortho")
        found[: sketches.LOW, : sketches.LOW] = 0
        details.append(found.ravel() / np.linalg.norm(found))
    return float(details[0] @ details[1])


def brute_force(thumbnails: np.ndarray) -> set[tuple[int, int, str]]:
    flips = {
        "as it is": lambda x: x,
        "left to right": lambda x: x[:, ::-1],
        "upside down": lambda x: x[::-1],
        "by half a turn": lambda x: x[::-1, ::-1],
    }
    return {
        (i, j, name)
        for i in range(len(thumbnails))
        for j in range(i + 1, len(thumbnails))
        for name, flip in flips.items()
        if likeness(thumbnails[i], flip(thumbnails[j])) >= twins.ALIKE
    }


def thumbnails_of(images: list[Image.Image] | np.ndarray) -> np.ndarray:
    return np.stack([twins.thumbnail(np.asarray(image)) for image in images])


def test_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    base = thumbnails_of(smooth_noise(40, 1)).astype(float)
    noisy = [base[:20] + rng.normal(0, sigma, (20, 32, 32)) for sigma in (1, 3, 6)]
    mirrored = [base[20:30, :, ::-1], base[20:25, ::-1], base[25:30, ::-1, ::-1]]
    every = np.concatenate([base, *noisy, *mirrored]).clip(0, 255).round().astype(np.uint8)
    found = {(pair.first, pair.second, pair.mirror) for pair in twins.find_twins(every).pairs}
    expected = brute_force(every)
    assert len(expected) > 60
    assert found == expected


@pytest.mark.parametrize(
    ("change", "is_twin"),
    [
        (lambda image: image.resize((48, 48)), True),
        (lambda image: image.resize((200, 150)), True),
        (lambda image: ImageEnhance.Brightness(image).enhance(1.3), True),
        (lambda image: ImageEnhance.Contrast(image).enhance(0.7), True),
        (ImageOps.mirror, True),
        (ImageOps.flip, True),
        (lambda image: image.rotate(180), True),
        (lambda image: image.convert("L").convert("RGB"), True),
        (lambda image: image.rotate(10), False),
        (lambda image: image.crop((6, 6, 58, 58)), False),
        (ImageOps.invert, False),
    ],
    ids="smaller larger brighter flatter mirrored flipped turned grey rotated cropped inverted".split(),
)
def test_what_counts_as_a_twin(change: object, is_twin: bool) -> None:
    image = Image.fromarray(smooth_noise(1, 3)[0])
    others = [Image.fromarray(pixels) for pixels in smooth_noise(5, 4)]
    found = twins.find_twins(thumbnails_of([image, *others, change(image)]))  # type: ignore[operator]
    twin = found.twin_in(np.ones(7, bool))
    assert twin.tolist() == ([6, *[-1] * 5, 0] if is_twin else [-1] * 7)


def test_a_jpeg_of_poor_quality_is_a_twin() -> None:
    image = Image.fromarray(smooth_noise(1, 5)[0])
    out = io.BytesIO()
    image.save(out, "JPEG", quality=40)
    assert len(twins.find_twins(thumbnails_of([image, Image.open(out)])).pairs) == 1


def test_blank_images_have_no_near_twins_but_equal_ones_do() -> None:
    grey = np.full((32, 32), 90, np.uint8)
    dark = grey - 60
    speck = grey.copy()
    speck[3, 4] += 5
    found = twins.find_twins(np.stack([grey, dark, speck, grey]))
    assert len(found.pairs) == 0
    assert found.twin_in(np.ones(4, bool)).tolist() == [3, -1, -1, 0]


def test_many_equal_images_cost_no_square() -> None:
    found = twins.find_twins(np.repeat(thumbnails_of(smooth_noise(1, 6)), 5_000, axis=0))
    assert len(found.pairs) == 0
    assert (found.groups() == 0).all()


def test_twin_in_names_another_chosen_image() -> None:
    first_of = np.array([0, 1, 0, 3, 4, 1, 6])  # 0 and 2 are equal, 1 and 5; 3 is like 0, 4 like nothing
    found = twins.Twins(first_of, twins.Pairs.of([twins.Pair(0, 3, 0.98, "as it is")]))
    assert found.twin_in(np.array([1, 0, 0, 0, 0, 0, 0], bool)).tolist() == [-1, -1, 0, 0, -1, -1, -1]
    assert found.twin_in(np.array([0, 0, 0, 1, 1, 1, 0], bool)).tolist() == [3, 5, 3, -1, -1, -1, -1]
    assert found.twin_in(np.array([1, 1, 1, 0, 0, 1, 1], bool)).tolist() == [2, 5, 0, 2, -1, 1, -1]


def test_groups_are_connected() -> None:
    first_of = np.array([0, 1, 2, 3, 4, 5, 6, 1])
    pairs = [twins.Pair(1, 4, 1.0, "as it is"), twins.Pair(4, 6, 1.0, "as it is"), twins.Pair(2, 3, 1.0, "as it is")]
    assert twins.Twins(first_of, twins.Pairs.of(pairs)).groups().tolist() == [0, 1, 2, 2, 1, 5, 1, 1]
    assert twins.Twins(np.arange(3), twins.Pairs.of([])).groups().tolist() == [0, 1, 2]


def test_no_images_have_no_twins() -> None:
    assert twins.find_twins(np.empty((0, 32, 32), np.uint8)).pairs.first.size == 0


def test_candidates_are_all_close_pairs_of_every_bucket() -> None:
    rng = np.random.default_rng(7)
    base = np.repeat(thumbnails_of(smooth_noise(12, 8)), 20, axis=0)
    noisy = (base + rng.normal(0, 4, base.shape)).clip(0, 255).round().astype(np.uint8)
    noisy[::3] = noisy[::3, :, ::-1]
    noisy[5] = 90  # faint: it has no sketch
    flat = noisy.reshape(len(noisy), -1)
    positions, found = sketches.sketches(flat, np.arange(len(flat)))
    assert positions.tolist() == [i for i in range(len(flat)) if i != 5]
    details = sketches.details(flat[positions])
    planes = np.random.default_rng(derive("near twins")).standard_normal((details.shape[1], 960)).astype(np.float32)
    projected = np.concatenate([details * signs @ planes for signs in sketches.SIGNS])
    whole = np.unpackbits(np.concatenate(found, axis=1).view(np.uint8), axis=1).astype(bool)
    assert (whole == (projected > 0))[abs(projected) > 1e-5].all()
    bits = np.split(whole, 4)
    expected = set()
    for mirror, mirrored in enumerate(bits):
        for i, own in enumerate(bits[0]):
            differing = own != mirrored
            agree = (~differing).reshape(-1, 48, 20).all(axis=2).any(axis=1)
            for j in np.flatnonzero(agree & (differing.sum(axis=1) <= sketches.MOST_BITS)):
                if j != i:
                    expected.add((positions[min(i, j)], positions[max(i, j)], mirror))
    blocks = list(sketches.candidates(positions, found))
    pairs = [pair for block in blocks for pair in zip(*(part.tolist() for part in block), strict=True)]
    assert len(expected) > 1_500 and pairs == sorted(expected)
