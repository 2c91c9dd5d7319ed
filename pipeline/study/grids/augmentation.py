"""Table 9: CASS with Gaussian blur and solarisation added to its augmentation.

    python -m pipeline.launch --grid augmentation

20 pretraining runs, 40 fine-tunes; 5 of them are those of `main`. Printed: 0.8146 (solarised) to 0.8894 (Transformer).
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("augmentation")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("augmentation")
