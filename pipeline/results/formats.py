"""Tables as text, Markdown and LaTeX; cells as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core import files
from pipeline.core.console import markdown, visible
from pipeline.core.console import table as aligned
from pipeline.results.claims.verdict import Verdict
from pipeline.results.collect import METRICS, Cell
from pipeline.results.tables import Table


def as_text(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        notes = "\n".join(f"  {visible(note)}" for note in table.notes)
        blocks.append(f"{visible(table.title)}\n\n{aligned(table.rows, header=table.header)}\n{notes}\n")
    return "\n".join(blocks)


def as_markdown(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        lines = [
            f"### {markdown(table.title)}",
            "",
            _markdown_row(table.header),
            _markdown_row(["---"] * len(table.header)),
        ]
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", *(f"- {markdown(note)}" for note in table.notes), ""]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def verdict_as_text(verdict: Verdict) -> str:
    """A claim with its verdict, a line for each part: their sentences do not fit the columns of a table."""
    lines = [f"{verdict.claim} ({verdict.source})", f"    paper: {verdict.printed}", f"    ours: {verdict.ours}"]
    return "\n".join(map(visible, [*lines, f"    verdict: {verdict.verdict}"])) + "\n"


def verdict_as_markdown(verdict: Verdict) -> str:
    """A claim as an entry of a list."""
    claim, source, printed, ours, said = map(
        markdown, (verdict.claim, verdict.source, verdict.printed, verdict.ours, verdict.verdict)
    )
    return f"- **{claim}** ({source})\n  - paper: {printed}\n  - ours: {ours}\n  - verdict: {said}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def as_latex(tables: Sequence[Table]) -> str:
    """Tables for a paper; they need only the booktabs package."""
    blocks = []
    for table in tables:
        columns = "l" * table.labels + "c" * (len(table.header) - table.labels)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(table.header),
            r"\midrule",
            *map(_latex_row, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{latex(table.title)}. {latex('; '.join(table.notes))}.}}",
            r"\end{table}",
            "",
        ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def latex(text: str) -> str:
    """`text` in one line in which no character is a command of LaTeX."""
    return "".join(LATEX.get(character, character) for character in visible(text))


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "|": r"$\mid$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "°": r"$^\circ$",
}
"""What LaTeX reads as more than the character."""


COLUMNS = (
    "table experiment dataset row column method arm backbone variant label_fraction metric in_table status mean sd n "
    "wanted low high values paper_value paper_spread mixed runs"
).split()


def as_csv(cells: Sequence[Cell], intervals: Sequence[tuple[float, float] | None]) -> str:
    """A line for every cell and metric, with the values of its seeds.

    intervals: of each cell's score in its table; `low` and `high` of that metric's line.
    """
    rows: list[Sequence[object]] = [COLUMNS]
    for cell, interval in zip(cells, intervals, strict=True):
        for metric in METRICS:
            in_table = metric == cell.metric
            row: dict[str, object] = {
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
                "in_table": int(in_table),
                "status": cell.status,
                "mean": _number(cell.mean(metric)),
                "sd": _number(cell.deviation(metric)),
                "n": len(cell.values(metric)),
                "wanted": cell.wanted,
                "values": " ".join(map(repr, cell.values(metric))),
                "mixed": int(cell.mixed),
                "runs": " ".join(run.id for run in cell.all_runs),
            }
            if in_table and interval:
                row |= {"low": interval[0], "high": interval[1]}
            if in_table and (printed := cell.printed):
                row |= {"table": printed.table, "paper_value": printed.value, "paper_spread": printed.spread}
            rows.append([row.get(name, "") for name in COLUMNS])
    return files.csv_text(rows)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
