"""Finished fine-tunes on another dataset: twins of training images left out, classes by name, stored and skipped."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import elsewhere
import finished
import numpy as np
import pytest
import tiny
from commands import command
from flips import flip
from sklearn.metrics import balanced_accuracy_score, f1_score

from pipeline.data.shards.index import open_shards
from pipeline.data.shards.read import read_pixels
from pipeline.evaluate import attempt
from pipeline.jobs import audit
from pipeline.models import evaluate
from pipeline.models.info import ModelInfo
from pipeline.models.network import Network
from pipeline.results import elsewhere as tested_elsewhere
from pipeline.runs import evaluation
from pipeline.runs.evaluation import OF_PATIENT


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def first(home):
    return elsewhere.first_shards(home)


@pytest.fixture(scope="module")
def second(home, first):
    return elsewhere.second_shards(home, first)


@pytest.fixture(scope="module")
def site(home):
    return tiny.make_cluster(home)


@pytest.fixture
def run(first, site):
    made = finished.finish(tiny.make_finetune(first, None), site, first)
    for path in made.evaluations():
        path.unlink()
    return made


def test_twins_of_training_images_are_found_left_out_and_named(home, first, second, run):
    shards, planted = second
    done = command("evaluate", run.id, "--on", "second", "--map", "ring=disc", cwd=home)
    assert done.returncode == 0, done.stderr
    (path,) = run.evaluations()
    found, predictions = evaluation.read(run, path)
    again = json.loads(command("evaluate", run.id, "--on", "second", "--map", "ring=disc", "--json", cwd=home).stdout)
    assert again["runs"][0] | dataclasses.asdict(found) == again["runs"][0] and again["runs"][0]["run"] == run.id
    assert {twin[0] for twin in found.twins} == planted and len(planted) == elsewhere.PLANTED
    assert {twin[1] for twin in found.twins} == {"near", "mirrored"}
    assert sum(twin[1] == "mirrored" for twin in found.twins) == elsewhere.PLANTED // 5
    trained = {first.rows["key"][row] for row in first.of_split("train")}
    assert all(twin[2:4] == ["first", "train"] and twin[4] in trained for twin in found.twins)
    assert found.left_out == {"class star": 30, "no label": 30, "twin of a training image": 50}
    assert found.images == len(predictions.keys) == 60 and not planted & set(predictions.keys)
    assert found.mapping == {"cross": "cross", "ring": "disc"} and found.differs == []
    assert "30 images: class star; 30 images: no label; 50 images: twin of a training image" in done.stdout


def test_scores_are_those_of_the_network_and_metrics_those_of_scikit_learn(home, second, run):
    shards, _ = second
    assert command("evaluate", run.folder, "--on", shards.folder, "--map", "ring=disc", cwd=home).returncode == 0
    found, predictions = evaluation.read(run, run.evaluation("second", shards.fingerprint))
    rows = {key: row for row, key in enumerate(shards.rows["key"])}
    chosen = [rows[key] for key in predictions.keys]
    network = Network.of_run(run, ModelInfo.of_run(run))
    expected = network.scores(network.images(read_pixels(shards, chosen)))
    assert np.allclose(predictions.scores, expected, atol=1e-5)
    ours = [{"cross": 0, "ring": 1}[shards.labels([row])[0][0]] for row in chosen]
    guessed = expected.argmax(axis=1)
    assert predictions.targets.argmax(axis=1).tolist() == ours
    assert found.metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(ours, guessed))
    assert found.metrics["f1_macro"] == pytest.approx(f1_score(ours, guessed, average="macro"))


def test_classes_without_images_there_are_guesses_and_no_part_of_the_macro_mean(second, run, home):
    shards, _ = second
    assert command("evaluate", run.id, "--on", "second", cwd=home).returncode == 0
    found, predictions = evaluation.read(run, run.evaluation("second", shards.fingerprint))
    assert found.mapping == {"cross": "cross"} and found.images == 30
    guessed = predictions.scores.argmax(axis=1)
    hits = int((guessed == 0).sum())
    assert found.metrics["f1_macro"] == pytest.approx(2 * hits / (hits + 30))
    assert found.metrics["accuracy"] == pytest.approx(hits / 30)


def test_a_run_is_tested_once_until_its_classes_or_its_weights_are_others(home, second, run):
    shards, _ = second
    asked = ("evaluate", run.id, "--on", "second", "--map", "ring=disc")
    dry = command(*asked, "--dry-run", cwd=home)
    assert dry.returncode == 0 and f"would test {run.id}: cross → cross, ring → disc" in dry.stdout
    assert not run.evaluations()
    assert "tested already" not in command(*asked, cwd=home).stdout
    (path,) = run.evaluations()
    before = path.read_bytes(), path.stat().st_mtime_ns
    done = command(*asked, cwd=home)
    assert done.returncode == 0 and "1 run is tested already" in done.stdout and "left out" in done.stdout
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert "tested already" not in command("evaluate", run.id, "--on", "second", cwd=home).stdout  # other classes
    value = json.loads(path.read_text())
    assert value["mapping"] == {"cross": "cross"} and value["seal"]
    known = (run, "second", shards.fingerprint, {"cross": "cross"})
    assert evaluation.known(*known, run.weights_checksum) is not None
    assert evaluation.known(*known, "0" * 64) is None


def test_verify_knows_evaluations_and_the_run_stays_whole(home, run):
    assert command("evaluate", run.id, "--on", "second", cwd=home).returncode == 0
    assert not list(audit.check_run(run.folder))
    (path,) = run.evaluations()
    flip(run.evaluation_scores(path), 8 * 50)
    (finding,) = audit.check_run(run.folder)
    assert finding.kind == "damaged" and "was changed after it was written" in finding.text
    assert "evaluate the run again" in finding.text and run.state() == "done"
    assert evaluation.all_of(run) == []
    run.evaluation_scores(path).unlink()
    assert "tested already" not in command("evaluate", run.id, "--on", "second", cwd=home).stdout
    assert not list(audit.check_run(run.folder))
    with run.lock():
        run.discard()
    assert not run.evaluations() and not list(run.folder.glob("evaluation*"))


def test_what_cannot_be_tested_is_an_error_with_the_next_move(home, first, second, run, site):
    shards, _ = second
    pretraining = finished.finish(tiny.make_pretrain(first), site, first)
    pending = tiny.announce(tiny.make_finetune(first, None, seed=5), site)
    for arguments, message in (
        ((run.id, "--on", "third"), f"there are no shards of third of {tiny.SIZE} pixels"),
        ((run.id, "--on", "first"), "is trained on"),
        ((run.id, "--on", "second", "--map", "ring=circle"), "--map 'ring=circle' is not THEIR=OUR"),
        ((run.id, "--on", "second", "--map", "cross="), "no class has the same name"),
        ((pretraining.id, "--on", "second"), "is no fine-tune"),
        ((pending.id, "--on", "second"), "only a finished run can be tested"),
        (("--on", "second"), "give either RUN or --grid"),
    ):
        done = command("evaluate", *arguments, cwd=home)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    other = dataclasses.replace(shards, manifest={**shards.manifest, "settings": {"size": 64}})
    with pytest.raises(ValueError, match="shard them with --size 32"):
        evaluate.Evaluator(other, (), site, tiny.quiet).mapping(run)


def test_an_image_of_several_classes_counts_where_the_task_has_several(second):
    shards, _ = second
    mapping = {"cross": "a", "ring": "b"}
    several = evaluate.select(shards, mapping, ("a", "b", "c"), "multi-label", set())
    single = evaluate.select(shards, {"cross": "a", "ring": "a"}, ("a", "b"), "multi-class", {shards.rows["key"][0]})
    assert several.targets.sum(axis=0).tolist() == [30, 80, 0]
    assert single.targets[:, 1].sum() == 0 and sum(single.left_out.values()) + len(single.rows) == 170


def test_of_a_patient_with_a_twin_no_image_is_scored(tmp_path):
    """Another image of a patient whom the run has seen is no image from elsewhere."""
    shards = tiny.make_patients(tmp_path)
    mapping, groups = {name: name for name in shards.classes}, shards.groups()
    labels = shards.labels(range(len(shards.rows["key"])))
    labelled = {key for key, names in zip(shards.rows["key"], labels, strict=True) if names is not None}
    seen = sorted(labelled & groups.keys())[0]
    others = {key for key in labelled - {seen} if groups.get(key) == groups[seen]}
    chosen = evaluate.select(shards, mapping, shards.classes, "multi-class", {seen})
    assert others and chosen.left_out["of a patient or lesion with a twin of a training image"] == len(others)
    assert chosen.left_out["twin of a training image"] == 1
    scored = {shards.rows["key"][row] for row in chosen.rows}
    assert scored == labelled - others - {seen}
    alone = sorted(labelled - groups.keys())[0]  # without a group nothing says who it is
    assert len(evaluate.select(shards, mapping, shards.classes, "multi-class", {alone}).rows) == len(labelled) - 1


def test_how_images_are_stored_is_compared(second, first):
    shards = open_shards(second[0].folder)
    assert evaluate.differences(shards, first) == []
    shards.manifest["settings"] |= {"format": "jpeg", "decode": "dct"}
    assert evaluate.differences(shards, first) == ["format: jpeg, in training png", "decode: dct, in training exact"]


def test_a_grid_is_tested_and_its_report_has_a_table(home, tmp_path, first, second):
    grid = finished.make_grid(tmp_path, first, methods=("supervised",))
    flags = ("--grid", grid, "--cluster", tmp_path / "here.toml", "--seeds", 2)
    done = command("evaluate", *flags, "--on", "second", "--map", "ring=disc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "16 of 24 fine-tunes are not done" in done.stdout
    report = command("report", *flags, cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    (title,) = [line for line in report.stdout.splitlines() if " on other data: second" in line]
    assert title.startswith("first on other data: second")
    table = report.stdout.split(title)[1].split("\n\n")[1].splitlines()
    rows = [line.split() for line in table if line.lower().startswith("supervised")]
    assert len(rows) == 4 and all(row[-2:] == ["60", "50"] for row in rows)
    assert "left out: 30 (class star); 30 (no label); 50 (twin of a training image)" in report.stdout
    again = command("evaluate", *flags, "--on", "second", "--map", "ring=disc", cwd=tmp_path)
    assert "8 runs are tested already" in again.stdout
    refused = command("evaluate", *flags, "--on", "first", cwd=tmp_path)
    assert refused.returncode == 1 and refused.stderr.count("not tested: ") == 8


def test_a_run_whose_folder_cannot_be_written_does_not_keep_the_others_from_their_test(run):
    def closed(run):
        raise PermissionError(13, "Permission denied", str(run.folder / "evaluation.json"))

    def full(run):
        raise OSError(28, "No space left on device")

    found = attempt(closed, run)
    assert isinstance(found, ValueError) and f"{run.folder}/evaluation.json: you may not read or write it" in str(found)
    with pytest.raises(OSError, match="No space left"):
        attempt(full, run)


def test_scores_of_earlier_code_which_kept_a_twins_patient_are_in_a_table_of_their_own():
    cell = SimpleNamespace(experiment="main", dataset="mine")
    left_out = ({}, {"no label": 1}, {OF_PATIENT: 3})
    found = [SimpleNamespace(dataset="other", fingerprint="f", left_out=each) for each in left_out]
    old, also_old, new = (tested_elsewhere.Tested(cell, [(each, None)]).key for each in found)
    assert old == also_old != new
