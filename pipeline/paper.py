"""Every number of the paper that a run needs, on one page, each with its source.

`# E.2.3` is the paper's section, `# notebook` its reference notebook, `# ASSUMED` a choice where both are silent
(why: docs/reproducing.md). Nothing below this floor holds a scientific constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.spec import (
    REVISIONS,
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

IMAGE_SIZE = 384  # E.2.2
SEEDS = (77, 78, 79, 80, 81)  # 77: notebook; five: E.2.1; the other four ASSUMED
DATASETS = ("autoimmune", "dermofit", "brain_mri", "isic")  # Table 1, in its order
HEAD_DIM = 1000  # notebook: the ImageNet heads stay on

CNN, TRANSFORMER = "cnn", "transformer"


@dataclass(frozen=True)
class Backbone:
    """A backbone's tag in timm, its name in the tables and its role; its size where it is known."""

    tag: str
    title: str
    role: str
    parameters: int | None = None
    gflops: float | None = None
    """Of one training picture at 384 pixels, forward and backward."""


# parameters: Tables 17 and 18; gflops: counted, not the paper's
RESNET50 = Backbone("resnet50.a1_in1k", "ResNet-50", CNN, 25_560_000, 71.4)  # Table 18: 80.374 % on ImageNet
VIT_B16 = Backbone(
    "vit_base_patch16_384.augreg_in21k_ft_in1k", "ViT B/16", TRANSFORMER, 86_860_000, 332.2
)  # Table 18: 86.006 %
BACKBONES = (RESNET50, VIT_B16)  # E.2.1, of every table but 17 to 20

# Table 2: hours of self-supervised training on one RTX8000. Whether DINO's are those of one backbone or of both is
# not said.
TABLE_2_EPOCHS = 100
TABLE_2_HOURS: Mapping[str, Mapping[str, float]] = {
    "dino": {"autoimmune": 1 + 13 / 60, "dermofit": 3 + 9 / 60, "brain_mri": 26 + 21 / 60, "isic": 109 + 21 / 60},
    "cass": {"autoimmune": 21 / 60, "dermofit": 1 + 11 / 60, "brain_mri": 7 + 11 / 60, "isic": 29 + 58 / 60},
}
# Training and validation pictures: of 198, 1,300, 5,712 and 25,331 (E.1.1), split as docs/reproducing.md says.
PICTURES: Mapping[str, tuple[int, int]] = {
    "autoimmune": (158, 20),
    "dermofit": (1_040, 130),
    "brain_mri": (5_141, 571),
    "isic": (20_265, 2_533),
}

PRETRAIN_EPOCHS = 100  # E.2.3
PRETRAIN_BATCH = 16  # E.2.3
PRETRAIN_OPTIM = Optim(
    name="adam",  # E.2.3
    lr=1e-3,  # E.2.3
    schedule="cosine",  # E.2.3
    t_max=16,  # E.2.3: "16 iterations"
    min_lr=1e-6,  # E.2.3
    unit="step",  # notebook: the schedule steps with every batch
)
AVERAGE = Average(start=0.75)  # E.2.3 names averaging; its start and frequency ASSUMED

FINETUNE_EPOCHS = 50  # E.3.2
FINETUNE_PATIENCE = 5  # E.3.2
FINETUNE_BATCH = 16  # ASSUMED: E.2.3's batch
FINETUNE_OPTIM = replace(PRETRAIN_OPTIM, lr=3e-4)  # E.3.2; period and minimum: notebook
FOCAL = Loss(name="focal", alpha=1.0, gamma=2.0, class_weights="minmax")  # E.3.2

AUGMENT = Augment(
    first_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2),  # p: E.2.2; strengths: notebook
    second_jitter=Jitter(p=0.3, brightness=0.2, contrast=0.2, saturation=0.2),  # p: E.2.2; strengths: notebook
    perspective_p=0.5,  # notebook
    perspective=0.2,  # E.2.2
    degrees=10.0,  # E.2.2
    vertical_flip=0.3,  # E.2.2
    horizontal_flip=0.3,  # E.2.2
    mean=(0.485, 0.456, 0.406),  # E.2.2
    std=(0.229, 0.224, 0.225),  # E.2.2
)


@dataclass(frozen=True)
class Preset:
    """A reading of the paper: its text, its notebook with its defects, or what one would do today."""

    name: str
    split: str
    loss: Loss
    average: Average | None
    keep_gradients: bool
    stopping: str
    metrics: Mapping[str, str]
    """Metrics of the tables that differ from the datasets' own; `*` stands for every dataset."""


PRESETS = {
    "paper": Preset("paper", "image", FOCAL, AVERAGE, False, "best", {}),
    # fidelity 3a, 1 and 3: gradients add up for ever, averaging is never called; 3b, 28 and 40
    "notebook": Preset("notebook", "image", FOCAL, None, True, "previous", {"isic": "recall_micro"}),
    "sound": Preset(
        "sound", "grouped", replace(FOCAL, class_weights="inverse"), AVERAGE, False, "best", {"*": "f1_macro"}
    ),
}


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Card:
    """A dataset as a grid sees it; the fingerprint is empty while its shards are missing."""

    ref: DatasetRef
    label_fractions: tuple[float, ...]
    metric: str


def cass(
    dataset: DatasetRef,
    *,
    preset: Preset,
    seed: int,
    backbones: Sequence[Backbone] = (RESNET50, VIT_B16),
    weights: str = "imagenet",
    optim: Optim = PRETRAIN_OPTIM,
    epochs: int = PRETRAIN_EPOCHS,
    batch_size: int = PRETRAIN_BATCH,
    image_size: int = IMAGE_SIZE,
) -> PretrainSpec:
    """CASS as in Appendix E."""
    return PretrainSpec(
        dataset=dataset,
        method=Method(name="cass", revision=REVISIONS["cass"], options={"head_dim": HEAD_DIM}),
        arms=tuple(Arm(name=b.role, backbone=b.tag, weights=weights, optim=optim) for b in backbones),
        augment=AUGMENT,
        average=preset.average,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        precision="float32" if preset.keep_gradients else "auto",  # a float16 scaler cannot go with kept gradients
        keep_gradients=preset.keep_gradients,
    )


def dino(dataset: DatasetRef, *, preset: Preset, seed: int, backbone: Backbone) -> PretrainSpec:
    """DINO as in Appendix E.4, one backbone a run (fidelity 3c); planned, its method is not built yet."""
    return PretrainSpec(
        dataset=dataset,
        method=Method(name="dino", revision=REVISIONS["dino"]),
        arms=(Arm(name=backbone.role, backbone=backbone.tag, weights="imagenet", optim=DINO_OPTIM),),
        augment=AUGMENT,
        average=None,
        epochs=PRETRAIN_EPOCHS,
        batch_size=PRETRAIN_BATCH,
        image_size=IMAGE_SIZE,
        seed=seed,
    )


DINO_OPTIM = Optim(name="adam", lr=3e-4, schedule="constant")  # vit-pytorch's README, the implementation of E.2.1


def finetune(
    dataset: DatasetRef,
    backbone: Backbone,
    *,
    pretrain: PretrainSpec | None,
    label_fraction: float,
    preset: Preset,
    seed: int,
    weights: str = "imagenet",
    optim: Optim = FINETUNE_OPTIM,
    epochs: int = FINETUNE_EPOCHS,
    patience: int = FINETUNE_PATIENCE,
    batch_size: int = FINETUNE_BATCH,
    image_size: int = IMAGE_SIZE,
) -> FinetuneSpec:
    """Fine-tuning as in Appendix E.3 and E.5; supervised without a pretraining run."""
    return FinetuneSpec(
        dataset=dataset,
        backbone=backbone.tag,
        weights=weights,
        pretrain=pretrain,
        arm=backbone.role,
        label_fraction=label_fraction,
        augment=AUGMENT,
        optim=optim,
        loss=preset.loss,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        stopping=preset.stopping,
    )


def finetunes(card: Card, backbone: Backbone, **arguments: Any) -> list[FinetuneSpec]:
    """`finetune` at every label fraction of the dataset."""
    return [finetune(card.ref, backbone, label_fraction=fraction, **arguments) for fraction in card.label_fractions]
