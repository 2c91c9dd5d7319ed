"""The lock can be installed on a 64-bit ARM machine: every package has a wheel there, or is not wanted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT


def test_the_lock_resolves_for_aarch64_with_wheels_alone(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed; make setup installs it")
    flags = "--dry-run --python-platform aarch64-manylinux_2_28 --python-version 3.11 --only-binary :all: --no-deps"
    command = [uv, "pip", "install", *flags.split(), "--require-hashes", "--target", str(tmp_path / "site")]
    command += ["--python", sys.executable, "-r", str(ROOT / "requirements.lock")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "No solution found" not in done.stderr:
        pytest.skip(f"uv could not ask the registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert "+ torch==" in done.stderr and "cykooz" not in done.stderr
