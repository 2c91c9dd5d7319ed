"""Sharding without worker processes, and into small tars."""

from __future__ import annotations

import pytest
import small_shards


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards.work_inline(monkeypatch)


@pytest.fixture
def small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards.make_small_tars(monkeypatch)
