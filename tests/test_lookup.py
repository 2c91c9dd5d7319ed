"""Leaves are found by the name of their module."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from pipeline.core import plugins

KINDS = ("datasets", "methods", "grids")


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_package_is_a_leaf_but_its_base_and_folder_which_needs_a_name(kind: str) -> None:
    files = {path.stem for path in (Path(pipeline.__file__).parent / kind).glob("*.py")}
    assert plugins.known(kind) == sorted(files - {"__init__", "base", "folder"})
    assert plugins.known(kind)


def test_a_leaf_is_found_by_its_name() -> None:
    assert plugins.find("datasets", "isic").DATASET.name == "isic"


@pytest.mark.parametrize("name", ["iscc", "base", "folder", "__init__", "isic.py", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        plugins.find("datasets", name)
    assert f"there is no {name!r} among datasets; known: " in str(caught.value)
    assert "brain_mri" in str(caught.value) and "isic" in str(caught.value)


def test_a_leaf_of_ones_own_is_loaded_from_any_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("ANSWER = 42\n")
    assert plugins.load(tmp_path / "mine.py").ANSWER == 42


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*mine\.py"):
        plugins.load(tmp_path / "mine.py")
