"""Delete files that no run needs any more, or restart one run.

python -m pipeline.clean            says what would be deleted
python -m pipeline.clean --yes      deletes it
python -m pipeline.clean --restart RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import answer, counted, run_command, table


def parser() -> argparse.ArgumentParser:
    out = flags.described("clean", __doc__, as_json="what is or could be removed, with sizes")
    add = out.add_argument
    flags.add_cluster_flag(out)
    add("--yes", action="store_true", help="remove what is listed")
    add("--scratch", action="store_true", help="the decoded images too (they are made again when needed)")
    add(
        "--restart",
        metavar="RUN",
        help="delete all that a run has done, so that the next launch restarts it; RUN: an id, or a part of it",
    )
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.jobs import cleanup
    from pipeline.runs.cluster import load_cluster

    cluster = load_cluster(args.cluster)
    if args.restart:
        return restart(Path(cluster.runs), args.restart, sure=args.yes)
    found = cleanup.find_removable(cluster, scratch=args.scratch)
    sizes = [each.size() for each in found]
    if found:
        rows = [[each.what, f"{size / 1e6:,.1f} MB", each.path] for each, size in zip(found, sizes, strict=True)]
        print(table(rows, header=("what", "size", "path")))
    if not found:
        print("nothing to remove")
    elif args.yes:
        cleanup.remove(found, Path(cluster.runs))
        print(f"removed {counted(len(found), 'file or folder', 'files and folders')}")
    else:
        print("nothing removed; add --yes to remove it")
    listed = [{**each._asdict(), "bytes": size} for each, size in zip(found, sizes, strict=True)]
    answer({"removable": listed, "removed": bool(found) and args.yes})
    return 0


def restart(runs: Path, name: str, *, sure: bool) -> int:
    """Restart one run, a finished one only if the user is sure."""
    from pipeline.jobs import cleanup
    from pipeline.runs.folder import find_run

    run = find_run(runs, name)
    if run.state() == "done" and not sure:
        raise ValueError(f"{run.id} is done; add --yes to delete its weights and result and restart it")
    cleanup.restart(run)
    print(f"the next launch restarts {run.id}")
    answer({"restarted": run.id})
    return 0


if __name__ == "__main__":
    run_command(main)
