"""What `status` says of each run, as a row for programs and as text."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import files
from pipeline.core.console import duration, table
from pipeline.jobs.plan import TO_DO, Plan, PlannedRun, shown_name
from pipeline.jobs.submissions import has_launch
from pipeline.runs.folder import FILES, Run, unsealed_text

if TYPE_CHECKING:
    from pipeline.jobs.slurm.queue import QueueView
    from pipeline.jobs.slurm.scheduler import QueuedJob

SILENT_SECONDS = 120.0  # without a heartbeat, after which `status` says so

KNN = "_val_knn"  # the end of its name, as learn/probes gives it
BAD = ("failed", "damaged")  # states with a reason

Row = dict[str, Any]
"""`run`, `name` (the id and what it does not say), `state`, `job` and `says` (text); of finished runs also `codes`,
`seconds`, `device`, `sealed`; of running ones `progress` and `silence` (seconds)."""


def status_rows(plan: Plan, queue: QueueView | None) -> list[Row]:
    """A row for each run of the plan; `queue` is what Slurm shows of them."""
    return [_row(planned, plan, queue) for planned in plan.runs.values()]


def folder_rows(runs: Path, jobs: Mapping[str, QueuedJob]) -> list[Row]:
    """A row for each run in the runs folder, whatever grid wants it; `jobs` are those in the queue, by run id."""
    rows = []
    for path in sorted(runs.glob(f"*/{FILES['spec']}")):
        run = Run(path.parent)
        job, state = jobs.get(run.id), run.state()
        row: Row = {"run": run.id, "name": _name(run), "state": state, "job": job.id if job else "", "says": ""}
        if state == "done":
            row |= {"job": "", **_of_finished(run)}
        elif state == "running":
            row |= _of_running(run, job)
        elif state in BAD:
            row |= {"job": "", "says": run.reason()}
        elif job:
            row |= {"state": "queued", "says": _of_queued(job)}
        rows.append(row)
    return rows


def status_text(rows: list[Row], runs: Path, *, failed_only: bool) -> str:
    """The table, and a line that counts the states."""
    if failed_only:
        failed = [row for row in rows if row["state"] in BAD]
        shown = [[row["name"], row["says"], Run(runs / row["run"])["log"]] for row in failed]
        out = [table(shown, header=("run", "reason", "log"))] if shown else []
    else:
        shown = [[row["state"], row["name"], row["job"], row["says"]] for row in rows]
        out = [table(shown, header=("state", "run", "job", ""))]
    counts = Counter(row["state"] for row in rows)
    out.append(("\n" if out else "") + ", ".join(f"{count} {state}" for state, count in counts.items()))
    codes = sorted({code for row in rows for code in row.get("codes", ())})
    if len(codes) > 1:
        out.append(f"results come from {len(codes)} versions of the code: {', '.join(codes)}")
    if unsealed := sum(not row.get("sealed", True) for row in rows):
        out.append(unsealed_text(unsealed))
    return "\n".join(out)


def lives(rows: list[Row], runs: Path) -> bool:
    """Whether a run is at work or in the queue, or is to do while a launch lives that may start it."""
    states = {row["state"] for row in rows}
    return bool(states & {"running", "queued"}) or (bool(states.intersection(TO_DO)) and has_launch(runs))


def read_queue(plan: Plan) -> QueueView | None:
    """What Slurm shows of the plan's runs; None on this machine alone."""
    if plan.cluster.executor != "slurm":
        return None
    from pipeline.jobs.slurm import queue

    return queue.read_queue(plan)


def _row(planned: PlannedRun, plan: Plan, queue: QueueView | None) -> Row:
    """A run's state with what there is to say of it; `queued`: it is not running, and a job in the queue has it."""
    job = queue.jobs.get(planned.run.id) if queue else None
    row: Row = {"run": planned.run.id, "name": planned.name, "state": planned.state}
    row |= {"job": job.id if job else "", "says": ""}
    if planned.state == "done":
        row |= {"job": "", **_of_finished(planned.run)}
    elif planned.state == "running":
        row |= _of_running(planned.run, job)
    elif planned.state in BAD:
        row |= {"job": "", "says": planned.run.reason()}
    elif job:
        row["state"] = "queued"
        row["says"] = _of_queued(job) + _waits_for(planned.run)
        if queue and planned.published_by and queue.jobs.get(planned.published_by) == job:
            row["says"] += f", published by {planned.published_by}"
    elif planned.published_by:
        row["says"] = f"published by {planned.published_by}, which is {plan.runs[planned.published_by].state}"
    elif planned.parent and plan.runs[planned.parent].state != "done":
        row["says"] = f"waits for {plan.runs[planned.parent].name}, which is {plan.runs[planned.parent].state}"
    elif queue and planned.run.id in queue.ended:
        row["job"], how = queue.ended[planned.run.id]
        row["says"] = f"its job ended: {how}; the next launch continues it" + _waits_for(planned.run)
    return row


def _waits_for(run: Run) -> str:
    """What a run left its job to wait for; empty where it did not."""
    with contextlib.suppress(FileNotFoundError):
        return f", waits for {run['waits'].read_text(encoding='utf-8').strip()}"
    return ""


def _name(run: Run) -> str:
    """How a run in a folder is shown; its id alone if its spec cannot be read."""
    with contextlib.suppress(ValueError, OSError):
        return shown_name(run.id, run.spec)
    return run.id


def _of_queued(job: QueuedJob) -> str:
    from pipeline.jobs.slurm.reasons import advice

    says = job.state.lower() + (f" ({job.reason})" if job.reason not in ("None", "") else "")
    says += f": {what}" if (what := advice(job.reason, job.id)) else ""
    return says + (f" on {job.node}" if job.node else "")


def _of_finished(run: Run) -> Row:
    result = run.result()
    says = f"{duration(result.seconds)}, {result.images_per_second:.0f} images a second"
    says += f", COLLAPSED: {' and '.join(result.collapsed)}" if result.collapsed else ""
    says += f", {result.gpu_memory['reserved'] / 1e9:.1f} GB of the GPU" if result.gpu_memory else ""
    says += _gains(result.probes.get("start", {}), result.probes.get("end", {}))
    says += f", published by {result.published_by}" if result.published_by else ""
    return {
        "says": says,
        "codes": result.codes,
        "seconds": result.seconds,
        "device": result.device,
        "sealed": run.sealed,
    }


def _of_running(run: Run, job: QueuedJob | None) -> Row:
    at = run.progress()
    silence = run.silence()
    says = "starting"
    if at:
        left = duration(at["eta_seconds"]) if at.get("eta_seconds") else "?"
        says = f"epoch {at['epoch'] + 1} of {at['epochs']}, {left} left at most; last step {duration(at['age'])} ago"
        if rows := files.read_jsonl(run["metrics"]):
            newest: Row = next((row for row in reversed(rows) if any(KNN in name for name in row)), {})
            says += _gains(rows[0].get("start", {}), newest)
    if job and job.state == "SUSPENDED":
        says += "; suspended: Slurm stopped it and lets it continue when it may"
    elif silence > SILENT_SECONDS:
        says += f"; NO HEARTBEAT for {duration(silence)}: its node is lost or hangs"
    return {"says": says, "progress": at, "silence": silence}


def _gains(start: Row, now: Row) -> str:
    """The probes' k-NN of each arm on validation images: `, k-NN cnn 0.71 → 0.79, transformer 0.65 → 0.70`."""
    arms = [name.removesuffix(KNN) for name in {**start, **now} if name.endswith(KNN)]
    values = [[f"{v:.2f}" if (v := row.get(arm + KNN)) is not None else "–" for row in (start, now)] for arm in arms]
    named = [
        " → ".join(pair) if len(arms) == 1 else f"{arm} {' → '.join(pair)}"
        for arm, pair in zip(arms, values, strict=True)
    ]
    return f", k-NN {', '.join(named)}" if named else ""
