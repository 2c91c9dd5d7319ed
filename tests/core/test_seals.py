"""A sealed object shows changes of its values and of the files that it names; one without a seal is read as it is."""

from __future__ import annotations

import json

import pytest

from pipeline.core import files, seals


@pytest.fixture
def path(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(1000))
    value = {"score": 0.1 + 0.2, "names": ["a", "µ"], "nothing": None, "undefined": float("nan")}
    files.write_json(tmp_path / "value.json", seals.sealed(value, [tmp_path / "weights"]))
    return tmp_path / "value.json"


def test_what_was_written_is_read(path):
    value = seals.read_sealed(path)
    assert value["score"] == 0.1 + 0.2 and value["names"] == ["a", "µ"]
    seals.check_sizes(path.parent, value)
    assert seals.checked_sha256(path.with_name("weights"), value) == files.sha256_file(path.with_name("weights"))


def test_the_order_and_layout_of_an_object_are_no_change(path):
    value = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(value.items())), indent=7))
    assert seals.read_sealed(path) == seals.read_sealed(path)


@pytest.mark.parametrize("change", [{"score": 0.3}, {"seal": "0"}, {"files": {}}, {"files": 3}, {"more": 1}])
def test_a_changed_value_is_seen(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(seals.Damaged, match=r"value\.json was changed after it was written: its seal is"):
        seals.read_sealed(path)


@pytest.mark.parametrize("key", ["seal", "files"])
def test_half_a_seal_is_seen(path, key):
    value = json.loads(path.read_text())
    del value[key]
    path.write_text(json.dumps(value))
    with pytest.raises(seals.Damaged, match="was changed"):
        seals.read_sealed(path)


def test_files_are_compared_by_size_and_by_their_bytes(path):
    value, weights = seals.read_sealed(path), path.with_name("weights")
    weights.write_bytes(bytes(999) + b"\1")
    seals.check_sizes(path.parent, value)
    with pytest.raises(seals.Damaged, match=r"weights was changed after it was written: its SHA-256 is \w{64}, not"):
        seals.checked_sha256(weights, value)
    weights.write_bytes(bytes(999))
    with pytest.raises(seals.Damaged, match="weights has 999 bytes, not the 1,000 that were written"):
        seals.check_sizes(path.parent, value)
    weights.unlink()
    with pytest.raises(seals.Damaged, match="weights is missing"):
        seals.checked_sha256(weights, value)


def test_objects_of_earlier_code_are_read_as_they_are(tmp_path):
    files.write_json(tmp_path / "old.json", {"score": 1})
    (tmp_path / "weights").write_bytes(b"any")
    value = seals.read_sealed(tmp_path / "old.json")
    assert value == {"score": 1} and not seals.seals_of(value)
    seals.check_sizes(tmp_path, value)
    assert seals.checked_sha256(tmp_path / "weights", value) == files.sha256_bytes(b"any")
