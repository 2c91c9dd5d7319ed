"""Fine-tuning: early stopping, short batches, what it stores, and multi-label data."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pyarrow.parquet as parquet
import pytest
import tiny
from PIL import Image

from pipeline.core import files
from pipeline.data.layouts import UserDataset
from pipeline.jobs import execute
from pipeline.learn import backbones, calibration, metrics
from pipeline.learn.finetune import Finetuning
from pipeline.learn.hardware import Hardware
from pipeline.runs.predictions import read_predictions
from pipeline.runs.spec import DatasetRef

CPU = Hardware(device="cpu", model="test", precision="float32", threads=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def site(shards):
    return tiny.make_cluster(shards.folder.parent.parent, checkpoint_minutes=60.0)


def test_a_part_of_the_validation_labels_is_nested_seeded_and_holds_every_class(shards, site):
    rows = {}
    for fraction in (0.25, 0.5, 1.0):
        for seed in (77, 79):
            spec = tiny.make_finetune(shards, None, seed=seed, label_fraction=0.1, val_fraction=fraction)
            program = Finetuning(spec, shards, site, CPU)
            rows[fraction, seed] = set(program.val.rows.tolist())
            assert all(program.val.targets.sum(axis=0) > 0) and len(program.logits(program.val)) == len(program.val)
    every = {row for row in shards.of_split("val") if shards.rows["labels"][row] is not None}
    assert rows[0.25, 77] < rows[0.5, 77] < rows[1.0, 77] == every
    assert len(rows[0.5, 77]) == len(every) / 2 and rows[0.5, 77] != rows[0.5, 79]
    with pytest.raises(ValueError, match="val_fraction is 0"):
        tiny.make_finetune(shards, None, val_fraction=0.0)


def test_predictions_are_stored_and_the_result_is_their_score(shards, site):
    run = tiny.announce(tiny.make_finetune(shards, None, arm=1), site)
    assert execute.execute_run(run) == 0
    table = parquet.read_table(run["predictions"]).to_pydict()
    rows = shards.of_split("test")
    assert table["key"] == [shards.rows["key"][row] for row in rows]
    targets = np.array([table[f"true:{name}"] for name in shards.classes]).T
    scores = np.array([table[f"score:{name}"] for name in shards.classes]).T
    assert [tuple(np.array(shards.classes)[row == 1]) for row in targets] == shards.labels(rows)
    found = metrics.score(targets, scores, shards.classes, "multi-class")
    assert {**found, "majority": None, "per_class": None} == pytest.approx(
        {**run.result().metrics, "majority": None, "per_class": None}
    )
    assert found["per_class"]["disc"] == pytest.approx(run.result().metrics["per_class"]["disc"])


def test_validation_scores_are_stored_as_they_were_in_the_best_epoch(shards, site):
    run = tiny.announce(tiny.make_finetune(shards, None, arm=1), site)
    assert execute.execute_run(run) == 0
    found = read_predictions(run["val_predictions"])
    assert found.keys == [shards.rows["key"][row] for row in shards.of_split("val")]
    score = metrics.score(found.targets.astype(int), found.scores, shards.classes, "multi-class")
    row = files.read_jsonl(run["metrics"])[run.result().best_epoch]
    shown = ("f1_micro", "f1_macro", "balanced_accuracy", "auroc")
    assert {name: score[name] for name in shown} == pytest.approx({name: row[f"val_{name}"] for name in shown})
    assert run["val_predictions"].name in files.read_json(run["result"], dict)["files"]


def test_the_temperature_is_that_of_the_stored_weights_on_the_validation_images(shards, site):
    spec = tiny.make_finetune(shards, None, arm=1, seed=78)
    run = tiny.announce(spec, site)
    assert execute.execute_run(run) == 0
    program = Finetuning(spec, shards, site, CPU)
    program.model.load_state_dict(backbones.load_arm(run["weights"], "model"))
    logits, targets = program.logits(program.val).numpy(), program.val.targets.numpy()
    noted = run.result().notes["calibration"]
    assert noted["images"] == len(shards.of_split("val")) == 8
    assert run.result().temperature == pytest.approx(calibration.fit(logits, targets, "multi-class"), rel=1e-4)

    def loss(temperature: float) -> float:
        return calibration.negative_log_likelihood(logits.astype(float) / temperature, targets, "multi-class")

    assert loss(noted["temperature"]) <= min(map(loss, np.geomspace(*calibration.LIMITS, 99))) + 1e-9


def test_patience_counts_epochs_without_a_new_best(shards, site, monkeypatch):
    program = Finetuning(tiny.make_finetune(shards, None, patience=2), shards, site, CPU)
    losses = iter([1.0, 0.8, 0.9, 0.7, 0.9, 0.8])
    monkeypatch.setattr(program, "_focal", lambda logits, targets: np.float64(next(losses)))
    stops = [program.end_epoch(epoch)[1] for epoch in range(6)]
    assert stops == [False, False, False, False, False, True]
    assert program.best["epoch"] == 3


def test_the_notebooks_patience_counts_rises_over_the_epoch_before(shards, site, monkeypatch):
    program = Finetuning(tiny.make_finetune(shards, None, patience=2, stopping="previous"), shards, site, CPU)
    losses = iter([1.0, 1.1, 0.9, 1.0, 0.8, 0.9])
    monkeypatch.setattr(program, "_focal", lambda logits, targets: np.float64(next(losses)))
    stops = [program.end_epoch(epoch)[1] for epoch in range(6)]
    assert stops == [False, False, False, False, False, True]


def test_the_last_short_batch_is_kept_and_a_single_image_survives(shards, site):
    spec = tiny.make_finetune(shards, None)
    n = len(Finetuning(spec, shards, site, CPU).train)
    program = Finetuning(dataclasses.replace(spec, batch_size=n - 1), shards, site, CPU)
    assert program.steps_per_epoch == 2
    inputs, images = program.inputs(0, 1)
    assert images == 1
    assert np.isfinite(program.loss(*inputs)["loss"].item())


def test_a_label_fraction_trains_on_that_many_labelled_images(shards, site):
    full = Finetuning(tiny.make_finetune(shards, None), shards, site, CPU)
    half = Finetuning(tiny.make_finetune(shards, None, label_fraction=0.5), shards, site, CPU)
    assert len(full.train) == 64
    assert len(half.train) == 32
    assert set(half.train.rows) < set(full.train.rows)
    assert np.array_equal(full.test.rows, half.test.rows)


def test_several_classes_a_image_are_trained_and_scored(tmp_path):
    rng = np.random.default_rng(0)
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "patient", "red", "green", "blue"])
        for number in range(120):
            marks = rng.integers(0, 2, 3)
            pixels = rng.integers(0, 60, (40, 40, 3)) + marks * 180
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
            rows.writerow([f"{number}.png", f"p{number % 30}", *marks])
    shards = tiny.shard(UserDataset("colours", "csv"), tmp_path, tmp_path / "shards", split="grouped")
    assert shards.manifest["task"] == "multi-label"
    assert shards.manifest["test_sharing_group_with_train"] == 0
    site = tiny.make_cluster(tmp_path, checkpoint_minutes=60.0)
    spec = tiny.make_finetune(shards, None, epochs=25, patience=25)
    spec = dataclasses.replace(spec, dataset=DatasetRef(name="colours", fingerprint=shards.fingerprint))
    run = tiny.announce(spec, site)
    assert execute.execute_run(run) == 0
    assert run.result().metrics["f1_micro"] > 0.8
    assert run.result().metrics["majority"] is None


@pytest.mark.parametrize("counted", ["train", "train and val"])
def test_class_weights_count_the_training_split_or_as_the_notebook_does_validation_too(tmp_path, counted):
    shards = tiny.make_shards(tmp_path, each=20, unlabelled=3)
    spec = tiny.make_finetune(shards, None)
    loss = dataclasses.replace(spec.loss, class_weights="inverse", counted=counted)
    program = Finetuning(dataclasses.replace(spec, loss=loss), shards, tiny.make_cluster(tmp_path), CPU)
    parts = ("train", "val") if counted == "train and val" else ("train",)
    labels = [names for part in parts for names in shards.labels(shards.of_split(part)) if names is not None]
    inverse = np.array([1 / sum(name in names for names in labels) for name in shards.classes])
    assert program.weights.tolist() == pytest.approx(list(inverse / inverse.mean()))
