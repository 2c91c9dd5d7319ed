"""The report as one JSON object for programs: all that the page says, with numbers as numbers (report.schema.json).

`SCHEMA_VERSION` is raised whenever a key changes its meaning or goes; new keys may come without that.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.results import per_class, texts, times
from pipeline.results.claims.verdict import Verdict
from pipeline.results.collect import METRICS, Cell
from pipeline.results.content import Report
from pipeline.results.datasets import DataSection
from pipeline.results.differences import Comparison
from pipeline.results.scores import Best
from pipeline.results.statistics import Estimate
from pipeline.results.tables import Table

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parent / "report.schema.json"

Ends = tuple[float, float] | None


def text(report: Report) -> str:
    """The object as JSON text; the same runs give the same text."""
    return json.dumps(content(report), indent=1, ensure_ascii=False) + "\n"


def content(report: Report) -> dict[str, Any]:
    """The object, as the schema describes it."""
    plan, summary = report.plan, report.summary
    every = zip([*report.cells, *report.ensembles], report.intervals, strict=True)
    states = [planned.state for planned in plan.runs.values()]
    return {
        "schema_version": SCHEMA_VERSION,
        "title": summary.title,
        "grid": plan.grid,
        "preset": plan.preset.name,
        "seeds": sorted({spec.seed for spec in plan.wanted}),
        "runs": {state: states.count(state) for state in sorted(set(states))},
        "software": _software(report),
        "asked": list(summary.asked),
        "found": list(summary.found),
        "warnings": report.warnings,
        "limits": list(summary.limits),
        "methods": [dataclasses.asdict(paragraph) for paragraph in report.methods],
        "datasets": [_dataset(section) for section in report.data],
        "results": [_result(cell, ends) for cell, ends in every],
        "best": [_best(each) for each in report.best],
        "comparisons": [_comparison(each) for each in report.compared],
        "claims": [_claim(verdict) for verdict in report.claims],
        "tables": [_table(table) for table in report.every_table],
    }


def _software(report: Report) -> dict[str, Any]:
    results = [planned.run.result() for planned in report.plan.in_state("done")]
    versions: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.versions.items():
            versions.setdefault(name, set()).add(version)
    return {
        "code": sorted({code for result in results for code in result.codes or [result.code]}),
        "versions": {name: sorted(found) for name, found in versions.items()},
        "devices": sorted({result.device for result in results}),
        "precisions": sorted({result.precision for result in results}),
        "seconds": times.compute_seconds(report.plan, results),
    }


def _dataset(section: DataSection) -> dict[str, Any]:
    parts = {part: dataclasses.asdict(counts) for part, counts in section.counts.items()}
    return {
        "title": section.title,
        "name": section.ref.name,
        "fingerprint": section.ref.fingerprint,
        "split": section.split or None,
        "parts": parts,
        "facts": list(section.lines),
    }


def _result(cell: Cell, ends: Ends) -> dict[str, Any]:
    scores = {metric: _values(cell.scores(metric)) for metric in METRICS}
    return {
        "experiment": cell.experiment,
        "dataset": cell.dataset,
        "row": list(cell.row),
        "column": cell.column,
        "method": cell.method,
        "arm": cell.arm,
        "backbone": cell.backbone,
        "label_fraction": cell.label_fraction,
        "status": cell.status,
        "wanted_seeds": cell.wanted,
        "metric": cell.metric,
        "validation": _values(cell.val_scores),
        "test": {**_values(cell.scores(cell.metric)), "interval": _ends(ends)},
        "other_test_metrics": {name: found for name, found in scores.items() if name != cell.metric},
        "paper": None if cell.printed is None else dataclasses.asdict(cell.printed),
        "mixed_devices": cell.mixed,
        "runs": [run.id for run in cell.all_runs],
    }


def _values(by_seed: Mapping[int, float]) -> dict[str, Any]:
    values = list(by_seed.values())
    return {"mean": _mean(values), "sd": _deviation(values), "by_seed": {str(s): v for s, v in sorted(by_seed.items())}}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _ends(ends: Ends) -> list[float] | None:
    return None if ends is None else list(ends)


def _best(best: Best) -> dict[str, Any]:
    def scored(found: per_class.ClassScores) -> dict[str, Any]:
        scores = {
            name: {"mean": _mean(found.values[name]), "interval": _ends(found.intervals[name])}
            for name in per_class.SCORES
        }
        return {"name": found.name, "test_images": found.images, **scores}

    return {
        "dataset": best.cell.dataset,
        "setting": best.title,
        "among": best.settings,
        "run": best.run.id,
        "metric": best.cell.metric,
        "validation": best.validation,
        "test": best.test,
        "classes": [scored(each) for each in best.classes],
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    difference = found.difference

    def estimated(value: Estimate | None) -> dict[str, Any] | None:
        return None if value is None else {"interval": list(value.interval), "p": value.p}

    return {
        "dataset": found.cell.dataset,
        "network": texts.network_title(found.cell),
        "label_fraction": found.cell.label_fraction,
        "difference": found.name,
        "metric": found.cell.metric,
        "mean": difference and difference.mean,
        "seeds": difference.seeds if difference else 0,
        "over_seeds": estimated(difference.over_seeds if difference else None),
        "over_seeds_and_images": estimated(difference.over_both if difference else None),
        "p_holm": found.p,
        "detectable": difference and difference.detectable,
        "found": found.found,
    }


def _claim(verdict: Verdict) -> dict[str, Any]:
    return {**dataclasses.asdict(verdict), "lacking": list(verdict.lacking)}


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "header": list(table.header),
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
    }
