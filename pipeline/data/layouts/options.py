"""How a user's own images are to be read where files and tables do not tell: the flags of `pipeline.shard`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.labels import APART, TOGETHER

LEAVE_OUT, KEEP = "leave-out", "keep"
TABLE = {"label_column", "group_column", "split_column", "classes", "encoding", "keep_na"}
TARS = {"tars", "image_member", "label_member", "group_member", "split_member"}
EVERY = {"similar_classes", "group_from", "leave_out"}
OF_LAYOUT = {
    "folder": {"masks", *EVERY},
    "csv": {"path_column", "masks", *TABLE, *EVERY},
    "dicom": {"labels", *TABLE, *EVERY},
    "webdataset": {*TARS, *EVERY},
}
"""The options that each layout has."""
LAYOUTS = tuple(OF_LAYOUT)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user decided; raises `ValueError` for what makes no sense."""

    path_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    classes: tuple[str, ...] = ()
    """The columns that are classes: names, or patterns (`dx_*`)."""
    encoding: str | None = None
    keep_na: bool = False
    """Whether `nan`, `None`, `N/A` and the like in the label column are classes."""
    similar_classes: str | None = None
    group_from: str | None = None
    """A regular expression; what it finds in a file's path (its first group, if it has one) is the image's group."""
    masks: str | None = None
    leave_out: tuple[str, ...] = ()
    """Patterns for files and folders, relative to the raw folder."""
    tars: tuple[str, ...] = ()
    """Patterns for tars: paths in the raw folder or addresses."""
    image_member: str | None = None
    """How the name of a sample's image ends, after the first dot."""
    label_member: str | None = None
    """Where a sample's label is: `cls`, `txt` or `json:field`."""
    group_member: str | None = None
    split_member: str | None = None
    labels: Path | None = None
    """The table of labels of the layout `dicom`."""
    volumes: bool = False
    """Whether compressed NIfTI files are images: with --slices, which is no flag of layouts."""

    def __post_init__(self) -> None:
        if self.similar_classes not in (None, TOGETHER, APART):
            raise ValueError(f"--similar-classes is {self.similar_classes!r}; give {TOGETHER} or {APART}")
        if self.masks not in (None, LEAVE_OUT, KEEP):
            raise ValueError(f"--masks is {self.masks!r}; give {LEAVE_OUT} or {KEEP}")
        if self.classes and self.label_column is not None:
            raise ValueError("--classes and --label-column do not go together; give the one that holds the labels")
        if self.group_from is not None and self.group_column is not None:
            raise ValueError("--group-from and --group-column do not go together; give one of them")
        for member in (self.label_member, self.group_member, self.split_member):
            if member is not None and (not member.partition(":")[0] or member.lower() in ("json", "json:")):
                raise ValueError(f"{member!r} is no member with a word in it; give cls, txt or json:FIELD")
        if self.group_from is not None and self.group_member is not None:
            raise ValueError("--group-from and --group-member do not go together; give one of them")
        if self.group_from is not None:
            try:
                re.compile(self.group_from)
            except re.error as error:
                raise ValueError(f"--group-from is {self.group_from!r}, no regular expression: {error}") from error

    def check(self, layout: str | None) -> None:
        """Raise `ValueError` for an option that a layout (None: a known dataset) does not have."""
        given = {name for name, value in asdict(self).items() if value and name != "volumes"}
        if wrong := sorted(given - OF_LAYOUT[layout] if layout else given):
            having = [name for name, options in OF_LAYOUT.items() if wrong[0] in options]
            needed = " or ".join(filter(None, [", ".join(having[:-1]), having[-1]]))
            raise ValueError(f"--{wrong[0].replace('_', '-')} goes with --layout {needed} only; omit it")
        if layout == "dicom" and self.labels is None and (of_table := sorted(given & {*TABLE, "similar_classes"})):
            raise ValueError(f"--{of_table[0].replace('_', '-')} is about a table; give it: --labels FILE")
