"""The second pass of sharding: decode, resize and write the images of a plan as WebDataset tars with an index.

A tar is published whole, with its rows in a hidden file next to it, so an interrupted job continues after the finished
tars. `index.parquet` comes after the last tar and `manifest.json` after the index.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.core import files, memory, seals
from pipeline.data import images
from pipeline.data.shards import duplicates, facts, quarantine
from pipeline.data.shards.index import Shards, open_shards, write_index
from pipeline.data.shards.manifest import every_sample, make_manifest
from pipeline.data.shards.observed import Observed
from pipeline.data.shards.parent import SOURCES, Parent, write_sources
from pipeline.data.shards.plan import Sample, ShardPlan
from pipeline.data.shards.quarantine import Entry
from pipeline.data.shards.raw import Progress
from pipeline.data.shards.read_back import read_back
from pipeline.data.shards.sheets import SLIDES, draw_slides
from pipeline.data.shards.tar import TarWriter
from pipeline.data.shards.transcode import transcode
from pipeline.data.workers import Workers


def write_shards(
    plan: ShardPlan,
    out: Path,
    *,
    workers: int,
    max_bad: float,
    strict: bool,
    progress: Progress,
    patience: float = 0.0,
    check: bool = False,
) -> Shards:
    """Write all that the folder of the plan lacks; finished shards stay as they are.

    With `check` the stock reader of webdataset, if it is installed, reads the tars before the manifest is written.
    Raises `ValueError` if too many images are bad or none is usable, and `files.Busy` if another process still writes
    to the folder after `patience` seconds.
    """
    folder = out / plan.folder_name
    quarantine.check(plan.quarantined, total=len(plan.listing.records), max_bad=max_bad, strict=strict)
    if (folder / "manifest.json").exists():
        return open_shards(folder)
    with files.lock(folder / ".lock", what=str(folder), patience=patience):
        if not (folder / "manifest.json").exists():  # another process may have finished it while this one waited
            files.remove_temporaries(folder)
            if plan.parent is not None:
                _take_files(folder, plan.parent)
            _write_tars(folder, plan, plan.tars(), workers, progress)
            _finish(folder, plan, workers, progress, max_bad=max_bad, strict=strict, check=check)
    (folder / ".lock").unlink(missing_ok=True)
    return open_shards(folder)


def write_part(
    plan: ShardPlan, out: Path, part: int, parts: int, *, workers: int, progress: Progress, patience: float
) -> None:
    """Write every `parts`th tar, from number `part` on, that does not exist; other parts may be written meanwhile.

    `write_shards` then writes the index. Raises `files.Busy` if `write_shards` still works on the folder after
    `patience` seconds.
    """
    folder = out / plan.folder_name
    if (folder / "manifest.json").exists():
        return
    with files.lock(folder / ".lock", what=str(folder), patience=patience, shared=True):
        if not (folder / "manifest.json").exists():  # another process may have finished it while this one waited
            _write_tars(folder, plan, plan.tars()[part::parts], workers, progress)


def count_missing_tars(plan: ShardPlan, out: Path) -> int:
    """How many tars of the plan are still to be written."""
    folder = out / plan.folder_name
    if (folder / "manifest.json").exists():
        return 0
    return sum(not _is_good(_rows_file(folder, tar)) for tar, _ in plan.tars())


def _rows_file(folder: Path, tar: str) -> Path:
    """The hidden file with the index rows of a finished tar and the images that are not in it."""
    return folder / f".{tar}.json"


def _is_good(rows_file: Path) -> bool:
    """Whether a tar is written with all its images; bad images are tried again because they may have been fixed."""
    return rows_file.exists() and not files.read_json(rows_file, dict, keys=("rows", "bad"))["bad"]


def _write_tars(
    folder: Path, plan: ShardPlan, tars: list[tuple[str, list[Sample]]], workers: int, progress: Progress
) -> None:
    missing = [(tar, members) for tar, members in tars if not _is_good(_rows_file(folder, tar))]
    tasks = [(sample.source, plan.settings) for _, members in missing for sample in members]
    with Workers(workers) as pool:
        work = partial(transcode, memory=memory.share_of_worker(workers))
        answers = pool.map(work, tasks, together=lambda task: task[0].path)
        answers = progress(answers, total=len(tasks), what="writing")
        for tar, members in missing:
            _write_tar(folder, tar, members, plan, answers)
        for _ in answers:  # run the progress display to its end
            pass


def _write_tar(folder: Path, tar: str, members: list[Sample], plan: ShardPlan, answers: Iterator[Any]) -> None:
    """Publish a tar, then its rows; `answers` yields what `transcode` returns for each member."""
    rows: list[dict[str, Any]] = []
    bad: list[Entry] = []
    observed = Observed()
    extension = images.FORMATS[plan.settings.format]
    with files.publish(folder / f"{tar}.tar") as file:
        writer = TarWriter(file)
        for sample in members:
            answer = next(answers)
            labels = sample.record.labels
            name = plan.names.of(sample.record.path, sample.checksum, sample.record.part)
            if isinstance(answer, images.BadImage):
                bad.append(quarantine.entry(name, str(answer)))
                continue
            observed.add(name, answer)
            offset = writer.add(f"{sample.key}.{extension}", answer.data)
            writer.add(f"{sample.key}.json", json.dumps({"labels": labels}).encode())
            rows.append(
                {
                    "key": sample.key,
                    "split": sample.split,
                    "labels": labels,
                    "group": sample.group,
                    "tar": f"{tar}.tar",
                    "offset": offset,
                    "size": len(answer.data),
                    "sha256": files.sha256_bytes(answer.data),
                    "width": answer.width,
                    "height": answer.height,
                }
            )
        writer.close()
    files.write_json(_rows_file(folder, tar), {"rows": rows, "bad": bad, **observed.to_json()}, indent=None)


def _take_files(folder: Path, parent: Parent) -> None:
    """The tars of the shards that are extended and the drawings of their slides, as further names of the same files.

    To another disk they are copied.
    """
    drawn = [f"{SLIDES}/{path.name}" for path in sorted((parent.folder / SLIDES).glob("*.png"))]
    for name in [*sorted({row["tar"] for row in parent.rows}), *drawn]:
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(parent.folder / name, target)
        except OSError:
            with open(parent.folder / name, "rb") as content, files.publish(target) as copy:
                shutil.copyfileobj(content, copy, 1 << 20)


def _finish(
    folder: Path, plan: ShardPlan, workers: int, progress: Progress, *, max_bad: float, strict: bool, check: bool
) -> None:
    """Write the index from the rows of all tars, then the sheet of twins, then the manifest."""
    rows: list[dict[str, Any]] = []
    quarantined = list(plan.quarantined)
    observed = Observed()
    for tar, _ in plan.tars():
        part = files.read_json(_rows_file(folder, tar), dict, keys=("rows", "bad"))
        rows += part["rows"]
        quarantined += part["bad"]
        observed.merge(Observed.of_json(part))
    total = len(plan.listing.records)
    quarantine.check(quarantined, total=total, max_bad=max_bad, strict=strict)
    quarantine.check_blank(observed.blank, total=total, strict=strict)
    if plan.parent is not None:
        rows = plan.parent.in_order(rows)
        observed.merge(Observed.of_json(plan.parent.manifest))
    if not rows:
        raise ValueError(f"{plan.dataset.name}: not one usable image under {plan.root}; check --raw")
    write_index(folder / "index.parquet", rows)
    stored = Shards(folder, {"settings": plan.settings.to_json()})
    found = duplicates.stored_twins(stored, progress=progress)
    if (sheet := duplicates.draw_pairs(stored, found)) is not None:
        with files.publish(folder / facts.SHEET) as file:
            file.write(sheet)
    draw_slides(folder, plan, workers=workers, progress=progress)
    read_by = read_back(folder, [f"{tar}.tar" for tar, _ in plan.tars()], rows) if check else None
    manifest = make_manifest(plan, rows, quarantined, observed, found) | {"read_back_by": read_by}
    origins = {sample.key: sample.origin for sample in every_sample(plan)}
    write_sources(folder / SOURCES, {row["key"]: origins[row["key"]] for row in rows})
    sealed = [folder / name for name in ("index.parquet", SOURCES)]
    files.write_json(folder / "manifest.json", seals.sealed(manifest, sealed))
    for tar, _ in plan.tars():
        _rows_file(folder, tar).unlink(missing_ok=True)
