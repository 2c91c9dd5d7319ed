"""Measure the speed against peers and the machine's limits.

python -m pipeline.bench            every benchmark
python -m pipeline.bench shard load
python -m pipeline.bench gpu        what a GPU is to be asked first (make gpu); not among "every"
python -m pipeline.bench rehearsal  what steps ask of a GPU that is only pretended, a table; ten minutes; neither

Peers that are not installed are left out; `make peers` installs them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from pipeline.benchmarks import BENCHMARKS
from pipeline.cli import flags
from pipeline.core.console import run_command

GPU, REHEARSAL = "gpu", "rehearsal"


def parser() -> argparse.ArgumentParser:
    out = flags.described("bench", __doc__, quiet=False)
    add = out.add_argument
    add("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS.names())} (default: all)")
    add("--raw", type=Path, default=Path("../shared/data"), help="folder of real images (default: ../shared/data)")
    add("--scratch", type=Path, default=Path("scratch/bench"), help="folder for its files (default: scratch/bench)")
    add("--out", type=Path, default=Path("reports/bench"), help="folder of the JSON files (default: reports/bench)")
    add(
        "--peers",
        type=Path,
        default=Path(".venv-peers/bin/python"),
        help="Python interpreter that has the peers (default: .venv-peers/bin/python)",
    )
    add("--rounds", type=int, default=3, help="how often each case is measured (default: 3)")
    add("--minutes", type=float, default=60.0, help="gpu: how long the rows of Table 5 may train (default: 60)")
    add("--wheels", type=Path, default=Path("wheels"), help="gpu: folder of wheels that are used (default: wheels)")
    add("--weights", type=Path, default=Path("weights"), help="gpu: folder of ImageNet weights (default: weights)")
    add("--quick", action="store_true", help="few images, small networks: shows that it works, measures nothing")
    return out


def run_on_gpu(args: argparse.Namespace) -> int:
    """Ask a GPU everything that has no answer yet; 1 if something still has none."""
    if not args.minutes > 0:
        raise ValueError(f"--minutes is {args.minutes:g}; give a number above 0")
    from pipeline.benchmarks.gpu.programme import Programme
    from pipeline.benchmarks.gpu.runner import run_programme

    kind = f"{GPU}{'-quick' * args.quick}"
    programme = Programme(
        quick=args.quick,
        scratch=(args.scratch / kind).absolute(),
        raw=args.raw.absolute() if args.raw.is_dir() else None,
        out=(args.out / kind).absolute(),
        wheels=args.wheels.absolute(),
        weights=args.weights.absolute(),
        minutes=args.minutes,
    )
    left = run_programme(programme, lambda line: print(line, flush=True))
    print(f"\n{(programme.out / 'gpu.md').read_text()}\nwritten: {programme.out / 'gpu.md'} and gpu.json")
    return 1 if left else 0


def main() -> int:
    args = flags.given(parser())
    if args.rounds < 1:
        raise ValueError(f"--rounds is {args.rounds}; give 1 or more")
    if args.names == [GPU]:
        return run_on_gpu(args)
    if args.names == [REHEARSAL]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks
        from pipeline.benchmarks.gpu.rehearsed import run_rehearsal

        run_rehearsal(args.out, quick=args.quick)
        return 0
    names = [BENCHMARKS.check(name) for name in args.names or BENCHMARKS.names()]
    if len(names) > 1:  # one process each: threads, memory and random numbers of one must not affect the next
        same = [f"--{flag}={getattr(args, flag)}" for flag in ("raw", "scratch", "out", "peers", "rounds")]
        same += ["--quick"] * args.quick
        codes = [subprocess.run([sys.executable, "-m", "pipeline.bench", name, *same]).returncode for name in names]
        return max(codes)
    from pipeline.benchmarks.support.measure import Settings
    from pipeline.benchmarks.support.report import run_and_report

    args.scratch.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        scratch=args.scratch.absolute(),
        raw=args.raw.absolute() if args.raw.is_dir() else None,
        peers=args.peers.absolute() if args.peers.exists() else None,
        rounds=args.rounds,
        quick=args.quick,
        say=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    run_and_report(names[0], settings, args.out)
    return 0


if __name__ == "__main__":
    run_command(main)
