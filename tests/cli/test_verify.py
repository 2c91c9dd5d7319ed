"""A raw folder is compared with what is published: findings name what is missing, differs or is surplus."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pipeline.standin
import pipeline.verify
from pipeline.core import console
from pipeline.data.datasets import DATASETS
from pipeline.data.records import STANDIN_MARK, Published
from pipeline.data.standins import CONTENTS

Verify = Callable[[str, Path], tuple[int | str | None, str, str]]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """The command within this process: its exit code, its output and its errors."""

    def run(name: str, raw: Path) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["verify", name, "--raw", str(raw)])
        with pytest.raises(SystemExit) as caught:
            console.run_command(pipeline.verify.main)
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def small(stand_ins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A copy of a stand-in that passes for the dataset: the published numbers are scaled down to it."""

    def make(name: str) -> Path:
        shutil.copytree(stand_ins[name], tmp_path / name)
        (tmp_path / name / STANDIN_MARK).unlink()
        dataset = DATASETS.find(name).DATASET
        known: Published = dataset.published
        records = dataset.listing(tmp_path / name).records
        counts = {
            part: Counter(r.labels[0] for r in records if part in ("all", r.split)) for part, _ in known.counts.items()
        }
        changes: dict[str, object] = {"counts": counts, "images": 0 if counts else len(records)}
        if known.groups is not None:
            changes["groups"] = len({record.group for record in records} - {None})
        if isinstance(known.ids, frozenset):
            changes["ids"] = frozenset(record.key for record in records)
        monkeypatch.setattr(type(dataset), "published", dataclasses.replace(known, **changes))
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", CONTENTS)
def test_a_folder_as_published_ends_with_0(name: str, small: Callable[[str], Path], verify: Verify) -> None:
    code, out, _ = verify(name, small(name))
    assert code == 0, out
    assert "it is as published" in out
    assert not [line for line in out.splitlines() if line.startswith(("missing", "differing", "surplus", "note"))]


@pytest.mark.parametrize("name", CONTENTS)
def test_a_stand_in_never_passes_for_the_dataset(name: str, stand_ins: dict[str, Path], verify: Verify) -> None:
    code, out, _ = verify(name, stand_ins[name])
    assert code == 1
    assert "differing  this folder holds a stand-in: drawn images, not the dataset" in out
    assert DATASETS.find(name).DATASET.obtain in out


def test_missing_broken_and_surplus_images_are_named(small: Callable[[str], Path], verify: Verify) -> None:
    raw = small("brain_mri")
    (raw / "Training" / "glioma" / "Tr-glTr_0003.jpg").unlink()
    (raw / "Testing" / "notumor" / "Te-noTr_0001.jpg").write_bytes(b"no image")
    shutil.copy(raw / "Testing" / "pituitary" / "Te-piTr_0000.jpg", raw / "Testing" / "pituitary" / "extra.jpg")
    code, out, _ = verify("brain_mri", raw)
    assert code == 1
    lines = out.splitlines()
    assert "79 of 80 images" in lines
    assert "missing    1 of glioma (train), 1 of notumor (test)" in lines
    assert "surplus    1 of pituitary (test)" in lines
    assert "missing    ids, 2: Te-noTr_0001, Tr-glTr_0003" in lines
    assert "surplus    ids, 1: extra" in lines
    unusable = "differing  images that cannot be used, 1: Te-noTr_0001.jpg (is no image format known here"
    assert any(line.startswith(unusable) for line in lines)


def test_rows_without_images_and_differing_ids_are_named(small: Callable[[str], Path], verify: Verify) -> None:
    raw = small("isic")
    images = sorted((raw / "ISIC_2019_Training_Input").iterdir())
    images[0].unlink()
    images[1].rename(images[1].with_name("IMG_1.jpg"))
    code, out, _ = verify("isic", raw)
    assert code == 1
    assert f"missing    images that a table lists, 2: {images[0].name}, {images[1].name}" in out
    assert "differing  ids that do not match ISIC_" in out and ", 1: IMG_1\n" in out
    assert "surplus    images without a label, 1: IMG_1.jpg" in out


def test_other_sizes_and_modes_are_a_note_if_few_and_a_difference_if_most(
    small: Callable[[str], Path], verify: Verify
) -> None:
    raw = small("dermofit")
    images = [path for path in sorted(raw.rglob("*.png")) if "mask" not in path.name]
    for path in images[:20]:
        Image.new("L", (64, 48)).save(path)
    code, out, _ = verify("dermofit", raw)
    assert code == 0
    assert "note       20 of 100 images are not 205 × 205 to 1020 × 1020 pixels: 20 are 64 × 48" in out
    assert "note       20 of 100 images are not RGB: 20 are L" in out
    for path in images[20:60]:
        Image.new("RGB", (64, 48)).save(path)
    code, out, _ = verify("dermofit", raw)
    assert code == 1
    assert "differing  60 of 100 images are not 205 × 205 to 1020 × 1020 pixels: 60 are 64 × 48" in out


def test_a_published_single_size_must_be_the_size_of_every_image(small: Callable[[str], Path], verify: Verify) -> None:
    raw = small("autoimmune")
    Image.new("RGB", (469, 352)).save(raw / "000.tif")  # on its side, the size is the same
    assert verify("autoimmune", raw)[0] == 0
    Image.new("RGB", (470, 352)).save(raw / "000.tif")
    code, out, _ = verify("autoimmune", raw)
    assert code == 1
    assert "differing  1 of 40 images are not 352 × 469 pixels: 1 are 470 × 352" in out


def test_a_missing_part_is_a_finding_and_not_an_error(tmp_path: Path, verify: Verify) -> None:
    code, out, _ = verify("isic", tmp_path)
    assert code == 1
    assert out.startswith("missing    isic: there is no ") and "pipeline.download isic" in out


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("toy", ".", "nothing is published of 'toy' to compare with"),
        ("iscc", ".", "there is no 'iscc' among datasets; known: autoimmune"),
        ("isic", "nowhere", "isic: there is no nowhere; give --raw the folder that holds it"),
    ],
)
def test_a_wrong_request_ends_with_2(name: str, raw: str, message: str, verify: Verify) -> None:
    code, _, err = verify(name, Path(raw))
    assert code == 2
    assert f"error: {message}" in err


def test_the_shared_images_differ_from_the_published_ones(shared: Path, verify: Verify) -> None:
    code, out, _ = verify("isic", shared / "isic2019")
    assert code == 1
    assert "2,994 of 25,331 images" in out and "2,994 are 224 × 224" in out
    code, out, _ = verify("brain_mri", shared / "brain_mri")
    assert code == 1
    assert "7,020 of 7,023 images" in out
    assert "missing    ids, 4: Tr-no_1011, Tr-no_1012, Tr-no_1019, Tr-no_1020" in out


def test_the_standin_command_names_the_command_that_shards_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["standin", "autoimmune", "--out", str(out), "--scale", "0.01"])
    for _ in range(2):  # the second finds it done
        with pytest.raises(SystemExit) as caught:
            console.run_command(pipeline.standin.main)
        assert caught.value.code == 0
        assert f"python -m pipeline.shard autoimmune --raw {out} --size 32" in capsys.readouterr().out
    assert (out / STANDIN_MARK).is_file()


def test_links_that_lead_nowhere_are_named_and_names_are_shown_escaped(
    small: Callable[[str], Path], verify: Verify
) -> None:
    raw = small("brain_mri")
    (raw / "Training" / "glioma" / "Tr-glTr_0003.jpg").unlink()
    (raw / "Training" / "glioma" / "Tr-glTr_0003.jpg").symlink_to("annex.jpg")
    (raw / "Testing" / "notumor" / "red\x1b[31m\n.jpg").write_bytes(b"no image")
    code, out, _ = verify("brain_mri", raw)
    assert code == 1
    assert "Tr-glTr_0003.jpg (is no file, or a link to one that is not there)" in out
    assert r"red\x1b[31m\n.jpg (is no image format known here" in out and "\x1b" not in out
