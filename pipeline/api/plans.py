"""Grids as plans: made, shown and launched from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.jobs import plan as plans
from pipeline.jobs.plan import TO_DO, Plan
from pipeline.runs.cluster import load_cluster
from pipeline.runs.spec import kind_of
from pipeline.study.names import known_grids

if TYPE_CHECKING:
    import pyarrow as pa


def grids() -> list[str]:
    """The names of the grids that come with the project, sorted."""
    return known_grids()


def make_plan(
    grid: str | Path,
    *,
    datasets: Sequence[str] | None = None,
    seeds: int | None = None,
    preset: str = "paper",
    weights: Sequence[str] | None = None,
    cluster: str | Path = "local",
) -> GridPlan:
    """What a grid wants, and the state of it; nothing is written or started.

    grid: a name, or the path of a TOML or Python file. datasets: names, each with a split if need be
    (`brain_mri:grouped`); None: the grid's. seeds: how many; None: the grid's. preset: `paper`, `notebook` or `sound`.
    weights: names of start weights that `prefetch` brought, for rows of frozen features.
    """
    return GridPlan(read_plan(grid, datasets, seeds, preset, weights, cluster))


def read_plan(
    grid: str | Path,
    datasets: Sequence[str] | None,
    seeds: int | None,
    preset: str,
    weights: Sequence[str] | None,
    cluster: str | Path,
) -> Plan:
    """The plan that the arguments of `make_plan` name."""
    for name, given in (("datasets", datasets), ("weights", weights)):
        if isinstance(given, str):
            raise ValueError(f"{name} is {given!r}; give a list of names")
    site = load_cluster(str(cluster))
    return plans.make_plan(str(grid), site, datasets=datasets, seeds=seeds, preset=preset, weights=weights)


@dataclass(frozen=True)
class GridPlan:
    """A grid with the state of its runs, as of `make_plan` or the last `launch`."""

    _plan: Plan

    @property
    def grid(self) -> str:
        """The grid's name; of a file, that of the file without its ending."""
        return self._plan.grid

    def counts(self) -> dict[str, dict[str, int]]:
        """How many runs are in which state, by kind: `{"pretrain": {"done": 1}, "finetune": {"missing": 4}}`."""
        return self._plan.counts()

    def runs(self) -> pa.Table:
        """A `pyarrow.Table`, a row a run, pretraining first: run, kind, state (strings), parent (string or null)."""
        import pyarrow as pa

        found = list(self._plan.runs.values())
        columns = {
            "run": [planned.run.id for planned in found],
            "kind": [kind_of(planned.spec) for planned in found],
            "state": [str(planned.state) for planned in found],
            "parent": [planned.parent for planned in found],
        }
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def problems(self) -> list[str]:
        """What keeps it from being launched, and which fine-tunes cannot start; each with the next step."""
        from pipeline.jobs import preflight

        return preflight.problems(self._plan.cluster, self._plan) + plans.missing_labels(self._plan)

    def launch(
        self, *, jobs: int | None = None, retry: bool = False, ray: bool | None = None, wait: bool | None = None
    ) -> dict[str, dict[str, int]]:
        """Run what is missing, as `python -m pipeline.launch` does; returns `counts()` at the end.

        jobs: at the same time. retry: also what failed or is damaged. ray: whether Ray runs the fine-tunes; jobs and
        ray are the cluster file's where they are None. wait: until all runs have ended; None: on this machine, but
        not on Slurm. A failed run raises nothing: it is counted, and `status` says why. Ctrl-C lets every run save;
        the same call continues. Raises `ValueError` where something is missing; nothing is started then.
        """
        from pipeline.cli.progress import LaunchProgress
        from pipeline.jobs import preflight
        from pipeline.jobs.submissions import launch_lives

        plan = self._plan
        plan.cluster = _changed(plan, jobs, ray)
        if found := preflight.problems(plan.cluster, plan):
            raise ValueError("nothing was started; first:\n  " + "\n  ".join(found))
        on_slurm = plan.cluster.executor == "slurm"
        if wait is False and not on_slurm:
            raise ValueError("wait=False needs Slurm; on this machine: python -m pipeline.launch --no-wait")
        if retry:
            plans.retry_failed(plan)
        if plan.in_state(*TO_DO, "running"):
            progress = LaunchProgress()
            with launch_lives(Path(plan.cluster.runs)):
                if on_slurm:
                    from pipeline.jobs.slurm import sending, waiting

                    if wait:
                        waiting.run_plan(plan, progress)
                    else:
                        progress.say(sending.submit_missing(plan)[1])
                else:
                    from pipeline.jobs import local

                    local.run_plan(plan, progress)
            progress.close()
        return self.counts()


def _changed(plan: Plan, jobs: int | None, ray: bool | None) -> Any:
    """The plan's cluster with these changes."""
    cluster = plan.cluster
    if ray is not None:
        cluster = dataclasses.replace(cluster, ray=ray)
    if jobs is not None:
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}; give 1 or more")
        slurm = dataclasses.replace(cluster.slurm, parallelism=jobs)
        cluster = dataclasses.replace(cluster, jobs=jobs, slurm=slurm)
    return cluster
