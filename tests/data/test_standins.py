"""Stand-ins have the layout, classes and sizes of their datasets, and every drawing is the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.console import silent
from pipeline.data.datasets import DATASETS
from pipeline.data.records import STANDIN_MARK, Dataset
from pipeline.data.standins import CONTENTS, MIN_IMAGES, draw_standin, scaled_count


def plugin(name: str) -> Dataset:
    found = DATASETS.find(name).DATASET
    assert isinstance(found, Dataset)
    return found


def bytes_of(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CONTENTS)
def test_at_full_scale_there_are_as_many_images_classes_groups_and_ids_as_published(name: str) -> None:
    dataset = plugin(name)
    published = dataset.published
    assert published is not None
    images, tables = CONTENTS[name](published, dataset.classes, 1.0)
    samples = [image for image in images if not image.is_mask]
    assert len(samples) == published.total
    assert len({image.path for image in images}) == len(images)
    if published.counts:
        wanted: Counter[int] = Counter()
        for counts in published.counts.values():
            wanted.update({dataset.classes.index(label): count for label, count in counts.items()})
        assert Counter(image.classes[0] for image in samples) == wanted
    sides = np.array([sorted(image.size) for image in samples])
    assert (sides >= published.smallest).all() and (sides <= published.largest).all()
    assert {image.mode for image in samples} <= set(published.modes)
    if isinstance(published.ids, frozenset):
        assert {Path(image.path).stem for image in samples} == published.ids
    if name == "isic":
        lesions = [row.split(",")[3] for row in tables["ISIC_2019_Training_Metadata.csv"][1:]]
        assert len(set(lesions) - {""}) == published.groups
        assert lesions.count("") == 2084  # the rows of the published metadata without one
    if name == "dermofit":
        assert len({image.size for image in samples}) == 1300  # E.1.1: no two images are of same size


@pytest.mark.parametrize("name", CONTENTS)
def test_a_small_stand_in_is_read_as_the_dataset_is(name: str, stand_ins: dict[str, Path]) -> None:
    dataset = plugin(name)
    records = dataset.listing(stand_ins[name]).records
    images = Counter(label for record in records for label in record.labels or ())
    parts = len(dataset.published.counts) if dataset.published else 0
    if parts:
        assert images == dict.fromkeys(dataset.classes, MIN_IMAGES * parts)
    else:
        assert set(images) == set(dataset.classes) and len(records) == 40
    if name != "brain_mri":  # nobody published its patients
        assert 1 < len({record.group for record in records} - {None}) < len(records)
    with Image.open(records[0].path) as image:
        assert dataset.published is not None and image.mode in dataset.published.modes


def test_classes_differ_in_colour(stand_ins: dict[str, Path]) -> None:
    colours: dict[str, list[np.ndarray]] = {}
    for record in plugin("dermofit").listing(stand_ins["dermofit"]).records:
        assert record.labels is not None
        with Image.open(record.path) as image:
            pixels = np.asarray(image, dtype=float).reshape(-1, 3)
        colours.setdefault(record.labels[0], []).append(pixels.mean(axis=0))
    means = np.array([np.mean(each, axis=0) for each in colours.values()])
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1)
    assert (distances[~np.eye(len(means), dtype=bool)] > 1).all()


def test_a_stand_in_is_always_the_same_and_continues_after_a_stop(tmp_path: Path, stand_ins: dict[str, Path]) -> None:
    whole = bytes_of(stand_ins["autoimmune"])
    drawn = 0

    def stop_after_five(items: list[object], **_: object) -> object:
        nonlocal drawn
        for drawn, item in enumerate(items):
            if drawn == 5:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        draw_standin(plugin("autoimmune"), tmp_path / "new", scale=0.0001, progress=stop_after_five)
    assert 0 < len(list((tmp_path / "new").glob("*.tif"))) <= 6
    assert not (tmp_path / "new" / STANDIN_MARK).exists()
    draw_standin(plugin("autoimmune"), tmp_path / "new", scale=0.0001, progress=silent)
    assert bytes_of(tmp_path / "new") == whole


def test_a_scaled_count_keeps_at_least_ten() -> None:
    assert [scaled_count(count, 0.1) for count in (1000, 101, 50, 10, 7)] == [100, 10, 10, 10, 7]
    assert scaled_count(331, 1.0) == 331


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("toy", 0.1, "there is no stand-in of 'toy'; known: autoimmune, brain_mri, dermofit, isic"),
        ("isic", 0.0, "--scale is 0.0; give a fraction above 0"),
        ("isic", 2.0, "--scale is 2.0; give a fraction above 0"),
    ],
)
def test_a_wrong_request_is_an_error(name: str, scale: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_standin(plugin(name), tmp_path / "new", scale=scale, progress=silent)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_does_not_change(tmp_path: Path, stand_ins: dict[str, Path]) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; give the stand-in a folder of its own"):
        draw_standin(plugin("isic"), tmp_path, scale=0.0001, progress=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
    with pytest.raises(ValueError, match="holds another stand-in"):
        draw_standin(plugin("isic"), stand_ins["dermofit"], scale=0.0001, progress=silent)
