"""The names of all grids, for `--help`: no experiment and no plugin is imported."""

from __future__ import annotations

from pipeline.study.grids import GRIDS

EXPERIMENT_GRIDS = (
    "main",
    "batch_size",
    "epochs",
    "augmentation",
    "cnn_optimizer",
    "transformer",
    "cnn",
    "two_cnns",
    "two_transformers",
    "initialisation",
)
"""The grids of `study.experiments`, which a test compares with these."""


def known_grids() -> list[str]:
    """The names of all grids, sorted."""
    return sorted({*GRIDS.names(), *EXPERIMENT_GRIDS})
