"""Split a dataset into training, validation and test images, and draw the labelled fraction of the training images.

The split is a function of the dataset alone, with a fixed seed. A label fraction is a function of the index, the
fraction and the run's seed. Paper E.5; fidelity 3b, 35–37.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.seeds import derive

SPLITS = ("train", "val", "test")
CARVED = 0.1  # of the images without a fixed split, for validation and for test each: 80/10/10 (fidelity 3b, 36)
SPLIT_SEED = 2019  # ASSUMED; the same for every run

Labels = tuple[str, ...] | None


def split_table(
    labels: Sequence[Labels],
    groups: Sequence[str | None],
    fixed: Sequence[str | None],
    classes: Sequence[str],
    *,
    grouped: bool,
) -> list[str]:
    """The split of each image, in order.

    Splits that the curator fixed stay. If the curator fixed no validation (or test) images, they are carved from the
    rest, stratified by class (iteratively if an image can have several, Sechidis et al. 2011). Images without labels
    stay in train. With `grouped` all images of a group get one split, the unlabelled ones too; if the curator fixed
    the split of some images of a group, the others get the same.
    """
    table = [part or "train" for part in fixed]
    if grouped:
        placed = {group: part for group, part in zip(groups, fixed, strict=True) if group and part}
        table = [part or placed.get(group or "", "train") for group, part in zip(groups, fixed, strict=True)]
    pool = [i for i, part in enumerate(table) if part == "train"]
    carved = [part for part in ("val", "test") if part not in fixed]
    if not carved:
        return table

    units: dict[str, list[int]] = {}
    for i in pool:
        if grouped and groups[i] is not None:
            units.setdefault(f"g{groups[i]}", []).append(i)
        elif labels[i] is not None:
            units[f"i{i}"] = [i]
    members = list(units.values())
    column = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(members), len(classes) + 1))
    for row, unit in enumerate(members):
        for i in unit:
            for name in labels[i] or ():
                counts[row, column[name]] += 1
            counts[row, -1] += labels[i] is not None  # the last column keeps the sizes of the parts in step
    shares = [1 - CARVED * len(carved)] + [CARVED] * len(carved)
    parts = ["train", *carved]
    for unit, part in zip(members, stratify(counts, shares, seed=derive("split", SPLIT_SEED)), strict=True):
        for i in unit:
            table[i] = parts[part]
    return table


def stratify(counts: np.ndarray, shares: Sequence[float], *, seed: int) -> list[int]:
    """Assign units to parts so that each part gets its share of every column of `counts`.

    counts [units, columns] ≥ 0; returns the part of each unit. Iterative stratification over whole units: it starts
    with the rarest column and takes its units in a random order; each goes to the part that lacks most of this column,
    then of all columns. (Largest units first would be more even, but would put every large unit in train, and the test
    images would all be of small groups.)
    """
    rng = np.random.default_rng(seed)
    wanted = np.outer(shares, counts.sum(axis=0))  # [parts, columns]
    part_of = np.full(len(counts), -1)
    tie = rng.permutation(len(counts))
    while (left := np.flatnonzero(part_of < 0)).size:
        remaining = counts[left].sum(axis=0)
        if not remaining.any():
            part_of[left] = 0
            break
        rarest = int(np.argmin(np.where(remaining > 0, remaining, np.inf)))
        having = left[counts[left, rarest] > 0]
        for unit in having[np.argsort(tie[having])]:
            lack = wanted[:, rarest]
            best = np.flatnonzero(lack >= lack.max() - 1e-9)
            if best.size > 1:
                overall = wanted[best].sum(axis=1)
                best = best[overall >= overall.max() - 1e-9]
            part = int(best[0] if best.size == 1 else rng.choice(best))
            part_of[unit] = part
            wanted[part] -= counts[unit]
    return [int(part) for part in part_of]


def label_fraction(labels: Sequence[Labels], classes: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """The positions of the labelled images that a run may use: sorted int64 [n].

    The fraction is stratified by class (an image of several classes counts for its rarest). A larger fraction contains
    every smaller one. Each class that has images keeps at least one.
    """
    labelled = np.array([i for i, names in enumerate(labels) if names is not None], dtype=np.int64)
    if fraction >= 1:
        return labelled
    order = labelled[np.random.default_rng(derive("label fraction", seed)).permutation(len(labelled))].tolist()
    first: dict[str, int] = {}
    for i in order:
        for name in labels[i] or ():
            first.setdefault(name, i)
    chosen = set(first.values())
    for stratum in by_rarest_class(labels, classes, order).values():
        chosen.update(stratum[: max(1, round(fraction * len(stratum)))])
    return np.array(sorted(chosen), dtype=np.int64)


def by_rarest_class(labels: Sequence[Labels], classes: Sequence[str], positions: Sequence[int]) -> dict[str, list[int]]:
    """Labelled images by class: an image of several classes belongs to its rarest, one of no class to "".

    `positions` says which images; each stratum keeps their order.
    """
    frequency = {name: sum(name in (labels[i] or ()) for i in positions) for name in classes}
    out: dict[str, list[int]] = {}
    for i in positions:
        rarest = min(labels[i] or (), key=lambda name: (frequency[name], name), default="")
        out.setdefault(rarest, []).append(i)
    return out


def shared_groups(groups: Sequence[str | None], table: Sequence[str]) -> int | None:
    """How many test images share a lesion or patient with a training image; None where no group is known."""
    if not any(groups):
        return None
    trained = {group for group, part in zip(groups, table, strict=True) if group and part == "train"}
    return sum(part == "test" and group in trained for group, part in zip(groups, table, strict=True))


def identical_across(contents: Sequence[str], table: Sequence[str]) -> int:
    """How many images have a byte-identical twin in another split; contents: equal for such twins."""
    where: dict[str, set[str]] = {}
    for content, part in zip(contents, table, strict=True):
        where.setdefault(content, set()).add(part)
    return sum(len(where[content]) > 1 for content in contents)
