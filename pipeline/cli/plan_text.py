"""A plan as text: before a launch, in a dry run, and at the end."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.core.console import counted, table
from pipeline.jobs.plan import Plan
from pipeline.runs.cluster import VARIABLE
from pipeline.study.experiments import paper_runs
from pipeline.study.overview import HEADER, table_overview


def plan_text(plan: Plan) -> str:
    """How many runs are in which state, and what the runs share."""
    lines = [
        f"grid {plan.grid}, preset {plan.preset.name}:\n",
        _state_table(plan),
        *_shared_lines(plan),
        "",
    ]
    return "\n".join(lines)


def plan_facts(plan: Plan) -> dict[str, Any]:
    """What `--json` says of a plan: its tables, how many runs are in which state, and the runs that are not done."""
    overviews = table_overview(plan.entries, paper_runs(plan.entries, plan.datasets, plan.preset))
    left = [planned for planned in plan.runs.values() if planned.state != "done"]
    return {
        "grid": plan.grid,
        "preset": plan.preset.name,
        "tables": [asdict(overview) for overview in overviews],
        "states": plan.counts(),
        "not_done": [{"run": each.run.id, "state": each.state, "reason": each.run.reason()} for each in left],
    }


def _state_table(plan: Plan) -> str:
    counts = plan.counts()
    states = sorted({state for states in counts.values() for state in states})
    rows = [
        [kind, sum(states_of.values()), *(states_of.get(state, 0) for state in states)]
        for kind, states_of in counts.items()
    ]
    return table(rows, header=("runs", "wanted", *states))


def _shared_lines(plan: Plan) -> list[str]:
    """What is trained once and used more than once."""
    out = []
    shared = [planned for planned in plan.runs.values() if planned.children > 1]
    if shared:
        children = sum(planned.children for planned in shared)
        out.append(f"\n{children:,} fine-tunes share {counted(len(shared), 'pretraining run')}")
    milestones = [planned for planned in plan.runs.values() if planned.published_by]
    if milestones:
        longer = len({planned.published_by for planned in milestones})
        out.append(
            f"{counted(len(milestones), 'pretraining run is', 'pretraining runs are')} published on the way of "
            f"{counted(longer, 'longer one')}"
        )
    repeated = len(plan.entries) - sum(plan.counts()["finetune"].values())
    if repeated:
        out.append(f"{counted(repeated, 'fine-tune is', 'fine-tunes are')} wanted more than once and run once")
    return out


def tables_text(plan: Plan) -> str:
    """The tables that the grid makes, a line each; empty for a grid that only pretrains."""
    of_paper = paper_runs(plan.entries, plan.datasets, plan.preset)
    rows = [overview.texts() for overview in table_overview(plan.entries, of_paper)]
    return table(rows, header=HEADER) + "\n" if rows else ""


def milestones_text(plan: Plan) -> str:
    """Which run publishes which milestone; empty if none does."""
    rows = [
        [planned.name, planned.spec.epochs, planned.published_by]
        for planned in plan.runs.values()
        if planned.published_by
    ]
    return table(rows, header=("milestone", "epochs", "published by")) + "\n" if rows else ""


def arrays_text(plan: Plan) -> str:
    """The arrays that a launch would submit; as if the queue were empty, if Slurm does not answer."""
    from pipeline.jobs.slurm import limits, queue, scheduler, sending

    runs = Path(plan.cluster.runs)
    out = []
    try:
        live = queue.queued_runs(runs, scheduler.queued_jobs(runs))
        limit = scheduler.max_array_size()
    except ValueError as error:
        live, limit = {}, scheduler.MAX_ARRAY
        out.append(f"as if the queue were empty: {error}")
    rows: list[tuple[str, int, int, int, str]] = []
    for array in sending.arrays_to_send(plan, live, limit=limit):
        count = sum(len(job.runs) for job in array.jobs)
        after = f"afterany {counted(len(array.parents), 'run')}" if array.parents else ""
        rows.append((array.name, len(array.jobs), array.parallelism, count, after))
    if live:
        out.append(f"{counted(len(live), 'run has', 'runs have')} a job in the queue")
    header = ("array", "tasks", "at once", "runs", "waits for")
    out.append(table(rows, header=header) if rows else "nothing to send")
    slurm, jobs = plan.cluster.slurm, sum(row[1] for row in rows)
    with contextlib.suppress(ValueError):  # the queue does not answer, which is said above
        out += limits.limit_lines(limits.read_limits(slurm), jobs, max_jobs=slurm.max_jobs)
    if VARIABLE.search(plan.cluster.scratch):
        out.append(
            f"scratch is {plan.cluster.scratch!r}: only the first job tells whether the nodes set that; where one does "
            "not, a run fails before it trains"
        )
    return "\n".join([*out, *limits.partition_notes(slurm), ""])


def end_text(plan: Plan) -> str:
    """How many runs are done, and the state and reason of each that is not."""
    left = [planned for planned in plan.runs.values() if planned.state != "done"]
    whole = counted(len(plan.runs), "run is", "runs are")
    out = [f"{len(plan.runs) - len(left)} of {whole} done"]
    if left:
        rows = [[planned.name, planned.state, planned.run.reason()[:100], planned.run["log"]] for planned in left]
        out.append(table(rows, header=("run", "state", "reason", "log")))
    return "\n".join(out)
