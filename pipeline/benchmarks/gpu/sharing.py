"""k fine-tunes at the same time on one GPU."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.benchmarks import fanout
from pipeline.benchmarks.gpu.programme import Found, Programme, Sheet
from pipeline.benchmarks.support.tables import number

TITLE = "k fine-tunes at the same time"
MINUTES = 10.0


def parts(programme: Programme) -> list[str]:
    return [f"{k} at once" for k in ((2, 1) if programme.quick else (1, 2, 4))]


def run(programme: Programme, part: str) -> Found:
    """Trained images a second of a fan-out of four fine-tunes, start of the processes included."""
    k = int(part.split()[0])
    (row,) = (table := fanout.fan_outs(programme.settings("sharing"), programme.device, [("processes", k, 1)])).rows
    return {"k": k, "images_per_second": row.median, "notes": table.notes}


def sheets(programme: Programme, found: Mapping[str, Found]) -> list[Sheet]:
    if not found:
        return []
    alone = next((f["images_per_second"] for f in found.values() if f["k"] == 1), None)
    rows = [
        (f["k"], number(f["images_per_second"]), f"{f['images_per_second'] / alone:.2f}" if alone else "–")
        for f in sorted(found.values(), key=lambda f: f["k"])
    ]
    header = ("at once", "images a second", "times one at a time")
    return [
        Sheet(title="Fine-tunes that share a GPU", header=header, rows=rows, notes=next(iter(found.values()))["notes"])
    ]
