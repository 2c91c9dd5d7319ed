"""Both engines of a fan-out, with and without Ray: real runs, real signals, real kills."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kill
import pytest
import tiny

from pipeline.core import files
from pipeline.runs import cluster

PATIENCE = 300.0
DRIVER = """
import importlib, signal, sys
asked = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: asked.append(number))
engine, trials, *folders = sys.argv[1:]
engine = importlib.import_module("pipeline.jobs.engines." + engine)
engine.run_trials(folders, trials=int(trials), gpus=(), stop=lambda: bool(asked))
"""


class Driver:
    """A job in a session of its own; all its processes can get a signal, as Slurm sends it to those of a step."""

    def __init__(self, engine, folder, runs, *, trials):
        (folder / "home").mkdir(exist_ok=True)
        self.log = Path(tempfile.mkstemp(dir=folder, suffix=".log")[1])
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, engine, str(trials), *(str(run.folder) for run in runs)],
                env={**os.environ, "HOME": str(folder / "home"), "SLURM_JOB_ID": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self):
        """The living processes of the session."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(folder.name))
        return found

    def at_work_on(self, run):
        """The process that executes the run, else None."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if any(os.readlink(link) == str(run["lock"]) for link in Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
        return None

    def wait_for_start(self, run):
        until(lambda: self.at_work_on(run), "the trial did not start")

    def rays(self):
        """The folders that Ray made for this job."""
        return list(Path("/tmp").glob(f"*ray*/session_*_{self.process.pid}"))

    def send(self, number):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self):
        """Until the job has ended well and left nothing."""
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        self.ended()
        assert self.rays() == []

    def ended(self):
        self.process.wait(PATIENCE)
        until(lambda: not self.processes(), "a process outlives its job", seconds=10)
        assert list(self.log.with_name("home").iterdir()) == []


def until(condition, otherwise, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Two short runs, each executed by a process of its own."""
    folder = tmp_path_factory.mktemp("engines")
    shards = tiny.make_shards(folder)
    site = tiny.make_cluster(folder, checkpoint_minutes=60.0, runs=str(folder / "calm"))
    runs = [tiny.announce(tiny.make_finetune(shards, None, arm=arm, epochs=2), site) for arm in (0, 1)]
    for process in [kill.start(run) for run in runs]:
        process.join()
        assert process.exitcode == 0
    return runs


@pytest.fixture
def runs(calm, tmp_path):
    """A run to be held, the short ones again, three long ones."""
    site = cluster.from_json(files.read_json(calm[0]["job"]))
    site = dataclasses.replace(site, runs=str(tmp_path / "runs"))
    short = [run.spec for run in calm]
    long = [dataclasses.replace(short[0], epochs=1000 + more, patience=2000) for more in range(4)]
    return [tiny.announce(spec, site) for spec in (long[0], *short, *long[1:])]


@pytest.fixture
def drive(tmp_path):
    """Start drivers, none of which outlives the test."""
    drivers = []

    def start(engine, runs, *, trials):
        drivers.append(Driver(engine, tmp_path, runs, trials=trials))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.process.kill()
        driver.process.wait()


@contextlib.contextmanager
def held(run):
    """Until the end of the block, a trial of this run waits for its lock, as long as Slurm jobs do."""
    with run.lock():
        yield


@pytest.mark.parametrize(("engine", "number"), [("processes", signal.SIGUSR2), ("ray_tune", signal.SIGTERM)])
def test_trials_have_the_same_bits_die_alone_and_save_at_a_signal_to_all_processes(engine, number, runs, calm, drive):
    with held(runs[0]):
        driver = drive(engine, runs, trials=2)
        until(lambda: all(run["result"].exists() for run in runs[1:3]), "one worker did not do both short runs")
        os.kill(driver.at_work_on(runs[0]), signal.SIGKILL)
        until(lambda: all(run["progress"].exists() for run in runs[3:5]), "the killed worker was not replaced")
        driver.send(number)
        driver.wait()
    assert [run.state() for run in runs] == ["pending", "done", "done", "interrupted", "interrupted", "pending"]
    assert [kill.differences(*pair) for pair in zip(runs[1:3], calm, strict=True)] == [[], []]
    for run in runs[3:5]:
        assert len(run.checkpoints()) == 1
        assert run["log"].read_text().endswith("stopped as asked; the checkpoint is on disk\n")


def test_no_worker_outlives_a_killed_job(runs, drive):
    with held(runs[0]):
        driver = drive("processes", runs, trials=1)
        driver.wait_for_start(runs[0])
        driver.process.kill()
        driver.ended()


def test_jobs_with_ray_on_one_node_do_not_meet_and_remove_what_a_killed_one_left(runs, calm, drive):
    with held(runs[0]):
        killed, other = drive("ray_tune", runs, trials=1), drive("ray_tune", runs, trials=1)
        killed.wait_for_start(runs[0])
        other.wait_for_start(runs[0])
        killed.process.kill()
        killed.ended()
        assert len(killed.rays()) == 1
        later = drive("ray_tune", calm, trials=1)
        later.wait()
        assert later.log.read_text() == ""
        assert killed.rays() == []
        assert other.at_work_on(runs[0])
        assert len(other.rays()) == 1
        other.send(signal.SIGTERM)
        other.wait()
