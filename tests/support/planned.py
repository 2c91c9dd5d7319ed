"""Planned runs of a tiny dataset that nobody trains."""

from __future__ import annotations

from pathlib import Path

import tiny

from pipeline.jobs.plan import PlannedRun
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id


class shards:
    name, fingerprint = "tiny", "0" * 16


def planned_runs(folder: Path, seeds=(77, 78, 79)) -> list[PlannedRun]:
    """For each seed a pretraining run, its fine-tunes of both arms at two label fractions, and supervised ones."""
    out = []

    def add(spec, parent=None):
        run = Run(folder / run_id(spec))
        out.append(PlannedRun(run, spec, "missing", parent.run.id if parent else None))
        return out[-1]

    for seed in seeds:
        parent = add(tiny.make_pretrain(shards, seed=seed))
        for arm in (0, 1):
            for fraction in (0.5, 1.0):
                add(tiny.make_finetune(shards, parent.spec, arm=arm, seed=seed, label_fraction=fraction), parent)
                add(tiny.make_finetune(shards, None, arm=arm, seed=seed, label_fraction=fraction))
    return out
