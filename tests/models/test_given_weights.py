"""A network in a file of the user's own: from pretraining to the model card, with its own normalisation everywhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil

import given
import numpy as np
import pyarrow.parquet as parquet
import pytest
import timm
import tiny
import torch
from commands import command
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pipeline.core import files
from pipeline.data.shards.read import read_pixels
from pipeline.data.splits import label_fraction
from pipeline.jobs import arrays, execute
from pipeline.jobs.costs import RunCosts
from pipeline.jobs.plan import make_plan, missing_weights
from pipeline.learn import backbones
from pipeline.models import network, onnx
from pipeline.results import collect
from pipeline.results.figures.series import groups
from pipeline.results.tables import tables
from pipeline.runs.identity import from_json, run_id, to_json
from pipeline.runs.predictions import read_predictions
from pipeline.runs.spec import PretrainSpec

GRID = """
import dataclasses, tiny
from pipeline.study import experiments, paper, recipes
from pipeline.study.setting import Scale, Setting, TableEntry
DATASETS, SEEDS, IMAGE_SIZE, WEIGHTS = ("tiny",), 1, 32, ("mine",)

def entries(datasets, seeds, preset, weights):
    mine, scale = weights["mine"], Scale(image_size=32, weights="random", stand_ins=dict(
        zip(paper.STANDARD, tiny.BACKBONES)))
    pretrain = recipes.cass(datasets[0].ref, (tiny.BACKBONES[0], mine), preset=preset, seed=77)
    pretrain = dataclasses.replace(pretrain, epochs=1, batch_size=8, image_size=32)
    tuned = recipes.finetune(datasets[0].ref, mine, pretrain, preset=preset, seed=77)
    tuned = dataclasses.replace(tuned, epochs=2, batch_size=8, image_size=32)
    setting = Setting(datasets[0], 77, preset, scale)
    frozen = experiments.frozen_entries(setting, weights=weights.values(), experiment="main")
    return [TableEntry("main", ("CASS", mine.title), "100%", tuned, ""), *frozen]
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def home(shards):
    return shards.folder.parent.parent


@pytest.fixture(scope="module")
def site(home):
    return tiny.make_cluster(home, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def mine(home):
    """The network in the user's file, after `prefetch` has taken it."""
    model = given.save(home / "file of mine.safetensors", tiny.SIZE)
    done = command("prefetch", "--file", "file of mine.safetensors", "--name", "mine", *given.FLAGS, cwd=home)
    assert done.returncode == 0, done.stderr
    return model


@pytest.fixture(scope="module")
def plan(home, site, mine):
    (home / "mine.py").write_text(GRID)
    planned = make_plan(str(home / "mine.py"), site)
    for each in planned.runs.values():
        each.run.announce(each.spec)
        files.write_json(each.run["job"], execute.cluster.to_json(site))
        assert execute.execute_run(each.run) == 0, each.run.reason()
    return make_plan(str(home / "mine.py"), site)


def chosen(plan, **wanted):
    """The only run of the plan whose spec has these values."""
    (found,) = [p for p in plan.runs.values() if all(getattr(p.spec, n, None) == v for n, v in wanted.items())]
    return found.run


def images_of(shards, mean=given.MEAN, std=given.STD) -> torch.Tensor:
    pixels = torch.from_numpy(read_pixels(shards, range(len(shards.rows["key"])))).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@torch.no_grad()
def features_of(model, images) -> np.ndarray:
    return model.eval().forward_head(model.forward_features(images), pre_logits=True).numpy()


def test_what_the_weights_are_is_in_the_store_in_the_spec_and_in_start_json(plan, home):
    said = json.loads((home / "weights" / "mine.json").read_text())
    sha256 = files.sha256_file(home / "file of mine.safetensors")
    assert files.sha256_file(home / "weights" / f"{sha256}.safetensors") == sha256
    assert (said["sha256"], said["licence"], said["role"]) == (sha256, "CC-BY-4.0", "transformer")
    for planned in plan.runs.values():
        spec = planned.spec
        arm = spec.arms[1] if isinstance(spec, PretrainSpec) else spec
        if arm.given is None:  # the frozen rows of random weights
            continue
        weights = arm.given
        assert (weights.name, weights.sha256, weights.licence) == ("mine", sha256, "CC-BY-4.0")
        assert (weights.normalisation, weights.input_size) == ((given.MEAN, given.STD), 64)
        assert from_json(json.loads(json.dumps(to_json(spec)))) == spec
        if isinstance(spec, PretrainSpec) or spec.pretrain is None:
            start = json.loads(planned.run["start"].read_text())
            assert start["inputs"]["weights of mine"] == sha256
            assert (start["weights"]["mine"]["licence"], tuple(start["weights"]["mine"]["mean"])) == (
                "CC-BY-4.0",
                given.MEAN,
            )


def test_an_arm_takes_the_images_of_its_run_and_sees_them_as_its_weights_want(shards, site, plan, mine):
    (spec,) = [p.spec for p in plan.runs.values() if isinstance(p.spec, PretrainSpec)]
    arm = backbones.arms_of(spec, 1000, site)["transformer"]
    assert (spec.augment.mean, spec.augment.std) != (given.MEAN, given.STD)
    found = features_of(arm, images_of(shards, spec.augment.mean, spec.augment.std))
    assert np.allclose(found, features_of(mine, images_of(shards)), atol=1e-4)
    assert arm.head.out_features == 1000  # a new one
    assert type(arm).__name__ == "Eva"


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_frozen_rows_are_those_of_timm_and_scikit_learn_by_hand(shards, plan, mine, probe):
    run = chosen(plan, probe=probe, label_fraction=0.5, backbone=given.TAG)
    features = features_of(mine, images_of(shards))
    labels = shards.labels(range(len(features)))
    classes = np.array([-1 if names is None else shards.classes.index(names[0]) for names in labels])
    train, test = np.array(shards.of_split("train")), np.array(shards.of_split("test"))
    train = train[label_fraction([labels[i] for i in train], shards.classes, 0.5, 77)]
    if probe == "knn":
        from sklearn.neighbors import KNeighborsClassifier

        expected = KNeighborsClassifier(20, metric="cosine").fit(features[train], classes[train])
        scores = expected.predict_proba(features[test])
    else:
        scaler = StandardScaler().fit(features[train].astype(np.float64))
        linear = LogisticRegression(C=0.1).fit(scaler.transform(features[train].astype(np.float64)), classes[train])
        scores = linear.predict_proba(scaler.transform(features[test]))
    assert np.allclose(read_predictions(run["predictions"]).scores, scores, atol=1e-4)


def test_the_table_names_the_weights(plan):
    cells = collect.cells(plan)
    titles = {series.title for group in groups(cells) for series in group.series}  # of figures
    sources = ("random", "mine")
    assert titles == {"CASS", *(f"Frozen {source}, {probe}" for source in sources for probe in ("k-NN", "linear"))}
    rows = [
        row[:2] for row in next(t for t in tables(plan, cells) if "techniques" in t.title and t.number is None).rows
    ]
    assert ("Frozen mine, k-NN", given.TAG) in rows and ("Frozen mine, linear", given.TAG) in rows
    assert ("Frozen random, k-NN", "tiny ViT") in rows and ("CASS", given.TAG) in rows


def test_runs_of_frozen_features_share_a_job(plan):
    jobs = arrays.jobs_of(plan.runs.values())
    assert sorted(len(job.runs) for job in jobs) == [1, 1, 12]
    assert max(jobs, key=lambda job: len(job.runs)).name() == "tiny.frozen.s77"


def test_a_fine_tune_of_the_arm_is_exported_and_scores_as_stock_timm_does(shards, home, plan):
    run = chosen(plan, probe="", backbone=given.TAG)
    assert (run.spec.augment.mean, run.spec.augment.std) == (given.MEAN, given.STD)
    done = command("export", run.id, "--out", "export", cwd=home)
    assert done.returncode == 0, done.stderr
    card = (home / "export" / "README.md").read_text()
    sha256 = files.sha256_file(home / "file of mine.safetensors")
    assert f"started from the weights `mine`: SHA-256 `{sha256}`, licence: CC-BY-4.0, trained on images of 64" in card
    assert "the mean 0.4, 0.5, 0.6 subtracted, divided by 0.2, 0.3, 0.25" in card
    assert "1 epoch from the weights mine on tiny" in card and "ImageNet" not in card
    config = json.loads((home / "export" / "config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "CC-BY-4.0" and config["model_args"] == given.ARGUMENTS

    model = timm.create_model(f"local-dir:{home / 'export'}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)
    assert (tuple(data["mean"]), tuple(data["std"])) == (given.MEAN, given.STD)
    test = shards.of_split("test")
    with torch.no_grad():
        expected = model(images_of(shards)[test]).sigmoid().numpy()
    assert np.allclose(read_predictions(run["predictions"]).scores, expected, atol=1e-5)
    again = network.open_network(str(home / "export"), None, tiny.make_cluster(home))
    assert np.allclose(again.scores(again.images(read_pixels(shards, test))), expected, atol=1e-5)
    if all(importlib.util.find_spec(name) for name in onnx.NEEDED):
        assert onnx.graph(again)[1] < 1e-4


def test_features_of_the_weights_and_of_the_arm_are_written_with_their_normalisation(shards, home, plan, mine):
    assert command("embed", "mine", "tiny", "--out", "mine.parquet", cwd=home).returncode == 0
    (pretrain,) = [p.run for p in plan.runs.values() if isinstance(p.spec, PretrainSpec)]
    done = command("embed", pretrain.id, "tiny", "--arm", "transformer", "--out", "arm.parquet", cwd=home)
    assert done.returncode == 0, done.stderr
    arm = given.model(tiny.SIZE)
    backbones.load_body(arm, backbones.load_arm(pretrain["weights"], "transformer"))
    for name, model in (("mine", mine), ("arm", arm)):
        table = parquet.read_table(home / f"{name}.parquet")
        found = np.stack(table["features"].to_numpy())
        assert np.allclose(found, features_of(model, images_of(shards)), atol=1e-4)
        assert json.loads(table.schema.metadata[b"embedding"])["mean"] == list(given.MEAN)


def test_ids_do_not_depend_on_where_the_file_is_and_do_on_what_is_in_it(plan, home, tmp_path):
    shutil.copy(home / "file of mine.safetensors", tmp_path / "elsewhere.safetensors")
    there = tiny.make_cluster(tmp_path, shards=str(home / "shards"))
    take = ("prefetch", "--file", "elsewhere.safetensors", "--name", "mine", *given.FLAGS)
    assert command(*take, cwd=tmp_path).returncode == 0
    assert set(make_plan(str(home / "mine.py"), there).runs) == set(plan.runs)
    spec = chosen(plan, probe="knn", label_fraction=0.5, backbone=given.TAG).spec
    other = dataclasses.replace(spec, given=dataclasses.replace(spec.given, sha256="0" * 64))
    assert run_id(other) != run_id(spec)
    with pytest.raises(ValueError, match="does not normalise by"):
        dataclasses.replace(spec, augment=dataclasses.replace(spec.augment, mean=(0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match="'given' goes with start weights"):
        dataclasses.replace(spec, given=None)
    (tmp_path / "weights" / f"{spec.given.sha256}.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="delete it and bring them again: python -m pipeline.prefetch --file FILE"):
        execute.inputs(spec, there)
    (tmp_path / "weights" / f"{spec.given.sha256}.safetensors").unlink()
    (missing,) = missing_weights(make_plan(str(home / "mine.py"), there))
    assert missing.startswith(f"the weights mine (SHA-256 {spec.given.sha256[:12]}…) are not in")


def test_the_size_of_a_network_of_given_weights_is_that_of_its_file(plan, site, home):
    spec = chosen(plan, probe="", backbone=given.TAG).spec
    size = (home / "file of mine.safetensors").stat().st_size // 4
    assert RunCosts(plan, dataclasses.replace(site, runs=str(home / "none")), []).parameters(spec) == size
