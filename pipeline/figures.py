"""Draw a grid's figures from its finished runs, as PDF and PNG.

figures.json lists them.

python -m pipeline.figures --grid small --datasets brain_mri,isic
python -m pipeline.figures --grid main --only attention-mean,confusion
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import complain, counted, progress, run_command
from pipeline.results.figures.gallery import KINDS, draw


def parser() -> argparse.ArgumentParser:
    out = flags.described("figures", __doc__)
    lines = [f"  {name:<18}{what}" for name, what in KINDS.items()]
    out.epilog = "\n".join(["names for --only:", *lines, "* shows single images: needs --with-images"])
    flags.add_grid_flags(out)
    add = out.add_argument
    add("--out", type=Path, help="folder of the files (default: reports/GRID/figures, or GRID-PRESET)")
    add("--only", metavar="NAME,…", help="these kinds of figures; the list keeps the others (default: all)")
    add(
        "--with-images",
        "--with-pictures",
        dest="with_images",
        action="store_true",
        help="draw also the figures that show single images, which may be of patients",
    )
    add("--rollout", action="store_true", help="attention maps by rollout over all blocks instead of the last block")
    return out


def main() -> int:
    args = flags.given(parser())
    kinds = [name.strip() for name in args.only.split(",")] if args.only else list(KINDS)
    if unknown := [name for name in kinds if name not in KINDS]:
        raise ValueError(f"--only: there is no figure {unknown[0]!r}; known: {', '.join(KINDS)}")
    plan = flags.read_plan(args)
    from pipeline.results import collect

    folder = args.out or plan.report_folder / "figures"
    drawn = draw(
        plan,
        collect.cells(plan),
        folder,
        kinds=kinds,
        with_images=args.with_images,
        rollout=args.rollout,
        watch=lambda planned: progress(planned, total=len(planned), what="figures"),
    )
    for entry in drawn.figures:
        print(f"drawn    {entry['name']}: {', '.join(str(folder / name) for name in entry['files'])}")
    for entry in drawn.skipped:
        print(f"skipped  {entry['name']}: {entry['reason']}")
    for entry in drawn.failed:
        complain(f"FAILED   {entry['name']}: {entry['reason']}")
    count = counted(len(drawn.figures), "figure")
    print(f"{count} drawn, {len(drawn.skipped)} skipped, {len(drawn.failed)} failed; the list is")
    print(f"{folder / 'figures.json'}")
    return 1 if drawn.failed else 0


if __name__ == "__main__":
    run_command(main)
