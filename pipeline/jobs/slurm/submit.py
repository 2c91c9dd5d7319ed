"""Sends arrays to Slurm through submitit: held, noted on disk, released. Or gives the text of an sbatch script."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.jobs.fanout import payload_of
from pipeline.jobs.slurm.batch import lines_after, lines_before, python_words
from pipeline.jobs.slurm.scheduler import ask, comment_of
from pipeline.jobs.submissions import Submission
from pipeline.runs.cluster import Cluster

KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")  # these say which Slurm it is


def send(submission: Submission, cluster: Cluster, code: Path, *, after: Sequence[str], parallelism: int) -> str:
    """Send a submission of runs; returns the job's id."""
    payloads = [payload_of(submission, index) for index in range(len(submission.tasks))]
    return send_payloads(submission, cluster, code, payloads, after=after, parallelism=parallelism)


def send_payloads(
    submission: Submission,
    cluster: Cluster,
    code: Path,
    payloads: Sequence[Callable[[], object]],
    *,
    after: Sequence[str],
    parallelism: int,
) -> str:
    """Send the payloads of a submission as a held array, note the job's id, release the array; returns the id.

    `ValueError` with sbatch's own words if it refuses; the submission's folder is removed then.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env

    executor = executor_for(submission, cluster, code, after=after, parallelism=parallelism)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        with clean_env():  # a launch inside an allocation would pass that job's settings on
            os.environ.update(kept)
            if len(payloads) == 1:
                jobs = [executor.submit(payloads[0])]
            else:
                with executor.batch():
                    jobs = [executor.submit(payload) for payload in payloads]
    except (FailedJobError, FailedSubmissionError) as error:
        submission.remove()
        words = " ".join(str(error).split())
        if "requeue" in words.lower() and cluster.slurm.requeues:
            words += "; set slurm.requeues = 0: then jobs do not ask for it, and launch --wait sends them again"
        raise ValueError(f"sbatch refused {submission.name}: {words}") from error
    job_id = str(jobs[0].job_id).split("_")[0]
    check_comment(submission, job_id)
    submission.note_job(job_id, released=False)
    ask("scontrol", "release", job_id)
    submission.note_job(job_id, released=True)
    return job_id


def check_comment(submission: Submission, job_id: str) -> None:
    """Cancel a held job whose comment the site has replaced: a later launch would not know it and send its runs again.

    Raises `ValueError` then. A queue that does not answer is no reason to cancel.
    """
    wanted = comment_of(submission.folder.parent.parent, submission.id)
    try:
        found = set(ask("squeue", "-h", "-j", job_id, "-o", "%k").split())
    except ValueError:
        return
    if found and not any(comment.startswith(wanted) for comment in found):
        ask("scancel", job_id)
        submission.remove()
        raise ValueError(
            f"this site replaced the comment of job {job_id} ({min(found)}), by which its runs are known; it was "
            "cancelled. Ask the site to keep job comments (its job_submit plugin changes them)"
        )


def path_problems(folder: Path) -> list[str]:
    """Why jobs cannot write their output below an absolute folder; empty where nothing is known against it."""
    if "%" not in str(folder):
        return []
    return [f"{folder}: Slurm replaces % and what follows in the path of a job's output; give a folder without it"]


def job_name(submission: Submission) -> str:
    """The submission's name without characters that a shell or Slurm reads as more than text."""
    return re.sub(r"[^\w.@%+=:,-]", "_", submission.name)


def sbatch_text(submission: Submission, cluster: Cluster, code: Path, *, parallelism: int) -> str:
    """A batch script that executes a submission without submitit."""
    command = f"srun {shlex.join(cluster.slurm.srun)} {python_words(cluster, code)} -u -m pipeline.jobs.fanout "
    executor = executor_for(submission, cluster, code, after=(), parallelism=parallelism)
    executor.parameters |= {
        "use_srun": False,
        "map_count": len(submission.tasks) if len(submission.tasks) > 1 else None,
    }
    executor.parameters["additional_parameters"].pop("hold")
    text: str = executor._make_submission_file_text(command + shlex.quote(str(submission.folder)), submission.id)
    return text.rstrip()


def executor_for(
    submission: Submission, cluster: Cluster, code: Path, *, after: Sequence[str], parallelism: int
) -> Any:
    """submitit's executor with all settings of this site and this submission."""
    from submitit import SlurmExecutor

    class Executor(SlurmExecutor):  # type: ignore[misc]
        """Also where Slurm is not installed: `--print-sbatch` only writes; `preflight` asks for the programs."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    slurm = cluster.slurm
    folder = submission.folder / "submitit"
    folder.mkdir(exist_ok=True)
    executor = Executor(folder=folder, python=python_words(cluster, code))
    site = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos, "constraint": slurm.constraint}
    further: dict[str, Any] = dict(flag.split("=", 1) for flag in slurm.sbatch)
    further["requeue" if slurm.requeues else "no-requeue"] = True
    executor.update_parameters(
        job_name=job_name(submission),
        time=max(1, round(slurm.hours * 60)),  # minutes; Slurm reads 0 as no limit
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=slurm.cpus,
        mem=f"{round(slurm.memory_gb * 1024)}M",
        signal_delay_s=slurm.signal_seconds,
        array_parallelism=parallelism,
        stderr_to_stdout=True,
        comment=comment_of(submission.folder.parent.parent, submission.id),
        setup=lines_before(cluster, code, folder),
        teardown=lines_after(cluster),
        srun_args=list(slurm.srun),
        dependency="afterany:" + ":".join(after) if after else None,
        gres=slurm.gres or None,
        additional_parameters={"hold": True, "chdir": str(code), **further},
        **{name: value for name, value in site.items() if value},
    )
    return executor
