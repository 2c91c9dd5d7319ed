"""The programs that are rehearsed, and the operations that torch names as having no deterministic CUDA kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tiny import BACKBONES as TINY
from tiny import DINOS

from pipeline.runs.spec import DatasetRef, Spec
from pipeline.study import paper, recipes

REF = DatasetRef(name="made_up", fingerprint="0" * 16)
PRECISIONS = ("float32", "float16", "bfloat16")
PAPER = paper.preset("paper")
PROGRAMS = ("cass", "cass_vc", "dino", "dino_fb", "finetune")


def spec_of(program: str, backbone: paper.Backbone, **changes: Any) -> Spec:
    """The paper's run of a program with a backbone; CASS pairs it with the standard one of the other kind."""
    spec: Spec
    if program == "finetune":
        spec = recipes.finetune(REF, backbone, preset=PAPER, seed=77)
    elif program in ("cass", "cass_vc"):
        standard = TINY if backbone in TINY else paper.STANDARD
        pair = (backbone, standard[1]) if backbone is not standard[1] else standard
        if backbone.role == paper.TRANSFORMER:
            pair = (standard[0], backbone)
        if program == "cass":
            spec = recipes.cass(REF, pair, preset=PAPER, seed=77)
        else:
            spec = recipes.cass_vc(REF, pair, seed=77)
    else:
        kind, small = DINOS[program]
        size = changes.get("image_size", paper.IMAGE_SIZE)
        batch = changes.get("batch_size", paper.PRETRAIN_BATCH)
        spec = recipes.dino(REF, backbone, kind, preset=PAPER, seed=77, image_size=size, batch_size=batch)
        if backbone in TINY:
            spec = recipes.with_options(spec, small)
    return dataclasses.replace(spec, **changes)


def tiny_spec(program: str, arm: int = 0, **changes: Any) -> Spec:
    """A run on one of the tiny backbones: 64 pixels, batches of 4."""
    return spec_of(program, TINY[arm], **{"image_size": 64, "batch_size": 4, **changes})


def paper_cases() -> Iterator[tuple[str, paper.Backbone]]:
    """Every program with every backbone of the paper that it takes."""
    for program in PROGRAMS:
        for backbone in paper.BACKBONES:
            if not (program == "dino_fb" and backbone is paper.SWIN_B):  # Swin takes no small crops
                yield program, backbone


NO_DETERMINISTIC_KERNEL = {
    "AvgPool3d": ("avg_pool3d_backward",),
    "AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "MaxUnpool1d": ("max_unpool2d",),
    "MaxUnpool2d": ("max_unpool2d",),
    "MaxUnpool3d": ("max_unpool3d",),
    "interpolate": (
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "_upsample_bilinear2d_aa_backward",
        "upsample_bicubic2d_backward",
        "_upsample_bicubic2d_aa_backward",
        "upsample_trilinear3d_backward",
    ),
    "ReflectionPad1d": ("reflection_pad1d_backward",),
    "ReflectionPad2d": ("reflection_pad2d_backward",),
    "ReflectionPad3d": ("reflection_pad3d_backward",),
    "NLLLoss": ("nll_loss2d_forward",),
    "CTCLoss": ("_ctc_loss_backward", "_cudnn_ctc_loss"),
    "EmbeddingBag": ("_embedding_bag_dense_backward", "_embedding_bag_backward"),
    "put_": ("put_", "put"),
    "histc": ("histc",),
    "bincount": ("bincount",),
    "median": ("median", "nanmedian"),
    "grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "scatter_reduce": ("scatter_reduce", "scatter_reduce_"),
}
"""Operations of the dispatcher by the name under which torch documents them (`torch.use_deterministic_algorithms`)."""
