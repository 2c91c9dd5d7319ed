"""What the paper reads off attention maps, as numbers: how spread attention is, and how much of it is in the centre.

The numbers are those of the averaged maps' figures, of one run of each technique (figures/attention).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import counted
from pipeline.results import texts
from pipeline.results.claims.verdict import NO_RUN, OPEN, UNTESTED, Verdict
from pipeline.results.collect import Cell
from pipeline.results.statistics import estimate
from pipeline.study import paper

CLAIMS = {
    "entropy": (
        "Attention of a CASS-trained Transformer is more spread than a supervised one's",
        "Figures 2 and 9; D.2.4",
        "read off the maps; here the entropy of a map, 1 where it is even",
    ),
    "centre": (
        "Attention of a CASS-trained Transformer is more in the centre than a supervised one's",
        "Figures 6 to 8; D.2.1 to D.2.3",
        "read off the maps; here the share in the middle half of each side, 0.25 where it is even",
    ),
}


def verdicts(cells: Sequence[Cell], folder: Path) -> Iterator[Verdict]:
    """folder: of the figures; their list has the numbers, where the maps are drawn."""
    methods = {cell.method for cell in cells if cell.arm == paper.TRANSFORMER}
    path = folder / "figures.json"
    figures = files.read_json(path, dict, keys=("figures",))["figures"] if path.exists() else []
    measured = [(figure["dataset"], figure["measured"]) for figure in figures if figure.get("measured")]
    both = [(dataset, found) for dataset, found in measured if {"cass", "supervised"} <= found.keys()]
    for name, (claim, source, printed) in CLAIMS.items():
        if not {"cass", "supervised"} <= methods:
            yield Verdict(claim, source, printed, NO_RUN, UNTESTED)
        elif not both:
            ours = "not measured yet: report --html, or figures, draws the maps"
            yield Verdict(claim, source, printed, ours, OPEN)
        else:
            ours = "; ".join(_numbers(dataset, found, name) for dataset, found in both)
            yield Verdict(claim, source, printed, ours, OPEN, "one run of each: networks are compared, not methods")


def _numbers(dataset: str, measured: Mapping[str, Mapping[str, Sequence[float]]], name: str) -> str:
    ours, theirs = measured["cass"][name], measured["supervised"][name]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    text = f"{dataset}: {statistics.fmean(ours):.3f}, supervised {statistics.fmean(theirs):.3f}"
    text += f" ({texts.signed(statistics.fmean(differences), '.3f')}"
    if found := estimate(differences):
        low, high = (texts.signed(end, ".3f") for end in found.interval)
        text += f", 95 % interval over {counted(len(ours), 'image')} {low} to {high}"
    return text + ")"
