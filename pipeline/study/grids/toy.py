"""Every experiment of the paper at toy size: tiny backbones, 32 pixels, an epoch or two, generated images.

    for name in autoimmune dermofit brain_mri isic; do
        python -m pipeline.standin $name --out raw/$name
        python -m pipeline.shard $name --raw raw/$name --size 32
    done
    python -m pipeline.launch --grid toy

It checks that every table and figure can be made. Its scores mean nothing.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.study import experiments, paper
from pipeline.study.paper import CNN, TRANSFORMER, Backbone
from pipeline.study.setting import Scale

DATASETS = paper.DATASETS
SEEDS = 1
IMAGE_SIZE = 32

SCALE = Scale(
    image_size=IMAGE_SIZE,
    stand_ins={
        paper.RESNET18: Backbone("test_byobnet.r160_in1k", "tiny ByobNet", CNN),
        paper.RESNET50: Backbone("test_resnet.r160_in1k", "tiny ResNet", CNN),
        paper.RESNET200: Backbone("test_nfnet.r160_in1k", "tiny NFNet", CNN),
        paper.DENSENET161: Backbone("test_efficientnet.r160_in1k", "tiny EfficientNet", CNN),
        paper.VIT_B16: Backbone("test_vit.r160_in1k", "tiny ViT", TRANSFORMER),
        paper.VIT_L16: Backbone("test_vit3.r160_in1k", "tiny ViT 3", TRANSFORMER),
        paper.DEIT_B16: Backbone("test_vit2.r160_in1k", "tiny ViT 2", TRANSFORMER),
        paper.SWIN_B: Backbone("test_vit4.r160_in1k", "tiny ViT 4", TRANSFORMER),
    },
    weights="random",
    epochs=2,
    pretrain_optim=replace(paper.PRETRAIN_OPTIM, lr=1e-5, min_lr=1e-6),
    finetune_epochs=1,
    pictures=160,
    dino_options={"out_dim": 256},
)
entries = experiments.entries_of(*experiments.EXPERIMENTS, scale=SCALE)
