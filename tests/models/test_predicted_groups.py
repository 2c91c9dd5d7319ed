"""Images of one name and groups by a pattern, where names may be those of patients."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.formats import kinds
from pipeline.data.formats.files import Source
from pipeline.models.contents import Contents, Given, _add
from pipeline.models.groups import groups_of_paths


def given(path: str, kind: str | None) -> Given:
    return Given(f"key of {Path(path).stem}", Source(Path(path), f"sum of {Path(path).name}", kind), "stem")


def test_a_group_by_a_pattern_is_a_hash_where_there_is_dicom() -> None:
    paths = ("scans/DOE_JOHN/1.dcm", "scans/DOE_JOHN/2.dcm", "scans/ROE_JANE/3.dcm")
    found = groups_of_paths([given(path, kinds.DICOM) for path in paths], "^([^/]+)/", [Path("scans")])
    assert found["key of 1"] == found["key of 2"] != found["key of 3"]
    assert not any("DOE" in group or "ROE" in group for group in found.values())
    plain = groups_of_paths([given(path, None) for path in paths], "^([^/]+)/", [Path("scans")])
    assert set(plain.values()) == {"DOE_JOHN", "ROE_JANE"}


def test_files_of_the_same_content_keep_names_of_their_own() -> None:
    out = Contents()
    for path in ("a/1.png", "b/1.png", "c/1.png", "a/1.png"):
        _add(out, Given("file 0123", Source(Path(path), "0123"), "stem"), None)
    assert out.real == {"file 0123": "a/1.png", "file 0123 (2)": "b/1.png", "file 0123 (3)": "c/1.png"}
    assert [image.name for image in out.images] == ["file 0123", "file 0123 (2)", "file 0123 (3)", "file 0123"]
