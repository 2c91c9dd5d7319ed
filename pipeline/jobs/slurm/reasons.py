"""Why a job waits: Slurm's words, and what a person does about those that do not pass by themselves."""

from __future__ import annotations

ADVICE = {
    "JobHeldAdmin": "an administrator holds it; ask the site why, only they can release it",
    "JobHeldUser": "it is held; scontrol release {job} lets it start",
    "launch failed requeued held": "a node did not start it, so Slurm holds it; pipeline.logs RUN --job may say why; "
    "then scontrol release {job}",
    "JobHoldMaxRequeue": "it failed to start too often, so Slurm holds it; find why, then scontrol release {job}",
    "BadConstraints": "no node can ever meet what it requests; python -m pipeline.cancel, change the table [slurm] "
    "(launch --dry-run says what the nodes have), launch again",
    "InvalidAccount": "its account is not valid any more; set slurm.account, python -m pipeline.cancel, launch again",
    "InvalidQOS": "its QOS is not valid any more; set slurm.qos, python -m pipeline.cancel, launch again",
    "PartitionDown": "the partition is down; wait, or ask the site",
    "PartitionInactive": "the partition is inactive; wait, or ask the site",
    "DependencyNeverSatisfied": "a job that it waits for is gone; python -m pipeline.cancel, launch again",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved; wait, or ask the site",
    "ReservationDeleted": "its reservation is gone; change slurm.sbatch, python -m pipeline.cancel, launch again",
}
TOO_LARGE = "it can never start like this; request less in the table [slurm], python -m pipeline.cancel, launch again"
PER_JOB = (
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "PartitionConfig",
    "AssocMaxWallDurationPerJobLimit",
    "AssociationTimeLimit",
    "QOSMaxWallDurationPerJobLimit",
    "QOSTimeLimit",
    "AccountNotAllowed",
    "QOSNotAllowed",
)
"""What one job exceeds, whatever else runs; and the limits whose names end in `PerJobLimit`, `MaxCpuPerJob`, …"""
SITE = ("Assoc", "QOS")  # begin the names of limits of an account or user and of a QOS


def advice(reason: str, job: str) -> str:
    """What a reason of squeue means for a person; empty where the job only waits for its turn.

    job: its id, an array task's too (`12_3`).
    """
    word = reason.split(",")[0].strip("() ")
    if word in ADVICE:
        return ADVICE[word].format(job=job)
    if word in PER_JOB or "PerJob" in word or ("PerNode" in word and word.startswith(SITE)):
        return TOO_LARGE
    if word.startswith(SITE) and "Minutes" in word and "RunMinutes" not in word:
        return "the time that the account or QOS may use is spent; ask the site for more, or set another slurm.account"
    if word.startswith(SITE) and "Grp" in word:
        return "a limit that others share is reached; it starts when jobs of theirs or yours end"
    if word.startswith(SITE):
        return "a limit of yours is reached; it starts when one of your jobs ends"
    return ""
