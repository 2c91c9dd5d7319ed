"""Which runs carry which, how they travel, and a grid with milestones launched for real."""

from __future__ import annotations

import json

import pytest
import tiny
from sites import Site

from pipeline.core import files
from pipeline.jobs import plan as plans
from pipeline.jobs import submissions
from pipeline.jobs.slurm import reconcile, scheduler
from pipeline.runs.folder import Run
from pipeline.runs.spec import PretrainSpec

GRID = """
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 1

def grid(datasets, seeds, preset):
    out = []
    for card in datasets:
        class shards:
            name, fingerprint = card.ref.name, card.ref.fingerprint
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
    return tiny.make_shards(tmp_path_factory.mktemp("carriers")).folder.parent


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
    return {item.spec.epochs: item for item in plan.runs.values() if isinstance(item.spec, PretrainSpec)}


def carriers(plan):
    """Who carries whom, in epochs."""
    found = by_epochs(plan)
    epochs = {item.run.id: item.spec.epochs for item in found.values()}
    return {count: epochs[item.published_by] for count, item in found.items() if item.published_by}


def begin(item, fixed=()):
    item.run.announce(item.spec)
    files.write_json(item.run["start"], {"milestones": list(fixed)})


def test_the_longest_run_carries_every_shorter_one(plan_of):
    assert carriers(plan_of(*PAPER)) == {50: 300, 100: 300, 200: 300}
    plan = plan_of(*PAPER, seeds=3)
    items = plan.runs
    assert all(items[item.published_by].spec.seed == item.spec.seed for item in items.values() if item.published_by)
    assert sum(item.published_by is not None for item in items.values()) == 9


def test_runs_whose_averaging_overlaps_travel_apart(plan_of):
    assert carriers(plan_of(50, 90, 100)) == {50: 100}
    assert carriers(plan_of(50, 90, 100, 300)) == {50: 300, 100: 300}


def test_what_is_done_at_work_failed_or_begun_by_itself_is_left_alone(plan_of):
    found = by_epochs(plan_of(10, *PAPER))
    found[10].run.announce(found[10].spec)
    begin(found[50])
    begin(found[100])
    files.write_json(found[100].run["result"], {})
    files.write_text(found[200].run["error"], "ValueError: broken\n")
    assert carriers(plan_of(10, *PAPER)) == {10: 300}
    with found[10].run.lock():
        assert carriers(plan_of(10, *PAPER)) == {}


def test_a_run_that_has_begun_carries_what_its_start_fixed_and_no_more(plan_of):
    found = by_epochs(plan_of(*PAPER))
    begin(found[300], [100])
    assert carriers(plan_of(*PAPER)) == {100: 300, 50: 200}
    with found[300].run.lock():
        assert carriers(plan_of(*PAPER)) == {100: 300, 50: 200}
    files.write_text(found[300].run["error"], "ValueError: broken\n")
    assert carriers(plan_of(*PAPER)) == {100: 200, 50: 200}
    files.write_json(found[300].run["result"], {})
    assert carriers(plan_of(*PAPER)) == {100: 200, 50: 200}


def test_carrier_and_milestones_are_one_job_and_their_fine_tunes_wait_for_it(plan_of):
    plan = plan_of(*PAPER)
    pretraining, *fan_outs = reconcile.arrays_to_send(plan, {}, limit=1001)
    (job,) = pretraining.jobs
    assert [item.spec.epochs for item in job.runs] == [300, 200, 100, 50]
    assert str(pretraining) == "a job, 4 runs"
    assert [len(array.parents) for array in fan_outs] == [1, 1, 1, 1]

    runs = plan.runs[job.runs[0].run.id].run.folder.parent
    submission = submissions.publish(runs, pretraining, runs / ".code" / "abc")
    carrier = job.runs[0].run
    assert carrier.milestones() == files.read_json(carrier["milestones"]) == [50, 100, 200]
    assert submission.task_folder(0) == carrier.folder
    submission.note_job("17", released=True)
    jobs = {run: task for task, carries in submission.live_tasks() for run in carries}
    assert {jobs[run] for array in fan_outs for run in array.parents} == {"17"}


def test_what_a_job_in_the_queue_carries_is_not_sent_again_nor_made_to_carry_more(plan_of):
    found = by_epochs(plan_of(*PAPER))
    job = scheduler.QueuedJob("17", "PENDING", "", "token", "")
    plan = plan_of(*PAPER)
    arrays = reconcile.arrays_to_send(plan, {found[300].run.id: job, found[100].run.id: job}, limit=1001)
    sent = [[item.spec.epochs for item in job.runs] for job in arrays[0].jobs]
    assert sent == [[200, 50]]
    assert len(arrays) == 5  # the fine-tunes of all four

    begin(found[300], [50])
    with found[300].run.lock():  # at work, started by hand: its milestone waits, and so does what starts from that
        arrays = reconcile.arrays_to_send(plan_of(50, 300), {}, limit=1001)
    assert arrays == []


def test_a_wish_is_written_anew_until_the_run_begins(plan_of):
    found = by_epochs(plan_of(*PAPER))
    longer = found[300].run
    submissions.request_milestones(longer, [])
    assert not longer["milestones"].exists()
    submissions.request_milestones(longer, [found[100].spec, found[50].spec])
    submissions.request_milestones(longer, [found[200].spec])
    assert longer.milestones() == [200]
    begin(found[300], [200])
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
    assert code == 0 and "2 pretraining runs are milestones of 1 longer ones" in out
    assert len([line for line in out.splitlines() if "-cass-s77-" in line]) == 2  # each with who carries it

    code, out = site.run("launch", "--jobs", "2")
    assert code == 0, out
    assert "4 of 4 runs are done" in out
    runs = runs_of(site)
    for epochs in (1, 2):
        assert runs[epochs].result().notes["carried_by"] == runs[4].id
        assert runs[epochs]["log"].read_text() == f"published on its way by {runs[4].id}, whose log tells the rest\n"
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
    assert says[by_epochs(plan)[2].run.id] == f"carried by {longest.id}, which is interrupted"

    code, out = site.run("launch", "--jobs", "2")
    assert code == 1 and "2 of 3 runs are done" in out, out
    runs = runs_of(site)
    assert {epochs: run.state() for epochs, run in runs.items()} == {4: "failed", 2: "done", 1: "done"}
    assert "started with device elsewhere" in runs[4].reason()
    assert runs[1].result().notes["carried_by"] == runs[2].id
    assert "carried_by" not in runs[2].result().notes
