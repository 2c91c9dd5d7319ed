"""The paper's tables in its shape: ours (mean ± sample sd, n) beside what it printed, cell by cell."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.core.console import duration
from pipeline.jobs.plan import Plan
from pipeline.results.collect import Cell
from pipeline.results.statistics import Paired, holm, paired
from pipeline.runs.folder import Result
from pipeline.runs.spec import PretrainSpec, method_of
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, PLAIN

MIXED = "*"
METRIC_TITLES = {
    "f1_micro": "F1 (micro, at 0.5)",
    "f1_macro": "F1 (macro)",
    "balanced_accuracy": "balanced accuracy",
    "recall_micro": "recall (micro, at 0.5)",
    "accuracy": "accuracy",
    "auroc": "AUROC (macro)",
}
NOTE = "ours: mean ± sample standard deviation over seeds (number of seeds)"


@dataclass(frozen=True)
class Table:
    """A table as rows of text, with a caption and notes."""

    number: int | None
    """The paper's table it is, if it is one."""
    caption: str
    labels: int
    """How many columns come before the values."""
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...]
    cells: Mapping[tuple[int, int], Cell] = field(default_factory=dict)
    """The cell behind (row, column), where one is."""

    @property
    def title(self) -> str:
        return f"Table {self.number} · {self.caption}" if self.number else self.caption


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """All tables that the cells of a plan make, the paper's in its order, then the others."""
    out = []
    for experiment, dataset in dict.fromkeys((cell.experiment, cell.dataset) for cell in cells):
        out.append(_table([cell for cell in cells if (cell.experiment, cell.dataset) == (experiment, dataset)], plan))
    main = [cell for cell in cells if cell.experiment == "main"]
    if main:
        out += [table_1(main), table_2(plan, main), comparisons(main)]
    if warning := stand_ins(plan):
        out = [replace(table, notes=(*table.notes, warning)) for table in out]
    return sorted(out, key=lambda table: table.number or 99)


def _table(cells: Sequence[Cell], plan: Plan) -> Table:
    """One experiment on one dataset: a row a setting, a pair of columns (ours, paper) a score."""
    experiment = EXPERIMENTS.get(cells[0].experiment, PLAIN)
    labels = experiment.rows
    if len(labels) != len(cells[0].row):  # of a grid of one's own
        labels = tuple(f"setting {number}" for number in range(1, len(cells[0].row) + 1))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    if all(column.endswith("%") for column in columns):
        columns.sort(key=lambda column: float(column.rstrip("%")))
    both = any(cell.printed for cell in cells)
    rows: list[tuple[str, ...]] = []
    behind: dict[tuple[int, int], Cell] = {}
    for number, names in enumerate(dict.fromkeys(cell.row for cell in cells)):
        row = list(names)
        for column in columns:
            cell = next((c for c in cells if (c.row, c.column) == (names, column)), None)
            if cell:
                behind[number, len(row)] = cell
            row += [ours(cell) if cell else "–", *([printed(cell)] if both else [])]
        rows.append(tuple(row))
    heads = [f"{column} {who}" for column in columns for who in ("ours", "paper")] if both else columns
    metric = METRIC_TITLES[cells[0].metric]
    dataset = cells[0].dataset
    return Table(
        experiment.tables.get(dataset),
        f"{dataset}: {experiment.title}, test {metric}",
        len(labels),
        (*labels, *heads),
        rows,
        (*_notes(cells), *_times(cells, plan)),
        behind,
    )


def table_1(main: Sequence[Cell]) -> Table:
    """Tables 3 to 6 in one, without their deviations: ours | paper."""
    found = {(c.dataset, _technique(c), c.arm, c.column): c for c in main}
    columns = sorted({c.column for c in main}, key=lambda column: float(column.rstrip("%")))
    places = [(column, arm) for column in columns for arm in (paper.CNN, paper.TRANSFORMER)]
    rows: list[tuple[str, ...]] = []
    behind: dict[tuple[int, int], Cell] = {}
    for dataset in dict.fromkeys(c.dataset for c in main):
        for technique in dict.fromkeys(_technique(c) for c in main):
            row = [dataset, technique]
            for column, arm in places:
                if cell := found.get((dataset, technique, arm, column)):
                    behind[len(rows), len(row)] = cell
                row.append(_brief(cell))
            rows.append(tuple(row))
    header = ("dataset", "technique", *(f"{column} {arm}" for column, arm in places))
    notes = ("ours | paper, means over seeds; each dataset's own metric, see Tables 3 to 6",)
    return Table(1, "all datasets, techniques and label fractions", 2, header, rows, notes, behind)


def table_2(plan: Plan, main: Sequence[Cell]) -> Table:
    """Hours of pretraining, from the time recorded by finished runs, beside the paper's."""
    seconds = pretraining_seconds(plan, main)
    rows = []
    for dataset in dict.fromkeys(cell.dataset for cell in main):
        cass = _all([seconds.get((dataset, "cass", ""), [])])
        one = [_all([seconds.get((dataset, "dino", arm), [])]) for arm in (paper.CNN, paper.TRANSFORMER)]
        both = one[0] + one[1] if one[0] is not None and one[1] is not None else None
        rows.append(
            (
                dataset,
                *(_long(value) for value in (*one, both, cass)),
                saving(cass, both),
                *(_hours(paper.TABLE_2_HOURS[method].get(dataset)) for method in ("dino", "cass")),
                saving(paper.TABLE_2_HOURS["cass"].get(dataset), paper.TABLE_2_HOURS["dino"].get(dataset)),
            )
        )
    header = "dataset,DINO CNN,DINO Transformer,DINO both,CASS,saved,DINO paper,CASS paper,saved paper"
    notes = (
        "ours: mean over seeds of the time recorded for steps and validation; CASS trains both networks at once",
        "the paper: 100 epochs on one RTX8000; whether its DINO is one network or both is not said",
    )
    return Table(2, "time of pretraining", 1, tuple(header.split(",")), rows, notes)


def comparisons(main: Sequence[Cell]) -> Table:
    """CASS minus DINO and minus supervised, seed by seed, with Holm's correction over all that can be tested."""
    places = [c for c in main if _technique(c) == "CASS"]
    found = {(c.dataset, _technique(c), c.arm, c.column): c for c in main}
    pairs: list[tuple[Cell, str, Paired | None, float | None]] = []
    for cell in places:
        for other in ("DINO", "Supervised"):
            rival = found.get((cell.dataset, other, cell.arm, cell.column))
            if rival:
                difference = paired(cell.scores(cell.metric), rival.scores(rival.metric))
                told = None
                if cell.printed and rival.printed:
                    told = cell.printed.value - rival.printed.value
                pairs.append((cell, other, difference, told))
    corrected = holm([difference.p if difference else None for _, _, difference, _ in pairs])
    rows: list[tuple[str, ...]] = []
    for (cell, other, difference, told), p in zip(pairs, corrected, strict=True):
        rows.append(
            (
                cell.dataset,
                cell.row[1],
                cell.column,
                f"CASS − {other}",
                _difference(difference),
                "–" if p is None else f"{p:.3f}",
                "–" if told is None else f"{told:+.4f}",
            )
        )
    header = ("dataset", "backbone", "labels", "difference", "ours", "p (Holm)", "paper")
    notes = (
        "ours: mean ± sample sd of the differences of equal seeds (n); p: paired t-test, two-sided, n of 3 or more",
    )
    return Table(None, "CASS beside the others", 4, header, rows, notes)


# --- Texts -----------------------------------------------------------------------------------------------------------


def ours(cell: Cell) -> str:
    """`0.9909 ± 0.0032 (5)`, `0.9909 (1)`, `0.9909 ± 0.0032 (3 of 5)`, or `– (0 of 5)`."""
    mean, deviation = cell.mean(cell.metric), cell.deviation(cell.metric)
    n = len(cell.values(cell.metric))
    count = str(n) if n == cell.wanted else f"{n} of {cell.wanted}"
    if mean is None:
        return f"– ({count})"
    spread = f" ± {deviation:.4f}" if deviation is not None else ""
    return f"{mean:.4f}{spread} ({count}){MIXED if cell.mixed else ''}"


def printed(cell: Cell | None) -> str:
    if cell is None or cell.printed is None:
        return "–"
    return f"{cell.printed.value:.4f} ± {cell.printed.spread:.4g}"


def saving(less: float | None, more: float | None) -> str:
    return f"{1 - less / more:.0%}" if less is not None and more else "–"


def _technique(cell: Cell) -> str:
    return cell.row[0]


def _brief(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    mean = cell.mean(cell.metric)
    told = f"{cell.printed.value:.4f}" if cell.printed else "–"
    return f"{'–' if mean is None else format(mean, '.4f')} | {told}"


def _difference(found: Paired | None) -> str:
    if found is None:
        return "–"
    spread = f" ± {found.deviation:.4f}" if found.deviation is not None else ""
    return f"{found.mean:+.4f}{spread} ({found.n})"


def _long(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _hours(hours: float | None) -> str:
    return "–" if hours is None else duration(hours * 3600)


# --- Times -----------------------------------------------------------------------------------------------------------


def pretraining_seconds(plan: Plan, cells: Iterable[Cell]) -> dict[tuple[str, str, str], list[float]]:
    """Seconds of the finished pretraining runs behind cells, by (dataset, method, arm; "" where it has several)."""
    found: dict[str, tuple[PretrainSpec, Result]] = {}
    for cell in cells:
        if cell.spec.pretrain is None:
            continue
        for seed_run in cell.runs.values():
            parent = plan.runs[seed_run.id].parent
            if parent and plan.runs[parent].state == "done" and parent not in found:
                spec = plan.runs[parent].spec
                assert isinstance(spec, PretrainSpec)
                found[parent] = spec, plan.runs[parent].run.result()
    out: dict[tuple[str, str, str], list[float]] = {}
    for spec, result in found.values():
        arm = spec.arms[0].name if len(spec.arms) == 1 else ""
        out.setdefault((spec.dataset.name, method_of(spec), arm), []).append(result.seconds)
    return out


def _all(lists: Iterable[list[float]]) -> float | None:
    values = [value for part in lists for value in part]
    return statistics.fmean(values) if values else None


def _times(cells: Sequence[Cell], plan: Plan) -> list[str]:
    """What Tables 19 and 20 are discussed with: how long each pair of networks took."""
    if cells[0].experiment not in ("two_cnns", "two_transformers"):
        return []
    out = []
    for names in dict.fromkeys(cell.row for cell in cells):
        row = [cell for cell in cells if cell.row == names]
        mean = _all(pretraining_seconds(plan, row).values())
        told = paper.PAIR_HOURS.get(" | ".join(names)) if row[0].printed else None
        out.append(f"pretraining {' with '.join(names)}: ours {_long(mean)}, paper {_hours(told)}")
    return out


def stand_ins(plan: Plan) -> str:
    """What is to be said above scores of drawn images; empty where all are the datasets'."""
    names = [card.ref.name for card in plan.datasets if card.stand_in]
    if not names:
        return ""
    return f"A STAND-IN, not the dataset: {', '.join(names)} here are drawn images; scores on them mean nothing"


def _notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    notes = [NOTE]
    if numbers := sorted({cell.printed.table for cell in cells if cell.printed}):
        notes.append(f"paper: Table {', '.join(map(str, numbers))}; at 384 pixels, from ImageNet weights unless said")
    if any(cell.mixed for cell in cells):
        notes.append(f"{MIXED} the seeds of this cell ran on different devices or in different precisions")
    scores = [result.metrics["majority"] for cell in cells for result in cell.results.values()]
    if scores and (commonest := (scores[0] or {}).get(cells[0].metric)) is not None:
        notes.append(f"always naming the commonest class of the test part scores {commonest:.4f}")
    return tuple(notes)
