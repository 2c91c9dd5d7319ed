"""Odd folders and tables from seeds: nothing is lost, no traceback (thousands: tests/support/odd_folders.py)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import odd_folders
import pytest
import small_shards

from pipeline.data import folders

CASES = 400
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_every_odd_folder_is_accounted_for_or_refused_with_one_line(
    part: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_shards.work_inline(monkeypatch)
    codes = [odd_folders.try_seed(seed) for seed in range(part, CASES, PARTS)]
    assert set(codes) == {0, 2}, "both kinds of cases are tried"


def test_the_check_finds_a_lost_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself is checked: a walk that loses one kind of file is caught."""
    small_shards.work_inline(monkeypatch)
    real = folders._Walker._pass

    def losing(self: Any, path: Path, kind: str) -> None:
        if kind != ".txt":
            real(self, path, kind)

    monkeypatch.setattr(folders._Walker, "_pass", losing)
    found = []
    for seed in range(200):
        root = tmp_path / "raw"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        try:
            odd_folders.check(odd_folders.make(root, seed), tmp_path)
        except AssertionError:
            found.append(seed)
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
    assert found and os.path.isdir(tmp_path)
