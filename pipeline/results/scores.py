"""The main table of a report, validation next to test with its interval and AUROC; the best setting of each dataset,
chosen on validation alone, and its scores by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from pipeline.core.console import counted
from pipeline.jobs.plan import Plan
from pipeline.results import per_class, texts
from pipeline.results.bootstrap import cell_interval
from pipeline.results.collect import Cell
from pipeline.results.ensembles import Ensemble
from pipeline.results.per_class import ClassScores
from pipeline.results.tables import Table
from pipeline.runs.folder import Run
from pipeline.runs.methods import CONTROLS


@dataclass(frozen=True)
class Best:
    """The setting of a dataset with the highest mean validation score, at the largest label fraction."""

    cell: Cell
    settings: int
    """Among how many it is the best."""

    @property
    def run(self) -> Run:
        """Its seed with the highest validation score."""
        seed = max(self.cell.val_scores, key=lambda seed: (self.cell.val_scores[seed], -seed))
        return self.cell.runs[seed]

    @property
    def title(self) -> str:
        return title_of(self.cell)

    @property
    def validation(self) -> float:
        return fmean(self.cell.val_scores.values())

    @property
    def test(self) -> float | None:
        """Of the seeds that have a validation score."""
        scores = self.cell.scores(self.cell.metric)
        values = [scores[seed] for seed in self.cell.val_scores if seed in scores]
        return fmean(values) if values else None

    @cached_property
    def classes(self) -> list[ClassScores]:
        return per_class.of_cell(self.cell)


def title_of(cell: Cell) -> str:
    """`CASS · ViT B/16`, and the column where that is no label fraction."""
    return " · ".join([*cell.row, *([] if cell.column.endswith("%") else [cell.column])])


def main_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the main table: where a grid holds the main experiment, of that alone."""
    return [cell for cell in cells if cell.experiment == "main"] or list(cells)


def largest(cells: Sequence[Cell]) -> list[Cell]:
    """Of each dataset the cells with the largest label fraction."""
    most = {name: max(c.label_fraction for c in cells if c.dataset == name) for name in {c.dataset for c in cells}}
    return [cell for cell in cells if cell.label_fraction == most[cell.dataset]]


def best(cells: Sequence[Cell]) -> list[Best]:
    """One for each dataset with a finished fine-tune that has validation scores; frozen features are no model, and a
    control is no setting to choose."""
    trained = [
        cell
        for cell in largest(main_cells(cells))
        if not (isinstance(cell, Ensemble) or cell.spec.probe or cell.method in CONTROLS) and cell.val_scores
    ]
    out = []
    for dataset in dict.fromkeys(cell.dataset for cell in trained):
        members = [cell for cell in trained if cell.dataset == dataset]
        out.append(Best(max(members, key=lambda cell: fmean(cell.val_scores.values())), len(members)))
    return out


# --- Tables ----------------------------------------------------------------------------------------------------------


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """A table for each dataset: a row for each setting at the largest label fraction that has a finished run."""
    shown = largest(main_cells(cells))
    members = {
        name: [cell for cell in shown if cell.dataset == name] for name in dict.fromkeys(c.dataset for c in shown)
    }
    return [_table(plan, each) for each in members.values() if any(cell.results for cell in each)]


def _table(plan: Plan, members: Sequence[Cell]) -> Table:
    cells = [cell for cell in members if cell.results]
    metric = texts.METRIC_TITLES[cells[0].metric]
    header = ("setting", f"validation {metric}", f"test {metric}", "95 % of test", "AUROC (test)", "95 % of AUROC")
    notes = [
        "mean ± sample standard deviation over seeds (number of seeds); early stopping and every choice saw validation "
        "images, so their scores flatter; test images were scored once, at the end",
        "95 %: of the mean, over 1,000 resamples of the test images (of patients or lesions where they are known); "
        "AUROC: the mean over classes, each against the rest",
        *texts.score_notes(cells),
        *filter(None, [texts.stand_in_note(plan)]),
    ]
    if waiting := len(members) - len(cells):
        notes.append(f"{counted(waiting, 'setting')} without a finished run left out")
    rows = [_row(cell) for cell in cells]
    cells_at = {(number, 2): cell for number, cell in enumerate(cells)}
    caption = (
        f"{cells[0].dataset}: validation next to test, {metric}, {100 * cells[0].label_fraction:g} % of the labels"
    )
    return Table(None, caption, 1, header, rows, tuple(notes), cells_at)


def _row(cell: Cell) -> tuple[str, ...]:
    return (
        title_of(cell),
        texts.mean_of(list(cell.val_scores.values())),
        texts.our_score(cell),
        texts.interval(cell_interval(cell)),
        texts.mean_of(cell.values("auroc")),
        texts.interval(cell_interval(cell, "auroc")),
    )


def best_table(plan: Plan, found: Sequence[Best]) -> Table:
    """The best setting of each dataset, and what always naming the most frequent class would score."""
    rows = []
    for each in found:
        cell = each.cell
        majority = [(result.metrics.get("majority") or {}).get(cell.metric) for result in cell.results.values()][0]
        row = (cell.dataset, texts.METRIC_TITLES[cell.metric], *_row(cell))
        rows.append((*row, texts.NOTHING if majority is None else f"{majority:.4f}"))
    header = ("dataset", "metric", "best setting", "validation", "test", "95 % of test", "AUROC", "95 % of AUROC")
    notes = (
        "the setting with the highest mean validation score, of those with the most labels: "
        + ", ".join(
            f"{each.cell.dataset} {100 * each.cell.label_fraction:g} % (of {counted(each.settings, 'setting')})"
            for each in found
        ),
        "frozen features, means of two networks and controls are not among them",
        f"its run with the highest validation score: {', '.join(each.run.id for each in found)}",
        "majority: what always naming the most frequent class scores",
        *texts.absent_notes([each.cell for each in found]),
        *filter(None, [texts.stand_in_note(plan)]),
    )
    cells_at = {(number, 4): each.cell for number, each in enumerate(found)}
    caption = "The best setting of each dataset, chosen on validation"
    return Table(None, caption, 3, (*header, "majority"), rows, notes, cells_at)


def class_tables(plan: Plan, found: Sequence[Best]) -> list[Table]:
    """The scores by class of each dataset's best setting."""
    return [_class_table(plan, each) for each in found if each.classes]


def _class_table(plan: Plan, best: Best) -> Table:
    rows = [
        (each.name, f"{each.images}", *(_scored(each, score) for score in per_class.SCORES)) for each in best.classes
    ]
    notes = (
        f"{best.title}, the best of {counted(best.settings, 'setting')} by the mean validation score; its best run is "
        f"{best.run.id}",
        "mean over seeds on the test images, each class against the rest, and its 95 % interval over resampled test "
        "images (patients or lesions where they are known); recall is the sensitivity",
        *filter(None, [texts.stand_in_note(plan)]),
    )
    header = ("class", "test images", "precision", "recall", "F1", "AUROC")
    return Table(None, f"{best.cell.dataset}: scores by class of the best setting", 1, header, rows, notes)


def _scored(found: ClassScores, score: str) -> str:
    """`0.8123 (0.7712 to 0.8502)`, or `–`."""
    values, ends = found.values[score], found.intervals[score]
    if not values:
        return texts.NOTHING
    return f"{fmean(values):.4f}" + (f" ({texts.interval(ends)})" if ends else "")
