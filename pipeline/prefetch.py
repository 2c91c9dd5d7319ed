"""Bring the weights that runs start from into the site's folder.

Run it on a machine with a network; a file of your own needs none. Weights are checked, and described in a JSON file.

python -m pipeline.prefetch --grid main
python -m pipeline.prefetch --weights vit_small_patch16_dinov3.lvd1689m,hf-hub:OWNER/NAME
python -m pipeline.prefetch --file mine.safetensors --name mine --backbone vit_base_patch16_224 --licence MIT
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import counted, progress, run_command
from pipeline.learn import weights
from pipeline.study.names import known_grids

if TYPE_CHECKING:
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = flags.described("prefetch", __doc__)
    what = out.add_mutually_exclusive_group(required=True)
    what.add_argument("--grid", help=f"{', '.join(known_grids())}, or the path of your own FILE.toml or FILE.py")
    what.add_argument(
        "--weights", "--tags", dest="names", metavar="NAMES", help="comma-separated timm tags and hf-hub: names"
    )
    what.add_argument("--file", type=Path, help="safetensors, or a state dict of torch (.pth, .pt)")
    flags.add_cluster_flag(out)
    out.add_argument("--dry-run", action="store_true", help="print what would be fetched, and fetch nothing")
    own = out.add_argument_group("of a file", "a config.json of timm's next to the file says what you do not")
    add = own.add_argument
    add("--name", help="how grids call the weights (default: the file's name)")
    add("--backbone", metavar="TAG", help="timm's name of the network that they are of")
    add("--licence", help="of the weights")
    add("--mean", type=three, metavar="R,G,B", help="of images in [0, 1] (default: timm's for the network)")
    add("--std", type=three, metavar="R,G,B")
    add("--input-size", type=int, metavar="N", help="pixels of the images that they were trained on")
    add("--argument", action="append", default=[], metavar="NAME=VALUE", help="of timm's function of the network")
    return out


def three(text: str) -> tuple[float, ...]:
    """Three comma-separated numbers."""
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers; give them as 0.5,0.5,0.5") from None
    return red, green, blue


def main() -> int:
    args = flags.given(parser())
    from pipeline.runs.cluster import load_cluster
    from pipeline.study.grid import load_grid

    cluster = load_cluster(args.cluster)
    if args.file:
        return take(args, Path(cluster.weights))
    folder = Path(cluster.weights)
    named = args.names.split(",") if args.names else list(load_grid(args.grid).weights)
    lacking = [name for name in named if not is_known(name, folder)]
    if args.grid and args.dry_run and lacking:
        print("which ImageNet weights the grid needs shows when the weights that it names are there")
    elif args.grid:
        fetch(lacking, folder)  # without them there is no plan
        tags = tags_of(args.grid, cluster)
        named += tags
        lacking = [tag for tag in tags if not weights.prefetched(tag, folder).exists()]
    print(f"{counted(len(named), 'backbone')}, {len(named) - len(lacking)} of them in {folder} already")
    if args.dry_run:
        print("\n".join(f"would fetch {weights.hub_name(name)}/{weights.HUB_FILE}" for name in lacking))
        return 0
    fetch(lacking, folder)
    return 0


def is_known(name: str, folder: Path) -> bool:
    """Whether the weights of that name are in the folder, and described."""
    try:
        found = weights.known(name, folder)
        return weights.weights_file(name, folder, found.weights).is_file()
    except ValueError:
        return False


def tags_of(grid: str, cluster: Cluster) -> list[str]:
    """The tags of the backbones that a grid starts from ImageNet weights, sorted."""
    from pipeline.jobs.plan import make_plan

    return sorted({tag for run in make_plan(grid, cluster).runs.values() for tag in weights.imagenet_tags(run.spec)})


def fetch(names: list[str], folder: Path) -> None:
    """Fetch weights by name and print their checksums."""
    if not names:
        return
    from pipeline.learn import store

    for name in progress(names, total=len(names), what="fetching"):
        print(f"{name}: sha256 {store.fetch(name, folder)}")


def take(args: argparse.Namespace, folder: Path) -> int:
    """Bring a file of the user's own, and print what grids will know of it."""
    from pipeline.learn import store

    name = args.name or args.file.stem
    said = store.Facts(
        backbone=args.backbone,
        licence=args.licence,
        mean=args.mean,
        std=args.std,
        input_size=args.input_size,
        arguments=dict(map(argument, args.argument)),
    )
    if args.dry_run:
        print(f"would bring {args.file} to {folder} as {name}")
        return 0
    store.take_file(args.file, name, said, folder)
    print(json.dumps(json.loads(weights.description(name, folder).read_text()), indent=2))
    return 0


def argument(text: str) -> tuple[str, float | int | str | bool]:
    """`NAME=VALUE`; a value that is no number, `true` or `false` is a word."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--argument is {text!r}; give NAME=VALUE, such as init_values=1e-5")
    try:
        found = json.loads(value)
    except json.JSONDecodeError:
        found = value
    return name, found if isinstance(found, (bool, int, float)) else value


if __name__ == "__main__":
    run_command(main)
