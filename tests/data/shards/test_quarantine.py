"""A job accepts a share of bad images, compared exactly, and lists them in its error."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.shards import quarantine


@pytest.mark.parametrize(
    ("bad", "total", "max_bad", "strict", "accepted"),
    [
        (0, 100, 0.0, True, True),
        (0, 0, 0.01, True, True),
        (1, 100, 0.01, False, True),
        (2, 100, 0.01, False, False),
        (29, 100, 0.29, False, True),  # 0.29 * 100 is 28.999999999999996
        (1, 100, 0.5, True, False),
        (1, 1, 1.0, False, True),
    ],
)
def test_the_share_of_bad_images_is_compared_exactly(
    bad: int, total: int, max_bad: float, strict: bool, accepted: bool
) -> None:
    entries = [{"file": f"{number}.jpg", "reason": "is empty"} for number in range(bad)]
    try:
        quarantine.check(entries, total=total, max_bad=max_bad, strict=strict)
    except ValueError:
        assert not accepted
    else:
        assert accepted


def test_an_error_lists_twenty_bad_images_and_counts_the_others() -> None:
    entries = [{"file": f"{number:02d}.jpg", "reason": "is empty"} for number in range(30)]
    with pytest.raises(ValueError) as caught:
        quarantine.check(entries, total=30, max_bad=0.5, strict=False)
    assert "19.jpg: is empty" in str(caught.value) and "20.jpg" not in str(caught.value)
    assert str(caught.value).endswith("and 10 more")


def test_a_folder_that_cannot_be_read_is_accepted_by_a_max_bad_of_1_alone() -> None:
    entries = [{"file": "pos", "reason": "a folder that cannot be read: Permission denied"}]
    for max_bad in (0.01, 0.9):
        with pytest.raises(ValueError, match="1 folder cannot be read, and how many images they hold is not known"):
            quarantine.check(entries, total=1000, max_bad=max_bad, strict=False)
    quarantine.check(entries, total=1000, max_bad=1.0, strict=False)
    with pytest.raises(ValueError, match="--strict accepts none"):
        quarantine.check(entries, total=1000, max_bad=1.0, strict=True)


def test_names_and_reasons_are_stored_and_shown_escaped_and_of_bounded_length() -> None:
    root = Path("raw")
    name = quarantine.Names(root).of(root / "a" / "caf\udce9\n.jpg", "")
    entry = quarantine.entry(name, "line 2: split '" + "x" * 1000 + "'")
    assert entry["file"] == r"a/caf\xe9\n.jpg" and len(entry["reason"]) == quarantine.LONGEST
    with pytest.raises(ValueError) as caught:
        quarantine.check([{"file": "red\x1b[31m", "reason": "two\nlines"}], total=1, max_bad=0, strict=True)
    assert r"  red\x1b[31m: two\nlines" in str(caught.value)
