"""Tables 1 to 21: all experiments of the paper. A run that several of them want is trained once.

    python -m pipeline.launch --grid paper

180 pretraining runs, 555 fine-tunes; 30 of the pretraining runs are published by longer ones.
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets_of(*experiments.EXPERIMENTS)
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries_of(*experiments.EXPERIMENTS)
