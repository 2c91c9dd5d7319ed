"""How results are written in tables and figures: scores, differences and times as text, metric names and notes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pipeline.core.console import duration
from pipeline.jobs.plan import Plan
from pipeline.results import times
from pipeline.results.collect import Cell
from pipeline.results.differences import Difference
from pipeline.results.statistics import Estimate
from pipeline.study import paper

METRIC_TITLES = {
    "f1_micro": "F1 (micro, at 0.5)",
    "f1_macro": "F1 (macro)",
    "balanced_accuracy": "balanced accuracy",
    "recall_micro": "recall (micro, at 0.5)",
    "accuracy": "accuracy",
    "auroc": "AUROC (macro)",
}
NOTHING = "–"
MIXED = "*"


# --- Values ----------------------------------------------------------------------------------------------------------


def our_score(cell: Cell) -> str:
    """`0.9909 ± 0.0032 (5)`, `0.9909 (1)`, `0.9909 ± 0.0032 (3 of 5)`, or `– (0 of 5)`."""
    mean, deviation = cell.mean(cell.metric), cell.deviation(cell.metric)
    n = len(cell.values(cell.metric))
    count = str(n) if n == cell.wanted else f"{n} of {cell.wanted}"
    if mean is None:
        return f"{NOTHING} ({count})"
    spread = f" ± {deviation:.4f}" if deviation is not None else ""
    return f"{mean:.4f}{spread} ({count}){MIXED if cell.mixed else ''}"


def mean_of(values: Sequence[float]) -> str:
    """`0.9909 ± 0.0032 (5)`, `0.9909 (1)`, or `–`."""
    if not values:
        return NOTHING
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread} ({len(values)})"


def interval(ends: tuple[float, float] | None) -> str:
    """`0.9812 to 0.9953`, or `–`."""
    return NOTHING if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"


def printed_score(cell: Cell | None) -> str:
    """`0.5819 ± 0.0015`, or `–`."""
    if cell is None or cell.printed is None:
        return NOTHING
    return f"{cell.printed.value:.4f} ± {cell.printed.spread:.4g}"


def both_means(cell: Cell | None) -> str:
    """Our mean and the printed one, `0.5500 | 0.5819`; `–` for one that is missing or for no cell."""
    if cell is None:
        return NOTHING
    return f"{our_mean(cell)} | {cell.printed.value:.4f}" if cell.printed else f"{our_mean(cell)} | {NOTHING}"


def our_mean(cell: Cell | None) -> str:
    """`0.5500`, or `–`."""
    mean = cell.mean(cell.metric) if cell else None
    return NOTHING if mean is None else f"{mean:.4f}"


def metrics_of(cells: Sequence[Cell]) -> dict[str, str]:
    """The name of each dataset's metric."""
    return {cell.dataset: METRIC_TITLES[cell.metric] for cell in cells}


def signed(value: float, form: str) -> str:
    """A number with its sign in a format; what is zero or rounds to it has none: `+0.5%`, `-0.0004`, `0.0%`."""
    text = format(value, f"+{form}")
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def network_title(cell: Cell) -> str:
    """A cell's network as tables and figures name it: by its table's row, else as timm and the run's id do."""
    return cell.row[1] if cell.experiment == "main" and len(cell.row) == 2 else short(cell.backbone)


def short(backbone: str) -> str:
    """timm's name of a backbone, without that of its weights."""
    return backbone.split(".")[0]


def difference(found: Difference | None) -> str:
    """`+0.3000 ± 0.1414 (2)`, or `–`."""
    if found is None:
        return NOTHING
    spread = f" ± {found.deviation:.4f}" if found.deviation is not None else ""
    return f"{signed(found.mean, '.4f')}{spread} ({found.seeds})"


def estimated(found: Estimate | None) -> str:
    """`-0.0120 to +0.0520`, or `–`."""
    return NOTHING if found is None else " to ".join(signed(end, ".4f") for end in found.interval)


def seconds(value: float | None) -> str:
    return NOTHING if value is None else duration(value)


def hours(value: float | None) -> str:
    return NOTHING if value is None else duration(value * 3600)


def saving(less: float | None, more: float | None) -> str:
    """How much less one time is than another: `75%`, or `–`."""
    return f"{round(100 * (1 - less / more)) + 0:d}%" if less is not None and more else NOTHING


# --- Notes -----------------------------------------------------------------------------------------------------------


def cell_notes(cells: Sequence[Cell]) -> list[str]:
    """What a reader must know of the scores of one table."""
    notes = ["ours: mean ± sample standard deviation over seeds (number of seeds)"]
    if numbers := sorted({cell.printed.table for cell in cells if cell.printed}):
        tables = ", ".join(map(str, numbers))
        notes.append(f"paper: Table {tables}; at 384 pixels, from ImageNet weights unless the table says otherwise")
    return notes + score_notes(cells)


def score_notes(cells: Sequence[Cell]) -> list[str]:
    """What holds of these cells' scores wherever they are shown."""
    notes = []
    if any(cell.mixed for cell in cells):
        notes.append(f"{MIXED} the seeds of this cell ran on different devices or in different precisions")
    notes += [f"damaged: {line}" for cell in cells for line in cell.damage.values()]
    if lost := next((cell.groups.unknown for cell in cells if cell.groups and cell.groups.unknown), ""):
        notes.append(f"patients and lesions are not known here, intervals are over images: {lost}")
    notes += absent_notes(cells)
    majority = [result.metrics["majority"] for cell in cells for result in cell.results.values()]
    if majority and (score := (majority[0] or {}).get(cells[0].metric)) is not None:
        notes.append(f"always predicting the most frequent class of the test part scores {score:.4f}")
    return notes


def absent_notes(cells: Sequence[Cell]) -> list[str]:
    """What F1 (macro) is at most where the test part lacks classes: scores of other test parts have other ends."""
    found = {}
    for cell in cells:
        by_class = next((r.metrics.get("per_class") or {} for r in cell.results.values()), {})
        present = sum(each["support"] > 0 for each in by_class.values())
        if cell.metric == "f1_macro" and present < len(by_class):
            most = f"{present / len(by_class):.4f} on {cell.dataset}"
            found[cell.dataset] = f"at most {most} ({present} of {len(by_class)} classes have test images)"
    return [f"F1 (macro) counts classes without test images as 0: {', '.join(found.values())}"] if found else []


def dataset_notes(cells: Sequence[Cell], plan: Plan) -> list[str]:
    """What the scores of one table do not cover, and which networks its names are."""
    out = [gap for info in plan.datasets if info.ref == cells[0].spec.dataset for gap in info.gaps]
    titles = {network_title(cell): cell.backbone for cell in cells}
    if named := [f"{title} is timm's {tag}" for title, tag in titles.items() if title != short(tag)]:
        out.append(f"networks: {', '.join(named)}")
    return out


def pair_time_notes(cells: Sequence[Cell], plan: Plan) -> list[str]:
    """How long each pair of networks took to pretrain: the paper discusses Tables 19 and 20 with it."""
    if cells[0].experiment not in ("two_cnns", "two_transformers"):
        return []
    out = []
    for pair in dict.fromkeys(cell.row for cell in cells):
        row = [cell for cell in cells if cell.row == pair]
        runs = [value for each in times.pretraining_seconds(plan, row).values() for value in each.values()]
        printed = paper.PAIR_HOURS.get(" | ".join(pair)) if row[0].printed else None
        ours = seconds(times.mean(runs))
        out.append(f"pretraining {' with '.join(pair)}: ours {ours}, paper {hours(printed)}")
    return out


def stand_in_note(plan: Plan) -> str:
    """A warning where the images of a dataset are a stand-in's; empty where none are."""
    names = [dataset.title for dataset in plan.datasets if dataset.stand_in]
    if not names:
        return ""
    return (
        f"A STAND-IN, not the dataset: the images of {', '.join(names)} are generated, so scores on them mean nothing"
    )
