"""Fixtures that all tests share: the folder of real images, the devices, stand-ins of datasets, and a Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

from pipeline.data.datasets import DATASETS


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images; a test that needs it is skipped if it is absent."""
    folder = Path(os.environ.get("CASS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not here: there is no folder {folder}; CASS_SHARED_DATA names another")
    return folder


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn; the GPU case is skipped if torch sees no GPU."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return str(request.param)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Drawn stand-ins of the paper's four datasets by name, ten images per class."""
    from pipeline.data.standins import CONTENTS, draw_standin

    folders = {name: tmp_path_factory.mktemp("stand-ins") / name for name in CONTENTS}
    for name, folder in folders.items():
        draw_standin(DATASETS.find(name).DATASET, folder, scale=0.0001, progress=lambda items, **_: items)
    return folders


@pytest.fixture(scope="session")
def devcluster() -> Iterator[Path]:
    """The state folder of a real Slurm of three nodes. A Slurm that was up before the tests stays up after them.

    If its daemons are gone, it is taken down first, together with the jobs that it remembers.
    """
    if os.geteuid() != 0:
        pytest.skip("starting a real Slurm needs root")
    if not Path("/etc/debian_version").exists():
        pytest.skip("slurm/devcluster/up works on Debian only")
    programs = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd")
    if not shutil.which("apt-get") and not all(map(shutil.which, programs)):
        pytest.skip("Slurm is not installed, and there is no apt-get to install it with")
    scripts = ROOT / "slurm" / "devcluster"
    was_up = shutil.which("scontrol") and b"is UP" in subprocess.run(["scontrol", "ping"], capture_output=True).stdout
    if not was_up:
        subprocess.run([scripts / "down"], capture_output=True, timeout=300)
    up = subprocess.run([scripts / "up"], capture_output=True, text=True, timeout=900)
    if up.returncode == 2:
        pytest.skip(f"slurm/devcluster/up cannot start: {up.stderr.strip()}")
    assert up.returncode == 0, up.stdout + up.stderr
    yield Path(os.environ.get("CASS_DEVCLUSTER", "/var/lib/cass-devcluster"))
    if not was_up:
        subprocess.run([scripts / "down"], check=True, capture_output=True, timeout=300)
