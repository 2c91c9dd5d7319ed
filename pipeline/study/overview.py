"""What a grid makes: one row for each table, with its size and the runs that it needs. No run has to exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.runs.identity import run_id, without_seed
from pipeline.runs.spec import kind_of
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, PLAIN
from pipeline.study.setting import TableEntry

HEADER = ("table", "dataset", "experiment", "rows × columns", "fine-tunes", "pretraining runs", "shared")
TABLE_1 = "all datasets, techniques and label fractions"
TABLE_2 = "time of pretraining"
TABLE_2_COLUMNS = ("DINO CNN", "DINO Transformer", "DINO both", "CASS", "saved")


@dataclass(frozen=True)
class TableOverview:
    """One table that the runs of a grid make."""

    number: int | None
    """The paper's number; None for a table that the paper does not have."""
    dataset: str
    title: str
    rows: int
    columns: int
    """Columns of our scores or times, without labels and without the paper's."""
    finetunes: int
    pretrains: int
    """The pretraining runs that it needs: those of its fine-tunes, or those whose time it shows."""
    shared: int
    """How many of its fine-tunes and pretraining runs other tables need too.

    Tables 1 and 2 repeat runs of other tables, so all of theirs are shared, and nobody's are because of them.
    """

    def texts(self) -> tuple[str, ...]:
        """The row under `HEADER`."""
        size = f"{self.rows} × {self.columns}"
        number = str(self.number or "")
        return number, self.dataset, self.title, size, str(self.finetunes), str(self.pretrains), str(self.shared)


def table_overview(entries: Sequence[TableEntry], of_paper: Collection[str]) -> list[TableOverview]:
    """A row for each table of these entries: the paper's in its order, then the others.

    of_paper: the ids of the paper's own runs (`experiments.paper_runs`); a table without any has no number.
    """
    parts: dict[tuple[str, str], list[TableEntry]] = {}
    for entry in entries:
        parts.setdefault((entry.experiment, entry.spec.dataset.name), []).append(entry)
    runs = {part: _runs(found) for part, found in parts.items()}
    wanting = Counter(identity for found in runs.values() for identity in found)
    out = []
    for (name, dataset), found in parts.items():
        experiment = EXPERIMENTS.get(name, PLAIN)
        rows, columns = len({entry.row for entry in found}), len({entry.column for entry in found})
        shared = sum(wanting[identity] > 1 for identity in runs[name, dataset])
        out.append(
            TableOverview(
                experiment.tables.get(dataset) if _has_any(found, of_paper) else None,
                dataset,
                experiment.title,
                rows,
                columns,
                *_counts(runs[name, dataset]),
                shared,
            )
        )
    main = [entry for entry in entries if entry.experiment == "main"]
    if main:
        out += _of_main(main, with_paper=_has_any(main, of_paper))
    return sorted(out, key=lambda table: table.number or 99)


def _has_any(entries: Sequence[TableEntry], of_paper: Collection[str]) -> bool:
    return any(run_id(without_seed(entry.spec)) in of_paper for entry in entries)


def _of_main(main: Sequence[TableEntry], *, with_paper: bool) -> list[TableOverview]:
    """Tables 1 and 2, which all datasets' runs of the main experiment make; the first of several datasets only, the
    second of CASS and DINO, unless the paper's values are next to ours."""
    datasets = list(dict.fromkeys(entry.spec.dataset.name for entry in main))
    title = datasets[0] if len(datasets) == 1 else f"all {len(datasets)}"
    techniques, fractions = {entry.row[0] for entry in main}, {entry.column for entry in main}
    arms = (paper.CNN, paper.TRANSFORMER)
    scores = _runs(main)
    timed = {
        run_id(pretrain): "pretrain"
        for pretrain in (entry.spec.pretrain for entry in main)
        if pretrain and pretrain.method.name in paper.TABLE_2_HOURS
    }
    first = len(datasets) * len(techniques), len(fractions) * len(arms)
    second = len(datasets), len(TABLE_2_COLUMNS)
    numbers = (1, 2) if with_paper else (None, None)
    out = []
    if with_paper or len(datasets) > 1:
        out.append(TableOverview(numbers[0], title, TABLE_1, *first, *_counts(scores), len(scores)))
    if with_paper or timed:
        out.append(TableOverview(numbers[1], title, TABLE_2, *second, *_counts(timed), len(timed)))
    return out


def _runs(entries: Iterable[TableEntry]) -> dict[str, str]:
    """The kind of each run that these entries need, by its id."""
    out = {}
    for entry in entries:
        out[run_id(entry.spec)] = kind_of(entry.spec)
        if entry.spec.pretrain:
            out[run_id(entry.spec.pretrain)] = kind_of(entry.spec.pretrain)
    return out


def _counts(runs: Mapping[str, str]) -> tuple[int, int]:
    """How many of the runs are fine-tunes, and how many pretraining runs."""
    kinds = Counter(runs.values())
    return kinds["finetune"], kinds["pretrain"]
