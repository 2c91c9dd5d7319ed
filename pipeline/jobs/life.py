"""The life of a job's process: what signals ask of it, how it leaves, where its output goes, its sign of life.

SIGUSR2 is the time limit coming (or a preemption that says so): save, be requeued by submitit's own handler, go on.
SIGTERM is a preemption, which Slurm requeues by itself, or scancel, after which nothing may come back: save, leave.
When both came, SIGTERM counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run

STOPPED = 75  # exit code of a job that saved and left because it was asked to (EX_TEMPFAIL: try again)
TOLD = "CASS_PIPELINE_STOP_FILE"  # the file by which a fan-out tells its trials to stop
VISIBLE = "CASS_PIPELINE_VISIBLE_DEVICES"  # what CUDA_VISIBLE_DEVICES is to be for a local job; "all": unset
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
BEAT_SECONDS = 10.0
REQUEUE_SECONDS = 5.0  # between tries to be requeued while slurmctld does not answer; the time limit ends them


class Stop:
    """While it is entered, signals are noted and nothing else; the loop saves at its next step boundary and leaves.

    A run that is in a long step of its own (the pixel map, the final test) when SIGUSR2 comes is requeued without
    saving after `grace` seconds: its last checkpoint is on disk. `tell` is a file made when asked, for other processes
    that look at it as their `told`: a signal may have reached this process alone.
    """

    def __init__(self, *, grace: float = 0.0, tell: Path | None = None, told: str | None = None) -> None:
        self.noted: set[int] = set()
        self.grace = grace
        self.tell = tell
        self.told = told
        self.owner = os.getpid()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self.before[number] = signal.getsignal(number)
            if self.before[number] != signal.SIG_IGN:  # a launch keeps Ctrl-C for itself
                signal.signal(number, self._note)
        if self.grace:
            self.before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._out_of_time)
        self.mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # workers start with them blocked
        return self

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self.grace:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return bool(self.noted) or (self.told is not None and os.path.exists(self.told))

    @property
    def comes_back(self) -> bool:
        """Whether the job is to be requeued."""
        return self.noted == {signal.SIGUSR2}

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() == self.owner:  # not in a child that inherited the handler
            self.noted.add(number)
            if self.tell:
                self.tell.touch()
            if self.comes_back and self.grace:
                signal.setitimer(signal.ITIMER_REAL, self.grace)

    def _out_of_time(self, number: int, frame: object) -> None:
        if self.comes_back:
            print("no time left to save; going on from the last checkpoint", flush=True)
            leave(STOPPED, self)


def leave(code: int, stop: Stop) -> None:
    """End the job: requeued where it was asked to come back, else with `code`; 0 returns."""
    if code == STOPPED and stop.comes_back:
        handler = stop.before[signal.SIGUSR2]
        while callable(handler) or by_hand_in_slurm():
            try:
                if callable(handler):
                    handler(signal.SIGUSR2, None)  # submitit's: it ends this process once the job is requeued
                else:
                    _requeue_by_hand()
            except subprocess.SubprocessError as error:
                print(f"not requeued yet ({error}); trying again", flush=True)
                time.sleep(REQUEUE_SECONDS)
    if code:
        sys.exit(code)


def by_hand_in_slurm() -> bool:
    """Whether this job came from a script of `launch --print-sbatch`, without submitit."""
    return "SLURM_JOB_ID" in os.environ and "SUBMITIT_FOLDER" not in os.environ


def _requeue_by_hand() -> NoReturn:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    sys.exit(STOPPED)


def grace_of(site: Cluster) -> float:
    """How long a Slurm job may take to save before it is requeued without."""
    return site.slurm.signal_seconds * 2 / 3 if "SLURM_JOB_ID" in os.environ else 0.0


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what this process prints to the end of a file; what decoders and CUDA print belongs there too."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])


@contextlib.contextmanager
def beating(run: Run) -> Iterator[None]:
    """Touch the run's lock file now and then, so that a dead run is told from a slow one."""
    over = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):
                os.utime(run["lock"])
            if over.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def gpus(cluster: Cluster) -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not imported to ask."""
    if cluster.device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
        return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
    except (OSError, subprocess.TimeoutExpired):  # no tool, as in some containers; the driver lists them too
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def see_gpus() -> None:
    """Take the GPU a local launch gave to this job: submitit numbers them from 0, or hides them all."""
    visible = os.environ.pop(VISIBLE, None)
    if visible == "all":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    elif visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying of them."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
