"""One class written in several ways beyond doubt is one; what could be two is asked; what was right stays as it is."""

from __future__ import annotations

import os
import unicodedata

import pytest

from pipeline.data.labels import APART, TOGETHER, clean, fold, listed, unify

NFC = "mélanome"
NFD = unicodedata.normalize("NFD", NFC)


def test_two_unicode_forms_of_a_name_are_one_class() -> None:
    names = unify({NFC: 3, NFD: 2, "nævus": 5}, None)
    assert names.of == {NFC: NFC, NFD: NFC, "nævus": "nævus"}
    assert names.notes == (r"'me\u0301lanome', 'mélanome' are one: mélanome",)


def test_blanks_around_a_name_and_zeros_behind_a_number_are_no_other_class() -> None:
    assert unify({"nevus": 1, "nevus ": 1, "\u00a0nevus\u200b": 1}, None).of == dict.fromkeys(
        ("nevus", "nevus ", "\u00a0nevus\u200b"), "nevus"
    )
    assert unify({"1": 1, "1.0": 1, "1.00": 1, "0": 1, "1.5": 1}, None).of == {
        "1": "1",
        "1.0": "1",
        "1.00": "1",
        "0": "0",
        "1.5": "1.5",
    }


@pytest.mark.parametrize("counts", [{"1.0": 1, "0.0": 1}, {NFD: 1, "x": 1}, {"nevus ": 1, "b": 1}, {"a_b": 1, "c": 1}])
def test_a_name_that_is_written_one_way_stays_as_it_is(counts: dict[str, int]) -> None:
    """The fingerprint of a dataset that was read right before must not change."""
    names = unify(counts, None)
    assert names.of == {name: name for name in counts} and names.notes == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Benign", "benign"),
        ("basal cell", "basalcell"),
        ("basal_cell", "basal cell"),
        ("01", "1"),
        ("ＭＥＬ", "MEL"),
        ("be\u200bnign", "benign"),
        ("STRASSE", "straße"),
    ],
)
def test_what_could_be_two_classes_or_one_is_an_error_with_both_counts(one: str, other: str) -> None:
    with pytest.raises(ValueError) as caught:
        unify({one: 20, other: 10, "else": 5}, None)
    text = str(caught.value)
    assert (
        "(20)" in text and "(10)" in text and "--similar-classes together" in text and "--similar-classes apart" in text
    )
    assert "\u200b" not in text and "'else'" not in text
    assert unify({one: 20, other: 10}, APART).of == {one: one, other: other}
    joined = unify({one: 20, other: 10}, TOGETHER)
    assert joined.of == {one: one, other: one} and len(joined.notes) == 1


@pytest.mark.parametrize(("one", "other"), [("HER2+", "HER2-"), ("grade 1-2", "grade 12"), ("a", "b"), ("1.5", "15")])
def test_names_that_differ_in_signs_are_two_classes(one: str, other: str) -> None:
    assert fold(one) != fold(other)
    assert unify({one: 1, other: 1}, None).of == {one: one, other: other}


def test_bytes_that_are_no_utf_8_are_written_out() -> None:
    assert unify({os.fsdecode(b"caf\xe9"): 1}, None).of == {os.fsdecode(b"caf\xe9"): r"caf\xe9"}
    assert clean(os.fsdecode(b" \xe9 ")) == r"\xe9"


def test_long_lists_and_long_names_are_cut() -> None:
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert listed(["x" * 200]) == "x" * 80 + "…"
