"""Measure the speed against peers and the machine's limits.

python -m pipeline.bench            every benchmark
python -m pipeline.bench shard load
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.benchmarks import BENCHMARKS
from pipeline.core.console import run_command, table

if TYPE_CHECKING:
    from pipeline.benchmarks.support.base import Table


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m pipeline.bench", description=__doc__, allow_abbrev=False)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    add = out.add_argument
    add("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS.names())} (default: all)")
    add("--raw", type=Path, default=Path("../shared/data"), help="folder of real images (default: ../shared/data)")
    add("--scratch", type=Path, default=Path("scratch/bench"), help="folder for its files (default: scratch/bench)")
    add("--out", type=Path, default=Path("reports/bench"), help="folder of the JSON (default: reports/bench)")
    add(
        "--peers",
        type=Path,
        default=Path(".venv-peers/bin/python"),
        help="interpreter that has the peers, made by make peers",
    )
    add("--rounds", type=int, default=3, help="measurements of each way (default: 3)")
    add("--quick", action="store_true", help="few images and small networks: shows that it works, measures nothing")
    return out


def main() -> int:
    args = parser().parse_args()
    if args.rounds < 1:
        raise ValueError(f"--rounds is {args.rounds}; give 1 or more")
    names = [BENCHMARKS.check(name) for name in args.names or BENCHMARKS.names()]
    if len(names) > 1:  # each in a process of its own: threads, memory and random numbers of one are not the next one's
        flags = [f"--{flag}={getattr(args, flag)}" for flag in ("raw", "scratch", "out", "peers", "rounds")]
        flags += ["--quick"] * args.quick
        ends = [subprocess.run([sys.executable, "-m", "pipeline.bench", name, *flags]).returncode for name in names]
        return max(ends)
    from pipeline.benchmarks.support.base import Bench
    from pipeline.core import files

    args.scratch.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        scratch=args.scratch.absolute(),
        raw=args.raw.absolute() if args.raw.is_dir() else None,
        peers=args.peers.absolute() if args.peers.exists() else None,
        rounds=args.rounds,
        quick=args.quick,
        say=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    (name,) = names
    plugin = BENCHMARKS.find(name)
    print(f"{name}: {plugin.TITLE}", flush=True)
    started = time.monotonic()
    tables: list[Table] = plugin.run(bench)
    for made in tables:
        print(f"\n{shown(made)}", flush=True)
    path = args.out / f"{name}{'-quick' * args.quick}.json"
    value = {"bench": name, "quick": args.quick, "seconds": time.monotonic() - started, **machine()}
    files.write_json(path, {**value, "tables": [made.to_json() for made in tables]})
    print(f"\nwritten: {path}\n", flush=True)
    return 0


def shown(made: Table) -> str:
    """A table as text: medians with their range, and how many times better ours is."""
    rows = []
    for row in made.rows:
        ratio = made.ratio(row)
        spread = f"{number(min(row.values))} to {number(max(row.values))}" if len(row.values) > 1 else ""
        rows.append((row.name, row.role, number(row.median), spread, "" if ratio is None else f"{ratio:.2f}"))
    text = table(rows, header=(made.title, "", made.unit, "range", "ours is better"))
    return "\n".join([text, *(f"  {note}" for note in made.notes)])


def number(value: float) -> str:
    """Three digits that count: `0.0123`, `4.56`, `12,300`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What the figures were measured on and when."""
    import torch

    from pipeline.jobs.snapshot import library_versions
    from pipeline.learn.hardware import cpu_model

    gpu = torch.cuda.is_available()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "libraries": library_versions("cuda" if gpu else "cpu"),
    }


if __name__ == "__main__":
    run_command(main)
