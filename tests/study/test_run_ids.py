"""Run ids are promises: every grid asks for the runs that it asked for in commit 0a3c75c.

Except under `sound` for fine-tunes on a part of the labels, whose numbers changed (docs/decisions/0024-report.md).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.jobs.plan import make_plan
from pipeline.runs.cluster import Cluster
from pipeline.runs.spec import method_of

PINNED = json.loads((Path(__file__).parent / "run_ids.json").read_text())
"""By grid and preset: how many runs, and the SHA-256 of their sorted ids, one a line; datasets without shards.

A third part of the name is a method that came later: its runs are pinned by themselves.
"""
LATER = ("cass_vc", "frozen", "cass_shuffled", "bn_only")


@pytest.mark.parametrize("name", PINNED)
def test_a_grid_asks_for_the_runs_it_always_asked_for(name: str, tmp_path: Path) -> None:
    grid, preset, *later = name.split("/")
    site = Cluster(shards=str(tmp_path / "shards"), runs=str(tmp_path / "runs"))
    runs = make_plan(grid, site, preset=preset).runs
    ids = sorted(i for i, run in runs.items() if (method_of(run.spec) in (later or LATER)) == bool(later))
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert {"runs": len(ids), "sha256": digest} == PINNED[name]
