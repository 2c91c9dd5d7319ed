"""The main experiment with DINO by its authors' recipe beside vit-pytorch's, which the paper names (fidelity 3c).

    python -m pipeline.launch --grid dino_fb

40 pretraining runs and 100 fine-tunes more than `main`; nothing is printed for them. An image costs about four times
DINO's: ten crops instead of four, of which the student sees all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.study import experiments, paper
from pipeline.study.experiments import FULL, TECHNIQUES, Place, Setting, percent

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE


def places(cards: Sequence[paper.Card], seeds: Sequence[int], preset: paper.Preset) -> list[Place]:
    """Those of `main`, and a row more for each backbone."""
    out = experiments.places("main")(cards, seeds, preset)
    for card in cards:
        for seed in seeds:
            setting = Setting(card, seed, preset, FULL)
            for backbone in paper.STANDARD:
                pretrain = paper.dino_fb(card.ref, preset=preset, seed=seed, backbone=backbone)
                for fraction in card.label_fractions:
                    spec = setting.finetune(backbone, pretrain, label_fraction=fraction)
                    out.append(Place("main", (TECHNIQUES["dino_fb"], backbone.title), percent(fraction), spec, ""))
    return out
