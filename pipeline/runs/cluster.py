"""Where and how runs happen: a site's TOML file as one checked value. Nothing in it can change a run's id."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import toml
from pipeline.runs.container import Container
from pipeline.runs.spec import PRECISIONS
from pipeline.runs.values import one_of

OWN = Path("slurm")
"""Where a person's own cluster files are looked for first: a folder of the current one."""
FOLDER = Path(__file__).parents[1] / "sites"
"""The project's cluster files, those of slurm/; a wheel holds them here."""
PATHS = ("shards", "runs", "scratch", "weights")
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
GPU_PEAKS: Mapping[str, Mapping[str, float]] = {"RTX8000": {"float32": 16.3, "float16": 130.0, "auto": 130.0}}
"""Peak TFLOP/s of a GPU model by precision, as its maker gives them."""
GPU_MEMORY_GB: Mapping[str, float] = {
    "RTX8000": 48,  # E.4
    "A100-40GB": 40,
    "A100-80GB": 80,
    "A40": 48,
    "H100-80GB": 80,
    "L4": 24,
    "RTX3090": 24,
    "RTX4090": 24,
    "T4": 16,
    "V100-16GB": 16,
    "V100-32GB": 32,
}
"""The memory of GPU models in GB, as their makers give it."""
GPU_PRECISIONS: Mapping[str, str] = {
    **dict.fromkeys(GPU_MEMORY_GB, "bfloat16"),
    **dict.fromkeys(("RTX8000", "T4", "V100-16GB", "V100-32GB"), "float16"),
}
"""What `auto` is on a GPU model (learn/hardware.best_precision)."""
RENAMED = {"card": "gpu_model"}
"""Old names of keys, which cluster files and job.json of earlier code still have, and their names now."""
LATER = "probes gpu_memory_gb gpu_measured on_other_card runs_per_job container shards_from cuda_graphs".split()
"""Keys that came later: job.json has them only where they are not the default, so that jobs of earlier code read it."""

# flags of sbatch that submitting, finding and requeueing jobs depend on
OURS = "array chdir comment cpus-per-task dependency error hold job-name mem nodes ntasks ntasks-per-node".split()
OURS += "open-mode output requeue signal time".split()


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What one job requests of Slurm: one node, one task. An empty text is the site's own default."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    """Node features, as `sbatch --constraint` takes them."""
    gres: str = "gpu:1"
    """Generic resources of a job; empty: none, for a partition without GPUs."""
    runs_per_job: int = 1
    """Pretraining runs of a job, on a GPU each: where nodes are sold whole, as many as `gres` asks for."""
    cpus: int = 2
    memory_gb: float = 64.0
    hours: float = 168.0
    """Time limit. A run may reach it any number of times: it saves, is requeued and continues."""
    signal_seconds: int = 300
    """How long before the time limit the job gets a signal; two full checkpoints must fit: one in work and the last."""
    requeues: int = 1000
    """How often a job may be started again before it gives itself up at its time limit."""
    parallelism: int = 64
    """Tasks of one array at the same time."""
    max_jobs: int = 0
    """Maximum number of this user's jobs in the queue; each array task counts. 0: no limit but the site's."""
    accounting: bool = True
    """Whether `sacct` answers; false where the site has no accounting."""
    shared_disks: bool = False
    """True if a disk that looks local to the login node is exported to the nodes."""
    python: str = ""
    """The interpreter on the nodes; empty: the one that launches."""
    setup: tuple[str, ...] = ()
    """Shell lines run on the node before the job: `module load …`."""
    srun: tuple[str, ...] = ("--cpu-bind=none",)
    """Further arguments of srun."""
    sbatch: tuple[str, ...] = ()
    """Further flags of sbatch, as `name=value`: `exclude=gpu7`, `mail-type=FAIL`."""
    container: Container = dataclasses.field(default_factory=Container)
    """What the job's Python runs in."""

    def __post_init__(self) -> None:
        for name in ("runs_per_job", "cpus", "memory_gb", "hours", "signal_seconds", "parallelism"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above zero")
        for name in ("requeues", "max_jobs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if self.signal_seconds >= self.hours * 3600:
            raise ValueError(
                f"signal_seconds is {self.signal_seconds}, but a job has only {self.hours * 3600:.0f} s; make it less"
            )
        for flag in self.sbatch:
            name, _, value = flag.partition("=")
            if not name or name.startswith("-") or not value:
                raise ValueError(f"sbatch holds {flag!r}; write name=value without dashes, e.g. exclude=gpu7")
            if name.replace("_", "-") in OURS:
                raise ValueError(f"sbatch holds {flag!r}, which the pipeline sets itself; leave it out")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The facts of a site. Paths are absolute; a relative path in the file starts at the current folder."""

    executor: str = "local"
    """`local` (this machine) or `slurm`."""
    shards: str = "shards"
    """Parent folder of the shard folders; or the address of one: `https://host/isic-384-image-fb61b053`, `s3://…`, with
    `{a,b}` of several. Their manifests and indexes are then copied to a folder in `runs`."""
    shards_from: tuple[str, ...] = ()
    """The addresses, where `shards` had them; it is then that folder."""
    runs: str = "runs"
    """Parent folder of the run folders."""
    scratch: str = "scratch"
    """Node-local disk for decoded images; anything in it may be deleted while nothing runs. Variables of the job's
    environment are resolved there (`scratch_folder`): `$SLURM_TMPDIR/cass`."""
    scratch_gb: float = 0.0
    """Maximum size of the decoded images there, in GB; 0: all but a twentieth of the disk."""
    scratch_in_ram: bool = False
    """Whether decoded images may be on a scratch that is memory (tmpfs); if not, they are decoded every time."""
    weights: str = "weights"
    """Start weights brought by `pipeline.prefetch`; for ImageNet's the hub's own cache is read next."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu` or `cuda`."""
    gpu_model: str = ""
    """One of `GPU_MEMORY_GB`: a dry run says what fits into its memory. If it is one of `GPU_PEAKS` too, the hours of
    runs on it are modelled until a run is measured. Empty: neither."""
    gpu_memory_gb: float = 0.0
    """The memory of a GPU in GB; 0: what `GPU_MEMORY_GB` says of the model."""
    gpu_measured: str = ""
    """The JSON that `make gpu` wrote on such a GPU: its measures replace the model's. Empty: there is none."""
    precision: str = "auto"
    """What a Spec's `auto` means here: `auto` is bfloat16 from sm_80, float16 from sm_70, else float32."""
    threads: int = 1
    """CPU threads of a run. Its bits depend on them, so they are never taken from the machine."""
    jobs: int = 0
    """Jobs at the same time on one machine (executor `local`); 0: one for each GPU, else one."""
    trials_per_gpu: int = 1
    """Fine-tunes of one fan-out at the same time on its GPU (or, if there is none, on its CPUs)."""
    ray: bool = True
    """Whether Ray Tune executes the trials of a fan-out; if not, plain worker processes do."""
    cuda_graphs: bool = False
    """Whether a GPU replays the forward and backward pass of a training step as one CUDA graph (learn/graphs)."""
    checkpoint_minutes: float = 10.0
    keep_state: bool = False
    """Whether a finished pretraining run keeps its last checkpoint, from which a longer run can continue."""
    probes: bool = True
    """Whether pretraining runs judge their frozen features on the way and at their end (learn/probes)."""
    on_other_card: str = "wait"
    """What a run does that began on one GPU model and is now on another: `wait` for its own (on Slurm, where the site
    tells them apart; else it fails), `restart`, or `go_on` there, which the result says."""
    slurm: Slurm = dataclasses.field(default_factory=Slurm)

    def __post_init__(self) -> None:
        one_of("executor", self.executor, ("local", "slurm"))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("gpu_model", self.gpu_model, ("", *GPU_MEMORY_GB))
        one_of("precision", self.precision, PRECISIONS)
        one_of("on_other_card", self.on_other_card, ("wait", "restart", "go_on"))
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}; give 1 or more")
        if self.scratch_gb < 0:
            raise ValueError(f"scratch_gb is {self.scratch_gb}; give a number of GB, or 0 for no limit but the disk's")
        if self.gpu_memory_gb < 0:
            raise ValueError(f"gpu_memory_gb is {self.gpu_memory_gb}; give a number of GB, or 0 for the model's")
        if self.jobs < 0:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more, or 0 for one a GPU")
        if self.trials_per_gpu < 1:
            raise ValueError(f"trials_per_gpu is {self.trials_per_gpu}; give 1 or more")
        if self.checkpoint_minutes < 0:
            raise ValueError(f"checkpoint_minutes is {self.checkpoint_minutes}; give minutes, 0 for every step")
        if found := re.search(r"\$\(|`", self.scratch):
            raise ValueError(
                f"scratch is {self.scratch!r}; no command ({found[0]}) may be in it, but a variable: set one in "
                "[slurm] setup (export NAME=…) and write $NAME"
            )
        if "${" in VARIABLE.sub("", self.scratch):
            raise ValueError(
                f"scratch is {self.scratch!r}; only $NAME and ${{NAME}} are resolved there, none with a default or "
                "another change: set a variable in [slurm] setup (export NAME=…) and write $NAME"
            )
        for name in PATHS:
            if name != "scratch" and (VARIABLE.search(getattr(self, name)) or "${" in getattr(self, name)):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; only scratch may hold variables: every job has its own"
                )

    @property
    def scratch_folder(self) -> Path:
        """`scratch` with the values that its variables have here: on the node, in the job.

        `ValueError` that names a variable which is not set or empty, or if the path is not absolute.
        """

        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            if not os.environ.get(name):
                raise ValueError(
                    f"{name} is not set on {os.uname().nodename}; set it in the job ([slurm] setup), or give a path: "
                    f"scratch is {self.scratch!r}"
                )
            return os.environ[name]

        path = VARIABLE.sub(value, self.scratch)
        if path != self.scratch and not path.startswith("/"):
            raise ValueError(f"scratch is {self.scratch!r}, here {path!r}; it must begin with /")
        return Path(path)


def load_cluster(name: str) -> Cluster:
    """The cluster file `slurm/<name>.toml` of the current folder or the project, or the file at the path `name`."""
    paths = [Path(name)] if name.endswith(".toml") else [folder / f"{name}.toml" for folder in (OWN, FOLDER)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = ", ".join(sorted({file.stem for folder in (OWN, FOLDER) for file in folder.glob("*.toml")}))
        raise ValueError(f"there is no cluster file {paths[0]}; known: {known}, or give a path that ends in .toml")
    try:
        return from_json(toml.read(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_json(value: dict[str, Any]) -> Cluster:
    """A checked `Cluster`; raises `ValueError` that names the known keys for an unknown one, or the right type."""
    for old, new in RENAMED.items():
        if old in value and new in value:
            raise ValueError(f"{old} and {new} are one key; leave {old} out")
    cluster = toml.build(Cluster, {RENAMED.get(key, key): setting for key, setting in value.items()})
    if "://" in cluster.shards:
        addresses = tuple(part.rstrip("/") for part in _alternatives(cluster.shards))
        digest = hashlib.sha256(" ".join(addresses).encode()).hexdigest()[:8]
        copies = str(Path(cluster.runs) / f".shards-{digest}")
        cluster = dataclasses.replace(cluster, shards=copies, shards_from=addresses)
    paths: dict[str, Any] = {name: str(Path(getattr(cluster, name)).expanduser().absolute()) for name in PATHS}
    if VARIABLE.search(cluster.scratch):
        paths["scratch"] = cluster.scratch  # resolved on the node
    if file := cluster.slurm.container.file:
        container = dataclasses.replace(cluster.slurm.container, image=str(file.expanduser().absolute()))
        paths["slurm"] = dataclasses.replace(cluster.slurm, container=container)
    return dataclasses.replace(cluster, **paths)


def _alternatives(text: str) -> list[str]:
    """`a{b,c}d` as `abd` and `acd`."""
    found = re.search(r"\{([^{}]*)\}", text)
    if found is None:
        return [text]
    parts = found[1].split(",")
    return [each for part in parts for each in _alternatives(text[: found.start()] + part + text[found.end() :])]


def to_json(cluster: Cluster) -> dict[str, Any]:
    """The cluster's facts as job.json holds them: as jobs of earlier code still read them.

    They have their old names, and a key that came later is left out while it has its default.
    """
    old = {new: name for name, new in RENAMED.items()}

    def as_before(facts: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in facts.items() if key not in LATER or value != defaults[key]}
        return {old.get(key, key): value for key, value in kept.items()}

    facts, defaults = dataclasses.asdict(cluster), dataclasses.asdict(Cluster())
    return as_before({**facts, "slurm": as_before(facts["slurm"], defaults["slurm"])}, defaults)
