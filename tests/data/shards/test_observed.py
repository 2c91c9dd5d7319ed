"""Blank images, oddities and little-used 16-bit ranges are said; --bits and changed kinds are in fingerprints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from messy import encoded
from PIL import Image
from small_shards import SETTINGS, contents, plan_of, rows_of, written

from pipeline.core import files
from pipeline.data.shards import summary
from pipeline.data.shards.index import Shards
from pipeline.data.shards.observed import Observed, range_hint
from pipeline.data.shards.transcode import ShardSettings

pytestmark = pytest.mark.usefixtures("inline", "small_tars")
BITS = ShardSettings(**{**SETTINGS.__dict__, "bits": 12})


def add_blank(raw: Path) -> list[str]:
    (raw / "naevus" / "black.png").write_bytes(encoded(Image.new("RGB", (40, 30)), "PNG"))
    (raw / "naevus" / "clear.png").write_bytes(encoded(Image.new("1", (40, 30), 1), "PNG", transparency=1))
    return ["naevus/black.png", "naevus/clear.png"]


def add_12_bits(raw: Path, peak: int = 4095) -> None:
    for number in range(3):
        wide = np.linspace(0, peak - number, 1200).astype(np.uint16).reshape(30, 40)
        (raw / "naevus" / f"wide{number}.png").write_bytes(encoded(Image.fromarray(wide), "PNG"))


def told(shards: Shards, raw: Path, settings: ShardSettings = SETTINGS) -> list[str]:
    return summary.of_shards(shards, plan_of(raw, settings=settings)).splitlines()


def test_blank_images_are_written_counted_and_named_and_strict_refuses_them(raw: Path, tmp_path: Path) -> None:
    names = add_blank(raw)
    with pytest.raises(
        ValueError, match=r"2 of 68 images are blank \(one colour\) and --strict accepts none"
    ) as caught:
        written(plan_of(raw), tmp_path, strict=True)
    assert all(f"{name}: is blank" in str(caught.value) for name in names)
    shards = written(plan_of(raw), tmp_path)
    assert len(rows_of(shards)) == 68
    assert shards.manifest["blank"] == names
    assert f"2 images are blank (one colour): {', '.join(names)}" in told(shards, raw)


def test_what_was_seen_survives_an_interruption(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = add_blank(raw)
    calm = written(plan_of(raw), tmp_path / "calm")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.data.shards.write._finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            written(plan_of(raw), tmp_path / "rough")
    again = written(plan_of(raw), tmp_path / "rough")
    assert again.manifest["blank"] == names
    assert contents(again.folder) == contents(calm.folder)


def test_16_bit_images_that_use_little_of_their_range_are_said_and_bits_scale_them(raw: Path, tmp_path: Path) -> None:
    add_12_bits(raw)
    shards = written(plan_of(raw), tmp_path)
    assert (
        "3 16-bit images of which little of the range is used: the greatest value is 4,095 of 65,535, which becomes "
        "16 of 255; if the values have 12 bits, give --bits 12"
    ) in told(shards, raw)
    scaled = written(plan_of(raw, settings=BITS), tmp_path)
    assert not any("of the range" in line for line in told(scaled, raw, BITS))
    assert scaled.fingerprint != shards.fingerprint
    assert scaled.manifest["settings"]["bits"] == 12 and "bits" not in shards.manifest["settings"]


def test_a_value_above_the_bits_is_quarantined_and_never_clipped(raw: Path, tmp_path: Path) -> None:
    add_12_bits(raw, peak=5000)
    shards = written(plan_of(raw, settings=BITS), tmp_path, max_bad=0.1)
    reasons = [entry["reason"] for entry in shards.manifest["quarantined"]]
    assert reasons[0] == "has the value 5,000, above 4,095, the greatest of --bits 12" and len(reasons) == 3


@pytest.mark.parametrize("bits", [8, 17, 0, -1])
def test_bits_out_of_range_are_an_error(bits: int) -> None:
    with pytest.raises(ValueError, match=f"--bits is {bits}; give a number from 9 to 16"):
        ShardSettings(**{**SETTINGS.__dict__, "bits": bits})


def test_oddities_are_counted_by_kind(raw: Path, tmp_path: Path) -> None:
    jpeg = encoded(Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)), "JPEG")
    for number in range(2):
        (raw / "naevus" / f"odd{number}.jpg").write_bytes(jpeg[:20] + b"abc" + jpeg[20:])
    shards = written(plan_of(raw), tmp_path)
    assert shards.manifest["remarks"] == {"JPEG with surplus bytes between its parts, otherwise whole": 2}
    assert "2 images: JPEG with surplus bytes between its parts, otherwise whole" in told(shards, raw)


def test_a_dataset_with_a_kind_that_is_decoded_otherwise_now_has_another_fingerprint(raw: Path) -> None:
    before = plan_of(raw)
    wide = np.full((30, 40), 7000, np.uint16)
    path = raw / "naevus" / "wide.png"
    path.write_bytes(encoded(Image.fromarray(wide), "PNG", transparency=7000))
    with Image.open(path) as image:
        assert image.info["transparency"] == 7000
    changed = plan_of(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.data.decoders.changed.PNG_16_BITS", ())  # as if it were decoded as before
        as_before = plan_of(raw)
    assert len({before.fingerprint, changed.fingerprint, as_before.fingerprint}) == 3
    path.unlink()
    assert plan_of(raw).fingerprint == before.fingerprint


def test_manifests_and_rows_files_of_earlier_versions_know_nothing_and_are_read(raw: Path, tmp_path: Path) -> None:
    assert Observed.of_json({"rows": [], "bad": []}) == Observed() and not Observed.is_in({"quarantined": []})
    shards = written(plan_of(raw), tmp_path)
    assert Observed.is_in(shards.manifest)
    manifest = {key: value for key, value in shards.manifest.items() if key not in Observed().to_json()}
    files.write_json(shards.folder / "manifest.json", manifest)
    assert "66 found: 66 written, 0 quarantined, 0 passed over" in told(Shards(shards.folder, manifest), raw)


def test_what_was_seen_can_be_stored_and_merged() -> None:
    one, other = Observed(["b"], Counter({"x": 1}), 2, 300), Observed(["a"], Counter({"x": 2, "y": 1}), 1, 70)
    one.merge(other)
    assert Observed.of_json(one.to_json()) == Observed(["a", "b"], Counter({"x": 3, "y": 1}), 3, 300)


def test_the_hint_on_ranges() -> None:
    assert range_hint(0, 0, None) is None
    assert range_hint(5, 40_000, None) is None
    assert range_hint(5, 4095, 12) is None
    assert (range_hint(5, 4095, None) or "").endswith("give --bits 12")
    assert (range_hint(5, 100, None) or "").endswith("give --bits 9")
