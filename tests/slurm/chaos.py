"""A grid of 22 runs on the dev cluster while everything that can go wrong goes wrong at random moments, and then a
comparison of every bit with undisturbed runs.

python tests/slurm/chaos.py [FOLDER] [--events 30] [--seed 0] [--epochs 120] [--ray] [--whole-nodes]

A third of the events each with preemption that requeues jobs, cancels them without a word, and stops them for a while;
each third begins with one.

Jobs have two minutes at most, of which Slurm leaves them about one. Ray on three nodes that share two cores needs most
of that to start, so plain workers execute the fan-outs unless --ray is given.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests")]

import kill  # noqa: E402
import tiny  # noqa: E402

from pipeline.jobs.submissions import FILE, FOLDER  # noqa: E402
from pipeline.runs.folder import Run  # noqa: E402

STATE = Path(os.environ.get("CASS_DEVCLUSTER", "/var/lib/cass-devcluster"))
UP = ROOT / "slurm" / "devcluster" / "up"
GRID = """
import tiny
IMAGE_SIZE = 32
DATASETS = ("tiny",)
SEEDS = 2

def grid(datasets, seeds, preset):
    out = []
    for info in datasets:
        class shards:
            name, fingerprint = info.ref.name, info.ref.fingerprint
        for seed in seeds:
            pretrain = tiny.make_pretrain(shards, seed=seed, epochs={epochs})
            shorter = tiny.make_pretrain(shards, seed=seed, epochs={epochs} // 2)  # the longer publishes it
            out.append(tiny.make_finetune(shards, shorter, seed=seed, epochs={epochs} // 2, patience={epochs}))
            for arm in (0, 1):
                for parent in (pretrain, None):
                    for fraction in (0.5, 1.0):
                        out.append(tiny.make_finetune(
                            shards, parent, arm=arm, seed=seed, epochs={epochs}, patience={epochs},
                            label_fraction=fraction))
    return out
"""
CALM = """
shards = "{folder}/shards"
runs = "{folder}/calm"
scratch = "{folder}/scratch"
device = "cpu"
jobs = 2
ray = false
checkpoint_minutes = 10
"""
ROUGH = """
executor = "slurm"
shards = "{folder}/shards"
runs = "{folder}/rough"
scratch = "{folder}/scratch"
device = "cpu"
ray = {ray}
trials_per_gpu = 2
checkpoint_minutes = 0.05
[slurm]
partition = "main"
gres = "gpu:rtx8000:{gpus}"
runs_per_job = {gpus}
cpus = 2
memory_gb = 4
hours = 0.0333334
signal_seconds = 30
requeues = 1000
accounting = false
"""
MODES = (  # of preemption, each for an equal part of the events: arguments of slurm/devcluster/up
    "--preempt requeue --grace 15 --signal user",
    "--preempt cancel --grace 0 --signal none",
    "--preempt suspend --grace 0 --signal none",
)
URGENT = "sbatch --parsable -p urgent -c 2 --mem=1G -t 2 -o /dev/null".split()
PATIENCE = 1500.0  # seconds for the grid to end once the disturbances are over


class Chaos:
    """The grid, what was done to it, and what was seen."""

    def __init__(self, folder: Path, *, seed: int, epochs: int, ray: bool, gpus: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.mode = ""
        self.ray = ray
        self.results: dict[str, int] = {}
        self.changed: list[str] = []
        self.started = time.monotonic()
        if not (folder / "shards").exists():
            tiny.make_shards(folder)
        (folder / "grid.py").write_text(GRID.format(epochs=epochs))
        (folder / "calm.toml").write_text(CALM.format(folder=folder))
        (folder / "rough.toml").write_text(ROUGH.format(folder=folder, ray=str(ray).lower(), gpus=gpus))

    # --- Commands ---------------------------------------------------------------------------------------------------

    def command(self, name: str, cluster: str, *flags: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            f"pipeline.{name}",
            "--grid",
            "grid.py",
            "--cluster",
            f"{cluster}.toml",
            *flags,
        ]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")}
        return subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def launch(self) -> str:
        """Launch, patiently: right after a daemon was killed Slurm may not answer."""
        for _ in range(20):
            process = self.command("launch", "rough")
            out, _ = process.communicate()
            if process.returncode == 0:
                return out
            time.sleep(3)
        raise AssertionError(f"launch does not get through:\n{out}")

    def runs(self, cluster: str) -> list[Run]:
        return [Run(path.parent) for path in sorted((self.folder / cluster).glob("*/spec.json"))]

    # --- What can go wrong: each returns whether it happened --------------------------------------------------------

    def requeue(self) -> bool:
        return (job := self.some_job()) is not None and slurm("scontrol", "requeue", job)

    def preempt(self) -> bool:
        gres = [] if self.mode == "suspend" else ["--gres=gpu:rtx8000:1"]  # a stopped job keeps its GPU
        return self.some_job() is not None and slurm(*URGENT, *gres, "--wrap", "sleep 5")

    def near_time_limit(self) -> bool:
        """Cut the time limit short, so that its signal comes at once; the requeued job has the whole limit again."""
        job = self.some_job()
        if job is None or not slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1"):
            return False
        end = time.monotonic() + 60
        while time.monotonic() < end and (job in self.running_jobs()):
            time.sleep(0.5)
        slurm("scontrol", "update", f"JobId={job}", "TimeLimit=2")
        return True

    def kill_task(self) -> bool:
        """SIGKILL one process that works on our runs: a job, a trial's worker, or a part of Ray."""
        found = self.processes()
        return bool(found) and killed(self.chance.choice(found))

    def kill_step(self) -> bool:
        job = self.some_job()
        return job is not None and slurm("scancel", "--signal=KILL", f"{job}.0")

    def kill_node(self) -> bool:
        """slurmd dies; slurmctld gives the node up and starts its jobs elsewhere; then the node comes back."""
        node = self.chance.choice(["gpu1", "gpu2", "gpu3"])
        if not kill_daemon(f"slurmd-{node}"):
            return False
        time.sleep(self.chance.choice([3, 30]))
        return came_up()

    def restart_controller(self) -> bool:
        if not kill_daemon("slurmctld"):
            return False
        time.sleep(self.chance.uniform(0, 5))
        return came_up()

    def stop_accounting(self) -> bool:
        if not kill_daemon("slurmdbd"):
            return False
        self.launch()  # works without
        time.sleep(self.chance.uniform(0, 5))
        return came_up()

    def launch_again(self) -> bool:
        self.launch()
        return True

    def two_launches(self) -> bool:
        both = [self.command("launch", "rough"), self.command("launch", "rough")]
        for process in both:
            process.communicate()
        return True

    def killed_launch(self) -> bool:
        """Kill a launch between its calls of sbatch, if it has anything to send, else at a random moment."""
        before = len(self.sent())
        process = self.command("launch", "rough")
        end = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < end and len(self.sent()) == before:
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
        return True

    def preempt_by(self, flags: str) -> None:
        """Let preemption work in another mode from now on."""
        mode = flags.split()[1]
        if mode != self.mode:
            self.mode = mode
            assert came_up(*flags.split())

    # --- What is there ----------------------------------------------------------------------------------------------

    def sent(self) -> list[Path]:
        return list((self.folder / "rough" / FOLDER).glob(f"*/{FILE}"))

    def running_jobs(self) -> list[str]:
        """Our running jobs."""
        done = subprocess.run(["squeue", "-h", "-r", "-t", "R", "-o", "%i|%j"], capture_output=True, text=True)
        return [line.split("|")[0] for line in done.stdout.splitlines() if line.split("|")[1].startswith("grid.")]

    def some_job(self) -> str | None:
        jobs = self.running_jobs()
        return self.chance.choice(jobs) if jobs else None

    def processes(self) -> list[int]:
        """The processes of our jobs' steps, by the folder in their environment."""
        mark = f"SUBMITIT_FOLDER={self.folder}/rough".encode()
        out = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes() or mark[16:] in (path / "cmdline").read_bytes():
                    out.append(int(path.name))
            except OSError:
                continue
        return [pid for pid in out if pid != os.getpid()]

    def note_results(self) -> None:
        """Note when results were written; one that is written again was not done exactly once."""
        for run in self.runs("rough"):
            if run["result"].exists():
                at = run["result"].stat().st_mtime_ns
                if self.results.setdefault(run.id, at) != at:
                    self.changed.append(run.id)

    def say(self, text: str) -> None:
        self.note_results()
        states = Counter(run.state() for run in self.runs("rough"))
        shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        print(f"{time.monotonic() - self.started:6.0f} s  {text:24} {shown}", flush=True)

    # --- The whole -------------------------------------------------------------------------------------------------

    def disturb(self, events: int) -> None:
        wrong: list[Callable[[], bool]] = [
            self.requeue, self.preempt, self.near_time_limit, self.kill_task, self.kill_step, self.kill_node,
            self.restart_controller, self.stop_accounting, self.launch_again, self.two_launches, self.killed_launch,
        ]  # fmt: skip
        self.killed_launch()
        self.done["killed_launch"] += 1
        self.launch()
        bag: list[Callable[[], bool]] = []
        while (number := sum(self.done.values())) < events:
            self.preempt_by(MODES[min(len(MODES) * number // events, len(MODES) - 1)])
            bag = bag or self.chance.sample(wrong, len(wrong))
            preemption = f"preempt ({self.mode})"
            event = bag.pop() if self.done[preemption] else self.preempt
            name = preemption if event == self.preempt else event.__name__
            if event():
                self.done[name] += 1
                self.say(name)
            elif all(run.state() == "done" for run in self.runs("rough")):
                return
            else:
                self.launch()
            time.sleep(self.chance.uniform(1, 6))

    def bring_to_end(self) -> None:
        end = time.monotonic() + PATIENCE
        while any(run.state() != "done" for run in self.runs("rough")):
            assert time.monotonic() < end, subprocess.run(["squeue"], capture_output=True, text=True).stdout
            came_up()
            self.launch()
            self.say("continuing")
            time.sleep(15)

    def wrong(self, events: int) -> list[str]:
        """What is not as it should be, once all is over."""
        self.note_results()
        out = [f"{name}: its result was written twice" for name in self.changed]
        if (number := sum(self.done.values())) < events:
            out.append(f"the grid was done after {number} events; give more epochs for more")
        modes = [flags.split()[1] for flags in MODES]
        out += [f"no job was preempted by {mode}" for mode in modes if not self.done[f"preempt ({mode})"]]
        calm = {run.id: run for run in self.runs("calm")}
        rough = {run.id: run for run in self.runs("rough")}
        if set(calm) != set(rough):
            out.append(f"not the same runs: {sorted(set(calm) ^ set(rough))}")
        for name in sorted(set(calm) & set(rough)):
            out += [f"{name}: {line}" for line in kill.differences(rough[name], calm[name])]
        tables = {}
        for cluster in ("calm", "rough"):
            process = self.command("report", cluster, "--out", str(self.folder / f"report-{cluster}"))
            said, _ = process.communicate()
            if process.returncode:
                out.append(said)
            with open(self.folder / f"report-{cluster}" / "report.csv", newline="") as file:
                tables[cluster] = list(csv.DictReader(file))
        if tables["calm"] != tables["rough"]:
            out.append("report.csv differs")
        if self.ray:  # without it, what is there belongs to another program of this user
            left = [path for path in Path("/tmp").glob("cass-ray-*") if path.stat().st_uid == os.getuid()]
            out += [f"{path} was left behind" for path in left]
        return out


def slurm(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_daemon(name: str) -> bool:
    path = STATE / f"{name}.pid"
    return path.exists() and killed(int(path.read_text()))


def came_up(*flags: str) -> bool:
    done = subprocess.run([str(UP), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def main(folder: Path, *, events: int, seed: int, epochs: int, ray: bool = False, gpus: int = 1) -> list[str]:
    """What went wrong; empty if all went well."""
    came_up("--gpus", f"rtx8000:{gpus}")
    chaos = Chaos(folder, seed=seed, epochs=epochs, ray=ray, gpus=gpus)
    process = chaos.command("launch", "calm")
    out, _ = process.communicate()
    assert process.returncode == 0, out
    print(f"{time.monotonic() - chaos.started:6.0f} s  {len(chaos.runs('calm'))} runs undisturbed", flush=True)
    chaos.started = time.monotonic()
    chaos.disturb(events)
    chaos.bring_to_end()
    came_up(*MODES[0].split(), "--gpus", "rtx8000:1")
    found = chaos.wrong(events)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(chaos.done.items()))
    print(f"{sum(chaos.done.values())} events: {counts}")
    requeues = sum(
        path.read_text(errors="replace").count("requeued job")
        for path in (folder / "rough" / FOLDER).glob("*/submitit/*_log.out")
    )
    stopped = sum(run["log"].read_text(errors="replace").count("stopped as asked") for run in chaos.runs("rough"))
    print(f"{requeues} requeues by the batch shell, {stopped} times a run saved and left as asked")
    print(f"{len(chaos.results)} runs done once" + ("" if found else ", the same bits as undisturbed"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--whole-nodes", action="store_true", help="four GPUs a node and four pretraining runs a job")
    args = parser.parse_args()
    where = args.folder.absolute() if args.folder else Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"in {where}")
    gpus = 4 if args.whole_nodes else 1
    found = main(where, events=args.events, seed=args.seed, epochs=args.epochs, ray=args.ray, gpus=gpus)
    print("\n".join(found))
    sys.exit(bool(found))
