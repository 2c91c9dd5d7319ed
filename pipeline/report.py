"""Make a grid's results tables and check the paper's claims.

The tables have the paper's shape and show its printed numbers next to ours.

python -m pipeline.report --grid small --datasets brain_mri,isic
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import counted, progress, run_command
from pipeline.results.figures.gallery import SPECIFICITY


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--out", type=Path, help="folder of the files (default: reports/GRID, or GRID-PRESET)")
    add("--html", action="store_true", help="write report.html too: one page with tables, figures, runs")
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
    args = parser().parse_args()
    if not 0 < args.specificity < 1:
        raise ValueError(f"--specificity is {args.specificity}; give a fraction between 0 and 1")
    plan = flags.read_plan(args)
    from pipeline.results import report

    folder = args.out or report.default_folder(plan)
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
    print(made.as_text())
    print("written: " + ", ".join(map(str, written)))
    if made.unfinished:
        left = counted(made.unfinished, "run is", "runs are")
        print(f"{left} not done: python -m pipeline.status {flags.grid_flags(args)}")
    return 0


if __name__ == "__main__":
    run_command(main)
