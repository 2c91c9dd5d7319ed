"""What the probes found of pretraining runs: tables of frozen features, start → end, and each value as CSV."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core import files
from pipeline.jobs.plan import Plan
from pipeline.results import texts
from pipeline.results.tables import Table
from pipeline.runs.identity import run_id
from pipeline.runs.methods import method_info
from pipeline.runs.result import Result
from pipeline.runs.spec import Arm, PretrainSpec, method_of

PARTS = ("val", "test")
LINEAR = "linear_"
MONITOR = ("spread", "rank", "collapsed")


@dataclass
class Recipe:
    """Pretraining runs that differ in their seeds alone."""

    spec: PretrainSpec
    """The spec of its first seed."""
    variant: str
    """Four hexadecimal digits for what all seeds have in common."""
    wanted: int = 0
    results: dict[str, Result] = field(default_factory=dict)
    """The results of its finished runs, by run id."""
    seeds: dict[str, int] = field(default_factory=dict)

    def pairs(self, name: str) -> list[tuple[float | None, float]]:
        """A figure of the probes at the start (None where it is not known) and at the end, of each run that has it."""
        found = [(result.probes.get("start", {}), result.probes.get("end", {})) for result in self.results.values()]
        return [(start.get(name), end[name]) for start, end in found if end.get(name) is not None]


def recipes(plan: Plan) -> list[Recipe]:
    """The pretraining runs of a plan by recipe; where a grid holds the main experiment, those of that alone."""
    main = {run_id(e.spec.pretrain) for e in plan.entries if e.experiment == "main" and e.spec.pretrain}
    out: dict[str, Recipe] = {}
    for name, planned in plan.runs.items():
        spec = planned.spec
        if not isinstance(spec, PretrainSpec) or (main and name not in main):
            continue
        common = run_id(dataclasses.replace(spec, seed=0))
        recipe = out.setdefault(common, Recipe(spec, common[-4:]))
        recipe.wanted += 1
        if planned.state == "done":
            recipe.results[name], recipe.seeds[name] = planned.run.result(), spec.seed
    return list(out.values())


def tables(plan: Plan) -> list[Table]:
    """A table for each dataset with a finished pretraining run: a row for each method and arm."""
    found = [recipe for recipe in recipes(plan) if recipe.results]
    return [
        _table([recipe for recipe in found if recipe.spec.dataset == dataset], plan)
        for dataset in dict.fromkeys(recipe.spec.dataset for recipe in found)
    ]


def _table(members: Sequence[Recipe], plan: Plan) -> Table:
    judged = [result.probes for recipe in members for result in recipe.results.values() if result.probes]
    names = {name for probes in judged for name in probes["end"]}
    part = "test" if any("_test_" in name for name in names) else "val"
    percents = sorted({name.partition(LINEAR)[2] for name in names if LINEAR in name}, key=float)
    probes = ["knn", *(LINEAR + percent for percent in percents)]
    metric = texts.METRIC_TITLES[judged[0]["metric"]] if judged else ""
    rows = []
    for recipe in members:
        method = method_of(recipe.spec)
        kind = (method, [arm.name for arm in recipe.spec.arms])
        alone = [(method_of(r.spec), [arm.name for arm in r.spec.arms]) for r in members].count(kind) == 1
        title = method_info(method).title + ("" if alone else f" #{recipe.variant}")
        rows += [(title, *_row(recipe, arm, part, probes)) for arm in recipe.spec.arms]
    dataset = plan.title_of(members[0].spec.dataset)
    what = {"val": "validation", "test": "test"}[part]
    return Table(
        number=None,
        caption=f"{dataset}: frozen features, start → end" + (f", {what} {metric}" if judged else ""),
        labels=3,
        header=("method", "arm", "backbone", "k-NN", *(f"linear {p}%" for p in percents), *MONITOR),
        rows=rows,
        notes=_notes(judged, plan),
    )


def _row(recipe: Recipe, arm: Arm, part: str, probes: Sequence[str]) -> list[str]:
    row = [arm.name, arm.backbone.split(".")[0]]
    row += [start_to_end(recipe.pairs(f"{arm.name}_{part}_{probe}"), recipe.wanted) for probe in probes]
    results = list(recipe.results.values())
    for what, digits in (("spread", 3), ("rank", 1)):
        values = [r.metrics[f"{arm.name}_{what}"] for r in results if f"{arm.name}_{what}" in r.metrics]
        row.append(f"{statistics.fmean(values):.{digits}f}" if values else texts.NOTHING)
    collapsed = sum(arm.name in result.collapsed for result in results)
    return [*row, f"{collapsed} of {len(results)}" if collapsed else "no"]


def start_to_end(pairs: Sequence[tuple[float | None, float]], wanted: int) -> str:
    """`0.746 → 0.786 (+0.040 ± 0.012, 3)`: the means over seeds, and the gain with its deviation and number of seeds.

    `–` where no run was judged, or for a start that is not known.
    """
    if not pairs:
        return texts.NOTHING
    end = statistics.fmean(end for _, end in pairs)
    n = str(len(pairs)) if len(pairs) == wanted else f"{len(pairs)} of {wanted}"
    known = [(start, end) for start, end in pairs if start is not None]
    if len(known) < len(pairs):
        return f"{texts.NOTHING} → {end:.3f} ({n})"
    gains = [end - start for start, end in known]
    deviation = f" ± {statistics.stdev(gains):.3f}" if len(gains) > 1 else ""
    start = statistics.fmean(start for start, _ in known)
    return f"{start:.3f} → {end:.3f} ({statistics.fmean(gains):+.3f}{deviation}, {n})"


def _notes(judged: Sequence[dict[str, Any]], plan: Plan) -> tuple[str, ...]:
    if judged:
        images, labelled = judged[0]["images"], judged[0]["labelled"]
        counts = ", ".join(f"{percent}%: {count}" for percent, count in labelled.items())
        judges = " and ".join(f"{images[part]} {part}" for part in PARTS if part in images)
        notes = [
            "mean over seeds before the first step → at the end (the gain ± its sample standard deviation, number of "
            "seeds); nothing is fine-tuned",
            "k-NN: 20 neighbours by cosine, all labels; linear: logistic regression on standardised features, by the "
            f"fraction of the labels (images: {counts}; judged on {judges} images)",
            "spread, rank, collapsed: the collapse monitor at the end",
        ]
    else:
        notes = [
            "no finished run was judged by probes: it ended before there were any, its images have no labels, or its "
            "cluster file has probes = false"
        ]
    return (*notes, *filter(None, [texts.stand_in_note(plan)]))


COLUMNS = "dataset method variant seed run arm backbone part probe label_fraction images metric start end gain".split()


def as_csv(plan: Plan) -> str:
    """A line for each finished run, arm, part, probe and label fraction; empty where no run was judged."""
    rows: list[Sequence[object]] = []
    for recipe in recipes(plan):
        for run, result in recipe.results.items():
            dataset = plan.title_of(recipe.spec.dataset)
            of_run = (dataset, method_of(recipe.spec), recipe.variant, recipe.seeds[run], run)
            for arm in recipe.spec.arms:
                rows += [(*of_run, arm.name, arm.backbone, *values) for values in _values(arm.name, result.probes)]
    return files.csv_text([COLUMNS, *rows]) if rows else ""


def _values(arm: str, probes: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """What the columns from `part` on hold of an arm."""
    labelled = probes.get("labelled", {})
    for part in PARTS:
        for probe, percent in [("knn", max(labelled, key=float, default="")), *(("linear", p) for p in labelled)]:
            name = f"{arm}_{part}_knn" if probe == "knn" else f"{arm}_{part}_{LINEAR}{percent}"
            if name in probes.get("end", {}):
                start, end = probes["start"].get(name), probes["end"][name]
                gain = None if start is None or end is None else end - start
                scores = ("" if value is None else value for value in (start, end, gain))
                yield part, probe, float(percent) / 100, labelled[percent], probes["metric"], *scores
