"""The plan: every run that a grid wants, each once, pretraining before fine-tuning, with its state.

Launching is reconciliation: wanted minus finished minus live. A plan is made from the specs and the run folders;
nothing else is stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.jobs.datasets import find_datasets
from pipeline.learn.weights import start_weights, weights_file
from pipeline.runs import cluster as clusters
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run, State
from pipeline.runs.identity import milestone_of, run_id
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, Spec, kind_of
from pipeline.study import paper
from pipeline.study.grid import load_grid, network
from pipeline.study.setting import DatasetInfo, TableEntry, chosen_shards

PlanState = Literal[State, "no shards", "no labels", "blocked"]
"""A run's own state, or: its dataset has no shards yet, or no labels in a split that fine-tuning needs; the run that it
starts from will not be done."""
TO_DO = ("missing", "pending", "interrupted")
STUCK = ("failed", "damaged", "blocked", "no shards", "no labels")
STARTED = ("interrupted", "running")


@dataclass
class PlannedRun:
    """One wanted run."""

    run: Run
    spec: Spec
    state: PlanState
    parent: str | None
    """The id of the pretraining run that it starts from."""
    children: int = 0
    """How many runs of the plan start from this one."""
    published_by: str | None = None
    """The id of the longer run that publishes this one on its way (jobs/milestones)."""
    has_labels: bool = True
    """Whether its dataset has the labels that it needs."""

    @property
    def name(self) -> str:
        """How the run is shown, see `shown_name`."""
        return shown_name(self.run.id, self.spec)

    def refresh(self) -> None:
        """Read the state again."""
        self.state = state_of(self.run, self.spec, has_labels=self.has_labels)


@dataclass
class Plan:
    """A grid as a desired state of the run folders."""

    grid: str
    cluster: Cluster
    preset: paper.Preset
    datasets: list[DatasetInfo]
    entries: list[TableEntry]
    """The wanted fine-tunes, each with its cell of a table."""
    pretrains: list[PretrainSpec] = field(default_factory=list)
    """Pretraining runs that a user's own grid lists itself."""
    runs: dict[str, PlannedRun] = field(default_factory=dict)
    """All runs, by id."""
    missing_shards: list[str] = field(default_factory=list)
    """The commands that make the missing shards."""

    @property
    def wanted(self) -> list[Spec]:
        """The specs as the grid lists them; a spec may be listed more than once."""
        return [*self.pretrains, *(entry.spec for entry in self.entries)]

    @property
    def report_folder(self) -> Path:
        """Where a report goes unless the user names another folder: reports/GRID, or reports/GRID-PRESET."""
        return Path("reports") / (self.grid if self.preset.name == "paper" else f"{self.grid}-{self.preset.name}")

    def title_of(self, ref: DatasetRef) -> str:
        """The name of a dataset in tables and files."""
        return next((info.title for info in self.datasets if info.ref == ref), ref.name)

    def in_state(self, *states: str) -> list[PlannedRun]:
        """The runs in one of these states."""
        return [planned for planned in self.runs.values() if planned.state in states]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many runs of each kind are in which state."""
        out: dict[str, dict[str, int]] = {"pretrain": {}, "finetune": {}}
        for planned in self.runs.values():
            states = out[kind_of(planned.spec)]
            states[planned.state] = states.get(planned.state, 0) + 1
        return out


class PlanProgress(Protocol):
    """What shows a person how a plan proceeds."""

    def show(self, plan: Plan) -> None:
        """Show the states of the runs; called at every poll."""

    def say(self, lines: Sequence[str]) -> None:
        """Print lines that stay."""


def shown_name(identity: str, spec: Spec) -> str:
    """A run's id for people; of a pretraining run of one network also the network, which its id does not say."""
    if isinstance(spec, PretrainSpec) and len(spec.arms) == 1:
        return f"{identity} ({spec.arms[0].backbone.split('.')[0]})"
    return identity


def make_plan(
    grid: str,
    cluster: Cluster,
    *,
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
    weights: Sequence[str] | None = None,
) -> Plan:
    """The plan of a grid, from its specs and the run folders; writes nothing. `weights`: in place of the grid's own."""
    found = load_grid(grid)
    names = found.weights if weights is None else weights
    networks = {name: network(name, Path(cluster.weights)) for name in names}
    chosen = paper.preset(preset)
    plan = Plan(grid=found.name, cluster=cluster, preset=chosen, datasets=[], entries=[])
    wanted = chosen_shards(datasets or found.datasets, chosen.split)
    plan.datasets, plan.missing_shards = find_datasets(wanted, cluster, size=found.image_size)
    wanted_seeds = seeds_of(seeds if seeds is not None else found.seeds)
    plan.entries, plan.pretrains = found.runs(plan.datasets, wanted_seeds, chosen, networks)
    for spec in plan.wanted:
        parent = _add(plan, spec.pretrain) if isinstance(spec, FinetuneSpec) and spec.pretrain else None
        before = len(plan.runs)
        _add(plan, spec, parent=parent)
        if parent is not None:
            parent.children += len(plan.runs) - before
    plan.runs = dict(sorted(plan.runs.items(), key=lambda pair: kind_of(pair[1].spec) != "pretrain"))
    assign_milestones(plan.runs.values())
    return plan


def assign_milestones(runs: Iterable[PlannedRun], taken: Container[str] = ()) -> None:
    """Set `PlannedRun.published_by` of the runs that longer ones will publish; runs in `taken` have a job already.

    A run that has started publishes what its first start fixed. One that has not publishes all it can of those that
    have not started either. Started runs choose first, then the longest.
    """
    families: dict[str, list[PlannedRun]] = {}
    for planned in runs:
        planned.published_by = None
        open_ = planned.state in (*TO_DO, "running") and planned.run.id not in taken
        if open_ and isinstance(planned.spec, PretrainSpec):
            families.setdefault(run_id(dataclasses.replace(planned.spec, epochs=1)), []).append(planned)
    for family in families.values():
        family.sort(key=lambda planned: planned.spec.epochs, reverse=True)
        for longer in sorted(family, key=lambda planned: planned.state not in STARTED):
            if longer.published_by is None:
                _assign_family(longer, family)


def _assign_family(longer: PlannedRun, family: list[PlannedRun]) -> None:
    """Let a run publish what it can of its family, the longest first."""
    started = longer.state in STARTED
    fixed = longer.run.milestones() if started and not longer.run.damage() else []
    ended = len(files.read_jsonl(longer.run["metrics"])) if fixed else 0  # epochs
    publishes: list[Spec] = [longer.spec]
    for planned in family:
        if planned.published_by or planned.state not in ("missing", "pending"):
            continue
        to_come = planned.spec.epochs in fixed and planned.spec.epochs >= ended  # the row comes before the publishing
        if to_come if started else all(milestone_of(planned.spec, spec) for spec in publishes):
            planned.published_by = longer.run.id
            publishes.append(planned.spec)


def retry_failed(plan: Plan) -> None:
    """Make the failed and the damaged runs runs to do.

    The failed ones continue from their last checkpoints; what the damaged ones left is deleted and made again.
    """
    for planned in plan.in_state("failed", "damaged"):
        if planned.state == "damaged":
            with planned.run.lock():
                planned.run.discard()
        planned.run["error"].unlink(missing_ok=True)
        planned.state = planned.run.state()
    assign_milestones(plan.runs.values())


def seeds_of(count: int) -> list[int]:
    """The first `count` seeds: the paper's, then those that follow its last one."""
    if count < 1:
        raise ValueError(f"--seeds is {count}; give 1 or more")
    return [paper.SEEDS[0] + i for i in range(count)]


def _add(plan: Plan, spec: Spec, *, parent: PlannedRun | None = None) -> PlannedRun:
    identity = run_id(spec)
    if identity not in plan.runs:
        run = Run(Path(plan.cluster.runs) / identity)
        lacking = {info.ref for info in plan.datasets if info.without_labels}
        has_labels = isinstance(spec, PretrainSpec) or spec.dataset not in lacking
        state = state_of(run, spec, has_labels=has_labels)
        plan.runs[identity] = PlannedRun(run, spec, state, parent.run.id if parent else None, has_labels=has_labels)
    return plan.runs[identity]


def state_of(run: Run, spec: Spec, *, has_labels: bool = True) -> PlanState:
    """The run's own state, or `no shards` or `no labels` if it cannot start for that reason."""
    state = run.state()
    if state in ("done", "running"):
        return state
    datasets = [spec.dataset]
    if isinstance(spec, FinetuneSpec) and spec.pretrain:
        datasets.append(spec.pretrain.dataset)
    if not all(dataset.fingerprint for dataset in datasets):
        return "no shards"
    return state if has_labels else "no labels"


def missing_labels(plan: Plan) -> list[str]:
    """The datasets whose fine-tunes cannot start because a split has no labels, one line each."""
    waiting = [planned.spec.dataset for planned in plan.in_state("no labels")]
    return [
        f"{info.ref.name} has no image with a label in {' and '.join(info.without_labels)}, so "
        f"{counted(count, 'fine-tune')} cannot start and the others continue; label some images there, and shard it "
        "again"
        for info in plan.datasets
        if (count := waiting.count(info.ref))
    ]


def missing_weights(plan: Plan) -> list[str]:
    """What is wrong with the start weights of the runs to do, one line for each."""
    found = {name: given for run in plan.in_state(*TO_DO, "failed") for name, given in start_weights(run.spec).items()}
    out = []
    for name, given in sorted(found.items()):
        try:
            weights_file(name, Path(plan.cluster.weights), given)
        except ValueError as error:
            out.append(str(error))
    return out


def publish(plan: Plan, chosen: Iterable[PlannedRun]) -> None:
    """Make the folders of the runs that will start, each with its spec and the cluster's facts."""
    facts = clusters.to_json(plan.cluster)
    for planned in chosen:
        planned.run.announce(planned.spec)
        files.write_json(planned.run["job"], facts, durable=False)  # the next launch writes it again
