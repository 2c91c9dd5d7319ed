"""Fetch the raw files of a public dataset.

Run the same command again to continue an interrupted download.

python -m pipeline.download isic --out DIR
python -m pipeline.verify isic --raw DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command
from pipeline.data.datasets import DATASETS


def parser() -> argparse.ArgumentParser:
    out = flags.described("download", __doc__)
    out.add_argument("name", help="isic, the only dataset of the paper whose files have a public address")
    out.add_argument("--out", type=Path, required=True, help="the folder for the raw files")
    out.add_argument("--from", dest="mirror", metavar="URL", help="a folder on the web that offers the same files")
    out.add_argument("--dry-run", action="store_true", help="print what would be fetched from where; no connection")
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.data import sources

    dataset = DATASETS.find(args.name).DATASET
    missing = sources.missing_sources(dataset, args.out)
    total = len(dataset.sources)
    print(f"{dataset.name}: {total - len(missing)} of {total} parts are already in {args.out}")
    if args.dry_run:
        for source in missing:
            print(f"would fetch {sources.address_of(source, args.mirror)} to {args.out / source.target}")
        return 0
    sources.download(dataset, args.out, args.mirror, progress=progress, report=print)
    print(f"all parts are in {args.out}. Next: python -m pipeline.verify {dataset.name} --raw {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
