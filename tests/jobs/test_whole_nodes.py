"""Pretraining runs side by side in the jobs of a site that sells whole nodes."""

from __future__ import annotations

import dataclasses
import os
from multiprocessing import Pipe
from pathlib import Path

import pytest
import tiny
from planned import planned_runs

from pipeline.core import files
from pipeline.jobs import fanout, submissions
from pipeline.jobs import plan as plans
from pipeline.jobs.arrays import job_arrays, jobs_of, side_by_side
from pipeline.jobs.engines import processes
from pipeline.jobs.estimate import DECODED, estimate
from pipeline.jobs.fanout import FanOutPayload, payload_of
from pipeline.jobs.plan import PlannedRun
from pipeline.jobs.slurm import sending
from pipeline.runs.cluster import Slurm
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import PretrainSpec


class shards:
    name, fingerprint = "tiny", "0" * 16


NODE = Slurm(gres="gpu:4", runs_per_job=4)


def test_the_60_pretraining_jobs_of_the_main_grid_become_15(tmp_path):
    site = tiny.make_cluster(tmp_path, executor="slurm", slurm=NODE)
    plan = plans.make_plan("main", site)
    for planned in plan.runs.values():
        planned.state = "missing"  # as if there were shards
    arrays = sending.arrays_to_send(plan, {}, limit=1001)
    first, *others = arrays
    assert (first.name, len(first.jobs)) == ("main.pretrain.s77-81", 15)
    assert [len(job.runs) for job in first.jobs] == [4] * 15 and all(job.parts for job in first.jobs)
    pretraining = [planned for planned in plan.runs.values() if isinstance(planned.spec, PretrainSpec)]
    assert {run.run.id for job in first.jobs for run in job.runs} == {run.run.id for run in pretraining}
    kinds = [{(run.spec.dataset.name, run.run.id.split("-s")[0]) for run in job.runs} for job in first.jobs]
    assert all(len(kind) <= 2 for kind in kinds), "runs of one job take equally long as far as possible"
    alone = dataclasses.replace(site, slurm=dataclasses.replace(NODE, runs_per_job=1))
    plan.cluster = alone
    before = sending.arrays_to_send(plan, {}, limit=1001)
    assert sum(len(array.jobs) for array in before if not array.jobs[0].fan_out) == 60
    assert [str(array) for array in others] == [str(array) for array in before if array.jobs[0].fan_out]


def test_each_run_of_a_job_keeps_its_own_milestones_and_a_task_lists_the_longest(tmp_path):
    longer = [PlannedRun(Run(tmp_path / run_id(s)), s, "missing", None) for s in specs(epochs=8, seeds=(77, 78, 79))]
    shorter = [
        PlannedRun(Run(tmp_path / run_id(s)), s, "missing", None, published_by=long.run.id)
        for s, long in zip(specs(epochs=4, seeds=(77, 78)), longer, strict=False)
    ]
    jobs = side_by_side(jobs_of([*longer, *shorter]), 2)
    assert [[planned.spec.epochs for planned in job.runs] for job in jobs] == [[8, 4, 8, 4], [8]]
    (array,) = job_arrays("g", jobs, waits_for=set(), limit=10, parallelism=9)
    submission = submissions.publish(tmp_path, array, tmp_path / "code")
    assert [len(task) for task in submission.tasks] == [4, 1]
    listed = [submissions.runs_of(submission.task_folder(index)) for index in (0, 1)]
    assert listed == [[longer[0].run.folder, longer[1].run.folder], [longer[2].run.folder]]
    assert [planned.run.milestones() for planned in longer] == [[4], [4], []]
    assert isinstance(payload_of(submission, 1), FanOutPayload)


def specs(*, epochs: int, seeds) -> list[PretrainSpec]:
    return [tiny.make_pretrain(shards, epochs=epochs, seed=seed, average=None) for seed in seeds]


@pytest.mark.parametrize(("visible", "at_once"), [("", 4), ("0,1,2", 3)])
def test_the_runs_of_a_job_have_a_gpu_each_and_one_that_fails_harms_no_other(tmp_path, monkeypatch, visible, at_once):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    site = tiny.make_cluster(tmp_path, executor="slurm", slurm=NODE, device="cuda", ray=True, trials_per_gpu=7)
    runs = [tiny.announce(spec, site) for spec in specs(epochs=2, seeds=range(4))]
    planned = [PlannedRun(run, run.spec, "pending", None) for run in runs]
    (array,) = job_arrays("g", side_by_side(jobs_of(planned), 4), waits_for=set(), limit=9, parallelism=1)
    folder = submissions.publish(Path(site.runs), array, tmp_path).task_folder(0)
    passes = []

    def run_trials(folders, *, trials, gpus, stop):
        passes.append((len(folders), trials, gpus))
        for path in folders[1:]:
            files.write_text(Path(path) / "result.json", "{}")
        files.write_text(Path(folders[0]) / "error.txt", "ValueError: a loss\n")

    monkeypatch.setattr(Run, "damage", lambda run: "")
    monkeypatch.setattr(processes, "run_trials", run_trials)
    assert fanout.execute_fan_out(folder, lambda: False) == 1
    assert passes == [(4, at_once, visible.split(",") if visible else [])]
    assert [run.state() for run in runs] == ["failed", "done", "done", "done"]
    assert fanout.execute_fan_out(folder, lambda: False) == 1 and len(passes) == 1, "nothing is left to do"


def test_workers_take_the_gpus_in_turn_and_one_takes_that_of_one_that_died(monkeypatch):
    given, dead = [], ["0"]

    class Worker:
        def __init__(self, gpu):
            self.gpu = gpu
            self.pipe, self.end = Pipe()

        def start(self, folder):
            given.append((folder, self.gpu))
            self.end.send(0)
            return True

        def is_ready(self):
            self.pipe.recv()
            if alive := self.gpu not in dead:
                return alive
            dead.remove(self.gpu)
            return False

        def leave(self):
            pass

    monkeypatch.setattr(processes, "Worker", Worker)
    processes.run_trials([f"/{n}" for n in range(7)], trials=4, gpus=("0", "1"), stop=lambda: False)
    assert given[:4] == [("/0", "0"), ("/1", "1"), ("/2", "0"), ("/3", "1")]
    assert len(given) == 7 and sum(gpu == "0" for _, gpu in given[4:]) >= 1


def test_a_worker_sees_its_gpu_alone(monkeypatch):
    ours, theirs = Pipe()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr(processes, "_leave_with_job", lambda: None)
    monkeypatch.setattr(processes.execute, "execute_trial", lambda folder: os.environ["CUDA_VISIBLE_DEVICES"])
    ours.send("/a")
    seen = []
    monkeypatch.setattr(theirs.__class__, "send", lambda pipe, value: (seen.append(value), ours.close()))
    processes.work(theirs, "2")
    assert seen == ["2"]


def test_a_scratch_that_ends_with_its_job_is_filled_by_each(tmp_path, monkeypatch):
    from pipeline.cli.estimate_text import hours_lines
    from pipeline.jobs import costs

    monkeypatch.setattr(costs.RunCosts, "hours", lambda self, spec: costs.RunHours(1.0, "by hand"))
    counts = (DECODED * 3600 - 20, 9, 20)  # an hour at 384 pixels
    monkeypatch.setattr(costs.RunCosts, "images", lambda self, dataset, size: counts)
    found = {}
    for scratch in ("/tmp/cass", "$SLURM_TMPDIR/cass"):
        site = tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm(parallelism=1), scratch=scratch)
        plan = plans.Plan("g", site, plans.paper.preset("paper"), [], [])
        plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path, seeds=[77])}
        found[scratch] = estimate(plan, site)
    kept, lost = found.values()
    hour = (tiny.SIZE / 384) ** 2
    assert (kept.map_hours, lost.map_hours) == (0, pytest.approx(5 * hour))  # a pretraining run and four fan-outs
    assert lost.wall_hours == pytest.approx(kept.wall_hours + 5 * hour)
    assert lost.pretrain.hours == pytest.approx(1 + hour) and lost.finetune.hours == pytest.approx(8 + 4 * hour)
    assert not any("decode" in line for line in hours_lines(kept))
    assert any("less than 0.1 of them to decode images in each job" in line for line in hours_lines(lost))


def test_gpu_hours_count_the_whole_node(tmp_path, monkeypatch):
    """Five runs of an hour in jobs of four GPUs take two jobs of an hour: eight GPU-hours, not five."""
    from pipeline.jobs import costs

    def total(**changes: object) -> tuple[float, float, float]:
        site = tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm(parallelism=1, **changes))
        plan = plans.Plan("g", site, plans.paper.preset("paper"), [], [])
        plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path, seeds=range(5))}
        found = estimate(plan, site)
        return found.pretrain.hours, found.finetune.hours, found.wall_hours

    monkeypatch.setattr(costs.RunCosts, "hours", lambda self, spec: costs.RunHours(1.0, "by hand"))
    assert total() == (5, 40, 45)
    assert total(gres="gpu:4", runs_per_job=4) == (8, 40, 12)  # four fan-outs of ten trials, four at a time
    assert total(gres="gpu:4") == (20, 40, 15)
