"""Tables 13, 14 and 17: ResNet-18, -50 and -200 with ViT-B/16, and the CNNs supervised.

    python -m pipeline.launch --grid cnn

30 pretraining runs, 75 fine-tunes; 10 are those of `main`. Printed: 0.8517 (ResNet-200) to 0.8680 (ResNet-50) on the
autoimmune set.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("cnn", "cnn_supervised")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("cnn", "cnn_supervised")
