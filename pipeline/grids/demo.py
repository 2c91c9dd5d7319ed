"""The whole way on generated pictures, in minutes: `make demo`, or

python -m pipeline.shard toy --size 64
python -m pipeline.launch --grid demo
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import paper
from pipeline.grids import small
from pipeline.paper import CNN, TRANSFORMER, Backbone
from pipeline.spec import FinetuneSpec

DATASETS = ("toy",)
SEEDS = 2
IMAGE_SIZE = small.IMAGE_SIZE

BACKBONES = (
    Backbone("test_resnet.r160_in1k", "tiny ResNet", CNN),
    Backbone("test_vit3.r160_in1k", "tiny ViT", TRANSFORMER),
)


def grid(datasets: Sequence[paper.Card], seeds: Sequence[int], preset: paper.Preset) -> list[FinetuneSpec]:
    return small.shrunk(datasets, seeds, preset, BACKBONES, lr=2e-5, epochs=4, finetune_lr=1e-3, finetune_epochs=20)
