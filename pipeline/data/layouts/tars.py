"""Which tars are meant: patterns with braces, files below the raw folder, or addresses, which are fetched to it.

http and https are fetched by curl, which continues after a stop; `pipe:COMMAND` and all else that the library
webdataset opens are read through it, s3 by the command aws. A fetched tar is kept and not fetched again.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import progress, visible
from pipeline.data import fetch, folders, members
from pipeline.data.layouts.options import Options
from pipeline.data.records import PassedOver

FETCHED = "fetched"  # the folder of fetched tars in the raw folder
SCHEME = re.compile(r"(pipe|[a-z][a-z0-9+.-]*)(?=:)", re.IGNORECASE)
BLOCK = 1 << 20
PATIENCE = 24 * 3600.0  # seconds that another command may take to fetch a tar
EXTRA = 'reading tar shards needs webdataset: pip install "cass-pipeline[webdataset]"'


def find_tars(root: Path, options: Options) -> tuple[list[Path], list[PassedOver]]:
    """The tars on this machine, sorted, each once, and what else is in the folder; those with addresses are fetched.

    Raises `ValueError` if there are none, one is missing or cannot be fetched, or webdataset is not installed.
    """
    if importlib.util.find_spec("webdataset") is None:
        raise ValueError(EXTRA)
    if options.tars:
        return sorted({_local(address, root) for address in expanded(options.tars)}), []
    found = folders.walk(root, leave_out=options.leave_out).passed_over
    tars = [passed.path for passed in found if passed.kind == members.ENDING]
    if not tars:
        raise ValueError(f"there is no .tar in {root}; give --raw the folder that has them, or --tars PATTERN")
    return sorted(tars), [passed for passed in found if passed.kind != members.ENDING]


def expanded(patterns: Sequence[str]) -> list[str]:
    """Paths and addresses by patterns with braces: `{000..010}` and `{a,b}`; what a pipe runs stays as it is."""
    from webdataset.shardlists import expand_urls

    out: list[str] = []
    for pattern in patterns:
        out += [pattern] if pattern.startswith("pipe:") and "{" not in pattern else expand_urls(pattern)
    return out


def _local(address: str, root: Path) -> Path:
    scheme = SCHEME.match(address)
    if scheme is None or scheme[1] == "file":
        path = root / address.removeprefix("file:")
        if not path.is_file():
            raise ValueError(f"there is no tar {path}; correct --tars (paths begin in --raw)")
        return path
    target = root / FETCHED / _name(address)
    if not target.exists():
        with files.only_writer(target, patience=PATIENCE):
            if target.exists():  # another command fetched it
                return target
            if scheme[1] in ("http", "https"):
                _fetch(address, target)
            else:
                _copy(address, target, scheme[1])
    return target


def _name(address: str) -> str:
    """What a fetched tar is called: as at its address, and a hash, since other addresses may end alike."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", address.rpartition("/")[2].removesuffix(members.ENDING))[-40:]
    return f"{stem}-{files.sha256_bytes(address.encode())[:8]}{members.ENDING}"


def _fetch(address: str, target: Path) -> None:
    remote = fetch.read_headers(address)
    part = target.with_name(f".{target.name}.{re.sub('[^A-Za-z0-9-]', '', remote.etag)[:40] or remote.size}.part")
    fetch.fetch(remote, part, progress=progress)
    fetch.check(part, remote, None, progress=progress)
    part.replace(target)
    files.sync_folder(target.parent)


def _copy(address: str, target: Path, scheme: str) -> None:
    """What a command prints, whole or not at all."""
    from webdataset.gopen import gopen, gopen_schemes

    if scheme == "s3":
        if shutil.which("aws") is None:
            raise ValueError(f"{address} needs the command aws, which is not installed; or fetch it in another way")
        address = f"pipe:aws s3 cp {shlex.quote(address)} -"
    elif scheme not in gopen_schemes:
        raise ValueError(f"{address}: {scheme} is unknown; known: {', '.join(k for k in gopen_schemes if k[0] != '_')}")
    try:
        with files.publish(target) as out, gopen(address, "rb") as stream:
            shutil.copyfileobj(stream, out, BLOCK)
            if not out.tell():
                raise OSError("it gave nothing")
    except OSError as error:
        raise ValueError(f"{visible(address)} could not be read: {error}") from error
