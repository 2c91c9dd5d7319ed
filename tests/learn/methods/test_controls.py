"""The controls of CASS: no image meets itself, no weight moves, and both resume with the same bits."""

from __future__ import annotations

import dataclasses

import kill
import pytest
import tiny
import torch
from stops import StopAt
from torch import nn

from pipeline.jobs import execute
from pipeline.learn import backbones
from pipeline.learn.methods import METHODS, bn_only, cass, cass_shuffled
from pipeline.learn.pretrain import Pretraining
from pipeline.learn.samples import draws
from pipeline.runs.spec import DatasetRef, PretrainSpec
from pipeline.study import paper, recipes

PIXELS = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def spec(name: str) -> PretrainSpec:
    ref = DatasetRef(name="none", fingerprint="0" * 16)
    return recipes.controls(recipes.cass(ref, tiny.BACKBONES, preset=paper.preset("paper"), seed=77))[name]


def arms() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(8))
        for name in ("cnn", "transformer")
    }


@pytest.mark.parametrize("n", [2, 3, 16])
def test_a_derangement_keeps_all_and_leaves_none_in_its_place(n):
    for seed in range(50):
        order = cass_shuffled.derangement(n, draws("order", seed))
        assert sorted(order.tolist()) == list(range(n))
        assert (order != torch.arange(n)).all()
    several = {tuple(cass_shuffled.derangement(16, draws("order", seed)).tolist()) for seed in range(50)}
    assert len(several) == 50


def test_the_loss_is_that_of_cass_with_the_images_of_one_arm_in_another_order():
    shuffled, plain = (
        module.build(spec("cass_shuffled"), {name: arm.eval() for name, arm in arms().items()})
        for module in (cass_shuffled, cass)
    )
    r, t = (torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    order = cass_shuffled.derangement(6, draws("a"))
    found = shuffled.scalars(r, t, order)["loss"]
    assert found.item() == plain.scalars(r, t[order])["loss"].item()
    assert found.item() != plain.scalars(r, t)["loss"].item()
    same, other = (shuffled.loss(*shuffled.inputs(PIXELS, draws("step", step), 0.0))["loss"].item() for step in (3, 4))
    assert same == shuffled.loss(*shuffled.inputs(PIXELS, draws("step", 3), 0.0))["loss"].item() != other


def test_a_batch_of_one_has_no_other_image():
    with pytest.raises(ValueError, match="batches of 2 or more"):
        cass_shuffled.build(dataclasses.replace(spec("cass_shuffled"), batch_size=1), arms())


def test_batch_norm_alone_moves_no_weight_whatever_the_rate():
    method = bn_only.build(spec("bn_only"), arms()).train()
    method.loss(*method.inputs(PIXELS, draws("first"), 0.0))  # the lazy layers get their shape
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimizer = torch.optim.Adam(method.parameters(), lr=1.0)
    for step in range(3):
        optimizer.zero_grad()
        scalars = method.loss(*method.inputs(PIXELS, draws("step", step), 0.0))
        scalars["loss"].backward()
        optimizer.step()
        assert scalars["loss"].item() == 0.0 and scalars["agreement"].item() > 0
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("running" in name or "num_batches" in name for name in moved)


def test_an_optimizer_that_moves_weights_by_itself_is_refused():
    decaying = recipes.with_optim(spec("bn_only"), dataclasses.replace(paper.PRETRAIN_OPTIM, weight_decay=0.1))
    with pytest.raises(ValueError, match="without weight decay"):
        METHODS.find("bn_only").build(decaying, arms())


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("controls"))


@pytest.mark.parametrize("name", ["cass_shuffled", "bn_only"])
def test_a_stopped_run_continues_with_the_same_bits(shards, tmp_path, name):
    made = dataclasses.replace(recipes.controls(tiny.make_pretrain(shards))[name], epochs=2)
    site = tiny.make_cluster(shards.folder.parent.parent)
    calm, run = (tiny.announce(made, dataclasses.replace(site, runs=str(tmp_path / where))) for where in "ab")
    assert execute.execute_run(calm) == 0
    for look in (4, 8):
        assert execute.execute_run(run, StopAt(look)) == execute.STOPPED
    assert execute.execute_run(run) == 0
    assert kill.differences(run, calm) == []


def test_a_run_of_batch_norm_alone_publishes_its_start_weights_with_other_statistics(shards, tmp_path):
    made = recipes.controls(tiny.make_pretrain(shards))["bn_only"]
    site = tiny.make_cluster(shards.folder.parent.parent, runs=str(tmp_path))
    run = tiny.announce(made, site)
    assert execute.execute_run(run) == 0
    start = Pretraining(made, site, torch.device("cpu")).method.arms()
    for arm, moves in (("cnn", True), ("transformer", False)):
        before, after = start[arm].state_dict(), backbones.load_arm(run["weights"], arm)
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert bool(moved) == moves and all("running" in name or "num_batches" in name for name in moved)
