"""A public file from the network, whole and checked, however often the fetching was stopped.

curl does the talking: it knows proxies, certificates and stalls, is kept well, and lies on nearly every machine. It
writes to a pipe, so it ends with the process that started it, and the part on disk always is the file's beginning.
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
TRIES = 6  # in a row that bring nothing
PAUSE = 2.0  # seconds, doubled at every try that brings nothing
CURL = ("curl", "--globoff", "--fail", "--location", "--silent", "--show-error", "--connect-timeout", "30")
STALL = ("--speed-limit", "1000", "--speed-time", "60")  # less than 1 kB a second for a minute: begin again
NO_RANGES = 33  # curl's exit code when the server will not go on in the middle


@dataclass(frozen=True)
class Remote:
    """A file as its server announces it."""

    address: str
    size: int
    etag: str
    """The server's name of this version of the file, without quotes; empty: none given."""

    @property
    def md5(self) -> str | None:
        """The MD5 where the ETag is one, as S3's is for a file that was put there in one piece."""
        return self.etag if re.fullmatch("[0-9a-f]{32}", self.etag) else None


def ask(address: str) -> Remote:
    """Size and version of a file; `ValueError` when it cannot be had."""
    if shutil.which("curl") is None:
        raise ValueError(f"there is no curl here; install it, or fetch {address} in another way")
    done = subprocess.run([*CURL, "--head", address], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ValueError(f"{address} cannot be had: {done.stderr.strip()}; run this where there is a network")
    last = done.stdout.replace("\r", "").strip().split("\n\n")[-1]  # the others are redirections
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in last.splitlines())}
    if not headers.get("content-length", "").isdigit():
        raise ValueError(f"{address}: the server does not say how large the file is; fetch it in another way")
    return Remote(address, int(headers["content-length"]), headers.get("etag", "").removeprefix("W/").strip('"'))


def fetch(remote: Remote, part: Path, *, progress: Progress) -> None:
    """Bring the part of `remote` that lies in `part` to its whole size, going on where it ended.

    `ValueError` when several tries in a row brought nothing; what is there stays for the next call.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.exists() and part.stat().st_size > remote.size:
        part.unlink()
    name = remote.address.rpartition("/")[2]
    blocks = _blocks(remote, part)
    for _ in progress(blocks, total=-(-remote.size // BLOCK), what=f"{name}, MB"):
        pass


def _blocks(remote: Remote, part: Path) -> Iterator[int]:
    """Fetch, and give the number of each megabyte that is there."""
    given = failed = furthest = 0
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
                while block := os.read(process.stdout.fileno(), BLOCK):
                    file.write(block)
                    yield from range(given, given := max(given, file.tell() // BLOCK))
            error = process.stderr.read().decode(errors="replace").strip()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            code = process.wait()
            process.stdout.close()
            process.stderr.close()
        if code == NO_RANGES:
            part.unlink()
        there = part.stat().st_size if part.exists() else 0
        failed = 0 if there > max(start, furthest) else failed + 1
        furthest = max(there, furthest)
        if failed == TRIES:
            raise ValueError(
                f"{remote.address} broke off at {start:,} of {remote.size:,} bytes, {TRIES} times in a row ({error}); "
                "run the same command again to go on"
            )
        if failed:
            time.sleep(PAUSE * 2 ** (failed - 1))
    yield from range(given, -(-remote.size // BLOCK))


def check(part: Path, remote: Remote, sha256: str | None, *, progress: Progress) -> tuple[str, str]:
    """What the file was checked by, in words, and its SHA-256. A file that is not what it should be is deleted.

    By the publisher's checksum where there is one, else by the MD5 that the server's ETag is, else by its size alone.
    """
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    size = 0
    with open(part, "rb") as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        for block in progress(blocks, total=-(-remote.size // BLOCK), what="checking, MB"):
            size += len(block)
            for digest in digests.values():
                digest.update(block)
    found = {"bytes": str(size), **{name: digest.hexdigest() for name, digest in digests.items()}}
    wanted = {"bytes": str(remote.size), "sha256": sha256, "md5": remote.md5}
    for name, value in wanted.items():
        if value is not None and found[name] != value:
            part.unlink()
            raise ValueError(
                f"{remote.address} did not arrive as it should: {name} {found[name]}, not {value}; it was deleted. Run "
                "the same command again; if that does not help, its publisher changed it"
            )
    if sha256 is not None:
        return "its published SHA-256", found["sha256"]
    if remote.md5 is not None:
        return "the server's MD5", found["sha256"]
    return "its size (no checksum is published)", found["sha256"]


def room_of(target: Path) -> Path:
    """Where an archive is unpacked until all of it is there."""
    return target.parent / f".{target.name}.unpacking"


def unpack(archive: Path, target: Path, *, folder: str, progress: Progress) -> int:
    """Unpack the zip file `archive`, which holds `folder`, to `target`; returns how many files it held.

    `target` is there when all its files are, each checked by the archive's CRC-32. An unpacking that was stopped goes
    on. An archive that is damaged is deleted.
    """
    room = room_of(target)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in progress(members, total=len(members), what="unpacking"):
                inside = PurePosixPath(member.filename)
                if inside.parts[0] != folder or ".." in inside.parts:
                    raise ValueError(f"{archive.name} holds {member.filename!r}, which does not lie in {folder}")
                path = room.joinpath(*inside.parts[1:])
                if path.exists() and path.stat().st_size == member.file_size:
                    continue
                with opened.open(member) as source, files.publish(path, durable=False) as file:
                    shutil.copyfileobj(source, file, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise ValueError(f"{archive.name} is damaged ({error}); it was deleted. Run the same command again") from error
    for path in room.rglob(".*.tmp"):  # of an unpacking that was killed
        path.unlink()
    room.rename(target)
    files.sync_folder(target.parent)
    return len(members)
