"""Keys and groups of images: what they are called in shards, without a name that could be a patient's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pipeline.data import members
from pipeline.data.records import Record
from pipeline.data.shards import quarantine
from pipeline.data.shards.raw import RawFiles, RawImage

AGAIN = "the same image under the same name again"
NONE_STORED: Mapping[str, str] = MappingProxyType({})


def keys_of(raw: RawFiles, root: Path, *, keep_names: bool, stored: Mapping[str, str] = NONE_STORED) -> list[str]:
    """A key for each image that can have one; the others become problems. Those of tars are sorted by their keys.

    The key is the published id; else, with `keep_names`, the cleaned file name; else a hash. `stored` are the keys that
    shards have already, with the checksums of their files: a name among them is that of such a file alone.
    """
    taken: dict[str, RawImage] = {}
    wrong: set[str] = set()
    """Keys of images that are there again with another label, group or split."""
    for image in raw.images:
        key = _key(image, root, taken, stored, keep_names=keep_names)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            problem = f"its id {key!r} holds characters that tar readers split names at"
            raw.problems.append(replace(image.record, problem=problem))
        elif key in taken:
            problem = _again(image.record, taken[key].record)
            raw.problems.append(replace(image.record, problem=problem))
            if problem != AGAIN and key not in wrong:
                wrong.add(key)
                raw.problems.append(replace(taken[key].record, problem=problem))
        else:
            taken[key] = image
    usable = [(key, image) for key, image in taken.items() if key not in wrong]
    if any(members.member_of(image.record.path) for _, image in usable[:1]):  # their places in tars say nothing
        usable.sort(key=lambda pair: pair[0])
    raw.images = [image for _, image in usable]
    return [key for key, _ in usable]


def _key(
    image: RawImage, root: Path, taken: Mapping[str, RawImage], stored: Mapping[str, str], *, keep_names: bool
) -> str:
    record, checksum = image.record, image.source.checksum
    member = members.member_of(record.path)  # neither its tar nor its place in it is a part of its name
    name = member.name if member else quarantine.relative_name(record.path, root)
    key = record.key or hashed_key(image, name)
    if keep_names and record.key is None:
        part = [str(number) for number in record.part]
        cleaned = re.sub(r"[^A-Za-z0-9-]+", "_", str(Path(name).with_suffix(""))).strip("_-")
        cleaned = "_".join([cleaned, *part]) if cleaned and part else cleaned
        is_taken = cleaned in taken or stored.get(cleaned, checksum) != checksum
        key = f"{cleaned}_{key[:8]}" if is_taken else cleaned or key
    return key


def hashed_key(image: RawImage, name: str) -> str:
    """A hash of the id in an image's header; without one, of its file's content and `name`."""
    part = [str(number) for number in image.record.part]
    found = image.found
    whole = short_hash(image.source.checksum, name) if found is None or found.id is None else found.id
    return short_hash(whole, *part) if part else whole


def _again(one: Record, other: Record) -> str:
    """What is wrong with two images of one name and content, which only tars can hold."""
    equal = (one.labels, one.group, one.split) == (other.labels, other.group, other.split)
    return AGAIN if equal else f"{AGAIN}, with another label, group or split"


def groups_of(usable: Sequence[RawImage], *, keep_names: bool) -> list[str | None]:
    """The group of each image; a group that nobody published becomes a hash of its images, because it may be a name."""
    hashes = group_hashes((each.record.group, each.source.checksum) for each in usable if each.record.group is not None)
    out = []
    for image in usable:
        group = image.record.group
        out.append(group if group is None or keeps_group(image, keep_names=keep_names) else hashes[group])
    return out


def group_hashes(members: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A hash of the images of each group, which takes the place of its name; members: group and file's checksum."""
    checksums: dict[str, list[str]] = {}
    for group, checksum in members:
        checksums.setdefault(group, []).append(checksum)
    return {group: short_hash("group", *sorted(each)) for group, each in checksums.items()}


def keeps_group(image: RawImage, *, keep_names: bool) -> bool:
    """Whether an image's group is stored under the name that it has."""
    if is_of_header(image):
        return image.found is not None and image.found.is_keyed
    return keep_names or bool(image.record.key)


def is_of_header(image: RawImage) -> bool:
    """Whether an image's group is what its header says."""
    return image.found is not None and image.found.group is not None and image.found.group == image.record.group


def short_hash(*parts: str) -> str:
    """20 hexadecimal digits of a SHA-256; a name's bytes that are no UTF-8 count as they are."""
    return hashlib.sha256("\x1f".join(parts).encode(errors="surrogateescape")).hexdigest()[:20]
