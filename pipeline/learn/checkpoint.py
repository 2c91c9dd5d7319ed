"""Checkpoints: written to a temporary file, hashed on the way, renamed; a damaged one is skipped when loading.

A checkpoint's name holds its global step and the SHA-256 of its bytes, so damage is always seen. The last two are kept.
A `Writer` writes them while training continues.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import torch

from pipeline.core import files
from pipeline.runs.folder import Run

KEPT = 2


class _Hashing:
    """A write-only file that hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        """Why a write failed; torch.save raises an error of its own that does not say it."""

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save(run: Run, state: dict[str, Any], step: int) -> Path:
    """Write `state` as the checkpoint of a global step and drop all but the newest two.

    An older one of the same step is dropped too: it was written before the end of the epoch, this one after it.
    """
    temporary = run.folder / ".checkpoint.tmp"
    try:
        with files.naming(temporary.with_name("checkpoint")), open(temporary, "wb") as file:
            hashing = _Hashing(file)
            try:
                torch.save(state, cast("IO[bytes]", hashing))
            except RuntimeError:
                if hashing.error:
                    raise hashing.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)  # else a full disk stays full
        raise
    path = run.folder / f"checkpoint-{step:010d}-{hashing.digest.hexdigest()[:16]}.pt"
    os.replace(temporary, path)
    files.sync_folder(run.folder)
    for old in run.folder.glob(f"checkpoint-{step:010d}-*.pt"):
        if old != path:
            old.unlink()
    for old in run.checkpoints()[KEPT:]:
        old.unlink()
    return path


class Writer:
    """Writes a run's checkpoints in a thread, one at a time, from a copy of the state in host memory.

    Training waits for the copy only. The copy's memory (as large as the state) is kept for the next one: fresh memory
    costs many times the copying. On CUDA it is pinned, and the device copies in the order of its work, so before any
    later step changes a weight; the host does not wait for that. Leaving waits for the write in progress.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._copy: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def save(self, state: dict[str, Any], step: int) -> None:
        """Start the checkpoint of a global step once the one before is written; raises what made that one fail."""
        self.wait()
        self._copy = host_copy(state, self._copy)
        copied = None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._writing = self._thread.submit(self._write, copied, step)

    def _write(self, copied: torch.cuda.Event | None, step: int) -> Path:
        if copied is not None:
            copied.synchronize()
        return save(self.run, self._copy, step)

    def check(self) -> None:
        """Raise what made the last write fail, if it has ended; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk; raises what made it fail."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def host_copy(value: Any, before: Any = None) -> Any:
    """A copy of nested dicts, lists and tensors on the CPU, in the tensors of an earlier copy where they fit.

    A copy from CUDA is complete when the device has done it, see `Writer`.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if isinstance(before, torch.Tensor) and _layout(before) == _layout(value):
            return before.copy_(value, non_blocking=True)
        return value.to("cpu", non_blocking=True, copy=True)
    if isinstance(value, dict):
        out = copy.copy(value)  # a module's state carries versions in an attribute
        for key, item in value.items():
            out[key] = host_copy(item, before.get(key) if isinstance(before, dict) else None)
        return out
    if isinstance(value, list):
        earlier = before if isinstance(before, list) else []
        return [host_copy(item, old) for item, old in itertools.zip_longest(value, earlier[: len(value)])]
    return value


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


def load(run: Run, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are those that were written, or None; damaged ones are named and skipped."""
    for path in run.checkpoints():
        if files.sha256_file(path)[:16] == path.stem.rsplit("-", 1)[1]:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        print(f"{path.name} is damaged; using the checkpoint before it", file=sys.stderr, flush=True)
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
