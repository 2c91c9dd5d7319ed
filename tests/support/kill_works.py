"""Kill all kinds of work with SIGKILL at random instants, do them again, and compare every bit with undisturbed work.

tests/support/kill.py does so with long trainings. Here work is short, so that kills hit its begin and its end too:
sharding and its worker processes, probes, what a run leaves when it ends, frozen features, embed, verify, report.

python tests/support/kill_works.py [NAME …] --kills 12 --seed 0        (of each kind of work; without names, of all)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import finished
import kill
import numpy as np
import slides_drawn
import tiny
from commands import command
from flips import flip
from PIL import Image

from pipeline.core.console import silent
from pipeline.data.shards.index import open_shards
from pipeline.jobs import execute
from pipeline.models import embed, network
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import Spec

PATIENCE = 300.0
LEAVING = 60.0  # seconds that the workers of a killed process have to end
IMPORTED = (  # before processes are forked, which then begin at once
    *(f"pipeline.{name}" for name in ("shard", "verify", "report", "learn.pretrain", "learn.finetune", "learn.frozen")),
    *(
        f"pipeline.{name}"
        for name in ("learn.probes", "learn.metrics", "results.html", "data.shards.write", "jobs.audit")
    ),
    *("sklearn.linear_model", "sklearn.neighbors", "pyarrow.parquet", "matplotlib.figure", "scipy.stats", "jinja2"),
    *("torch.utils.tensorboard", "timm"),
)
LOG = "log.txt"


@dataclass(frozen=True)
class Work:
    """Something that is done in a folder, in a process of its own."""

    do: Callable[[Path], int]
    """Returns the exit code."""
    differences: Callable[[Path, Path], list[str]]
    """What differs between two folders in which it was done."""
    since: Callable[[Path], Path] | None = None
    """The file from whose making on it is killed; None: from its start."""
    prepare: Callable[[Path], object] = Path.mkdir
    """Makes the folder."""
    status: int = 0
    """How its process ends, as `waitpid` says it."""
    workers: bool = False
    """Whether its worker processes are killed instead, which it must survive."""


class Home:
    """What all work reads: shards, a finished pretraining run, and a grid of finished runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        draw_twins(folder / "wide")
        fill_hospital(folder / "hospital")
        for number in range(6):
            slides_drawn.save(folder / "slides" / "ab"[number % 2] / f"{number}.tif", slides_drawn.scan_of(number))
        # In processes of their own: those that are killed must not share this one's worker server.
        in_process(lambda: len(tiny.make_shards(folder, each=20).classes) - 2, folder / LOG)
        self.shards = open_shards(next((folder / "shards").glob("tiny-*")))
        self.site = tiny.make_cluster(folder)
        self.pretrain = tiny.make_pretrain(self.shards, epochs=2)
        in_process(lambda: execute.execute_run(tiny.announce(self.pretrain, self.site)), folder / LOG)
        self.parent = Run(folder / "runs" / run_id(self.pretrain))

    def site_in(self, where: Path) -> Cluster:
        return replace(self.site, runs=str(where))


def draw_twins(raw: Path) -> None:
    """Images of 12 bits in 16, of which every third has a near duplicate."""
    rng = np.random.default_rng(4)
    for number in range(30):
        grey = sum(np.kron(rng.uniform(0, 900, (n, n)), np.ones((64 // n, 64 // n))) for n in (4, 8, 16, 32))
        for copy in range(1 + (number % 3 == 0)):
            path = raw / "ab"[number % 2] / f"{number}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.asarray(grey) + copy * rng.uniform(0, 90, (64, 64))).astype(np.uint16)).save(path)


def fill_hospital(raw: Path) -> None:
    """DICOM of several patients, one with many frames, volumes, and a TIFF of several pages."""
    import hospital
    import nibabel

    hospital.slices(raw, patients=6, each=4)
    rng = np.random.default_rng(2)
    loop = hospital.with_pixels(hospital.header("US", study=77), rng.integers(0, 255, (12, 32, 32, 3), np.uint8))
    hospital.save(loop, raw / "loop.dcm")
    (raw / "cut.dcm").write_bytes((raw / "0-0.dcm").read_bytes()[:1200])
    for number in range(3):
        values = rng.integers(0, 900, (20, 20, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), raw / f"{number}.nii.gz")
    pages = [Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)) for _ in range(9)]
    pages[0].save(raw / "pages.tif", save_all=True, append_images=pages[1:])


# --- The kinds of work -----------------------------------------------------------------------------------------------


def works(home: Home) -> dict[str, Work]:
    pretrain, finetune = home.pretrain, tiny.make_finetune(home.shards, home.pretrain, epochs=1)
    end = {"since": lambda where: only_run(where, finetune)["weights"]}
    return {
        "sharding": Work(shard(home), file_differences),
        "sharding a hospital's files": Work(shard_hospital(home), file_differences),
        "sharding slides": Work(shard_slides(home), file_differences),
        "worker processes": Work(shard(home), file_differences, workers=True),
        "pretraining with probes": of_run(home, pretrain),
        "a pretraining's end": replace(
            of_run(home, pretrain), since=lambda where: only_run(where, pretrain)["weights"]
        ),
        "a fine-tuning's end": replace(of_run(home, finetune), **end),
        "frozen features": of_run(home, replace(finetune, probe="linear")),
        "embed": Work(embedding(home), file_differences),
        "verify": Work(
            lambda where: code_of("verify", "--runs", where, where=where),
            file_differences,
            prepare=damaged_run(home),
            status=1 << 8,  # a run is damaged
        ),
        "report": Work(
            lambda where: code_of("report", "--grid", "mine.py", "--cluster", "here.toml", "--html", where=where),
            file_differences,
            prepare=lambda where: (where.mkdir(), finished.make_grid(where, home.shards)),
        ),
    }


def shard(home: Home) -> Callable[[Path], int]:
    flags = "--layout folder --size 32 --bits 12 --split grouped --workers 2 --format png --out out".split()
    return lambda where: code_of("shard", "wide", "--raw", home.folder / "wide", *flags, where=where)


def shard_hospital(home: Home) -> Callable[[Path], int]:
    flags = "--layout dicom --size 32 --workers 2 --format png --frames all --slices all --max-bad 1 --out out".split()
    return lambda where: code_of("shard", "clinic", "--raw", home.folder / "hospital", *flags, where=where)


def shard_slides(home: Home) -> Callable[[Path], int]:
    flags = "--layout folder --tiles mpp=0.5 --tile-side 32 --size 32 --workers 2 --format png --out out".split()
    return lambda where: code_of("shard", "biopsies", "--raw", home.folder / "slides", *flags, where=where)


def of_run(home: Home, spec: Spec) -> Work:
    def do(where: Path) -> int:
        parent = where / home.parent.id
        if spec != home.pretrain and not parent.exists():
            shutil.copytree(home.parent.folder, parent.with_suffix(".copied"))
            parent.with_suffix(".copied").rename(parent)
        return execute.execute_run(tiny.announce(spec, home.site_in(where)))

    return Work(do, lambda one, other: kill.differences(only_run(one, spec), only_run(other, spec)))


def only_run(where: Path, spec: Spec) -> Run:
    return Run(where / run_id(spec))


def embedding(home: Home) -> Callable[[Path], int]:
    def do(where: Path) -> int:
        found = network.open_network(str(home.parent.folder), "cnn", home.site)
        return embed.write(found, home.shards, home.site, where / "features.parquet", silent) and 0

    return do


def damaged_run(home: Home) -> Callable[[Path], None]:
    def prepare(where: Path) -> None:
        copied = where / home.parent.id
        shutil.copytree(home.parent.folder, copied)
        flip(copied / "weights.safetensors", 8 * 100_000)

    return prepare


def file_differences(one: Path, other: Path) -> list[str]:
    found = [
        {
            str(path.relative_to(folder)): plain(path, folder)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not re.search(r"lock$|^\.damaged", path.name)  # of damaged: clean removes it
        }
        for folder in (one, other)
    ]
    return [f"{name} differs" for name in sorted({*found[0], *found[1]}) if found[0].get(name) != found[1].get(name)]


def plain(path: Path, folder: Path) -> bytes:
    """What a file holds without the folder's own name and the time at which it was written."""
    return re.sub(rb"found by verify, [0-9 :-]+", b"", path.read_bytes()).replace(bytes(folder), b"")


# --- Kills -----------------------------------------------------------------------------------------------------------


def code_of(name: str, *arguments: object, where: Path) -> int:
    """The exit code of a command that runs in a folder, with what it says."""
    done = command(name, *arguments, cwd=where)
    print(done.stdout, done.stderr, flush=True)
    return done.returncode


def started(do: Callable[[], int], log: Path) -> int:
    """The id of a process, with a session of its own, that does something; it prints to `log`."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.modules["__main__"] = types.ModuleType("__main__")  # every worker process would import this file
        code = do()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def in_process(do: Callable[[], int], log: Path) -> None:
    _, status = os.waitpid(started(do, log), 0)
    assert status == 0, f"undisturbed work ended with {status}"


def session_of(leader: int) -> list[int]:
    """The living processes of a session without its leader."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(") ")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return [number for number in found if number != leader]


def commands_of(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def ended(process: int, seconds: float = PATIENCE) -> int | None:
    """The status of a process that ends within some seconds; None where it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        time.sleep(0.0003)
    return None


def moment(work: Work, where: Path, process: int, seconds: float, chance: random.Random) -> int | None:
    """Wait for a random instant of the work; returns its status if it ended before."""
    if work.since is not None:
        path, before = work.since(where), version(work.since(where))
        while version(path) == before:
            if (status := ended(process, 0.0006)) is not None:
                return status
    return ended(process, chance.uniform(0, seconds))


def version(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def killed(work: Work, where: Path, seconds: float, chance: random.Random) -> bool:
    """Do the work and kill it at a random instant; whether it was not over by then. Nothing of it may live on."""
    process = started(lambda: work.do(where), where.parent / LOG)
    if (status := moment(work, where, process, seconds, chance)) is not None:
        assert status == work.status, f"it ended with {status}"
        return False
    victims = session_of(process) if work.workers else [process]
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
    status = ended(process)
    allowed = (work.status,) if work.workers else (work.status, signal.SIGKILL)
    assert status in allowed, f"it ended with {status}"
    until = time.monotonic() + LEAVING
    while living := session_of(process):
        assert time.monotonic() < until, f"processes live on: {[commands_of(number) for number in living]}"
        time.sleep(0.01)
    return bool(victims) and (work.workers or status == signal.SIGKILL)


def prepared(work: Work, where: Path) -> None:
    """Make the folder, in a process of its own: one that has used torch's threads must not be forked."""

    def prepare() -> int:
        work.prepare(where)
        return 0

    in_process(prepare, where.parent / LOG)


def calm_seconds(work: Work, where: Path) -> float:
    """Do the work undisturbed; the seconds that it takes, or that its end takes."""
    prepared(work, where)
    process, begin = started(lambda: work.do(where), where.parent / LOG), time.monotonic()
    if work.since is not None:
        assert moment(work, where, process, 0.0, random.Random(0)) is None
        begin = time.monotonic()
    status = ended(process)
    assert status == work.status, f"undisturbed work ended with {status}"
    return time.monotonic() - begin


def disturbed(work: Work, folder: Path, kills: int, chance: random.Random) -> Iterator[str]:
    """Kill the work so many times, with a new folder whenever it is done; yields what differs from undisturbed work."""
    calm, rough = folder / "calm", folder / "rough"
    seconds, done = calm_seconds(work, calm), 0
    while done < kills:
        if not rough.exists():
            prepared(work, rough)
        done += (was_killed := killed(work, rough, seconds, chance))
        if not was_killed or work.workers:
            yield from work.differences(rough, calm)
            shutil.rmtree(rough)
    if not rough.exists():
        prepared(work, rough)
    ended(started(lambda: work.do(rough), folder / LOG))
    yield from work.differences(rough, calm)


def main(folder: Path, kills: int, names: list[str], seed: int = 0) -> dict[str, list[str]]:
    """Differences by kind of work."""
    for name in IMPORTED:
        importlib.import_module(name)
    home = Home(folder / "home")
    out = {}
    for name, work in works(home).items():
        if not names or name in names:
            (folder / name).mkdir()
            begin = time.monotonic()
            out[name] = list(disturbed(work, folder / name, kills, random.Random(f"{seed} {name}")))
            said = "; ".join(out[name]) or "the same bits as undisturbed"
            print(f"{name}: killed {kills} times, {said} ({time.monotonic() - begin:.0f} s)", flush=True)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.exit(any(main(Path(tempfile.mkdtemp()), args.kills, args.names, args.seed).values()))
