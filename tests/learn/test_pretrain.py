"""Pretraining: what it saves is what fine-tuning loads, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.core import files
from pipeline.data.datasets.toy import draw
from pipeline.data.layouts import UserDataset
from pipeline.jobs import execute, snapshot
from pipeline.learn.backbones import head_prefix
from pipeline.learn.finetune import Finetuning
from pipeline.learn.hardware import Hardware
from pipeline.learn.pretrain import Pretraining
from pipeline.runs.identity import run_id

CPU = Hardware(device="cpu", model="test", precision="float32", threads=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def site(shards):
    return tiny.make_cluster(shards.folder.parent.parent, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def done(shards, site):
    run = tiny.announce(tiny.make_pretrain(shards), site)
    assert execute.execute_run(run) == 0
    return run


def test_the_arms_that_fine_tuning_loads_are_bit_equal_to_what_was_saved_but_for_the_head(shards, site, done):
    saved = load_file(done["weights"])
    for arm, name in enumerate(("cnn", "transformer")):
        program = Finetuning(tiny.make_finetune(shards, done.spec, arm=arm), shards, site, CPU)
        head = head_prefix(program.model)
        loaded = program.model.state_dict()
        body = [key for key in loaded if not key.startswith(head)]
        assert len(body) > 10
        assert all(torch.equal(loaded[key], saved[f"{name}/{key}"]) for key in body)
        assert loaded[f"{head}weight"].shape[0] == 2
        assert saved[f"{name}/{head}weight"].shape[0] == 1000


@pytest.mark.parametrize("method", ["dino", "dino_fb"])
def test_fine_tuning_loads_a_run_of_dino_and_its_collapse_is_watched(shards, site, tmp_path, method):
    spec = tiny.make_dino(shards, method=method, arm=1, epochs=1)
    here = dataclasses.replace(site, runs=str(tmp_path / method))
    run = tiny.announce(spec, here)
    assert execute.execute_run(run) == 0
    saved = load_file(run["weights"])
    program = Finetuning(tiny.make_finetune(shards, spec, arm=1), shards, here, CPU)
    head = head_prefix(program.model)
    body = {key: value for key, value in program.model.state_dict().items() if not key.startswith(head)}
    assert {f"transformer/{key}" for key in body} == set(saved)
    assert all(torch.equal(value, saved[f"transformer/{key}"]) for key, value in body.items())
    assert not run["last_weights"].exists()
    row = files.read_jsonl(run["metrics"])[-1]
    assert {"transformer_spread", "transformer_rank", "teacher_entropy", "loss", "lr_0"} <= set(row)


def test_averaged_and_last_weights_differ_and_both_are_kept(done):
    averaged, last = load_file(done["weights"]), load_file(done["last_weights"])
    assert averaged.keys() == last.keys()
    assert any(not torch.equal(averaged[key], last[key]) for key in averaged)
    counted = [key for key in averaged if key.endswith("num_batches_tracked")]
    steps = averaged[counted[0]].item()
    assert steps == 9  # one pass over 74 training images in batches of 8


def test_a_finished_run_keeps_no_checkpoint_and_says_what_it_ran_on(done):
    result = done.result()
    assert done.checkpoints() == []
    assert result.threads == 1 and result.precision == "float32" and result.device
    assert result.notes["collapsed"] == [] and result.epochs == 4
    assert result.code == snapshot.code_version()


def test_every_training_image_is_seen_once_an_epoch_labelled_or_not(shards, site):
    program = Pretraining(tiny.make_pretrain(shards, batch_size=1), site, CPU.torch_device)
    for epoch in (0, 1):
        seen = np.concatenate(
            [program.pixels(epoch, step).numpy().reshape(1, -1).copy() for step in range(program.steps_per_epoch)]
        )
        assert len(seen) == len(shards.of_split("train"))
        assert len(np.unique(seen, axis=0)) == len(seen)
    assert any(labels is None for labels in shards.labels(shards.of_split("train")))


def test_collapse_is_flagged_when_it_is_forced(shards, site, tmp_path):
    spec = tiny.make_pretrain(shards, epochs=6)
    arms = tuple(dataclasses.replace(arm, optim=dataclasses.replace(arm.optim, lr=0.02)) for arm in spec.arms)
    run = tiny.announce(
        dataclasses.replace(spec, arms=arms), dataclasses.replace(site, runs=str(tmp_path / "collapsed"))
    )
    assert execute.execute_run(run) == 0
    assert "transformer" in run.result().notes["collapsed"]
    assert files.read_jsonl(run["metrics"])[-1]["transformer_spread"] < 0.1


def test_fewer_images_than_a_batch_is_an_error_that_says_what_to_do(shards, site):
    with pytest.raises(ValueError, match="fewer than a batch of 512; add images"):
        Pretraining(tiny.make_pretrain(shards, batch_size=512), site, CPU.torch_device)


def test_an_unknown_option_of_a_method_is_answered_with_the_known_ones(shards, site):
    spec = tiny.make_pretrain(shards)
    wrong = dataclasses.replace(spec, method=dataclasses.replace(spec.method, options={"heads": 3}))
    with pytest.raises(ValueError, match="no option 'heads'; known: head_dim"):
        Pretraining(wrong, site, CPU.torch_device)


def test_another_revision_of_the_code_refuses_the_run(shards, site, tmp_path):
    spec = tiny.make_pretrain(shards)
    old = dataclasses.replace(spec, method=dataclasses.replace(spec.method, revision=99))
    assert run_id(old) != run_id(spec)
    run = tiny.announce(old, dataclasses.replace(site, runs=str(tmp_path / "old")))
    assert execute.execute_run(run) == 1
    assert "revision 99 of cass" in run.reason()


def test_images_without_any_label_are_enough_to_pretrain_for_another_dataset(shards, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(24):
        Image.fromarray(draw("disc", np.random.default_rng(number))).save(raw / f"{number}.png")
    unlabelled = tiny.shard(UserDataset("plain", "folder"), raw, shards.folder.parent)
    assert unlabelled.manifest["counts"]["train"] == {"images": 24, "unlabelled": 24, "classes": {}}
    site = dataclasses.replace(tiny.make_cluster(tmp_path, checkpoint_minutes=60.0), shards=str(shards.folder.parent))
    pretrain = tiny.make_pretrain(unlabelled, epochs=1)
    finetune = tiny.make_finetune(shards, pretrain, epochs=1)
    assert execute.execute_run(tiny.announce(finetune, site)) == 1  # not before its parent is done
    for spec in (pretrain, finetune):
        run = tiny.announce(spec, site)
        assert execute.execute_run(run) == 0
    assert run.spec.dataset.name == "tiny" and run.spec.pretrain.dataset.name == "plain"
    assert "pretrained weights" in run.result().notes["inputs"]


def test_weights_that_the_last_step_of_an_epoch_made_nan_are_reported_as_a_loss_is(shards, site):
    program = Pretraining(tiny.make_pretrain(shards), site, CPU.torch_device)
    for parameter in dict(program.method.arms())["cnn"].parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(
        ValueError, match="cnn are not finite after the last step of epoch 3; lower the learning rate or"
    ):
        program.end_epoch(3)
