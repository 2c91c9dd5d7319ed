"""Every kind of work is killed at a random instant, done again, and ends with the bits of undisturbed work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT


@pytest.mark.slow
def test_kills_of_every_kind_of_work_change_no_bit(tmp_path: Path) -> None:
    """In a process of its own, which forks: this one has threads."""
    driver = [sys.executable, ROOT / "tests" / "support" / "kill_works.py", "--kills", "1"]
    done = subprocess.run(driver, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed 1 times, the same bits as undisturbed") == 11
