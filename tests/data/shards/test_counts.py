"""Manifests count images by split and class; the counts of older ones are read, and gaps in them are said."""

from __future__ import annotations

from pipeline.data.shards.counts import SplitCounts, count_images, counts_of, gaps, parts_without_labels, to_json


def counts(**classes: tuple[int, int, int]) -> dict[str, SplitCounts]:
    """Counts of train, val and test for each class; `unlabelled` is no class."""
    unlabelled = classes.pop("unlabelled", (0, 0, 0))
    out = {}
    for number, split in enumerate(("train", "val", "test")):
        here = {name: of[number] for name, of in classes.items()}
        out[split] = SplitCounts(sum(here.values()) + unlabelled[number], unlabelled[number], here)
    return out


def test_classes_of_any_name_are_apart_from_the_totals() -> None:
    classes = ("images", "unlabelled", "classes", "pictures")
    samples = [("train", (name,)) for name in classes for _ in range(2)] + [
        ("train", None),
        ("val", ()),
        ("test", None),
    ]
    found = count_images(samples, classes)
    assert found["train"] == SplitCounts(9, 1, dict.fromkeys(classes, 2))
    assert (found["val"].labelled, found["test"].labelled) == (1, 0)
    manifest = {"classes": list(classes), "counts": to_json(found)}
    assert counts_of(manifest) == found
    assert parts_without_labels(manifest) == ["test"]


def test_counts_of_older_manifests_are_read() -> None:
    stored = {split: {"pictures": 7, "unlabelled": 2, "a": 5, "classes": 0} for split in ("train", "val", "test")}
    manifest = {"classes": ["a", "classes"], "counts": stored}
    assert counts_of(manifest)["val"] == SplitCounts(7, 2, {"a": 5, "classes": 0})
    assert parts_without_labels(manifest) == []


def test_counts_without_a_gap_say_nothing() -> None:
    assert gaps(counts(a=(8, 1, 1), b=(8, 1, 1), unlabelled=(5, 1, 1))) == []


def test_a_dataset_without_labels_says_what_it_is_for() -> None:
    assert gaps(counts(unlabelled=(5, 1, 1))) == [
        "no image has a label: this dataset can be pretrained on, and fine-tuning cannot start"
    ]


def test_parts_without_labels_and_classes_without_images_are_said() -> None:
    assert gaps(counts(a=(8, 1, 0), b=(8, 1, 0), unlabelled=(0, 0, 9))) == [
        "no image with a label is in test: fine-tuning cannot start"
    ]
    assert gaps(counts(a=(8, 1, 1), b=(8, 0, 1), c=(0, 0, 3), d=(0, 0, 0))) == [
        "classes without any image: d",
        "classes that training never sees: c (in test alone); they can only be scored wrong",
        "classes without an image in val: b, c; scores on val are over 1 of 4 classes, "
        "F1 (macro) counts the others as 0",
    ]


def test_names_of_classes_are_shown_escaped() -> None:
    assert r"red\x1b[31m" in gaps(counts(a=(8, 1, 1), **{"red\x1b[31m": (8, 1, 0)}))[0]
