"""A table of what scores are worth as a ranking and as probabilities: AUROC, sensitivity, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pipeline.core.console import counted
from pipeline.learn import calibration
from pipeline.learn.calibration import Reliability
from pipeline.results import texts
from pipeline.results.bootstrap import cell_interval
from pipeline.results.collect import Cell
from pipeline.results.ranking import ranking
from pipeline.results.tables import Table
from pipeline.results.texts import NOTHING

UNKNOWN = "not known"


def tables(cells: Sequence[Cell], specificity: float) -> list[Table]:
    """A table for each dataset with stored predictions; where a grid holds the main experiment, of that alone."""
    shown = [cell for cell in cells if cell.experiment == "main"] or list(cells)
    shown = [cell for cell in shown if cell.predictions]
    return [
        _table([cell for cell in shown if cell.dataset == dataset], specificity)
        for dataset in dict.fromkeys(cell.dataset for cell in shown)
    ]


def _table(cells: Sequence[Cell], specificity: float) -> Table:
    largest = max(cell.label_fraction for cell in cells)
    single = all(cell.task == "multi-class" for cell in cells)
    over = "the highest score of each image" if single else "every score of every image"
    link = "softmax" if single else "sigmoids"
    return Table(
        number=None,
        caption=f"{cells[0].dataset}: ranking and calibration on the test images",
        labels=2,
        header=(
            "setting",
            "column",
            "AUROC",
            "95 % interval",
            "average precision",
            f"sensitivity at {100 * specificity:g} % specificity",
            "ECE",
            "ECE calibrated",
            "temperature",
        ),
        rows=[_row(cell, specificity, with_interval=cell.label_fraction == largest) for cell in cells],
        notes=(
            "means over seeds and over classes, each class against the rest; the sensitivity is that of the best "
            "threshold on the test images themselves: one that was set before would have less",
            "interval: of the AUROC at the largest label fraction, over 1,000 resamples of the test images "
            "(of patients or lesions where they are known)",
            f"ECE: {calibration.BINS} bins of equal width over {over}; calibrated: {link} of the logits of the stored "
            "scores over the temperature that the run fitted on its validation images; not known for earlier runs, "
            "frozen features and means of two networks",
            *_fitted(cells),
        ),
        cells={(number, 0): cell for number, cell in enumerate(cells)},
    )


def _fitted(cells: Sequence[Cell]) -> list[str]:
    """How many validation images gave the temperatures: at a part of the labels that can be three."""
    by_column: dict[str, list[int]] = {}
    at_limit = 0
    for cell in cells:
        for result in (cell.results[seed] for seed in cell.predictions):
            if result.temperature is not None:
                by_column.setdefault(cell.column, []).append(result.temperature_images or 0)
                at_limit += result.temperature in calibration.LIMITS
    said = [f"{column}: {' to '.join(map(str, sorted({min(n), max(n)})))}" for column, n in by_column.items()]
    low, high = calibration.LIMITS
    limit = f"; {counted(at_limit, 'run')} at a limit ({low:g} or {high:g}), where they determine none"
    return [f"validation images that gave a temperature: {', '.join(said)}{limit if at_limit else ''}"] if said else []


def _row(cell: Cell, specificity: float, *, with_interval: bool) -> tuple[str, ...]:
    ranked = [found for each in cell.predictions.values() if (found := ranking(each, specificity))]
    interval = cell_interval(cell, "auroc") if with_interval else None
    stored, calibrated = reliabilities(cell)
    temperatures = [value for seed in cell.predictions if (value := cell.results[seed].temperature)]
    return (
        " · ".join(cell.row),
        cell.column,
        _mean([found.auroc for found in ranked]),
        NOTHING if interval is None else texts.interval(interval),
        _mean([found.average_precision for found in ranked]),
        _mean([found.sensitivity for found in ranked]),
        _mean([each.ece for each in stored]),
        _mean([each.ece for each in calibrated]) if calibrated else UNKNOWN,
        _mean(temperatures, ".3g") if calibrated else UNKNOWN,
    )


def reliabilities(cell: Cell) -> tuple[list[Reliability], list[Reliability]]:
    """Of each seed's scores as stored, and calibrated; the latter empty where the temperature of a run is not known."""
    stored, calibrated = [], []
    for seed, each in cell.predictions.items():
        stored.append(calibration.reliability(each.scores, each.targets, cell.task))
        if temperature := cell.results[seed].temperature:
            scores = calibration.probabilities(calibration.logits_of(each.scores), temperature, cell.task)
            calibrated.append(calibration.reliability(scores, each.targets, cell.task))
    return stored, calibrated if len(calibrated) == len(stored) else []


def _mean(values: Sequence[float], form: str = ".4f") -> str:
    return format(fmean(values), form) if values else NOTHING
