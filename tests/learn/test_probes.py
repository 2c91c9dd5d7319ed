"""Probes: equal to scikit-learn and timm called by hand, the labels that fine-tuning has, and no trace in a run."""

from __future__ import annotations

import dataclasses
import io
import warnings

import kill
import numpy as np
import pytest
import timm
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from stops import StopAt

from pipeline.core import files
from pipeline.data.datasets.toy import draw
from pipeline.data.layouts import UserDataset
from pipeline.data.splits import label_fraction
from pipeline.jobs import execute
from pipeline.learn import checkpoint, probes
from pipeline.learn.hardware import Hardware
from pipeline.learn.pretrain import Pretraining
from pipeline.study import paper

CPU = Hardware(device="cpu", model="test", precision="float32", threads=1)
ARMS = ("cnn", "transformer")
KEYS = {
    f"{arm}_{part}_{probe}" for arm in ARMS for part in ("val", "test") for probe in ("knn", "linear_50", "linear_100")
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("probes"))


@pytest.fixture(scope="module")
def site(shards):
    return tiny.make_cluster(shards.folder.parent.parent, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def done(shards, site):
    run = tiny.announce(tiny.make_pretrain(shards, epochs=6), site)
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 150)
    features = rng.normal(size=(150, 12)) + 1.5 * np.eye(12)[classes] + 3
    return features[:100].astype(np.float32), classes[:100], features[100:].astype(np.float32)


# --- Against scikit-learn and timm -----------------------------------------------------------------------------------


def test_k_nn_is_that_of_scikit_learn_for_one_and_for_several_classes(data):
    train, classes, judged = data
    one = KNeighborsClassifier(20, metric="cosine").fit(train, classes)
    ours = probes.knn(train, np.eye(3)[classes], judged)
    assert np.allclose(ours, one.predict_proba(judged))
    assert np.array_equal(ours.argmax(axis=1), one.predict(judged))
    several = np.stack([classes == 0, classes > 0, train[:, 5] > 3], axis=1).astype(int)
    many = KNeighborsClassifier(20, metric="cosine").fit(train, several)
    expected = np.stack([of_class[:, 1] for of_class in many.predict_proba(judged)], axis=1)
    assert np.allclose(probes.knn(train, several, judged), expected)
    assert probes.knn(train[:3], np.eye(3), judged).shape == (50, 3)  # fewer images than neighbours


def test_the_linear_probe_is_that_of_scikit_learn_for_one_and_for_several_classes(data):
    train, classes, judged = data
    scaler = StandardScaler().fit(train.astype(np.float64))
    scaled, others = scaler.transform(train.astype(np.float64)), scaler.transform(judged)
    by_hand = LogisticRegression(C=0.1, max_iter=200).fit(scaled, classes)
    ours = probes.linear(train, np.eye(4)[classes], single=True)(judged)
    assert np.array_equal(ours[:, :3], by_hand.predict_proba(others))
    assert not ours[:, 3].any()  # a class without an image
    several = np.stack([classes == 0, classes > 0, train[:, 5] > 3], axis=1).astype(int)
    many = OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=200)).fit(scaled, several)
    assert np.array_equal(probes.linear(train, several, single=False)(judged), many.predict_proba(others))
    alone = probes.linear(train[:5], np.eye(3)[[2] * 5], single=True)(judged)
    assert alone[:, 2].all() and not alone[:, :2].any()


def test_the_figures_of_a_run_are_those_of_timm_and_scikit_learn_by_hand(shards, done):
    """The published (averaged) weights of each arm, loaded into timm's own model."""
    saved, found = load_file(done["weights"]), done.result().metrics["probes"]
    assert (found["metric"], found["images"]) == ("balanced_accuracy", {"train": 64, "val": 8, "test": 8})
    rows = {part: np.array([r for r in shards.of_split(part) if shards.labels([r])[0]]) for part in ("train", "test")}
    pixels = torch.from_numpy(np.stack([np.array(Image.open(_file(shards, row))) for row in _all(shards)]))
    images = pixels.permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(paper.AUGMENT.mean).view(3, 1, 1)) / torch.tensor(paper.AUGMENT.std).view(3, 1, 1)
    classes = np.array([-1 if n is None else shards.classes.index(n[0]) for n in shards.labels(_all(shards))])
    half = rows["train"][_half(shards, rows["train"], done.spec.seed)]
    for arm in done.spec.arms:
        size = {"img_size": tiny.SIZE} if arm.name == "transformer" else {}
        model = timm.create_model(arm.backbone, num_classes=1000, **size).eval()
        model.load_state_dict({key.split("/")[1]: t for key, t in saved.items() if key.startswith(arm.name)})
        with torch.no_grad():
            features = model.forward_head(model.forward_features(images), pre_logits=True).numpy().astype(np.float64)
        train, test = features[rows["train"]], features[rows["test"]]
        near = KNeighborsClassifier(20, metric="cosine").fit(train, classes[rows["train"]]).predict(test)
        assert found["end"][f"{arm.name}_test_knn"] == balanced_accuracy_score(classes[rows["test"]], near)
        for name, labelled in (("50", half), ("100", rows["train"])):
            scaler = StandardScaler().fit(features[labelled])
            probe = LogisticRegression(C=0.1).fit(scaler.transform(features[labelled]), classes[labelled])
            score = balanced_accuracy_score(classes[rows["test"]], probe.predict(scaler.transform(test)))
            assert found["end"][f"{arm.name}_test_linear_{name}"] == pytest.approx(score)


def _all(shards):
    return range(len(shards.rows["key"]))


def _file(shards, row):
    index = shards.rows
    with open(shards.folder / index["tar"][row], "rb") as tar:
        tar.seek(index["offset"][row])
        return io.BytesIO(tar.read(index["size"][row]))


def _half(shards, rows, seed):
    return label_fraction(shards.labels(rows.tolist()), shards.classes, 0.5, seed)


# --- What is judged when ---------------------------------------------------------------------------------------------


def test_arms_are_judged_at_the_start_after_5_25_125_epochs_and_at_the_end(done):
    assert [epochs for epochs in range(700) if probes.due(epochs)] == [5, 25, 125, 625]
    rows, found = files.read_jsonl(done["metrics"]), done.result().metrics["probes"]
    assert set(found["start"]) == set(found["end"]) == KEYS
    assert rows[0]["start"] == found["start"]
    brief = {f"{arm}_val_{probe}" for arm in ARMS for probe in ("knn", "linear_100")}
    assert [KEYS & set(row) for row in rows] == [set(), set(), set(), set(), brief, KEYS]
    assert {name: rows[-1][name] for name in KEYS} == found["end"]
    assert found["labelled"] == {"50": 32, "100": 64}


def test_tensorboard_shows_the_start_the_way_and_the_end(done):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(done["tensorboard"])).Reload()
    assert [event.step for event in events.Scalars("cnn_val_knn")] == [-1, 4, 5]


def test_the_labels_are_those_of_fine_tuning_nested_and_at_most_so_many():
    labels = [("a", "b", "c", "c", "c", "c")[i % 6] for i in range(300)]
    labels = [None if i % 50 == 7 else (name,) for i, name in enumerate(labels)]
    found = probes.nested_subsets(labels, ("a", "b", "c"), (1.0, 0.01, 0.1), 7, 100)
    for fraction in (0.01, 0.1):
        assert np.array_equal(found[fraction], label_fraction(labels, ("a", "b", "c"), fraction, 7))
    assert len(found[1.0]) == 100 and set(found[0.01]) < set(found[0.1]) < set(found[1.0])
    assert all(labels[i] is not None for i in found[1.0])
    again = probes.nested_subsets(labels, ("a", "b", "c"), (1.0, 0.01, 0.1), 8, 100)
    assert not np.array_equal(found[1.0], again[1.0])


def test_a_run_of_few_images_is_judged_on_few(shards, site):
    found = probes.of_run(tiny.make_pretrain(shards, pictures=12), site, CPU)
    assert found.facts()["images"] == {"train": 12, "val": 6, "test": 6}
    assert found.facts()["labelled"] == {"50": 12, "100": 12}


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        ({"unlabelled": 30}, "no labelled training image"),
        ({"train/disc": 20, "val/disc": 4, "val/cross": 4, "test/cross": 2}, "fewer than two classes"),
        ({"disc": 1, "cross": 1, "unlabelled": 30}, "no labelled validation image"),
    ],
)
def test_where_no_label_can_judge_the_run_says_so_and_works(shards, tmp_path, capfd, folders, reason):
    for label, count in folders.items():
        (tmp_path / "raw" / label).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(draw("disc", np.random.default_rng([number, len(label)])))
            image.save(tmp_path / "raw" / label / f"{number}.png")
    few = tiny.shard(UserDataset("few", "folder"), tmp_path / "raw", tmp_path / "shards")
    run = tiny.announce(tiny.make_pretrain(few, epochs=1), tiny.make_cluster(tmp_path))
    assert execute.execute_run(run) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("no probes of frozen features: ")]
    assert len(lines) == 1 and reason in lines[0]
    assert "probes" not in run.result().metrics


def test_features_that_are_not_finite_have_no_score(shards, site):
    found = probes.of_run(tiny.make_pretrain(shards), site, CPU)
    arm = timm.create_model("test_resnet.r160_in1k", num_classes=10)
    next(arm.parameters()).data.fill_(float("nan"))
    figures = found.judge({"cnn": arm})
    assert figures.keys() == {name for name in KEYS if name.startswith("cnn")}
    assert set(figures.values()) == {None}


# --- Observation only ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cass", "dino", "dino_fb"])
def test_probes_change_no_bit_of_a_run(shards, site, tmp_path, method):
    made = tiny.make_pretrain if method == "cass" else tiny.make_dino
    spec = made(shards, epochs=2) if method == "cass" else made(shards, method=method, epochs=2)
    runs = {}
    for wanted in (True, False):
        here = dataclasses.replace(site, runs=str(tmp_path / f"{wanted}"), probes=wanted, keep_state=True)
        runs[wanted] = tiny.announce(spec, here)
        assert execute.execute_run(runs[wanted]) == 0
    assert runs[True].id == runs[False].id
    for name in ("weights", "last_weights"):
        if runs[True][name].exists():
            assert runs[True][name].read_bytes() == runs[False][name].read_bytes()
    one, other = (torch.load(run.checkpoints()[0], weights_only=True) for run in runs.values())
    for part in ("module", "optimizers", "generators", "program"):
        assert kill.equal(one[part], other[part]), part
    bare = [set(row) for row in files.read_jsonl(runs[False]["metrics"])]
    probed = [set(row) for row in files.read_jsonl(runs[True]["metrics"])]
    arms = [arm.name for arm in spec.arms]
    assert probed[0] - bare[0] == {"start"}
    assert probed[1] - bare[1] == {name for name in KEYS if name.startswith(tuple(arms))}
    assert "probes" not in runs[False].result().metrics


def test_judging_leaves_modes_statistics_gradients_and_generators_alone(shards, site):
    program = Pretraining(tiny.make_pretrain(shards), site, CPU.torch_device)
    program.probes = probes.of_run(program.spec, site, CPU)
    program.method.train()
    arms = dict(program.method.arms())
    program.loss(*program.inputs(0, 0)[0])["loss"].backward()
    next(module for module in arms["cnn"].modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    modes = [module.training for module in program.method.modules()]
    assert not all(modes)
    before = {name: value.clone() for name, value in program.method.state_dict().items()}
    gradients = [p.grad.clone() for p in program.method.parameters()]
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads, flags = torch.get_num_threads(), torch.backends.cudnn.benchmark
    filters = list(warnings.filters)
    program.judge(arms, "test")
    assert [module.training for module in program.method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in program.method.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(program.method.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numbers)
    assert (torch.get_num_threads(), torch.backends.cudnn.benchmark) == (threads, flags)
    assert warnings.filters == filters


def test_the_start_survives_a_stop_in_the_first_epoch_and_after_it(shards, site, done, tmp_path):
    run = tiny.announce(done.spec, dataclasses.replace(site, runs=str(tmp_path)))
    for look in (3, 12, 30):
        assert execute.execute_run(run, StopAt(look)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert kill.differences(run, done) == []


def test_a_checkpoint_of_code_without_probes_continues(shards, site, tmp_path):
    run = tiny.announce(tiny.make_pretrain(shards), dataclasses.replace(site, runs=str(tmp_path)))
    assert execute.execute_run(run, StopAt(4)) == execute.STOPPED
    for path in run.checkpoints():
        state = torch.load(path, weights_only=True)
        del state["counters"]["start"]
        path.unlink()
    checkpoint.save(run, state, 4)
    assert execute.execute_run(run) == 0
    found = run.result().metrics["probes"]
    assert found["start"] == {} and set(found["end"]) == KEYS
    assert "start" not in files.read_jsonl(run["metrics"])[0]


def test_features_are_the_input_of_the_head(shards, site):
    found = probes.of_run(tiny.make_pretrain(shards), site, CPU)
    arm = timm.create_model("test_vit.r160_in1k", num_classes=7, img_size=tiny.SIZE)
    features = probes.features(arm, found.train.samples, paper.AUGMENT, CPU)
    assert features.shape == (64, arm.num_features) and features.dtype == np.float32
    assert arm.training
