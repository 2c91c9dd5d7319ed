"""Runs in MLflow: against a real server with its sqlite store, which `make mlflow` installs next to us."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import tracked
from commands import command
from repository import ROOT

from pipeline.core import files
from pipeline.trackers.record import Record

SERVER = ROOT / ".venv-mlflow" / "bin" / "mlflow"
EMPTY = ROOT / ".venv-mlflow" / "empty.db"
UP_SECONDS = 600.0  # a busy machine reads its many modules slowly


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of its own."""
    if not SERVER.exists():
        pytest.skip(f"there is no {SERVER}: make mlflow installs it, where a package registry can be reached")
    pytest.importorskip("mlflow", reason="the extra `track` is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if EMPTY.exists():  # else the server makes the tables, which takes longer than it does
        shutil.copy(EMPTY, folder / "store.db")
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "files")]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [SERVER, "server", *store, *where], stdout=log, stderr=log, env=os.environ | off, start_new_session=True
        )
    try:
        deadline = time.monotonic() + UP_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def tracker(server: str, request: pytest.FixtureRequest) -> Callable[[], object]:
    """Opens an experiment of this test's own; each call knows nothing of those before it, like a process of its own."""
    from pipeline.trackers.to_mlflow import Mlflow

    return lambda: Mlflow(server, request.node.name)


def check_equal(tracker, records: list[Record]) -> None:
    """The server has one run for each record, and in it every value of the record once and nothing else."""
    client, there = tracker.client, {}
    for run in client.search_runs([tracker.experiment]):
        assert run.data.tags["cass.run"] not in there, "twice"
        there[run.data.tags["cass.run"]] = run
    assert there.keys() == {record.id for record in records}
    for record in records:
        run = there[record.id]
        expected = [
            (name, step, value) for epoch in record.epochs for step, row in epoch for name, value in row.items()
        ]
        expected += [(name.replace("(", "_").replace(")", "_"), 0, v) for name, v in record.result.items()]
        found = [
            (name, metric.step, metric.value)
            for name in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, name)
        ]
        assert sorted(found) == sorted(expected)
        assert run.data.params == {name: str(value) for name, value in record.params.items()}
        assert record.tags.items() <= run.data.tags.items()
        files_there = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert files_there == [path.name for path in record.files]


def test_a_run_is_followed_through_a_resume_to_its_result(tmp_path: Path, tracker) -> None:
    run, other = tracked.pretrain(tmp_path), tracked.finetune(tmp_path)
    tracked.train(run, 3)
    tracked.train(other, 1)
    assert [tracker().send(tracked.record(each)) for each in (run, other)] == ["new", "new"]
    tracked.train(run, 2, speed=50)  # resumed from a checkpoint: less than the server knows
    assert tracker().send(tracked.record(run)) == "more"
    tracked.train(run, 4, speed=50)
    tracked.finish(run)
    there = tracker()
    assert [there.send(tracked.record(each)) for each in (run, other)] == ["more", ""]
    assert there.send(tracked.record(run)) == "" and tracker().send(tracked.record(run)) == ""
    found = there.client.get_run(there.there[run.id].info.run_id)
    assert found.info.status == "FINISHED" and found.info.run_name == run.id
    assert (found.data.tags["method"], found.data.tags["seed"], found.data.tags["device"]) == ("cass", "77", "cpu")
    assert found.data.params["arms.cnn.backbone"] == "test_resnet.r160_in1k"
    assert there.there[other.id].data.tags["fraction"] == "0.5"
    assert there.there[other.id].info.status == "KILLED"  # interrupted
    knn = there.client.get_metric_history(found.info.run_id, "epoch/cnn_val_knn")
    assert [(point.step, point.value) for point in knn] == [(0, 0.25)]
    speeds = there.client.get_metric_history(found.info.run_id, "epoch/images_per_second")
    assert [point.value for point in speeds] == [100, 100, 100, 50]  # an epoch that was told stays as it was told
    where = there.client.download_artifacts(found.info.run_id, "result.json", str(tmp_path))
    assert Path(where).read_bytes() == run["result"].read_bytes()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MLflow's of its file store, which needs no server
def test_probes_of_the_end_are_told_of_an_epoch_that_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra `track` is not installed")
    from pipeline.trackers.to_mlflow import Mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    there = Mlflow((tmp_path / "store").as_uri(), "probed")
    run = tracked.pretrain(tmp_path)
    tracked.train(run, 3)
    assert there.send(tracked.record(run)) == "new"
    *rows, last = files.read_jsonl(run["metrics"])
    files.write_jsonl(run["metrics"], [*rows, {**last, "cnn_val_knn": 0.25, "images_per_second": 50}])
    tracked.finish(run)
    assert there.send(tracked.record(run)) == "more" and there.send(tracked.record(run)) == ""

    def told(name: str) -> list[tuple[int, float]]:
        history = there.client.get_metric_history(there.there[run.id].info.run_id, name)
        return [(metric.step, metric.value) for metric in history]

    assert told("epoch/cnn_val_knn") == [(0, 0.25), (30, 0.25)]  # the same value as before the first step
    assert told("epoch/loss") == [(10, 1), (20, 1 / 2), (30, 1 / 3)]
    assert told("epoch/images_per_second") == [(10, 100), (20, 100), (30, 100)]


class Killed(BaseException):
    """In place of a process that dies: what called the server goes no further."""


def test_sync_killed_anywhere_leaves_nothing_twice(tmp_path: Path, tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [tracked.pretrain(tmp_path, 77), tracked.pretrain(tmp_path, 78), tracked.finetune(tmp_path)]
    draw, send = random.Random(5), requests.Session.send
    left = 0

    def dying(session, request, **rest):
        nonlocal left
        left -= 1
        if left == 0 and draw.random() < 0.5:
            raise Killed  # before the server hears of it
        answer = send(session, request, **rest)
        if left == 0:
            raise Killed  # the server did it, and nobody knows
        return answer

    tracker()  # the experiment
    monkeypatch.setattr(requests.Session, "send", dying)
    kills = 0
    for epochs in (1, 2, 3, 3, 4, 5):
        for run in runs:
            tracked.train(run, epochs)
        left = draw.randrange(1, 20)
        try:
            there = tracker()
            for run in runs:
                there.send(tracked.record(run))
        except Killed:
            kills += 1
    assert kills >= 3
    left = 0
    for run in runs:
        tracked.finish(run)
    there = tracker()
    for run in runs:
        there.send(tracked.record(run))
    check_equal(there, [tracked.record(run) for run in runs])
    assert [tracker().send(tracked.record(run)) for run in runs] == ["", "", ""]


def test_two_runs_for_one_which_a_lost_answer_leaves_become_one(tmp_path: Path, tracker) -> None:
    run = tracked.pretrain(tmp_path)
    tracked.train(run, 2)
    first = tracker()
    create, tags = first.client.create_run, {"cass.run": run.id}
    first.client.create_run = lambda *given, **more: [create(*given, **more) for _ in range(2)][1]  # a slow server
    assert first.send(tracked.record(run)) == "new"
    check_equal(first, [tracked.record(run)])
    create(first.experiment, start_time=2**41, tags=tags, run_name=run.id)  # its answer came later
    assert tracker().send(tracked.record(run)) == ""
    check_equal(first, [tracked.record(run)])


def test_another_training_of_the_same_run_replaces_what_was_told(tmp_path: Path, tracker) -> None:
    run = tracked.pretrain(tmp_path)
    tracked.train(run, 3)
    assert tracker().send(tracked.record(run)) == "new"
    tracked.train(run, 1, off=0.5)  # restarted on another device
    assert tracker().send(tracked.record(run)) == "again"
    tracked.train(run, 2, off=0.5)
    there = tracker()
    assert there.send(tracked.record(run)) == "more"
    check_equal(there, [tracked.record(run)])


def test_what_a_person_deletes_there_stays_away(tmp_path: Path, tracker) -> None:
    run = tracked.pretrain(tmp_path)
    tracked.train(run, 1)
    there = tracker()
    there.send(tracked.record(run))
    there.client.delete_run(there.there[run.id].info.run_id)
    tracked.train(run, 2)
    assert tracker().send(tracked.record(run)) == "removed"


def test_the_command_tells_a_grid_and_its_report(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tracked.grid(tmp_path)
    to = ("--grid", "mine.py", "--cluster", "here.toml", "--to", "mlflow", "--project", "whole")
    first = command("track", *to, "--uri", server, cwd=tmp_path)
    assert first.stdout == "4 new; 14 runs have not started\n", (first.stdout, first.stderr)
    files.write_text(tmp_path / "reports" / "mine" / "report.md", "# mine\n")
    tracked.finish(runs[2])
    again = command("track", *to, "--uri", server, "--follow", cwd=tmp_path)  # nothing lives, so it leaves
    assert again.stdout == "1 new, 1 continued, 3 as they were; 14 runs have not started\n", again.stderr
    runs[3]["start"].write_text("[]")
    torn = command("track", *to, "--uri", server, cwd=tmp_path)
    assert torn.returncode == 1 and f"{runs[3].id}: not told: " in torn.stderr and "4 as they were" in torn.stdout
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = command("track", *to, "--uri", "http://127.0.0.1:9", cwd=tmp_path)
    assert gone.returncode == 2 and "error: MLflow at http://127.0.0.1:9: " in gone.stderr
    none = command("track", *to, cwd=tmp_path)
    assert none.returncode == 2 and "give --uri" in none.stderr
