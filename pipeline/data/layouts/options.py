"""How a user's own images are to be read where files and tables do not tell: the flags of `pipeline.shard`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.labels import APART, TOGETHER

LAYOUTS = ("folder", "csv", "dicom")
LEAVE_OUT, KEEP = "leave-out", "keep"
TABLE_ONLY = {"label_column", "group_column", "split_column", "classes", "encoding", "keep_na", "similar_classes"}
NOT_OF = {
    "folder": {"path_column", "labels", *TABLE_ONLY} - {"similar_classes"},
    "csv": {"labels"},
    "dicom": {"path_column", "masks"},
}
"""The options that a layout does not have."""
GO_WITH = {"labels": "--layout dicom", "masks": "--layout folder or csv"}


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
        if self.group_from is not None:
            try:
                re.compile(self.group_from)
            except re.error as error:
                raise ValueError(f"--group-from is {self.group_from!r}, no regular expression: {error}") from error

    def check(self, layout: str | None) -> None:
        """Raise `ValueError` for an option that a layout (None: a known dataset) does not have."""
        given = {name for name, value in asdict(self).items() if value and name != "volumes"}
        if layout == "dicom" and self.labels is None and (of_table := sorted(given & TABLE_ONLY)):
            raise ValueError(f"--{of_table[0].replace('_', '-')} is about a table; give it: --labels FILE")
        wrong = sorted(given if layout is None else given & NOT_OF.get(layout, set()))
        if wrong:
            needed = "--layout folder or csv" if layout is None else GO_WITH.get(wrong[0], "--layout csv")
            raise ValueError(f"--{wrong[0].replace('_', '-')} goes with {needed} only; omit it")
