"""The script of `launch --print-sbatch` sends every array once, and a name in it is text and never a command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import tiny
from planned import planned_runs

from pipeline.jobs import submissions
from pipeline.jobs.plan import Plan, make_plan
from pipeline.jobs.slurm import limits, queue, sending, submit
from pipeline.jobs.slurm.scheduler import QueuedJob
from pipeline.runs.cluster import Slurm
from pipeline.study import paper

GRID = """
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 2

def grid(datasets, seeds, preset):
    out = []
    class shards:
        name, fingerprint = datasets[0].ref.name, datasets[0].ref.fingerprint
    for seed in seeds:
        pretrain = tiny.make_pretrain(shards, seed=seed)
        out.append(tiny.make_finetune(shards, pretrain, seed=seed))
    return out
"""
SBATCH = """#!/bin/bash
echo "$@" >> "$CALLS"
cat > /dev/null
n=$(wc -l < "$CALLS")
echo "$((99 + n));alpha"
"""


@pytest.mark.parametrize("name", ["mine", "g$(touch PWNED)`id>PWNED`", 'it\'s "odd" \\ $HOME', "a\nEND\ntouch PWNED\n"])
def test_names_in_the_script_are_text_and_named_clusters_are_understood(tmp_path, monkeypatch, name):
    shards = tiny.make_shards(tmp_path, each=20)
    (tmp_path / f"{name}.py").write_text(GRID)
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, text in {"sbatch": SBATCH, "srun": "#!/bin/bash\n"}.items():
        (programs / program).write_text(text)
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sending, "queued_jobs", lambda runs: [])
    monkeypatch.setattr(sending, "max_array_size", lambda: 1001)
    site = tiny.make_cluster(tmp_path, shards=str(shards.folder.parent), executor="slurm", slurm=Slurm())
    script = sending.script(make_plan(str(tmp_path / f"{name}.py"), site))
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "CALLS": str(calls)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("PWNED"))
    assert calls.read_text().splitlines() == ["--parsable", "--parsable --dependency=afterany:100_0:100_1"]
    said = done.stdout
    assert said.count("sent 100 ") == 1 and said.count("sent 101 ") == 1 and "alpha" not in said
    assert Path(site.runs).is_dir()


@pytest.mark.parametrize(("hours", "minutes"), [(0.008, 1), (0.02, 1), (0.5, 30), (168.0, 10_080)])
def test_the_shortest_time_limit_is_a_minute_since_slurm_reads_none_as_no_limit(tmp_path, hours, minutes):
    site = tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm(hours=hours, signal_seconds=20))
    submission = submissions.Submission(tmp_path, "mine", (("a-1",),), fan_out=False, code="abc", by_hand=True)
    text = submit.sbatch_text(submission, site, tmp_path, parallelism=1)
    assert f"\n#SBATCH --time={minutes}\n" in text


def test_a_second_script_sends_nothing_that_the_first_has_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told of jobs left for a later script prints one, perhaps before any launch has seen the first."""
    plan = Plan("mine", tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm()), paper.preset("paper"), [], [])
    plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path / "runs", seeds=range(77, 84))}
    sent: list[QueuedJob] = []
    for module in (sending, queue):
        monkeypatch.setattr(module, "queued_jobs", lambda runs: sent)
    monkeypatch.setattr(sending, "max_array_size", lambda: 1001)
    monkeypatch.setattr(sending, "snapshot", lambda runs: Path("code"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(limits, "read_limits", lambda slurm: [])
    monkeypatch.setattr(limits, "room", lambda found, most: (7 - len(sent), "max_jobs is 7"))
    assert sending.script(plan).count("sbatch --parsable") == 1
    runs = Path(plan.cluster.runs)
    (first,) = submissions.read_submissions(runs)
    for task in range(len(first.tasks)):
        sent.append(QueuedJob(f"21_{task}", "PENDING", "Priority", first.id, ""))
    assert len(sent) == 7 and sending.script(plan).count("sbatch --parsable") == 0
    monkeypatch.setattr(limits, "room", lambda found, most: (None, ""))
    assert sending.script(plan).count("sbatch --parsable") == 2, "what waits for them, and the supervised ones"
    assert queue.queued_runs(runs, sent).keys() == first.runs, "status and cancel know them, too"
    assert queue.read_queue(plan).jobs.keys() == first.runs and first.job == {}


def test_a_refusal_says_what_was_sent_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads only that sbatch refused an array would take the others for not sent, too."""
    plan = Plan("mine", tiny.make_cluster(tmp_path, executor="slurm", slurm=Slurm()), paper.preset("paper"), [], [])
    plan.runs = {planned.run.id: planned for planned in planned_runs(tmp_path / "runs", seeds=[77])}

    def send(submission: submissions.Submission, *_: object, **__: object) -> str:
        if "finetune" in submission.name:
            raise ValueError(f"sbatch refused {submission.name}: Invalid qos")
        submission.note_job("21", released=True)
        return "21"

    monkeypatch.setattr(submit, "send", send)
    monkeypatch.setattr(sending, "queued_jobs", lambda runs: [])
    monkeypatch.setattr(sending, "max_array_size", lambda: 1001)
    monkeypatch.setattr(sending, "snapshot", lambda runs: Path("code"))
    with pytest.raises(
        ValueError, match=r"refused mine\..*: Invalid qos; before that it sent 21 mine\.tiny\.cass\.s77"
    ):
        sending.submit_missing(plan, site=[])
