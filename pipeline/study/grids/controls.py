"""Is CASS's gain agreement? CASS next to its controls and to supervised training, at the scale of `small`.

    python -m pipeline.launch --grid controls --datasets brain_mri --seeds 3

`cass_shuffled` pulls each image in one arm to another image in the other; `bn_only` only refreshes the batch-norm
statistics. If CASS does not beat both, its gain is not agreement: a row of the report's claims says which it is. At the
paper's size it is a grid file of your own with `entries_of("main", scale=replace(FULL, controls=True))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.study import experiments
from pipeline.study.grids import small
from pipeline.study.paper import Preset
from pipeline.study.setting import DatasetInfo, TableEntry

DATASETS = small.DATASETS
SEEDS = 3
IMAGE_SIZE = small.IMAGE_SIZE

SCALE = replace(small.SCALE, guard_epochs=None, controls=True)


def entries(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
    """The entries of `main` without DINO, which is no control of CASS."""
    every = experiments.entries_of("main", scale=SCALE)(datasets, seeds, preset)
    return [entry for entry in every if entry.row[0] != "DINO"]
