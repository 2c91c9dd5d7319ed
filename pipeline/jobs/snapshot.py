"""A job runs the code that was launched: a copy of the package by content, which jobs share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
USED = ("core", "runs", "data", "learn", "study", "jobs")  # the packages that a job imports; no other changes a result


def code_version() -> str:
    """12 hex digits of the SHA-256 of the source that jobs run: the same code has the same version anywhere."""
    digest = hashlib.sha256()
    sources = [PACKAGE / "__init__.py", *(path for name in USED for path in (PACKAGE / name).rglob("*.py"))]
    for path in sorted(sources):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def library_versions(device: str = "cpu") -> dict[str, str]:
    """The versions of the other software that a run's numbers depend on; with `cuda` also those of CUDA and cuDNN."""
    out = {"python": platform.python_version()}
    for name in ("torch", "timm", "numpy", "pillow", "simplejpeg", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):  # simplejpeg may be absent
            out[name] = version(name)
    if device == "cuda":
        import torch

        out |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    return out


def snapshot(runs: Path) -> Path:
    """The folder `runs`/.code/<version>, which holds the package as it is now; it is made once, and never in part.

    Each call notes the time on the package in it, so that `clean` keeps what a launch is about to send (`last_used`).
    """
    folder = runs / ".code" / code_version()
    with contextlib.suppress(OSError):  # absent, or another user's
        os.utime(folder / PACKAGE.name)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".copy-"))
        temporary.chmod(0o755)
        copy = temporary / PACKAGE.name
        for name in USED:
            shutil.copytree(PACKAGE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PACKAGE / "__init__.py", copy)
        try:
            os.rename(temporary, folder)
        except OSError:  # another launch was faster
            shutil.rmtree(temporary)
    return folder


def last_used(folder: Path) -> float:
    """When a launch last asked for this copy, in seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, folder / PACKAGE.name) if path.exists())
