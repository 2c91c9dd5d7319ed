"""The tables of a benchmark: rows of measurements, their medians, and how they compare with the first row."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.core.console import table as aligned

ROLES = ("ours", "peer", "limit")


@dataclass(kw_only=True)
class Row:
    """The measurements of one case. The fields are keys of the JSON reports."""

    name: str
    role: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(kw_only=True)
class Table:
    """Cases that do the same; the first row is ours. The fields are keys of the JSON reports."""

    title: str
    unit: str
    rows: list[Row]
    more_is_better: bool = True
    notes: list[str] = field(default_factory=list)

    def ratio(self, row: Row) -> float | None:
        """How many times better the first row is than `row`; None for the first row and where a median is 0."""
        ours = self.rows[0]
        if row is ours or not row.median or not ours.median:
            return None
        return ours.median / row.median if self.more_is_better else row.median / ours.median

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for row, written in zip(self.rows, value["rows"], strict=True):
            written |= {"median": row.median, "ours_over_this": self.ratio(row)}
        return value

    def to_text(self) -> str:
        """Medians with their range and the ratio to the first row, then the notes."""
        rows = []
        for row in self.rows:
            ratio = self.ratio(row)
            spread = f"{number(min(row.values))} to {number(max(row.values))}" if len(row.values) > 1 else ""
            rows.append((row.name, row.role, number(row.median), spread, "" if ratio is None else f"{ratio:.2f}"))
        text = aligned(rows, header=(self.title, "", self.unit, "range", self.ratio_name()))
        return "\n".join([text, *(f"  {note}" for note in self.notes)])

    def ratio_name(self) -> str:
        """The heading of the ratios: `speed-up` for times and rates, `ratio` for the rest (memory, dB, percent)."""
        is_speed = self.unit.startswith("seconds") or self.unit.endswith(("/s", "a second", "/s of processor time"))
        return "speed-up" if is_speed else "ratio"


def number(value: float) -> str:
    """A number with three significant digits: `0.0123`, `4.56`, `12,300`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
