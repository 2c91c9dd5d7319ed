"""Every dataset plugin is complete, and its records are unique and readable."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.core import files
from pipeline.data.datasets import DATASETS, toy
from pipeline.data.records import Dataset, Listing

NAMES = DATASETS.names()
PAPERS = {"autoimmune": 198, "brain_mri": 7023, "dermofit": 1300, "isic": 25331}  # E.1.1, fidelity 37


def plugin(name: str) -> Dataset:
    found = DATASETS.find(name).DATASET
    assert isinstance(found, Dataset)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_has_all_that_a_plan_needs(name: str) -> None:
    dataset = plugin(name)
    assert dataset.name == name
    assert len(set(dataset.classes)) == len(dataset.classes) >= 2
    assert dataset.task in ("multi-class", "multi-label")
    assert dataset.metric
    assert dataset.label_fractions[-1] == 1
    assert list(dataset.label_fractions) == sorted(set(dataset.label_fractions))
    assert dataset.obtain.endswith(".")


# Tables 3 to 6 of the paper: the fractions that were run
@pytest.mark.parametrize(
    ("name", "classes", "fractions"),
    [
        ("autoimmune", 5, (0.1, 1.0)),
        ("dermofit", 10, (0.1, 1.0)),
        ("brain_mri", 4, (0.01, 0.1, 1.0)),
        ("isic", 8, (0.01, 0.1, 1.0)),
    ],
)
def test_the_papers_datasets_have_its_classes_and_label_fractions(
    name: str, classes: int, fractions: tuple[float, ...]
) -> None:
    assert len(plugin(name).classes) == classes
    assert plugin(name).label_fractions == fractions


@pytest.mark.parametrize("name", PAPERS)
def test_the_published_numbers_of_the_papers_datasets_add_up(name: str) -> None:
    dataset = plugin(name)
    published = dataset.published
    assert published is not None and published.source
    assert published.total == PAPERS[name]
    for counts in published.counts.values():
        assert set(counts) == set(dataset.classes)
    assert all(low <= high for low, high in zip(published.smallest, published.largest, strict=True))
    assert isinstance(published.ids, str | None) or len(published.ids) == published.total


@pytest.mark.parametrize("name", NAMES)
def test_sources_have_public_addresses_that_end_in_their_target(name: str) -> None:
    for source in plugin(name).sources:
        assert source.address.startswith("https://")
        assert source.address.rpartition("/")[2] in (source.target, f"{source.target}.zip")


def test_isics_published_counts_are_those_of_its_label_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "isic2019_labels_full"
    if not folder.is_dir():
        pytest.skip(f"the label files are not here: there is no folder {folder}")
    for table in folder.glob("*.csv"):
        (tmp_path / table.name).symlink_to(table)
    (tmp_path / "ISIC_2019_Training_Input").mkdir()
    records = plugin("isic").listing(tmp_path).records
    published = plugin("isic").published
    assert published is not None
    assert Counter(label for record in records for label in record.labels or ()) == published.counts["all"]
    assert len({record.group for record in records} - {None}) == published.groups
    assert all(re.fullmatch(str(published.ids), str(record.key)) for record in records)


def test_brain_mris_delivered_ids_differ_from_the_published_ones_in_five(shared: Path) -> None:
    published = plugin("brain_mri").published
    assert published is not None and isinstance(published.ids, frozenset)
    here = {str(record.key) for record in plugin("brain_mri").listing(shared / "brain_mri").records}
    assert len(published.ids - here) == 4 and here - published.ids == {"Te-me_0011-checkpoint"}


def check(listing: Listing) -> None:
    names = [record.key or str(record.path) for record in listing.records]
    assert len(set(names)) == len(names)
    assert not [record for record in listing.records if record.problem]
    for record in listing.records:
        assert set(record.labels or ()) <= set(listing.classes)
        assert record.labels is None or listing.task == "multi-label" or len(record.labels) == 1
        assert record.split in (None, "train", "val", "test")
    for record in listing.records[:: max(1, len(listing.records) // 50)]:
        with Image.open(record.path) as image:
            image.load()


@pytest.mark.parametrize("name", PAPERS)
def test_the_records_of_stand_ins_are_unique_and_readable(name: str, stand_ins: dict[str, Path]) -> None:
    listing = plugin(name).listing(stand_ins[name])
    check(listing)
    assert (listing.classes, listing.task) == (plugin(name).classes, plugin(name).task)


@pytest.mark.parametrize(("name", "folder"), [("isic", "isic2019"), ("brain_mri", "brain_mri")])
def test_the_records_of_real_datasets_are_unique_and_readable(name: str, folder: str, shared: Path) -> None:
    check(plugin(name).listing(shared / folder))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "COUNTS", {"disc": 5, "ring": 4, "square": 3, "cross": 3, "unlabelled": 4})


@pytest.mark.usefixtures("few")
def test_the_toy_is_drawn_with_its_classes_and_images_without_labels(tmp_path: Path) -> None:
    toy.DATASET.generate(tmp_path)
    listing = toy.DATASET.listing(tmp_path)
    check(listing)
    assert listing.classes == toy.DATASET.classes
    assert [record.labels for record in listing.records].count(None) == 4
    assert len(listing.records) == 19


@pytest.mark.usefixtures("few")
def test_the_toy_is_drawn_once_and_always_the_same(tmp_path: Path) -> None:
    toy.DATASET.generate(tmp_path / "one")
    toy.DATASET.generate(tmp_path / "two")
    first = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.png")}
    assert len({path.read_bytes() for path in first.values()}) == 19  # and no two alike
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "two" / name).read_bytes()
    (tmp_path / "one" / "disc" / "0000.png").unlink()
    toy.DATASET.generate(tmp_path / "one")
    assert not (tmp_path / "one" / "disc" / "0000.png").exists()


@pytest.mark.usefixtures("few")
def test_a_toy_whose_drawing_was_stopped_is_completed(tmp_path: Path) -> None:
    toy.DATASET.generate(tmp_path)
    (tmp_path / ".complete").unlink()
    whole = (tmp_path / "ring" / "0003.png").read_bytes()
    (tmp_path / "ring" / "0003.png").write_bytes(whole[:100])
    toy.DATASET.generate(tmp_path)
    assert (tmp_path / "ring" / "0003.png").read_bytes() == whole


@pytest.mark.usefixtures("few")
def test_a_toy_that_another_user_draws_meanwhile_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def lock(*_: object, **__: object) -> Iterator[None]:
        files.write_text(tmp_path / ".complete", "by another user while this process waited")
        yield

    monkeypatch.setattr(toy.files, "lock", lock)
    toy.DATASET.generate(tmp_path)
    assert not list(tmp_path.rglob("*.png"))
