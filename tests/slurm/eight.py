"""Eight fan-outs with Ray on one node at once, half of them another user's: none disturbs another, and nothing is left.

python tests/slurm/eight.py [FOLDER]

Needs root, to be the other user too, and a Python that this user may run: `make setup PYTHON=/usr/bin/python3`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests")]

import tiny  # noqa: E402

from pipeline.runs.folder import Run  # noqa: E402

NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups".split()
DRIVER = """
import sys
from pipeline.jobs.engines import ray_tune
ray_tune.run_trials(sys.argv[1:], trials=1, gpus=(), stop=lambda: False)
"""


def start(runs: list[Run], home: Path, user: list[str]) -> subprocess.Popen[bytes]:
    with open(home / f"{runs[0].id}.log", "wb") as log:
        return subprocess.Popen(
            [*user, sys.executable, "-c", DRIVER, *(str(run.folder) for run in runs)],
            cwd=ROOT,
            env={**os.environ, "HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def living(sessions: set[int]) -> list[str]:
    """The processes of these sessions, and any of Ray's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state != "Z" and (int(session) in sessions or name.startswith("ray::") or "/ray/core/" in name):
                found.append(name[:100])
    return found


def main(folder: Path) -> int:
    if subprocess.run([*NOBODY, "test", "-x", os.path.realpath(sys.executable)]).returncode:
        print(f"another user may not run {sys.executable}: rm -r .venv && make setup PYTHON=/usr/bin/python3")
        return 2
    os.umask(0)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    before = {path.name for path in Path("/tmp").glob("*ray*")}, len(living(set()))
    shards = tiny.make_shards(folder)
    drivers, all_runs, homes = [], [], []
    for number in range(8):
        site = tiny.make_cluster(folder, runs=str(folder / f"runs-{number}"), scratch=str(folder / f"scratch-{number}"))
        specs = [tiny.make_finetune(shards, None, seed=77 + seed, epochs=2) for seed in range(2)]
        runs = [tiny.announce(spec, site) for spec in specs]
        home = folder / f"home-{number}"
        home.mkdir()
        user = NOBODY if number % 2 else []
        if user:
            subprocess.run(["chown", "-R", "65534:65534", site.runs, str(home)], check=True)
        all_runs += runs
        homes.append(home)
        drivers.append((runs, home, user))
    started = time.monotonic()
    processes = [start(*driver) for driver in drivers]
    codes = [process.wait() for process in processes]
    seconds = time.monotonic() - started
    time.sleep(5)
    done = sum(run.state() == "done" for run in all_runs)
    left = living({process.pid for process in processes})
    files = sorted({path.name for path in Path("/tmp").glob("*ray*")} - before[0])
    at_home = [path.name for home in homes for path in home.iterdir() if not path.name.endswith(".log")]
    print(
        f"8 fan-outs at once, 4 of another user: {done} of {len(all_runs)} runs done in {seconds:.0f} s, exits {codes}"
    )
    print(f"left behind: {len(left) - before[1]} processes, {len(files)} folders in /tmp, {len(at_home)} files at home")
    for line in (*left, *files, *at_home):
        print(f"  {line}")
    return int(done != len(all_runs) or any(codes) or len(left) > before[1] or bool(files or at_home))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="eight-"))))
