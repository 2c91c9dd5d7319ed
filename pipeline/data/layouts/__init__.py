"""The user's own images: `python -m pipeline.shard my_lesions --layout folder --raw DIR` (or `--layout csv`).

folder  one folder a class; images directly in DIR or in DIR/unlabelled have no label. If DIR holds train, val or
        test folders, these are the split and the class folders are inside them.
csv     one CSV file in DIR, or one a split: a path column (image, path, file or filename), then either one `label`
        column or one column of 0 and 1 a class; optional `group` (or patient, lesion) and `split` columns. Empty
        labels: none.
dicom   every file in DIR, without a label or with those of --labels FILE, whose rows name ids of the headers.
webdataset  tar shards of anyone: all in DIR, or those that --tars names, also by address.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.core.console import visible
from pipeline.data.folders import LEFT_OUT, UNREADABLE, VOLUME, is_left_out
from pipeline.data.layouts.csv_layout import csv_listing
from pipeline.data.layouts.dicom_layout import dicom_listing
from pipeline.data.layouts.folder_layout import folder_listing
from pipeline.data.layouts.options import LAYOUTS, Options
from pipeline.data.layouts.webdataset_layout import webdataset_listing
from pipeline.data.members import relative_name
from pipeline.data.records import Dataset, Listing


class UserDataset(Dataset):
    """The user's own images under a name that the user gives, in one of `LAYOUTS`."""

    classes = ()
    task = ""
    metric = "balanced_accuracy"  # ASSUMED: fair to rare classes; every metric is stored
    label_fractions = (0.01, 0.1, 1.0)  # the paper's fractions
    obtain = "See docs/datasets.md for the layouts."

    def __init__(self, name: str, layout: str, options: Options | None = None, *, any_marks: bool = False) -> None:
        """With `any_marks` every column of a CSV file that has no other meaning is a class, whatever it looks like."""
        if layout not in LAYOUTS:
            raise ValueError(f"--layout is {layout!r}; known: {', '.join(LAYOUTS)}")
        self.name = name
        self.layout = layout
        self.options = options or Options()
        self.any_marks = any_marks
        self.options.check(layout)

    def listing(self, root: Path) -> Listing:
        self.require(root)
        if self.layout == "folder":
            listing = folder_listing(root, self.options)
        elif self.layout == "dicom":
            listing = dicom_listing(root, self.options)
        elif self.layout == "webdataset":
            listing = webdataset_listing(root, self.options)
        else:
            listing = csv_listing(root, self.options, any_marks=self.any_marks)
        if not listing.records:
            raise ValueError(f"{self.name}: no images under {root}{_instead(listing)}; {self.obtain}")
        labelled = [record for record in listing.records if record.labels and not record.problem]
        if labelled and len(listing.classes) < 2:
            closed = [r for r in listing.records if r.problem and r.problem.startswith(UNREADABLE)]
            if closed:
                raise ValueError(
                    f"{self.name}: {visible(str(closed[0].path))} is {closed[0].problem}; make it readable"
                )
            hint = f"; if its folders are the classes, give --raw {root / listing.classes[0]}"
            raise ValueError(
                f"{self.name}: only one class, {listing.classes[0]!r}, under {root}{_instead(listing)}; give "
                "each class a folder or column" + (hint if self.layout == "folder" else "")
            )
        self._check_patterns(listing, root)
        return listing

    def _check_patterns(self, listing: Listing, root: Path) -> None:
        left_out = [passed.path for passed in listing.passed_over if passed.kind == LEFT_OUT]
        for pattern in self.options.leave_out:
            if not any(is_left_out(relative_name(path, root), [pattern]) for path in left_out):
                raise ValueError(f"--leave-out {pattern!r} fits no file or folder under {root}; correct or omit it")


def _instead(listing: Listing) -> str:
    """What errors say of the files that were passed over; empty where there are none."""
    kinds = Counter(passed.kind for passed in listing.passed_over)
    if not kinds:
        return ""
    volumes = "; --slices all reads volumes" if VOLUME in kinds else ""
    return f" (passed over: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}){volumes}"
