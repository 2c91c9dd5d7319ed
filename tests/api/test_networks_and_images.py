"""Trained networks and shards from Python: the scores that runs stored, and the pixels and labels that were sharded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from pipeline import api
from pipeline.api.samples import choose
from pipeline.data.layouts import UserDataset
from pipeline.data.shards.read import read_pixels
from pipeline.jobs import execute
from pipeline.runs.predictions import read_predictions


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("interface"))


@pytest.fixture(scope="module")
def run(shards):
    home = shards.folder.parent.parent
    run = tiny.announce(tiny.make_finetune(shards, None, arm=0, epochs=1), tiny.make_cluster(home))
    assert execute.execute_run(run) == 0
    return run


@pytest.fixture
def home(shards, monkeypatch):
    monkeypatch.chdir(shards.folder.parent.parent)
    return shards.folder.parent.parent


def test_a_network_gives_the_scores_that_its_run_stored(run, shards, home):
    network = api.open_network(run.id)
    assert (network.run, network.task, network.image_size) == (run.id, "multi-class", 32)
    assert network.classes == shards.classes and network.backbone == "test_resnet.r160_in1k"
    stored = read_predictions(run["predictions"])
    keys = shards.rows["key"].array.to_pylist()
    pixels = read_pixels(shards, [keys.index(key) for key in stored.keys])
    assert np.abs(network.predict(pixels) - stored.scores).max() < 1e-5
    assert np.allclose(api.predict(run.id, list(pixels[:2])), stored.scores[:2], atol=1e-5)
    probabilities = network.predict(pixels[:3], calibrated=True)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    images = torch.stack([network.transform(each) for each in pixels[:2]])
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32
    with torch.no_grad():
        assert np.allclose(network.model(images).sigmoid().numpy(), stored.scores[:2], atol=1e-5)


def test_images_of_any_size_and_kind_are_prepared_alike(run, home, tmp_path):
    network = api.open_network(run.id)
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 256, (33, 20), np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    same = [network.transform(each) for each in (colour, Image.fromarray(colour), tmp_path / "colour.png")]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert torch.equal(network.transform(grey), network.transform(np.repeat(grey[:, :, None], 3, axis=2)))
    assert network.predict([colour, grey]).shape == (2, 2)
    assert network.predict([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an image is float32 \[4, 4, 3\]; give uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"an image is uint8 \[4, 4, 4\]; give uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"an image is empty, \[0, 4, 3\]; leave it out"),
        ("nothing.png", "there is no file nothing.png"),
    ],
)
def test_what_is_no_image_is_an_error_that_says_what_to_give(run, home, image, message):
    with pytest.raises(ValueError, match=message):
        api.open_network(run.id).predict([image])


def test_a_broken_file_is_an_error_that_names_it(run, home, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(ValueError, match="broken.png "):
        api.predict(run.id, [tmp_path / "broken.png"])


def test_a_torch_dataset_has_the_pixels_and_classes_of_the_shards(shards, home):
    found = api.torch_dataset("tiny", "train")
    rows = [row for row in shards.of_split("train") if shards.rows["labels"][row] is not None]
    assert len(found) == len(rows) and found.classes == shards.classes
    assert found.keys == [shards.rows["key"][row] for row in rows]
    image, target = found[3]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32)
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), read_pixels(shards, [rows[3]])[0])
    assert [shards.classes[target]] == shards.rows["labels"][rows[3]]
    raw, _ = api.torch_dataset(shards.folder, "train", transform=lambda pixels: pixels)[3]
    assert raw.dtype == torch.uint8
    everything = api.torch_dataset("tiny", "train", unlabelled=True)
    assert len(everything) == len(shards.of_split("train"))
    targets = choose("tiny", "train", None, True, "local").targets
    assert (targets == -1).sum() == len(everything) - len(found) > 0
    loader = torch.utils.data.DataLoader(found, batch_size=8)
    batch, numbers = next(iter(loader))
    assert batch.shape == (8, 3, 32, 32) and numbers.dtype == torch.int64


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_a_webdataset_has_the_same_pairs(shards, home):
    pytest.importorskip("webdataset")
    torch_pairs = api.torch_dataset("tiny", "test")
    pairs = list(api.web_dataset("tiny", "test"))
    assert len(pairs) == len(torch_pairs) > 0
    for (image, target), (other, number) in zip(pairs, (torch_pairs[i] for i in range(len(pairs))), strict=True):
        assert torch.equal(image, other) and target == number
    shuffled = list(api.web_dataset("tiny", "test", shuffle=100))
    assert sorted(target for _, target in shuffled) == sorted(target for _, target in pairs)


def test_images_of_several_classes_have_a_target_for_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(1)
    rows = ["image,red,blue"]
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(raw / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{int(number % 3 == 0)}")
    (raw / "labels.csv").write_text("\n".join(rows))
    shards = tiny.shard(UserDataset("marks", "csv"), raw, tmp_path / "shards")
    found = api.torch_dataset("marks")
    assert found.classes == shards.classes
    assert len(found) == len(shards.of_split("train")) > 10
    row = shards.of_split("train")[0]
    wanted = [float(name in shards.labels([row])[0]) for name in shards.classes]
    target = found[0][1]
    assert target.dtype == torch.float32 and target.tolist() == wanted


def test_images_are_sharded_from_python_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tiny.make_shards(tmp_path / "drawn", each=12, unlabelled=0)
    raw = tmp_path / "drawn" / "raw"
    folder = api.shard_images("mine", raw, size=24, workers=1)
    assert folder.parent == tmp_path / "shards" and folder.name.startswith("mine-24-image-")
    assert len(api.torch_dataset("mine", "test")) > 0 and made.size != 24
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert api.shard_images("mine", raw, size=24, workers=1) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="there is no option 'label'; known: path_column, "):
        api.shard_images("mine", raw, size=24, label="x")
    with pytest.raises(ValueError, match="split is 'all'; known: train, val, test"):
        api.torch_dataset("mine", "all")
    with pytest.raises(ValueError, match="there are no shards of nothing"):
        api.torch_dataset("nothing")


def test_an_arm_of_a_pretraining_run_gives_features_and_no_scores(shards, home):
    spec = dataclasses.replace(tiny.make_pretrain(shards), epochs=1)
    run = tiny.announce(spec, tiny.make_cluster(home, probes=False))
    assert execute.execute_run(run) == 0
    network = api.open_network(run.folder, arm="cnn")
    assert (network.task, network.classes) == ("features", ())
    with torch.no_grad():
        assert network.model(network.transform(np.zeros((9, 9), np.uint8))[None]).ndim == 2
    with pytest.raises(ValueError, match="is a pretraining run, which knows no classes; open one of its fine-tunes"):
        network.predict([np.zeros((9, 9), np.uint8)])
