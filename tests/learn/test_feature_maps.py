"""Feature maps: the first convolutions in the order they run, as torchvision's extractor sees them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from pipeline.learn.feature_maps import feature_maps


def test_the_first_five_convolutions_of_a_resnet_are_those_torchvision_extracts():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet.r160_in1k", num_classes=2)
    images = torch.randn(2, 3, 32, 32)
    found = feature_maps(model, images, count=5)
    names = [name for name, _ in found]
    assert len(names) == 5 and names[0].startswith("conv1")
    with torch.no_grad():
        extracted = create_feature_extractor(model.eval(), return_nodes=names)(images)
    for name, maps in found:
        torch.testing.assert_close(maps, extracted[name])


def test_the_order_is_that_of_execution_and_later_steps_in_place_leave_the_maps_alone():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(2, 1, 1)
            self.first = nn.Conv2d(3, 2, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.relu(self.last(self.relu(self.first(images))))

    torch.manual_seed(0)
    model, images = Backwards(), torch.randn(1, 3, 4, 4)
    found = feature_maps(model, images, count=5)
    assert [name for name, _ in found] == ["first", "last"]
    assert model.training
    with torch.no_grad():
        torch.testing.assert_close(found[0][1], model.first(images))
    assert found[0][1].min() < 0
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_without_convolutions_says_so():
    with pytest.raises(ValueError, match="Flatten has no convolution"):
        feature_maps(nn.Flatten(), torch.zeros(1, 3, 2, 2), count=5)
