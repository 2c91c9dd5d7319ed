"""The flags that say which runs are meant, the same for every command that reads a grid."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from pipeline.core import console

if TYPE_CHECKING:
    from pipeline.jobs.plan import Plan


def add_grid_flags(out: argparse.ArgumentParser, *, required: bool = True) -> None:
    from pipeline.study.names import known_grids

    add = out.add_argument
    add("--grid", required=required, help=f"{', '.join(known_grids())}, or the path of your own FILE.toml or FILE.py")
    add(
        "--datasets",
        help="comma-separated, each NAME, NAME:SPLIT (image, grouped) or NAME[:SPLIT]@FINGERPRINT; default: the grid's",
    )
    add("--seeds", type=int, help="how many (default: the grid's)")
    add("--weights", help="comma-separated start weights that `prefetch` brought: rows of their frozen features")
    add(
        "--preset",
        choices=("paper", "notebook", "sound"),
        default="paper",
        help="reading of the paper (default: paper)",
    )
    add_cluster_flag(out)


def add_network_flags(out: argparse.ArgumentParser, *, metavar: str, writes: str) -> None:
    """The flags of commands that write something of a trained network."""
    from pathlib import Path

    out.add_argument("--out", type=Path, required=True, metavar=metavar, help=writes)
    out.add_argument("--arm", help="which network of a pretraining run")
    add_cluster_flag(out)


def described(command: str, text: str | None, *, quiet: bool = True, as_json: str = "") -> argparse.ArgumentParser:
    """The parser of a command, described by the text of its module.

    quiet: whether it has `--quiet`; as_json: what its object with `--json` says, for a command that has one.
    """
    form = argparse.RawDescriptionHelpFormatter
    out = argparse.ArgumentParser(
        prog=f"python -m pipeline.{command}", description=text, allow_abbrev=False, formatter_class=form
    )
    said = out.add_argument_group("what it prints")
    if quiet:
        said.add_argument("--quiet", action="store_true", help="nothing but warnings, errors and what --json gives")
    if as_json:
        said.add_argument("--json", action="store_true", help=f"one JSON object instead of text: {as_json}")
    return out


def given(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags as they were given; from here on the command prints what `--json` and `--quiet` leave of it."""
    args = parser.parse_args()
    console.speak(as_json=getattr(args, "json", False), quiet=getattr(args, "quiet", False))
    return args


def add_cluster_flag(out: argparse.ArgumentParser) -> None:
    out.add_argument(
        "--cluster",
        default="local",
        help="a file in slurm/ by name, or a path that ends in .toml (default: local)",
    )


def read_plan(args: argparse.Namespace) -> Plan:
    """The plan that the grid flags name."""
    from pipeline.jobs.plan import make_plan
    from pipeline.runs.cluster import load_cluster

    datasets, weights = (text.split(",") if text else None for text in (args.datasets, args.weights))
    site = load_cluster(args.cluster)
    return make_plan(args.grid, site, datasets=datasets, seeds=args.seeds, preset=args.preset, weights=weights)


def grid_choices(args: argparse.Namespace) -> list[str]:
    """The flags that choose among a grid's runs, as they were given."""
    out = ["--datasets", args.datasets] if args.datasets else []
    out += ["--seeds", str(args.seeds)] if args.seeds is not None else []
    out += ["--weights", args.weights] if args.weights else []
    return out + (["--preset", args.preset] if args.preset != "paper" else [])


def grid_flags(args: argparse.Namespace) -> str:
    """The grid flags as they were given, for the hint of another command."""
    out = ["--grid", args.grid, *grid_choices(args)]
    out += ["--cluster", args.cluster] if args.cluster != "local" else []
    return shlex.join(out)
