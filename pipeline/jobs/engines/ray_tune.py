"""Ray Tune as the engine: it executes runs, several at a time, inside one job.

The job starts a Ray of its own and leaves nothing of it behind. Tune hands out the run folders and does nothing else:
it keeps no results, saves no state and retries nothing, since the run folders hold all that.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from pipeline.jobs import execute
from pipeline.jobs.engines.processes import signals_blocked

TEMPORARY = Path("/tmp")  # not $TMPDIR: it holds Ray's sockets, whose paths have at most 107 bytes
PREFIX = "cass-ray-"
ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # trials without a GPU: CUDA_VISIBLE_DEVICES is left alone
    "RAY_AIR_NEW_OUTPUT": "0",  # the old one can be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it kills trials when a shared node is full; Slurm watches the job's memory
    "RAY_prestart_worker_first_driver": "0",  # a worker for each CPU of the node
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # not behind everything else on the node
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
STORE_BYTES = 100 * 2**20  # of Ray's object store; it holds the paths of folders
TRIES = 5  # attempts to start Ray: on a busy node its processes miss each other, or a port is taken meanwhile
SWEEP_SECONDS = 10.0  # for the last of Ray's processes to end and release the folder


def run_trials(folders: Sequence[str], *, trials: int, gpus: Sequence[str], stop: Callable[[], bool]) -> None:
    """Execute the runs in these folders, `trials` at a time. Once `stop()` is true, start no more and wait."""
    if not folders:
        return
    search = BasicVariantGenerator(max_concurrent=trials)
    with temporary_folder() as temporary:
        try:
            if not start_ray(temporary, len(gpus), stop):
                return
            tune.Tuner(
                tune.with_resources(Trial, resources(trials, len(gpus))),
                param_space={"folder": tune.grid_search([str(Path(folder).absolute()) for folder in folders])},
                tune_config=tune.TuneConfig(search_alg=search, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=str(temporary / "tune"),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[StartNoMore(search, stop)],
                    verbose=0,
                ),
            ).fit()
        finally:
            ray.shutdown()


class Trial(tune.Trainable):  # type: ignore[misc]
    """An actor: a process that executes one run after another."""

    def setup(self, config: dict[str, Any]) -> None:
        self.folder: str = config["folder"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        execute.execute_trial(self.folder)
        return {"done": True}


class StartNoMore(tune.Callback):  # type: ignore[misc]
    """Ends the search when asked to stop. Tune's own stoppers also kill trials that take seconds to save."""

    def __init__(self, search: BasicVariantGenerator, stop: Callable[[], bool]) -> None:
        self.search = search
        self.stop = stop

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.stop():
            self.search.set_finished()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it in order to restore an experiment, which nobody does


def cpus() -> int:
    """The CPUs this job may use."""
    return len(os.sched_getaffinity(0))


def resources(trials: int, gpus: int) -> dict[str, float]:
    """What a trial requests of Ray, so that `trials` of them fit; Ray counts in ten-thousandths and rounds up."""
    cpu = cpus() / trials
    gpu = 1 / math.ceil(trials / gpus) if gpus else 0.0
    return {"cpu": math.floor(cpu * 10_000) / 10_000, "gpu": math.floor(gpu * 10_000) / 10_000}


def start_ray(temporary: Path, gpus: int, stop: Callable[[], bool]) -> bool:
    """Start a Ray with processes, ports and a password of its own, whatever else this node has; False when stopped.

    The jobs of a node start one after the other, since Ray gives up if several slow starts happen at the same time.
    """
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ENVIRONMENT, RAY_AUTH_TOKEN=secrets.token_hex(32))  # else Ray leaves one in the home folder
    with locked(TEMPORARY):
        for left in reversed(range(TRIES)):
            if stop():
                return False
            before = children()
            try:
                init_ray(temporary, gpus)
                break
            except Exception as error:
                for pid in children() - before:
                    os.kill(pid, signal.SIGKILL)
                if not left:
                    raise
                print(f"Ray did not start, trying again: {error}", flush=True)
    with open(temporary / "session_latest" / "logs" / "raylet.out", "a") as log:
        log.write("Raylet received SIGTERM")  # else, if this job is killed, two agents take a minute to report it
    return True


def init_ray(temporary: Path, gpus: int) -> None:
    """Start Ray's processes with Slurm's signals blocked: Slurm sends them to all processes, and Ray's must survive.

    A `Trial` unblocks them while a run is working, which then saves by itself.
    """
    handler = signal.getsignal(signal.SIGTERM)
    with signals_blocked():
        try:
            ray.init(
                address="local",
                num_cpus=cpus(),
                num_gpus=gpus,
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(temporary),
            )
        finally:
            signal.signal(signal.SIGTERM, handler)  # Ray installed its own, which ends this process


def children() -> set[int]:
    """The process ids of the processes that this one started."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A locked folder with a short name, removed at the end; the folders of killed jobs are removed too."""
    for old in TEMPORARY.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if old.lstat().st_uid == os.getuid():
                with locked(old, fcntl.LOCK_NB):
                    shutil.rmtree(old, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TEMPORARY))
            with contextlib.suppress(FileNotFoundError):  # another job removed it before it was locked
                stack.enter_context(locked(folder))
                folder.stat()
                break
        try:
            yield folder
        finally:
            deadline = time.monotonic() + SWEEP_SECONDS
            while folder.exists() and time.monotonic() < deadline:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold a lock on the folder itself until the block ends or the process dies, however it dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)
