"""Specs with known ids, for tests of what a spec is and what names it."""

from __future__ import annotations

import dataclasses

from pipeline.runs.spec import (
    Arm,
    Augment,
    Average,
    DatasetRef,
    FinetuneSpec,
    Jitter,
    Loss,
    Method,
    Optim,
    PretrainSpec,
)

ADAM = Optim(name="adam", lr=1e-3, schedule="cosine", t_max=16, min_lr=1e-6, unit="step")
AUGMENT = Augment(
    first_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2),
    second_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
    perspective_p=0.5,
    perspective=0.2,
    degrees=10.0,
    vertical_flip=0.3,
    horizontal_flip=0.3,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    revision=1,
)
PRETRAIN = PretrainSpec(
    dataset=DatasetRef(name="isic", fingerprint="0123456789abcdef"),
    method=Method(name="cass", revision=1, options={"head_dim": 1000}),
    arms=(
        Arm(name="cnn", backbone="resnet50.a1_in1k", weights="imagenet", optim=ADAM),
        Arm(name="transformer", backbone="vit_tiny_patch16_224", weights="random", optim=ADAM),
    ),
    augment=AUGMENT,
    average=Average(start=0.75, revision=1),
    epochs=100,
    batch_size=16,
    image_size=384,
    seed=77,
)
FINETUNE = FinetuneSpec(
    dataset=DatasetRef(name="brain_mri", fingerprint="fedcba9876543210"),
    backbone="resnet50.a1_in1k",
    weights="imagenet",
    pretrain=PRETRAIN,
    arm="cnn",
    label_fraction=0.1,
    augment=AUGMENT,
    optim=dataclasses.replace(ADAM, lr=3e-4),
    loss=Loss(name="focal", alpha=1.0, gamma=2.0, class_weights="minmax", revision=1),
    epochs=50,
    patience=5,
    batch_size=16,
    image_size=384,
    seed=78,
)
SUPERVISED = dataclasses.replace(FINETUNE, pretrain=None)
NO_AVERAGE = dataclasses.replace(PRETRAIN, average=None)
ALL = (PRETRAIN, FINETUNE, SUPERVISED, NO_AVERAGE)
