"""Draw a grid's figures from its finished runs, as PDF and PNG.

figures.json lists them.

python -m pipeline.figures --grid small --datasets brain_mri,isic
python -m pipeline.figures --grid main --only attention-mean,confusion
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command
from pipeline.results.figures.gallery import KINDS, draw


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.figures", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = [f"  {name:<18}{what}" for name, what in KINDS.items()]
    out.epilog = "\n".join(["names for --only:", *lines, "* shows single images: needs --with-images"])
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--out", type=Path, help="folder of the files (default: reports/GRID/figures, or GRID-PRESET)")
    add("--only", metavar="NAME,…", help="these kinds of figures; the list keeps the others (default: all)")
    add("--with-pictures", action="store_true", help="draw also what shows single images, which may be of patients")
    add("--rollout", action="store_true", help="attention maps by rollout over all blocks instead of the last block")
    return out


def main() -> int:
    args = parser().parse_args()
    kinds = [name.strip() for name in args.only.split(",")] if args.only else list(KINDS)
    if unknown := [name for name in kinds if name not in KINDS]:
        raise ValueError(f"--only names {unknown[0]!r}; known: {', '.join(KINDS)}")
    plan = flags.read_plan(args)
    from pipeline.results import collect

    name = plan.grid if args.preset == "paper" else f"{plan.grid}-{args.preset}"
    folder = args.out or Path("reports") / name / "figures"
    made = draw(
        plan,
        collect.cells(plan),
        folder,
        kinds=kinds,
        with_images=args.with_images,
        rollout=args.rollout,
        watch=lambda sheets: progress(sheets, total=len(sheets), what="figures"),
    )
    for entry in made.figures:
        print(f"drawn    {entry['name']}: {', '.join(str(folder / name) for name in entry['files'])}")
    for reason in made.skipped:
        print(f"skipped  {reason['name']}: {reason['reason']}")
    for reason in made.failed:
        print(f"FAILED   {reason['name']}: {reason['reason']}")
    print(f"{len(made.figures)} figures drawn, {len(made.skipped)} skipped, {len(made.failed)} failed; the list is")
    print(f"{folder / 'figures.json'}")
    return 1 if made.failed else 0


if __name__ == "__main__":
    run_command(main)
