"""The main experiment on two CPU cores: tiny backbones with random weights, 64 pixels, a few epochs.

    python -m pipeline.launch --grid small --datasets brain_mri,isic --seeds 1 --jobs 2

About half an hour. A check that everything works on real pictures, no reproduction: scores are far below the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import paper
from pipeline.paper import CNN, TRANSFORMER, Backbone
from pipeline.spec import FinetuneSpec

DATASETS = ("brain_mri", "isic")
SEEDS = 2
IMAGE_SIZE = 64

BACKBONES = (
    Backbone("resnet10t.c3_in1k", "ResNet-10-T", CNN),
    Backbone("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT Ti/16", TRANSFORMER),
)
# From random weights both arms soon give every picture the same logits, CASS having neither a stop-gradient nor
# negatives; a low rate keeps these few epochs clear of that (docs/decisions/0004).
LR = 1e-6
FINETUNE_LR = paper.FINETUNE_OPTIM.lr


def grid(datasets: Sequence[paper.Card], seeds: Sequence[int], preset: paper.Preset) -> list[FinetuneSpec]:
    return shrunk(datasets, seeds, preset, BACKBONES, lr=LR, epochs=3, finetune_lr=FINETUNE_LR, finetune_epochs=5)


def shrunk(
    datasets: Sequence[paper.Card],
    seeds: Sequence[int],
    preset: paper.Preset,
    backbones: Sequence[Backbone],
    *,
    lr: float,
    epochs: int,
    finetune_lr: float,
    finetune_epochs: int,
) -> list[FinetuneSpec]:
    """CASS and supervised at this grid's size for every dataset, seed, backbone and label fraction."""
    optim = replace(paper.PRETRAIN_OPTIM, lr=lr, min_lr=lr / 10)
    finetune_optim = replace(paper.FINETUNE_OPTIM, lr=finetune_lr)
    out: list[FinetuneSpec] = []
    for card in datasets:
        for seed in seeds:
            cass = paper.cass(
                card.ref,
                preset=preset,
                seed=seed,
                backbones=backbones,
                weights="random",
                optim=optim,
                epochs=epochs,
                image_size=IMAGE_SIZE,
            )
            for backbone in backbones:
                for pretrain in (cass, None):
                    out += paper.finetunes(
                        card,
                        backbone,
                        pretrain=pretrain,
                        preset=preset,
                        seed=seed,
                        weights="random",
                        optim=finetune_optim,
                        epochs=finetune_epochs,
                        image_size=IMAGE_SIZE,
                    )
    return out
