"""New images get the scores a run gave the same images through the shards; broken ones are named."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
import tiny
import torch
from commands import command
from PIL import Image

from pipeline.core import files, seals
from pipeline.data import images
from pipeline.data.layouts import UserDataset
from pipeline.data.shards.plan import make_plan
from pipeline.data.shards.transcode import ShardSettings
from pipeline.jobs import execute
from pipeline.learn import backbones
from pipeline.learn.attention import attention_map
from pipeline.models import maps, predict
from pipeline.models.info import ModelInfo
from pipeline.models.network import Network

TOLERANCE = 1e-5  # of a sigmoid; the shards here lose nothing
AS_JPEG = 0.02  # of a sigmoid, for an image that went through a JPEG of quality 95: what docs/using.md says


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def home(shards):
    """The folder that relative paths of the cluster file `local` start at."""
    return shards.folder.parent.parent


@pytest.fixture(scope="module")
def site(home):
    return tiny.make_cluster(home, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def vit(shards, site):
    run = tiny.announce(tiny.make_finetune(shards, None, arm=1, epochs=2), site)
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture(scope="module")
def cnn(shards, site):
    run = tiny.announce(tiny.make_finetune(shards, None, arm=0, epochs=1), site)
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture(scope="module")
def sources(home):
    """The raw file of each key."""
    settings = ShardSettings(size=tiny.SIZE, split="image", format="png", quality=None, keep_names=False)
    plan = make_plan(UserDataset("tiny", "folder"), home / "raw", settings, workers=1, progress=tiny.quiet)
    return {sample.key: sample.record.path for sample in plan.samples}


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_raw_images_get_the_scores_that_the_run_stored_of_them(vit, sources, home, tmp_path):
    table = parquet.read_table(vit["predictions"]).to_pydict()
    keys = table["key"]
    export = tmp_path / "export"
    assert command("export", vit.id, "--out", export, cwd=home).returncode == 0
    for asked in (vit.id, vit.folder, export):
        done = command("predict", asked, *(sources[key] for key in keys), "--csv", tmp_path / "scores.csv", cwd=home)
        assert done.returncode == 0, done.stderr
        rows = rows_of((tmp_path / "scores.csv").read_text())
        assert [row["picture"] for row in rows] == [str(sources[key]) for key in keys]
        for name in ("cross", "disc"):
            found = [float(row[f"score:{name}"]) for row in rows]
            assert found == pytest.approx(table[f"score:{name}"], abs=TOLERANCE)
        for row in rows:
            assert row["predicted"] == max(("cross", "disc"), key=lambda name: float(row[f"score:{name}"]))


def test_calibrated_scores_are_the_softmax_of_the_stored_logits_over_the_runs_temperature(vit, sources, home, tmp_path):
    table = parquet.read_table(vit["predictions"]).to_pydict()
    stored = np.array([table[f"score:{name}"] for name in ("cross", "disc")], dtype=float).T
    raised = (stored / (1 - stored)) ** (1 / vit.result().temperature)
    wanted = raised / raised.sum(axis=1, keepdims=True)
    export = tmp_path / "export"
    assert command("export", vit.id, "--out", export, cwd=home).returncode == 0
    for asked in (vit.id, export):
        files_of = (sources[key] for key in table["key"])
        done = command("predict", asked, *files_of, "--calibrated", "--csv", tmp_path / "scores.csv", cwd=home)
        assert done.returncode == 0, done.stderr
        notes = vit.result().notes["calibration"]
        by = f"fitted on {notes['images']} validation images" if asked == vit.id else "its README.md says on how many"
        assert f"calibrated by the temperature {notes['temperature']:.4f}, {by}" in done.stderr
        rows = rows_of((tmp_path / "scores.csv").read_text())
        found = np.array([[float(row[f"score:{name}"]) for name in ("cross", "disc")] for row in rows])
        assert found == pytest.approx(wanted, abs=1e-4)
        assert [row["predicted"] for row in rows] == [("cross", "disc")[i] for i in stored.argmax(axis=1)]


def test_a_network_without_a_temperature_has_no_calibrated_scores(vit, sources, home, tmp_path):
    export = tmp_path / "export"
    assert command("export", vit.id, "--out", export, cwd=home).returncode == 0
    old = files.read_json(export / "run.json")
    kept = {name: value for name, value in old.items() if name not in ("temperature", *seals.seals_of(old))}
    files.write_json(export / "run.json", kept)  # as an earlier version wrote it
    image = next(iter(sources.values()))
    assert command("predict", export, image, cwd=home).returncode == 0
    done = command("predict", export, image, "--calibrated", "--attention", tmp_path / "maps", cwd=home)
    assert done.returncode == 2 and not (tmp_path / "maps").exists()
    assert f"{vit.id} has no temperature" in done.stderr and "leave --calibrated out" in done.stderr


def test_a_jpeg_of_the_shards_changes_scores_little(vit, sources):
    trained = Network.of_run(vit, ModelInfo.of_run(vit))
    small = [images.resize(images.decode(path.read_bytes()).pixels, tiny.SIZE) for path in sources.values()]
    lossy = [images.decode_stored(images.encode(image, format="jpeg", quality=95)) for image in small]
    before, after = (trained.scores(trained.images(np.stack(part))) for part in (small, lossy))
    assert 0 < abs(before - after).max() < AS_JPEG


def test_folders_are_searched_and_the_table_is_aligned(vit, home, tmp_path):
    shutil.copytree(home / "raw" / "disc", tmp_path / "new" / "deeper")
    (tmp_path / "new" / "notes.txt").write_text("no image")
    done = command("predict", vit.id, tmp_path / "new", tmp_path / "new" / "deeper" / "0.png", cwd=home)
    assert done.returncode == 0, done.stderr
    head, rule, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"image +predicted +cross +disc", head) and set(rule) == {"-", " "}
    assert len(lines) == 40  # the file named twice is there once
    column = head.index("predicted")
    assert {line[column:].split()[0] for line in lines} <= {"cross", "disc"}


def test_broken_images_are_named_and_skipped_with_exit_code_1(vit, home, tmp_path):
    good = tmp_path / "good.png"
    shutil.copy(home / "raw" / "cross" / "0.png", good)
    (tmp_path / "torn.png").write_bytes(good.read_bytes()[:200])
    (tmp_path / "empty.jpg").touch()
    gone = tmp_path / "gone.png"
    done = command("predict", vit.id, tmp_path, gone, "--csv", "-", cwd=home)
    assert done.returncode == 1
    assert [row["picture"] for row in rows_of(done.stdout)] == [str(good)]
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert [line.split()[1] for line in skipped] == [str(tmp_path / "empty.jpg"), str(tmp_path / "torn.png"), str(gone)]
    told = json.loads(command("predict", vit.id, tmp_path, gone, "--json", cwd=home).stdout)
    (row,) = rows_of(done.stdout)
    assert told["images"][0]["scores"] == {name: float(row[f"score:{name}"]) for name in ("cross", "disc")}
    assert (told["images"][0]["image"], told["images"][0]["predicted"]) == (str(good), [row["predicted"]])
    assert [each["image"] for each in told["skipped"]] == [line.split()[1] for line in skipped]
    assert "is empty" in skipped[0] and "is truncated or damaged" in skipped[1] and "no such file" in skipped[2]


def test_16_bit_images_of_12_bits_are_said_and_bits_scale_them(vit, home, tmp_path):
    grey = np.asarray(opened(home / "raw" / "cross" / "1.png").convert("L")).astype(np.uint16)
    Image.fromarray(grey * 16 + grey // 16).save(tmp_path / "wide.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "grey.png")
    dark = command("predict", vit.id, tmp_path, "--csv", "-", cwd=home)
    assert "1 16-bit image of which little of the range is used" in dark.stderr and "give --bits 12" in dark.stderr
    done = command("predict", vit.id, tmp_path, "--csv", "-", "--bits", 12, cwd=home)
    assert done.stderr == ""
    one, other = (float(row["score:disc"]) for row in rows_of(done.stdout))
    assert one == pytest.approx(other, abs=TOLERANCE)
    refused = command("predict", vit.id, tmp_path, "--bits", 7, cwd=home)
    assert (refused.returncode, refused.stderr) == (2, "error: --bits is 7; give a number from 9 to 16\n")


def test_an_image_is_set_upright_before_it_is_scored(vit, home, tmp_path):
    image = opened(home / "raw" / "cross" / "1.png").crop((0, 0, 96, 50))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned a quarter clockwise
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=turned)
    image.save(tmp_path / "upright.png")
    rows = rows_of(command("predict", vit.id, tmp_path, "--csv", "-", cwd=home).stdout)
    assert len(rows) == 2
    assert float(rows[0]["score:disc"]) == pytest.approx(float(rows[1]["score:disc"]), abs=TOLERANCE)


def test_attention_is_drawn_over_each_image(vit, home, tmp_path):
    out = tmp_path / "maps"
    wide = tmp_path / "wide.png"
    opened(home / "raw" / "cross" / "0.png").resize((150, 60)).save(wide)
    done = command("predict", vit.id, wide, home / "raw" / "disc" / "0.png", "--attention", out, cwd=home)
    assert done.returncode == 0, done.stderr
    drawn = {path.name: opened(path) for path in sorted(out.iterdir())}
    below = drawn["2-0.png"].height - 96
    assert {name: image.size for name, image in drawn.items()} == {
        "1-wide.png": (maps.LEAST_WIDTH, 60 + below),
        "2-0.png": (maps.LEAST_WIDTH, 96 + below),
    }
    assert 40 < below < 120


def drawn_over_black(folder, attention, said=""):
    """The pixels of a map over a black image of 400 × 100, and of what is below it."""
    path = folder / "map.png"
    maps.draw_attention(path, np.zeros((100, 400, 3), dtype=np.uint8), np.asarray(attention, dtype=np.float32), said)
    pixels = np.asarray(opened(path))
    return pixels[:100], pixels[100:]


def test_a_colour_is_the_same_multiple_of_an_even_share_on_every_map(tmp_path):
    even, _ = drawn_over_black(tmp_path, np.full((2, 8), 1 / 16))
    finer, _ = drawn_over_black(tmp_path, np.full((10, 10), 1 / 100))
    assert np.unique(even.reshape(-1, 3), axis=0).shape[0] == 1 and np.array_equal(even, finer)
    peak = np.zeros((2, 8))
    peak[:, 0], peak[:, -1] = 4 / 16, 1 / 16
    pixels, _ = drawn_over_black(tmp_path, peak)
    assert np.array_equal(pixels[50, -1], even[50, 0])
    brightest, _ = drawn_over_black(tmp_path, np.full((2, 8), 4 / 16))
    beyond, _ = drawn_over_black(tmp_path, np.full((2, 8), 0.9))
    assert np.array_equal(pixels[50, 0], brightest[0, 0]) and np.array_equal(beyond, brightest)
    assert brightest.mean() > even.mean() > drawn_over_black(tmp_path, np.zeros((2, 8)))[0].mean()


def test_a_map_holds_the_prediction_and_the_scale(tmp_path):
    _, without = drawn_over_black(tmp_path, np.ones((2, 2)))
    _, below = drawn_over_black(tmp_path, np.ones((2, 2)), "predicted: disc 0.912")
    changed = np.flatnonzero((without != below).any(axis=(1, 2)))
    assert 0 < len(changed) < 20 and changed.max() < 24  # the first line alone
    bar = below[-30:].reshape(-1, 3)
    assert len(np.unique(bar, axis=0)) > 200  # the colours of the scale
    _, long = drawn_over_black(tmp_path, np.ones((2, 2)), "predicted: " + "x" * 500 + "\x1b[2J")
    assert long.shape == (below.shape[0], 400, 3)


@pytest.mark.parametrize(
    ("task", "scores", "text"),
    [
        ("multi-class", [0.2, 0.4], "predicted: b 0.400"),
        ("multi-label", [0.6, 0.912], "predicted: a 0.600, b 0.912"),
        ("multi-label", [0.2, 0.4], "no class above 0.5; the highest: b 0.400"),
    ],
)
def test_the_prediction_below_a_map(vit, task, scores, text):
    info = dataclasses.replace(ModelInfo.of_run(vit), task=task, classes=("a", "b"))
    assert predict.prediction_text(np.array(scores, dtype=np.float32), info) == text


def test_the_map_is_the_class_tokens_row_of_timms_own_attention():
    from timm.utils import AttentionExtract

    model = backbones.build("test_vit.r160_in1k", outputs=3, image_size=64, weights="random", folder=None)
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = attention_map(model, images)
        for block in model.blocks:
            block.attn.fused_attn = False
        extract = AttentionExtract(model, names=["blocks.5.attn.attn_drop"], method="hook")
        (weights,) = extract(images).values()  # [n, heads, tokens, tokens]
    assert found.shape == (2, 4, 3)
    assert torch.allclose(found.flatten(1), weights.mean(dim=1)[:, 0, 1:], atol=1e-6)


def test_what_cannot_be_predicted_is_an_error_that_names_the_next_step(vit, cnn, shards, site, home, tmp_path):
    image = home / "raw" / "disc" / "0.png"
    pretraining = tiny.announce(tiny.make_pretrain(shards), site)
    (tmp_path / "nothing").mkdir()
    for arguments, message in (
        ((cnn.id, image, "--attention", tmp_path / "maps"), "has no class-attention map"),
        ((pretraining.id, image), "is a pretraining run, which knows no classes; give one of its fine-tuning runs"),
        ((vit.id, tmp_path / "nothing"), "there is no image in"),
        (("no-such-run", image), "there is no run 'no-such-run'"),
        (("supervised", image), "could be any of 2 runs"),
    ):
        done = command("predict", *arguments, cwd=home)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert not (tmp_path / "maps").exists()
    shutil.rmtree(pretraining.folder)


def test_cells_of_scores_are_no_formulas_for_a_spreadsheet():
    made = [predict.Prediction("=cmd.png", np.array([0.25, 1e-7], dtype=np.float32), ["@evil"])]
    head, row = csv.reader(io.StringIO(predict.as_csv(made, ("@evil", "b\n"))))
    assert head == ["picture", "predicted", "score:@evil", "score:b\\n"]
    assert row == ["'=cmd.png", "'@evil", "0.25", "1e-07"]


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """A folder with shards of patients, and a fine-tune on them."""
    folder = tmp_path_factory.mktemp("patients")
    shards = tiny.make_patients(folder)
    run = tiny.announce(tiny.make_finetune(shards, None, epochs=1), tiny.make_cluster(folder, checkpoint_minutes=60.0))
    assert execute.execute_run(run) == 0
    return folder, shards, run


def test_a_group_of_files_has_the_score_of_its_images(patients, vit, home):
    folder, _, run = patients
    asked = ("predict", run.id, folder / "raw", "--csv", "-")
    images = rows_of(command(*asked, cwd=folder).stdout)
    done = command(*asked, "--by-group", r"^(p\d+)-", cwd=folder)
    assert done.returncode == 0, done.stderr
    rule = re.search("is the (mean|max|top 3) of its images' .validation mean", done.stderr)[1]
    frame = pd.DataFrame(images).assign(group=[Path(row["picture"]).name[:3] for row in images])
    frame["score:disc"] = frame["score:disc"].astype(float)
    by_patient = frame.groupby("group")["score:disc"]
    aggregate = {"mean": "mean", "max": "max", "top 3": lambda values: values.nlargest(3).mean()}[rule]
    expected = by_patient.agg(aggregate)
    rows = rows_of(done.stdout)
    assert [row["group"] for row in rows] == list(expected.index) and len(rows) == 60
    assert [int(row["images"]) for row in rows] == by_patient.size().tolist()
    assert [float(row["score:disc"]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)
    for row in rows:
        assert row["predicted"] == max(("cross", "disc"), key=lambda name: float(row[f"score:{name}"]))
    old = command("predict", vit.id, folder / "raw", "--by-group", "p[0-9]+", cwd=home)
    assert "is the mean of its images' (no validation group has two images)" in old.stderr


def test_shards_are_predicted_by_key_and_their_groups_are_in_the_index(patients):
    folder, shards, run = patients
    done = command("predict", run.id, shards.folder, "--csv", folder / "scores.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = {row["picture"]: float(row["score:disc"]) for row in rows_of((folder / "scores.csv").read_text())}
    stored = parquet.read_table(run["predictions"]).to_pydict()
    assert len(found) == len(shards.rows["key"])
    assert [found[key] for key in stored["key"]] == pytest.approx(stored["score:disc"], abs=TOLERANCE)
    done = command("predict", run.id, shards.folder, "--csv", "-", "--by-group", cwd=folder)
    rows = rows_of(done.stdout)
    groups = [group or key for key, group in zip(shards.rows["key"], shards.rows["group"], strict=True)]
    assert [row["group"] for row in rows] == list(dict.fromkeys(groups))
    export = folder / "export"
    assert command("export", run.id, "--out", export, cwd=folder).returncode == 0
    exported = command("predict", export, shards.folder, "--by-group", cwd=folder)
    assert "is the mean of its images' (an export holds no validation scores)" in exported.stderr


def test_what_cannot_be_grouped_is_an_error_with_the_next_move(patients, shards):
    folder, grouped, run = patients
    image = folder / "raw" / "p00-0.png"
    for arguments, message in (
        ((image, "--by-group"), "--by-group needs a REGEX"),
        ((image, "--by-group", "q+"), "finds a group in no path"),
        ((image, "--by-group", "("), "is no regular expression"),
        ((grouped.folder, "--by-group", "p"), "give --by-group without a REGEX"),
        ((grouped.folder, image), "is a folder of shards; give it alone"),
        ((grouped.folder, "--attention", folder / "maps"), "--attention draws files"),
        ((shards.folder, "--by-group"), "has a group"),
    ):
        done = command("predict", run.id, *arguments, cwd=folder)
        assert done.returncode == 2 and message in done.stderr, done.stderr
