"""Nodes of four stand-in GPUs, sold whole: four pretraining runs in one job, a requeue, a failure, and their bits."""

from __future__ import annotations

import json
import time

import kill
import pytest
import sites
import tiny
from repository import ROOT
from test_interruptions import call, job_of, starts, wait

from pipeline.core import files

pytestmark = pytest.mark.usefixtures("devcluster")

GRID = """
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 4

def grid(datasets, seeds, preset):
    class shards:
        name, fingerprint = datasets[0].ref.name, datasets[0].ref.fingerprint
    return [tiny.make_pretrain(shards, seed=seed, epochs=12 if seed == 80 else 40) for seed in seeds]
"""


@pytest.fixture
def four_gpus():
    up = str(ROOT / "slurm/devcluster/up")
    call(up, "--gpus", "rtx8000:4")
    yield
    call(up, "--gpus", "rtx8000:1")


def test_a_job_of_four_runs_continues_with_those_left_and_one_that_fails_harms_no_other(four_gpus, tmp_path, request):
    shards = tiny.make_shards(tmp_path).folder.parent
    (tmp_path / "alone").mkdir()
    alone = sites.Site(tmp_path / "alone", shards)
    node = sites.SLURM.replace("gpu:rtx8000:1", "gpu:4").replace("[slurm]", "[slurm]\nruns_per_job = 4")
    site = sites.Site(tmp_path, shards, cluster=node)
    for one in (alone, site):
        (one.folder / "mine.py").write_text(GRID)
    rows = json.loads(site.run("status", "--json")[1])["runs"]
    broken = next(row["run"] for row in rows if "tiny-cass-s79" in row["run"])
    elsewhere = {"hardware": {"model": "another GPU"}, "inputs": {}, "starts": []}
    files.write_json(tmp_path / "runs" / broken / "start.json", elsewhere)

    calm = alone.start("launch", "--seeds", "2")  # while jobs wait
    request.addfinalizer(calm.terminate)
    code, out = site.run("launch")
    assert code == 0 and "mine.pretrain.s77-80: a job, 4 runs" in out and "more than once" not in out, out
    long, short = site.wait_for_a_step("cass"), site.wait_for_a_step("cass-s80")
    job = job_of(site, "cass")
    assert job_of(site, "cass-s78") == job and "gres/gpu=4" in call("scontrol", "show", "job", job)
    wait(lambda: short.state() == "done", "the shortest run to end")
    site.wait_for_a_step("cass", after=time.time_ns())
    call("scancel", "--signal=USR2", job)
    wait(lambda: starts(long) == 2, "the job to come back")
    runs = site.runs()
    wait(lambda: {run.state() for run in runs.values()} == {"done", "failed"}, "the grid", 240)
    assert {name for name, run in runs.items() if run.state() == "failed"} == {"cass-s79"}
    assert [starts(runs[name]) for name in ("cass", "cass-s78", "cass-s80")] == [2, 2, 1]

    said, _ = calm.communicate(timeout=240)
    assert calm.returncode == 0, said
    differences = {name: kill.differences(runs[name], run) for name, run in alone.runs().items()}
    assert differences == {"cass": [], "cass-s78": []}
