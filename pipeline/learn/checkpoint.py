"""Checkpoints that are complete, whole and checked: written beside, hashed on the way, renamed; damaged ones skipped.

A checkpoint's name carries its global step and the SHA-256 of its bytes, so a name never promises more than its file
holds. The last two are kept.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import IO, Any, cast

import torch

from pipeline import files
from pipeline.runs import Run

KEPT = 2


class _Hashing:
    """A write-only file that hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save(run: Run, state: dict[str, Any], step: int) -> Path:
    """Write `state` as the checkpoint of a global step and drop all but the newest two."""
    temporary = run.folder / ".checkpoint.tmp"
    with open(temporary, "wb") as file:
        hashing = _Hashing(file)
        torch.save(state, cast("IO[bytes]", hashing))
        file.flush()
        os.fsync(file.fileno())
    path = run.folder / f"checkpoint-{step:010d}-{hashing.digest.hexdigest()[:16]}.pt"
    os.replace(temporary, path)
    files.sync_folder(run.folder)
    for old in run.checkpoints()[KEPT:]:
        old.unlink()
    return path


def load(run: Run, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are those that were written, or None; damaged ones are named and passed by."""
    for path in run.checkpoints():
        if files.sha256_file(path)[:16] == path.stem.rsplit("-", 1)[1]:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        print(f"{path.name} is damaged; going back to the checkpoint before it", file=sys.stderr, flush=True)
    return None


def generators(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the main random generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu())
