"""The bar to clear: frozen features with k-NN and a linear classifier, next to nothing else. Nothing is trained.

    python -m pipeline.launch --grid frozen --datasets isic

Each network's features are computed once; then every label fraction takes seconds. Rows by start weights (random,
ImageNet) and classifier, a column for each label fraction. `frozen_entries` gives the same rows to other grids, and
those of pretrained arms.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.study import paper
from pipeline.study.experiments import frozen_entries
from pipeline.study.paper import Preset
from pipeline.study.setting import FULL, DatasetInfo, Setting, TableEntry

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE


def entries(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
    return [e for d in datasets for seed in seeds for e in frozen_entries(Setting(d, seed, preset, FULL))]
