"""Runs as offline runs of Weights & Biases, read again from the files that `wandb sync` uploads."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tracked
from repository import ROOT

from pipeline.trackers.to_wandb import Wandb

pytest.importorskip("wandb", reason="the extra `track` is not installed")


BLOCK = 32768  # of LevelDB's log format, in which W&B stores its records


def stored(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file, each as it was serialised."""
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        if (room := BLOCK - at % BLOCK) < 7:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete, or the last part
            yield whole
            whole = b""


def offline_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """What each offline run in the folder says, by its id; an id that comes twice fails."""
    from wandb.proto.wandb_internal_pb2 import Record

    out: dict[str, dict[str, Any]] = {}
    for path in folder.glob("*/wandb/offline-run-*/*.wandb"):
        records = [Record.FromString(data) for data in stored(path)]
        (run,) = (record.run for record in records if record.HasField("run"))
        assert run.run_id not in out, "twice"
        values = [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        summary = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for record in records
            if record.HasField("summary")
            for item in record.summary.update
        }
        out[run.run_id] = {"rows": values, "config": config, "summary": summary, "tags": list(run.tags), "path": path}
    return out


def check_equal(folder: Path, records: list[Any]) -> None:
    there = offline_runs(folder)
    assert there.keys() == {record.id for record in records}
    for record in records:
        found = there[record.id]
        assert [row["_step"] for row in found["rows"]] == [step for epoch in record.epochs for step, _ in epoch]
        points = [values for epoch in record.epochs for _, values in epoch]
        assert [{k: v for k, v in row.items() if k[0] != "_"} for row in found["rows"]] == points
        assert record.params.items() <= found["config"].items()
        assert found["config"]["cass"] == record.tags
        assert record.result.items() <= found["summary"].items()


def test_offline_runs_hold_each_point_once_whatever_happened(tmp_path: Path) -> None:
    run, other = tracked.pretrain(tmp_path), tracked.finetune(tmp_path)
    out = tmp_path / "wandb"
    tracked.train(run, 3)
    tracked.train(other, 2)
    assert [Wandb(out, "mine").send(tracked.record(each)) for each in (run, other)] == ["new", "new"]
    tracked.train(run, 2, speed=50)  # resumed from a checkpoint
    assert Wandb(out, "mine").send(tracked.record(run)) == "more"
    tracked.train(run, 4, speed=50)
    tracked.finish(run)
    assert [Wandb(out, "mine").send(tracked.record(each)) for each in (run, other)] == ["more", ""]
    check_equal(out, [tracked.record(run), tracked.record(other)])
    found = offline_runs(out)[run.id]
    assert "method: cass" in found["tags"] and "device: cpu" in found["tags"]
    assert (found["path"].parent / "files" / "result.json").read_bytes() == run["result"].read_bytes()


WRITE = """
import sys
from pathlib import Path
import tracked
from pipeline.runs.folder import Run
from pipeline.trackers.to_wandb import Wandb

there = Wandb(Path(sys.argv[1]), "mine")
print("begins", flush=True)
for folder in sys.argv[2:]:
    there.send(tracked.record(Run(Path(folder))))
"""


def test_a_kill_while_offline_runs_are_written_leaves_nothing_twice(tmp_path: Path) -> None:
    runs = [tracked.pretrain(tmp_path, seed) for seed in (77, 78)]
    out = tmp_path / "wandb"
    paths = os.pathsep.join([str(Path(tracked.__file__).parent), str(ROOT)])
    for number, seconds in enumerate((0.05, 0.5), start=1):
        for run in runs:
            tracked.train(run, number)
        command = [sys.executable, "-c", WRITE, out, *(run.folder for run in runs)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}) as child:
            assert child.stdout and child.stdout.readline() == b"begins\n"
            time.sleep(seconds)
            child.kill()
    for run in runs:
        tracked.finish(run)
        Wandb(out, "mine").send(tracked.record(run))
    check_equal(out, [tracked.record(run) for run in runs])


@pytest.mark.parametrize(("module", "name"), [("to_wandb", "wandb"), ("to_mlflow", "mlflow")])
def test_without_the_extra_the_error_names_it(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    tracker = importlib.import_module(f"pipeline.trackers.{module}")
    with pytest.raises(ValueError, match=rf'{name} is not installed: pip install "cass-pipeline\[track\]"'):
        (tracker.Wandb if name == "wandb" else tracker.Mlflow)(tmp_path, "mine")
