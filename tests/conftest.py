"""What the tests share: where the real pictures lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CASS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real pictures are not here: there is no folder {folder}; CASS_SHARED_DATA names another")
    return folder
