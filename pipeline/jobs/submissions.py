"""Work orders: which runs travel together, and the folder that says so before anything is sent.

A pretraining run travels with its milestones alone; the fine-tunes of one (dataset, method, arm) travel as one
fan-out. An order is an array of such jobs, `runs`/.orders/<token>/: `order.json` is there before sbatch is called,
`job.json` once the job id is known. Both are about jobs only: deleting them loses no result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.jobs import milestones
from pipeline.jobs.plan import Item
from pipeline.runs.spec import FinetuneSpec, Spec, method_of, recipe

FOLDER = ".orders"


@dataclass
class Bundle:
    """The runs one job carries; a pretraining run comes before its milestones."""

    items: list[Item] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        return self.items[0].spec

    @property
    def fan_out(self) -> bool:
        return isinstance(self.spec, FinetuneSpec)

    @property
    def parents(self) -> set[str]:
        return {item.parent for item in self.items if item.parent}

    def name(self) -> str:
        """Dataset, method, arm and seeds."""
        arm = [self.spec.arm] if isinstance(self.spec, FinetuneSpec) else []
        return ".".join([self.spec.dataset.name, method_of(self.spec), *arm, seeds_of(self.items)])


def bundles(items: Iterable[Item]) -> list[Bundle]:
    """The runs as jobs, in their order; one whose carrier is not among them travels by itself."""
    chosen = {item.run.id: item for item in items}
    out: dict[str, Bundle] = {}
    for item in chosen.values():
        own = item.carrier if item.carrier in chosen else item.run.id
        key = recipe(item.spec) if isinstance(item.spec, FinetuneSpec) else str(own)
        out.setdefault(key, Bundle()).items.append(item)
    for bundle in out.values():
        if not bundle.fan_out:
            bundle.items.sort(key=lambda item: item.spec.epochs, reverse=True)
    return list(out.values())


@dataclass
class Draft:
    """An array that could be sent: bundles of one kind that wait for the same pretraining runs."""

    name: str
    bundles: list[Bundle]
    parents: frozenset[str]
    """The pretraining runs it waits for; those done are left out."""
    parallelism: int

    def __str__(self) -> str:
        """`an array of 5, 2 at once, 20 runs, after 5 pretraining runs`."""
        count = sum(len(bundle.items) for bundle in self.bundles)
        after = f", after {len(self.parents)} pretraining runs" if self.parents else ""
        tasks = "a job" if len(self.bundles) == 1 else f"an array of {len(self.bundles)}, {self.parallelism} at once"
        return f"{tasks}, {count} runs{after}"


def drafts(grid: str, chosen: list[Bundle], *, waits_for: set[str], limit: int, parallelism: int) -> list[Draft]:
    """The bundles as arrays of at most `limit` tasks, pretraining first; `waits_for` are the runs not done yet."""
    groups: dict[tuple[Any, ...], list[Bundle]] = {}
    for bundle in chosen:
        parents = frozenset(bundle.parents & waits_for)
        key = (bundle.fan_out, bundle.spec.dataset.name, method_of(bundle.spec), parents)
        groups.setdefault(key, []).append(bundle)
    out = []
    for (fan_out, dataset, method, parents), group in groups.items():
        chunks = [group[start : start + limit] for start in range(0, len(group), limit)]
        for chunk in chunks:
            items = [item for bundle in chunk for item in bundle.items]
            name = ".".join([grid, dataset, method, *(["finetune"] if fan_out else []), seeds_of(items)])
            out.append(Draft(name, chunk, parents, min(len(chunk), max(1, parallelism // len(chunks)))))
    return sorted(out, key=lambda draft: draft.bundles[0].fan_out)


def seeds_of(items: list[Item]) -> str:
    """`s77`, `s77-81` or `s77,79`."""
    seeds = sorted({item.spec.seed for item in items})
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"s{seeds[0]}-{seeds[-1]}"
    return "s" + ",".join(str(seed) for seed in seeds)


@dataclass(frozen=True)
class Order:
    """An array that was published: its folder, and which runs each of its tasks carries."""

    folder: Path
    name: str
    parts: tuple[tuple[str, ...], ...]
    fan_out: bool
    code: str
    """The version of the code that its jobs run."""
    by_hand: bool
    """Whether a person sends it, from a script of `launch --print-sbatch`."""

    @property
    def token(self) -> str:
        return self.folder.name

    def task_folder(self, index: int) -> Path:
        """What the task with this index carries: a run's folder, or one of the order's own with a list of runs."""
        runs = self.folder.parent.parent
        return self.folder / str(index) if self.fan_out else runs / self.parts[index][0]

    @property
    def job(self) -> Mapping[str, Any]:
        """`id`, once it is known, and `released`."""
        path = self.folder / "job.json"
        value: dict[str, Any] = files.read_json(path) if path.exists() else {}
        return value

    def note_job(self, job_id: str, *, released: bool) -> None:
        files.write_json(self.folder / "job.json", {"id": job_id, "released": released})

    def tasks(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The Slurm id of each task with the runs it still stands for: those it skipped are anyone's again.

        Nothing, while the order's job id is not known.
        """
        if job := self.job:
            for index, part in enumerate(self.parts):
                skipped = skipped_runs(self.folder / str(index)) if self.fan_out else {}
                name = f"{job['id']}_{index}" if len(self.parts) > 1 else str(job["id"])
                yield name, tuple(run for run in part if run not in skipped)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def publish(runs: Path, draft: Draft, code: Path, *, by_hand: bool = False) -> Order:
    """Write an order's folder, its own file last; before it, which milestones the pretraining runs are to carry."""
    folder = runs / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    parts = tuple(tuple(item.run.id for item in bundle.items) for bundle in draft.bundles)
    fan_out = draft.bundles[0].fan_out
    if fan_out:
        for index, part in enumerate(parts):
            files.write_json(folder / str(index) / "runs.json", list(part))
    else:
        for first, *others in (bundle.items for bundle in draft.bundles):
            milestones.wish(first.run, [item.spec for item in others])
    order = Order(folder, draft.name, parts, fan_out, code.name, by_hand)
    write_order(order)
    return order


def write_order(order: Order) -> None:
    value = dataclasses.asdict(order)
    del value["folder"]
    files.write_json(order.folder / "order.json", value)


def read_orders(runs: Path) -> list[Order]:
    """Every order that was published, oldest first."""
    out = []
    for path in sorted((runs / FOLDER).glob("*/order.json")):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile by another launch or clean
            out.append(read_order(path.parent))
    return out


def cancelled(runs: Path) -> set[str]:
    """The runs of orders that a person cancelled."""
    marked = (order for order in read_orders(runs) if (order.folder / "cancelled").exists())
    return {run for order in marked for part in order.parts for run in part}


def read_order(folder: Path) -> Order:
    value = files.read_json(folder / "order.json")
    parts = tuple(tuple(part) for part in value.pop("parts"))
    return Order(folder=folder, parts=parts, **value)


def runs_of(folder: Path) -> list[Path]:
    """The run folders that a fan-out's folder names."""
    return [folder.parent.parent.parent / run for run in files.read_json(folder / "runs.json")]


def skipped_runs(folder: Path) -> dict[str, str]:
    """The runs a fan-out left out, each with the reason."""
    path = folder / "skipped.json"
    value: dict[str, str] = files.read_json(path) if path.exists() else {}
    return value


def note_skipped(folder: Path, skipped: dict[str, str]) -> None:
    """Say which runs a fan-out leaves out, so that the next launch may send them again."""
    if skipped or (folder / "skipped.json").exists():
        files.write_json(folder / "skipped.json", skipped)
