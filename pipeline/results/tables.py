"""The results tables, shaped as the paper's: which rows, columns and notes each one has.

Where a grid repeats the paper's runs, each cell of ours is next to the value that the paper prints; else no table has a
number or a column of the paper. `texts` writes the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.jobs.plan import Plan
from pipeline.results import texts, times
from pipeline.results.collect import Cell
from pipeline.results.differences import Comparison
from pipeline.results.ensembles import NOTE, Ensemble
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, PLAIN


@dataclass(frozen=True)
class Table:
    """A table as rows of text, with a caption and notes."""

    number: int | None
    """The number of the paper's table that it repeats, if any."""
    caption: str
    labels: int
    """How many columns come before the values."""
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...]
    cells: Mapping[tuple[int, int], Cell] = field(default_factory=dict)
    """The cell shown at (row, column), where one is."""

    @property
    def title(self) -> str:
        return f"Table {self.number} · {self.caption}" if self.number else self.caption


def tables(
    plan: Plan, cells: Sequence[Cell], ensembles: Sequence[Ensemble] = (), compared: Sequence[Comparison] = ()
) -> list[Table]:
    """All tables that the cells of a plan fill: the paper's by number, then the others, then techniques compared."""
    out = []
    every = [*cells, *ensembles]
    for experiment, dataset in dict.fromkeys((cell.experiment, cell.dataset) for cell in cells):
        members = [cell for cell in every if (cell.experiment, cell.dataset) == (experiment, dataset)]
        out.append(experiment_table(members, plan))
    main = [cell for cell in cells if cell.experiment == "main"]
    if main:
        both = [cell for cell in ensembles if cell.experiment == "main"]
        if any(cell.printed for cell in main) or len({cell.dataset for cell in main}) > 1:
            out.append(table_1([*main, *both]))
        if any(cell.printed or cell.method in paper.TABLE_2_HOURS for cell in main):  # else it would be empty
            out.append(table_2(plan, main))
    out += [comparison_table(compared)] if compared else []
    if warning := texts.stand_in_note(plan):
        out = [replace(table, notes=(*table.notes, warning)) for table in out]
    return sorted(out, key=lambda table: table.number or 99)


def experiment_table(cells: Sequence[Cell], plan: Plan) -> Table:
    """One experiment on one dataset: a row for each setting; for each score a column of ours and one of the paper's.

    Where the paper prints none of the cells, its columns are left out.
    """
    experiment = EXPERIMENTS.get(cells[0].experiment, PLAIN)
    labels = experiment.labels
    if len(labels) != len(cells[0].row):  # the user's own grid
        labels = tuple(f"setting {number}" for number in range(1, len(cells[0].row) + 1))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    if all(column.endswith("%") for column in columns):
        columns.sort(key=_percentage)
    with_paper = any(cell.printed for cell in cells)
    rows: list[tuple[str, ...]] = []
    shown: dict[tuple[int, int], Cell] = {}
    for number, names in enumerate(dict.fromkeys(cell.row for cell in cells)):
        row = list(names)
        for column in columns:
            cell = next((c for c in cells if (c.row, c.column) == (names, column)), None)
            if cell:
                shown[number, len(row)] = cell
            row.append(texts.our_score(cell) if cell else texts.NOTHING)
            if with_paper:
                row.append(texts.printed_score(cell))
        rows.append(tuple(row))
    heads = [f"{column} {whose}" for column in columns for whose in ("ours", "paper")] if with_paper else columns
    metric = texts.METRIC_TITLES[cells[0].metric]
    networks = [cell for cell in cells if not isinstance(cell, Ensemble)]
    notes = [*texts.cell_notes(cells), *texts.dataset_notes(networks, plan), *texts.pair_time_notes(networks, plan)]
    return Table(
        experiment.tables.get(cells[0].spec.dataset.name) if with_paper else None,
        f"{cells[0].dataset}: {experiment.title}, test {metric}",
        len(labels),
        (*labels, *heads),
        rows,
        (*notes, *([] if len(networks) == len(cells) else [NOTE])),
        shown,
    )


def table_1(main: Sequence[Cell]) -> Table:
    """Tables 3 to 6 in one, without their deviations: ours | paper, where the grid repeats the paper's runs."""
    kinds, head = _heads([c for c in main if c.spec.given is None])
    found = {(c.dataset, _technique(c), head(c), c.column): c for c in main}
    fractions = sorted({c.column for c in main}, key=_percentage)
    networks = dict.fromkeys((*kinds, *map(head, main)))
    columns = [(fraction, network) for fraction in fractions for network in networks]
    with_paper = any(cell.printed for cell in main)
    rows: list[tuple[str, ...]] = []
    shown: dict[tuple[int, int], Cell] = {}
    for dataset in dict.fromkeys(c.dataset for c in main):
        for technique in dict.fromkeys(_technique(c) for c in main):
            row = [dataset, technique]
            for fraction, network in columns:
                if cell := found.get((dataset, technique, network, fraction)):
                    shown[len(rows), len(row)] = cell
                row.append(texts.both_means(cell) if with_paper else texts.our_mean(cell))
            rows.append(tuple(row))
    header = ("dataset", "technique", *(f"{fraction} {network}" for fraction, network in columns))
    what = "ours | paper: means over seeds" if with_paper else "means over seeds"
    of = ", ".join(f"{dataset}: {metric}" for dataset, metric in texts.metrics_of(main).items())
    notes = (f"{what}, on the test images, of each dataset's own metric ({of})", *texts.absent_notes(main))
    caption = "all datasets, techniques and label fractions"
    return Table(1 if with_paper else None, caption, 2, header, rows, notes, shown)


def table_2(plan: Plan, main: Sequence[Cell]) -> Table:
    """Time of pretraining, as finished runs recorded it, next to the paper's hours where the grid repeats its runs."""
    recorded = times.pretraining_seconds(plan, main)
    dino = [cell for cell in main if cell.method == "dino"]
    kinds, head = _heads(dino)
    networks = kinds or tuple(dict.fromkeys(map(head, dino)))
    rows = []
    for dataset in dict.fromkeys(cell.dataset for cell in main):
        cass = times.mean(recorded.get((dataset, "cass", ""), {}).values())
        backbones = {head(cell): cell.backbone for cell in dino if cell.dataset == dataset}
        each = [times.mean(recorded.get((dataset, "dino", backbones.get(n, "")), {}).values()) for n in networks]
        known = [value for value in each if value is not None]
        both = sum(known) if len(known) == len(networks) else None
        name = next(cell.spec.dataset.name for cell in main if cell.dataset == dataset)
        printed_dino, printed_cass = (paper.TABLE_2_HOURS[method].get(name) for method in ("dino", "cass"))
        rows.append(
            (
                dataset,
                *map(texts.seconds, (*each, both, cass)),
                texts.saving(cass, both),
                *map(texts.hours, (printed_dino, printed_cass)),
                texts.saving(printed_cass, printed_dino),
            )
        )
    titles = {paper.CNN: "CNN", paper.TRANSFORMER: "Transformer"}
    every = "DINO both" if len(networks) == 2 else "DINO all"
    header: tuple[str, ...] = ("dataset", *(f"DINO {titles.get(n, n)}" for n in networks), every, "CASS", "saved")
    notes = ["ours: mean over seeds of the time recorded for steps and validation; CASS trains both networks at once"]
    with_paper = any(cell.printed for cell in main)
    if with_paper:
        about = "100 epochs on one RTX8000; it does not say whether its DINO time is for one network or for both"
        notes.append(f"paper: {about}")
        header = (*header, "DINO paper", "CASS paper", "saved paper")
    rows = [row[: len(header)] for row in rows]
    return Table(2 if with_paper else None, "time of pretraining", 1, header, rows, tuple(notes))


def comparison_table(found: Sequence[Comparison]) -> Table:
    """Techniques minus others, seed by seed, with Holm's correction over all tests of the table."""
    with_paper = any(each.printed is not None for each in found)
    rows: list[tuple[str, ...]] = []
    for each in found:
        ours = each.difference
        row = (
            each.cell.dataset,
            each.cell.row[1],
            each.cell.column,
            each.name,
            texts.difference(ours),
            texts.estimated(ours.over_seeds if ours else None),
            texts.estimated(ours.over_both if ours else None),
            texts.NOTHING if each.p is None else f"{each.p:.3f}",
            texts.NOTHING if ours is None or ours.detectable is None else f"{ours.detectable:.4f}",
        )
        printed = texts.NOTHING if each.printed is None else texts.signed(each.printed, ".4f")
        rows.append((*row, printed) if with_paper else row)
    header = (
        *("dataset", "backbone", "labels", "difference", "ours"),
        *("95 % over seeds", "95 % over seeds and images", "p (Holm)", "would show"),
        *(["paper"] if with_paper else []),
    )
    of = texts.metrics_of([each.cell for each in found])
    notes = (
        "differences in the test metric: " + ", ".join(f"{metric} ({dataset})" for dataset, metric in of.items()),
        "ours: mean ± sample standard deviation of the differences between runs of the same seed (number of seeds)",
        "95 %: Student's t over the seeds, which share one test set; and a bootstrap of seeds and test images (groups "
        "where they are known) together, the same draws for both sides; both off zero: a difference is found",
        "p: the larger of both, two-sided, with Holm's correction over this table; none for fewer than three seeds, "
        "where all seeds differ by the same, and where predictions are missing",
        "would show: the smallest true difference that so many seeds and images would show with a chance of 80 %",
    )
    return Table(None, "techniques compared", 4, header, rows, notes)


def _heads(cells: Sequence[Cell]) -> tuple[tuple[str, ...], Callable[[Cell], str]]:
    """The columns that there are anyway, and what a cell's column is called: by the kind of its network, as in the
    paper, where there is one network of each kind; else by the network, and no column is there anyway."""
    pairs = {(c.dataset, c.arm, c.backbone) for c in cells}
    alone = len({(dataset, arm) for dataset, arm, _ in pairs}) == len({(d, b) for d, _, b in pairs}) == len(pairs)
    return ((paper.CNN, paper.TRANSFORMER), lambda cell: cell.arm) if alone else ((), texts.network_title)


def _technique(cell: Cell) -> str:
    return cell.row[0]


def _percentage(column: str) -> float:
    return float(column.rstrip("%"))
