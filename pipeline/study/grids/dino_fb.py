"""The main experiment with DINO by its authors' recipe beside vit-pytorch's, which the paper names (fidelity 3c).

    python -m pipeline.launch --grid dino_fb

40 pretraining runs and 100 fine-tunes more than `main`; nothing is printed for them. An image costs about four times
DINO's: ten crops instead of four, of which the student sees all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.study import experiments, paper
from pipeline.study.experiments import FULL, TECHNIQUES, Setting, TableEntry, percent

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE


def entries(cards: Sequence[paper.DatasetInfo], seeds: Sequence[int], preset: paper.Preset) -> list[TableEntry]:
    """Those of `main`, and a row more for each backbone."""
    out = experiments.entries("main")(cards, seeds, preset)
    for card in cards:
        for seed in seeds:
            setting = Setting(card, seed, preset, FULL)
            for backbone in paper.STANDARD:
                pretrain = paper.dino_fb(card.ref, preset=preset, seed=seed, backbone=backbone)
                for fraction in card.label_fractions:
                    spec = setting.finetune(backbone, pretrain, label_fraction=fraction)
                    out.append(TableEntry("main", (TECHNIQUES["dino_fb"], backbone.title), percent(fraction), spec, ""))
    return out
