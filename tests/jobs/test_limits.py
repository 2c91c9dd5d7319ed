"""Limits of users, accounts and QOS as Slurm's tools print them, and what a launch makes of them."""

from __future__ import annotations

import dataclasses
import getpass
import re
from pathlib import Path

import pytest
import tiny
from planned import planned_runs

from pipeline.cli import plan_text
from pipeline.jobs.plan import Plan
from pipeline.jobs.slurm import limits, scheduler, sending, submit
from pipeline.jobs.slurm.reasons import advice
from pipeline.runs.cluster import Slurm
from pipeline.study import paper

ME = getpass.getuser()
SLURM = Slurm(partition="main", gres="gpu:rtx8000:2", cpus=4, memory_gb=32.0)
ASSOC = "format=account,user,partition,parentname,defaultqos,maxsubmit,maxjobs,maxtres,grpsubmit,grpjobs,grptres,qos"
QOS = "format=maxsubmitpu,maxjobspu,maxtrespu,maxtres,grpsubmit,grpjobs,grptres,flags"
BOTH = "long,normal"  # a user's QOS, none of them the default
SITE = {
    "scontrol show config": "AccountingStorageEnforce = associations,limits,qos\nMaxArraySize = 1001\n",
    f"sacctmgr -nP show user {ME} format=defaultaccount": "lab|\n",
    # user, then account and the one above it: MaxSubmitJobs 5, MaxJobs 4; GrpSubmitJobs 50, 12 GPUs; 8 jobs at once
    f"sacctmgr -nP show assoc account=lab user={ME} {ASSOC}": f"lab|{ME}||||5|4|gres/gpu=4||||{BOTH}\n"
    f"lab|{ME}|x|||1||||||{BOTH}\n",
    f"sacctmgr -nP show assoc account=lab {ASSOC}": f"lab|||faculty|||||50||gres/gpu=12|\nlab|{ME}||||5|4|||||{BOTH}\n",
    f"sacctmgr -nP show assoc account=faculty {ASSOC}": "faculty|||root||||||8||\n",
    f"sacctmgr -nP show assoc account=root {ASSOC}": "root|||||||||||\n",
    "scontrol --all --oneliner show partition": "PartitionName=main Default=YES QoS=short ExclusiveUser=YES State=UP\n",
    f"sacctmgr -nP show qos name=short {QOS}": "3||cpu=16,gres/gpu:rtx8000=6||||mem=128G|\n",
    "squeue -h -r -o %u|%a|%q|%P": f"{ME}|lab|normal|main\n{ME}|home|normal|main\nanna|lab|normal|fat\n",
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Slurm's tools print, by command; any other command fails as one does that a user may not call."""
    said = dict(SITE)

    def ask(*command: str, timeout: float = 60.0) -> str:
        if (text := said.get(" ".join(command))) is None:
            raise ValueError(f"{' '.join(command)} failed: no")
        return text

    monkeypatch.setattr(scheduler, "ask", ask)
    return said


def test_limits_of_user_accounts_and_qos_are_read(site: dict[str, str]) -> None:
    assert {(str(limit), limit.jobs, limit.queued) for limit in limits.read_limits(SLURM)} == {
        (f"MaxJobs of user {ME} in account lab", 4, False),
        ("GrpSubmitJobs of account lab", 50, True),
        ("GrpTRES gres/gpu=12 of account lab", 6, False),
        ("GrpJobs of account faculty", 8, False),
        ("MaxSubmitJobs of partition main (QOS short)", 3, True),
        ("MaxTRESPerUser cpu=16 of partition main (QOS short)", 4, False),
        ("MaxTRESPerUser gres/gpu:rtx8000=6 of partition main (QOS short)", 3, False),
        ("GrpTRES mem=128G of partition main (QOS short)", 4, False),
    }


def test_the_tightest_limit_says_how_many_more_jobs_may_be_sent(site: dict[str, str]) -> None:
    found = limits.read_limits(SLURM)
    # two jobs of ours are in the partition, of 3
    assert limits.room(found, 0) == (1, "MaxSubmitJobs of partition main (QOS short) is 3")
    site["squeue -h -r -u 0 -o %i".replace("0", scheduler.ME)] = "1\n2\n3\n"
    assert limits.room(found, 3) == (0, "max_jobs is 3")
    assert limits.room([], 10) == (7, "max_jobs is 10") and limits.room([], 0) == (None, "")
    lines = limits.limit_lines(found, 7, max_jobs=0)
    assert lines[0].startswith("MaxSubmitJobs of partition main (QOS short) is 3: 1 of 7 jobs can be sent now; launch")
    assert "MaxTRESPerUser gres/gpu:rtx8000=6 of partition main (QOS short): 3 jobs run at once at most" in lines
    assert not any("faculty" in line for line in lines)  # 8 at once do not bind 7


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("scontrol show config", "AccountingStorageEnforce = none\n"),
        ("scontrol show config", "AccountingStorageEnforce = associations\n"),
        ("scontrol show config", None),
        (f"sacctmgr -nP show user {ME} format=defaultaccount", None),
    ],
)
def test_a_site_that_enforces_none_or_does_not_tell_has_none(site: dict[str, str], command: str, text: str) -> None:
    site[command] = text
    assert limits.read_limits(SLURM) == []


def test_one_job_that_exceeds_a_limit_is_a_problem(site: dict[str, str]) -> None:
    found = limits.too_large(limits.read_limits(dataclasses.replace(SLURM, gres="gpu:8")))
    assert found[0].startswith(f"MaxTRESPerJob gres/gpu=4 of user {ME} in account lab does not allow one job")
    assert limits.too_large(limits.read_limits(SLURM)) == []


def test_a_limit_of_a_qos_counts_instead_of_an_associations_of_its_kind(site: dict[str, str]) -> None:
    """As Slurm has it, where the QOS allows more, too; and it may be what is exceeded."""
    command, slurm = f"sacctmgr -nP show qos name=short {QOS}", dataclasses.replace(SLURM, gres="gpu:8")
    for mine, problems in (
        ("gres/gpu=16", []),
        ("gres/gpu=6", ["gpu=6 of partition main (QOS short)"]),
        ("cpu=9", [ME]),
    ):
        site[command] = f"|7||{mine}|||gres/gpu=24|\n"
        found = limits.read_limits(slurm)
        assert [limit.jobs for limit in found if limit.kind == "MaxJobs"] == [7]
        assert [limit.of for limit in found if limit.kind == "GrpTRES gres/gpu"] == ["partition main (QOS short)"]
        said = limits.too_large(found)
        assert len(said) == len(problems) and all(word in line for word, line in zip(problems, said, strict=True))
        assert not any("PerJob" in line for line in limits.limit_lines(found, 99, max_jobs=0) if not problems)


def test_without_a_default_the_only_qos_and_the_default_partition_are_those_of_a_job(site: dict[str, str]) -> None:
    """As Slurm chooses them; each of them may have the limits that bind."""
    mine = f"sacctmgr -nP show assoc account=lab user={ME} {ASSOC}"
    site[mine] = site[mine].replace(BOTH, "normal")
    site[f"sacctmgr -nP show qos name=normal {QOS}"] = "9|2|||||mem=64G|\n"
    found = limits.read_limits(dataclasses.replace(SLURM, partition=""))
    assert [str(limit) for limit in found if limit.kind == "MaxJobs"] == ["MaxJobs of QOS normal"]
    assert [limit.of for limit in found if limit.kind == "MaxSubmitJobs"] == ["partition main (QOS short)"]
    assert limits.room(found, 0)[0] == 1  # two jobs of ours are in that partition, of 3


def test_an_association_for_the_partition_counts_instead_of_the_one_for_all(site: dict[str, str]) -> None:
    """Slurm charges a job to one of them."""
    partitions = "scontrol --all --oneliner show partition"
    site[partitions] += "PartitionName=x State=UP\n"
    found = limits.read_limits(dataclasses.replace(SLURM, partition="x"))
    own = [(str(limit), limit.jobs) for limit in found if "user" in limit.of]
    assert own == [(f"MaxSubmitJobs of user {ME} in account lab, partition x", 1)]


def test_only_the_associations_of_this_cluster_count(site: dict[str, str]) -> None:
    """The accounting of a university is often that of several clusters."""
    site["scontrol show config"] += "ClusterName = here\n"
    for where in (f"account=lab user={ME}", "account=lab", "account=faculty", "account=root"):
        of_all = site.pop(f"sacctmgr -nP show assoc {where} {ASSOC}")
        site[f"sacctmgr -nP show assoc {where} {ASSOC}"] = f"lab|{ME}||||1||||||{BOTH}\n{of_all}"
        site[f"sacctmgr -nP show assoc cluster=here {where} {ASSOC}"] = of_all
    test_limits_of_user_accounts_and_qos_are_read(site)


@pytest.mark.parametrize(("flags", "most"), [("DenyOnLimit", 3), ("DenyOnLimit,OverPartQOS", 9), ("", 3)])
def test_the_partitions_qos_counts_before_the_jobs_own_unless_that_says_otherwise(
    site: dict[str, str], flags: str, most: int
) -> None:
    site[f"sacctmgr -nP show qos name=long {QOS}"] = f"9|2|||||mem=64G|{flags}\n"
    found = limits.read_limits(dataclasses.replace(SLURM, qos="long"))
    assert [limit.jobs for limit in found if limit.kind == "MaxSubmitJobs"] == [most]
    assert [limit.jobs for limit in found if limit.kind == "GrpTRES mem"] == [2 if most == 9 else 4]
    assert [limit.of for limit in found if limit.kind == "MaxJobs"] == ["QOS long"]  # the partition's has none


@pytest.mark.parametrize(
    ("gres", "jobs"), [("gpu=2", [4, 0]), ("gpu:a100:4(S:0-1)", [2, 1]), ("gres/gpu:a100,mps:400", [8, 4]), ("", [])]
)
def test_what_a_job_takes_is_read_as_slurm_writes_it(gres: str, jobs: list[int]) -> None:
    slurm = dataclasses.replace(SLURM, gres=gres)
    found = [each for _, _, each in limits._tres("gres/gpu=8,gres/gpu:a100=4", slurm)]
    assert found == [each for each in jobs if each]


def test_a_partition_for_one_user_a_node_is_explained(site: dict[str, str]) -> None:
    (said,) = limits.partition_notes(SLURM)
    assert said.startswith("partition main gives each node to one user at a time (ExclusiveUser)")
    assert limits.partition_notes(dataclasses.replace(SLURM, partition="fat")) == []


class Queue:
    """A queue that takes at most `most` jobs, of which `others` are not ours, and refuses in sbatch's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, others: int = 0) -> None:
        self.most, self.used, self.sent, self.longest = most, others, [], others
        self.refusal = "sbatch: error: AssocMaxSubmitJobLimit"
        monkeypatch.setattr(sending, "queued_jobs", lambda runs: [])
        monkeypatch.setattr(sending, "max_array_size", lambda: 1001)
        monkeypatch.setattr(sending, "snapshot", lambda runs: Path("code"))
        monkeypatch.setattr(submit, "send", self.send)

    def send(self, submission, *_, **__) -> str:
        if self.used + len(submission.tasks) > self.most:
            submission.remove()
            raise ValueError(f"sbatch refused {submission.name}: {self.refusal}")
        self.used += len(submission.tasks)
        self.sent.append(len(submission.tasks))
        submission.note_job(str(100 + len(self.sent)), released=True)
        return str(100 + len(self.sent))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    cluster = tiny.make_cluster(tmp_path, executor="slurm", slurm=SLURM)
    plan = Plan("mine", cluster, paper.preset("paper"), [], [])
    plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path / "runs", seeds=range(77, 84))}
    return plan  # 7 pretraining jobs, a fan-out for each arm that waits for them, and one of the supervised ones


def test_a_launch_sends_what_fits_and_says_what_it_left(
    site: dict[str, str], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(monkeypatch, most=1)
    submissions, said = sending.submit_missing(plan)
    assert queue.sent == [1] and [len(each.tasks) for each in submissions] == [1]
    assert "6 of 7 jobs left for a later launch: MaxSubmitJobs of partition main (QOS short) is 3" in said[1]
    assert all("left for a later launch" in line for line in said[1:]) and len(said) > 2


def test_the_script_for_sbatch_keeps_to_the_limits_too(
    site: dict[str, str], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue(monkeypatch, most=1)
    monkeypatch.setenv("PATH", "")  # a script is printed also where Slurm is not installed
    script = sending.script(plan)
    assert script.count("sbatch --parsable") == 1 and "#SBATCH --array" not in script
    assert "6 of 7 jobs left for a later script: MaxSubmitJobs of partition main (QOS short) is 3" in script
    plan.cluster = dataclasses.replace(plan.cluster, slurm=dataclasses.replace(SLURM, gres="gpu:8"))
    with pytest.raises(ValueError, match="nothing is printed; first:\n  MaxTRESPerJob gres/gpu=4 of user"):
        sending.script(plan)


def test_where_limits_are_hidden_a_refused_array_is_sent_in_part(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(monkeypatch, most=5, others=1)
    _, said = sending.submit_missing(plan, site=[])
    assert queue.sent == [3] and queue.used == 4
    assert "4 of 7 jobs left for a later launch: sbatch says" in said[1]


def test_a_refusal_for_another_reason_or_of_a_single_job_is_an_error(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(monkeypatch, most=0)
    with pytest.raises(ValueError, match="AssocMaxSubmitJobLimit"):
        sending.submit_missing(plan, site=[])
    queue.refusal = "Invalid account"
    with pytest.raises(ValueError, match="Invalid account"):
        sending.submit_missing(plan, site=[])
    assert queue.sent == [] and not list((Path(plan.cluster.runs) / ".submissions").iterdir())


def test_a_dry_run_says_when_limits_will_bind(
    site: dict[str, str], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan.cluster = dataclasses.replace(plan.cluster, scratch="$SLURM_TMPDIR/cass")
    said = plan_text.arrays_text(plan)
    assert "scratch is '$SLURM_TMPDIR/cass': only the first job tells whether the nodes set that" in said
    assert re.search(r"1 of \d+ jobs can be sent now; launch --wait", said) and "ExclusiveUser" in said
    assert f"MaxJobs of user {ME} in account lab: 4 jobs run at once at most" in said


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [
        ("", 1001),
        ("MaxArraySize = 100001\nSchedulerParameters = bf_continue,max_array_tasks=50,defer", 50),
        ("MaxArraySize = 20\nSchedulerParameters = max_array_tasks=50", 20),
    ],
)
def test_an_array_has_at_most_the_tasks_that_the_site_allows(site: dict[str, str], settings: str, tasks: int) -> None:
    site["scontrol show config"] = f"{settings}\n"
    assert scheduler.max_array_size() == tasks


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("JobHeldAdmin", "an administrator holds it"),
        ("launch failed requeued held", "scontrol release 12_3"),
        ("BadConstraints", "no node can ever meet"),
        ("PartitionTimeLimit", "it can never start like this"),
        ("QOSMaxGRESPerJob", "it can never start like this"),
        ("AssocMaxJobsLimit", "a limit of yours is reached"),
        ("QOSMaxGRESPerUser", "a limit of yours is reached"),
        ("AssocGrpGRES", "a limit that others share"),
        ("AssocGrpGRESMinutes", "is spent"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu[1-3]", "down, drained or reserved"),
        ("Resources", ""),
        ("Priority", ""),
        ("Dependency", ""),
        ("None", ""),
    ],
)
def test_reasons_are_explained_where_a_person_can_do_something(reason: str, said: str) -> None:
    assert said in advice(reason, "12_3") and bool(said) == bool(advice(reason, "12_3"))


def test_requeues_of_none_are_not_asked_for(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for requeues, wanted, unwanted in ((5, "--requeue", "--no-requeue"), (0, "--no-requeue", "--requeue")):
        cluster = dataclasses.replace(plan.cluster, slurm=dataclasses.replace(SLURM, requeues=requeues))
        made = sending.submissions.Submission(
            tmp_path / "runs" / ".submissions" / "a", "a", (("r",),), False, "c", True
        )
        made.folder.mkdir(parents=True, exist_ok=True)
        text = submit.sbatch_text(made, cluster, tmp_path, parallelism=1).splitlines()
        assert f"#SBATCH {wanted}" in text and f"#SBATCH {unwanted}" not in text
