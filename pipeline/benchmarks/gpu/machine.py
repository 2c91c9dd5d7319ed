"""What the machine is and what is installed on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch

from pipeline.benchmarks.gpu.programme import Found, Programme, Sheet
from pipeline.benchmarks.support.report import machine
from pipeline.core import files

TITLE = "the machine"
MINUTES = 5.0
OPTIONAL = {
    "ray": "fan-outs use plain worker processes",
    "submitit": "runs are executed one after another, without a launch",
    "webdataset": "nothing here needs it",
    "simplejpeg": "shards are PNG, and Pillow decodes",
    "cykooz_resizer": "torch resizes, to the same bits",
    "tensorboard": "runs write no TensorBoard files",
    "pytest": "the GPU tests are left out",
}
"""What the project uses where it is installed, and what happens without it."""


def parts(programme: Programme) -> list[str]:
    return ["facts"]


def run(programme: Programme, part: str) -> Found:
    """The hardware, the versions, and which optional packages are here (installed, or taken from wheels)."""
    found: Found = {**machine(), "python": sys.version.split()[0]}
    found["installed"] = [name for name in OPTIONAL if find_spec(name)]
    found["driver"] = _driver()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
        }
    return found


def _driver() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def take_wheels(programme: Programme) -> Path | None:
    """Unpack the wheels that this interpreter can use; returns the folder to put on the path, or None.

    pip checks that they fit where it is installed; without pip only those that fit any machine are taken.
    """
    wheels = sorted(programme.wheels.glob("*.whl"))
    if not wheels:
        return None
    target = programme.scratch / f"wheels-{files.sha256_bytes(repr(wheels).encode())[:8]}"
    if target.exists():
        return target
    with files.publish_folder(target) as folder:
        for wheel in wheels:
            if find_spec("pip"):
                command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
                done = subprocess.run([*command, "--target", str(folder), str(wheel)], capture_output=True, text=True)
                if done.returncode:
                    print(f"{wheel.name} is left out: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            elif wheel.stem.endswith("-none-any"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder)
            else:
                print(f"{wheel.name} is left out: pip, which would check that it fits, is not installed", flush=True)
    return target


def sheets(programme: Programme, found: Mapping[str, Found]) -> list[Sheet]:
    facts = found.get("facts")
    if facts is None:
        return []
    memory = facts.get("memory_bytes")
    rows: list[tuple[str, object]] = [
        ("GPU", facts["gpu"] or "none: a rehearsal on the CPU"),
        ("its memory", f"{memory / 1e9:.1f} GB" if memory else "–"),
        ("compute capability", facts.get("capability", "–")),
        ("driver", facts["driver"] or "–"),
        ("processor", f"{facts['cpu']}, {facts['cores']} cores"),
        ("free disk", f"{shutil.disk_usage(programme.scratch).free / 1e9:.0f} GB"),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())),
    ]
    lacking = [f"{name} is not here: {what}" for name, what in OPTIONAL.items() if name not in facts["installed"]]
    here = f"found: {', '.join(facts['installed']) or 'no optional package'}"
    return [Sheet(title="Machine", header=("what", "value"), rows=rows, notes=[here, *lacking])]
