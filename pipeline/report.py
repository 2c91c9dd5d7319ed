"""Make a grid's results tables and check the paper's claims.

The tables have the paper's shape and show its printed numbers next to ours.

python -m pipeline.report --grid small --datasets brain_mri,isic
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command, table


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    out.add_argument("--out", type=Path, help="folder of the files (default: reports/GRID, or GRID-PRESET)")
    out.add_argument("--html", action="store_true", help="write report.html too: one page with tables, figures, runs")
    out.add_argument("--with-pictures", action="store_true", help="let its figures show images of the dataset")
    return out


def main() -> int:
    args = parser().parse_args()
    plan = flags.read_plan(args)
    from pipeline.core import files
    from pipeline.results import claims, collect, formats, statistics, tables

    cells = collect.cells(plan)
    made = tables.tables(plan, cells)
    name = plan.grid if args.preset == "paper" else f"{plan.grid}-{args.preset}"
    folder = args.out or Path("reports") / name
    warning = tables.stand_ins(plan)
    text = f"{warning}\n\n" * bool(warning) + formats.as_text(made)
    said = claims.verdicts(plan, cells) if any(cell.experiment == "main" for cell in cells) else []
    rows = [(v.claim, v.printed, v.ours, v.verdict) for v in said]
    header = ("claim", "paper", "ours", "verdict")
    if said:
        text += f"\nThe paper's claims\n\n{table(rows, header=header)}\n"
    flagged = collect.collapsed(plan)
    if flagged:
        text += "\ncollapsed pretraining runs:\n" + "\n".join(f"  {line}" for line in flagged) + "\n"
    intervals = [statistics.of_cell(cell) for cell in cells]
    written = {
        "report.txt": text,
        "report.md": f"# {plan.grid}, preset {plan.preset.name}\n\n{formats.as_markdown(made)}",
        "report.tex": formats.as_latex(made),
        "report.csv": formats.as_csv(cells, intervals),
    }
    if args.html:
        from pipeline.results import html
        from pipeline.results.figures import gallery

        drawn = gallery.draw(
            plan,
            cells,
            folder / "figures",
            with_images=args.with_images,
            watch=lambda sheets: progress(sheets, total=len(sheets), what="figures"),
        )
        for reason in drawn.skipped + drawn.failed:
            print(f"no figure {reason['name']}: {reason['reason']}")
        by_cell = {id(cell): interval for cell, interval in zip(cells, intervals, strict=True)}
        written["report.html"] = html.page(
            plan,
            made,
            said,
            [warning] * bool(warning) + [f"Collapsed in pretraining: {f}" for f in flagged],
            by_cell,
            drawn.figures,
            folder / "figures",
        )
    for name, content in written.items():
        files.write_text(folder / name, content)
    print(text)
    print("written: " + ", ".join(str(folder / name) for name in written))
    missing = sum(cell.wanted - len(cell.results) for cell in cells)
    if missing:
        print(f"{missing} runs are not done: python -m pipeline.status {flags.grid_flags(args)}")
    return 0


if __name__ == "__main__":
    run_command(main)
