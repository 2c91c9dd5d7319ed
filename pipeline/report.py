"""Door: the results of a grid as tables, ours beside what the paper printed.

python -m pipeline.report --grid small --datasets brain_mri,isic
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import flags
from pipeline.console import run_door


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_grid_flags(out)
    out.add_argument("--out", type=Path, help="folder of the files (default: reports/GRID, or GRID-PRESET)")
    return out


def main() -> int:
    args = parser().parse_args()
    plan = flags.read_plan(args)
    from pipeline import files
    from pipeline.results import collect, tables

    cells = collect.cells(plan)
    made = tables.tables(cells)
    name = plan.grid if args.preset == "paper" else f"{plan.grid}-{args.preset}"
    folder = args.out or Path("reports") / name
    text = tables.as_text(made)
    flagged = collect.collapsed(plan)
    if flagged:
        text += "\ncollapsed pretraining runs:\n" + "\n".join(f"  {line}" for line in flagged) + "\n"
    written = {
        "report.txt": text,
        "report.md": f"# {plan.grid}, preset {plan.preset.name}\n\n{tables.as_markdown(made)}",
        "report.tex": tables.as_latex(made),
        "report.csv": tables.as_csv(cells),
    }
    for name, content in written.items():
        files.write_text(folder / name, content)
    print(text)
    print("written: " + ", ".join(str(folder / name) for name in written))
    missing = sum(cell.wanted - len(cell.results) for cell in cells)
    if missing:
        print(f"{missing} runs are not done: python -m pipeline.status {flags.grid_flags(args)}")
    return 0


if __name__ == "__main__":
    run_door(main)
