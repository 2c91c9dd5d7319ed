"""Delete files that no run needs any more, or restart one run.

python -m pipeline.clean            says what would go
python -m pipeline.clean --yes      removes it
python -m pipeline.clean --restart RUN
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from pathlib import Path

from pipeline.cli import flags
from pipeline.core import files
from pipeline.core.console import run_command, table

IN_USE = 3600.0  # seconds in which a new copy of the code may be some launch's that has not said so yet


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.clean", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    flags.add_cluster_flag(out)
    add("--yes", action="store_true", help="remove what is listed")
    add("--scratch", action="store_true", help="the decoded images too (they are made again when needed)")
    add("--restart", metavar="RUN", help="forget all a run has done, so that the next launch begins it anew")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import Run

    cluster = load_cluster(args.cluster)
    runs = Path(cluster.runs)
    if args.restart:
        run = Run(runs / args.restart)
        if not run["spec"].exists():
            raise ValueError(f"there is no run {args.restart!r} in {runs}; see python -m pipeline.status")
        if run.state() == "done" and not args.yes:
            raise ValueError(f"{run.id} is done; add --yes to delete its weights and result and begin it anew")
        with run.lock():
            shutil.rmtree(run["tensorboard"], ignore_errors=True)
            for path in list(run.folder.iterdir()):
                if path.is_file() and path not in (run["spec"], run["job"], run["lock"]):
                    path.unlink()
        print(f"{run.id} begins anew at the next launch")
        return 0

    found: list[tuple[str, Path]] = []
    for folder in sorted(runs.glob("*/")):
        run = Run(folder)
        state = run.state()
        if state != "running":
            found += [("left by a killed task", path) for path in run.temporaries()]
        if state == "done":
            spare = run.spare_checkpoints(keep_state=cluster.keep_state)
            found += [("checkpoint of a finished run", path) for path in spare]
    found += job_folders(runs)
    if args.scratch:
        found += [("decoded images", path) for path in Path(cluster.scratch).glob("*.u8")]
    if not found:
        print("nothing to remove")
        return 0
    rows = [[what, f"{_size(path) / 1e6:,.1f} MB", path] for what, path in found]
    print(table(rows, header=("what", "size", "path")))
    if not args.yes:
        print("nothing removed; add --yes to remove it")
        return 0
    for _, path in found:
        if path.is_dir():
            gone = path.with_name(f".gone-{path.name}")  # a copy of the code is there whole or not at all
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        elif path.parent.parent == runs:
            with contextlib.suppress(files.Busy), Run(path.parent).lock(patience=0):
                path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
    print(f"removed {len(found)}")
    return 0


def job_folders(runs: Path) -> list[tuple[str, Path]]:
    """Submissions whose runs are all done, and copies of the code that no other submission needs and no launch just made."""
    from pipeline.jobs import submissions
    from pipeline.runs.folder import Run

    sent = submissions.read_submissions(runs)
    over = [
        submission
        for submission in sent
        if all(Run(runs / run).state() == "done" for part in submission.tasks for run in part)
    ]
    needed = {submission.code for submission in sent if submission not in over}
    copies = [path for path in (runs / ".code").glob("*/") if path.name not in needed and _age(path) > IN_USE]
    return [("a finished job's output", submission.folder) for submission in over] + [
        ("a copy of the code", p) for p in copies
    ]


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


if __name__ == "__main__":
    run_command(main)
