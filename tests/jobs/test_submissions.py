"""Which runs travel together, and what a submission's folder remembers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tiny

from pipeline.jobs import submissions
from pipeline.jobs.plan import PlannedRun
from pipeline.jobs.slurm import reconcile, scheduler
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id


class shards:
    name, fingerprint = "tiny", "0" * 16


def items(folder: Path, seeds=(77, 78, 79)) -> list[PlannedRun]:
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


def test_a_pretraining_run_travels_alone_and_a_recipes_seeds_and_fractions_together(tmp_path):
    found = submissions.jobs_of(items(tmp_path))
    assert [len(job.runs) for job in found if not job.fan_out] == [1, 1, 1]
    fan_outs = [job for job in found if job.fan_out]
    assert [len(job.runs) for job in fan_outs] == [6, 6, 6, 6]
    assert {job.name() for job in fan_outs} == {
        f"tiny.{method}.{arm}.s77-79" for method in ("cass", "supervised") for arm in ("cnn", "transformer")
    }


def test_fan_outs_wait_for_the_runs_they_need_that_are_not_done_and_no_others(tmp_path):
    wanted = items(tmp_path)
    done, *others = [item for item in wanted if item.parent is None and "supervised" not in item.run.id]
    waits_for = {item.run.id for item in others}
    jobs = submissions.jobs_of(item for item in wanted if item is not done)
    found = {
        array.name: array
        for array in submissions.job_arrays("mine", jobs, waits_for=waits_for, limit=1001, parallelism=8)
    }
    assert list(found) == [
        "mine.tiny.cass.s78-79",
        "mine.tiny.cass.finetune.s77-79",
        "mine.tiny.supervised.finetune.s77-79",
    ]
    assert found["mine.tiny.cass.finetune.s77-79"].parents == waits_for
    assert not found["mine.tiny.supervised.finetune.s77-79"].parents


def test_long_arrays_are_cut_and_share_their_parallelism(tmp_path):
    jobs = submissions.jobs_of(items(tmp_path, seeds=range(10)))
    pretraining = [job for job in jobs if not job.fan_out]
    found = submissions.job_arrays("mine", pretraining, waits_for=set(), limit=4, parallelism=6)
    assert [len(array.jobs) for array in found] == [4, 4, 2]
    assert [array.parallelism for array in found] == [2, 2, 2]
    assert [array.name for array in found] == [f"mine.tiny.cass.s{seeds}" for seeds in ("0-3", "4-7", "8-9")]


def test_an_order_is_read_back_and_knows_its_jobs_and_what_a_fan_out_skipped(tmp_path):
    jobs = [job for job in submissions.jobs_of(items(tmp_path)) if job.fan_out][:2]
    array = submissions.JobArray("mine", jobs, frozenset(), 2)
    submission = submissions.publish(tmp_path, array, tmp_path / ".code" / "abc")
    assert submissions.read_submissions(tmp_path) == [submission] and submission.code == "abc"
    assert submission.job == {} and list(submission.live_tasks()) == []
    submission.note_job("17", released=False)
    assert submission.job == {"id": "17", "released": False}
    assert list(submission.live_tasks()) == [("17_0", submission.tasks[0]), ("17_1", submission.tasks[1])]
    one = dataclasses.replace(submission, parts=submission.tasks[:1])
    assert list(one.live_tasks()) == [("17", submission.tasks[0])]

    folder = submission.task_folder(1)
    assert [path.name for path in submissions.runs_of(folder)] == list(submission.tasks[1])
    first, *others = submission.tasks[1]
    submissions.note_skipped(folder, {first: "failed"})
    assert [carries for _, carries in submission.live_tasks()] == [submission.tasks[0], tuple(others)]
    submissions.note_skipped(folder, {})
    assert [carries for _, carries in submission.live_tasks()] == list(submission.tasks)


def published(folder: Path, seed: int) -> submissions.Submission:
    """A submission of one pretraining run."""
    (job,) = [found for found in submissions.jobs_of(items(folder, [seed])) if not found.fan_out]
    (array,) = submissions.job_arrays("grid", [job], waits_for=set(), limit=10, parallelism=1)
    return submissions.publish(folder, array, folder / "code")


def test_a_cluster_that_gives_ids_again_confuses_no_order_with_another(tmp_path):
    """Slurm's ids begin anew with its state; the token in a job's comment tells whose it is."""
    old, new = published(tmp_path, 77), published(tmp_path, 78)
    for submission in (old, new):
        submission.note_job("7", released=True)
    live = scheduler.QueuedJob("7", "RUNNING", "None", new.token, "gpu1")
    assert reconcile.carried(tmp_path, [live]) == {new.tasks[0][0]: live}


def test_what_a_person_cancelled_is_known_by_its_order(tmp_path):
    submission = published(tmp_path, 77)
    assert submissions.cancelled(tmp_path) == set()
    (submission.folder / "cancelled").touch()
    assert submissions.cancelled(tmp_path) == set(submission.tasks[0])
