"""DICOM, volumes, pages and slides are predicted as the shards of the run hold them, and no name is in the output."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hospital
import nibabel
import numpy as np
import pytest
import tiny
from commands import command
from PIL import Image

from pipeline import predict
from pipeline.data.shards.index import Shards, open_shards
from pipeline.jobs import execute
from pipeline.runs.folder import Run

NAME = "QQZXDOE"
TOLERANCE = 1e-5  # of a sigmoid; the shards here lose nothing
Ask = Callable[..., SimpleNamespace]
KEY = "a key of at least sixteen bytes"


def fill(raw: Path) -> None:
    """CT of nine patients, MR without a window of its own, a loop, a report, a truncated file; names in names."""
    hospital.slices(raw / NAME, patients=9, each=3, PatientName=NAME, StudyDescription=NAME)
    rng = np.random.default_rng(3)
    for number in range(3):
        ds = hospital.header("MR", patient="PAT0", study=31, number=number + 1)
        blocks = np.kron(rng.integers(0, 900, (6, 6)), np.ones((4, 4))) * (number + 1)
        hospital.save(hospital.with_pixels(ds, blocks.astype(np.uint16)), raw / NAME / f"mr-{number}.dcm")
    ds = hospital.header("US", patient="PAT1", study=41)
    loop = np.kron(rng.integers(0, 255, (4, 6, 6, 1)), np.ones((1, 4, 4, 3))).astype(np.uint8)
    hospital.save(hospital.with_pixels(ds, loop), raw / f"{NAME}-loop.dcm")
    shutil.copy(hospital.test_files() / "test-SR.dcm", raw / f"{NAME}-report.dcm")
    (raw / f"{NAME}-cut.dcm").write_bytes((raw / f"{NAME}-loop.dcm").read_bytes()[:400])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    fill(folder / "raw")
    rows = [f"PAT{number},{('healthy', 'ill')[number % 2]}" for number in range(9)]
    (folder / "labels.csv").write_text("\n".join(["patient_id,label", *rows]))
    (folder / "key").write_text(KEY)
    flags = f"--layout dicom --raw raw --labels labels.csv --size {tiny.SIZE} --format png --max-bad 0.1 --workers 1"
    done = command("shard", "clinic", *flags.split(), "--window=-400,1600", "--out", "shards", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def shards(home: Path) -> Shards:
    return open_shards(next((home / "shards").glob("clinic-*")))


@pytest.fixture(scope="module")
def run(home: Path, shards: Shards) -> Run:
    run = tiny.announce(tiny.make_finetune(shards, None, epochs=1), tiny.make_cluster(home))
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What `predict` prints, in this process: importing torch for each question would take most of the time."""

    def ask(*arguments: object, cwd: Path) -> SimpleNamespace:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        capsys.readouterr()
        try:
            code, error = predict.main(), ""
        except ValueError as raised:
            code, error = 2, str(raised)
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err + error)

    return ask


def rows_of(text: str) -> dict[str, dict[str, str]]:
    return {row.get("picture") or row["group"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_files_of_the_shards_get_the_keys_and_the_scores_of_the_shards(
    asked: Ask, home: Path, shards: Shards, run: Run, tmp_path: Path
) -> None:
    wanted = rows_of(asked(run.id, shards.folder, "--csv", "-", cwd=home).stdout)
    export = tmp_path / "export"
    assert command("export", run.id, "--out", export, cwd=home).returncode == 0
    for network, where in ((run.id, home), (export, tmp_path)):  # an export knows the window without the shards
        listed = tmp_path / "list"
        done = asked(network, home / "raw", "--csv", "-", "--list", listed, cwd=where)
        assert done.returncode == 1, done.stderr
        found = rows_of(done.stdout)
        assert len(found) == 34 and found.keys() == wanted.keys()
        for key, row in found.items():
            assert float(row["score:ill"]) == pytest.approx(float(wanted[key]["score:ill"]), abs=TOLERANCE)
        assert NAME not in done.stdout + done.stderr
        assert "27 images: CT in the window -400,1600" in done.stderr
        assert "passed over: 1 file, DICOM that is no image: Comprehensive SR Storage" in done.stderr
        assert "skipped: unread file 1 has no pixels although it is made to hold an image" in done.stderr
        lines = dict(line.split("\t") for line in listed.read_text().splitlines())
        assert lines.keys() == {*found, "unread file 1"} and lines["unread file 1"].endswith(f"{NAME}-cut.dcm")
        assert sum(path.endswith(f"{NAME}-loop.dcm, image 4") for path in lines.values()) == 1


def test_patients_are_those_of_the_headers(asked: Ask, home: Path, run: Run, tmp_path: Path) -> None:
    done = asked(run.id, home / "raw", "--by-group", "--csv", "-", cwd=home)
    images = sorted(int(row["images"]) for row in rows_of(done.stdout).values())
    assert images == [3] * 7 + [6, 7]  # PAT0 has MR too, PAT1 the loop
    keyed = [
        set(rows_of(asked(*words, "--id-key", "key", cwd=home).stdout))
        for words in (
            (run.id, home / "raw", "--by-group", "--csv", "-"),
            (run.id, home / "raw" / NAME / "3-0.dcm", "--by-group", "--csv", "-"),
        )
    ]
    assert len(keyed[0]) == 9 and len(keyed[1]) == 1 and keyed[1] < keyed[0]
    assert not keyed[0] & set(rows_of(done.stdout))


def test_attention_maps_are_not_named_after_files(asked: Ask, home: Path, shards: Shards, tmp_path: Path) -> None:
    run = tiny.announce(tiny.make_finetune(shards, None, arm=1, epochs=1), tiny.make_cluster(home))
    assert execute.execute_run(run) == 0
    file = home / "raw" / NAME / "0-0.dcm"
    done = asked(run.id, file, "--attention", tmp_path / "maps", "--csv", "-", cwd=home)
    assert done.returncode == 0, done.stderr
    (drawn,) = (tmp_path / "maps").iterdir()
    (key,) = rows_of(done.stdout)
    assert drawn.name == f"1-{key}.png" and NAME.encode() not in drawn.read_bytes()


def test_flags_read_otherwise_and_it_is_said(asked: Ask, home: Path, run: Run) -> None:
    loop = home / "raw" / f"{NAME}-loop.dcm"
    done = asked(run.id, loop, "--frames", "middle", "--csv", "-", cwd=home)
    assert done.returncode == 0 and len(rows_of(done.stdout)) == 1
    assert "--frames is middle; for the images of the run it was not given" in done.stderr
    refused = asked(run.id, loop, "--window", "wide", cwd=home)
    assert refused.returncode == 2 and "--window is 'wide'; give stored" in refused.stderr


def test_where_nobody_knows_how_images_were_read_one_has_to_say_it(
    asked: Ask, home: Path, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(home / "runs" / run.id, tmp_path / "runs" / run.id)
    file = home / "raw" / NAME / "0-0.dcm"
    done = asked(run.id, file, cwd=tmp_path)
    assert done.returncode == 2 and "the shards of this run are not here" in done.stderr and NAME not in done.stderr
    done = asked(run.id, file, "--window=-400,1600", "--csv", "-", cwd=tmp_path)
    assert done.returncode == 0 and len(rows_of(done.stdout)) == 1


def test_ids_that_were_hashed_with_a_key_need_it(asked: Ask, home: Path, tmp_path: Path) -> None:
    flags = f"--layout dicom --raw {home / 'raw'} --labels {home / 'labels.csv'} --size {tiny.SIZE} --format png"
    flags += f" --max-bad 0.1 --workers 1 --id-key {home / 'key'} --out shards"
    assert command("shard", "clinic", *flags.split(), cwd=tmp_path).returncode == 0
    shards = open_shards(next((tmp_path / "shards").glob("clinic-*")))
    run = tiny.announce(tiny.make_finetune(shards, None, epochs=1), tiny.make_cluster(tmp_path))
    assert execute.execute_run(run) == 0
    file = home / "raw" / NAME / "0-0.dcm"
    (tmp_path / "other").write_text(f"another {KEY}")
    for more, message in (((), "there is none here"), (("--id-key", "other"), "--id-key is another one")):
        done = asked(run.id, file, *more, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    done = asked(run.id, file, "--id-key", home / "key", "--csv", "-", cwd=tmp_path)
    assert set(rows_of(done.stdout)) < set(shards.rows["key"])


def test_volumes_and_pages_are_a_row_an_image_named_by_their_files(asked: Ask, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "raw" / ("bright", "dark")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 900, (20, 20, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{number}.nii.gz")
        pages = [Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)) for _ in range(2)]
        pages[0].save(folder / f"{number}.tif", save_all=True, append_images=pages[1:])
    flags = f"--layout folder --raw raw --slices every=2 --frames all --size {tiny.SIZE} --format png --split grouped"
    done = command("shard", "mixed", *flags.split(), "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shards = open_shards(next((tmp_path / "shards").glob("mixed-*")))
    run = tiny.announce(tiny.make_finetune(shards, None, epochs=1), tiny.make_cluster(tmp_path))
    assert execute.execute_run(run) == 0
    done = asked(run.id, "raw/dark", "--csv", "-", "--by-group", cwd=tmp_path)
    files = [f"raw/dark/{number}.{ending}" for number in range(1, 12, 2) for ending in ("nii.gz", "tif")]
    assert done.returncode == 0 and sorted(rows_of(done.stdout)) == sorted(files), done.stderr
    done = asked(run.id, "raw/dark/1.nii.gz", "raw/dark/3.tif", "--csv", "-", cwd=tmp_path)
    names = [*(f"raw/dark/1.nii.gz, image {n}" for n in (1, 3)), *(f"raw/dark/3.tif, image {n}" for n in (1, 2))]
    found = rows_of(done.stdout)
    assert list(found) == names
    stored = rows_of(asked(run.id, shards.folder, "--csv", "-", cwd=tmp_path).stdout)
    of_shards = sorted(float(row["score:dark"]) for row in stored.values())
    for row in found.values():
        assert min(abs(float(row["score:dark"]) - other) for other in of_shards) < TOLERANCE
