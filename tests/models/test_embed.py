"""Features as Parquet: those of timm by hand, from runs, exports and files; complete or absent."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
import timm
import tiny
import torch
from commands import command
from safetensors.torch import load_file, save_file

from pipeline.data.shards.read import read_pixels
from pipeline.jobs import execute


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("embed"))


@pytest.fixture(scope="module")
def home(shards):
    return shards.folder.parent.parent


@pytest.fixture(scope="module")
def site(home):
    return tiny.make_cluster(home, checkpoint_minutes=60.0, probes=False)


@pytest.fixture(scope="module")
def run(shards, site):
    made = tiny.announce(tiny.make_pretrain(shards, epochs=1), site)
    assert execute.execute_run(made) == 0
    return made


def by_hand(shards, model, mean, std) -> np.ndarray:
    images = torch.from_numpy(read_pixels(shards, range(len(shards.rows["key"])))).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        return model.eval().forward_head(model.forward_features(images), pre_logits=True).numpy()


def features_of(path) -> np.ndarray:
    return np.stack(parquet.read_table(path)["features"].to_numpy())


def test_the_features_of_an_arm_and_of_its_export_are_those_of_timm(shards, home, run):
    done = command("embed", run.id, "tiny", "--out", "vit.parquet", "--arm", "transformer", cwd=home)
    assert done.returncode == 0 and "90 images of tiny, 64 features each" in done.stdout, done.stderr
    model = timm.create_model("test_vit.r160_in1k", num_classes=1000, img_size=tiny.SIZE)
    saved = load_file(run["weights"])
    model.load_state_dict({key.split("/")[1]: t for key, t in saved.items() if key.startswith("transformer/")})
    augment = run.spec.augment
    expected = by_hand(shards, model, augment.mean, augment.std)
    assert np.allclose(features_of(home / "vit.parquet"), expected, atol=1e-5)

    table = parquet.read_table(home / "vit.parquet")
    rows = range(len(table))
    assert table["key"].to_pylist() == [shards.rows["key"][row] for row in rows]
    assert table["split"].to_pylist() == [shards.rows["split"][row] for row in rows]
    labels = [None if names is None else list(names) for names in shards.labels(rows)]
    assert table["labels"].to_pylist() == labels and None in labels
    facts = json.loads(table.schema.metadata[b"embedding"])
    assert (facts["run"], facts["network"], facts["fingerprint"]) == (run.id, "transformer", shards.fingerprint)

    assert command("export", run.id, "--out", "vit", "--arm", "transformer", cwd=home).returncode == 0
    assert command("embed", "vit", str(shards.folder), "--out", "export.parquet", cwd=home).returncode == 0
    assert np.array_equal(features_of(home / "export.parquet"), features_of(home / "vit.parquet"))


def test_a_local_file_with_its_own_normalisation(shards, home):
    torch.manual_seed(1)
    model = timm.create_model("test_vit.r160_in1k", num_classes=5, img_size=tiny.SIZE)
    save_file(model.state_dict(), home / "mine.safetensors")
    arguments = ("tiny", "--out", "mine.parquet", "--backbone", "test_vit.r160_in1k")
    done = command("embed", "mine.safetensors", *arguments, cwd=home)
    assert done.returncode == 0, done.stderr
    config = model.pretrained_cfg
    expected = by_hand(shards, model, config["mean"], config["std"])
    assert np.allclose(features_of(home / "mine.parquet"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing", "tiny"), "there is no run 'nothing'"),
        (("cass", "tiny"), "choose one with --arm"),
        (("cass", "tina", "--arm", "cnn"), "there are no shards of tina of 32 pixels"),
        (("absent.safetensors", "tiny", "--backbone", "test_vit.r160_in1k"), "there is no file absent.safetensors"),
        (("broken.safetensors", "tiny", "--backbone", "test_vit.r160_in1k"), "does not hold the weights of"),
        (("other.safetensors", "tiny", "--backbone", "test_vit.r160_in1k"), "does not hold the weights of"),
        (("imagenet", "tiny", "--backbone", "test_vit.r160_in1k"), "python -m pipeline.prefetch"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_no_file(home, run, arguments, says):
    save_file({"a": torch.zeros(1)}, home / "other.safetensors")
    (home / "broken.safetensors").write_bytes(b"not a file of weights")
    done = command("embed", *arguments, "--out", "none.parquet", cwd=home)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (home / "none.parquet").exists()
