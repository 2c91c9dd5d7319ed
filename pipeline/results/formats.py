"""Tables as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pipeline.core.console import table as aligned
from pipeline.results.collect import METRICS, Cell
from pipeline.results.tables import Table


def as_text(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        notes = "\n".join(f"  {note}" for note in table.notes)
        blocks.append(f"{table.title}\n\n{aligned(table.rows, header=table.header)}\n{notes}\n")
    return "\n".join(blocks)


def as_markdown(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        lines = [f"### {table.title}", "", _piped(table.header), _piped(["---"] * len(table.header))]
        lines += [_piped(row) for row in table.rows]
        lines += ["", *(f"- {note.replace('*', chr(92) + '*')}" for note in table.notes), ""]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_latex(tables: Sequence[Table]) -> str:
    """Tables for a paper; needs only the booktabs package."""
    blocks = []
    for table in tables:
        body = "\n".join(" & ".join(map(_tex, row)) + r" \\" for row in table.rows)
        columns = "l" * table.labels + "c" * (len(table.header) - table.labels)
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    " & ".join(map(_tex, table.header)) + r" \\",
                    r"\midrule",
                    body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    rf"\caption{{{_tex(table.title)}. {_tex('; '.join(table.notes))}.}}",
                    r"\end{table}",
                    "",
                ]
            )
        )
    return "\n".join(blocks)


def _tex(text: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "),
        ("&", r"\&"),
        ("%", r"\%"),
        ("_", r"\_"),
        ("#", r"\#"),
        ("±", r"$\pm$"),
        ("−", "$-$"),
        ("–", "--"),
        ("|", r"$\mid$"),
        ("·", r"$\cdot$"),
    ):
        text = text.replace(plain, escaped)
    return text


COLUMNS = (
    "table experiment dataset row column method arm backbone variant label_fraction metric in_table status mean sd n "
    "wanted low high values paper_value paper_spread mixed runs"
).split()


def as_csv(cells: Sequence[Cell], intervals: Sequence[tuple[float, float] | None]) -> str:
    """Every cell and metric, one a line, with the raw values; `low` and `high` bound the metric of the table."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for cell, interval in zip(cells, intervals, strict=True):
        for metric in METRICS:
            shown = metric == cell.metric
            row = {
                "experiment": cell.experiment,
                "method": cell.method,
                "arm": cell.arm,
                "backbone": cell.backbone,
                "variant": cell.variant,
                "label_fraction": cell.label_fraction,
                "dataset": cell.dataset,
                "row": " | ".join(cell.row),
                "column": cell.column,
                "metric": metric,
                "in_table": int(shown),
                "status": cell.status,
                "mean": _blank(cell.mean(metric)),
                "sd": _blank(cell.deviation(metric)),
                "n": len(cell.values(metric)),
                "wanted": cell.wanted,
                "values": " ".join(map(repr, cell.values(metric))),
                "mixed": int(cell.mixed),
                "runs": " ".join(run.id for run in cell.runs.values()),
            }
            if shown and interval:
                row |= {"low": interval[0], "high": interval[1]}
            if shown and cell.printed:
                told = cell.printed
                row |= {"table": told.table, "paper_value": told.value, "paper_spread": told.spread}
            writer.writerow(row)
    return out.getvalue()


def _blank(value: float | None) -> str:
    return "" if value is None else repr(value)
