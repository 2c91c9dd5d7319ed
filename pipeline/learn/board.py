"""A run's numbers on TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.runs.folder import Run


def add_scalars(board: Any, values: Mapping[str, Any], epoch: int) -> None:
    """Show the numbers among some values on TensorBoard; `epoch` counts from 0, so -1 is before the first step."""
    for name, value in values.items():
        if isinstance(value, (int, float)) and name not in ("epoch", "step"):
            board.add_scalar(name, value, epoch)


class NoBoard:
    """Takes a board's calls and writes nothing."""

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        pass

    def close(self) -> None:
        pass


def open_board(run: Run, epoch: int) -> Any:
    """A TensorBoard writer; it discards what a killed process had written of this epoch and later ones.

    Where TensorBoard is not installed, one that writes nothing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return NoBoard()
    return SummaryWriter(str(run["tensorboard"]), purge_step=epoch)
