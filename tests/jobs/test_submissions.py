"""What a submission's folder remembers, also one of earlier code, and what the queue says of it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import tiny
from planned import planned_runs

from pipeline.cli.progress import LaunchProgress
from pipeline.core import files
from pipeline.jobs import cleanup, submissions
from pipeline.jobs.arrays import JobArray, job_arrays, jobs_of
from pipeline.jobs.plan import Plan
from pipeline.jobs.slurm import reconcile, scheduler, submit, waiting
from pipeline.jobs.slurm.queue import queued_runs
from pipeline.jobs.slurm.scheduler import QueuedJob
from pipeline.study import paper

RESULT = {
    "metrics": {}, "seconds": 1.0, "images_per_second": 1.0, "epochs": 1, "best_epoch": None, "device": "cpu",
    "precision": "float32", "threads": 1, "code": "abc", "versions": {},
}  # fmt: skip
"""A finished run's, of a version without seals."""


def test_a_submission_is_read_back_and_knows_its_jobs_and_what_a_fan_out_skipped(tmp_path):
    jobs = [job for job in jobs_of(planned_runs(tmp_path)) if job.fan_out][:2]
    array = JobArray("mine", jobs, frozenset(), 2)
    submission = submissions.publish(tmp_path, array, tmp_path / ".code" / "abc")
    assert submissions.read_submissions(tmp_path) == [submission] and submission.code == "abc"
    assert submission.job == {} and list(submission.live_tasks()) == []
    submission.note_job("17", released=False)
    assert submission.job == {"id": "17", "released": False}
    assert list(submission.live_tasks()) == [("17_0", submission.tasks[0]), ("17_1", submission.tasks[1])]
    one = dataclasses.replace(submission, tasks=submission.tasks[:1])
    assert list(one.live_tasks()) == [("17", submission.tasks[0])]

    folder = submission.task_folder(1)
    assert [path.name for path in submissions.runs_of(folder)] == list(submission.tasks[1])
    first, *others = submission.tasks[1]
    submissions.note_skipped(folder, {first: "failed"})
    assert [runs for _, runs in submission.live_tasks()] == [submission.tasks[0], tuple(others)]
    submissions.note_skipped(folder, {})
    assert [runs for _, runs in submission.live_tasks()] == list(submission.tasks)


def test_the_files_of_a_submission_have_these_names_and_keys(tmp_path):
    """Jobs in a queue read them with the code that sent them, later launches with other code."""
    (job,) = [job for job in jobs_of(planned_runs(tmp_path, [77])) if job.fan_out and "cnn" in job.name()][:1]
    submission = submissions.publish(tmp_path, JobArray("mine", [job], frozenset(), 1), tmp_path / ".code" / "abc")
    submission.note_job("17", released=True)
    submissions.note_skipped(submission.task_folder(0), {"a": "failed"})
    submission.note_cancelled()
    folder = tmp_path / ".submissions" / submission.id
    assert json.loads((folder / "submission.json").read_text()) == {
        "name": "mine",
        "tasks": [[planned.run.id for planned in job.runs]],
        "fan_out": True,
        "code": "abc",
        "by_hand": False,
    }
    assert json.loads((folder / "job.json").read_text()) == {"id": "17", "released": True}
    assert json.loads((folder / "0" / "runs.json").read_text()) == [planned.run.id for planned in job.runs]
    assert json.loads((folder / "0" / "skipped.json").read_text()) == {"a": "failed"}
    assert (folder / "cancelled").exists()


def published(folder: Path, seed: int) -> submissions.Submission:
    """A submission of one pretraining run."""
    (job,) = [found for found in jobs_of(planned_runs(folder, [seed])) if not found.fan_out]
    (array,) = job_arrays("grid", [job], waits_for=set(), limit=10, parallelism=1)
    return submissions.publish(folder, array, folder / "code")


def test_a_cluster_that_gives_ids_again_confuses_no_submission_with_another(tmp_path):
    """Slurm's ids start again with its state; the submission id in a job's comment tells whose it is."""
    old, new = published(tmp_path, 77), published(tmp_path, 78)
    for submission in (old, new):
        submission.note_job("7", released=True)
    live = QueuedJob("7", "RUNNING", "None", new.id, "gpu1")
    assert queued_runs(tmp_path, [live]) == {new.tasks[0][0]: live}


def test_the_submission_remembers_that_a_person_cancelled_it(tmp_path):
    submission = published(tmp_path, 77)
    assert submissions.cancelled_runs(tmp_path) == set()
    submission.note_cancelled()
    assert submissions.cancelled_runs(tmp_path) == set(submission.tasks[0])


def test_a_waiting_launch_leaves_at_a_second_cancel_of_the_same_runs_too(tmp_path, monkeypatch):
    """The first one's submission is there still; the launch came after it, and the second cancel came to that."""
    planned = {each.run.id: each for each in planned_runs(tmp_path, [77])}
    plan = Plan("mine", tiny.make_cluster(tmp_path, runs=str(tmp_path)), paper.preset("paper"), [], [], runs=planned)
    published(tmp_path, 77).note_cancelled()
    said = []

    def submit_missing(plan, **options):
        second = published(tmp_path, 77)
        second.note_job("22", released=True)
        reconcile.cancel_jobs(tmp_path, [QueuedJob("22", "PENDING", "Priority", second.id, "")])
        return [second], ["sent 22"]

    for name, value in {"submit_missing": submit_missing, "POLL_SECONDS": 0.0, "queued_jobs": lambda runs: []}.items():
        monkeypatch.setattr(waiting, name, value)
    monkeypatch.setattr(reconcile, "scancel", lambda jobs: None)
    monkeypatch.setattr(waiting.limits, "read_limits", lambda slurm: [])
    monkeypatch.setattr("pipeline.jobs.slurm.attempts.endings", lambda ids, accounting: {})
    monkeypatch.setattr(LaunchProgress, "say", lambda self, lines: said.extend(lines))
    assert waiting.run_plan(plan, LaunchProgress()) is False
    assert said == ["sent 22", "another command cancelled runs of this grid; they are not submitted again"]


def test_a_submission_that_clean_has_removed_keeps_no_other_from_being_cancelled(tmp_path):
    submission = published(tmp_path, 77)
    submission.remove()
    submission.note_cancelled()
    assert not submission.folder.exists()


# --- Submissions of earlier code -------------------------------------------------------------------------------------

OLD_ID = "20260101-120000-0a1b2c3d"


@pytest.fixture
def old(tmp_path) -> Path:
    """The folder that the code up to commit 0a3c75c made for an array of two fan-outs, sent as job 17."""
    folder = tmp_path / ".orders" / OLD_ID
    parts = [["a-1", "a-2"], ["b-1"]]
    value = {"name": "main.isic.cass.finetune.s77", "parts": parts, "fan_out": True, "code": "abc", "by_hand": False}
    files.write_json(folder / "order.json", value)
    files.write_json(folder / "job.json", {"id": "17", "released": True})
    for index, part in enumerate(parts):
        files.write_json(folder / str(index) / "runs.json", part)
    files.write_json(folder / "1" / "skipped.json", {"b-1": "failed"})
    return folder


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, ...]]:
    """The commands that Slurm gets."""
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(reconcile, "ask", lambda *command: given.append(command))
    monkeypatch.setattr(reconcile, "scancel", lambda jobs: given.append(("scancel", *jobs)))
    return given


def queued(job: str, *, reason: str = "None") -> QueuedJob:
    return QueuedJob(job, "PENDING", reason, OLD_ID, "")


def test_jobs_of_an_old_submission_are_known_by_their_runs(tmp_path, old):
    new = published(tmp_path, 77)
    found, other = submissions.read_submissions(tmp_path)  # oldest first
    assert (found.id, found.tasks, found.code, found.folder) == (OLD_ID, (("a-1", "a-2"), ("b-1",)), "abc", old)
    assert other == new
    jobs = [queued("17_0"), queued("17_1")]
    assert queued_runs(tmp_path, jobs) == {"a-1": jobs[0], "a-2": jobs[0]}  # it skipped b-1
    assert found.task_folder(1) == old / "1" and [path.name for path in submissions.runs_of(old / "1")] == ["b-1"]


def test_an_old_submission_is_repaired(tmp_path, old, commands):
    files.write_json(old / "job.json", {"id": "17", "released": False})
    assert "released 17" in reconcile.repair(tmp_path, [queued("17_0", reason="JobHeldUser")])[0]
    assert commands == [("scontrol", "release", "17")]
    assert files.read_json(old / "job.json") == {"id": "17", "released": True}
    (old / "job.json").unlink()
    assert "cancelled 17" in reconcile.repair(tmp_path, [queued("17_0", reason="JobHeldUser")])[0]
    assert commands[1:] == [("scancel", "17")] and not old.exists()


@pytest.mark.parametrize("reason", ["JobHeldUser", "Dependency", "None", "Priority"])
def test_an_array_that_no_launch_released_is_cancelled_whatever_reason_slurm_shows(tmp_path, commands, reason):
    """Held arrays that depend on others may be shown with `Dependency`; taken for released they would wait for ever."""
    submission = published(tmp_path, 77)
    job = QueuedJob("21", "PENDING", reason, submission.id, "")
    assert reconcile.repair(tmp_path, [job]) == [
        "cancelled 21: held, and its launch was killed before it could note it"
    ]
    assert commands == [("scancel", "21")] and submissions.read_submissions(tmp_path) == []


def test_an_array_that_a_person_released_is_kept(tmp_path, commands):
    submission = published(tmp_path, 77)
    assert reconcile.repair(tmp_path, [QueuedJob("21", "RUNNING", "None", submission.id, "gpu1")]) == []
    assert commands == [] and submission.job == {"id": "21", "released": True}


@pytest.mark.parametrize(("reason", "cancelled"), [("JobHeldUser", True), ("Dependency", False)])
def test_an_array_that_no_submission_knows_is_cancelled_once_slurm_says_that_it_is_held(
    tmp_path, commands, reason, cancelled
):
    """Another node may see a new submission's folder late; `Dependency` gives way to `JobHeldUser` when parents end."""
    reconcile.repair(tmp_path, [QueuedJob("21", "PENDING", reason, "nobody", "")])
    assert commands == [("scancel", "21")] * cancelled


def test_a_noted_array_is_released_whatever_reason_slurm_shows(tmp_path, commands):
    submission = published(tmp_path, 77)
    submission.note_job("21", released=False)
    reconcile.repair(tmp_path, [QueuedJob("21", "PENDING", "Dependency", submission.id, "")])
    assert commands == [("scontrol", "release", "21")] and submission.job["released"] is True


@pytest.mark.parametrize(("reason", "held"), [("Priority", False), ("JobHeldUser", True), ("Dependency", True)])
def test_an_array_that_was_released_without_a_note_holds_no_launch_up(tmp_path, monkeypatch, reason, held):
    """Its launch got no answer in time; scontrol complains of tasks that have ended since, for minutes each."""
    submission = published(tmp_path, 77)
    submission.note_job("21", released=False)
    other = QueuedJob("22", "PENDING", "JobHeldUser", "x", "")
    queue = [QueuedJob("21_1", "PENDING", reason, submission.id, ""), other]
    monkeypatch.setattr(reconcile, "queued_jobs", lambda runs: queue)

    def ask(*command: str) -> None:
        if command == ("scontrol", "release", "21"):
            raise ValueError("scontrol release failed: 21_0: Job is no longer pending execution")

    monkeypatch.setattr(reconcile, "ask", ask)
    if held:
        with pytest.raises(ValueError, match="no longer pending"):
            reconcile.repair(tmp_path, queue)
    else:
        reconcile.repair(tmp_path, queue)
    assert submission.job["released"] is not held


def test_an_old_submission_is_cancelled(tmp_path, old, commands):
    reconcile.cancel_jobs(tmp_path, [queued("17_0")])
    assert commands == [("scancel", "17_0")]
    assert (old / "cancelled").exists() and submissions.cancelled_runs(tmp_path) == {"a-1", "a-2", "b-1"}


def test_the_logs_of_an_old_submission_are_found(tmp_path, old):
    for path in (old / "submitit" / "17_0_0_log.out", old / "submitit" / "17_1_0_log.out", old / "0" / "log.txt"):
        files.write_text(path, "")
    assert submissions.job_logs(tmp_path, "a-2") == [old / "submitit" / "17_0_0_log.out", old / "0" / "log.txt"]


def test_an_old_submission_is_removed_when_its_runs_are_done_and_its_code_kept_until_then(tmp_path, old):
    cluster = tiny.make_cluster(tmp_path, runs=str(tmp_path))
    code = tmp_path / ".code" / "abc"
    code.mkdir(parents=True)
    os.utime(code, (0, 0))

    def removable() -> set[tuple[str, Path]]:
        return set(cleanup.find_removable(cluster, scratch=False))

    for run in ("a-1", "a-2"):
        files.write_json(tmp_path / run / "result.json", RESULT)
    assert removable() == set()
    files.write_json(tmp_path / "b-1" / "result.json", RESULT)
    assert removable() == {("a finished job's output", old), ("a copy of the code", code)}
    cleanup.remove(cleanup.find_removable(cluster, scratch=False), tmp_path)
    assert submissions.read_submissions(tmp_path) == [] and not code.exists()


@pytest.mark.parametrize(
    ("shown", "kept"),
    [(None, True), ("", True), ("{comment}", True), ("{comment} \n{comment} ", True), ("billing:42", False)],
)
def test_a_job_whose_comment_the_site_replaced_is_cancelled_with_the_reason(tmp_path, monkeypatch, shown, kept):
    submission = published(tmp_path, 77)
    comment = scheduler.comment_of(tmp_path, submission.id)
    given = []

    def ask(*command: str, timeout: float = 60.0) -> str:
        given.append(command)
        if command[0] == "squeue" and shown is None:
            raise ValueError("squeue did not answer")
        return shown.format(comment=comment) if command[0] == "squeue" else ""

    monkeypatch.setattr(submit, "ask", ask)
    if kept:
        submit.check_comment(submission, "17")
        assert [command[0] for command in given] == ["squeue"] and submission.folder.exists()
    else:
        with pytest.raises(ValueError, match="replaced the comment of job 17 .billing:42.*Ask the site"):
            submit.check_comment(submission, "17")
        assert given[-1] == ("scancel", "17") and not submission.folder.exists()


def test_names_of_jobs_are_plain_and_the_usual_ones_stay(tmp_path):
    submission = published(tmp_path, 77)
    assert submit.job_name(dataclasses.replace(submission, name="main.isic.cass.s77-81")) == "main.isic.cass.s77-81"
    odd = dataclasses.replace(submission, name="g$(touch PWNED)`id`\nEND\n.isic")
    assert submit.job_name(odd) == "g__touch_PWNED__id__END_.isic"
