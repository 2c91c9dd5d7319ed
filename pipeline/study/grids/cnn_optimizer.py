"""Table 10: CASS with its CNN trained by SGD.

    python -m pipeline.launch --grid cnn_optimizer

10 pretraining runs, 20 fine-tunes; 5 of them are those of `main`. Printed: the Transformer falls from 0.8894 to 0.8236.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("cnn_optimizer")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("cnn_optimizer")
