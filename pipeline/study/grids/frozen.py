"""The bar to clear: frozen features with k-NN and a linear classifier, next to nothing else. Nothing is trained.

    python -m pipeline.launch --grid frozen --datasets isic
    python -m pipeline.launch --grid frozen --datasets isic --weights vit_small_patch16_dinov3.lvd1689m,mine

Each network's features are computed once; then every label fraction takes seconds. Rows by start weights (random,
ImageNet, and those that `--weights` names) and classifier, a column for each label fraction. `frozen_entries` gives the
same rows to other grids, and those of pretrained arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.study import paper
from pipeline.study.frozen import frozen_entries
from pipeline.study.paper import Backbone, Preset
from pipeline.study.setting import FULL, DatasetInfo, Setting, TableEntry

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE


def entries(
    datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset, weights: Mapping[str, Backbone]
) -> list[TableEntry]:
    settings = [Setting(dataset, seed, preset, FULL) for dataset in datasets for seed in seeds]
    return [entry for setting in settings for entry in frozen_entries(setting, weights=weights.values())]
