"""The main experiment, with a row of CASS with a guard next to the paper's.

    python -m pipeline.launch --grid cass_vc

20 pretraining runs and 100 fine-tunes more than `main`; the paper prints nothing for them. An image costs what it costs
with CASS.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.study import experiments, paper
from pipeline.study.setting import FULL

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE

entries = experiments.entries_of("main", scale=replace(FULL, guard_epochs=paper.PRETRAIN_EPOCHS))
