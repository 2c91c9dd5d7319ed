"""The runs behind a figure: a dataset's cells by backbone and technique, each technique with a title and a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.jobs.plan import Plan, PlannedRun
from pipeline.results.collect import Cell
from pipeline.results.figures.style import Look, looks
from pipeline.runs.spec import FinetuneSpec
from pipeline.study.experiments import TECHNIQUES

ORDER = ("cass", "supervised", "dino")


@dataclass
class Series:
    """One technique on one backbone: its cells by label fraction."""

    method: str
    title: str
    look: Look
    cells: dict[float, Cell] = field(default_factory=dict)


@dataclass
class Group:
    """The techniques of one dataset and backbone, in the order they are shown."""

    dataset: str
    arm: str
    backbone: str
    series: list[Series]
    mark: str = ""
    """Tells it apart from another group of its dataset with the same title."""

    @property
    def title(self) -> str:
        return short(self.backbone)

    @property
    def name(self) -> str:
        """For a file: dataset and backbone."""
        return f"{self.dataset}-{self.title}{self.mark}"


@dataclass(frozen=True)
class Shown:
    """A technique's finished runs at one label fraction, by seed."""

    series: Series
    fraction: float
    items: list[PlannedRun]


def groups(cells: Sequence[Cell]) -> list[Group]:
    """The cells by dataset and backbone; recipes of one technique that differ carry the mark of the tables.

    Where a grid holds the main experiment, the ablations beside it are left out.
    """
    out = []
    cells = [c for c in cells if c.experiment == "main"] or cells
    for dataset, arm, backbone in dict.fromkeys((c.dataset, c.arm, c.backbone) for c in cells):
        members = [c for c in cells if (c.dataset, c.arm, c.backbone) == (dataset, arm, backbone)]
        names = sorted({(c.method, c.variant): None for c in members}, key=lambda name: _place(name[0]))
        methods = [method for method, _ in names]
        series = []
        for (method, variant), look in zip(names, looks(methods), strict=True):
            title = TECHNIQUES.get(method, method) + (f" #{variant}" if methods.count(method) > 1 else "")
            own = {c.label_fraction: c for c in members if (c.method, c.variant) == (method, variant)}
            series.append(Series(method, title, look, own))
        out.append(Group(dataset, arm, backbone, series))
    taken = Counter(group.name for group in out)
    for number, group in enumerate(out, start=1):
        if taken[group.name] > 1:
            group.mark = f"-{group.arm}-{number}"
    return out


def _place(method: str) -> int:
    return ORDER.index(method) if method in ORDER else len(ORDER)


def done(plan: Plan, cell: Cell) -> list[PlannedRun]:
    """The finished runs of a cell, by seed."""
    found = [plan.runs[run.id] for run in cell.runs.values()]
    return sorted((item for item in found if item.state == "done"), key=lambda item: item.spec.seed)


def at_most_labels(plan: Plan, group: Group) -> list[Shown]:
    """Each technique's finished runs at the largest label fraction of the group, those without any left out."""
    fraction = max(fraction for series in group.series for fraction in series.cells)
    found = [
        Shown(series, fraction, done(plan, series.cells[fraction]))
        for series in group.series
        if fraction in series.cells
    ]
    return [shown for shown in found if shown.items]


def one_each(shown: Sequence[Shown]) -> list[PlannedRun]:
    """One run a technique: of the smallest seed that all of them have, else of each one's smallest."""
    common = set.intersection(*({item.spec.seed for item in each.items} for each in shown))
    return [next((i for i in each.items if i.spec.seed == min(common, default=None)), each.items[0]) for each in shown]


def seeds(items: Iterable[PlannedRun]) -> str:
    """`seed 77`, or `seeds 77, 78`."""
    found = sorted({item.spec.seed for item in items})
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def finetune_spec(item: PlannedRun) -> FinetuneSpec:
    assert isinstance(item.spec, FinetuneSpec)
    return item.spec


def short(backbone: str) -> str:
    """A timm tag without its weights."""
    return backbone.split(".")[0]


def counts(cells: Iterable[Cell]) -> str:
    """`n = 2`, `n = 1 to 2`, with what was wanted where some are missing: over the cells that have any."""
    found = [(len(cell.results), cell.wanted) for cell in cells if cell.results]
    low, high, wanted = min(n for n, _ in found), max(n for n, _ in found), max(w for _, w in found)
    text = f"n = {low}" if low == high else f"n = {low} to {high}"
    return text if low == wanted else f"{text} of {wanted}"
