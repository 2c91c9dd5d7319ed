"""Which runs publish which, how they are submitted, and a grid with milestones launched for real."""

from __future__ import annotations

import json

import pytest
import tiny
from sites import Site

from pipeline.core import files
from pipeline.jobs import plan as plans
from pipeline.jobs import submissions
from pipeline.jobs.slurm import scheduler, sending
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec

GRID = """
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 1

def grid(datasets, seeds, preset):
    out = []
    for info in datasets:
        class shards:
            name, fingerprint = info.ref.name, info.ref.fingerprint
        for seed in seeds:
            for epochs in {lengths}:
                pretrain = tiny.make_pretrain(shards, seed=seed, epochs=epochs)
                finetune = tiny.make_finetune(shards, pretrain, seed=seed, epochs=1)
                out.append(finetune if epochs in {finetuned} else pretrain)
    return out
"""
PAPER = (50, 100, 200, 300)  # Tables 8 and 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.make_shards(tmp_path_factory.mktemp("milestone-planning")).folder.parent


@pytest.fixture
def plan_of(tmp_path, shards):
    """A plan of pretraining runs of some lengths, each with a fine-tune; the same run folders every time."""

    def make(*lengths, **changes):
        path = tmp_path / "mine.py"
        path.write_text(GRID.format(lengths=lengths, finetuned=lengths))
        return plans.make_plan(str(path), tiny.make_cluster(tmp_path, shards=str(shards)), **changes)

    return make


def by_epochs(plan):
    """The pretraining runs of a plan with one seed."""
    return {planned.spec.epochs: planned for planned in plan.runs.values() if isinstance(planned.spec, PretrainSpec)}


def publishers(plan):
    """Who publishes whom, in epochs."""
    found = by_epochs(plan)
    epochs = {planned.run.id: planned.spec.epochs for planned in found.values()}
    return {count: epochs[planned.published_by] for count, planned in found.items() if planned.published_by}


def start(planned, fixed=()):
    planned.run.announce(planned.spec)
    files.write_json(planned.run["start"], {"milestones": list(fixed)})


def test_the_longest_run_publishes_every_shorter_one(plan_of):
    assert publishers(plan_of(*PAPER)) == {50: 300, 100: 300, 200: 300}
    plan = plan_of(*PAPER, seeds=3)
    runs = plan.runs
    milestones = [planned for planned in runs.values() if planned.published_by]
    assert all(runs[planned.published_by].spec.seed == planned.spec.seed for planned in milestones)
    assert len(milestones) == 9


def test_runs_whose_averaging_overlaps_are_trained_apart(plan_of):
    assert publishers(plan_of(50, 90, 100)) == {50: 100}
    assert publishers(plan_of(50, 90, 100, 300)) == {50: 300, 100: 300}


def test_what_is_done_running_failed_or_started_by_itself_is_left_alone(plan_of):
    found = by_epochs(plan_of(10, *PAPER))
    found[10].run.announce(found[10].spec)
    start(found[50])
    start(found[100])
    files.write_json(found[100].run["result"], {})
    files.write_text(found[200].run["error"], "ValueError: broken\n")
    assert publishers(plan_of(10, *PAPER)) == {10: 300}
    with found[10].run.lock():
        assert publishers(plan_of(10, *PAPER)) == {}


def test_a_run_that_has_started_publishes_what_its_start_fixed_and_no_more(plan_of):
    found = by_epochs(plan_of(*PAPER))
    start(found[300], [100])
    assert publishers(plan_of(*PAPER)) == {100: 300, 50: 200}
    with found[300].run.lock():
        assert publishers(plan_of(*PAPER)) == {100: 300, 50: 200}
    files.write_text(found[300].run["error"], "ValueError: broken\n")
    assert publishers(plan_of(*PAPER)) == {100: 200, 50: 200}
    files.write_json(found[300].run["result"], {})
    assert publishers(plan_of(*PAPER)) == {100: 200, 50: 200}


def test_a_publisher_and_its_milestones_are_one_job_and_their_fine_tunes_wait_for_it(plan_of):
    plan = plan_of(*PAPER)
    pretraining, *fan_outs = sending.arrays_to_send(plan, {}, limit=1001)
    (job,) = pretraining.jobs
    assert [planned.spec.epochs for planned in job.runs] == [300, 200, 100, 50]
    assert str(pretraining) == "a job, 4 runs"
    assert [len(array.parents) for array in fan_outs] == [1, 1, 1, 1]

    runs = plan.runs[job.runs[0].run.id].run.folder.parent
    submission = submissions.publish(runs, pretraining, runs / ".code" / "abc")
    longest = job.runs[0].run
    assert longest.milestones() == files.read_json(longest["milestones"]) == [50, 100, 200]
    assert submission.task_folder(0) == longest.folder
    submission.note_job("17", released=True)
    jobs = {run: task for task, its_runs in submission.live_tasks() for run in its_runs}
    assert {jobs[run] for array in fan_outs for run in array.parents} == {"17"}


def test_a_run_with_a_job_in_the_queue_is_not_sent_again_nor_given_more_milestones(plan_of):
    found = by_epochs(plan_of(*PAPER))
    job = scheduler.QueuedJob("17", "PENDING", "", "submission", "")
    plan = plan_of(*PAPER)
    arrays = sending.arrays_to_send(plan, {found[300].run.id: job, found[100].run.id: job}, limit=1001)
    sent = [[planned.spec.epochs for planned in job.runs] for job in arrays[0].jobs]
    assert sent == [[200, 50]]
    assert len(arrays) == 5  # the fine-tunes of all four

    start(found[300], [50])
    with found[300].run.lock():  # running, started by hand: its milestone waits, and so does what starts from that
        arrays = sending.arrays_to_send(plan_of(50, 300), {}, limit=1001)
    assert arrays == []


def test_requested_milestones_are_written_again_until_the_run_starts(plan_of):
    found = by_epochs(plan_of(*PAPER))
    longer = found[300].run
    submissions.request_milestones(longer, [])
    assert not longer["milestones"].exists()
    submissions.request_milestones(longer, [found[100].spec, found[50].spec])
    submissions.request_milestones(longer, [found[200].spec])
    assert longer.milestones() == [200]
    start(found[300], [200])
    submissions.request_milestones(longer, [found[100].spec])
    assert longer.milestones() == [200]


@pytest.fixture
def site(tmp_path, shards):
    made = Site(tmp_path, shards)
    (tmp_path / "mine.py").write_text(GRID.format(lengths=(1, 2, 4), finetuned=(2,)))
    return made


def runs_of(site):
    found = [Run(path.parent) for path in (site.folder / "runs").glob("*/spec.json")]
    return {run.spec.epochs: run for run in found if isinstance(run.spec, PretrainSpec)}


def test_a_grid_with_milestones_is_trained_once(site):
    code, out = site.run("launch", "--dry-run")
    assert code == 0 and "2 pretraining runs are published on the way of 1 longer one" in out
    assert len([line for line in out.splitlines() if "-cass-s77-" in line]) == 2  # each with its publisher

    code, out = site.run("launch", "--jobs", "2")
    assert code == 0, out
    assert "4 of 4 runs are done" in out
    runs = runs_of(site)
    for epochs in (1, 2):
        assert runs[epochs].result().notes["carried_by"] == runs[4].id
        assert runs[epochs]["log"].read_text() == f"published by {runs[4].id} on its way, whose log has the rest\n"
    assert "milestone" in runs[4]["log"].read_text()
    sent = [
        submission.tasks for submission in submissions.read_submissions(site.folder / "runs") if not submission.fan_out
    ]
    assert sent == [((runs[4].id, runs[2].id, runs[1].id),)]
    code, out = site.run("launch")
    assert code == 0 and "nothing to start" in out


@pytest.mark.slow
def test_milestones_of_a_run_that_fails_are_run_without_it(site, shards):
    (site.folder / "mine.py").write_text(GRID.format(lengths=(1, 2, 4), finetuned=()))
    plan = plans.make_plan(str(site.folder / "mine.py"), tiny.make_cluster(site.folder, shards=str(shards)))
    longest = by_epochs(plan)[4].run
    longest.announce(by_epochs(plan)[4].spec)
    start = {"hardware": {"model": "elsewhere"}, "inputs": {}, "milestones": [1, 2], "starts": []}
    files.write_json(longest["start"], start)
    code, out = site.run("status", "--json")
    says = {row["run"]: row["says"] for row in json.loads(out)["runs"]}
    assert says[by_epochs(plan)[2].run.id] == f"published by {longest.id}, which is interrupted"

    code, out = site.run("launch", "--jobs", "2")
    assert code == 1 and "2 of 3 runs are done" in out, out
    runs = runs_of(site)
    assert {epochs: run.state() for epochs, run in runs.items()} == {4: "failed", 2: "done", 1: "done"}
    assert "started with device elsewhere" in runs[4].reason()
    assert runs[1].result().notes["carried_by"] == runs[2].id
    assert "carried_by" not in runs[2].result().notes
