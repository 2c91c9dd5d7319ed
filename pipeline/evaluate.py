"""Test finished fine-tunes on another dataset.

Its images are those of shards of the same size. Classes of the same name are one; images of other classes, and images
with a twin among those that a run was trained on, with all of their patient or lesion, are left out and counted. Runs
that were tested already are skipped.

python -m pipeline.evaluate RUN --on DATASET             RUN: a run's id, a part of one, or its folder
python -m pipeline.evaluate --grid NAME --on DATASET     all finished fine-tunes of a grid
python -m pipeline.evaluate RUN --on DATASET --map "melanocytic nevus=NV" --map "unknown="

Exit code 0: all is tested; 1: some run could not be.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.cli import flags
from pipeline.core import disks
from pipeline.core.console import answer, counted, progress, run_command, table, visible

if TYPE_CHECKING:
    from pipeline.data.shards.index import Shards
    from pipeline.runs.evaluation import Evaluation
    from pipeline.runs.folder import Run

T = TypeVar("T")
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # of the folder of a run that somebody else trained


def parser() -> argparse.ArgumentParser:
    out = flags.described("evaluate", __doc__, as_json="metrics of each run there and at home, what was left out")
    add = out.add_argument
    add("run", metavar="RUN", nargs="?", help="a finished fine-tune: its id, a part of it, or its folder")
    add("--on", required=True, metavar="DATASET", help="another dataset with shards, by name, or their folder")
    add(
        "--map",
        action="append",
        default=[],
        metavar="THEIR=OUR",
        help="their class is our class; nothing after = leaves theirs out; may be given several times",
    )
    add("--dry-run", action="store_true", help="print which runs would be tested and how classes map, write nothing")
    flags.add_grid_flags(out, required=False)
    return out


def main() -> int:
    args = flags.given(parser())
    if (args.run is None) == (args.grid is None):
        raise ValueError("give either RUN or --grid")
    from pipeline.data.shards.remote import copy_small_files
    from pipeline.models.evaluate import Evaluator
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.evaluation import Evaluation

    site = load_cluster(args.cluster)
    copy_small_files(site.shards_from, Path(site.shards))
    runs = finetunes(args)
    shards = shards_for(runs, args.on, Path(site.shards))
    evaluator = Evaluator(shards, args.map, site, progress)
    found: dict[str, Evaluation | ValueError | None] = {run.id: attempt(evaluator.done, run) for run in runs}
    known = sum(not isinstance(each, (ValueError, type(None))) for each in found.values())
    if known:
        print(f"{counted(known, 'run is', 'runs are')} tested already on {shards.folder}")
    for run in runs:
        if found[run.id] is None and args.dry_run:
            mapped = ", ".join(f"{their} → {ours}" for their, ours in evaluator.mapping(run).items())
            print(f"would test {run.id}: {visible(mapped)}")
        elif found[run.id] is None:
            found[run.id] = attempt(evaluator.evaluate, run)
    print_found(runs, found, str(shards.manifest["metric"]))
    refused = {name: error for name, error in found.items() if isinstance(error, ValueError)}
    tested = {run: each for run in runs if isinstance(each := found[run.id], Evaluation)}
    told = [{"run": run.id, "own_test": run.result().metrics, **asdict(each)} for run, each in tested.items()]
    answer({"on": shards.folder, "runs": told, "not_tested": {name: str(error) for name, error in refused.items()}})
    if args.run is not None and refused:
        raise refused[runs[0].id]
    for name, error in refused.items():
        print(f"not tested: {name}: {visible(str(error))}", file=sys.stderr)
    return 1 if refused else 0


def attempt(work: Callable[[Run], T], run: Run) -> T | ValueError:
    """What `work` finds of a run, or why it cannot: the other runs are tested all the same."""
    try:
        return work(run)
    except ValueError as error:
        return error
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        return ValueError(disks.error_text(error))


def finetunes(args: argparse.Namespace) -> list[Run]:
    """The finished fine-tunes that are meant; `ValueError` where there is none."""
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import find_run
    from pipeline.runs.spec import FinetuneSpec

    if args.run is not None:
        run = find_run(Path(load_cluster(args.cluster).runs), args.run)
        if not isinstance(run.spec, FinetuneSpec) or run.spec.probe:
            raise ValueError(f"{run.id} is no fine-tune, so it has no classes to score; give one of the fine-tunes")
        if (state := run.state()) != "done":
            raise ValueError(f"{run.id} is {state}; only a finished run can be tested: launch its grid to finish it")
        return [run]
    plan = flags.read_plan(args)
    wanted = [p for p in plan.runs.values() if isinstance(p.spec, FinetuneSpec) and not p.spec.probe]
    runs = [planned.run for planned in wanted if planned.state == "done"]
    if not runs:
        raise ValueError(f"no fine-tune of {args.grid} is done; python -m pipeline.launch {flags.grid_flags(args)}")
    if len(runs) < len(wanted):
        print(f"{len(wanted) - len(runs)} of {counted(len(wanted), 'fine-tune')} are not done, and are not tested")
    return runs


def shards_for(runs: list[Run], text: str, root: Path) -> Shards:
    """The shards that `text` names, of the size that the runs take."""
    from pipeline.data.shards.index import shards_named

    sizes = sorted({run.spec.image_size for run in runs})
    if len(sizes) > 1:
        raise ValueError(f"the runs take images of {' and '.join(map(str, sizes))} pixels; give them one by one")
    return shards_named(root, text, sizes[0])


def print_found(runs: list[Run], found: Mapping[str, Evaluation | ValueError | None], metric: str) -> None:
    """What is known of the runs now, and what was left out of the first."""
    from pipeline.models.evaluate import reasons
    from pipeline.runs.evaluation import Evaluation

    tested = [(run, each) for run in runs if isinstance(each := found[run.id], Evaluation)]
    if not tested:
        return
    rows = []
    for run, each in tested:
        scores = (run.result().metrics.get(metric), each.metrics.get(metric))
        rows.append([run.id, each.images, len(each.twins), *("–" if x is None else f"{x:.4f}" for x in scores)])
    run, first = tested[0]
    print(table(rows, header=("run", "images", "twins", f"own test {metric}", f"{metric} on {first.dataset}")))
    print(f"left out: {visible(reasons(first.left_out))}")
    if first.differs:
        print(f"stored in another way: {visible('; '.join(first.differs))}")
    print(f"twins by name, and all scores: {run.evaluation(first.dataset, first.fingerprint)}")


if __name__ == "__main__":
    run_command(main)
