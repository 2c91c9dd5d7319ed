"""Compare all that a site holds with its checksums: runs, shards and pixel maps, every byte of them.

A file that is not what was written is a `Finding`. A damaged run is marked, a damaged pixel map deleted; shards stay.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core import files, seals
from pipeline.data import pixel_map
from pipeline.data.shards.index import MOVE, Shards, open_shards
from pipeline.data.shards.read import TarReader
from pipeline.data.shards.remote import address_of
from pipeline.runs import evaluation
from pipeline.runs.folder import FILES, SEALED, Run

READER = "verify"


class Finding(NamedTuple):
    """What is wrong with a file, or that it has no checksums."""

    kind: str
    """`damaged`, or `unsealed`: of earlier code, without checksums."""
    text: str
    """One line: which file, what is wrong, the next move."""


def runs_under(folder: Path) -> list[Path]:
    """The run folders in a runs folder; `ValueError` where there is none."""
    return _some(sorted(path.parent for path in folder.glob(f"*/{FILES['spec']}")), f"run in {folder}")


def shards_under(folder: Path) -> list[Path]:
    """The finished shard folders in a folder of shards, or the folder itself if it is one."""
    found = [folder] if (folder / "manifest.json").exists() else []
    found = found or sorted(path.parent for path in folder.glob("*/manifest.json"))
    return _some(found, f"finished shards in {folder}")


def maps_under(folder: Path) -> list[Path]:
    """The pixel maps in a scratch folder."""
    return _some(sorted(folder.glob("*.u8")), f"pixel map in {folder}")


def _some(found: list[Path], what: str) -> list[Path]:
    if not found:
        raise ValueError(f"there is no {what}; give another folder, or --cluster")
    return found


def check_run(folder: Path) -> Iterator[Finding]:
    """Compare the files of a finished run with their checksums."""
    run = Run(folder)
    move = "launch its grid with --retry to make it again"
    try:
        run.spec  # noqa: B018  raises where it is that of another run
        damage = run.damage()
        if damage or not run["result"].exists():
            yield from [Finding("damaged", f"{damage}; {move}")] if damage else []
            return
        if not run.sealed:
            yield Finding("unsealed", f"{run.id} is of earlier code, which wrote no checksums")
    except ValueError as error:
        yield Finding("damaged", f"{error}; {move}")
        return
    for name in SEALED:
        try:
            if run[name].exists():
                run.check(name, READER)
        except ValueError as error:
            yield Finding("damaged", f"{error}; {move}")
    yield from (Finding("damaged", problem) for problem in evaluation.damage(run))


def check_shards(folder: Path) -> Iterator[Finding]:
    """Compare the manifest, the index and every image and label of a shard folder with their checksums."""
    try:
        shards = open_shards(folder)
        members: dict[str, list[int]] = {}
        for number, tar in enumerate(shards.rows["tar"].array.to_pylist()):
            members.setdefault(tar, []).append(number)
    except ValueError as error:
        yield Finding("damaged", str(error))
        return
    if not seals.seals_of(shards.manifest):
        yield Finding("unsealed", f"{folder} is of earlier code: only its images have checksums")
    if address_of(shards) is not None:
        yield from _check_images(shards)
        return
    for tar, numbers in members.items():
        yield from _check_tar(shards, tar, numbers)


def _check_images(shards: Shards) -> Iterator[Finding]:
    """Compare every image of shards behind an address with its checksum."""
    reader = TarReader(shards)
    for row in range(len(reader)):
        reader.expect(range(row, min(row + 256, len(reader))))
        try:
            reader.checked_bytes(row)
        except ValueError as error:
            yield Finding("damaged", str(error))


def _check_tar(shards: Shards, tar: str, numbers: list[int]) -> Iterator[Finding]:
    """Compare the members of a tar with the rows of the index, whose numbers are given."""
    path = shards.folder / tar
    keys = [shards.rows["key"][number] for number in numbers]
    labels = dict(zip(keys, shards.labels(numbers), strict=True))
    left = {key: shards.rows["sha256"][number] for key, number in zip(keys, numbers, strict=True)}
    try:
        with tarfile.open(path) as file:  # checks its headers
            for member in file:
                key, _, ending = member.name.rpartition(".")
                data = file.extractfile(member)
                content = data.read() if data else b""
                if ending == "json":
                    listed = json.loads(content).get("labels")
                    if (None if listed is None else tuple(listed)) != labels.get(key, ()):
                        yield Finding("damaged", f"{path}: the labels of {key} are not those in the index; {MOVE}")
                elif files.sha256_bytes(content) != left.pop(key, ""):
                    yield Finding("damaged", f"{path}: the bytes of {key} are not those that were written; {MOVE}")
    except (OSError, tarfile.TarError, ValueError, AttributeError) as error:
        yield Finding("damaged", f"{path} cannot be read ({error}); {MOVE}")
        return
    if left:
        yield Finding("damaged", f"{path} lacks {len(left)} images of the index, {next(iter(left))} first; {MOVE}")


def check_map(path: Path) -> Iterator[Finding]:
    """Compare every block of a pixel map with its checksum; a damaged map is deleted, the next run builds it again."""
    try:
        if not pixel_map.check_whole(path):
            yield Finding("unsealed", f"{path} is of earlier code, without checksums; the next run builds it again")
    except pixel_map.DamagedMap as error:
        yield Finding("damaged", str(error))
