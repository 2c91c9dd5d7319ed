"""Draw a stand-in of a dataset, for trials without the dataset.

python -m pipeline.standin dermofit --out DIR --scale 0.1
python -m pipeline.shard dermofit --raw DIR --size 32
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import flags
from pipeline.core.console import progress, run_command
from pipeline.data.datasets import DATASETS


def parser() -> argparse.ArgumentParser:
    out = flags.described("standin", __doc__)
    out.add_argument("name", help="isic, brain_mri, dermofit or autoimmune")
    out.add_argument("--out", type=Path, required=True, help="a new folder for the images")
    out.add_argument(
        "--scale",
        type=float,
        default=0.05,
        help="share of the dataset's images, at least ten a class (default: 0.05; 1: all)",
    )
    return out


def main() -> int:
    args = flags.given(parser())
    from pipeline.data.standins import draw_standin

    draw_standin(DATASETS.find(args.name).DATASET, args.out, scale=args.scale, progress=progress)
    print(f"{args.out} holds a stand-in of {args.name}: drawn images, not the dataset. Next:")
    print(f"python -m pipeline.shard {args.name} --raw {args.out} --size 32")
    return 0


if __name__ == "__main__":
    run_command(main)
