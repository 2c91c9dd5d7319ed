"""Tables 1 to 21: all experiments of the paper; what several of them want is trained once.

python -m pipeline.launch --grid paper


"""

from __future__ import annotations

from pipeline import experiments, paper

DATASETS = experiments.datasets(*experiments.EXPERIMENTS)
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
places = experiments.places(*experiments.EXPERIMENTS)
