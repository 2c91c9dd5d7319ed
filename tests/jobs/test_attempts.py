"""What ended a job, in words; and which runs a waiting launch sends again."""

from __future__ import annotations

import errno
import shutil

import pytest
import tiny

from pipeline.cli.progress import LaunchProgress
from pipeline.jobs.arrays import job_arrays, jobs_of
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun
from pipeline.jobs.signals import REQUEUE
from pipeline.jobs.slurm import attempts, endings, records, scheduler, waiting
from pipeline.jobs.slurm.attempts import IDLE_JOBS, Attempts
from pipeline.jobs.slurm.endings import Ending
from pipeline.jobs.slurm.scheduler import QueuedJob
from pipeline.jobs.submissions import publish
from pipeline.runs.folder import Run
from pipeline.study import paper

SCONTROL = """\
JobId=14 ArrayJobId=12 ArrayTaskId=1 JobName=a JobState=FAILED Reason=NonZeroExitCode ExitCode=75:0 Restarts=0
JobId=13 ArrayJobId=12 ArrayTaskId=0 JobName=a JobState=RUNNING Reason=None ExitCode=0:0 Restarts=2
JobId=12 ArrayJobId=12 ArrayTaskId=2-3 JobName=a JobState=PENDING Reason=Priority ExitCode=0:0
"""
SACCT = """\
12_1|RUNNING|0:0
12_4|PREEMPTED|0:15
20|CANCELLED by 1000|0:0
21|FAILED|1:0
22|FAILED|0:9
23|OUT_OF_MEMORY|0:125
"""


def answers(monkeypatch, scontrol: str, sacct: str) -> list[str]:
    asked = []

    def ask(*command, timeout):
        asked.append(command[0])
        text = {"scontrol": scontrol, "sacct": sacct}[command[0]]
        if not text:
            raise ValueError("slurm_load_jobs error: Invalid job id specified")
        return text

    monkeypatch.setattr(endings, "ask", ask)
    return asked


def test_the_controller_is_asked_first_and_accounting_for_what_it_has_forgotten(monkeypatch):
    answers(monkeypatch, SCONTROL, SACCT)
    found = endings.endings(["12_0", "12_1", "12_4", "20", "21", "22", "23", "99"], accounting=True)
    assert {name: ending.words for name, ending in found.items()} == {
        "12_1": "preempted (it saved and left when it was asked to)",
        "12_4": "preempted",
        "20": "cancelled by a person",
        "21": "failed with exit code 1",
        "22": "killed by signal 9",
        "23": "out of memory (memory_gb)",
    }
    assert [name for name, ending in found.items() if ending.by_person] == ["20"]


def test_tasks_that_were_cancelled_while_they_waited_are_known_one_by_one(monkeypatch):
    pending = "JobId=30 ArrayJobId=30 ArrayTaskId=2-4,7%64 JobName=a b=c JobState=CANCELLED Reason=None ExitCode=0:0\n"
    answers(monkeypatch, pending, "31_[0-8:4%2]|CANCELLED by 7|0:0\n")
    found = endings.endings(["30_2", "30_4", "30_5", "30_7", "31_4", "31_5"], accounting=True)
    assert set(found) == {"30_2", "30_4", "30_7", "31_4"} and all(ending.by_person for ending in found.values())


def test_without_accounting_only_the_controller_is_asked_and_silence_is_no_error(monkeypatch):
    asked = answers(monkeypatch, SCONTROL, SACCT)
    assert set(endings.endings(["12_1", "20"], accounting=False)) == {"12_1"} and set(asked) == {"scontrol"}
    answers(monkeypatch, "", "")
    assert endings.endings(["12_1"], accounting=True) == {}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Two runs that share a job, and functions that let jobs of them end."""

    class shards:
        name, fingerprint = "tiny", "0" * 16

    site = tiny.make_cluster(tmp_path)
    specs = [tiny.make_finetune(shards, None, arm=1, seed=seed) for seed in (77, 78)]
    runs = [tiny.announce(spec, site) for spec in specs]
    planned = [PlannedRun(run, spec, "pending", None) for run, spec in zip(runs, specs, strict=True)]
    (array,) = job_arrays("g", jobs_of(planned), waits_for=set(), limit=10, parallelism=1)
    watched = Attempts(tmp_path / "runs", accounting=True)
    numbers = iter(range(1, 100))

    def ends(how: Ending | None) -> list[str]:
        number = next(numbers)
        submission = publish(tmp_path / "runs", array, tmp_path)
        submission.note_job(str(number), released=True)
        known = {} if how is None else {str(number): how}
        monkeypatch.setattr(attempts, "endings", lambda ids, accounting: {i: known[i] for i in ids if i in known})
        if number % 2:  # seen in the queue, or over before the first look
            live = {run.id: QueuedJob(str(number), "RUNNING", "", submission.id, "") for run in runs}
            assert watched.note_queue(live) == []
        else:
            watched.note_sent([submission])
        for step in steps.pop(0) if steps else ():
            (runs[0].folder / f"checkpoint-{step:010d}-0123.pt").touch()
        return watched.note_queue({})

    steps: list[list[int]] = []
    return watched, runs, ends, steps


def test_a_job_that_gets_further_is_sent_again_any_number_of_times(job):
    watched, runs, ends, steps = job
    steps += [[step] for step in range(10, 20)]
    for _ in range(10):
        (said,) = ends(Ending("PREEMPTED", "0:0"))
        assert said.endswith(": preempted")
    steps += [[20]]
    (said,) = ends(Ending("FAILED", f"{REQUEUE}:0"))  # at its time limit, with requeues = 0
    assert "saved and not requeued" in said
    assert [run.state() for run in runs] == ["pending", "pending"] and not watched.cancelled


def test_a_job_that_comes_back_again_and_again_without_a_step_is_told_of_and_not_given_up(job):
    """It is the same job for Slurm, and requeues itself up to slurm.requeues times: at a limit that is too short."""
    watched, runs, _, _ = job
    said = []
    for start in range(2 * IDLE_JOBS + 1):
        for state in ("PENDING", "RUNNING", "SUSPENDED", "RUNNING"):
            if (start, state) == (2, "SUSPENDED"):
                (runs[1].folder / "checkpoint-0000000005-0123.pt").touch()
            said += [
                (start, line) for line in watched.note_queue({r.id: QueuedJob("9", state, "", "s", "") for r in runs})
            ]
    assert [start for start, _ in said] == [3 + IDLE_JOBS]  # the third start got further
    assert said[0][1].startswith("job 9 came back into the queue 3 times in a row without a step beyond its checkpoint")
    assert not watched.idle and runs[0].state() == "pending"


def test_jobs_in_a_row_that_get_no_further_are_a_failure_that_says_so(job):
    watched, runs, ends, steps = job
    steps += [[], [], [5]]
    for _ in range(3 + IDLE_JOBS - 1):
        ends(Ending("NODE_FAIL", "0:0"))
        assert runs[0].state() == "pending", "one of the three got further"
    (said,) = ends(None)
    assert said.endswith("it got no further than the one before")
    assert {run.state() for run in runs} == {"failed"}
    assert "last 3 jobs ended without a step beyond its checkpoint" in runs[0].reason()


def test_a_fine_tune_that_only_waited_for_its_pretraining_run_has_not_failed(job, monkeypatch):
    watched, runs, ends, _ = job
    monkeypatch.setattr(attempts, "parent_state", lambda run: "interrupted")
    for _ in range(IDLE_JOBS + 1):
        ends(Ending("COMPLETED", "0:0"))
    assert {run.state() for run in runs} == {"pending"}


def test_a_job_whose_run_is_still_held_is_judged_when_it_is_let_go(job):
    watched, runs, ends, _ = job
    with runs[0].lock():
        assert ends(Ending("CANCELLED", "0:0")) == []
    (said,) = watched.note_queue({})
    assert "cancelled by a person" in said


def test_what_a_person_cancelled_is_not_sent_again_and_has_not_failed(job):
    watched, runs, ends, _ = job
    (said,) = ends(Ending("CANCELLED by 0", "0:0"))
    assert "cancelled by a person: 2 runs not sent again by this launch" in said
    assert watched.cancelled == {run.id for run in runs} and runs[0].state() == "pending"


def test_a_refusal_of_the_first_submission_ends_a_waiting_launch(tmp_path, monkeypatch):
    """Later ones are tried again: the queue may be down for a while."""
    monkeypatch.setattr(waiting, "queued_jobs", lambda runs: [])

    def refused(plan, **options):
        raise ValueError("sbatch refused mine: Invalid account")

    monkeypatch.setattr(waiting, "submit_missing", refused)
    plan = Plan("mine", tiny.make_cluster(tmp_path), paper.preset("paper"), [], [])
    with pytest.raises(ValueError, match="Invalid account"):
        waiting.run_plan(plan, LaunchProgress())


def test_a_run_folder_that_somebody_deletes_ends_no_waiting_launch(job, tmp_path, monkeypatch):
    _, runs, _, _ = job
    planned = {run.id: PlannedRun(run, run.spec, "pending", None) for run in runs}
    plan = Plan("mine", tiny.make_cluster(tmp_path), paper.preset("paper"), [], [], runs=planned)
    looks, sent = [], []

    def queued_runs(folder, jobs):
        looks.append(1)
        if len(looks) == 3:  # its job ends, and its folder goes
            shutil.rmtree(runs[0].folder)
        live = {run.id: QueuedJob("5", "RUNNING", "", "s", "") for run in runs}
        return live if len(looks) < 3 else {}

    def submit_missing(plan, **options):
        sent.append([run.id for run in runs if run.state() in TO_DO])
        if len(sent) == 2:
            for run in planned.values():
                run.state = "failed"
            monkeypatch.setattr(waiting, "refresh", lambda plan: None)
        return [], []

    for name, value in {"queued_runs": queued_runs, "submit_missing": submit_missing, "POLL_SECONDS": 0.0}.items():
        monkeypatch.setattr(waiting, name, value)
    monkeypatch.setattr(waiting, "queued_jobs", lambda runs: [])
    monkeypatch.setattr(waiting.limits, "read_limits", lambda slurm: [])
    monkeypatch.setattr(attempts, "endings", lambda ids, accounting: {})
    assert waiting.run_plan(plan, LaunchProgress())
    assert sent == [[run.id for run in runs]] * 2


def test_a_disk_that_is_away_for_a_moment_ends_no_waiting_launch(job, tmp_path, monkeypatch):
    """Whatever it reads just then: the states of runs as it polls them, or what another command cancelled."""
    _, runs, _, _ = job
    planned = {run.id: PlannedRun(run, run.spec, "pending", None) for run in runs}
    plan = Plan("mine", tiny.make_cluster(tmp_path), paper.preset("paper"), [], [], runs=planned)
    reads, looks, said, state, cancelled = [], [], [], Run.state, waiting.submissions.cancelled_runs

    def read(run):
        reads.append(run.id)
        if len(reads) == 3:
            raise OSError(errno.ESTALE, "Stale file handle", str(run.folder))
        return "done" if len(reads) > 60 else state(run)

    def look(folder, but):
        looks.append(1)
        if len(looks) in (2, 3):  # and it is said once
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return cancelled(folder, but)

    monkeypatch.setattr(Run, "state", read)
    monkeypatch.setattr(waiting.submissions, "cancelled_runs", look)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "queued_jobs", lambda runs: [])
    monkeypatch.setattr(waiting, "submit_missing", lambda plan, **options: ([], []))
    monkeypatch.setattr(waiting.limits, "read_limits", lambda slurm: [])
    monkeypatch.setattr(LaunchProgress, "say", lambda self, lines: said.extend(lines))
    assert waiting.run_plan(plan, LaunchProgress())
    tried = [line for line in said if line.startswith("trying again soon: ")]
    assert len(looks) > 3 and len(tried) == 2 and "Stale file handle" in tried[0] and "Input/output error" in tried[1]


def test_what_a_person_cancelled_is_known_also_where_the_disk_was_away_as_it_was_read(job, monkeypatch):
    watched, runs, _, _ = job
    live = {run.id: QueuedJob(str(number), "RUNNING", "", "s", "") for number, run in enumerate(runs)}
    watched.note_queue(live)
    monkeypatch.setattr(attempts, "endings", lambda ids, accounting: dict.fromkeys(ids, Ending("CANCELLED", "0:0")))
    reads, state = [], Run.state

    def read(run):
        reads.append(run.id)
        if len(reads) == 2:
            raise OSError(errno.ESTALE, "Stale file handle", str(run.folder))
        return state(run)

    monkeypatch.setattr(Run, "state", read)
    with pytest.raises(OSError, match="Stale file handle"):
        watched.note_queue({})
    watched.note_queue({})
    assert watched.cancelled == {run.id for run in runs}


def test_a_run_reaches_its_newest_checkpoint_and_beyond_all_when_it_is_done(tmp_path):
    run = Run(tmp_path)
    assert run.reached() == 0
    for step in (30, 200):
        (tmp_path / f"checkpoint-{step:010d}-abc.pt").touch()
    assert run.reached() == 200
    run["result"].touch()
    assert run.reached() > 10**9


def test_a_name_that_is_no_utf_8_hides_neither_the_queue_nor_how_jobs_ended(tmp_path, monkeypatch):
    """Names, comments and the reasons of drained nodes are of other people's encodings."""
    comment = scheduler.comment_of(tmp_path, "mine")
    lines = {
        "squeue": f"7|RUNNING|None|n1|caf\\351\\n8|RUNNING|None|n1|{comment}\\n",
        "scontrol": "JobId=1 JobName=caf\\351 JobState=RUNNING\\nJobId=8 JobName=a JobState=CANCELLED ExitCode=0:15\\n",
    }
    for tool, text in lines.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\nprintf '{text}'\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [job.id for job in scheduler.queued_jobs(tmp_path)] == ["8"]
    found = endings.endings(["8", "9"], accounting=False)
    assert found.keys() == {"8"} and found["8"].by_person
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'NodeName=n1 State=DRAIN Reason=L\\374fter [r]\\n'\n")
    assert [node["NodeName"] for node in records.nodes()] == ["n1"]
