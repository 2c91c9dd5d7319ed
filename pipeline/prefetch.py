"""Fetch the ImageNet weights that a grid's runs start from.

Run it on a machine with a network. Weights are safetensors files with checksums.

python -m pipeline.prefetch --grid main
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import flags
from pipeline.core.console import counted, progress, run_command
from pipeline.learn.weights import HUB_FILE, fetch, hub_name, imagenet_tags, prefetched
from pipeline.study.names import known_grids

if TYPE_CHECKING:
    from pipeline.runs.cluster import Cluster


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.prefetch", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    what = out.add_mutually_exclusive_group(required=True)
    what.add_argument("--grid", help=f"{', '.join(known_grids())}, or the path of your own FILE.py")
    what.add_argument("--tags", help="comma-separated timm tags")
    flags.add_cluster_flag(out)
    out.add_argument("--dry-run", action="store_true", help="print what would be fetched, and fetch nothing")
    return out


def main() -> int:
    args = parser().parse_args()
    from pipeline.runs.cluster import load_cluster

    cluster = load_cluster(args.cluster)
    folder = Path(cluster.weights)
    tags = args.tags.split(",") if args.tags else tags_of(args.grid, cluster)
    todo = [tag for tag in tags if not prefetched(tag, folder).exists()]
    print(f"{counted(len(tags), 'backbone')}, {len(tags) - len(todo)} of them in {folder} already")
    if args.dry_run:
        print("\n".join(f"would fetch {hub_name(tag)}/{HUB_FILE}" for tag in todo))
        return 0
    for tag in progress(todo, total=len(todo), what="fetching"):
        print(f"{tag}: sha256 {fetch(tag, folder)}")
    return 0


def tags_of(grid: str, cluster: Cluster) -> list[str]:
    """The tags of the backbones that a grid starts from ImageNet weights, sorted."""
    from pipeline.jobs.plan import make_plan

    return sorted({tag for run in make_plan(grid, cluster).runs.values() for tag in imagenet_tags(run.spec)})


if __name__ == "__main__":
    run_command(main)
