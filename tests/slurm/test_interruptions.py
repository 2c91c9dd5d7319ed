"""Jobs on a real Slurm: each way they can be interrupted, and what follows."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
import tiny
from sites import SLURM, Site

from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.jobs.slurm import queue, scheduler
from pipeline.jobs.snapshot import snapshot

pytestmark = pytest.mark.usefixtures("devcluster")
LONG = 400  # epochs that do not end while a test watches


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("slurm")).folder.parent


@pytest.fixture
def site(tmp_path, shards):
    made = Site(tmp_path, shards, cluster=SLURM)
    yield made
    runs = tmp_path / "runs"
    if runs.exists() and (left := {job.id.split("_")[0] for job in scheduler.queued_jobs(runs)}):
        scheduler.scancel(sorted(left))
        wait(lambda: not scheduler.queued_jobs(runs), "the queue to be empty")


def wait(condition, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}:\n{call('squeue')}"
        time.sleep(0.2)


def call(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def job_of(site: Site, name: str) -> str:
    runs = site.folder / "runs"
    return queue.queued_runs(runs, scheduler.queued_jobs(runs))[site.runs()[name].id].id


def starts(run) -> int:
    return run["log"].read_text().count("float32, 1 threads") if run["log"].exists() else 0


def test_a_grid_goes_through_arrays_and_dependencies_to_its_end_and_a_failed_seed_costs_only_itself(site):
    site.write_grid(seeds=2)
    code, out = site.run("launch", "--dry-run")
    assert code == 0, out
    assert "mine.tiny.cass.s77-78" in out and "afterany 2 runs" in out and not (site.folder / "runs").exists()
    rows = json.loads(site.run("status", "--json")[1])["runs"]
    broken = next(row["run"] for row in rows if "tiny-cass-s78" in row["run"])
    elsewhere = {"hardware": {"model": "another GPU"}, "inputs": {}, "starts": []}
    files.write_json(site.folder / "runs" / broken / "start.json", elsewhere)

    code, out = site.run("launch", "--wait")
    assert code == 1, out
    assert "4 of 6 runs are done" in out and "sent " in out and "an array of 2" in out
    runs = site.runs()
    assert runs["cass-s78"].state() == "failed"
    assert runs["cass-test_resnet-100pct"].state() == "done"
    assert runs["cass-test_resnet-100pct-s78"].state() == "pending"
    assert runs["cass"].result().code == snapshot(site.folder / "runs").name

    code, out = site.run("status")
    assert "4 done" in out and "which is failed" in out
    code, out = site.run("status", "--failed")
    assert "started with device another GPU" in out and "log.txt" in out and "done  " not in out

    # once it is repaired, the failed run and what it blocked are retried, and nothing else
    runs["cass-s78"]["start"].unlink()
    code, out = site.run("launch")
    assert "nothing to s" in out
    code, out = site.run("launch", "--retry", "--wait")
    assert code == 0 and "6 of 6 runs are done" in out, out
    assert starts(runs["cass"]) == starts(runs["cass-test_resnet-100pct"]) == 1


def test_the_time_limits_signal_saves_and_requeues_and_the_same_job_continues(site):
    site.write_grid(epochs=LONG, alone=True)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    job = job_of(site, "cass")
    call("scancel", "--signal=USR2", job)  # what --signal=USR2@60 sends before the limit
    wait(lambda: "stopped as asked" in run["log"].read_text(), "the run to save")
    assert run.checkpoints()
    wait(lambda: starts(run) == 2, "the second start")
    assert job_of(site, "cass") == job
    code, out = site.run("logs", "tiny-cass-s77", "--job")
    assert f"requeued job {job}" in out


def test_scancel_saves_and_no_job_comes_back_until_the_next_launch(site):
    site.write_grid(epochs=LONG)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    code, out = site.run("cancel")
    assert code == 2 and "--yes" in out
    code, out = site.run("cancel", "--yes")
    assert code == 0, out
    wait(lambda: not scheduler.queued_jobs(site.folder / "runs"), "the jobs to end")
    assert run.state() == "interrupted" and run.checkpoints()
    wait(lambda: "its job ended: cancelled by a person" in site.run("status")[1], "accounting to know", 30)
    assert site.run("launch")[0] == 0
    wait(lambda: starts(run) == 2, "the second start")


def test_a_preempted_job_saves_and_slurm_brings_it_back(site):
    site.write_grid(epochs=LONG, alone=True)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    urgent = [
        call("sbatch", "--parsable", "-p", "urgent", "--exclusive", "-t", "2", "-o", "/dev/null", "--wrap", "sleep 3")
        for _ in range(3)
    ]
    wait(lambda: "stopped as asked" in run["log"].read_text(), "the run to save")
    wait(lambda: starts(run) == 2, "the second start")
    assert len(urgent) == 3


def test_a_killed_task_is_sent_again_by_the_next_launch_and_requeue_brings_it_back(site):
    site.write_grid(epochs=LONG, alone=True)
    assert site.run("launch")[0] == 0
    run = site.wait_for_a_step("cass")
    call("scontrol", "requeue", job_of(site, "cass"))
    wait(lambda: starts(run) == 2, "the second start")
    run = site.wait_for_a_step("cass", after=time.time_ns())
    first = job_of(site, "cass")
    call("scancel", "--signal=KILL", f"{first}.0")  # as the kernel does when memory is out
    wait(
        lambda: (
            run.state() == "interrupted"
            and first not in {job.id for job in scheduler.queued_jobs(site.folder / "runs")}
        ),
        "",
    )
    code, out = site.run("launch")
    assert code == 0 and "sent" in out
    wait(lambda: starts(run) == 3, "the third start")
    assert job_of(site, "cass") != first


def killed_in_between(process, runs, wanted):
    wait(lambda: len(submissions.read_submissions(runs)) >= wanted or process.poll() is not None, "a submission", 30)


def test_launches_at_once_and_launches_killed_in_between_send_every_run_once(site):
    site.write_grid(seeds=2, epochs=LONG)
    runs = site.folder / "runs"
    for wanted in (1, 2):  # killed after the first submission is written, and after the second
        process = site.start("launch")
        killed_in_between(process, runs, wanted)
        process.kill()
        process.communicate()
    both = [site.start("launch"), site.start("launch")]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    sent = [run for submission in submissions.read_submissions(runs) for task in submission.tasks for run in task]
    assert sorted(sent) == sorted(run.id for run in site.runs().values())
    jobs = scheduler.queued_jobs(runs)
    assert len(jobs) == 4 and not [job for job in jobs if job.reason == "JobHeldUser"]
    assert site.run("launch")[1].count("nothing to send") == 1


def test_a_held_array_that_no_submission_knows_is_cancelled_and_a_known_one_released(site):
    site.write_grid(epochs=LONG)
    assert site.run("launch")[0] == 0
    runs = site.folder / "runs"
    child = site.runs()["cass-test_resnet-100pct"].id
    submission = next(submission for submission in submissions.read_submissions(runs) if (child,) in submission.tasks)
    call("scontrol", "uhold", submission.job["id"])
    wait(
        lambda: all(
            job.reason == "JobHeldUser" for job in scheduler.queued_jobs(runs) if job.id == submission.job["id"]
        ),
        "hold",
    )
    submission.note_job(submission.job["id"], released=False)
    assert "released" in site.run("launch")[1]
    comment = f"--comment={scheduler.comment_of(runs, '20260101-000000-stray')}"
    stray = call("sbatch", "--parsable", "--hold", comment, "-o", "/dev/null", "--wrap", "true").strip()
    code, out = site.run("launch")
    assert f"cancelled {stray}" in out
    assert stray not in {job.id for job in scheduler.queued_jobs(runs)}


def test_the_script_for_sbatch_runs_the_grid_and_its_jobs_are_known(site):
    code, script = site.run("launch", "--print-sbatch")
    assert code == 0 and "#SBATCH --array" not in script and "afterany:$" in script
    (site.folder / "send.sh").write_text(script)
    said = call("bash", str(site.folder / "send.sh"))
    assert said.count("sent ") == 3
    assert "nothing to send" in site.run("launch")[1]  # what a person sent counts
    wait(lambda: {run.state() for run in site.runs().values()} == {"done"}, "the grid", 240)


def test_an_array_longer_than_the_sites_limit_is_sent_in_chunks(tmp_path):
    """Forty tasks in arrays of at most fifteen; tests/slurm/many.py does 1,200 against the site's own 1001."""
    import many

    assert many.send(tmp_path, tasks=40, limit=15) == [15, 15, 10]
    wait(lambda: many.ran(tmp_path) == 40, "forty tasks")


def test_wrong_settings_are_reported_before_anything_is_sent(site, monkeypatch):
    good = (site.folder / "here.toml").read_text()
    for change, words in {
        'partition = "gold"': "there is no partition 'gold'",
        'gres = "gpu:a100:1"': 'no node of partition main meets gres = "gpu:a100:1"',
        "hours = 1000": "allows 168",
    }.items():
        key = change.split(" = ")[0]
        lines = [change if line.startswith(f"{key} =") else line for line in good.splitlines()]
        (site.folder / "here.toml").write_text("\n".join(lines) + "\n")
        code, out = site.run("launch", "--dry-run")
        assert code == 3 and words in out, out
        code, out = site.run("launch")
        assert code == 2 and words in out, out
    (site.folder / "here.toml").write_text('runs = "/proc/runs"\n' + good)
    code, out = site.run("launch")
    assert code == 2 and "cannot be written" in out
    assert not (site.folder / "runs" / submissions.FOLDER).exists()

    (site.folder / "here.toml").write_text(good)
    bare = site.folder / "bin"
    bare.mkdir()
    monkeypatch.setenv("PATH", str(bare))
    code, out = site.run("launch")
    assert code == 2 and "not on PATH: sbatch, squeue, scontrol, srun" in out
