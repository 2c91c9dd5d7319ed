"""Files that are either complete or absent: atomic writes, JSON, JSON lines, checksums, locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def publish(path: Path, mode: str = "wb", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; on a clean exit flush, fsync and rename it to `path`.

    A reader sees the complete old file or the complete new one, even if the writer dies at any moment.
    `durable=False` skips the fsyncs, for files that only inform (heartbeats).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path` to fill; on a clean exit rename it to `path`.

    `path` must be absent or an empty folder. The next writer removes what a killed writer left. Raises `Busy`
    when another process makes the same folder.
    """
    temporary, holder = path.parent / f".{path.name}.tmp", path.parent / f".{path.name}.lock"
    with lock(holder, what=str(path)):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            holder.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Delete the temporary files in `folder` that writers left when they were killed inside `publish`.

    With `name`, delete only those of files whose names start with it. Call it only while you hold the lock that keeps
    other writers away.
    """
    for path in folder.glob(f".{name}*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with publish(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any, *, durable: bool = True, indent: int | None = 2) -> None:
    """Publish a value as JSON; `indent=None` writes one line, ten times as fast."""
    with publish(path, "w", durable=durable) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises `ValueError` that names the file when it is not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run the command again") from error


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, without lines that a killed writer left incomplete; none if there is no file."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Busy(ValueError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def lock(
    path: Path,
    *,
    patience: float = 0.0,
    what: str = "",
    stop: Callable[[], bool] | None = None,
    shared: bool = False,
) -> Iterator[None]:
    """Hold a lock on `path` until the block ends or the process dies, however it dies.

    The lock is exclusive, or shared with other shared locks. Raises `Busy` when another process still holds it after
    `patience` seconds, or when `stop()` returns true.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline or (stop is not None and stop()):
                    raise Busy(f"another process is at work on {what or path.parent}; wait for it to end") from None
                time.sleep(0.05)
        yield


def is_locked(path: Path) -> bool:
    """Whether a living process holds `lock(path)`. The check itself takes a shared lock for an instant."""
    if not path.exists():
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
