"""Sharding: raw images, once, into WebDataset tars with a Parquet index and a manifest.

Two passes. The first reads every file for its checksum and fixes keys, splits, order and the fingerprint that names
the folder; the second decodes, resizes and writes, tar by tar. A tar is published whole with its rows beside it, so
an interrupted job goes on from the finished tars; the manifest comes last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data import images, splits
from pipeline.data.records import MARK, Dataset, Listing, Record
from pipeline.data.shards.index import Shards, open_shards, write_index
from pipeline.data.shards.tar import TarWriter
from pipeline.data.shards.transcode import Settings, stored
from pipeline.data.workers import Workers

TAR_BYTES = 256 << 20  # a tar stays below this even if its images did not compress at all
TAR_IMAGES = 2_000  # and is small enough that a killed job repeats little

Progress = Callable[..., Iterator[Any]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image that is to be written."""

    key: str
    record: Record
    group: str | None
    split: str
    checksum: str


@dataclass
class Plan:
    """What pass one found: the samples in the order they are written, and who is out."""

    dataset: Dataset
    listing: Listing
    settings: Settings
    root: Path
    samples: list[Sample] = field(default_factory=list)
    bad: list[dict[str, str]] = field(default_factory=list)
    fingerprint: str = ""
    source: str = ""

    @property
    def folder_name(self) -> str:
        return f"{self.dataset.name}-{self.settings.size}-{self.settings.split}-{self.fingerprint[:8]}"

    def quarantine(self, record: Record, reason: str) -> None:
        self.bad.append({"file": _relative(record.path, self.root), "reason": reason})

    def tars(self) -> list[tuple[str, list[Sample]]]:
        """The name and samples of every tar; a function of the plan, so a second start deals the same hands."""
        each = max(1, min(TAR_IMAGES, TAR_BYTES // (self.settings.size**2 * 3 + 4096)))
        out = []
        for split in splits.SPLITS:
            members = [sample for sample in self.samples if sample.split == split]
            for number, start in enumerate(range(0, len(members), each)):
                out.append((f"{split}-{number:06d}", members[start : start + each]))
        return out


def make_plan(dataset: Dataset, root: Path, settings: Settings, *, workers: int, progress: Progress) -> Plan:
    """Pass one: checksums, keys, splits, order, fingerprint. Writes nothing."""
    listing = dataset.listing(root)
    plan = Plan(dataset, listing, settings, root)
    found: list[tuple[Record, str]] = []
    paths = [record.path for record in listing.records]
    with Workers(workers, threads=True) as pool:
        answers = pool.map(_checksum, paths)
        for record, answer in zip(listing.records, progress(answers, total=len(paths), what="reading"), strict=True):
            if record.problem:
                plan.quarantine(record, record.problem)
            elif isinstance(answer, images.BadImage):
                plan.quarantine(record, str(answer))
            else:
                found.append((record, answer))

    keys = _keys(plan, found)
    found = [(record, checksum) for record, checksum in found if record.path in keys]
    groups = _groups(found, keep=settings.keep_names)
    table = splits.split_table(
        [record.labels for record, _ in found],
        groups,
        [record.split for record, _ in found],
        listing.classes,
        grouped=settings.split == "grouped",
    )
    samples = [
        Sample(key=keys[record.path], record=record, group=group, split=part, checksum=checksum)
        for (record, checksum), group, part in zip(found, groups, table, strict=True)
    ]
    samples.sort(key=lambda sample: sample.key)
    digest = hashlib.sha256()
    source = hashlib.sha256()
    head = [dataset.name, settings.__dict__, listing.classes, listing.task, images.REVISION]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for sample in samples:
        row = [sample.key, sample.checksum, sample.record.labels, sample.group, sample.split]
        digest.update(json.dumps(row).encode())
        source.update(f"{sample.key} {sample.checksum}\n".encode())
    plan.fingerprint, plan.source = digest.hexdigest()[:16], source.hexdigest()
    order = np.random.default_rng(derive("shard order", splits.SPLIT_SEED)).permutation(len(samples))
    plan.samples = [samples[i] for i in order]
    return plan


def write(
    plan: Plan, out: Path, *, workers: int, max_bad: float, strict: bool, progress: Progress, patience: float = 0.0
) -> Shards:
    """Pass two: write what of the plan is not there yet; `ValueError` when too many images are bad.

    Raises `files.Busy` when another process still writes the same folder after `patience` seconds.
    """
    folder = out / plan.folder_name
    check_bad(plan.bad, total=len(plan.listing.records), max_bad=max_bad, strict=strict)
    if (folder / "manifest.json").exists():
        return open_shards(folder)
    with files.lock(folder / ".lock", what=str(folder), patience=patience):
        if not (folder / "manifest.json").exists():  # else another finished it since the look above
            files.remove_temporaries(folder)
            _write_tars(folder, plan, plan.tars(), workers, progress)
            _finish(folder, plan, max_bad=max_bad, strict=strict)
    (folder / ".lock").unlink(missing_ok=True)
    return open_shards(folder)


def write_part(
    plan: Plan, out: Path, part: int, parts: int, *, workers: int, progress: Progress, patience: float
) -> None:
    """Write every `parts`th tar from number `part` on, where it is not there yet; other parts may be at work beside.

    `write` then makes the index. Raises `files.Busy` when another process writes all of it.
    """
    folder = out / plan.folder_name
    if (folder / "manifest.json").exists():
        return
    with files.lock(folder / ".lock", what=str(folder), patience=patience, shared=True):
        if not (folder / "manifest.json").exists():  # else another finished it since the look above
            _write_tars(folder, plan, plan.tars()[part::parts], workers, progress)


def left(plan: Plan, out: Path) -> int:
    """How many tars of the plan are still to be written; 0 when all are there."""
    folder = out / plan.folder_name
    if (folder / "manifest.json").exists():
        return 0
    return sum(not _is_good(folder / f".{tar}.json") for tar, _ in plan.tars())


def _write_tars(
    folder: Path, plan: Plan, tars: list[tuple[str, list[Sample]]], workers: int, progress: Progress
) -> None:
    todo = [(tar, members) for tar, members in tars if not _is_good(folder / f".{tar}.json")]
    pending = [(s.record.path, s.checksum, plan.settings) for _, members in todo for s in members]
    with Workers(workers) as pool:
        answers = progress(pool.map(stored, pending), total=len(pending), what="writing")
        for tar, members in todo:
            _write_tar(folder, tar, members, plan, answers)
        for _ in answers:  # run the progress display to its end
            pass


def _is_good(part: Path) -> bool:
    """Whether a tar is written and nothing in it was bad: what was may have been mended, and is tried again."""
    return part.exists() and not files.read_json(part)["bad"]


def _finish(folder: Path, plan: Plan, *, max_bad: float, strict: bool) -> None:
    """All tars are there: their rows become the index, then the manifest."""
    rows: list[dict[str, Any]] = []
    bad = list(plan.bad)
    for tar, _ in plan.tars():
        part = files.read_json(folder / f".{tar}.json")
        rows += part["rows"]
        bad += part["bad"]
    check_bad(bad, total=len(plan.listing.records), max_bad=max_bad, strict=strict)
    if not rows:
        raise ValueError(f"{plan.dataset.name}: not one usable image under {plan.root}; look at --raw")
    write_index(folder / "index.parquet", rows)
    files.write_json(folder / "manifest.json", _manifest(plan, rows, bad))
    for tar, _ in plan.tars():
        (folder / f".{tar}.json").unlink(missing_ok=True)


def check_bad(bad: list[dict[str, str]], *, total: int, max_bad: float, strict: bool) -> None:
    """`ValueError` listing the bad images when there are more than the job accepts."""
    if not bad or (not strict and len(bad) / total <= max_bad):
        return
    shown = "\n".join(f"  {entry['file']}: {entry['reason']}" for entry in bad[:20])
    more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
    rule = "--strict accepts none" if strict else f"--max-bad accepts {max_bad:g} of them"
    raise ValueError(
        f"{len(bad)} of {total} images cannot be used and {rule}; mend them or raise --max-bad:\n{shown}{more}"
    )


def _write_tar(folder: Path, tar: str, members: list[Sample], plan: Plan, answers: Iterator[Any]) -> None:
    rows, bad = [], []
    extension = images.FORMATS[plan.settings.format]
    with files.publish(folder / f"{tar}.tar") as file:
        writer = TarWriter(file)
        for sample in members:
            answer = next(answers)
            labels = sample.record.labels
            if isinstance(answer, images.BadImage):
                bad.append({"file": _relative(sample.record.path, plan.root), "reason": str(answer)})
                continue
            data, width, height = answer
            offset = writer.add(f"{sample.key}.{extension}", data)
            writer.add(f"{sample.key}.json", json.dumps({"labels": labels}).encode())
            rows.append(
                {
                    "key": sample.key,
                    "split": sample.split,
                    "labels": labels,
                    "group": sample.group,
                    "tar": f"{tar}.tar",
                    "offset": offset,
                    "size": len(data),
                    "sha256": files.sha256_bytes(data),
                    "width": width,
                    "height": height,
                }
            )
        writer.close()
    files.write_json(folder / f".{tar}.json", {"rows": rows, "bad": bad}, indent=None)


def _manifest(plan: Plan, rows: list[dict[str, Any]], bad: list[dict[str, str]]) -> dict[str, Any]:
    written = {row["key"] for row in rows}
    left_out = sorted(sample.key for sample in plan.samples if sample.key not in written)
    # images that only decoding showed to be bad: without them it is another dataset than on a machine that had them
    fingerprint = _hash(plan.fingerprint, *left_out)[:16] if left_out else plan.fingerprint
    samples = [sample for sample in plan.samples if sample.key in written]
    table = [sample.split for sample in samples]
    counts: dict[str, dict[str, int]] = {}
    for split in splits.SPLITS:
        members = [row["labels"] for row in rows if row["split"] == split]
        counter = Counter(name for labels in members for name in labels or ())
        counts[split] = {
            "pictures": len(members),
            "unlabelled": sum(labels is None for labels in members),
            **{name: counter[name] for name in plan.listing.classes},
        }
    return {
        "name": plan.dataset.name,
        "fingerprint": fingerprint,
        "task": plan.listing.task,
        "classes": list(plan.listing.classes),
        "metric": plan.dataset.metric,
        "label_fractions": list(plan.dataset.label_fractions),
        "settings": dict(plan.settings.__dict__),
        "counts": counts,
        "test_sharing_group_with_train": splits.shared_groups([s.group for s in samples], table),
        "identical_across_splits": splits.identical_across([s.checksum for s in samples], table),
        "source_sha256": plan.source,
        "versions": {name: version(name) for name in ("pillow", "numpy", "pyarrow")},
        "quarantined": sorted(bad, key=lambda entry: entry["file"]),
        "stand_in": (plan.root / MARK).exists(),
    }


def _keys(plan: Plan, found: list[tuple[Record, str]]) -> dict[Path, str]:
    """A key for each usable path: the published id, else a hash, else (asked for) the cleaned file name."""
    keys: dict[Path, str] = {}
    taken: set[str] = set()
    for record, checksum in found:
        relative = _relative(record.path, plan.root)
        key = record.key or _hash(checksum, relative)
        if plan.settings.keep_names and record.key is None:
            name = re.sub(r"[^A-Za-z0-9-]+", "_", str(Path(relative).with_suffix(""))).strip("_-")
            key = f"{name}_{key[:8]}" if name in taken else name or key
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            plan.quarantine(record, f"its id {key!r} holds characters that tar readers split names at")
            continue
        taken.add(key)
        keys[record.path] = key
    return keys


def _groups(found: list[tuple[Record, str]], *, keep: bool) -> list[str | None]:
    """The group of each image; one that nobody published is named by a hash of its images, not of its name."""
    members: dict[str, list[str]] = {}
    for record, checksum in found:
        if record.group is not None:
            members.setdefault(record.group, []).append(checksum)
    hashes = {group: _hash("group", *sorted(checksums)) for group, checksums in members.items()}
    return [r.group if keep or r.key or r.group is None else hashes[r.group] for r, _ in found]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:20]


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _checksum(path: Path) -> str | images.BadImage:
    try:
        if not path.is_file():
            return images.BadImage("no such file")
        if path.stat().st_size == 0:
            return images.BadImage("is empty")
        return files.sha256_file(path)
    except OSError as error:
        return images.BadImage(f"cannot be read: {error.strerror}")
