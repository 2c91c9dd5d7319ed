"""The backward pass in Python gives the gradients of autograd's engine and frees what they needed."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from tiny import BACKBONES, SIZE

from pipeline.learn import backbones
from pipeline.rehearsal.seen import Seen
from pipeline.rehearsal.walk import Backward


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.title)
def test_the_gradients_are_those_of_the_engine(backbone):
    torch.manual_seed(1)
    network = backbones.build(backbone.tag, outputs=5, image_size=SIZE, weights="random", folder=Path())
    images = torch.rand(3, 3, SIZE, SIZE)
    backward = Backward(Seen())

    def gradients(walk):
        network.zero_grad()
        network.train()
        loss = network(images).square().sum()
        (backward if walk else torch.autograd.backward)(loss)
        return [p.grad for p in network.parameters()]

    expected = gradients(walk=False)
    with backward.recording():
        found = gradients(walk=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_second_backward_pass_adds_to_the_gradients():
    weight = torch.ones(3, requires_grad=True)
    backward = Backward(Seen())
    for _ in range(2):
        with backward.recording():
            loss = (weight * torch.arange(3.0)).sum()
        backward(loss)
    assert weight.grad.tolist() == [0, 2, 4]


def test_what_was_saved_is_freed_on_the_way_and_a_second_pass_is_refused():
    weight = torch.ones(3, requires_grad=True)
    backward = Backward(Seen())
    with backward.recording():
        exponent = weight.exp()
        loss = exponent.square().sum()
    gone = weakref.ref(exponent.untyped_storage())
    del exponent
    backward(loss)
    gc.collect()
    assert gone() is None
    with pytest.raises(RuntimeError, match="second backward pass"):
        backward(loss)


def test_a_change_in_place_of_what_gradients_need_is_refused():
    weight = torch.ones(3, requires_grad=True)
    backward = Backward(Seen())
    with backward.recording():
        exponent = weight.exp()
        loss = exponent.square().sum()
        with torch.no_grad():
            exponent.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        backward(loss)
