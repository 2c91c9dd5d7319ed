"""One run from wherever it is to its end, in this process. All it is told is the run folder's path.

`python -m pipeline.jobs.execute RUN_FOLDER` runs one by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import disks, files
from pipeline.data.pixel_map import DamagedMap
from pipeline.data.staged import DamagedCopy
from pipeline.jobs import milestones
from pipeline.jobs.gpus import gpus, use_assigned_gpu
from pipeline.jobs.heartbeat import heartbeat
from pipeline.jobs.output import output_to
from pipeline.jobs.signals import REQUEUE, STOP_FILE, STOPPED, Stop, grace_of, leave, requeue_with, starts_left
from pipeline.jobs.start import OtherCard, ParentDamaged, begin, inputs
from pipeline.runs import cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import check_revisions, run_id
from pipeline.runs.result import DEVICES, Result, Start
from pipeline.runs.spec import PretrainSpec

if TYPE_CHECKING:
    from pipeline.learn.hardware import Hardware
    from pipeline.learn.program import Counters

PATIENCE = 5.0  # seconds to wait for a run that another process works on
MAP_DAMAGES = 2  # of one start of a run; a disk that damages more is no place to work
SLURM_PATIENCE = 3600.0  # a node thought dead may still hold the run that Slurm started again elsewhere


@dataclasses.dataclass(frozen=True)
class RunPayload:
    """What a job is given: call it to execute the run in a folder."""

    folder: str

    def __call__(self) -> None:
        run = Run(Path(self.folder))
        use_assigned_gpu()
        with Stop(grace=grace_of(site_of(run))) as stop, output_to(run["log"]):
            code = execute_run(run, stop)
        leave(code, stop)

    def checkpoint(self) -> Any:
        """What submitit resubmits after a time limit: the same payload; the state is in the run folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def execute_trial(folder: str) -> int:
    """Execute one of the runs that share this process; as `execute_run`, with the file that says when to stop."""
    run = Run(Path(folder))
    with Stop(watched_file=os.environ.get(STOP_FILE)) as stop, output_to(run["log"]):
        code = STOPPED if stop() else execute_run(run, stop)
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return code


def execute_run(run: Run, stop: Callable[[], bool] = lambda: False) -> int:
    """Run to the end; 0 when the run is done, `STOPPED` when it was asked to stop, `REQUEUE` when its job is to be
    requeued elsewhere, 1 when it failed."""
    patience = SLURM_PATIENCE if "SLURM_JOB_ID" in os.environ else PATIENCE
    try:
        with run.lock(patience=patience, stop=stop), heartbeat(run):
            return _execute_locked(run, stop)
    except files.Busy as error:
        print(error, flush=True)
        return STOPPED if stop() else 1


def _execute_locked(run: Run, stop: Callable[[], bool]) -> int:
    if damage := run.damage():
        print(f"this run is done and damaged; launch --retry makes it again: {damage}", flush=True)
        return 1
    if run["result"].exists():
        print("this run is done already", flush=True)
        return _leave_done(run)
    run.remove_temporaries()
    run["error"].unlink(missing_ok=True)
    try:
        from pipeline.learn.loop import Stopped

        try:
            run.finish(_train_on_whole_map(run, stop))
        except Stopped:
            print("stopped as asked; the checkpoint is on disk", flush=True)
            return STOPPED
    except OtherCard as error:
        again = "the job is requeued" if starts_left(site_of(run).slurm.requeues) else "the next launch sends it again"
        print(f"{error}; {again} to wait for it", flush=True)
        files.write_text(run["waits"], error.waits_for + "\n")
        requeue_with(error.request)
        return REQUEUE
    except ParentDamaged as error:
        print(f"the run that this one starts from is damaged; launch --retry makes it again: {error}", flush=True)
        return 1
    except Exception as error:
        text = traceback.format_exc()
        reason = disks.error_text(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        text += " ".join(reason.split()) + "\n"  # the last line is the reason shown
        if type(error).__name__ == "AcceleratorError":  # the GPU's fault, not the run's; this process lost the GPU
            print(text, file=sys.stderr, flush=True)
            os._exit(1)
        with contextlib.suppress(OSError):  # a full disk: the run is interrupted, the log may have the reason
            files.write_text(run["error"], text)
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)
        return 1
    return _leave_done(run)


def _leave_done(run: Run) -> int:
    """Delete what a finished run no longer needs, which one that was killed as it finished may have left."""
    for path in run.spare_checkpoints(keep_state=site_of(run).keep_state):
        path.unlink()
    return 0


def site_of(run: Run) -> cluster.Cluster:
    """The cluster facts that a run was submitted with."""
    with files.reading(run["job"], "launch the grid again, which writes it again"):
        return cluster.from_json(files.read_json(run["job"], dict))


def _train_on_whole_map(run: Run, stop: Callable[[], bool]) -> Result:
    """Train; a run that may have learnt from a damaged pixel map starts again without what it learnt."""
    for _ in range(MAP_DAMAGES):
        try:
            return _train(run, stop)
        except DamagedMap as error:
            print(f"{error}; this run starts from the beginning: it may have learnt from them", flush=True)
            forget(run, str(error))
        except DamagedCopy as error:
            print(f"{error}; this run continues from its last checkpoint", flush=True)
    return _train(run, stop)


def forget(run: Run, problem: str) -> None:
    """Delete the checkpoints of a run, and mark the shorter runs that it published as damaged."""
    for path in run.checkpoints():
        path.unlink()
    spec, start = run.spec, run.start()
    if isinstance(spec, PretrainSpec) and start is not None:
        for shorter in milestones.specs_of(spec, start.milestones).values():
            published = Run(run.folder.parent / run_id(shorter))
            if published.state() == "done" and published.result().published_by == run.id:
                published.mark_damaged(f"{published.id} may have learnt from it: {problem}", run.id)


def _train(run: Run, stop: Callable[[], bool]) -> Result:
    from pipeline.learn import finetune, frozen, hardware

    spec = run.spec
    check_revisions(spec)
    site = site_of(run)
    if str(scratch := site.scratch_folder) != site.scratch:
        print(f"scratch is {scratch}", flush=True)
    chosen = hardware.choose(site, spec.precision)
    if chosen.device == "cpu" and (names := gpus(site)):
        raise ValueError(
            f"this run has GPU {names[0]}, but torch cannot use it; its driver may be too old for this torch's CUDA: "
            'update the driver, or set device = "cpu" in the cluster file'
        )
    if not run.began:  # a longer run that was killed while it published this one may have left another device's
        for path in run.checkpoints():
            path.unlink()
    start = begin(run, dataclasses.asdict(chosen), inputs(spec, site), site)
    chosen = hardware.Hardware(**start.hardware)
    hardware.make_deterministic(chosen)
    hardware.reset_peak_memory(chosen)
    print(f"{run.id}: {chosen.model}, {chosen.precision}, {chosen.threads} threads", flush=True)
    if isinstance(spec, PretrainSpec):
        return _pretrain(spec, run, site, chosen, stop, start)
    parent = Run(Path(site.runs) / run_id(spec.pretrain)).result() if spec.pretrain else None
    if spec.probe:
        metrics, counters, notes = frozen.judge(spec, run, site, chosen)
    else:
        metrics, counters, notes = finetune.finetune(spec, run, site, chosen, stop)
    if parent is not None:
        notes["parent"] = {"device": parent.device, "precision": parent.precision}
        notes["parent"] |= {DEVICES: parent.devices} if parent.devices else {}
    return result_of(metrics, counters, notes, start)


def _pretrain(
    spec: PretrainSpec, run: Run, site: cluster.Cluster, chosen: Hardware, stop: Callable[[], bool], start: Start
) -> Result:
    """Train to the end, and publish the milestones on the way."""
    from pipeline.learn import pretrain

    shorter = milestones.specs_of(spec, start.milestones)
    start = milestones.resume_from_shorter(spec, run, start)

    def finish(stage: pretrain.Stage, ended: Run) -> Result:
        return result_of(*stage.write(ended), start)

    with contextlib.closing(pretrain.stages(spec, run, site, chosen, stop, tuple(shorter))) as stages:
        for stage in stages:
            if stage.epochs == spec.epochs:
                break
            milestones.publish(shorter[stage.epochs], run, start, partial(finish, stage))
        return finish(stage, run)


def result_of(metrics: dict[str, Any], counters: Counters, notes: dict[str, Any], start: Start) -> Result:
    """What a run says of itself, from what it found, the loop's counters and how it started."""
    from pipeline.learn import hardware

    last = start.starts[-1]
    if memory := hardware.peak_memory(hardware.Hardware(**start.hardware)):
        notes = {**notes, "gpu_memory": memory}
    return Result(
        metrics=metrics,
        seconds=counters.seconds,
        images_per_second=counters.images / counters.seconds,
        epochs=counters.epoch,
        best_epoch=notes.pop("best_epoch", None),
        device=start.hardware["model"],
        precision=start.hardware["precision"],
        threads=start.hardware["threads"],
        code=last["code"],
        versions=last["versions"],
        notes={**notes, **start.notes()},
    )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "spec.json").exists():
        sys.exit("usage: python -m pipeline.jobs.execute RUN_FOLDER (one that holds a spec.json)")
    with Stop() as asked:
        sys.exit(execute_run(Run(Path(sys.argv[1])), asked))
