"""The whole pipeline on generated images, in minutes: `make demo`, or

python -m pipeline.shard toy --size 64
python -m pipeline.launch --grid demo
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.study import experiments, paper
from pipeline.study.grids import small
from pipeline.study.paper import CNN, TRANSFORMER, Backbone, Preset
from pipeline.study.setting import DatasetInfo, TableEntry

DATASETS = ("toy",)
SEEDS = 2
IMAGE_SIZE = small.IMAGE_SIZE

SCALE = replace(
    small.SCALE,
    stand_ins={
        paper.RESNET50: Backbone("test_resnet.r160_in1k", "tiny ResNet", CNN),
        paper.VIT_B16: Backbone("test_vit3.r160_in1k", "tiny ViT", TRANSFORMER),
    },
    epochs=4,
    pretrain_optim=replace(paper.PRETRAIN_OPTIM, lr=2e-5, min_lr=2e-6),
    finetune_optim=replace(paper.FINETUNE_OPTIM, lr=1e-3),
    finetune_epochs=20,
    pictures=None,
    guard_epochs=12,
    guard_rates={CNN: 1e-3, TRANSFORMER: 1e-4},
)


def entries(
    datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset, weights: Mapping[str, Backbone]
) -> list[TableEntry]:
    """The entries of `small` at its own scale, without DINO, which would double the time."""
    main = experiments.entries_of("main", scale=SCALE)
    every = experiments.with_frozen(main, SCALE)(datasets, seeds, preset, weights)
    return [entry for entry in every if entry.row[0] != "DINO"]
