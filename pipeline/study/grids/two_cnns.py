"""Table 19: CASS with a CNN in both arms, ResNet-50 and DenseNet-161.

    python -m pipeline.launch --grid two_cnns

10 pretraining runs, 20 fine-tunes; 5 are those of `main`. Printed: 0.9743 and 0.9837; 5 h 24 min (C.3.3).
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("two_cnns")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("two_cnns")
