"""Tables 8 and 16: CASS pretrained for 50, 100, 200 and 300 epochs.

    python -m pipeline.launch --grid epochs

40 pretraining runs, 80 fine-tunes; the 10 runs of 100 epochs are those of `main`. Printed: 0.8521 (50, CNN) to 0.9091
(300, Transformer) on the autoimmune set.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("epochs")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("epochs")
