"""The main experiment, with DINO by its authors' recipe added to vit-pytorch's, which the paper names (fidelity 3c).

    python -m pipeline.launch --grid dino_fb

40 pretraining runs and 100 fine-tunes more than `main`; the paper prints nothing for them. An image costs about four
times as much as with DINO: ten crops instead of four, and the student sees all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.runs.methods import method_info
from pipeline.study import experiments, paper, recipes
from pipeline.study.paper import Preset
from pipeline.study.setting import DatasetInfo, TableEntry, percent

DATASETS = paper.DATASETS
SEEDS = len(paper.SEEDS)
IMAGE_SIZE = paper.IMAGE_SIZE


def entries(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
    """The entries of `main`, and one more row for each backbone."""
    out = experiments.entries_of("main")(datasets, seeds, preset)
    technique = method_info("dino_fb").title
    for dataset in datasets:
        for seed in seeds:
            for backbone in paper.STANDARD:
                pretrain = recipes.dino(dataset.ref, backbone, recipes.FACEBOOK, preset=preset, seed=seed)
                for fraction in dataset.label_fractions:
                    spec = recipes.finetune(
                        dataset.ref, backbone, pretrain, preset=preset, seed=seed, label_fraction=fraction
                    )
                    out.append(TableEntry("main", (technique, backbone.title), percent(fraction), spec, ""))
    return out
