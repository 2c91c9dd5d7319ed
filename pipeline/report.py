"""Make a grid's report, or that of one run.

What was asked and found, tables with intervals, data and leaks, methods, limits; where the grid repeats the paper, its
printed numbers next to ours and verdicts on its claims.

python -m pipeline.report --grid small --datasets brain_mri,isic --html
python -m pipeline.report --run RUN --html              RUN: a run's id, a part of one, or its folder
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import answer, counted, progress, run_command
from pipeline.results.figures.gallery import SPECIFICITY

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan


def parser() -> argparse.ArgumentParser:
    out = flags.described("report", __doc__, as_json="the files; what they say is in report.json")
    flags.add_grid_flags(out, required=False)
    add = out.add_argument
    add("--run", metavar="RUN", help="of this run alone instead of a grid")
    add("--out", type=Path, help="folder of the files (default: reports/GRID, GRID-PRESET or RUN)")
    add("--html", action="store_true", help="write report.html too: one page with tables, figures, methods, runs")
    add(
        "--with-images",
        "--with-pictures",
        dest="with_images",
        action="store_true",
        help="let its figures show images of the dataset",
    )
    add(
        "--specificity",
        type=float,
        default=SPECIFICITY,
        metavar="S",
        help=f"show the sensitivity at this specificity (default: {SPECIFICITY})",
    )
    return out


def main() -> int:
    args = flags.given(parser())
    if not 0 < args.specificity < 1:
        raise ValueError(f"--specificity is {args.specificity}; give a fraction between 0 and 1")
    if bool(args.grid) == bool(args.run):
        raise ValueError("give --grid for a grid's report, or --run for that of one run")
    if args.run and (given := flags.grid_choices(args)):
        raise ValueError(f"{given[0]} is of a grid; leave it out with --run")
    plan = _plan_of_run(args) if args.run else flags.read_plan(args)
    from pipeline.results import documents, report

    folder = args.out or (Path("reports") / plan.grid if args.run else plan.report_folder)
    made = report.make_report(plan, folder, args.specificity)
    written = report.write_report(made, folder)
    if args.html:
        paths, figures = report.write_html(
            made,
            folder,
            with_images=args.with_images,
            watch=lambda planned: progress(planned, total=len(planned), what="figures"),
        )
        written = report.write_report(made, folder) + paths  # again: claims quote what the figures measured
        for entry in figures.skipped + figures.failed:
            print(f"no figure {entry['name']}: {entry['reason']}")
    print(documents.as_text(made))
    print("written: " + ", ".join(map(str, written)))
    answer({"written": written, "unfinished": made.unfinished})
    if made.unfinished:
        left = counted(made.unfinished, "run is", "runs are")
        print(f"{left} not done" + ("" if args.run else f": python -m pipeline.status {flags.grid_flags(args)}"))
    return 0


def _plan_of_run(args: argparse.Namespace) -> Plan:
    from pipeline.results.single import plan_of_run
    from pipeline.runs.cluster import load_cluster
    from pipeline.runs.folder import find_run

    cluster = load_cluster(args.cluster)
    return plan_of_run(find_run(Path(cluster.runs), args.run), cluster)


if __name__ == "__main__":
    run_command(main)
