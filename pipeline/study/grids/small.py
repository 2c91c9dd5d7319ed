"""The main experiment on two CPU cores: tiny backbones with random weights, 64 pixels, a few epochs.

    python -m pipeline.launch --grid small --datasets brain_mri,isic --seeds 1 --jobs 2

Two seeds took 107 minutes on a machine with much other work (docs/benchmarks.md). It checks that everything works on
real images. It reproduces nothing: scores are far below the paper's.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.study import experiments, paper
from pipeline.study.paper import CNN, TRANSFORMER, Backbone
from pipeline.study.setting import Scale

DATASETS = ("brain_mri", "isic")
SEEDS = 2
IMAGE_SIZE = 64

SCALE = Scale(
    image_size=IMAGE_SIZE,
    stand_ins={
        paper.RESNET50: Backbone("resnet10t.c3_in1k", "ResNet-10-T", CNN),
        paper.VIT_B16: Backbone("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT Ti/16", TRANSFORMER),
    },
    weights="random",
    epochs=3,
    # From random weights both arms soon give every image the same logits, since CASS has neither a stop-gradient nor
    # negatives. With a low learning rate these few epochs do not get that far (docs/decisions/0004).
    pretrain_optim=replace(paper.PRETRAIN_OPTIM, lr=1e-6, min_lr=1e-7),
    finetune_epochs=5,
    pictures=800,
    dino_options={"out_dim": 4096},
    guard_epochs=3,
)
entries = experiments.with_frozen(experiments.entries_of("main", scale=SCALE), SCALE)
