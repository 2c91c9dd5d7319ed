"""Tables 1 to 6: CASS, DINO and supervised, ResNet-50 and ViT-B/16, every dataset and label fraction, five seeds.

    python -m pipeline.launch --grid main

60 pretraining runs (20 CASS, 40 DINO: one a backbone) and 300 fine-tunes; by Table 2 some 900
GPU-hours of pretraining on an RTX8000 in float32, or 1,600 if its DINO hours are those of one backbone.
CASS reaches 0.9909 (brain MRI, ResNet-50) and 0.5819 (ISIC, ViT-B/16).
"""

from __future__ import annotations

from pipeline.study import experiments, paper

DATASETS = experiments.datasets("main")
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE
entries = experiments.entries("main")
