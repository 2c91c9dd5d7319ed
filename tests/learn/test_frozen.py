"""Frozen features as a technique: equal to timm and scikit-learn by hand, computed once, with rows in tables."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pipeline.core import files
from pipeline.core.seeds import derive
from pipeline.data.shards.read import read_pixels
from pipeline.data.splits import label_fraction
from pipeline.jobs import execute
from pipeline.jobs.costs import workload_of
from pipeline.jobs.plan import make_plan
from pipeline.learn import backbones, frozen, probes
from pipeline.models.info import ModelInfo
from pipeline.results import collect
from pipeline.results.tables import tables
from pipeline.runs.identity import run_id
from pipeline.runs.predictions import read_predictions
from pipeline.study import paper
from pipeline.study.frozen import frozen_entries
from pipeline.study.setting import DatasetInfo, Scale, Setting


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def site(shards):
    return tiny.make_cluster(shards.folder.parent.parent, checkpoint_minutes=60.0, probes=False)


def spec_of(shards, probe, pretrain=None, **changes):
    return dataclasses.replace(tiny.make_finetune(shards, pretrain, epochs=1), probe=probe, **changes)


def finished(spec, site):
    run = tiny.announce(spec, site)
    assert execute.execute_run(run) == 0, run.reason()
    return run


def by_hand(shards, spec, model, probe):
    """The scores of the test images, from timm's own calls and scikit-learn's."""
    images = torch.from_numpy(read_pixels(shards, range(len(shards.rows["key"])))).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(spec.augment.mean).view(3, 1, 1)) / torch.tensor(spec.augment.std).view(3, 1, 1)
    with torch.no_grad():
        features = model.eval().forward_head(model.forward_features(images), pre_logits=True).numpy()
    train, test = np.array(shards.of_split("train")), np.array(shards.of_split("test"))
    labels = shards.labels(range(len(features)))
    train = train[label_fraction([labels[i] for i in train], shards.classes, spec.label_fraction, spec.seed)]
    classes = np.array([-1 if names is None else shards.classes.index(names[0]) for names in labels])
    if probe == "knn":
        model = KNeighborsClassifier(min(20, len(train)), metric="cosine").fit(features[train], classes[train])
        return model.predict_proba(features[test]), classes[test]
    scaler = StandardScaler().fit(features[train].astype(np.float64))
    model = LogisticRegression(C=0.1).fit(scaler.transform(features[train].astype(np.float64)), classes[train])
    return model.predict_proba(scaler.transform(features[test])), classes[test]


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_scores_from_random_weights_are_those_of_timm_and_scikit_learn(shards, site, probe, fraction):
    """The random weights are those that the supervised run of the same seed starts from."""
    spec = spec_of(shards, probe, label_fraction=fraction)
    run = finished(spec, site)
    torch.manual_seed(derive("init", spec.seed))
    model = backbones.build(spec.backbone, outputs=2, image_size=tiny.SIZE, weights="random", folder=Path())
    expected, classes = by_hand(shards, spec, model, probe)
    found = read_predictions(run["predictions"])
    assert np.allclose(found.scores, expected, atol=1e-4)
    score = f1_score(classes, expected.argmax(axis=1), average="macro", zero_division=0)
    assert run.result().metrics["f1_macro"] == pytest.approx(score)
    assert run.result().notes["labelled_pictures"] == (64 if fraction == 1 else 32)
    validation = read_predictions(run["val_predictions"])
    assert validation.keys == [shards.rows["key"][row] for row in shards.of_split("val")]
    assert validation.scores.shape == (8, 2) and not np.array_equal(validation.scores, found.scores)


def test_scores_of_a_pretrained_arm_are_of_its_published_weights(shards, site):
    pretrain = tiny.make_pretrain(shards, epochs=1)
    parent = finished(pretrain, site)
    spec = spec_of(shards, "linear", pretrain, weights="imagenet")  # which a pretrained arm does not need
    run = finished(spec, site)
    model = backbones.build(spec.backbone, outputs=2, image_size=tiny.SIZE, weights="random", folder=Path())
    backbones.load_body(model, backbones.load_arm(parent["weights"], "cnn"))
    expected, _ = by_hand(shards, spec, model, "linear")
    assert np.allclose(read_predictions(run["predictions"]).scores, expected, atol=1e-4)
    assert "pretrained weights" in run.result().notes["inputs"]


def test_features_are_computed_once_for_each_network(shards, tmp_path, monkeypatch):
    calls = []
    features = probes.features
    monkeypatch.setattr(frozen.probes, "features", lambda *args: calls.append(args) or features(*args))
    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))
    runs = [finished(spec_of(shards, p, label_fraction=f), site) for p in ("knn", "linear") for f in (0.5, 1.0)]
    assert len(calls) == 1
    again = {run.id: run["predictions"].read_bytes() for run in runs}
    for path in Path(site.scratch).glob("features-*"):  # scratch may be emptied at any time
        path.unlink()
    runs[0]["result"].unlink()
    assert execute.execute_run(runs[0]) == 0
    assert runs[0]["predictions"].read_bytes() == again[runs[0].id] and len(calls) == 2
    finished(spec_of(shards, "knn", seed=78), site)
    assert len(calls) == 3  # other random weights


def test_a_full_scratch_costs_the_time_of_computing_them_again_and_no_run(shards, site, tmp_path, monkeypatch, capfd):
    def no_room(file, array):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = finished(spec_of(shards, "linear"), site)["predictions"].read_bytes()
    monkeypatch.setattr(np, "save", no_room)
    here = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))
    run = finished(spec_of(shards, "linear"), here)
    assert run["predictions"].read_bytes() == expected
    assert "features are not kept" in capfd.readouterr().out and not list(Path(here.scratch).glob("features-*.npy"))


def test_a_spec_without_a_probe_keeps_its_id_and_one_with_it_has_a_name_of_its_own(shards, site):
    plain = tiny.make_finetune(shards, None, epochs=1)
    ids = [run_id(dataclasses.replace(plain, probe=probe)) for probe in ("", "knn", "linear")]
    assert ids[0] == run_id(plain) and len(set(ids)) == 3
    assert ids[1].startswith("tiny-frozen-test_resnet-100pct-s77-")
    with pytest.raises(ValueError, match="probe is 'svm'; known: , knn, linear"):
        dataclasses.replace(plain, probe="svm")
    assert workload_of(plain) != workload_of(spec_of(shards, "knn"))  # its speed says nothing of a fine-tune's
    with pytest.raises(ValueError, match="trained no network"):
        ModelInfo.of_run(finished(spec_of(shards, "knn"), site))


def test_rows_for_every_start_and_classifier_and_a_column_for_every_fraction(shards, site):
    info = DatasetInfo(tiny.ref(shards), (0.5, 1.0), "f1_macro")
    full = Setting(info, 77, paper.preset("paper"), Scale())
    rows = list(dict.fromkeys(entry.row for entry in frozen_entries(full)))
    assert rows[:4] == [
        ("Frozen random, k-NN", "ResNet-50"),
        ("Frozen random, linear", "ResNet-50"),
        ("Frozen ImageNet, k-NN", "ResNet-50"),
        ("Frozen ImageNet, linear", "ResNet-50"),
    ]
    small = dataclasses.replace(
        full,
        scale=Scale(
            image_size=tiny.SIZE, weights="random", stand_ins=dict(zip(paper.STANDARD, tiny.BACKBONES, strict=True))
        ),
    )
    entries = frozen_entries(small, small.cass(), experiment="main")
    assert [entry.row[0] for entry in entries[::2]] == [
        f"Frozen {source}, {probe}"
        for _ in tiny.BACKBONES
        for source in ("random", "CASS")
        for probe in ("k-NN", "linear")
    ]
    assert {entry.spec.probe for entry in entries} == {"knn", "linear"} and len(entries) == 16
    assert all(entry.spec.pretrain is None or entry.spec.weights == "random" for entry in entries)


def test_a_grid_of_frozen_rows_makes_a_table(shards, tmp_path):
    grid = tmp_path / "bar.py"
    grid.write_text(
        "import tiny\nfrom pipeline.study import paper\nfrom pipeline.study.frozen import frozen_entries\n"
        "from pipeline.study.setting import Scale, Setting\nDATASETS, SEEDS, IMAGE_SIZE = ('tiny',), 1, 32\n"
        "SCALE = Scale(image_size=32, weights='random', stand_ins=dict(zip(paper.STANDARD, tiny.BACKBONES)))\n"
        "def entries(datasets, seeds, preset):\n"
        "    return [e for d in datasets for s in seeds for e in frozen_entries(Setting(d, s, preset, SCALE))]\n"
    )
    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent))
    for planned in make_plan(str(grid), site).runs.values():
        planned.run.announce(planned.spec)
        files.write_json(planned.run["job"], execute.cluster.to_json(site))
        assert execute.execute_run(planned.run) == 0
    plan = make_plan(str(grid), site)
    (table,) = tables(plan, collect.cells(plan))
    assert [row[:2] for row in table.rows] == [
        (f"Frozen random, {probe}", network) for network in ("tiny ResNet", "tiny ViT") for probe in ("k-NN", "linear")
    ]
    assert all("(1)" in value for row in table.rows for value in row[2:])
    assert json.loads(planned.run["result"].read_text())["epochs"] == 0
