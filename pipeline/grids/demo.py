"""The whole way on generated pictures, in minutes: `make demo`, or

python -m pipeline.shard toy --size 64
python -m pipeline.launch --grid demo
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import paper
from pipeline.grids import small
from pipeline.spec import FinetuneSpec

DATASETS = ("toy",)
SEEDS = 2
IMAGE_SIZE = small.IMAGE_SIZE


def grid(datasets: Sequence[paper.Card], seeds: Sequence[int], preset: paper.Preset) -> list[FinetuneSpec]:
    return small.shrunk(datasets, seeds, preset, lr=1e-5, pretrain_epochs=4, finetune_epochs=12)
