"""The programs that are rehearsed, and the operations that torch names as having no deterministic CUDA kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

import tiny

from pipeline.benchmarks.gpu import rehearsed
from pipeline.runs.spec import Spec
from pipeline.study import recipes


def tiny_spec(program: str, arm: int = 0, *, image_size: int = 64, batch_size: int = 4, **changes: Any) -> Spec:
    """A run on one of the tiny backbones: 64 pixels, batches of 4."""
    size = {"image_size": image_size, "batch_size": batch_size}
    spec = rehearsed.spec_of(program, tiny.BACKBONES[arm], tiny.BACKBONES, **size)
    if program in tiny.DINOS:
        spec = recipes.with_options(spec, tiny.DINOS[program][1])
    return dataclasses.replace(spec, **size, **changes)


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
