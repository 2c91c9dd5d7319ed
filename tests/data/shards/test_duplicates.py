"""Twins in datasets: kept together, left out where the curator put them apart, counted, named and drawn."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from messy import encoded, image_of
from PIL import Image, ImageOps
from small_shards import SETTINGS, plan_of, written

from pipeline.core import files
from pipeline.core.console import silent
from pipeline.data import twins
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import duplicates, facts, summary
from pipeline.data.shards.extend import extended_plan
from pipeline.data.shards.index import Shards, open_shards
from pipeline.data.shards.plan import ShardPlan, make_plan
from pipeline.data.twins import Pair, Pairs, Twins

GROUPED = replace(SETTINGS, split="grouped", size=64)


def patches(count: int) -> list[Image.Image]:
    """Images with detail: random patches of several sizes."""
    rng = np.random.default_rng(8)
    out = np.zeros((count, 64, 64))
    for cells in (4, 8, 16, 32):
        out += np.kron(rng.uniform(0, 60, (count, cells, cells)), np.ones((64 // cells, 64 // cells)))
    return [Image.fromarray(grey).convert("RGB") for grey in out.clip(0, 255).astype(np.uint8)]


def as_jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """Twenty training and four test images: of the test images one is a copy, one smaller, one mirrored, one alone."""
    raw = tmp_path / "fixed"
    every = patches(21)
    for number, image in enumerate(every[:20]):
        path = raw / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "PNG"))
    test = {
        "a/copy.png": encoded(every[0], "PNG"),
        "b/smaller.jpg": as_jpeg(every[1].resize((48, 48))),
        "a/mirrored.jpg": as_jpeg(ImageOps.mirror(every[2])),
        "b/alone.png": encoded(every[20], "PNG"),
    }
    for name, data in test.items():
        (raw / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / "test" / name).write_bytes(data)
    return raw


def written_as(split: str, raw: Path, out: Path) -> tuple[ShardPlan, Shards]:
    plan = plan_of(raw, settings=replace(GROUPED, split=split))
    return plan, written(plan, out)


@pytest.mark.usefixtures("inline")
def test_leaks_are_counted_by_kind_whatever_the_split(fixed: Path, tmp_path: Path) -> None:
    plan, shards = written_as("image", fixed, tmp_path)
    splits = dict(zip(shards.rows["key"], shards.rows["split"], strict=True))
    assert sorted(splits.values()).count("test") == 4
    counts = shards.manifest["twins"]["test"]
    in_val = sum(split == "val" for split in splits.values())
    assert counts["images"] == 4 and in_val in (1, 2, 3)
    found = {kind: counts[kind] + shards.manifest["twins"]["val"][kind] for kind in ("exact", "near", "mirrored")}
    assert all(count <= 1 for count in (counts["exact"], counts["near"], counts["mirrored"])) and sum(found.values())
    text = summary.of_shards(shards, plan)
    total = counts["exact"] + counts["near"] + counts["mirrored"]
    assert f"{total} of 4 test images have a twin in train" in text
    assert (shards.folder / "duplicates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("inline")
def test_training_images_with_a_twin_in_a_fixed_test_are_left_out_and_named(fixed: Path, tmp_path: Path) -> None:
    plan, shards = written_as("grouped", fixed, tmp_path)
    assert len(plan.samples) == 21
    lost = {passed.path.name for passed in plan.listing.passed_over}
    assert lost == {"0.png", "1.png", "2.png"}
    assert {shards.manifest["twins"]["test"][kind] for kind in ("exact", "near", "mirrored")} == {0}
    text = summary.of_shards(shards, plan)
    assert "0 of 4 test images have a twin in train" in text
    assert "24 found: 21 written, 0 quarantined, 3 passed over" in text
    assert sum("images with a twin in test" in line for line in summary.account(plan, [])) == 3
    kept = make_plan(
        UserDataset("mine", "folder"), fixed, GROUPED, workers=1, progress=silent, keep_leaks=True
    )  # as the curator has it
    assert len(kept.samples) == 24 and kept.fingerprint != plan.fingerprint
    whole, leaky = (facts.lines(each)[0] for each in (shards, written(kept, tmp_path)))
    assert whole == "split grouped: patients, lesions and twins stay in one part"
    assert leaky == f"{whole}, but for those that are counted below"


@pytest.mark.usefixtures("inline")
def test_a_grouped_split_keeps_twins_together(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number, image in enumerate(patches(30)):
        folder = raw / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(image, "PNG"))
        (folder / f"{number}_mirrored.jpg").write_bytes(as_jpeg(ImageOps.mirror(image)))
    plan, shards = written_as("grouped", raw, tmp_path)
    split = {sample.record.path.stem: sample.split for sample in plan.samples}
    assert set(split.values()) == {"train", "val", "test"} and len(split) == 60
    assert all(split[f"{number}"] == split[f"{number}_mirrored"] for number in range(30))
    assert shards.manifest["twins"]["test"] == {"images": 6, "exact": 0, "near": 0, "mirrored": 0}
    assert set(shards.rows["group"]) == {None}  # twins are no patients
    by_image = written_as("image", raw, tmp_path)[1].manifest["twins"]
    assert by_image["test"]["mirrored"] > 0


@pytest.mark.usefixtures("inline")
def test_without_twins_a_grouped_split_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, rng = tmp_path / "raw", np.random.default_rng(3)
    for number in range(24):
        path = raw / "ab"[number % 2] / f"p{number // 3}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image_of("naevus", rng), "PNG"))
    plan = plan_of(raw, settings=GROUPED)
    monkeypatch.setattr(duplicates, "units", lambda groups, found: groups)
    assert plan_of(raw, settings=GROUPED).fingerprint == plan.fingerprint


@pytest.mark.usefixtures("inline")
def test_twins_with_different_labels_are_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number, image in enumerate(patches(12)):
        path = raw / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "PNG"))
    (raw / "b" / "odd.jpg").write_bytes(as_jpeg(patches(12)[0]))  # image 0 is in class a
    plan, shards = written_as("image", raw, tmp_path)
    twins = shards.manifest["twins"]
    keys = {sample.record.path.name: sample.key for sample in plan.samples}
    assert twins["with_other_labels"] == [sorted((keys["0.png"], keys["odd.jpg"]))]
    assert "1 pair of twins has different labels" in summary.of_shards(shards, plan)


def test_unlabelled_images_do_not_hide_that_their_twins_have_different_labels() -> None:
    labels = [None, ("a",), ("b",), ("a",), None, ("b",), (), None]
    keys = list("stuvwxyz")
    pairs = Pairs.of([Pair(0, 4, 0.98, "as it is"), Pair(4, 6, 0.98, "as it is"), Pair(0, 7, 0.98, "as it is")])
    found = Twins(np.array([0, 0, 0, 0, 4, 4, 6, 7]), pairs)  # 0 to 3 are equal, and 4 and 5
    more = {"keys": keys, "contents": keys, "table": ["train"] * 8}
    named = duplicates.summarise(found, labels=labels, **more)
    # t stands for its equals s to v; x for w; y has no class; z no label
    assert named["with_other_labels"] == [["t", "u"], ["t", "x"], ["x", "y"]] and named["other_labels"] == 3
    without = duplicates.summarise(found, labels=[("a",)] * 7 + [None], **more)
    assert without["other_labels"] == 0


def test_units_join_groups_and_twins() -> None:
    groups = ["x", "x", None, None, "y", None, None]
    found = Twins(np.array([0, 1, 2, 3, 4, 2, 6]), Pairs.of([Pair(1, 2, 0.98, "as it is")]))
    units = duplicates.units(groups, found)
    assert units[0] == units[1] == units[2] == units[5] is not None
    assert units[3] is None and units[6] is None and units[4] not in (None, units[0])


def test_it_is_said_how_many_patients_near_duplicates_join() -> None:
    groups = ["a", "b", "c", None, "d", "e", "e"]
    assert duplicates.joined(groups, ["1", "1", "1", "1", "2", "2", "2"]) == [
        "near duplicates join 5 patients or lesions to 2 units, each of which is in one part; the largest has 3"
    ]
    assert duplicates.joined(groups, ["1", "2", "3", None, "4", "5", "5"]) == []


def test_leaks_by_hand() -> None:
    table = ["train", "val", "test", "train", "val", "test", "train"]
    pairs = [Pair(*ends, 1, "as it is") for ends in ((0, 2), (1, 5), (3, 4), (2, 5))]
    found = Twins(np.arange(7), Pairs.of(pairs))
    assert duplicates.leaking(table, found) == {0: 2, 1: 5, 3: 4}


def test_images_of_patients_in_other_parts_leak_by_hand() -> None:
    table = ["train", "val", "test", "train", "val", "train", "train", "val", "train", "test"]
    groups = ["p", "p", "p", "q", "q", "r", "s", "r", None, None]
    assert duplicates.sharing(table, groups) == {0: "test", 1: "test", 3: "val", 5: "val"}  # s is nowhere else
    assert duplicates.sharing(table, [None] * 10) == {}


@pytest.mark.usefixtures("inline")
def test_a_patient_whom_the_curator_put_in_several_parts_is_trained_on_in_none(tmp_path: Path) -> None:
    raw, images = tmp_path / "raw", patches(24)
    raw.mkdir()
    rows = ["file,label,patient,split"]
    for number, image in enumerate(images):
        (raw / f"{number}.png").write_bytes(encoded(image, "PNG"))
        part = ("train", "train", "test", "val")[number % 4] if number < 8 else ("train", "test", "val")[number % 3]
        rows.append(f"{number}.png,{'ab'[number % 2]},p{number // 4 if number < 8 else number},{part}")
    (raw / "labels.csv").write_text("\n".join(rows))
    dataset = UserDataset("mine", "csv")
    plan = plan_of(raw, dataset=dataset, settings=GROUPED)
    shards = written(plan, tmp_path)
    lost = {passed.path.name: passed.kind for passed in plan.listing.passed_over}
    why = "images of a lesion or patient in test"
    assert lost == {f"{n}.png": f"{'val' if n in (3, 7) else 'train'} {why}" for n in (0, 1, 3, 4, 5, 7)}
    assert shards.manifest["test_sharing_group_with_train"] == 0
    said = summary.of_shards(shards, plan)
    assert "0 test images share a lesion or patient with a training image" in said
    assert "4 train images of a lesion or patient in test" in facts.leaks(shards)[2]
    kept = make_plan(dataset, raw, GROUPED, workers=1, progress=silent, keep_leaks=True)
    assert len(kept.samples) == 24


@pytest.mark.usefixtures("inline")
def test_an_extension_adds_none_of_what_was_left_out(tmp_path: Path) -> None:
    """Patient q is in train alone, and one of his images shows what a test image shows: that one is left out."""
    raw, images = tmp_path / "raw", patches(24)
    raw.mkdir()
    images[0] = images[20]
    rows = ["file,label,patient,split"]
    for number, image in enumerate(images):
        (raw / f"{number}.png").write_bytes(encoded(image, "PNG"))
        part = "train" if number < 12 else "val" if number < 18 else "test"
        patient = "q" if number < 4 else "r" if number in (11, 23) else f"p{number}"
        rows.append(f"{number}.png,{'ab'[number % 2]},{patient},{part}")
    (raw / "labels.csv").write_text("\n".join(rows))
    dataset = UserDataset("mine", "csv")
    plan = plan_of(raw, dataset=dataset, settings=GROUPED)
    lost = {passed.path.name: passed.kind for passed in plan.listing.passed_over}
    assert lost == {
        "0.png": "train images with a twin in test",
        "11.png": "train images of a lesion or patient in test",
    }
    grown = extended_plan(dataset, raw, written(plan, tmp_path), workers=1, progress=silent)
    assert not grown.samples and len(grown.listing.passed_over) == 2


@pytest.mark.usefixtures("inline")
def test_where_all_training_images_leak_the_error_says_so(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = ["file,label,patient,split"]
    for number, image in enumerate(patches(6)):
        (raw / f"{number}.png").write_bytes(encoded(image, "PNG"))
        rows.append(f"{number}.png,{'ab'[number // 3]},p,{('train', 'test')[number % 2]}")
    (raw / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="3 images left out because of a twin, patient .* or --keep-leaks"):
        plan_of(raw, dataset=UserDataset("mine", "csv"), settings=GROUPED)


@pytest.mark.usefixtures("inline")
def test_shards_of_earlier_versions_say_nothing_of_twins(fixed: Path, tmp_path: Path) -> None:
    plan, shards = written_as("image", fixed, tmp_path)
    old = {name: value for name, value in shards.manifest.items() if name not in ("twins", "files", "seal")}
    files.write_json(shards.folder / "manifest.json", old)
    text = summary.of_shards(open_shards(shards.folder), plan)
    assert "have a twin" not in text and "near duplicates were not looked for" in text


@pytest.mark.usefixtures("inline")
def test_other_shards_have_the_twins_that_the_manifest_counts(fixed: Path, tmp_path: Path) -> None:
    """An image in the margin, which raw files have and stored ones have not, is no twin here or there."""
    alike = blended(fixed / "train" / "b" / "3.png", likeness=0.965)
    (fixed / "test" / "b" / "margin.png").write_bytes(encoded(alike, "PNG"))
    _, shards = written_as("image", fixed, tmp_path)
    found = duplicates.twins_elsewhere(shards, [(shards, ["train"])], progress=silent)
    splits = dict(zip(shards.rows["key"], shards.rows["split"], strict=True))
    counted = [twin.kind for twin in found if splits[twin.key] == "test"]
    assert shards.manifest["twins"]["test"] == {
        "images": 5,
        **{kind: counted.count(kind) for kind in ("exact", "near", "mirrored")},
    }
    assert sorted(counted) == ["exact", "mirrored", "near"]


@pytest.mark.usefixtures("inline")
def test_the_sheet_has_a_row_of_pairs_on_each_side_of_the_limit_that_has_any(fixed: Path, tmp_path: Path) -> None:
    _, shards = written_as("image", fixed, tmp_path)

    def size_of(*likenesses: float) -> tuple[int, int]:
        pairs = Pairs.of(Pair(0, 1, likeness, "as it is") for likeness in likenesses)
        png = duplicates.draw_pairs(shards, Twins(np.arange(len(shards.rows["key"])), pairs))
        assert png is not None
        return Image.open(io.BytesIO(png)).size

    both, twins_alone, none = size_of(0.99, 0.98, 0.95), size_of(0.99, 0.98), size_of(0.95)
    row = duplicates.TITLE + 2 * duplicates.CELL + duplicates.CAPTION
    assert both[1] == 2 * row and twins_alone[1] == none[1] == row + duplicates.TITLE
    assert size_of(*[0.99] * 9)[0] == 3 * both[0]
    assert duplicates.draw_pairs(shards, Twins(np.arange(len(shards.rows["key"])), Pairs.of([]))) is None


def blended(path: Path, *, likeness: float) -> Image.Image:
    """An image and as much noise as leaves this likeness to the image alone, within 0.002."""
    image = np.asarray(Image.open(path).convert("RGB"), float)
    noise = np.random.default_rng(5).normal(0, 40, (64, 64, 1))
    for share in np.linspace(0, 3, 300):
        pixels = (image + share * noise).clip(0, 255).astype(np.uint8)
        pair = np.stack([twins.thumbnail(np.ascontiguousarray(each)) for each in (image.astype(np.uint8), pixels)])
        (near,) = twins.find_twins(pair, 0.5).pairs or [None]
        if near is not None and abs(near.likeness - likeness) < 0.002:
            return Image.fromarray(pixels)
    raise AssertionError(f"no blend has a likeness of {likeness}")
