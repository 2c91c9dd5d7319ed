"""Tables 7 and 15: CASS pretrained with batches of 8, 16 and 32.

    python -m pipeline.launch --grid batch_size

30 pretraining runs, 60 fine-tunes; the 10 runs of batch 16 are those of `main`. Printed: 0.8828 to 0.8894 (autoimmune),
0.9176 to 0.9909 (brain MRI).
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("batch_size")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("batch_size")
