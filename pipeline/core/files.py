"""Files that are either complete or absent: atomic writes, JSON, JSON lines, checksums, locks."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from pipeline.core.console import visible


@contextlib.contextmanager
def publish(path: Path, mode: str = "wb", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; on a clean exit flush, fsync and rename it to `path`.

    A reader sees the complete old file or the complete new one, even if the writer dies at any moment.
    `durable=False` skips the fsyncs, for files that only inform (heartbeats).
    """
    with naming(path):
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
            with contextlib.suppress(OSError):  # the first error counts
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an error of the disk that names no file: a full disk shows in a write, which knows no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def reading(path: Path, move: str = "restore it, or delete it and run the command again") -> Iterator[None]:
    """Turn what a file of another shape raises in its reader into a `ValueError` that names it and the next `move`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {move}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON (nested too deeply); {move}") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV ({error}); {move}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is not what this version writes ({what}); {move}") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}; {move}") from error


@contextlib.contextmanager
def only_writer(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Keep other writers of a file or folder away, and delete what killed ones left half written.

    Raises `Busy` where one is still at work after so many seconds.
    """
    holder = path.parent / f".{path.name}.lock"
    with lock(holder, patience=patience, what=str(path)):
        try:
            remove_temporaries(path.parent, f"{path.name}.")
            yield
        finally:
            holder.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path` to fill; on a clean exit rename it to `path`.

    `path` must be absent or an empty folder. The next writer removes what a killed writer left. Raises `Busy`
    when another process makes the same folder.
    """
    temporary = path.parent / f".{path.name}.tmp"
    with only_writer(path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with naming(path):
                temporary.mkdir()
                yield temporary
                sync_folder(temporary)
                os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
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
        with contextlib.suppress(PermissionError):  # another user's, in a shared folder
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with publish(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any, *, durable: bool = True, indent: int | None = 2) -> None:
    """Publish a value as JSON; `indent=None` writes one line, ten times as fast."""
    with publish(path, "w", durable=durable) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type = object, *, keys: Sequence[str] = ()) -> Any:
    """The value in a JSON file; raises `ValueError` that names the file when it is not valid JSON, or no `kind`.

    keys: what an object must hold.
    """
    move = "delete it and run the command again"
    with reading(path, move):
        text = path.read_text(encoding="utf-8")
        try:
            value: Any = json.loads(text)
        except ValueError as error:  # also a number of too many digits
            raise ValueError(f"{path} is not valid JSON ({error}); {move}") from error
    right = isinstance(value, kind)  # mypy would take the value for an object
    if not right:
        wanted = "an object" if kind is dict else "a list" if kind is list else kind.__name__
        raise ValueError(f"{path} holds no JSON value of the right kind ({wanted}); {move}")
    if lacking := [key for key in keys if key not in value]:
        raise ValueError(f"{path} lacks {lacking[0]!r}; {move}")
    return value


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, without lines that a killed writer left incomplete; none if there is no file."""
    rows = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # no JSON, no text
                if isinstance(row := json.loads(line), dict):
                    rows.append(row)
    return rows


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256_stream(file)


def sha256_stream(file: BinaryIO) -> str:
    """Of an open file, from where it is to its end."""
    digest = hashlib.sha256()
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
    with _open_lock(path) as file:
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


def _open_lock(path: Path) -> IO[Any]:
    """Open a lock file, which may be another user's; it is made if it is absent.

    Whoever may write in the folder may take the lock, whatever the umask: a lock file holds nothing. One that cannot
    be written is opened for reading, which is enough for a lock on a local disk. O_CREAT is not used on a file that
    exists: the kernel refuses it for another user's in a sticky folder (fs.protected_regular).
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            try:
                return open(path, "r+b")
            except PermissionError:
                return open(path, "rb")
        with contextlib.suppress(FileExistsError):  # another process was faster
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with contextlib.suppress(OSError):  # a disk without permissions
                os.fchmod(handle, 0o644 | (path.parent.stat().st_mode & 0o022))
            return open(handle, "r+b")


def own_if_unreadable(path: Path) -> Path:
    """`path`; or a name next to it for this user alone, where `path` is another user's and cannot be read."""
    if not path.exists() or os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return path
    return path.with_name(f"{path.stem}-{os.geteuid()}{path.suffix}")


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV that is safe to open in a spreadsheet.

    A text that a spreadsheet would execute as a formula begins with an apostrophe; numbers stay numbers. Control
    characters are escaped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def _csv_cell(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    if cell.startswith(FORMULA):
        try:
            float(cell)
        except ValueError:
            return "'" + visible(cell)
    return visible(cell)


def is_locked(path: Path, *, shared: bool = False) -> bool:
    """Whether a living process holds `lock(path)`; with `shared`, whether one holds it shared or exclusive.

    The check itself takes a lock for an instant: a shared one, or an exclusive one with `shared`.
    """
    if not path.exists():
        return False
    with _open_lock(path) if shared else open(path) as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
