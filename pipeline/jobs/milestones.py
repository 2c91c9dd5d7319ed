"""Milestones: shorter pretraining runs that a longer one passes through and publishes, each in a folder of its own.

A launch wishes for them in the longer run's folder before it sends it; the longer run's first start fixes them. Which
runs can be: `spec.milestone_of`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.core import files
from pipeline.jobs.life import beating
from pipeline.runs.folder import Result, Run
from pipeline.runs.spec import PretrainSpec, milestone_of, run_id


def of(spec: PretrainSpec, epochs: Iterable[int]) -> dict[int, PretrainSpec]:
    """The specs of a run's milestones by their epochs; `ValueError` where one cannot be."""
    found = {count: dataclasses.replace(spec, epochs=count) for count in sorted(epochs)}
    ways = [*found.values(), spec]
    for shorter, longer in zip(ways, ways[1:], strict=False):
        if not milestone_of(shorter, longer):
            raise ValueError(
                f"milestones.json wishes for {shorter.epochs} epochs, through whose end {longer.epochs} epochs of "
                f"this run do not pass; begin anew with: python -m pipeline.clean --restart {run_id(spec)}"
            )
    return found


def go_on(spec: PretrainSpec, run: Run, start: dict[str, Any]) -> None:
    """Give a run without a checkpoint the last one of the longest finished run that it passes through and that kept it.

    That run had the same hardware, inputs and libraries, and ended before the first milestone to be published. So it
    saves time and changes no bit.
    """
    if run.checkpoints():
        return
    most = min(start.get("milestones", [spec.epochs]))
    best: tuple[int, Run] | None = None
    for folder in run.folder.parent.glob(f"{run.id.rpartition('-')[0]}-*"):
        shorter = Run(folder)
        if not (shorter["result"].exists() and shorter.checkpoints()):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError):  # deleted meanwhile, or of another version of the code
            length, began = shorter.spec.epochs, files.read_json(shorter["start"])
            same = all(began[what] == start[what] for what in ("hardware", "inputs"))
            same &= all(one["versions"] == start["starts"][-1]["versions"] for one in began["starts"])
            if same and milestone_of(shorter.spec, spec) and length <= most and (best is None or length > best[0]):
                best = length, shorter
    if best is None:
        return
    shorter = best[1]
    with contextlib.suppress(files.Busy), shorter.lock(patience=0):
        for path in shorter.checkpoints()[:1]:
            start["goes_on_from"] = shorter.id
            files.write_json(run["start"], start)
            with files.publish(run.folder / path.name) as copy, open(path, "rb") as kept:
                shutil.copyfileobj(kept, copy)
            print(f"going on from the end of {shorter.id}", flush=True)


def publish(spec: PretrainSpec, carrier: Run, start: dict[str, Any], finish: Callable[[Run], Result]) -> None:
    """Make the folder of a shorter run as it would have made it; `finish` writes its weights and says its result.

    A run that is done, at work or has begun by itself is left alone.
    """
    run = Run(carrier.folder.parent / run_id(spec))
    try:
        with run.lock(), beating(run):
            if run["result"].exists() or run.began:
                why = "is done" if run["result"].exists() else "has begun by itself"
                print(f"milestone {run.id} {why}; left alone", flush=True)
                return
            run.remove_temporaries()
            for path in run.checkpoints():
                path.unlink()
            run.announce(spec)
            files.write_json(run["start"], {**start, "carried_by": carrier.id})
            result = finish(run)
            run.finish(dataclasses.replace(result, notes={**result.notes, "carried_by": carrier.id}))
            with open(run["log"], "a", encoding="utf-8") as log:
                log.write(f"published on its way by {carrier.id}, whose log tells the rest\n")
            print(f"milestone {run.id} is published", flush=True)
    except files.Busy as error:
        print(f"milestone {run.id}: {error}", flush=True)
