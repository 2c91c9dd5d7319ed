"""Focal loss and class weights against torchvision and arithmetic by hand."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from pipeline.learn.losses import class_weights, focal_loss


def test_focal_loss_is_torchvisions_without_class_balance():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    ours = focal_loss(logits, targets, torch.ones(4), alpha=1.0, gamma=2.0)
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2.0, reduction="mean")  # alpha < 0: none
    torch.testing.assert_close(ours, theirs)


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    # p = 1/2 on the true side of the first class, 1/4 on that of the second; weights 1 and 0.5
    expected = (0.25 * math.log(2) + 0.5 * (0.75**2) * math.log(4)) / 2
    assert focal_loss(logits, targets, torch.tensor([1.0, 0.5]), alpha=1.0, gamma=2.0).item() == pytest.approx(expected)


def test_the_papers_weights_favour_the_commonest_class():
    # the notebook's list for brain MRI (fidelity 3b, 26) from the Kaggle counts
    found = class_weights([1321, 1339, 1595, 1457], "minmax").tolist()
    assert found[0] == pytest.approx(0.2)
    assert found[2] == pytest.approx(1.0)
    assert found == sorted(found) or found[3] < found[2]


def test_inverse_weights_favour_the_rarest_and_average_one():
    found = class_weights([10, 20, 40], "inverse")
    assert found.tolist() == pytest.approx([4 / 7 * 3, 2 / 7 * 3, 1 / 7 * 3])


def test_equal_classes_weigh_the_same_in_every_kind():
    for kind in ("minmax", "inverse", "none"):
        assert class_weights([5, 5, 5], kind).tolist() == pytest.approx([1, 1, 1])
