"""Raw folders that may not be read are an error that names them, for every dataset and layout."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from users import as_user

from pipeline.data.datasets import DATASETS
from pipeline.data.layouts import UserDataset
from pipeline.data.records import Dataset

READERS: list[tuple[str, Callable[[], Dataset]]] = [
    *(
        (name, lambda name=name: DATASETS.find(name).DATASET)
        for name in ("isic", "brain_mri", "dermofit", "autoimmune")
    ),  # type: ignore[misc]
    ("folder", lambda: UserDataset("mine", "folder")),
    ("csv", lambda: UserDataset("mine", "csv")),
]


@pytest.fixture
def raw() -> Iterator[Path]:
    """A folder that every user could enter, with two class folders."""
    if os.geteuid() != 0:
        pytest.skip("it needs another user")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for label in ("a", "b"):
            (root / label).mkdir()
            (root / label / "1.png").write_bytes(b"an image")
        yield root


@pytest.mark.parametrize(("name", "reader"), READERS)
def test_a_root_that_may_not_be_read_is_named(name: str, reader: Callable[[], Dataset], raw: Path) -> None:
    dataset = reader()
    raw.chmod(0o700)
    said = as_user(12345, lambda: dataset.listing(raw) and None)
    assert said.startswith(("PermissionError: ", "ValueError: ")) and "Permission denied" in said, said
    assert str(raw) in said


def test_a_class_folder_that_may_not_be_read_is_no_lack_of_classes(raw: Path) -> None:
    dataset = UserDataset("mine", "folder")
    (raw / "a").chmod(0o700)
    said = as_user(12345, lambda: dataset.listing(raw) and None)
    assert said == f"ValueError: mine: {raw}/a is a folder that cannot be read: Permission denied; make it readable"
