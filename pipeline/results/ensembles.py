"""Both networks of a technique as one classifier: the mean of their stored scores, for which nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.results.collect import Cell
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id, without_seed
from pipeline.runs.predictions import Predictions
from pipeline.study import paper

BOTH = "CNN + Transformer"
NOTE = f"{BOTH}: the mean of both networks' scores of the same seed; nothing is trained for it"


@dataclass
class Ensemble(Cell):
    """The cell of two networks that share seeds; its runs are those of the first."""

    members: tuple[Cell, ...] = ()

    @cached_property
    def predictions(self) -> dict[int, Predictions]:
        """The mean scores of each seed for which both networks have whole predictions of the same images."""
        first, second = self.members
        return _means(first.predictions, second.predictions)

    @cached_property
    def validation(self) -> dict[int, Predictions]:
        """The same of the validation images."""
        first, second = self.members
        return _means(first.validation, second.validation)

    @property
    def all_runs(self) -> list[Run]:
        return [run for member in self.members for run in member.all_runs]

    @property
    def arm(self) -> str:
        return " + ".join(member.arm for member in self.members)

    @property
    def backbone(self) -> str:
        return " + ".join(member.backbone for member in self.members)

    @property
    def mixed(self) -> bool:
        return any(member.mixed for member in self.members)


def _means(first: Mapping[int, Predictions], second: Mapping[int, Predictions]) -> dict[int, Predictions]:
    out = {}
    for seed in sorted(first.keys() & second.keys()):
        one, other = first[seed], second[seed]
        if (one.keys, one.classes) == (other.keys, other.classes):
            out[seed] = Predictions(one.keys, one.classes, one.targets, (one.scores + other.scores) / 2)
    return out


def ensembles(cells: Sequence[Cell]) -> list[Ensemble]:
    """One for each two cells of a table that are a technique's two networks at one setting and label fraction."""
    pairs: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        pretrain = without_seed(cell.spec).pretrain
        if pretrain is not None and len(pretrain.arms) > 1:
            shared = run_id(pretrain)
        elif len(cell.row) == 2:  # technique and backbone: DINO's and supervised networks
            shared = cell.row[0]
        else:
            continue
        pairs.setdefault((cell.experiment, cell.dataset, shared, f"{cell.label_fraction}"), []).append(cell)
    two = [pair for pair in pairs.values() if len(pair) == 2 and len({(cell.arm, cell.backbone) for cell in pair}) == 2]
    return [_ensemble(one, other) for one, other in two if one.runs.keys() & other.runs.keys()]


def _ensemble(first: Cell, second: Cell) -> Ensemble:
    row, column = first.row, first.column
    if first.column != second.column:  # the table has a column for each arm
        column = f"{first.column} + {second.column}"
    else:
        arms = (first.arm, second.arm)
        networks = f"{first.row[-1]} + {second.row[-1]}"
        row = (*first.row[:-1], BOTH if arms == (paper.CNN, paper.TRANSFORMER) else networks)
    out = Ensemble(
        first.experiment,
        first.dataset,
        row,
        column,
        first.metric,
        first.spec,
        runs={seed: run for seed, run in first.runs.items() if seed in second.runs},
        groups=first.groups,
        members=(first, second),
    )
    for seed, predictions in out.predictions.items():
        from pipeline.learn import metrics

        result = first.results[seed]
        found = metrics.score(predictions.targets, predictions.scores, predictions.classes, result.task)
        out.results[seed] = dataclasses.replace(result, metrics=found, notes={})
    return out
