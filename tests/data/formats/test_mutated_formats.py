"""Damaged DICOM, NIfTI and TIFF of several pages: each file is accounted for and no job ends."""

from __future__ import annotations

import mutated_formats


def test_some_hundred_damaged_files_are_all_accounted_for() -> None:
    count = 300
    counts = mutated_formats.run(range(count))
    assert counts["written"] + counts["quarantined"] + counts["passed over"] == count + 1
    assert counts["written"] > count / 10 and counts["quarantined"] > count / 4
