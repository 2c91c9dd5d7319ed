"""The tables of decision 19, from results.jsonl next to this file: python docs/decisions/0019-study/tables.py"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

ARMS = {"cnn": "CNN", "transformer": "ViT"}
PROBES = {"knn": "k-NN", "linear_10": "10 %"}
Lines = list[dict[str, Any]]


def group(line: dict[str, Any]) -> tuple[str, str]:
    """Dataset, and what was trained how."""
    rates = f"{line['lr']:g} / {line['lr_transformer']:g}"
    loss = line["variant"] if line["variant"] == "simsiam" else f"{line['variant']} {line['a']:g}"
    loss += " of features" if line["where"] == "features" else ""
    loss += f", batch {line['batch']}" if line["batch"] != 16 else ""
    return line["shards"].split("-")[0], f"{loss} · {rates} · {line['steps']}"


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def runs(lines: Lines, part: str) -> list[str]:
    """One row a run: spread, rank, and both probes at start and end."""
    heads = [f"{arm} {what}" for arm in ARMS.values() for what in ("spread", "rank", *PROBES.values())]
    out = [row("dataset", "loss · rates CNN / ViT · steps", "seed", *heads), "|" + "---|" * (len(heads) + 3)]
    for line in sorted(lines, key=lambda line: (*group(line), line["seed"])):
        cells: list[str] = []
        for arm in ARMS:
            pair = [(line["start"][f"{arm}_{key}"], line["end"][f"{arm}_{key}"]) for key in ("spread", "rank")]
            cells += [f"{pair[0][0]:.2f} → {pair[0][1]:.2f}", f"{pair[1][0]:.0f} → {pair[1][1]:.0f}"]
            for probe in PROBES:
                key = f"{arm}_{part}_{probe}"
                cells.append(f"{line['start'][key]:.3f} → {line['end'][key]:.3f}")
        out.append(row(*group(line), line["seed"], *cells))
    return out


def difference(ours: dict[int, float], theirs: dict[int, float]) -> list[str]:
    """Mean and deviation of ours − theirs, seed by seed, and the p-value of a paired t-test of three seeds or more."""
    each = np.array([ours[seed] - theirs[seed] for seed in sorted(ours)])
    deviation = f"{each.std(ddof=1):.3f}" if len(each) > 1 else "–"
    return [f"{each.mean():+.3f}", deviation, f"{ttest_1samp(each, 0).pvalue:.3f}" if len(each) > 2 else "–"]


def gains(lines: Lines) -> list[str]:
    """End − start over the seeds of what has two or more."""
    head = ("dataset", "loss · rates · steps", "seeds", "arm", "part", "probe", "gain", "deviation", "p")
    out = [row(*head), "|" + "---|" * len(head)]
    groups = defaultdict(list)
    for line in lines:
        groups[group(line)].append(line)
    for name, members in sorted(groups.items()):
        for arm, title in ARMS.items():
            for part in ("val", "test"):
                for probe, said in PROBES.items():
                    key = f"{arm}_{part}_{probe}"
                    values = [{m["seed"]: m[when][key] for m in members} for when in ("end", "start")]
                    if len(members) > 1:
                        out.append(row(*name, len(members), title, part, said, *difference(*values)))
    return out


def finetuned(lines: Lines) -> list[str]:
    """Pretrained and supervised, mean over seeds, and their differences seed by seed."""
    head = ("dataset", "arm", "labels", "seeds", "supervised", "pretrained", "difference", "deviation", "p")
    out = [row(*head), "|" + "---|" * len(head)]
    for dataset in sorted({line["shards"].split("-")[0] for line in lines}):
        members = [line for line in lines if line["shards"].startswith(dataset)]
        for arm, title in ARMS.items():
            for percent in ("1", "10"):
                ours, theirs = (
                    {m["seed"]: m["finetuned"][f"{what}_{arm}_{percent}"] for m in members}
                    for what in ("pretrained", "supervised")
                )
                means = (f"{np.mean(list(values.values())):.3f}" for values in (theirs, ours))
                out.append(row(dataset, title, f"{percent} %", len(members), *means, *difference(ours, theirs)))
    return out


def tables() -> str:
    """All tables in Markdown."""
    text = (Path(__file__).parent / "results.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    pretrained = [line for line in lines if line["what"] == "pretrain"]
    found = [
        ("Test images, every run", runs(pretrained, "test")),
        ("Validation images, every run", runs(pretrained, "val")),
        ("Gains over the start", gains(pretrained)),
        ("Fine-tuning, test images", finetuned([line for line in lines if line["what"] == "finetune"])),
    ]
    return "\n\n".join("\n".join([f"**{title}**", "", *table]) for title, table in found)


if __name__ == "__main__":
    print(tables())
