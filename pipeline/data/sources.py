"""Fetch the raw files of a public dataset: each source is fetched, checked, unpacked and recorded.

A stopped download continues with the rest of a file or of the unpacking. `download.json` in the raw folder records the
address, size, ETag and SHA-256 of each source.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.core import files
from pipeline.data import fetch
from pipeline.data.records import Dataset, Source

RECORD = "download.json"


def missing_sources(dataset: Dataset, folder: Path) -> list[Source]:
    """The sources that are not in the raw folder yet; raises `ValueError` if the dataset has none at all."""
    if not dataset.sources:
        raise ValueError(f"{dataset.name}: no address gives its files to everyone. {dataset.obtain}")
    return [source for source in dataset.sources if not (folder / source.target).exists()]


def address_of(source: Source, mirror: str | None) -> str:
    """Where a source is fetched from: its publisher, or the folder `mirror` on the web."""
    return source.address if mirror is None else f"{mirror.rstrip('/')}/{source.file_name}"


def download(
    dataset: Dataset, folder: Path, mirror: str | None, *, progress: fetch.Progress, report: Callable[[str], None]
) -> None:
    """Fetch what is missing of a dataset into its raw folder; `report` gets a line before and after each source.

    Raises `ValueError` if a file cannot be fetched, does not fit on the disk or does not arrive intact, and
    `files.Busy` if another process downloads to the same folder.
    """
    with files.lock(folder / ".download.lock", what=str(folder)):
        missing = missing_sources(dataset, folder)
        for source in dataset.sources:
            if source not in missing:
                _remove_parts(folder, source)
        for source in missing:
            _download(source, folder, mirror, progress, report)


def _remove_parts(folder: Path, source: Source, *, keep: Path | None = None) -> None:
    """Delete the partial files of a source, of all its versions; `keep` stays."""
    for path in folder.glob(f".{source.file_name}.*.part"):
        if path != keep:
            path.unlink()


def _download(
    source: Source, folder: Path, mirror: str | None, progress: fetch.Progress, report: Callable[[str], None]
) -> None:
    remote = fetch.read_headers(address_of(source, mirror))
    name, target = source.file_name, folder / source.target
    # Each version of a file has a partial file of its own, so that two versions are never joined.
    version = "".join(c for c in remote.etag if c.isalnum() or c == "-")[:40] or str(remote.size)
    part = folder / f".{name}.{version}.part"
    _remove_parts(folder, source, keep=part)
    fetched = part.stat().st_size if part.exists() else 0
    unpacked = sum(path.stat().st_size for path in fetch.unpacking_folder(target).rglob("*"))
    needed = remote.size * (2 if source.is_archive else 1) - fetched - unpacked
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ValueError(f"{name} needs {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free")
    already = f", {fetched / 1e6:,.1f} MB of it already here" if fetched else ""
    report(f"{name}: {remote.size / 1e6:,.1f} MB from {remote.address}{already}")
    fetch.fetch(remote, part, progress=progress)
    checked, sha256 = fetch.check(part, remote, source.sha256, progress=progress)
    if source.is_archive:
        count = fetch.unpack(part, target, folder=source.target, progress=progress)
        part.unlink()
        checked += f" and the CRC-32 of its {count:,} files"
    else:
        part.replace(target)
    record = folder / RECORD
    entries = files.read_json(record, dict) if record.exists() else {}
    entry = {"from": remote.address, "bytes": remote.size, "sha256": sha256, "etag": remote.etag, "checked": checked}
    files.write_json(record, {**entries, source.target: entry})
    report(f"{source.target}: checked by {checked}; sha256 {sha256}")
