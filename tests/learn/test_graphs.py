"""Passes that are replayed: the same bits as passes that are launched, stopped on the way or not.

On a CPU a replay runs the passes again on the memory of the graph's inputs; on a GPU it is a CUDA graph.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import kill
import pytest
import tiny
import torch
from stops import StopAt

from pipeline.jobs import execute
from pipeline.learn import graphs
from pipeline.runs.identity import run_id

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def taken(monkeypatch):
    """How many passes were launched, captured and replayed."""
    count = Counter()

    def counted(owner, name, what):
        plain = getattr(owner, name)

        def call(*args, **kwargs):
            count[what] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(graphs.Replayed, "launch", "launched")
    counted(graphs.Graph, "__init__", "captured")
    counted(graphs.Graph, "replay", "replayed")
    return count


KINDS = {
    "cass": lambda shards: tiny.make_pretrain(shards, epochs=2),
    "kept gradients": lambda shards: tiny.make_pretrain(shards, epochs=2, keep_gradients=True, average=None),
    "dino_fb": lambda shards: tiny.make_dino(shards, method="dino_fb", epochs=2),  # its last layer is frozen at first
    "fine-tune": lambda shards: tiny.make_finetune(shards, None, epochs=2),  # its last batch is smaller
}


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_change_no_bit_and_a_resumed_run_captures_its_own(kind, shards, tmp_path, device, taken):
    spec = KINDS[kind](shards)
    site = tiny.make_cluster(shards.folder.parent.parent, device=device, keep_state=True, checkpoint_minutes=10.0)
    plain = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "plain")))
    assert execute.execute_run(plain) == 0
    assert not taken
    replayed = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "graphs"), cuda_graphs=True))
    assert replayed.id == plain.id == run_id(spec)
    assert execute.execute_run(replayed, StopAt(6)) == execute.STOPPED
    before = taken.copy()
    assert before["captured"] == 1 and before["replayed"] >= 2
    assert execute.execute_run(replayed) == 0
    assert taken["captured"] > before["captured"] and taken["replayed"] > before["replayed"] + 2
    assert kill.differences(replayed, plain) == []


def test_a_stopped_run_continues_without_graphs_with_the_same_bits(shards, tmp_path):
    spec = tiny.make_pretrain(shards, epochs=2)
    site = tiny.make_cluster(shards.folder.parent.parent)
    plain = tiny.announce(spec, dataclasses.replace(site, runs=str(tmp_path / "plain")))
    assert execute.execute_run(plain) == 0
    graphed = dataclasses.replace(site, runs=str(tmp_path / "mixed"), cuda_graphs=True)
    run = tiny.announce(spec, graphed)
    assert execute.execute_run(run, StopAt(6)) == execute.STOPPED
    execute.files.write_json(run["job"], tiny.cluster.to_json(dataclasses.replace(graphed, cuda_graphs=False)))
    assert execute.execute_run(run) == 0
    assert kill.differences(run, plain) == []


def test_a_kind_is_captured_when_it_has_come_often_enough_in_a_row(taken):
    layer = torch.nn.Linear(3, 1)

    def passes(images):
        loss = layer(images).sum()
        loss.backward()
        return {"loss": loss.detach()}

    replayed = graphs.Replayed(passes, layer, CPU)

    def step(n, value=1.0):
        layer.zero_grad(set_to_none=True)
        loss = replayed(torch.full((n, 3), value))["loss"]
        assert loss.item() == pytest.approx(layer(torch.full((n, 3), value)).sum().item())
        assert layer.weight.grad is None or layer.weight.grad.tolist() == [[n * value] * 3]
        return dict(taken)

    for n in (4, 4, 2, 4, 4):
        found = step(n)
    assert found == {"launched": 5}  # another came between
    step(4)
    assert step(4, 2.0) == {"launched": 6, "captured": 1, "replayed": 1}
    assert step(4, 3.0)["replayed"] == 2
    assert step(2)["launched"] == 7  # the smaller last batch
    assert step(4)["replayed"] == 3  # the graph is still there
    layer.weight.requires_grad_(False)
    for _ in range(3):
        found = step(4)
    assert found == {"launched": 10, "captured": 1, "replayed": 3}
    assert step(4) == {"launched": 10, "captured": 2, "replayed": 4}
