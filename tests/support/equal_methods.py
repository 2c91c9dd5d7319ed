"""Simulated grids of two equal methods: how often a rule calls them different.

    python tests/support/equal_methods.py --grids 2000

A run is right on an image where a sum is above zero: how easy the image is, what the method makes of it, how good the
run came out, and chance. The parts of both methods come from the same distributions, so over many images and seeds no
method is better. A world says how large the parts are: where the seeds hardly differ, where only they differ, and
between. Scores are about 0.8, of four classes of unequal size.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.results.bootstrap import draw, summed_metric
from pipeline.results.differences import drawn_gains, estimate_both
from pipeline.results.statistics import estimate
from pipeline.runs.predictions import Predictions

SHARES = (0.35, 0.3, 0.2, 0.15)
CLASSES = ("a", "b", "c", "d")
SIZES = (20, 100, 500, 2533)
LEVEL = 0.05


@dataclass(frozen=True)
class World:
    """Standard deviations of the parts; that of how easy an image is is 1.5."""

    method: float
    """Of what a method makes of an image, the same for all its seeds."""
    run: float
    """Of how good a run came out."""
    chance: float
    """Of what a run makes of an image."""


WORLDS = {
    "seeds nearly alike": World(method=1.0, run=0.02, chance=0.3),
    "in between": World(method=0.6, run=0.1, chance=0.8),
    "methods alike": World(method=0.0, run=0.15, chance=0.8),
}


def predictions(rng: np.random.Generator, world: World, images: int, seeds: int, gain: float = 0.0, arms: int = 1):
    """Of each arm: both methods' predictions by seed, on the same images; the first method is better by `gain`."""
    keys = [str(i) for i in range(images)]
    label = rng.choice(len(CLASSES), images, p=SHARES)
    targets = np.eye(len(CLASSES), dtype=np.int8)[label]
    ease = rng.normal(0, 1.5, images)
    out = []
    for _ in range(arms):
        methods = []
        for better in (gain, 0.0):
            own = rng.normal(0, world.method, images)
            run = rng.normal(0, world.run, (seeds, 1))
            right = 1.6 + better + ease + own + run + rng.normal(0, world.chance, (seeds, images)) > 0
            named = np.where(right, label, (label + rng.integers(1, len(CLASSES), (seeds, images))) % len(CLASSES))
            scores = (0.1 + 0.8 * np.eye(len(CLASSES)))[named].astype(np.float32)
            methods.append({seed: Predictions(keys, CLASSES, targets, scores[seed]) for seed in range(seeds)})
        out.append(methods)
    return out


def rules(grid, metric: str = "balanced_accuracy") -> dict[str, tuple[bool, float]]:
    """By rule: whether it calls the methods of a grid different, and the smallest difference that it says it shows."""
    pairs = [tuple(draw(method, "simulated", metric, "multi-class", {}) for method in methods) for methods in grid]
    seeds = sorted(grid[0][0])
    gains = np.mean([_scores(ours, metric) - _scores(theirs, metric) for ours, theirs in grid], axis=0)
    over_seeds = estimate(gains.tolist())
    over_both = estimate_both(gains, drawn_gains(pairs, seeds), pairs[0][0].images.units)
    found = {"seeds alone": over_seeds, "seeds and images": over_both}
    out = {name: (one is not None and one.p < LEVEL, one.detectable if one else 0.0) for name, one in found.items()}
    both = all(hit for hit, _ in out.values()), max(shown for _, shown in out.values())
    return {**out, "both intervals": both, "percentiles": (_percentiles(drawn_gains(pairs, seeds)), 0.0)}


def _percentiles(on_draws: np.ndarray) -> bool:
    """The plain bootstrap: whether the 95 % between percentiles are off zero, as many seeds drawn as there are."""
    n = on_draws.shape[1]
    picked = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=len(on_draws))
    low, high = np.percentile((on_draws * picked / n).sum(axis=1), [2.5, 97.5])
    return bool(low > 0 or high < 0)


def _scores(method: dict[int, Predictions], metric: str) -> np.ndarray:
    """The score of each seed on the test images as they are."""
    found = [summed_metric(metric, one.targets, one.scores, "multi-class") for one in method.values()]
    return np.array([each.score(each.parts.sum(axis=0, keepdims=True).astype(float))[0] for each in found])


def rates(world: World, images: int, *, grids: int, seeds: int = 5, gain: float = 0.0, arms: int = 1, first: int = 0):
    """By rule: in what part of the simulated grids it calls the methods different, and its mean detectable difference.

    Grid number `first` and those that follow are a function of their number.
    """
    found = [
        rules(predictions(np.random.default_rng([images, number]), world, images, seeds, gain, arms))
        for number in range(first, first + grids)
    ]
    return {name: tuple(np.mean([one[name] for one in found], axis=0)) for name in found[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=200, help="simulated grids of each kind")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", type=int, default=1, help="pairs of cells that are compared together")
    parser.add_argument("--gain", type=float, default=0.0, help="by how much one method is better; 0: they are equal")
    parser.add_argument("--images", type=int, nargs="*", default=SIZES)
    args = parser.parse_args(arguments)
    print(f"{args.grids} grids of {args.seeds} seeds and {args.arms} arms each; called different at 5 %")
    print("| world | test images | seeds alone | seeds and images | both intervals | percentiles | seconds a grid |")
    print("|---|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        for images in args.images:
            began = time.monotonic()
            found = rates(world, images, grids=args.grids, seeds=args.seeds, gain=args.gain, arms=args.arms)
            shown = " | ".join(
                f"{rate:.1%}" + (f" (shows {detectable:.3f})" if detectable else "")
                for rate, detectable in found.values()
            )
            print(f"| {name} | {images} | {shown} | {(time.monotonic() - began) / args.grids:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
