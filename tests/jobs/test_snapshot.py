"""The copy of the code that jobs run: what is in it, its version, and that every payload runs from it."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_shards
import tiny

from pipeline.core import files
from pipeline.jobs import cleanup, snapshot, submissions
from pipeline.jobs.arrays import JobArray, jobs_of
from pipeline.jobs.plan import PlannedRun
from pipeline.jobs.slurm.sharding import ShardPayload

IMPORTS = """
import pipeline.jobs.engines.processes, pipeline.jobs.engines.ray_tune, pipeline.jobs.fanout, pipeline.jobs.snapshot
import pipeline.jobs.slurm.sharding, pipeline.learn.pretrain, pipeline.learn.finetune, pipeline.data.datasets.toy
from pathlib import Path
assert Path(pipeline.__file__).parent == Path.cwd() / "pipeline", pipeline.__file__
print(pipeline.jobs.snapshot.code_version())
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package that may be changed."""
    folder = tmp_path / "source" / "pipeline"
    shutil.copytree(snapshot.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(snapshot, "PACKAGE", folder)
    return folder


def test_the_version_follows_the_code_that_jobs_run_and_no_other(package):
    before = snapshot.code_version()
    for name in ("cli/flags.py", "results/tables.py", "benchmarks/step.py", "models/network.py", "launch.py"):
        (package / name).write_text("changed")
        assert snapshot.code_version() == before
    for name in ("__init__.py", "learn/losses.py", "jobs/execute.py"):
        text = (package / name).read_text()
        (package / name).write_text(text + "\n")
        assert snapshot.code_version() != before
        (package / name).write_text(text)
    assert snapshot.code_version() == before


def test_the_copy_is_made_once_and_holds_what_jobs_run(package, tmp_path):
    copy = snapshot.snapshot(tmp_path / "runs")
    assert copy == tmp_path / "runs" / ".code" / snapshot.code_version()
    assert {path.name for path in (copy / "pipeline").iterdir()} == {*snapshot.USED, "__init__.py"}
    made = copy.stat().st_mtime_ns
    assert snapshot.snapshot(tmp_path / "runs") == copy and copy.stat().st_mtime_ns == made
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def run_from(copy: Path, *arguments: str) -> str:
    """What Python prints that is started as jobs start it."""
    env = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_jobs_import_is_in_the_copy_and_has_the_same_version(tmp_path):
    copy = snapshot.snapshot(tmp_path)
    assert run_from(copy, "-c", IMPORTS).strip() == copy.name


@pytest.mark.parametrize("ray", [False, True])
def test_a_fan_out_runs_from_the_copy(ray, tmp_path):
    shards = tiny.make_shards(tmp_path)
    site = tiny.make_cluster(tmp_path, ray=ray)
    specs = [tiny.make_finetune(shards, None, seed=seed, epochs=1) for seed in (77, 78)]
    runs = [tiny.announce(spec, site) for spec in specs]
    (job,) = jobs_of(PlannedRun(run, spec, "pending", None) for run, spec in zip(runs, specs, strict=True))
    copy = snapshot.snapshot(Path(site.runs))
    submission = submissions.publish(Path(site.runs), JobArray("mine", [job], frozenset(), 1), copy, by_hand=True)
    run_from(copy, "-m", "pipeline.jobs.fanout", str(submission.folder))
    assert [run.state() for run in runs] == ["done", "done"]
    assert {run.result().code for run in runs} == {copy.name}


def test_sharding_runs_from_the_copy(tmp_path):
    plan = small_shards.plan_of(small_shards.draw(tmp_path / "raw", 12))
    jobs = tmp_path / "out" / ".jobs" / plan.folder_name
    with files.publish(jobs / "plan.pkl") as file:
        pickle.dump(plan, file)
    payload = ShardPayload(str(jobs / "plan.pkl"), 0, 0, workers=1, max_bad=0.5, strict=False)
    copy = snapshot.snapshot(tmp_path)
    run_from(copy, "-c", f"import pickle; pickle.loads({pickle.dumps(payload)!r})()")
    assert (tmp_path / "out" / plan.folder_name / "manifest.json").exists()


def test_a_copy_that_a_launch_has_just_asked_for_is_not_removable_however_old_it_is(package, tmp_path):
    copy = snapshot.snapshot(tmp_path / "runs")
    for path in (copy, copy / "pipeline"):
        os.utime(path, (0, 0))
    cluster = tiny.make_cluster(tmp_path)
    assert [found.path for found in cleanup.find_removable(cluster, scratch=False)] == [copy]
    snapshot.snapshot(tmp_path / "runs")
    assert cleanup.find_removable(cluster, scratch=False) == []
