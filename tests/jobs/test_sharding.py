"""Sharding as Slurm jobs: what is sent, once, and that its tasks make the shards of one machine. No Slurm here."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_shards as one_machine

from pipeline.core.console import silent
from pipeline.data.layouts import UserDataset
from pipeline.data.shards import write
from pipeline.data.shards.extend import extended_plan
from pipeline.data.shards.plan import ShardPlan
from pipeline.jobs.slurm import scheduler, sharding, submit
from pipeline.runs.cluster import Cluster, Slurm

SITE = Cluster(executor="slurm", slurm=Slurm(parallelism=3, cpus=1))


class Fake:
    """Keeps what is sent, in place of Slurm."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: dict[str, list[sharding.ShardPayload]] = {}
        self.after: dict[str, list[str]] = {}
        self.jobs: list[scheduler.QueuedJob] = []
        monkeypatch.setattr(scheduler, "queued_jobs", lambda folder: list(self.jobs))
        monkeypatch.setattr(scheduler, "max_array_size", lambda: 1001)
        monkeypatch.setattr(submit, "send_payloads", self.send)

    def send(self, submission, cluster, code, payloads, *, after, parallelism):  # type: ignore[no-untyped-def]
        assert cluster.slurm.gres == ""
        self.sent[submission.id], self.after[submission.id] = list(payloads), list(after)
        number = str(len(self.sent))
        submission.note_job(number, released=True)
        self.jobs.append(scheduler.QueuedJob(number, "PENDING", "", submission.id, ""))
        return number


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    one_machine.make_small_tars(monkeypatch)
    one_machine.work_inline(monkeypatch)
    return Fake(monkeypatch)


def submit_missing(plan: ShardPlan, out: Path) -> list[str]:
    return sharding.submit_missing(plan, out, SITE, max_bad=0.01, strict=False)


def test_a_folder_that_slurm_would_change_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = one_machine.plan_of(one_machine.draw(tmp_path / "raw"))
    with pytest.raises(ValueError, match="50%x: Slurm replaces %"):
        submit_missing(plan, tmp_path / "50%x")
    assert not (tmp_path / "50%x").exists()


def test_an_array_and_a_job_after_it_make_the_bytes_of_one_machine(fake: Fake, tmp_path: Path) -> None:
    plan = one_machine.plan_of(one_machine.draw(tmp_path / "raw"))
    submit_missing(plan, tmp_path / "out")
    assert len(fake.sent["tars"]) == 3 and len(fake.sent["index"]) == 1
    assert fake.after == {"tars": [], "index": ["1"]}
    for task in (*fake.sent["tars"], *fake.sent["index"]):
        task()
    calm = one_machine.written(plan, tmp_path / "calm")
    assert one_machine.contents(tmp_path / "out" / plan.folder_name) == one_machine.contents(calm.folder)


def test_shards_grow_as_jobs_too(fake: Fake, tmp_path: Path) -> None:
    raw = one_machine.draw(tmp_path / "raw")
    old = one_machine.written(one_machine.plan_of(raw), tmp_path / "old")
    for path in list((raw / "naevus").iterdir()):
        path.with_name(f"again_{path.name}").write_bytes(path.read_bytes())
    plan = extended_plan(UserDataset("mine", "folder"), raw, old, workers=1, progress=silent)
    submit_missing(plan, tmp_path / "out")
    for task in (*fake.sent["tars"], *fake.sent["index"]):
        task()
    calm = one_machine.written(plan, tmp_path / "calm")
    assert one_machine.contents(tmp_path / "out" / plan.folder_name) == one_machine.contents(calm.folder)


def test_the_same_command_twice_sends_nothing_twice(fake: Fake, tmp_path: Path) -> None:
    plan = one_machine.plan_of(one_machine.draw(tmp_path / "raw"))
    submit_missing(plan, tmp_path / "out")
    fake.sent.clear()
    assert "nothing was sent" in submit_missing(plan, tmp_path / "out")[-1]
    assert not fake.sent


def test_after_a_lost_job_only_what_is_left_is_sent(fake: Fake, tmp_path: Path) -> None:
    plan = one_machine.plan_of(one_machine.draw(tmp_path / "raw"))
    out = tmp_path / "out"
    submit_missing(plan, out)
    for task in fake.sent["tars"][:2]:
        task()
    left = write.count_missing_tars(plan, out)
    assert 0 < left < 3
    fake.jobs.clear()
    fake.sent.clear()
    submit_missing(plan, out)
    assert len(fake.sent.get("tars", [])) == (left if left > 1 else 0)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    for task in (*fake.sent.get("tars", []), *fake.sent["index"]):
        task()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / plan.folder_name / "manifest.json").exists()


def test_a_last_job_that_was_lost_is_sent_again(fake: Fake, tmp_path: Path) -> None:
    plan = one_machine.plan_of(one_machine.draw(tmp_path / "raw"))
    submit_missing(plan, tmp_path / "out")
    fake.jobs = [job for job in fake.jobs if job.submission == "tars"]
    fake.sent.clear()
    submit_missing(plan, tmp_path / "out")
    assert list(fake.sent) == ["index"] and fake.after["index"] == ["1"]
