"""Drawn images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_shards


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards.draw(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def raw(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn folder to spoil."""
    return Path(shutil.copytree(drawn, tmp_path / "raw"))
