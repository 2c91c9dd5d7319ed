"""Fetch the raw files of a public dataset.

Run the same command again to continue an interrupted download.

python -m pipeline.download isic --out DIR
python -m pipeline.verify isic --raw DIR
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import files
from pipeline.core.console import progress, run_command
from pipeline.data.datasets import DATASETS

if TYPE_CHECKING:
    from pipeline.data.records import Source

RECORD = "download.json"


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.download", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("name", help="isic, the only dataset of the paper that answers everyone")
    out.add_argument("--out", type=Path, required=True, help="the folder for the raw files")
    out.add_argument("--from", dest="mirror", metavar="URL", help="a folder that offers the same files")
    out.add_argument("--dry-run", action="store_true", help="say what would be fetched from where; asks nobody")
    return out


def main() -> int:
    args = parser().parse_args()
    dataset = DATASETS.find(args.name).DATASET
    if not dataset.sources:
        raise ValueError(f"{args.name}: there is no address that gives its files to everyone. {dataset.obtain}")
    todo = [source for source in dataset.sources if not (args.out / source.gives).exists()]
    print(
        f"{dataset.name}: {len(dataset.sources) - len(todo)} of {len(dataset.sources)} parts are in {args.out} already"
    )
    if args.dry_run:
        for source in todo:
            print(f"would fetch {address_of(source, args.mirror)} to {args.out / source.gives}")
        return 0
    with files.lock(args.out / ".download.lock", what=str(args.out)):
        for source in dataset.sources:
            if source not in todo:
                remove_parts(args.out, source)
        for source in todo:
            get(source, args.out, args.mirror)
    print(f"all parts are in {args.out}. Now: python -m pipeline.verify {dataset.name} --raw {args.out}")
    return 0


def address_of(source: Source, mirror: str | None) -> str:
    return source.address if mirror is None else f"{mirror.rstrip('/')}/{source.address.rpartition('/')[2]}"


def remove_parts(out: Path, source: Source, *, but: Path | None = None) -> None:
    """Delete what earlier calls left of a part that is there, or of other versions of it."""
    for path in out.glob(f".{source.address.rpartition('/')[2]}.*.part"):
        if path != but:
            path.unlink()


def get(source: Source, out: Path, mirror: str | None) -> None:
    """Fetch, check and, if it is an archive, unpack one part, and note in `download.json` what it was."""
    from pipeline.data import fetch

    remote = fetch.ask(address_of(source, mirror))
    name = source.address.rpartition("/")[2]
    is_archive = name != source.gives
    # another version of the file is another part, never glued to the first one's beginning
    version = "".join(c for c in remote.etag if c.isalnum() or c == "-")[:40] or str(remote.size)
    part = out / f".{name}.{version}.part"
    remove_parts(out, source, but=part)
    there = part.stat().st_size if part.exists() else 0
    unpacked = sum(path.stat().st_size for path in fetch.room_of(out / source.gives).rglob("*"))
    need = remote.size * (2 if is_archive else 1) - there - unpacked
    if (free := shutil.disk_usage(out).free) < need:
        raise ValueError(f"{name} needs {need / 1e9:.1f} GB in {out}, where {free / 1e9:.1f} GB are free")
    print(
        f"{name}: {remote.size / 1e6:,.1f} MB from {remote.address}" + (f", {there / 1e6:,.1f} there" if there else "")
    )
    fetch.fetch(remote, part, progress=progress)
    by, sha256 = fetch.check(part, remote, source.sha256, progress=progress)
    if is_archive:
        count = fetch.unpack(part, out / source.gives, folder=source.gives, progress=progress)
        part.unlink()
        by += f" and the CRC-32 of its {count:,} files"
    else:
        part.replace(out / source.gives)
    record = out / RECORD
    entries = files.read_json(record) if record.exists() else {}
    entry = {"from": remote.address, "bytes": remote.size, "sha256": sha256, "etag": remote.etag, "checked": by}
    files.write_json(record, {**entries, source.gives: entry})
    print(f"{source.gives}: checked by {by}; sha256 {sha256}")


if __name__ == "__main__":
    run_command(main)
