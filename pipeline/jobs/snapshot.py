"""The code a job runs is the code that was launched: a copy of the package by content, shared between jobs."""

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


def code_version() -> str:
    """12 hex digits of the SHA-256 of the package's source: the same code has the same version anywhere."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def library_versions(device: str = "cpu") -> dict[str, str]:
    """Of what the numbers of a run depend on besides this code; simplejpeg may be absent, CUDA is a GPU's."""
    out = {"python": platform.python_version()}
    for name in ("torch", "timm", "numpy", "pillow", "simplejpeg", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):
            out[name] = version(name)
    if device == "cuda":
        import torch

        out |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    return out


def snapshot(runs: Path) -> Path:
    """The folder `runs`/.code/<version>, which holds the package as it is now; made once, whole or not at all."""
    folder = runs / ".code" / code_version()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".copy-"))
        temporary.chmod(0o755)
        shutil.copytree(PACKAGE, temporary / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            os.rename(temporary, folder)
        except OSError:  # another launch was faster
            shutil.rmtree(temporary)
    return folder
