"""Table 20: CASS with a Transformer in both arms, Swin-B and ViT-B/16.

    python -m pipeline.launch --grid two_transformers

10 pretraining runs, 20 fine-tunes; 5 are those of `main`. Printed: 0.9883 and 0.94; 10 hours (C.3.4).
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("two_transformers")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("two_transformers")
