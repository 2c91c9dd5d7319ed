"""Tar shards of anyone as WebDataset reads them: the members of a sample have one name and end in what they are.

Each tar is read once for its members; an image then is a place in its tar (`data/members`), so workers read any of them
in any order. What samples a tar holds is the library's own reading. Neither names nor order of the tars matter: a
sample is known by its content and its name in the tar.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from pipeline.core.console import counted, visible
from pipeline.data import folders, members
from pipeline.data.labels import listed, unify
from pipeline.data.layouts.groups import groups_from_paths
from pipeline.data.layouts.options import Options
from pipeline.data.layouts.tars import find_tars
from pipeline.data.layouts.words import SPLITS
from pipeline.data.records import Listing, PassedOver, Record

IMAGES = frozenset("jpg jpeg png webp bmp gif ppm tif tiff dcm".split())
"""Members that are images unless a flag names another."""
OURS = "cls"  # the label unless a flag says otherwise
LONGEST = 1 << 20  # bytes of a member that holds a label, and of what comes before one
LINKS = "links and devices in tars"
META = "members that WebDataset passes over"
TWICE = "second members of one name"


class _Headers:
    """A tar as tarfile reads it, which takes names and lists of any length into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell
        self.left = LONGEST
        """How many bytes may be read before the next member."""

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"it has a header of more than {LONGEST:,} bytes")
        return self.file.read(size)


class Span(NamedTuple):
    """A member of a tar."""

    name: str
    offset: int
    size: int


@dataclass
class _Found:
    """What the tars hold."""

    records: list[Record] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    """Of the members of samples, what follows their last dots: the rest can be a name."""


def webdataset_listing(root: Path, options: Options) -> Listing:
    """The listing of the tars that `options` name, or of all in `root`; fetched ones are kept there."""
    tars, passed_over = find_tars(root, options)
    splits = [_split_of(tar) for tar in tars]
    by_name = all(splits) and not options.split_member
    found = _Found(passed_over=passed_over)
    for tar, split in zip(tars, splits, strict=True):
        _read_tar(tar, root, options, found, split if by_name else None)
    notes = [f"read {counted(len(tars), 'tar')}"]
    if by_name and tars:
        notes.append("the split is how the names of the tars begin")
    if options.label_member is None and OURS not in found.endings:
        said = listed(f"{visible(ending)} ({count:,})" for ending, count in found.endings.most_common())
        notes.append(f"no sample has a member cls, so none has a label; its members: {said}; --label-member names one")
    records = found.records
    if options.group_from is not None:
        records = groups_from_paths(records, root, options.group_from, notes)
    given = [labels for record in records if (labels := record.labels) is not None and not record.problem]
    names = unify(Counter(name for labels in given for name in labels), options.similar_classes, what="classes")
    notes += [f"classes {note}" for note in names.notes]
    return Listing(
        classes=tuple(sorted(set(names.of.values()))),
        task="multi-label" if any(len(labels) != 1 for labels in given) else "multi-class",
        records=[_with_names(record, names.of) for record in records],
        passed_over=tuple(found.passed_over),
        notes=tuple(notes),
    )


def _with_names(record: Record, of: Mapping[str, str]) -> Record:
    if record.labels is None:
        return record
    return replace(record, labels=tuple(dict.fromkeys(of.get(name, name) for name in record.labels)))


def _split_of(tar: Path) -> str | None:
    word = re.match("[a-z]+", tar.name.lower())
    return SPLITS.get(word[0]) if word else None


def _read_tar(tar: Path, root: Path, options: Options, found: _Found, split: str | None) -> None:
    """Add the samples of a tar; one that breaks off is a record with a problem after those that can be read."""
    from webdataset.tariterators import group_by_keys

    passes = _passes(tar, root, options)
    last: list[Span] = []
    broken: list[str] = []

    def spans() -> Iterator[dict[str, Any]]:
        try:
            for span in _members(tar, found, passes):
                last[:] = [span]
                yield {"fname": span.name, "data": span, "__url__": ""}
        except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, RecursionError) as error:
            broken.append(str(error) or type(error).__name__)

    def skip(error: Exception) -> bool:
        found.passed_over.append(PassedOver(members.member_path(tar, *last[0][1:], last[0].name), TWICE))
        return True

    with open(tar, "rb") as file:
        for sample in group_by_keys(spans(), handler=skip):
            parts = {name: part for name, part in sample.items() if isinstance(part, Span)}
            found.endings.update(name if name == OURS else name.rpartition(".")[2] for name in parts)
            found.records.append(_Sample(tar, str(sample["__key__"]), parts, file, options).record(split))
    if broken:
        problem = f"{members.UNREADABLE}: {broken[0]}"
        found.records.append(Record(key=None, path=tar, labels=None, problem=problem))


def _passes(tar: Path, root: Path, options: Options) -> Callable[[str], str | None]:
    """What says why a member of that name is passed over, if it is."""
    from webdataset.tariterators import base_plus_ext

    above = members.relative_name(tar, root)

    def reason(name: str) -> str | None:
        base = name.rpartition("/")[2]
        if options.leave_out and folders.is_left_out(f"{above}/{name}", options.leave_out):
            return folders.LEFT_OUT
        if base.startswith("."):
            return folders.SYSTEM if base.startswith(folders.SYSTEM_FILES) else folders.HIDDEN
        ending = base_plus_ext(name)[1]
        return META if ending is None or ending.startswith("__") or re.match(r"__[^/]*__($|/)", name) else None

    return reason


def _members(tar: Path, found: _Found, passes: Callable[[str], str | None]) -> Iterator[Span]:
    """The files in a tar, in order; raises `tarfile.TarError` where it breaks off."""
    size = tar.stat().st_size
    end = 0
    with open(tar, "rb") as file, tarfile.open(fileobj=cast(Any, headers := _Headers(file)), mode="r:") as opened:
        for info in opened:
            headers.left = LONGEST
            opened.members = []  # type: ignore[attr-defined]  # it keeps them all
            end = info.offset_data + (-(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if info.isreg() else 0)
            place = members.member_path(tar, info.offset_data, info.size, info.name)
            if not info.isreg() or info.issparse():
                found.passed_over += [] if info.isdir() else [PassedOver(place, LINKS)]  # a sparse file too
            elif info.offset_data + info.size > size:
                raise tarfile.ReadError(f"it ends in {visible(info.name)}")
            elif (kind := passes(info.name)) is not None:
                found.passed_over.append(PassedOver(place, kind))
            else:
                yield Span(info.name, info.offset_data, info.size)
    with open(tar, "rb") as file:
        file.seek(end)
        if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end mark, so what follows may be missing")


@dataclass(frozen=True)
class _Sample:
    """The members of a sample."""

    tar: Path
    key: str
    parts: dict[str, Span]
    """By what follows the first dot of their names."""
    file: Any
    """The tar, open."""
    options: Options

    def record(self, split: str | None) -> Record:
        """Its record, or one that says why it cannot be used."""
        options = self.options
        image, problem = self._image()
        labels: tuple[str, ...] | None = None
        group = None
        try:
            labels = self._values(options.label_member or OURS)
            groups = self._values(options.group_member) if options.group_member else None
            parts = self._values(options.split_member) if options.split_member else None
            group = _one(groups, "groups")
            split = _split(_one(parts, "splits")) if options.split_member else split
        except ValueError as error:
            problem = problem or str(error)
        place = image or Span(self.key, 0, 0)
        path = members.member_path(self.tar, place.offset, place.size, place.name)
        return Record(key=None, path=path, labels=labels, group=group, split=split, problem=problem)

    def _image(self) -> tuple[Span | None, str | None]:
        """The member that is the image, or why there is none."""
        wanted = self.options.image_member
        if wanted is not None:
            found = [self.parts[name] for name in (wanted.lower(),) if name in self.parts]
        else:
            found = [part for name, part in self.parts.items() if name.rpartition(".")[2] in IMAGES]
        has = listed(visible(name) for name in self.parts)
        if len(found) > 1:
            return found[0], f"the sample has several images ({has}); choose with --image-member"
        return (found[0], None) if found else (None, f"the sample has no image; its members: {has}")

    def _values(self, member: str) -> tuple[str, ...] | None:
        """The values that a member holds (`cls`, `txt`, `json:field`); None where there is none.

        Raises `ValueError` for what cannot be read.
        """
        ending, _, name = member.partition(":")
        part = self.parts.get(ending.lower())
        if part is None:
            return None
        if part.size > LONGEST:
            raise ValueError(f"its member {visible(ending)} has {part.size:,} bytes, too many for a label")
        self.file.seek(part.offset)
        try:
            text = self.file.read(part.size).decode("utf-8").strip()
            value = _field(json.loads(text), name) if name else text
        except (ValueError, RecursionError):
            raise ValueError(f"its member {visible(ending)} is no {'JSON' if name else 'UTF-8'}") from None
        values = value if isinstance(value, list) else [] if value in (None, "") else [value]
        if any(isinstance(each, (list, dict)) or each is None for each in values):
            raise ValueError(f"its member {visible(ending)} has no word or list of words in {visible(name)}")
        return tuple(map(_word, values)) if values or isinstance(value, list) else None


def _field(value: Any, name: str) -> Any:
    """What a JSON object has under `a.b`; None where it has none."""
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _one(values: Sequence[str] | None, what: str) -> str | None:
    if values is not None and len(values) > 1:
        raise ValueError(f"it has {len(values)} {what}")
    return values[0] if values else None


def _split(word: str | None) -> str | None:
    if word is not None and word.lower() not in SPLITS:
        raise ValueError(f"its split is {visible(word)!r}; known: {', '.join(SPLITS)}")
    return SPLITS[word.lower()] if word is not None else None
