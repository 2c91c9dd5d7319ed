"""Fetch a public file from the network, whole and checked, however often the process is stopped.

curl makes the transfers: it handles proxies, certificates and stalls, is well maintained and is installed on nearly
every machine. It writes to a pipe, so it ends with the process that started it, and the partial file on disk is always
the beginning of the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core import files

Progress = Callable[..., Iterable[Any]]

BLOCK = 1 << 20
TRIES = 6  # in a row without a new byte
PAUSE = 2.0  # seconds; doubled after every try without a new byte
CURL = ("curl", "--globoff", "--fail", "--location", "--silent", "--show-error", "--connect-timeout", "30")
STALL = ("--speed-limit", "1000", "--speed-time", "60")  # under 1 kB a second for a minute: start a new connection
NO_RANGES = 33  # curl's exit code when the server cannot continue from the middle


@dataclass(frozen=True)
class RemoteFile:
    """A file as its server announces it."""

    address: str
    size: int
    etag: str
    """The server's name for this version of the file, without quotes; empty: the server gives none."""

    @property
    def md5(self) -> str | None:
        """The MD5 if the ETag is one, as on S3 for a file that was uploaded in one piece."""
        return self.etag if re.fullmatch("[0-9a-f]{32}", self.etag) else None


def read_headers(address: str) -> RemoteFile:
    """The size and version of a file; raises `ValueError` if the server does not answer or does not give the size."""
    if shutil.which("curl") is None:
        raise ValueError(f"curl is not installed; install it, or fetch {address} in another way")
    done = subprocess.run([*CURL, "--head", address], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ValueError(f"{address} cannot be fetched: {done.stderr.strip()}; run this on a machine with a network")
    last = done.stdout.replace("\r", "").strip().split("\n\n")[-1]  # the others are redirections
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in last.splitlines())}
    if not headers.get("content-length", "").isdigit():
        raise ValueError(f"{address}: the server does not say how large the file is; fetch it in another way")
    if not int(headers["content-length"]):
        raise ValueError(f"{address} is empty by what the server says; check the address, or fetch it in another way")
    return RemoteFile(address, int(headers["content-length"]), headers.get("etag", "").removeprefix("W/").strip('"'))


def fetch(remote: RemoteFile, part: Path, *, progress: Progress) -> None:
    """Continue the partial file `part` of `remote` until it has its whole size.

    Raises `ValueError` after TRIES tries in a row without a new byte; the partial file stays for the next call.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.exists() and part.stat().st_size > remote.size:
        part.unlink()
    name = remote.address.rpartition("/")[2]
    blocks = _fetch_blocks(remote, part)
    for _ in progress(blocks, total=-(-remote.size // BLOCK), what=f"{name}, MB"):
        pass


def _fetch_blocks(remote: RemoteFile, part: Path) -> Iterator[int]:
    """Fetch the rest of a file and yield the number of each megabyte that is on disk."""
    yielded = failed = furthest = 0
    while (start := part.stat().st_size if part.exists() else 0) < remote.size:
        error = ""
        process = subprocess.Popen(
            [*CURL, *STALL, *(("--continue-at", str(start)) if start else ()), remote.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        try:
            with open(part, "ab") as file:
                # one byte more than announced shows that the server is wrong; `check` then deletes the file
                while file.tell() <= remote.size and (
                    block := os.read(process.stdout.fileno(), min(BLOCK, remote.size + 1 - file.tell()))
                ):
                    file.write(block)
                    yield from range(yielded, yielded := max(yielded, file.tell() // BLOCK))
                if file.tell() > remote.size:
                    process.terminate()
            error = process.stderr.read().decode(errors="replace").strip()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            code = process.wait()
            process.stdout.close()
            process.stderr.close()
        if code == NO_RANGES:
            part.unlink()
        size = part.stat().st_size if part.exists() else 0
        failed = 0 if size > max(start, furthest) else failed + 1
        furthest = max(size, furthest)
        if failed == TRIES:
            raise ValueError(
                f"{remote.address} broke off at {start:,} of {remote.size:,} bytes, {TRIES} times in a row ({error}); "
                "run the same command again to continue"
            )
        if failed:
            time.sleep(PAUSE * 2 ** (failed - 1))
    yield from range(yielded, -(-remote.size // BLOCK))


def check(part: Path, remote: RemoteFile, sha256: str | None, *, progress: Progress) -> tuple[str, str]:
    """Check a fetched file; returns what it was checked by, in words, and its SHA-256.

    It is checked by the publisher's checksum if there is one, else by the MD5 in the server's ETag, else by its size
    alone. A file that differs is deleted, and `ValueError` says what differs.
    """
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    size = 0
    with open(part, "rb") as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        for block in progress(blocks, total=-(-remote.size // BLOCK), what="checking, MB"):
            size += len(block)
            for digest in digests.values():
                digest.update(block)
    actual = {"bytes": str(size), **{name: digest.hexdigest() for name, digest in digests.items()}}
    expected = {"bytes": str(remote.size), "sha256": sha256, "md5": remote.md5}
    for name, value in expected.items():
        if value is not None and actual[name] != value:
            part.unlink()
            raise ValueError(
                f"{remote.address} did not arrive intact: {name} is {actual[name]}, not {value}; the file was deleted. "
                "Run the same command again; if the error stays, the publisher changed the file"
            )
    if sha256 is not None:
        return "its published SHA-256", actual["sha256"]
    if remote.md5 is not None:
        return "the server's MD5", actual["sha256"]
    return "its size (no checksum is published)", actual["sha256"]


def unpacking_folder(target: Path) -> Path:
    """The folder that holds the files of an archive until all of them are unpacked."""
    return target.parent / f".{target.name}.unpacking"


def unpack(archive: Path, target: Path, *, folder: str, progress: Progress) -> int:
    """Unpack the zip file `archive`, whose files are all in `folder`, to `target`; returns the number of files.

    `target` appears when all files are unpacked, each checked by the archive's CRC-32. An unpacking that was stopped
    continues. Raises `ValueError` for a file outside `folder` and for a damaged archive, which is deleted.
    """
    temporary = unpacking_folder(target)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in progress(members, total=len(members), what="unpacking"):
                inside = PurePosixPath(member.filename)
                if inside.parts[0] != folder or ".." in inside.parts:
                    raise ValueError(f"{archive.name} holds {member.filename!r}, which is not in {folder}")
                path = temporary.joinpath(*inside.parts[1:])
                if path.exists() and path.stat().st_size == member.file_size:
                    continue
                with opened.open(member) as source, files.publish(path, durable=False) as file:
                    shutil.copyfileobj(source, file, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise ValueError(f"{archive.name} is damaged ({error}); it was deleted. Run the same command again") from error
    for path in temporary.rglob(".*.tmp"):  # of a killed unpacking
        path.unlink()
    temporary.rename(target)
    files.sync_folder(target.parent)
    return len(members)
