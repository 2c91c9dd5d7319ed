"""Which images some files hold, read as the shards of a network's run were, and what each of them is called.

An image of DICOM is called by its key in shards, and no file of a set that holds DICOM by its name: both can be names
of patients. All others are called by their paths.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.data.formats import kinds
from pipeline.data.formats.files import Source
from pipeline.data.formats.reading import Reading, Secret
from pipeline.data.records import Record
from pipeline.data.shards.headers import with_ends, with_patients
from pipeline.data.shards.keys import groups_of, hashed_key, is_of_header
from pipeline.data.shards.quarantine import Names, said_part
from pipeline.data.shards.raw import Progress, RawFiles, RawImage, read_files
from pipeline.data.shards.transcode import ShardSettings
from pipeline.models.info import ModelInfo

UNSCALED = "shown between the percentiles of their series, of the slices that are given here; give whole series"


@dataclass(frozen=True)
class Given:
    """An image that is to be scored."""

    name: str
    source: Source
    stem: str
    """What a file that is made of it is called."""

    @property
    def has_reader(self) -> bool:
        """Whether a reader of `data/formats` reads it."""
        return self.source.kind is not None


@dataclass
class Contents:
    """What some files hold."""

    images: list[Given] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Names of files that cannot be used, and why."""
    groups: dict[str, str] = field(default_factory=dict)
    """Of images that headers, or their file, put together, by name."""
    notes: list[str] = field(default_factory=list)
    """What a person must know: sentences without a value of a header."""
    real: dict[str, str] = field(default_factory=dict)
    """Paths by what is printed in their place."""


def settings_for(info: ModelInfo, given: Mapping[str, Any]) -> ShardSettings | None:
    """How the images of a network's run were read, but for what is `given`: fields of `Reading` that are not None.

    None where neither is known.
    """
    given = {name: value for name, value in given.items() if value is not None}
    stored = _stored_settings(info)
    if stored is None and not given:
        return None
    if stored is None:
        return ShardSettings(
            size=info.image_size, split="image", format="png", quality=None, keep_names=False, reading=Reading(**given)
        )
    return replace(stored, reading=replace(stored.reading, **given))


def _stored_settings(info: ModelInfo) -> ShardSettings | None:
    try:
        return ShardSettings.of_json(info.prepared["settings"]) if info.prepared else None
    except TypeError as error:
        raise ValueError(f"the images of {info.run} were read by another version ({error}); use that one") from error


def differences(info: ModelInfo, settings: ShardSettings | None) -> list[str]:
    """What is read in another way than for the run, one sentence each."""
    stored = _stored_settings(info)
    if settings is None:
        return []
    if stored is None:
        return ["the shards of this run are not here: what no flag says is read as `shard` does by default"]
    before, now = stored.reading, settings.reading
    return [
        f"--{each.name.replace('_', '-')} is {getattr(now, each.name)}; for the images of the run it was "
        f"{getattr(before, each.name) or 'not given'}"
        for each in fields(Reading)
        if getattr(now, each.name) != getattr(before, each.name)
    ]


def read(
    paths: Sequence[Path], settings: ShardSettings | None, secret: Secret, *, workers: int, progress: Progress
) -> Contents:
    """The images in files; raises `ValueError` for DICOM if nobody knows how it was read."""
    reading = settings.reading if settings else Reading()
    special = [path for path in paths if _kind(path, reading)]
    if special and settings is None:
        raise ValueError(
            "the shards of this run are not here, so it is not known how its images were read; copy them, or say it "
            "with --window, --frames, --slices or --tiles as for shard (--frames all: as by default)"
        )
    records = [Record(key=None, path=path, labels=None) for path in special]
    raw = read_files(records, reading, secret, workers=workers, progress=progress) if records else RawFiles()
    raw.images = with_ends(with_patients(raw.images), reading)
    return _named(paths, set(special), raw)


def _kind(path: Path, reading: Reading) -> str | None:
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            return kinds.kind_of(file, reading)
    except OSError:  # reading it says why
        return None


def _named(paths: Sequence[Path], special: set[Path], raw: RawFiles) -> Contents:
    """The contents, in the order of the paths."""
    hidden = raw.holds_dicom
    names, unread, out = Names(Path(), hidden), itertools.count(1), Contents()
    by_path: dict[Path, list[tuple[RawImage, str | None]]] = {}
    for image, group in zip(raw.images, groups_of(raw.images, keep_names=False), strict=True):
        by_path.setdefault(image.record.path, []).append((image, group))
    bad = {record.path: str(record.problem) for record in (*raw.problems, *raw.refused)}
    for path in paths:
        if path not in special:
            source = Source(path, _checksum(path) if hidden else "")
            name = _file_name(path, source.checksum, names, unread)
            _add(out, Given(name, source, name if hidden else path.stem), None)
        elif path in bad:
            name = _file_name(path, "", names, unread)
            out.skipped.append((name, bad[path]))
            out.real[name] = str(path)
        for image, group in by_path.get(path, []):
            whole = group if is_of_header(image) or hidden else str(path)
            _add(out, _given(image, names), whole if image.record.group else None)
    passed_over = Counter(passed.kind for passed in raw.passed_over)
    out.notes += [f"passed over: {counted(count, 'file')}, {what}" for what, count in sorted(passed_over.items())]
    if count := sum(image.source.ends is not None for image in raw.images):
        out.notes.append(f"{counted(count, 'image')} {UNSCALED}")
    out.notes += raw.notes()
    return out


def _file_name(path: Path, checksum: str, names: Names, unread: Iterator[int]) -> str:
    """What a file is called; one without a checksum could not be read, and has a number if its name is hidden."""
    if not names.hidden:
        return str(path)
    return names.of(path, checksum) if checksum else names.of_unread(path, next(unread))


def _given(image: RawImage, names: Names) -> Given:
    part = image.source.part
    if image.source.kind == kinds.DICOM:
        key = hashed_key(image, "")
        return Given(key, image.source, key)
    if names.hidden:
        name = names.of(image.source.path, image.source.checksum, part)
        return Given(name, image.source, name.replace("/", "-"))
    return Given(f"{image.source.path}{said_part(part)}", image.source, image.source.path.stem)


def _add(out: Contents, image: Given, group: str | None) -> None:
    real = f"{image.source.path}{said_part(image.source.part)}"
    again, name = 1, image.name
    while out.real.get(name, real) != real:  # files of the same content
        again += 1
        name = f"{image.name} ({again})"
    image = replace(image, name=name)
    out.images.append(image)
    out.real[name] = real
    if group is not None:
        out.groups[image.name] = group


def _checksum(path: Path) -> str:
    """Of a file; empty where it cannot be read, which decoding says."""
    try:
        return files.sha256_file(path)
    except OSError:
        return ""


def check_key(contents: Contents, info: ModelInfo, secret: Secret) -> None:
    """Raise `ValueError` for DICOM if the ids of the run's images were hashed with a key, and it is not this one."""
    wanted = info.prepared.get("id_key") if info.prepared else None
    has_ids = any(image.source.kind == kinds.DICOM for image in contents.images)
    if has_ids and wanted and wanted != secret.known_by:
        raise ValueError(
            "the ids in the shards of this run were hashed with a key of yours, "
            f"{'and --id-key is another one' if secret.is_given else 'and there is none here'}; give it: --id-key FILE"
        )


def remarks(loaded: Iterable[tuple[str, ...]]) -> list[str]:
    """What is said of how grey levels came about: each sentence with the number of its images."""
    found = Counter(remark for each in loaded for remark in each)
    return [f"{counted(count, 'image')}: {text}" for text, count in sorted(found.items())]
