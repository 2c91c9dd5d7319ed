"""Table 21: CASS from random and from ImageNet weights.

    python -m pipeline.launch --grid initialisation

10 pretraining runs, 20 fine-tunes; 5 are those of `main`. Printed: 0.9907 and 0.9316 from random weights.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("initialisation")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("initialisation")
