"""Milestones: shorter pretraining runs that a longer one passes through and publishes, each in a folder of its own.

A launch requests them in the longer run's folder before it submits that run; the longer run's first start fixes them.
`milestone_of` says which runs can be milestones of which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable

from pipeline.core import files
from pipeline.jobs.heartbeat import heartbeat
from pipeline.runs.folder import Run
from pipeline.runs.identity import milestone_of, run_id
from pipeline.runs.result import PUBLISHED_BY, Result, Start
from pipeline.runs.spec import PretrainSpec


def specs_of(spec: PretrainSpec, epochs: Iterable[int]) -> dict[int, PretrainSpec]:
    """The specs of a run's milestones by their epochs; `ValueError` where one cannot be a milestone."""
    found = {count: dataclasses.replace(spec, epochs=count) for count in sorted(epochs)}
    in_turn = [*found.values(), spec]
    for shorter, longer in zip(in_turn, in_turn[1:], strict=False):
        if not milestone_of(shorter, longer):
            raise ValueError(
                f"milestones.json requests {shorter.epochs} epochs, which the run of {longer.epochs} does not pass; "
                f"restart it with: python -m pipeline.clean --restart {run_id(spec)}"
            )
    return found


def resume_from_shorter(spec: PretrainSpec, run: Run, start: Start) -> Start:
    """Give a run without a checkpoint the one that the longest suitable shorter run kept; returns its start with that.

    Suitable is a finished run that this one passes through, with the same hardware, inputs and libraries, which ended
    before the first milestone that is to be published. So this saves time and changes no bit.
    """
    if run.checkpoints():
        return start
    shorter = _longest_kept(spec, run, start)
    if shorter is None:
        return start
    with contextlib.suppress(files.Busy), shorter.lock(patience=0):
        for path in shorter.checkpoints()[:1]:
            start = dataclasses.replace(start, resumed_from=shorter.id)
            files.write_json(run["start"], start.to_json())
            with files.publish(run.folder / path.name) as copy, open(path, "rb") as kept:
                shutil.copyfileobj(kept, copy)
            print(f"continuing from the end of {shorter.id}", flush=True)
    return start


def _longest_kept(spec: PretrainSpec, run: Run, start: Start) -> Run | None:
    """The longest finished run that kept its state and that `run` can continue from."""
    limit = min(start.milestones, default=spec.epochs)
    best: tuple[int, Run] | None = None
    for folder in run.folder.parent.glob(f"{run.id.rpartition('-')[0]}-*"):
        shorter = Run(folder)
        if not (shorter.checkpoints() and shorter.state() == "done"):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError):  # deleted meanwhile, or of another version of the code
            epochs, other = shorter.spec.epochs, Start.from_json(files.read_json(shorter["start"]))
            same = (other.hardware, other.inputs, other.devices) == (start.hardware, start.inputs, ())
            same &= all(process["versions"] == start.starts[-1]["versions"] for process in other.starts)
            if same and milestone_of(shorter.spec, spec) and epochs <= limit and (best is None or epochs > best[0]):
                best = epochs, shorter
    return best and best[1]


def publish(spec: PretrainSpec, longer: Run, start: Start, finish: Callable[[Run], Result]) -> None:
    """Make the folder of a shorter run as that run would have made it; `finish` writes its files and gives its result.

    A run that is done, is running or has started by itself is left alone.
    """
    run = Run(longer.folder.parent / run_id(spec))
    try:
        with run.lock(), heartbeat(run):
            if run.damage():
                run.discard()
            if run["result"].exists() or run.began:
                why = "is done" if run["result"].exists() else "has started by itself"
                print(f"milestone {run.id} {why}; left alone", flush=True)
                return
            run.remove_temporaries()
            for path in run.checkpoints():
                path.unlink()
            run.announce(spec)
            files.write_json(run["start"], dataclasses.replace(start, published_by=longer.id).to_json())
            result = finish(run)
            run.finish(dataclasses.replace(result, notes={**result.notes, PUBLISHED_BY: longer.id}))
            with open(run["log"], "a", encoding="utf-8") as log:
                log.write(f"published by {longer.id} on its way, whose log has the rest\n")
            print(f"milestone {run.id} is published", flush=True)
    except files.Busy as error:
        print(f"milestone {run.id}: {error}", flush=True)
