"""Splits are 80/10/10 in every class and keep lesions whole if asked; label fractions are nested."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.splits import SPLITS, identical_across, label_fraction, shared_groups, split_table

Labels = tuple[str, ...] | None
ISIC = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@pytest.fixture(scope="module")
def isic(shared: Path) -> tuple[list[Labels], list[str | None]]:
    """Labels and lesions of all 25,331 images."""
    root = shared / "isic2019_labels_full"
    if not root.is_dir():
        pytest.skip(f"ISIC's labels are not here: there is no folder {root}")
    with open(root / "ISIC_2019_Training_Metadata.csv", newline="") as file:
        lesions = {row["image"]: row["lesion_id"] or None for row in csv.DictReader(file)}
    with open(root / "ISIC_2019_Training_GroundTruth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels: list[Labels] = [tuple(name for name in ISIC if row[name] == "1.0") for row in rows]
    return labels, [lesions[row["image"]] for row in rows]


def split(
    labels: list[Labels],
    classes: tuple[str, ...],
    *,
    groups: list[str | None] | None = None,
    fixed: list[str | None] | None = None,
    grouped: bool = False,
) -> list[str]:
    nothing = [None] * len(labels)
    return split_table(labels, groups or nothing, fixed or nothing, classes, grouped=grouped)


def shares(labels: list[Labels], table: list[str], name: str | None = None) -> dict[str, float]:
    """The share of a class (or of all images) in each part."""
    parts = Counter(part for names, part in zip(labels, table, strict=True) if name is None or name in (names or ()))
    return {part: parts[part] / sum(parts.values()) for part in SPLITS}


@pytest.mark.parametrize("grouped", [False, True])
def test_isic_is_split_80_10_10_in_every_class(isic: tuple[list[Labels], list[str | None]], grouped: bool) -> None:
    labels, lesions = isic
    table = split(labels, ISIC, groups=lesions, grouped=grouped)
    assert shares(labels, table) == pytest.approx(SHARES, abs=0.001)
    for name in ISIC:  # the rarest has 239
        assert shares(labels, table, name) == pytest.approx(SHARES, abs=0.015 if grouped else 0.005)


def test_a_grouped_split_keeps_every_lesion_in_one_part_and_a_split_by_image_does_not(
    isic: tuple[list[Labels], list[str | None]],
) -> None:
    labels, lesions = isic
    sides: dict[str, set[str]] = {}
    table = split(labels, ISIC, groups=lesions, grouped=True)
    for lesion, part in zip(lesions, table, strict=True):
        if lesion is not None:
            sides.setdefault(lesion, set()).add(part)
    assert max(map(len, sides.values())) == 1
    assert shared_groups(lesions, table) == 0
    assert shared_groups(lesions, split(labels, ISIC, groups=lesions)) > 1000


def test_lesions_with_many_images_are_in_every_part(isic: tuple[list[Labels], list[str | None]]) -> None:
    """Test images of lesions with one image each alone would measure something else."""
    labels, lesions = isic
    table = split(labels, ISIC, groups=lesions, grouped=True)
    images = Counter(lesions)
    often = Counter(part for lesion, part in zip(lesions, table, strict=True) if lesion and images[lesion] >= 3)
    assert {part: often[part] / sum(often.values()) for part in SPLITS} == pytest.approx(SHARES, abs=0.02)


def made(count: int = 2000) -> tuple[list[Labels], tuple[str, ...]]:
    """Images of none, one or several of five classes, common and rare, two of them mostly together."""
    rng = np.random.default_rng(0)
    marks = rng.random((count, 5)) < [0.5, 0.3, 0.2, 0.1, 0.02]
    marks[:, 2] |= (rng.random(count) < 0.8) & marks[:, 1]
    classes = tuple("abcde")
    return [tuple(classes[i] for i in np.flatnonzero(row)) for row in marks], classes


def test_images_of_several_classes_are_stratified_by_each() -> None:
    labels, classes = made()
    assert {len(names or ()) for names in labels} >= {0, 1, 2, 3}
    table = split(labels, classes)
    assert shares(labels, table) == pytest.approx(SHARES, abs=0.005)
    for name in classes:
        number = sum(name in (names or ()) for names in labels)
        assert shares(labels, table, name) == pytest.approx(SHARES, abs=max(0.01, 1.5 / number)), name


def test_images_of_several_classes_can_be_grouped() -> None:
    labels, classes = made()
    groups: list[str | None] = [f"patient {i // 7}" if i % 10 else None for i in range(len(labels))]
    table = split(labels, classes, groups=groups, grouped=True)
    assert len({(group, part) for group, part in zip(groups, table, strict=True) if group}) == len(set(groups) - {None})
    for name in classes[:4]:
        assert shares(labels, table, name) == pytest.approx(SHARES, abs=0.015), name


def test_a_fixed_split_stays_and_a_missing_part_is_carved_from_training() -> None:
    labels: list[Labels] = [("a",), ("b",)] * 300
    fixed: list[str | None] = ["train"] * 400 + ["test"] * 200
    table = split(labels, ("a", "b"), fixed=fixed)
    assert table[400:] == ["test"] * 200
    assert Counter(table[:400]) == {"train": 360, "val": 40}  # a tenth of training, because there is a test set
    assert Counter(zip(labels[:400], table[:400], strict=True))[("a",), "val"] == 20


def test_a_split_that_is_fixed_for_all_parts_stays() -> None:
    labels: list[Labels] = [("a",), ("b",), None] * 10
    fixed: list[str | None] = ["train", "val", "test", "train", None] * 6
    assert split(labels, ("a", "b"), fixed=fixed) == [part or "train" for part in fixed]


def test_images_without_labels_are_in_the_training_split() -> None:
    labels: list[Labels] = [("a",), ("b",), None, None] * 50
    table = split(labels, ("a", "b"))
    assert {part for names, part in zip(labels, table, strict=True) if names is None} == {"train"}
    assert Counter(part for names, part in zip(labels, table, strict=True) if names) == {
        "train": 80,
        "val": 10,
        "test": 10,
    }


def test_a_grouped_split_keeps_a_patients_unlabelled_images_with_the_labelled_ones() -> None:
    """Otherwise pretraining would see the patients of the test set."""
    labels: list[Labels] = [("a",), None, ("b",), None] * 50
    groups: list[str | None] = [f"patient {i // 2}" for i in range(200)]
    table = split(labels, ("a", "b"), groups=groups, grouped=True)
    assert table[::2] == table[1::2]
    assert set(table) == set(SPLITS)


def test_patients_without_any_label_are_in_the_training_split() -> None:
    labels: list[Labels] = [("a",), ("b",), None, None] * 25
    groups: list[str | None] = [f"patient {i}" for i in range(100)]
    table = split(labels, ("a", "b"), groups=groups, grouped=True)
    assert {table[i] for i in range(100) if labels[i] is None} == {"train"}


def test_the_only_image_of_a_class_is_in_the_training_split() -> None:
    labels: list[Labels] = [("a",)] * 50 + [("rare",)]
    assert split(labels, ("a", "rare"))[-1] == "train"


def test_an_empty_dataset_has_an_empty_split() -> None:
    assert split([], ("a", "b")) == []
    assert split([None, None], ()) == ["train", "train"]


def test_leaks_between_splits_are_counted() -> None:
    groups = ["p", "p", "q", "q", "r", None, None, "s", "s"]
    table = ["train", "test", "test", "test", "train", "train", "test", "val", "test"]
    assert shared_groups(groups, table) == 1  # p; q is in test only, s in val and test, None is no group
    assert shared_groups([None, None], ["train", "test"]) is None  # no group is known
    checksums = ["1", "1", "2", "2", "3", "3", "3", "4", "5"]
    parts = ["train", "test", "train", "train", "val", "test", "test", "train", "test"]
    assert identical_across(checksums, parts) == 5  # both of 1, all three of 3


def classes_of(positions: np.ndarray, labels: list[Labels]) -> Counter[str]:
    return Counter(name for i in positions for name in labels[i] or ())


@pytest.mark.parametrize("seed", [77, 78])
def test_a_larger_fraction_contains_a_smaller_one(isic: tuple[list[Labels], list[str | None]], seed: int) -> None:
    labels, _ = isic
    hundredth, tenth, everything = (set(label_fraction(labels, ISIC, part, seed)) for part in (0.01, 0.1, 1))
    assert hundredth < tenth < everything == set(range(len(labels)))


def test_a_fraction_takes_this_share_of_every_class(isic: tuple[list[Labels], list[str | None]]) -> None:
    labels, _ = isic
    # a hundredth of 4522, 12875, 3323, 867, 2624, 239, 253 and 628
    expected = {"MEL": 45, "NV": 129, "BCC": 33, "AK": 9, "BKL": 26, "DF": 2, "VASC": 3, "SCC": 6}
    assert classes_of(label_fraction(labels, ISIC, 0.01, 77), labels) == expected


def test_another_seed_chooses_other_images(isic: tuple[list[Labels], list[str | None]]) -> None:
    labels, _ = isic
    first, second = (set(label_fraction(labels, ISIC, 0.1, seed)) for seed in (77, 78))
    assert len(first) == len(second)
    assert 0.05 < len(first & second) / len(first) < 0.15  # a tenth by chance


@pytest.mark.parametrize("fraction", [1e-6, 0.01, 0.1])
def test_every_class_with_an_image_keeps_at_least_one(fraction: float) -> None:
    labels: list[Labels] = [("a",)] * 500 + [("b",)] * 20 + [("c",)]
    for seed in range(5):
        assert set(classes_of(label_fraction(labels, ("a", "b", "c", "absent"), fraction, seed), labels)) == set("abc")


def test_fractions_of_images_of_several_classes_are_nested_and_hold_about_their_share_of_every_class() -> None:
    labels, classes = made()
    for seed in range(5):
        hundredth, tenth, everything = (label_fraction(labels, classes, part, seed) for part in (0.01, 0.1, 1))
        assert set(hundredth) < set(tenth) < set(everything) == set(range(len(labels)))
        assert set(classes_of(hundredth, labels)) == set(classes)
        whole, part = classes_of(everything, labels), classes_of(tenth, labels)
        for name in classes:
            assert abs(part[name] - whole[name] / 10) <= 0.3 * whole[name] / 10 + 2, name


def test_images_of_no_class_are_in_fractions_and_images_without_labels_are_not() -> None:
    labels: list[Labels] = [("a",), None, (), ("b",), None, ()] * 40
    for fraction in (0.01, 0.1, 1):
        chosen = label_fraction(labels, ("a", "b"), fraction, 77)
        assert {labels[i] for i in chosen} == {("a",), (), ("b",)}
        assert list(chosen) == sorted(set(chosen))


def test_a_fraction_without_any_label_is_empty() -> None:
    assert len(label_fraction([None, None], ("a", "b"), 0.1, 77)) == 0


def digest() -> str:
    labels, classes = made(500)
    groups: list[str | None] = [f"patient {i // 3}" for i in range(500)]
    found = [split(labels, classes), split(labels, classes, groups=groups, grouped=True)]
    chosen = [label_fraction(labels, classes, 0.1, seed).tolist() for seed in (77, 78)]
    return hashlib.sha256(repr((found, chosen)).encode()).hexdigest()


def test_splits_and_fractions_depend_on_their_arguments_alone() -> None:
    np.random.seed(1)
    first = digest()
    np.random.seed(2)
    assert digest() == first
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", "import test_splits; print(test_splits.digest())"],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == first


def test_an_image_without_a_fixed_split_follows_its_group():
    labels = [("a",)] * 6
    groups = ["p1", "p1", "p2", "p2", None, None]
    fixed = ["test", None, "val", None, None, "train"]
    table = split_table(labels, groups, fixed, ("a", "b"), grouped=True)
    assert table == ["test", "test", "val", "val", "train", "train"]
