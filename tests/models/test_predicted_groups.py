"""Images of one name and groups by a pattern, where names may be those of patients."""

from __future__ import annotations

from pathlib import Path

import hospital
import numpy as np
import pytest

from pipeline.core.console import silent
from pipeline.data.formats import kinds
from pipeline.data.formats.files import Source
from pipeline.data.formats.reading import Reading, Secret
from pipeline.data.shards.transcode import ShardSettings
from pipeline.learn.by_group import Choice, Units
from pipeline.models.contents import Contents, Given, _add, read
from pipeline.models.groups import Grouping, groups_of_paths


def given(path: str, kind: str | None) -> Given:
    return Given(f"key of {Path(path).stem}", Source(Path(path), f"sum of {Path(path).name}", kind), "stem")


def test_a_group_by_a_pattern_is_a_hash_where_there_is_dicom() -> None:
    paths = ("scans/DOE_JOHN/1.dcm", "scans/DOE_JOHN/2.dcm", "scans/ROE_JANE/3.dcm")
    found = groups_of_paths([given(path, kinds.DICOM) for path in paths], "^([^/]+)/", [Path("scans")])
    assert found["key of 1"] == found["key of 2"] != found["key of 3"]
    assert not any("DOE" in group or "ROE" in group for group in found.values())
    plain = groups_of_paths([given(path, None) for path in paths], "^([^/]+)/", [Path("scans")])
    assert set(plain.values()) == {"DOE_JOHN", "ROE_JANE"}


def test_scores_of_groups_are_no_probabilities_and_are_not_called_so() -> None:
    """Each class by itself: the maxima of two images' probabilities add up to more than 1."""
    images = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert Units.of_images(["1", "2"], {"1": "p", "2": "p"}).scores(images, "max").sum() == pytest.approx(1.7)
    grouping = Grouping({"1": "p", "2": "p"}, Choice("max", "validation mean 0.5, max 0.6"))
    assert "groups are not: their scores are no probabilities" in grouping.text(calibrated=True)
    assert grouping.text() == "the score of a group is the max of its images' (validation mean 0.5, max 0.6)"


def test_files_of_the_same_content_keep_names_of_their_own() -> None:
    out = Contents()
    for path in ("a/1.png", "b/1.png", "c/1.png", "a/1.png"):
        _add(out, Given("file 0123", Source(Path(path), "0123"), "stem"), None)
    assert out.real == {"file 0123": "a/1.png", "file 0123 (2)": "b/1.png", "file 0123 (3)": "c/1.png"}
    assert [image.name for image in out.images] == ["file 0123", "file 0123 (2)", "file 0123 (3)", "file 0123"]


def test_every_file_that_cannot_be_read_has_a_number_of_its_own(tmp_path: Path) -> None:
    """DICOM without pixels, and missing files."""
    paths = []
    for number in range(2):
        refused = tmp_path / f"DOE-{number}.dcm"
        hospital.save(hospital.header("CT", patient="P", study=1, number=number), refused)
        paths += [refused, tmp_path / f"ROE-{number}.png"]
    settings = ShardSettings(size=8, split="image", format="png", quality=None, keep_names=False, reading=Reading())
    found = read(paths, settings, Secret(b"k", False), workers=1, progress=silent)
    assert len(found.real) == len(paths) and set(found.real.values()) == set(map(str, paths))
    assert not any("DOE" in name or "ROE" in name for name in found.real)
