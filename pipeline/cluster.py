"""Where and how runs happen: a site's TOML file as one checked value. Nothing in it can change a run's id."""

from __future__ import annotations

import dataclasses
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.spec import PRECISIONS, one_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent.parent / "slurm"
PATHS = ("shards", "runs", "scratch", "weights")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The facts of a site. Paths are absolute; a relative one in the file starts at the current folder."""

    executor: str = "local"
    shards: str = "shards"
    """Parent folder of the shard folders."""
    runs: str = "runs"
    """One folder a run."""
    scratch: str = "scratch"
    """Node-local disk for decoded pictures; anything in it may be deleted while nothing runs."""
    weights: str = "weights"
    """ImageNet weights fetched by `pipeline.prefetch`; the hub's own cache is looked at next."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu` or `cuda`."""
    precision: str = "auto"
    """What a Spec's `auto` means here: `auto` is bfloat16 from sm_80, float16 from sm_70, else float32."""
    threads: int = 1
    """CPU threads of a run; part of what its bits depend on, so never taken from the machine."""
    jobs: int = 0
    """Runs at the same time on one machine; 0: one a GPU, else one."""
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        one_of("executor", self.executor, ("local",))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("precision", self.precision, PRECISIONS)
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}; give 1 or more")
        if self.jobs < 0:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more, or 0 for one a GPU")
        if self.checkpoint_minutes < 0:
            raise ValueError(f"checkpoint_minutes is {self.checkpoint_minutes}; give minutes, 0 for every step")


def load_cluster(name: str) -> Cluster:
    """The cluster file `slurm/<name>.toml`, or the file at the path `name`."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise ValueError(f"there is no cluster file {path}; known: {known}, or give a path that ends in .toml")
    try:
        return from_json(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_json(value: dict[str, Any]) -> Cluster:
    """A checked `Cluster`; unknown keys are answered with the known ones, wrong types with the right one."""
    hints = typing.get_type_hints(Cluster)
    if unknown := sorted(set(value) - set(hints)):
        raise ValueError(f"unknown key {unknown[0]!r}; known: {', '.join(hints)}")
    for key, item in value.items():
        wanted = (int, float) if hints[key] is float else hints[key]
        if not isinstance(item, wanted) or isinstance(item, bool):
            raise ValueError(f"{key} is {item!r}; it must be a {hints[key].__name__}")
    cluster = Cluster(**value)
    paths: dict[str, Any] = {name: str(Path(getattr(cluster, name)).expanduser().absolute()) for name in PATHS}
    return dataclasses.replace(cluster, **paths)


def to_json(cluster: Cluster) -> dict[str, Any]:
    return dataclasses.asdict(cluster)
