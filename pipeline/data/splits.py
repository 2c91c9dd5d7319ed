"""Who is trained on and who is tested: train, validation and test, and the labelled fraction of train.

The split is a function of the dataset alone (its own fixed seed), a label fraction one of (index, fraction, the
run's seed). Paper E.5; fidelity 3b, 35–37.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.seeds import derive

SPLITS = ("train", "val", "test")
CARVED = 0.1  # of the pool, for validation and for test each: 80/10/10 (fidelity 3b, 36)
SPLIT_SEED = 2019  # ASSUMED; of the dataset, never of a run

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

    What the curator fixed stays; a part (val, test) nobody fixed is carved out of the rest, stratified by class
    (iteratively, Sechidis et al. 2011, where an image can have several). Images without labels stay in train.
    With `grouped` all images of a group go to one side, the unlabelled ones too; one the curator left open follows
    its group to the part where the curator put that.
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
    for unit, part in zip(members, assign(counts, shares, seed=derive("split", SPLIT_SEED)), strict=True):
        for i in unit:
            table[i] = parts[part]
    return table


def assign(counts: np.ndarray, shares: Sequence[float], *, seed: int) -> list[int]:
    """Deal units out to parts so that each part gets its share of every column of `counts`.

    counts [units, columns] ≥ 0; returns the part of each unit. Iterative stratification over whole units: the
    rarest column first, its units in a random order, each to the part that lacks most of that column (then of all).
    (Largest units first would be more even, but put every large one in train: a test of small lesions only.)
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
    """The positions of the labelled images a run may see: sorted int64 [n].

    Stratified by class (an image of several classes counts for its rarest), nested (a smaller fraction lies in a
    larger one) and with at least one image of every class that has one.
    """
    labelled = np.array([i for i, names in enumerate(labels) if names is not None], dtype=np.int64)
    if fraction >= 1:
        return labelled
    order = labelled[np.random.default_rng(derive("label fraction", seed)).permutation(len(labelled))]
    frequency = {name: sum(name in (labels[i] or ()) for i in labelled) for name in classes}
    strata: dict[str, list[int]] = {}
    first: dict[str, int] = {}
    for i in map(int, order):
        names = labels[i] or ()
        rarest = min(names, key=lambda name: (frequency[name], name), default="")
        strata.setdefault(rarest, []).append(i)
        for name in names:
            first.setdefault(name, i)
    chosen = set(first.values())
    for stratum in strata.values():
        chosen.update(stratum[: max(1, round(fraction * len(stratum)))])
    return np.array(sorted(chosen), dtype=np.int64)


def shared_groups(groups: Sequence[str | None], table: Sequence[str]) -> int:
    """How many test images share a lesion or patient with a training image."""
    trained = {group for group, part in zip(groups, table, strict=True) if group and part == "train"}
    return sum(part == "test" and group in trained for group, part in zip(groups, table, strict=True))


def identical_across(checksums: Sequence[str], table: Sequence[str]) -> int:
    """How many files have a byte-identical twin in another split."""
    where: dict[str, set[str]] = {}
    for checksum, part in zip(checksums, table, strict=True):
        where.setdefault(checksum, set()).add(part)
    return sum(len(where[checksum]) > 1 for checksum in checksums)
