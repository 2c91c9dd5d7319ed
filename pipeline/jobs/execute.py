"""The task that travels to a node: it knows a run folder's path and nothing else.

`python -m pipeline.jobs.execute RUN_FOLDER` runs one by hand.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.data.shards.index import shards_of
from pipeline.jobs import milestones
from pipeline.jobs.life import STOPPED, TOLD, Stop, beating, gpus, grace_of, leave, output_to, see_gpus
from pipeline.jobs.snapshot import code_version, library_versions
from pipeline.learn.weights import weights_file
from pipeline.runs import cluster
from pipeline.runs.folder import Result, Run
from pipeline.runs.spec import REVISIONS, PretrainSpec, Spec, imagenet_tags, run_id

PATIENCE = 5.0  # seconds for a run that another process is at work on
SLURM_PATIENCE = 3600.0  # a node thought dead may still hold the run that Slurm started again elsewhere


@dataclasses.dataclass(frozen=True)
class Task:
    """Call it to bring a run to its end from wherever it stands."""

    folder: str

    def __call__(self) -> None:
        run = Run(Path(self.folder))
        see_gpus()
        with Stop(grace=grace_of(site_of(run))) as stop, output_to(run["log"]):
            code = carry_out(run, stop)
        leave(code, stop)

    def checkpoint(self) -> Any:
        """What submitit submits again after a time limit: the same task; the state is in the run folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def trial(folder: str) -> int:
    """Carry out one of the runs that share this process; 0 done, `STOPPED` left as asked, 1 failed."""
    run = Run(Path(folder))
    with Stop(told=os.environ.get(TOLD)) as stop, output_to(run["log"]):
        code = STOPPED if stop() else carry_out(run, stop)
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return code


def carry_out(run: Run, stop: Callable[[], bool] = lambda: False) -> int:
    """Run to the end; 0 when the run is done, `STOPPED` when it was asked to stop, 1 when it failed."""
    patience = SLURM_PATIENCE if "SLURM_JOB_ID" in os.environ else PATIENCE
    try:
        with run.lock(patience=patience, stop=stop), beating(run):
            return _carry_out(run, stop)
    except files.Busy as error:
        print(error, flush=True)
        return STOPPED if stop() else 1


def _carry_out(run: Run, stop: Callable[[], bool]) -> int:
    if run["result"].exists():
        print("done already", flush=True)
        return 0
    run.remove_temporaries()
    run["error"].unlink(missing_ok=True)
    try:
        from pipeline.learn.loop import Stopped

        try:
            run.finish(_train(run, stop))
        except Stopped:
            print("stopped as asked; the checkpoint is on disk", flush=True)
            return STOPPED
    except Exception as error:
        text = traceback.format_exc()
        text += " ".join(f"{type(error).__name__}: {error}".split()) + "\n"  # the last line is the reason shown
        if (
            type(error).__name__ == "AcceleratorError"
        ):  # the card's fault, not the run's, and this process lost the card
            print(text, file=sys.stderr, flush=True)
            os._exit(1)
        files.write_text(run["error"], text)
        print(text, file=sys.stderr, flush=True)
        return 1
    for path in run.spare_checkpoints(keep_state=site_of(run).keep_state):
        path.unlink()
    return 0


def site_of(run: Run) -> cluster.Cluster:
    """The cluster facts a run was sent with."""
    return cluster.from_json(files.read_json(run["job"]))


def _train(run: Run, stop: Callable[[], bool]) -> Result:
    from pipeline.learn import finetune, hardware, pretrain

    spec = run.spec
    check_revisions(spec)
    site = site_of(run)
    chosen = hardware.choose(site, spec.precision)
    if chosen.device == "cpu" and (cards := gpus(site)):
        raise ValueError(
            f"this run has GPU {cards[0]}, but torch cannot use it; its driver may be too old for this torch's CUDA: "
            'bring it up to date, or set device = "cpu" in the cluster file'
        )
    if not run.began:  # what a carrier left that was killed while it published this run may be another device's
        for path in run.checkpoints():
            path.unlink()
    start = begin(run, dataclasses.asdict(chosen), inputs(spec, site))
    chosen = hardware.Hardware(**start["hardware"])
    hardware.settle(chosen)
    print(f"{run.id}: {chosen.model}, {chosen.precision}, {chosen.threads} threads", flush=True)

    def result(metrics: dict[str, Any], counters: Any, notes: dict[str, Any]) -> Result:
        return result_of(metrics, counters, notes, start)

    if isinstance(spec, PretrainSpec):
        shorter = milestones.of(spec, start.get("milestones", []))
        milestones.go_on(spec, run, start)

        def publish(epochs: int, write: Callable[[Run], Any]) -> None:
            milestones.publish(shorter[epochs], run, start, lambda passed: result(*write(passed)))

        return result(*pretrain.pretrain(spec, run, site, chosen, stop, tuple(shorter), publish))
    metrics, counters, notes = finetune.finetune(spec, run, site, chosen, stop)
    if spec.pretrain is not None:
        parent = Run(Path(site.runs) / run_id(spec.pretrain)).result()
        notes["parent"] = {"device": parent.device, "precision": parent.precision}
    return result(metrics, counters, notes)


def result_of(metrics: dict[str, Any], counters: Any, notes: dict[str, Any], start: dict[str, Any]) -> Result:
    """What a run says of itself, from what it found, the loop's counters and how it began."""
    return Result(
        metrics=metrics,
        seconds=counters.seconds,
        images_per_second=counters.images / counters.seconds,
        epochs=counters.epoch,
        best_epoch=notes.pop("best_epoch", None),
        device=start["hardware"]["model"],
        precision=start["hardware"]["precision"],
        threads=start["hardware"]["threads"],
        code=start["starts"][-1]["code"],
        versions=start["starts"][-1]["versions"],
        notes={**notes, **{name: start[name] for name in ("inputs", "starts", "goes_on_from") if name in start}},
    )


def begin(run: Run, hardware: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """What the run's bits depend on besides its spec, fixed at the first start; every start's code is noted.

    `ValueError` when this start has another device model or other files than the first had.
    """
    now = {
        "code": code_version(),
        "versions": library_versions(hardware["device"]),
    }
    start: dict[str, Any] = {"hardware": hardware, "inputs": inputs, "starts": []}
    if passed := run.milestones():
        start["milestones"] = passed
    if run.began:
        start = files.read_json(run["start"])
        pairs = {"device": (start["hardware"]["model"], hardware["model"])}
        pairs |= {name: (start["inputs"].get(name, "nothing"), inputs.get(name, "nothing")) for name in inputs}
        for what, (first, this) in pairs.items():
            if first != this:
                raise ValueError(
                    f"this run began with {what} {first} and its bits belong there, but now it is {this}; bring that "
                    f"back, or begin anew with: python -m pipeline.clean --restart {run.id}"
                )
    if not start["starts"] or start["starts"][-1] != now:
        start["starts"].append(now)
        files.write_json(run["start"], start)
    return start


def inputs(spec: Spec, site: cluster.Cluster) -> dict[str, str]:
    """The SHA-256 of every file the run reads: the index (which covers the images) and its start weights."""
    shards = shards_of(Path(site.shards), spec.dataset, size=spec.image_size)
    found = {f"index of {spec.dataset.name}": files.sha256_file(shards.folder / "index.parquet")}
    for tag in sorted(imagenet_tags(spec)):
        found[f"weights of {tag}"] = files.sha256_file(weights_file(tag, Path(site.weights)))
    if not isinstance(spec, PretrainSpec) and spec.pretrain is not None:
        parent = Run(Path(site.runs) / run_id(spec.pretrain))
        if parent.state() != "done":
            raise ValueError(f"it starts from {parent.id}, which is {parent.state()}; launch the grid to finish that")
        found["pretrained weights"] = files.sha256_file(parent["weights"])
    return found


def check_revisions(spec: Spec) -> None:
    """`ValueError` when this code computes other numbers than the spec was planned with."""
    planned = {"augment": spec.augment.revision}
    if isinstance(spec, PretrainSpec):
        planned[spec.method.name] = spec.method.revision
        if spec.average:
            planned["average"] = spec.average.revision
    else:
        planned[spec.loss.name] = spec.loss.revision
    for name, revision in planned.items():
        if revision != REVISIONS[name]:
            raise ValueError(
                f"the run was planned with revision {revision} of {name}, this code has {REVISIONS[name]}; "
                "launch the grid again to plan it anew"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "spec.json").exists():
        sys.exit("usage: python -m pipeline.jobs.execute RUN_FOLDER (one that holds a spec.json)")
    with Stop() as asked:
        sys.exit(carry_out(Run(Path(sys.argv[1])), asked))
