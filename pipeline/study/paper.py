"""Every number of the paper that a run needs, on one page, each with its source.

`# E.2.3` is the paper's section, `# notebook` its reference notebook, `# ASSUMED` a choice where both are silent (why:
docs/reproducing.md). No module on a lower layer holds a scientific constant. `recipes` makes specs of these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.runs.spec import Augment, Average, Blur, Jitter, Loss, Optim
from pipeline.runs.start_weights import StartWeights

IMAGE_SIZE = 384  # E.2.2
SEEDS = (77, 78, 79, 80, 81)  # 77: notebook; five: E.2.1; the other four: ASSUMED
DATASETS = ("autoimmune", "dermofit", "brain_mri", "isic")  # Table 1, in its order
HEAD_DIM = 1000  # notebook: the ImageNet heads stay on

CNN, TRANSFORMER = "cnn", "transformer"

Options = Mapping[str, float | int | str | bool]
"""Options of a method."""


@dataclass(frozen=True)
class Backbone:
    """A backbone: its tag in timm, its name in the tables, its role, its size where it is known, its start weights."""

    tag: str
    title: str
    role: str
    parameters: int | None = None
    gflops: float | None = None
    """Of one training image at 384 pixels, forward and backward."""
    weights: str = "imagenet"
    """What it starts from: `imagenet`, `random` or `given`."""
    given: StartWeights | None = None


# parameters: Tables 13, 17 and 18, else counted; gflops: counted, not the paper's
RESNET18 = Backbone("resnet18.tv_in1k", "ResNet-18", CNN, 11_690_000, 31.3)
RESNET50 = Backbone("resnet50.a1_in1k", "ResNet-50", CNN, 25_560_000, 71.4)  # Table 18: 80.374 % on ImageNet
# Table 13: random, 64.69 M; timm's plain one counts 64.67 M (docs/reproducing.md)
RESNET200 = Backbone("resnet200.untrained", "ResNet-200", CNN, 64_674_000, 263.9, "random")
DENSENET161 = Backbone("densenet161.tv_in1k", "DenseNet-161", CNN, 28_681_000, 135.2)
VIT_B16 = Backbone(
    "vit_base_patch16_384.augreg_in21k_ft_in1k", "ViT B/16", TRANSFORMER, 86_860_000, 332.2
)  # Table 18: 86.006 %
VIT_L16 = Backbone("vit_large_patch16_384.augreg_in21k_ft_in1k", "ViT L/16", TRANSFORMER, 304_720_000, 1145.5)
DEIT_B16 = Backbone("deit_base_patch16_384.fb_in1k", "DeiT B/16", TRANSFORMER, 86_860_000, 332.2)  # Table 18: 83.106 %
SWIN_B = Backbone(
    "swin_base_patch4_window12_384.ms_in22k_ft_in1k", "Swin B/4-12", TRANSFORMER, 87_904_000, 282.4
)  # C.3.4: patch 4, window 12; its size ASSUMED
STANDARD = (RESNET50, VIT_B16)  # E.2.1, of every table but 11 to 14 and 17 to 20
BACKBONES = (*STANDARD, RESNET18, RESNET200, DENSENET161, VIT_L16, DEIT_B16, SWIN_B)

# Table 2: hours of self-supervised training on one RTX8000. It does not say whether DINO's are those of one backbone
# or of both.
TABLE_2_EPOCHS = 100
TABLE_2_HOURS: Mapping[str, Mapping[str, float]] = {
    "dino": {"autoimmune": 1 + 13 / 60, "dermofit": 3 + 9 / 60, "brain_mri": 26 + 21 / 60, "isic": 109 + 21 / 60},
    "cass": {"autoimmune": 21 / 60, "dermofit": 1 + 11 / 60, "brain_mri": 7 + 11 / 60, "isic": 29 + 58 / 60},
}
# C.3.3, C.3.4 and Table 2: hours of CASS on brain MRI with these pairs of backbones.
PAIR_HOURS: Mapping[str, float] = {
    "ResNet-50 | ViT B/16": 7 + 11 / 60,
    "ResNet-50 | DenseNet-161": 5 + 24 / 60,
    "Swin B/4-12 | ViT B/16": 10.0,
}
# The abstract: gains of CASS by label fraction, and the time it saves.
CLAIMED_GAINS: Mapping[str, float] = {"1%": 0.038, "10%": 0.059, "100%": 0.101}
CLAIMED_SAVING = 0.69
# Training and validation images: of 198, 1,300, 5,712 and 25,331 (E.1.1), split as docs/reproducing.md says.
IMAGES: Mapping[str, tuple[int, int]] = {
    "autoimmune": (158, 20),
    "dermofit": (1_040, 130),
    "brain_mri": (5_141, 571),
    "isic": (20_265, 2_533),
}

PRETRAIN_EPOCHS = 100  # E.2.3
PRETRAIN_BATCH = 16  # E.2.3
LARGEST_BATCH = 34  # C.1: of CASS on one GPU of 48 GB; in float32, as nothing else is named
PRETRAIN_OPTIM = Optim(
    name="adam",  # E.2.3
    lr=1e-3,  # E.2.3
    schedule="cosine",  # E.2.3
    t_max=16,  # E.2.3: "16 iterations"
    min_lr=1e-6,  # E.2.3
    unit="step",  # notebook: the schedule steps with every batch
)
SGD_MOMENTUM = 0.9  # Table 10 names SGD alone: momentum ASSUMED, the rate stays E.2.3's
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

BLUR = Blur(p=0.5, least=0.1, most=2.0, side=13)  # Table 9 names blur; p and σ ASSUMED: BYOL's; side: 3 σ each way
SOLARISE = 0.2  # Table 9 names it; p ASSUMED: BYOL's


def augmentation(*, blur: bool = False, solarise: bool = False) -> Augment:
    """The paper's augmentation, with the blur and the solarisation that Table 9 adds to it."""
    return replace(AUGMENT, blur=BLUR if blur else None, solarise=SOLARISE if solarise else 0.0)


# DINO. The paper names vit-pytorch's implementation (E.2.1) and "hyper-parameters mentioned in the original
# implementation" (E.4), which may be that or its authors': `dino` is the first, `dino_fb` the second.
OFF = Jitter(p=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
DINO_AUGMENT = replace(  # all of it: vit-pytorch's defaults
    AUGMENT,
    first_jitter=Jitter(p=0.3, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    second_jitter=OFF,
    perspective_p=0.0,
    degrees=0.0,
    vertical_flip=0.0,
    horizontal_flip=0.5,
    grey=0.2,
    blur=Blur(p=0.2, least=1.0, most=2.0, side=3),
)
DINO_OPTIM = Optim(name="adam", lr=3e-4, schedule="constant")  # vit-pytorch's README
DINO_OPTIONS: Options = {
    "out_dim": 65_536,  # vit-pytorch's README; 65,336 in its code is a slip
    "hidden": 256,  # vit-pytorch, as all of these
    "layers": 4,
    "student_temperature": 0.9,
    "teacher_temperature": 0.04,
    "teacher_momentum": 0.9,
    "centre_momentum": 0.9,
    "local_least": 0.05,
    "local_most": 0.4,
    "global_least": 0.5,
    "batch_draws": False,  # ASSUMED: as every other augmentation here; vit-pytorch draws once for a batch
}
DINO_FB_AUGMENT = replace(  # all of it: facebookresearch/dino's defaults, for the first global view
    DINO_AUGMENT,
    first_jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
    blur=Blur(p=1.0, least=0.1, most=2.0, side=13),
)
DINO_FB_OPTIONS: Options = {  # facebookresearch/dino's defaults
    "out_dim": 65_536,
    "hidden": 2048,
    "layers": 3,
    "bottleneck": 256,
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
    "teacher_momentum": 0.996,
    "centre_momentum": 0.9,
    "global_least": 0.4,
    "local_crops": 8,
    "local_least": 0.05,
    "local_most": 0.4,
    "second_blur": 0.1,
    "second_solarise": 0.2,
    "local_blur": 0.5,
    "frozen_epochs": 1,
}
DINO_FB_LOCAL = 96 / 224  # of the image's side: facebookresearch/dino's sizes; here in whole patches of 16
DINO_FB_OPTIM = Optim(  # facebookresearch/dino's defaults
    name="adamw",
    lr=5e-4,  # at a batch of 256; it grows with the batch
    weight_decay=0.04,
    last_weight_decay=0.4,
    schedule="once",
    min_lr=1e-6,
    warmup=0.1,  # 10 of its 100 epochs
    clip=3.0,
)
DINO_FB_LR_BATCH = 256  # the batch size of that learning rate


@dataclass(frozen=True)
class Preset:
    """A reading of the paper: its text (`paper`), its notebook with the defects (`notebook`), or today's practice."""

    name: str
    split: str
    loss: Loss
    average: Average | None
    keep_gradients: bool
    stopping: str
    metrics: Mapping[str, str]
    """Metrics of the tables that differ from the datasets' own; `*` means every dataset."""
    batch_draws: bool = False
    """Whether DINO's augmentation is drawn once for a whole batch."""
    val_as_train: bool = False
    """Whether early stopping sees only as large a part of the validation labels as training of its own."""


PRESETS = {
    "paper": Preset("paper", "image", FOCAL, AVERAGE, False, "best", {}),
    # fidelity 3a, 1 and 3: gradients are never set to zero, averaging is never called; 3b, 27, 28 and 40; 3c
    "notebook": Preset(
        "notebook",
        "image",
        replace(FOCAL, counted="train and val"),
        None,
        True,
        "previous",
        {"isic": "recall_micro"},
        batch_draws=True,
    ),
    "sound": Preset(
        "sound",
        "grouped",
        replace(FOCAL, class_weights="inverse"),
        AVERAGE,
        False,
        "best",
        {"*": "f1_macro"},
        val_as_train=True,
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name; `ValueError` with the known names if there is none."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
