"""What a site can do without: checkpoints of finished runs, leftovers of killed jobs, old submissions and code."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.core import files
from pipeline.jobs.snapshot import last_used
from pipeline.jobs.submissions import read_submissions
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run

NEW_SECONDS = 3600.0  # a copy of the code used since may belong to a launch that has not published a submission yet


class Removable(NamedTuple):
    """A file or folder that can be removed, and what it is."""

    what: str
    path: Path

    def size(self) -> int:
        """Its bytes, with all files in it."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return self.path.stat().st_size


def find_removable(cluster: Cluster, *, scratch: bool) -> list[Removable]:
    """What can be removed; with `scratch`, the decoded images too."""
    runs = Path(cluster.runs)
    found = []
    for folder in sorted(runs.glob("*/")):
        run = Run(folder)
        state = run.state()
        if state != "running":
            found += [Removable("left by a killed task", path) for path in run.temporaries()]
        if state == "done":
            spare = run.spare_checkpoints(keep_state=cluster.keep_state)
            found += [Removable("checkpoint of a finished run", path) for path in spare]
    found += _job_folders(runs)
    if scratch:
        kinds = {"*.u8": "decoded images", "*.sums": "decoded images", "*.images": "copies of tars"}
        for pattern, what in (kinds | {"features-*.npy": "features"}).items():
            found += [Removable(what, path) for path in sorted(cluster.scratch_folder.glob(pattern))]
    return found


def _job_folders(runs: Path) -> list[Removable]:
    """Submissions whose runs are all done, and copies of the code that no other submission and no new launch needs."""
    sent = read_submissions(runs)
    over = [submission for submission in sent if all(Run(runs / run).state() == "done" for run in submission.runs)]
    needed = {submission.code for submission in sent if submission not in over}
    old = time.time() - NEW_SECONDS
    copies = [path for path in (runs / ".code").glob("*/") if path.name not in needed and last_used(path) < old]
    return [
        *(Removable("a finished job's output", submission.folder) for submission in over),
        *(Removable("a copy of the code", path) for path in copies),
    ]


def remove(found: Iterable[Removable], runs: Path) -> None:
    """Remove them; files of a run that another process works on stay."""
    for _, path in found:
        if path.is_dir():
            gone = path.with_name(f".gone-{path.name}")  # a copy of the code is never there in part
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        elif path.parent.parent == runs:
            with contextlib.suppress(files.Busy), Run(path.parent).lock(patience=0):
                path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)


def restart(run: Run) -> None:
    """Delete all that a run has done, so that the next launch restarts it; raises `files.Busy` while it is running."""
    with run.lock():
        shutil.rmtree(run["tensorboard"], ignore_errors=True)
        # what proves the run first, what marks it last: one that is half restarted is not done
        found = sorted(run.folder.iterdir(), key=lambda path: (path == run["damaged"], path != run["result"]))
        for path in found:
            if path.is_file() and path not in (run["spec"], run["job"], run["lock"]):
                path.unlink()
