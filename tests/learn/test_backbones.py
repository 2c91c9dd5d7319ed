"""Backbones: the paper's parameter counts, and what timm's tags stand for."""

import pytest
import torch

from pipeline.learn import backbones
from pipeline.study import paper

PRINTED = {
    paper.RESNET18: 11.69,
    paper.RESNET50: 25.56,
    paper.VIT_B16: 86.86,
    paper.DEIT_B16: 86.86,
    paper.VIT_L16: 304.72,
}


@pytest.mark.parametrize("backbone", paper.BACKBONES, ids=lambda b: b.title)
def test_parameters_are_those_the_paper_printed_or_that_were_counted(backbone, tmp_path):
    with torch.device("meta"):  # nothing is allocated
        model = backbones.build(backbone.tag, outputs=1000, image_size=384, weights="random", folder=tmp_path)
    count = sum(parameter.numel() for parameter in model.parameters())
    if backbone in PRINTED:  # Tables 13, 17 and 18, in millions
        assert round(count / 1e6, 2) == PRINTED[backbone]
    assert count == pytest.approx(backbone.parameters, rel=2e-4)


def test_the_64_69_million_of_table_13_are_another_resnet_200s(tmp_path):
    """Decision: plain resnet200, which has no ImageNet weights, as the text says (docs/reproducing.md)."""
    with torch.device("meta"):
        printed = backbones.build(
            "resnet200d.ra2_in1k", outputs=1000, image_size=384, weights="random", folder=tmp_path
        )
    assert round(sum(p.numel() for p in printed.parameters()) / 1e6, 2) == 64.69
    assert round(paper.RESNET200.parameters / 1e6, 2) == 64.67
