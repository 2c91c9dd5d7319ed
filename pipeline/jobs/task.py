"""The task that travels to a node: it knows a run folder's path and nothing else.

`python -m pipeline.jobs.task RUN_FOLDER` runs one by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import cluster, files
from pipeline.data.index import shards_of
from pipeline.runs import Result, Run
from pipeline.spec import REVISIONS, PretrainSpec, Spec, imagenet_tags, run_id
from pipeline.weights import weights_file

STOPPED = 75  # exit code of a run that saved and left because it was asked to (EX_TEMPFAIL: try again)
VISIBLE = "CASS_PIPELINE_VISIBLE_DEVICES"  # what CUDA_VISIBLE_DEVICES is to be for the task; "all": unset


@dataclasses.dataclass(frozen=True)
class Task:
    """Call it to bring a run to its end from wherever it stands."""

    folder: str

    def __call__(self) -> None:
        run = Run(Path(self.folder))
        visible = os.environ.pop(VISIBLE, None)
        if visible == "all":
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        elif visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        with open(run["log"], "ab", buffering=0) as log:  # what decoders and CUDA print belongs there too
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = carry_out(run)
        if code:
            sys.exit(code)

    def checkpoint(self) -> Any:
        """What submitit submits again after a time limit: the same task; the state is in the run folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Stop:
    """A flag that SIGTERM, SIGINT and SIGUSR2 set; the loop saves at its next step boundary and leaves."""

    def __init__(self) -> None:
        self.asked = False
        self.owner = os.getpid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            if signal.getsignal(number) != signal.SIG_IGN:  # a launch keeps Ctrl-C for itself
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() == self.owner:
            self.asked = True

    def __call__(self) -> bool:
        return self.asked


def carry_out(run: Run) -> int:
    """Run to the end; 0 when the run is done, `STOPPED` when it was asked to stop, 1 when it failed."""
    stop = Stop()
    with run.lock():
        if run["result"].exists():
            return 0
        run.remove_temporaries()
        run["error"].unlink(missing_ok=True)
        from pipeline.learn.loop import Stopped

        try:
            run.finish(_train(run, stop))
        except Stopped:
            print("stopped as asked; the checkpoint is on disk", flush=True)
            return STOPPED
        except Exception as error:
            text = traceback.format_exc()
            text += " ".join(f"{type(error).__name__}: {error}".split()) + "\n"  # the last line is the reason shown
            files.write_text(run["error"], text)
            print(text, file=sys.stderr, flush=True)
            return 1
        run.drop_checkpoints()
    return 0


def _train(run: Run, stop: Stop) -> Result:
    from pipeline import finetune, pretrain
    from pipeline.learn import hardware

    spec = run.spec
    check_revisions(spec)
    site = cluster.from_json(files.read_json(run["job"]))
    chosen = hardware.choose(site, spec.precision)
    start = begin(run, dataclasses.asdict(chosen), inputs(spec, site))
    chosen = hardware.Hardware(**start["hardware"])
    hardware.settle(chosen)
    print(f"{run.id}: {chosen.model}, {chosen.precision}, {chosen.threads} threads", flush=True)

    if isinstance(spec, PretrainSpec):
        metrics, counters, notes = pretrain.pretrain(spec, run, site, chosen, stop)
    else:
        metrics, counters, notes = finetune.finetune(spec, run, site, chosen, stop)
        if spec.pretrain is not None:
            parent = Run(Path(site.runs) / run_id(spec.pretrain)).result()
            notes["parent"] = {"device": parent.device, "precision": parent.precision}
    return Result(
        metrics=metrics,
        seconds=counters.seconds,
        images_per_second=counters.images / counters.seconds,
        epochs=counters.epoch,
        best_epoch=notes.pop("best_epoch", None),
        device=chosen.model,
        precision=chosen.precision,
        threads=chosen.threads,
        code=start["starts"][-1]["code"],
        versions=start["starts"][-1]["versions"],
        notes={**notes, "inputs": start["inputs"], "starts": start["starts"]},
    )


def begin(run: Run, hardware: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """What the run's bits depend on besides its spec, fixed at the first start; every start's code is noted.

    `ValueError` when this start has another device model or other files than the first had.
    """
    now = {
        "code": code_version(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "timm", "numpy", "pillow", "scikit-learn")},
        },
    }
    start: dict[str, Any] = {"hardware": hardware, "inputs": inputs, "starts": []}
    if run["start"].exists():
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
    """The SHA-256 of every file the run reads: the index (which covers the pictures) and its start weights."""
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


def code_version() -> str:
    """12 hex digits of the SHA-256 of the package's source: the same code has the same version anywhere."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "spec.json").exists():
        sys.exit("usage: python -m pipeline.jobs.task RUN_FOLDER (one that holds a spec.json)")
    sys.exit(carry_out(Run(Path(sys.argv[1]))))
