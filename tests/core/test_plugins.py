"""Plugins are found by the name of their module."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from pipeline.benchmarks import BENCHMARKS
from pipeline.core import plugins
from pipeline.core.plugins import Plugins
from pipeline.data.datasets import DATASETS
from pipeline.learn.methods import METHODS
from pipeline.study.grids import GRIDS


@pytest.mark.parametrize("known", [DATASETS, METHODS, GRIDS, BENCHMARKS], ids=lambda known: known.kind)
def test_every_file_of_a_plugin_package_is_a_plugin(known: Plugins) -> None:
    folder = Path(pipeline.__file__).parents[1] / known.package.replace(".", "/")
    assert known.names() == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})
    assert known.names()


def test_a_plugin_is_found_by_its_name() -> None:
    assert DATASETS.find("isic").DATASET.name == "isic"


@pytest.mark.parametrize("name", ["iscc", "records", "support", "__init__", "isic.py", ""])
def test_the_error_for_an_unknown_name_lists_the_known_names(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        DATASETS.find(name)
    assert repr(name) in str(caught.value)
    assert "isic" in str(caught.value) and "brain_mri" in str(caught.value)


def test_a_users_own_plugin_is_loaded_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("ANSWER = 42\n")
    assert plugins.load_file(tmp_path / "mine.py").ANSWER == 42


def test_a_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        plugins.load_file(tmp_path / "mine.py")
