"""Compare a raw folder with what is published of its dataset.

It reads listings and image headers, and changes nothing.

python -m pipeline.verify isic --raw DIR

Exit code 0: it is as published; 1: something is missing, differs or is surplus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.console import counted, progress, run_command, table
from pipeline.data.datasets import DATASETS


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.verify", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("name", help="isic, brain_mri, dermofit or autoimmune")
    out.add_argument("--raw", type=Path, required=True, help="the folder that holds the raw files")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.data import published

    dataset = DATASETS.find(args.name).DATASET
    try:
        comparison = published.compare_folder(dataset, args.raw, progress=progress)
    except published.Incomplete as error:
        print(f"missing    {error}")
        return 1
    print(f"{dataset.name} in {args.raw}, compared with {dataset.published.source}\n")
    rows = [(part, label, here, "–" if known is None else known) for part, label, here, known in comparison.counts]
    print(table(rows, header=("part", "class", "here", "published")))
    print(f"\n{comparison.usable:,} of {counted(comparison.published, 'image')}")
    for kind, text in comparison.findings:
        print(f"{kind:<10} {text}")
    print(f"\n{dataset.obtain}" if comparison.differs else "\nit is as published")
    return 1 if comparison.differs else 0


if __name__ == "__main__":
    run_command(main)
