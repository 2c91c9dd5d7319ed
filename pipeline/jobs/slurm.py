"""The Slurm executor: a plan's jobs as arrays, sent through submitit, each exactly once.

An array is sent held and released when its id is on disk, so a launch killed in between leaves nothing that could run
twice: the next one cancels held arrays that no order knows, and releases those that an order does. Slurm is asked what
is in its queue; what became of a run is read from its folder.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.cluster import Cluster
from pipeline.jobs import milestones, orders
from pipeline.jobs.code import snapshot
from pipeline.jobs.fanout import RETRIES, carrier
from pipeline.jobs.life import signals_noted
from pipeline.jobs.orders import Draft, Order
from pipeline.jobs.plan import STUCK, TO_DO, Item, Plan, publish, state_of

TAG = "cass-pipeline"  # heads the comment of every job sent from here; the runs folder and the order follow
LAUNCH_PATIENCE = 600.0  # seconds for another launch to end its own submission
POLL_SECONDS = 2.0  # between looks at the files
LOOKS = 5  # at the files for one at the queue
MAX_ARRAY = 1001  # Slurm's default MaxArraySize
ME = str(os.getuid())
OWN_FILTERS = ("SQUEUE_", "SACCT_")  # a person's settings of what these tools show
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")  # say which Slurm it is


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array, as squeue shows it."""

    id: str
    state: str
    """PENDING, RUNNING, …"""
    reason: str
    token: str
    node: str


def ask(*command: str, timeout: float = 60.0) -> str:
    """What a Slurm tool prints; `ValueError` with its own words where it is missing, fails or does not answer."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OWN_FILTERS)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**plain, "LC_ALL": "C"})
    except FileNotFoundError:
        raise ValueError(f"there is no {command[0]} here; run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not answer within {timeout:.0f} s; is the scheduler up?") from None
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise ValueError(f"{command[0]} {command[1] if len(command) > 1 else ''} failed: {words}")
    return done.stdout


def queue(runs: Path) -> list[Job]:
    """This user's jobs for these runs that have not ended, array tasks one by one."""
    out = []
    for line in ask("squeue", "-h", "-r", "-u", ME, "-o", "%i|%T|%r|%N|%k").splitlines():
        identity, state, reason, node, comment = (part.strip() for part in f"{line}||||".split("|", 4))
        comment = comment.rstrip("|")  # other jobs' comments may hold anything
        if comment.startswith(head := comment_of(runs)):
            out.append(Job(identity, state, reason, comment.removeprefix(head), node))
    return out


def comment_of(runs: Path, token: str = "") -> str:
    """The comment of an order's jobs; it names the runs folder too, since a user may have several."""
    return f"{TAG}:{files.sha256_bytes(str(runs).encode())[:8]}:{token}"


def user_jobs() -> int:
    """How many jobs this user has in the queue, array tasks counted each, from here or not."""
    return len(ask("squeue", "-h", "-r", "-u", ME, "-o", "%i").splitlines())


def ended(job_ids: Iterable[str], *, timeout: float = 15.0) -> dict[str, str]:
    """How jobs ended, by accounting, in one call; empty where accounting is off, slow or does not know."""
    wanted = set(job_ids)
    if not wanted:
        return {}
    arrays = sorted({identity.split("_")[0] for identity in wanted})
    try:
        text = ask("sacct", "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "JobID,State", timeout=timeout)
    except ValueError:
        return {}
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 1)
    return {identity: state for identity, state in rows if identity in wanted}


def config(*, timeout: float = 60.0) -> dict[str, str]:
    """The site's settings as `scontrol show config` prints them."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config", timeout=timeout).splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def max_array_size() -> int:
    """MaxArraySize of the site: indices stay below it, so an array has at most so many tasks."""
    return max(1, int(config().get("MaxArraySize", MAX_ARRAY)))


def carried(runs: Path, jobs: Sequence[Job]) -> dict[str, Job]:
    """The runs that jobs in the queue stand for."""
    by_id = {job.id: job for job in jobs}
    out: dict[str, Job] = {}
    for order in orders.read_orders(runs):
        for task, carries in order.tasks():
            job = by_id.get(task)
            if job and job.token == order.token:  # a cluster that began anew gives the same ids again
                out |= {run: job for run in carries}
    return out


@dataclass(frozen=True)
class Seen:
    """What Slurm shows of a plan's runs."""

    jobs: dict[str, Job]
    """The job in the queue that carries a run."""
    ended: dict[str, tuple[str, str]]
    """For a run that is to do and that no job carries: the last job that did, and how it ended by accounting."""
    problem: str = ""
    """Why the queue could not be read."""


def look(plan: Plan) -> Seen:
    """One look at the queue and, where runs lost their jobs, one at the accounting; never fails."""
    runs = Path(plan.cluster.runs)
    try:
        jobs = carried(runs, queue(runs))
    except ValueError as error:
        return Seen({}, {}, str(error))
    left = {name for name, item in plan.items.items() if item.state in TO_DO and name not in jobs}
    last: dict[str, str] = {}
    for order in orders.read_orders(runs) if left else []:
        last |= {run: task for task, carries in order.tasks() for run in left.intersection(carries)}
    how = ended(last.values()) if plan.cluster.slurm.accounting else {}
    return Seen(jobs, {run: (job, how.get(job, "not known to the queue any more")) for run, job in last.items()})


def mend(runs: Path, jobs: Sequence[Job]) -> list[str]:
    """Bring orders and queue together after a launch was killed in between; says what it did."""
    said = []
    known = {order.token: order for order in orders.read_orders(runs)}
    for token in {job.token for job in jobs} | set(known):
        theirs = [job.id for job in jobs if job.token == token]
        array = theirs[0].split("_")[0] if theirs else ""
        order = known.get(token)
        if order is None or (not order.job and not order.by_hand):
            held = all(job.reason == "JobHeldUser" for job in jobs if job.token == token)
            if array and held:
                ask("scancel", array)
                said.append(f"cancelled {array}: held, and its launch was killed before it could note it")
            if order is not None and array and not held:
                order.note_job(array, released=True)
            elif order is not None:
                order.remove()
        elif not order.job and array:
            order.note_job(array, released=True)
        elif order.job and not order.job["released"]:
            if array:
                ask("scontrol", "release", array)
                said.append(f"released {array}, whose launch was killed before it could")
            order.note_job(order.job["id"], released=True)
    return said


def drafts_of(plan: Plan, live: Mapping[str, Job], *, limit: int) -> list[Draft]:
    """What is to be sent: wanted, not done, not failed, not carried by a job, and its parents done or in the queue."""
    items = plan.items
    milestones.assign(items.values(), taken=live)
    left = [item for item in items.values() if item.state in TO_DO and item.run.id not in live]
    todo = {item.run.id: item for item in left if not item.carrier or items[item.carrier].state != "running"}

    def can_go(item: Item) -> bool:
        return item.parent is None or items[item.parent].state == "done" or item.parent in live or item.parent in todo

    chosen = orders.bundles(item for item in todo.values() if can_go(item))
    waits_for = {name for name, item in items.items() if item.state != "done"}
    return orders.drafts(
        plan.grid, chosen, waits_for=waits_for, limit=limit, parallelism=plan.cluster.slurm.parallelism
    )


def reconcile(plan: Plan, *, limit: int | None = None) -> tuple[list[Order], list[str]]:
    """Send what is wanted and neither done nor at work; returns the orders sent and what else was done.

    One launch at a time does this, so two launched at once make one plan.
    """
    runs, slurm = Path(plan.cluster.runs), plan.cluster.slurm
    with files.lock(runs / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        said = mend(runs, queue(runs))
        live = carried(runs, queue(runs))
        for item in plan.items.values():
            item.state = state_of(item.run, item.spec)
        chosen = drafts_of(plan, live, limit=limit or max_array_size())
        room = slurm.max_jobs - user_jobs() if slurm.max_jobs else None
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        publish(plan, [item for draft in chosen for bundle in draft.bundles for item in bundle.items])
        sent = []
        for draft in chosen:
            whole = len(draft.bundles)
            if room is not None:
                fits = room if draft.parents <= set(jobs) else 0
                draft = dataclasses.replace(draft, bundles=draft.bundles[: max(0, fits)])
                room -= len(draft.bundles)
            if left := whole - len(draft.bundles):
                said.append(
                    f"{draft.name}: {left} of {whole} jobs wait for a later launch: max_jobs is {slurm.max_jobs}"
                )
            if not draft.bundles:
                continue
            order = orders.publish(runs, draft, code)
            job_id = send(order, plan.cluster, code, after=sorted(jobs[run] for run in draft.parents), draft=draft)
            sent.append(order)
            jobs |= {run: task for task, carries in order.tasks() for run in carries}
            said.append(f"sent {job_id} {draft.name}: {described(draft)}")
    return sent, said


def follow(plan: Plan, report: Callable[[list[Item], list[Item]], None], say: Callable[[list[str]], None]) -> bool:
    """Send, and stay until every run has ended; False when Ctrl-C or SIGTERM asked to leave (the jobs go on).

    What lost its job without an error is sent again, a few times; what starts from a failed run becomes `blocked`.
    """
    runs, items = Path(plan.cluster.runs), list(plan.items.values())
    times: Counter[str] = Counter()
    live: dict[str, Job] | None = None
    lost = True
    before = orders.cancelled(runs)
    with signals_noted() as asked:
        while not asked():
            if (orders.cancelled(runs) - before) & plan.items.keys():
                say(["another command cancelled runs of this grid; leaving it at that"])
                return False
            try:
                if lost:
                    sent, said = reconcile(plan)
                    say(said)
                    times.update(run for order in sent for part in order.parts for run in part)
                live = carried(runs, queue(runs))
            except ValueError as error:
                if live is None:
                    raise
                say([f"looking again soon: {error}"])
            for _ in range(LOOKS):
                refresh(plan)
                report(items, [item for item in items if item.state == "running"])
                if asked():
                    return False
                time.sleep(POLL_SECONDS)
            left = [item.run.id for item in items if item.state in TO_DO]
            lost = any(run not in live and times[run] <= RETRIES for run in left)
            if not lost and not live.keys() & left and not any(item.state == "running" for item in items):
                return True
    return False


def refresh(plan: Plan) -> None:
    """Read the states anew; what starts from a run that failed is `blocked`."""
    for item in plan.items.values():
        if item.state != "done":
            item.state = state_of(item.run, item.spec)
    for item in plan.items.values():
        if item.state in TO_DO and item.parent and plan.items[item.parent].state in STUCK:
            item.state = "blocked"


def script(plan: Plan) -> str:
    """A shell script that sends what is to be sent with sbatch alone; the plan and its orders are published."""
    runs = Path(plan.cluster.runs)
    lines = ["#!/bin/bash", "set -euo pipefail"]
    with files.lock(runs / ".launch.lock", patience=LAUNCH_PATIENCE, what="another launch's submission"):
        live = carried(runs, queue(runs))
        jobs = {run: job.id for run, job in live.items()}
        code = snapshot(runs)
        for number, draft in enumerate(drafts_of(plan, live, limit=max_array_size())):
            publish(plan, [item for bundle in draft.bundles for item in bundle.items])
            order = orders.publish(runs, draft, code, by_hand=True)
            python = plan.cluster.slurm.python or sys.executable
            command = f"srun {shlex.join(plan.cluster.slurm.srun)} {shlex.quote(python)} -u -m pipeline.jobs.fanout "
            executor = executor_for(order, plan.cluster, code, after=(), parallelism=draft.parallelism)
            executor.parameters |= {"use_srun": False, "map_count": len(order.parts) if len(order.parts) > 1 else None}
            executor.parameters["additional_parameters"].pop("hold")
            text = executor._make_submission_file_text(command + shlex.quote(str(order.folder)), order.token)
            after = "".join(f":{jobs[run]}" for run in sorted(draft.parents))
            lines += [
                "",
                f"job{number}=$(sbatch --parsable {'--dependency=afterany' + after if after else ''} <<'END'",
                text.rstrip(),
                "END",
                ")",
                f'echo "sent $job{number} {draft.name}: {described(draft)}"',
            ]
            task = "" if len(order.parts) == 1 else "_{}"
            for index, part in enumerate(order.parts):
                jobs |= {run: f"${{job{number}}}" + task.format(index) for run in part}
    return "\n".join(lines)


def described(draft: Draft) -> str:
    """`5 tasks, 20 runs, after 5 runs`."""
    count = sum(len(bundle.items) for bundle in draft.bundles)
    after = f", after {len(draft.parents)} pretraining runs" if draft.parents else ""
    tasks = "a job" if len(draft.bundles) == 1 else f"an array of {len(draft.bundles)}, {draft.parallelism} at once"
    return f"{tasks}, {count} runs{after}"


def send(order: Order, cluster: Cluster, code: Path, *, after: Sequence[str], draft: Draft) -> str:
    """Send an order of runs; returns the job's id."""
    tasks = [carrier(order, index) for index in range(len(order.parts))]
    return send_tasks(order, cluster, code, tasks, after=after, parallelism=draft.parallelism)


def send_tasks(
    order: Order,
    cluster: Cluster,
    code: Path,
    tasks: Sequence[Callable[[], object]],
    *,
    after: Sequence[str],
    parallelism: int,
) -> str:
    """Send callables as a held array, note its id in their order, release it; returns the id."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env

    executor = executor_for(order, cluster, code, after=after, parallelism=parallelism)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        with clean_env():  # a launch inside an allocation would pass that job's settings on
            os.environ.update(kept)
            if len(tasks) == 1:
                jobs = [executor.submit(tasks[0])]
            else:
                with executor.batch():
                    jobs = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        order.remove()
        words = " ".join(str(error).split())
        raise ValueError(f"sbatch refused {order.name}: {words}") from error
    job_id = str(jobs[0].job_id).split("_")[0]
    order.note_job(job_id, released=False)
    ask("scontrol", "release", job_id)
    order.note_job(job_id, released=True)
    return job_id


def executor_for(order: Order, cluster: Cluster, code: Path, *, after: Sequence[str], parallelism: int) -> Any:
    """submitit's executor with everything this site and this order ask for."""
    from submitit import SlurmExecutor

    slurm = cluster.slurm
    folder = order.folder / "submitit"
    folder.mkdir(exist_ok=True)
    executor = SlurmExecutor(
        folder=folder, max_num_timeout=slurm.requeues, python=shlex.quote(slurm.python) if slurm.python else None
    )
    named = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos, "constraint": slurm.constraint}
    further = dict(flag.split("=", 1) for flag in slurm.sbatch)
    executor.update_parameters(
        job_name=order.name,
        time=round(slurm.hours * 60),
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=slurm.cpus,
        mem=f"{round(slurm.memory_gb * 1024)}M",
        signal_delay_s=slurm.signal_seconds,
        array_parallelism=parallelism,
        stderr_to_stdout=True,
        comment=comment_of(order.folder.parent.parent, order.token),
        setup=setup_lines(order, cluster, code),
        srun_args=list(slurm.srun),
        dependency="afterany:" + ":".join(after) if after else None,
        gres=slurm.gres or None,
        additional_parameters={"hold": True, "requeue": True, "chdir": str(code), **further},
        **{name: value for name, value in named.items() if value},
    )
    return executor


def setup_lines(order: Order, cluster: Cluster, code: Path) -> list[str]:
    """What the node's shell does before srun, at every start of the job."""
    pickle = f"{shlex.quote(str(order.folder))}/submitit/${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}"
    pickle += "${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"
    mending = [
        "# submitit replaces its pickle in two steps; a kill in between left the new one beside the old or alone",
        f"pickle={pickle}",
        'if [ -e "$pickle" ]; then rm -f "$pickle.save_tmp"; elif [ -e "$pickle.save_tmp" ]; '
        'then mv "$pickle.save_tmp" "$pickle"; fi',
    ]
    return [
        *cluster.slurm.setup,
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it from 22.05 on",
        *([] if order.by_hand else mending),
    ]


def cancel(job_ids: Sequence[str]) -> None:
    """End jobs for good; running ones save first."""
    for start in range(0, len(job_ids), 500):
        ask("scancel", *job_ids[start : start + 500])
