"""Kill runs with SIGKILL at random moments, start them again, and compare every bit with undisturbed ones.

python tests/support/kill.py [FOLDER] [KILLS] [DEVICE]
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tiny
import torch
from starter import Process

from pipeline.core import files
from pipeline.jobs import submissions
from pipeline.runs.folder import Run
from pipeline.runs.spec import Spec

BITS = ("weights", "last_weights", "predictions", "val_predictions")
TIMES = ("images_per_second", "seconds", "epoch_seconds")
PATIENCE = 300.0


def start(run: Run) -> Process:
    """Execute the run in a process of its own."""
    return Process(run.folder)


def undisturbed(run: Run) -> Run:
    process = start(run)
    process.join()
    assert process.exitcode == 0, f"{run.id} ended with {process.exitcode}:\n{run['log'].read_text()}"
    return run


def killed_when(run: Run, path: Path) -> None:
    """Start the run and kill it as soon as a file exists."""
    process = start(run)
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.exitcode is None, f"{run.id} ended before {path} was there:\n{run['log'].read_text()}"
        assert time.monotonic() < deadline, f"{path} was not there in {PATIENCE} s"
        time.sleep(0.0005)
    process.kill()
    process.join()


def disturbed(run: Run, kills: int, seconds: float, chance: random.Random) -> Run:
    """Kill the run `kills` times, each at a random moment after its first step since the last start.

    `seconds` is what an undisturbed run takes; the kills are spread over about half of that.
    """
    for number in range(kills):
        before = run["progress"].stat().st_mtime_ns if run["progress"].exists() else 0
        process = start(run)
        deadline = time.monotonic() + PATIENCE
        while not run["progress"].exists() or run["progress"].stat().st_mtime_ns == before:
            assert process.exitcode is None, (
                f"{run.id} ended before kill {number + 1} of {kills}:\n{run['log'].read_text()}"
            )
            assert time.monotonic() < deadline, f"{run.id} took no step in {PATIENCE} s"
            time.sleep(0.002)
        time.sleep(chance.uniform(0, seconds / kills))
        process.kill()
        process.join()
        assert not run["result"].exists(), f"{run.id} was done before kill {number + 1} of {kills}; give it more epochs"
    return undisturbed(run)


def untimed(value: Any) -> Any:
    """A value of dictionaries and lists without the times in it."""
    if isinstance(value, dict):
        return {key: untimed(entry) for key, entry in value.items() if key not in TIMES}
    return [untimed(entry) for entry in value] if isinstance(value, list) else value


def equal(one: Any, other: Any) -> bool:
    """Whether two values of dictionaries, lists, numbers and tensors hold the same bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def differences(run: Run, other: Run) -> list[str]:
    """What differs between two finished runs of one spec, without the times."""
    out = []
    for name in BITS:
        if run[name].exists() != other[name].exists():
            out.append(f"{name}: only one of the runs has it")
        elif run[name].exists() and run[name].read_bytes() != other[name].read_bytes():
            out.append(f"{name}: bytes differ")
    rows = [untimed(files.read_jsonl(one["metrics"])) for one in (run, other)]
    if rows[0] != rows[1]:
        out.append("metrics.jsonl: values differ")
    states = [[untimed(torch.load(path, weights_only=True)) for path in one.checkpoints()] for one in (run, other)]
    if not equal(*states):
        out.append("the kept states differ")
    if run.result().metrics != other.result().metrics:
        out.append("result.json: metrics differ")
    return out


def main(folder: Path, kills: int, device: str = "cpu", seed: int = 0) -> dict[str, list[str]]:
    """Differences by kind of run; empty lists mean that every bit is the same."""
    shards = tiny.make_shards(folder)
    epochs = 2 * kills
    # a run that is killed writes a checkpoint after every step; one that is not needs none before its end
    rough = tiny.make_cluster(folder, runs=str(folder / "rough"), keep_state=True, device=device)
    calm = dataclasses.replace(rough, runs=str(folder / "calm"), checkpoint_minutes=60.0)
    pretrain = tiny.make_pretrain(shards, epochs=epochs)
    finetune = tiny.make_finetune(shards, pretrain, epochs=epochs, patience=epochs)
    specs: dict[str, Spec] = {"pretraining": pretrain, "fine-tuning": finetune}
    calm_runs = {kind: tiny.announce(spec, calm) for kind, spec in specs.items()}
    rough_runs = {kind: tiny.announce(spec, rough) for kind, spec in specs.items()}
    shorter = dataclasses.replace(
        pretrain, epochs=epochs // 2
    )  # a milestone of the killed run; alone in the other folder
    alone, milestone = tiny.announce(shorter, calm), tiny.announce(shorter, rough)
    submissions.request_milestones(rough_runs["pretraining"], [shorter])

    undisturbed(calm_runs["pretraining"])
    undisturbed(alone)
    # The killed fine-tuning starts from a copy of the calm parent, so that both kinds can run at the same time.
    copied = Path(rough.runs) / "parent"
    rough_parent = dataclasses.replace(rough, runs=str(copied))
    rough_runs["fine-tuning"] = tiny.announce(finetune, rough_parent)
    shutil.copytree(calm_runs["pretraining"].folder, copied / calm_runs["pretraining"].id)

    def both(kind: str) -> list[str]:
        if kind == "fine-tuning":
            undisturbed(calm_runs[kind])
        seconds = calm_runs[kind].result().seconds
        run = disturbed(rough_runs[kind], kills, seconds, random.Random(f"{seed} {kind}"))
        found = differences(run, calm_runs[kind])
        return found + (differences(milestone, alone) if kind == "pretraining" else [])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(specs, pool.map(both, specs), strict=True))


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    found = main(where, count, *sys.argv[3:4])
    for kind, lines in found.items():
        print(f"{kind}: killed {count} times, {'; '.join(lines) or 'the same bits as undisturbed'}")
    sys.exit(any(found.values()))
