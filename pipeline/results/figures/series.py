"""The runs that a figure shows: a dataset's cells by backbone and technique, with the title and style of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures.style import MarkerStyle, marker_styles
from pipeline.results.texts import network_title, short
from pipeline.runs.methods import method_info
from pipeline.runs.spec import FinetuneSpec

ORDER = ("cass", "supervised", "dino")


@dataclass
class Series:
    """One technique on one backbone: its cells by label fraction."""

    method: str
    title: str
    style: MarkerStyle
    cells: dict[float, Cell] = field(default_factory=dict)


@dataclass
class Group:
    """The techniques of one dataset and backbone, in the order in which they are shown."""

    dataset: str
    arm: str
    backbone: str
    title: str
    """The name of its network, as in the tables."""
    series: list[Series]
    suffix: str = ""
    """Tells its files from those of another group of its dataset with the same name."""

    @property
    def dataset_name(self) -> str:
        """The dataset's own name, whichever of its splits this is."""
        return next(iter(self.series[0].cells.values())).spec.dataset.name

    @property
    def name(self) -> str:
        """For a file: dataset and backbone."""
        return f"{self.dataset}-{short(self.backbone)}{self.suffix}"


@dataclass(frozen=True)
class FinishedRuns:
    """A technique's finished runs at one label fraction, by seed."""

    series: Series
    fraction: float
    runs: list[PlannedRun]


def groups(cells: Sequence[Cell]) -> list[Group]:
    """The cells by dataset and backbone; where recipes of one technique differ, their titles end as in the tables.

    Where a grid holds the main experiment, its other experiments are left out.
    """
    out = []
    cells = [c for c in cells if c.experiment == "main"] or cells
    for dataset, kind, backbone in dict.fromkeys((c.dataset, _kind(c), c.backbone) for c in cells):
        members = [c for c in cells if (c.dataset, _kind(c), c.backbone) == (dataset, kind, backbone)]
        arm = min(c.arm for c in members)
        names = sorted({(c.method, c.variant): None for c in members}, key=lambda name: _position(name[0]))
        methods = [method for method, _ in names]
        series = []
        for (method, variant), style in zip(names, marker_styles(methods), strict=True):
            own = {c.label_fraction: c for c in members if (c.method, c.variant) == (method, variant)}
            title = method_info(method).title + (f" #{variant}" if methods.count(method) > 1 else "")
            if method == "frozen" and (rows := {cell.row[0] for cell in own.values()}) and len(rows) == 1:
                (title,) = rows  # it says of which weights, and which classifier
            series.append(Series(method, title, style, own))
        out.append(Group(dataset, arm, backbone, network_title(members[0]), series))
    taken = Counter(group.name for group in out)
    for number, group in enumerate(out, start=1):
        if taken[group.name] > 1:
            group.suffix = f"-{group.arm}-{number}"
    return out


def _kind(cell: Cell) -> str:
    """Its arm, without the number of a second network of one kind, which other techniques with that network lack."""
    arms = cell.spec.pretrain.arms if cell.spec.pretrain else ()
    twice = sum(arm.backbone == cell.backbone for arm in arms) > 1
    return cell.arm if twice else cell.arm.removesuffix("_2")


def _position(method: str) -> int:
    return ORDER.index(method) if method in ORDER else len(ORDER)


def finished(plan: Plan, cell: Cell) -> list[PlannedRun]:
    """The finished runs of a cell, by seed."""
    found = [plan.runs[run.id] for run in cell.runs.values()]
    return sorted((planned for planned in found if planned.state == "done"), key=lambda planned: planned.spec.seed)


def at_largest_fraction(plan: Plan, group: Group) -> list[FinishedRuns]:
    """Each technique's finished runs at the group's largest label fraction, without the techniques that have none."""
    fraction = max(fraction for series in group.series for fraction in series.cells)
    found = [
        FinishedRuns(series, fraction, finished(plan, series.cells[fraction]))
        for series in group.series
        if fraction in series.cells
    ]
    return [each for each in found if each.runs]


def with_predictions(plan: Plan, group: Group) -> list[tuple[FinishedRuns, Cell]]:
    """Each technique's finished runs at the largest label fraction, and their cell, where it has stored predictions."""
    found = [(each, each.series.cells[each.fraction]) for each in at_largest_fraction(plan, group)]
    return [(each, cell) for each, cell in found if cell.predictions]


def one_run_each(shown: Sequence[FinishedRuns]) -> list[PlannedRun]:
    """One run for each technique: that of the smallest seed that all of them have, or else of its own smallest seed."""
    common = set.intersection(*({planned.spec.seed for planned in each.runs} for each in shown))
    seed = min(common, default=None)
    return [next((planned for planned in each.runs if planned.spec.seed == seed), each.runs[0]) for each in shown]


def seeds(runs: Iterable[PlannedRun]) -> str:
    """`seed 77`, or `seeds 77, 78`."""
    found = sorted({planned.spec.seed for planned in runs})
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def finetune_spec(planned: PlannedRun) -> FinetuneSpec:
    assert isinstance(planned.spec, FinetuneSpec)
    return planned.spec


def seed_counts(cells: Iterable[Cell]) -> str:
    """The seeds of the cells with results: `n = 2`, `n = 1 to 2`, or `n = 1 to 2 of 3` where some are missing."""
    found = [(len(cell.results), cell.wanted) for cell in cells if cell.results]
    low, high, wanted = min(n for n, _ in found), max(n for n, _ in found), max(w for _, w in found)
    text = f"n = {low}" if low == high else f"n = {low} to {high}"
    return text if low == wanted else f"{text} of {wanted}"
