"""The plan: every run a grid wants, each once, parents before children, and where each of them stands.

Launching is reconciliation: wanted minus finished minus live. The plan is read off the specs; nothing is stored but
the run folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core import files
from pipeline.data.datasets import DATASETS
from pipeline.data.shards.index import find_shards
from pipeline.learn.weights import imagenet_tags, weights_file
from pipeline.runs import cluster as clusters
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import milestone_of, run_id
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec, kind_of
from pipeline.study import paper
from pipeline.study.grid import load_grid
from pipeline.study.setting import DatasetInfo, TableEntry

# A plan's states are a run's own (runs.Run.state) and two more: it waits for shards, or its parent will never be done.
TO_DO = ("missing", "pending", "interrupted")
STUCK = ("failed", "blocked", "no shards")
BEGUN = ("interrupted", "running")


@dataclass
class PlannedRun:
    """One wanted run."""

    run: Run
    spec: Spec
    state: str
    parent: str | None
    """The id of the pretraining run it starts from."""
    children: int = 0
    """How many runs of the plan start from this one."""
    published_by: str | None = None
    """The id of the longer run that publishes this one on its way (jobs/milestones)."""


@dataclass
class Plan:
    """A grid as a desired state of the run folder."""

    grid: str
    cluster: Cluster
    preset: paper.Preset
    datasets: list[DatasetInfo]
    entries: list[TableEntry]
    """The wanted fine-tunes, each where it stands in a table."""
    pretrains: list[PretrainSpec] = field(default_factory=list)
    """Pretraining runs that a grid of one's own wants for themselves."""
    runs: dict[str, PlannedRun] = field(default_factory=dict)
    missing_shards: list[str] = field(default_factory=list)
    """The commands that make the shards that are not there."""

    @property
    def wanted(self) -> list[Spec]:
        return [*self.pretrains, *(place.spec for place in self.entries)]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many runs of each kind are in which state."""
        out: dict[str, dict[str, int]] = {"pretrain": {}, "finetune": {}}
        for item in self.runs.values():
            states = out[kind_of(item.spec)]
            states[item.state] = states.get(item.state, 0) + 1
        return out


def make_plan(
    grid: str,
    cluster: Cluster,
    *,
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
) -> Plan:
    """Read the plan of a grid off its specs and the run folders; writes nothing."""
    found = load_grid(grid)
    chosen = paper.preset(preset)
    plan = Plan(grid=found.name, cluster=cluster, preset=chosen, datasets=[], entries=[])
    for name in datasets or found.datasets:
        card, command = _card(name, cluster, size=found.image_size, split=chosen.split)
        plan.datasets.append(card)
        if command:
            plan.missing_shards.append(command)
    wanted_seeds = seeds_of(seeds if seeds is not None else found.seeds)
    plan.entries, plan.pretrains = found.runs(plan.datasets, wanted_seeds, chosen)
    for spec in plan.wanted:
        parent = _add(plan, spec.pretrain) if isinstance(spec, FinetuneSpec) and spec.pretrain else None
        before = len(plan.runs)
        _add(plan, spec, parent=parent)
        if parent is not None:
            parent.children += len(plan.runs) - before
    plan.runs = dict(sorted(plan.runs.items(), key=lambda entry: kind_of(entry[1].spec) != "pretrain"))
    assign_milestones(plan.runs.values())
    return plan


def assign_milestones(items: Iterable[PlannedRun], taken: Container[str] = ()) -> None:
    """Set `PlannedRun.published_by` of the runs that longer ones will publish; `taken` are those that jobs have already.

    A run that has begun carries what its first start fixed. One that has not carries all it can of those that have not
    begun either; those begun choose first, then the longest.
    """
    families: dict[str, list[PlannedRun]] = {}
    for item in items:
        item.published_by = None
        open_ = item.state in ("missing", "pending", "interrupted", "running") and item.run.id not in taken
        if open_ and isinstance(item.spec, PretrainSpec):
            families.setdefault(run_id(dataclasses.replace(item.spec, epochs=1)), []).append(item)
    for family in families.values():
        family.sort(key=lambda item: item.spec.epochs, reverse=True)
        for longer in sorted(family, key=lambda item: item.state not in BEGUN):
            if longer.published_by is None:
                _assign_family(longer, family)


def _assign_family(longer: PlannedRun, family: list[PlannedRun]) -> None:
    """Let a run carry what it can of its family, the longest first."""
    begun = longer.state in BEGUN
    fixed = longer.run.milestones() if begun else []
    passed_by = len(files.read_jsonl(longer.run["metrics"])) if fixed else 0  # epochs it has ended
    passed: list[Spec] = [longer.spec]
    for item in family:
        if item.published_by or item.state not in ("missing", "pending"):
            continue
        to_come = item.spec.epochs in fixed and item.spec.epochs >= passed_by  # the row precedes the publishing
        if to_come if begun else all(milestone_of(item.spec, spec) for spec in passed):
            item.published_by = longer.run.id
            passed.append(item.spec)


def seeds_of(count: int) -> list[int]:
    """The paper's seeds, and on from the last when more are asked for."""
    if count < 1:
        raise ValueError(f"--seeds is {count}; give 1 or more")
    return [paper.SEEDS[0] + i for i in range(count)]


def _card(name: str, cluster: Cluster, *, size: int, split: str) -> tuple[DatasetInfo, str | None]:
    shards = find_shards(Path(cluster.shards), name, size=size, split=split)
    if shards is not None:
        ref = DatasetRef(name=name, fingerprint=shards.fingerprint)
        fractions = tuple(shards.manifest["label_fractions"])
        stand_in = bool(shards.manifest.get("stand_in"))
        return DatasetInfo(ref, fractions, str(shards.manifest["metric"]), stand_in), None
    flags = f"--size {size}" + (f" --split {split}" if split != "image" else "")
    if name in DATASETS.names():
        plugin = DATASETS.find(name).DATASET
        raw = "" if name == "toy" else "--raw DIR "
        command = f"python -m pipeline.shard {name} {raw}{flags}"
        card = DatasetInfo(DatasetRef(name=name, fingerprint=""), plugin.label_fractions, plugin.metric)
        return card, command
    known = ", ".join(DATASETS.names())
    raise ValueError(
        f"there are no shards of {name!r} at {size} pixels under {cluster.shards}, and it is none of {known}; "
        f"make them: python -m pipeline.shard {name} --layout folder --raw DIR {flags}"
    )


def _add(plan: Plan, spec: Spec, *, parent: PlannedRun | None = None) -> PlannedRun:
    identity = run_id(spec)
    if identity not in plan.runs:
        run = Run(Path(plan.cluster.runs) / identity)
        plan.runs[identity] = PlannedRun(run, spec, state_of(run, spec), parent.run.id if parent else None)
    return plan.runs[identity]


def state_of(run: Run, spec: Spec) -> str:
    """The run's own state, or `no shards` for what cannot start yet."""
    state = run.state()
    if state in ("done", "running"):
        return state
    parts = [
        spec.dataset,
        *([spec.pretrain.dataset] if isinstance(spec, FinetuneSpec) and spec.pretrain else []),
    ]
    return "no shards" if any(not part.fingerprint for part in parts) else state


def missing_weights(plan: Plan) -> list[str]:
    """What is wrong with the ImageNet weights of runs that are still to do, one line a backbone."""
    tags = {tag for item in plan.runs.values() if item.state in (*TO_DO, "failed") for tag in imagenet_tags(item.spec)}
    out = []
    for tag in sorted(tags):
        try:
            weights_file(tag, Path(plan.cluster.weights))
        except ValueError as error:
            out.append(str(error))
    return out


def publish(plan: Plan, chosen: Iterable[PlannedRun]) -> None:
    """Make the run folders of what will start, each with its spec and where it is sent."""
    facts = clusters.to_json(plan.cluster)
    for item in chosen:
        item.run.announce(item.spec)
        files.write_json(item.run["job"], facts, durable=False)  # a launch that goes on writes it again
