"""Results tables in text, Markdown, LaTeX and CSV: ours (mean ± sample sd, n) beside what the paper printed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.console import table as aligned
from pipeline.results.collect import METRICS, Cell

MIXED = "*"
TITLES = {"cass": "CASS", "dino": "DINO", "dino_fb": "DINO (authors' recipe)", "supervised": "Supervised"}
METRIC_TITLES = {
    "f1_micro": "F1 (micro, at 0.5)",
    "f1_macro": "F1 (macro)",
    "balanced_accuracy": "balanced accuracy",
    "recall_micro": "recall (micro, at 0.5)",
    "accuracy": "accuracy",
    "auroc": "AUROC (macro)",
}


@dataclass(frozen=True)
class Table:
    """A table as rows of text, with a caption and notes."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...]


def tables(cells: Sequence[Cell]) -> list[Table]:
    """One table a dataset: a row a technique and backbone, a pair of columns (ours, paper) a label fraction."""
    out = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        members = [cell for cell in cells if cell.dataset == dataset]
        fractions = sorted({cell.label_fraction for cell in members})
        has_printed = any(cell.printed for cell in members)
        metric = members[0].metric
        names = {(c.method, c.arm, c.backbone, c.variant): c for c in members}
        rows = []
        for name, first in names.items():
            alike = [other for other in names if other[:3] == name[:3]]
            mark = f" #{first.variant}" if len(alike) > 1 else ""
            row = [TITLES.get(first.method, first.method), f"{first.backbone.split('.')[0]} ({first.arm}){mark}"]
            for fraction in fractions:
                same = (c for c in members if (c.method, c.arm, c.backbone, c.variant) == name)
                cell = next((c for c in same if c.label_fraction == fraction), None)
                row.append(ours(cell) if cell else "–")
                if has_printed:
                    row.append(printed(cell))
            rows.append(tuple(row))
        header = ["technique", "backbone"]
        for fraction in fractions:
            header += [f"{fraction:.0%} ours", f"{fraction:.0%} paper"] if has_printed else [f"{fraction:.0%} labels"]
        caption = f"{dataset}: test {METRIC_TITLES[metric]}"
        out.append(Table(caption, tuple(header), rows, _notes(members)))
    return out


def ours(cell: Cell) -> str:
    """`0.9909 ± 0.0032 (5)`, `0.9909 (1)`, `0.9909 ± 0.0032 (3 of 5)`, or `– (0 of 5)`."""
    mean, deviation = cell.mean(cell.metric), cell.deviation(cell.metric)
    n = len(cell.values(cell.metric))
    count = str(n) if n == cell.wanted else f"{n} of {cell.wanted}"
    if mean is None:
        return f"– ({count})"
    spread = f" ± {deviation:.4f}" if deviation is not None else ""
    return f"{mean:.4f}{spread} ({count}){MIXED if cell.mixed else ''}"


def printed(cell: Cell | None) -> str:
    if cell is None or cell.printed is None:
        return "–"
    return f"{cell.printed.value:.4f} ± {cell.printed.spread:.4g}"


def _notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    notes = ["ours: mean ± sample standard deviation over seeds (number of seeds)"]
    if table_numbers := sorted({cell.printed.table for cell in cells if cell.printed}):
        notes.append(
            f"paper: Table {', '.join(map(str, table_numbers))}; ResNet-50 and ViT-B/16, ImageNet weights, 384 pixels"
        )
    if any(cell.mixed for cell in cells):
        notes.append(f"{MIXED} the seeds of this cell ran on different devices or in different precisions")
    scores = [result.metrics["majority"] for cell in cells for result in cell.results]
    if scores and scores[0]:
        notes.append(f"always naming the commonest class of the test part scores {scores[0][cells[0].metric]:.4f}")
    return tuple(notes)


def as_text(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        notes = "\n".join(f"  {note}" for note in table.notes)
        blocks.append(f"{table.caption}\n\n{aligned(table.rows, header=table.header)}\n{notes}\n")
    return "\n".join(blocks)


def as_markdown(tables: Sequence[Table]) -> str:
    blocks = []
    for table in tables:
        lines = [f"### {table.caption}", "", _piped(table.header), _piped(["---"] * len(table.header))]
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
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\begin{{tabular}}{{ll{'c' * (len(table.header) - 2)}}}",
                    r"\toprule",
                    " & ".join(map(_tex, table.header)) + r" \\",
                    r"\midrule",
                    body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    rf"\caption{{{_tex(table.caption)}. {_tex('; '.join(table.notes))}.}}",
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
    ):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$").replace("–", "--")


def as_csv(cells: Sequence[Cell]) -> str:
    """Every cell and metric, one a line, with the raw values."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "dataset method arm backbone variant label_fraction metric in_table mean sd n wanted values "
        "paper_table paper_value paper_spread mixed".split()
    )
    for cell in cells:
        for metric in METRICS:
            shown = metric == cell.metric
            paper = cell.printed if shown else None
            writer.writerow(
                [
                    cell.dataset,
                    cell.method,
                    cell.arm,
                    cell.backbone,
                    cell.variant,
                    cell.label_fraction,
                    metric,
                    int(shown),
                ]
                + [
                    _blank(cell.mean(metric)),
                    _blank(cell.deviation(metric)),
                    len(cell.values(metric)),
                    cell.wanted,
                ]
                + [" ".join(map(repr, cell.values(metric)))]
                + ([paper.table, paper.value, paper.spread] if paper else ["", "", ""])
                + [int(cell.mixed)]
            )
    return out.getvalue()


def _blank(value: float | None) -> str:
    return "" if value is None else repr(value)
