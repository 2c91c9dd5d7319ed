"""A whole report as text, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.console import markdown, visible
from pipeline.results import formats
from pipeline.results.content import Report
from pipeline.runs.folder import unsealed_text


def as_text(report: Report) -> str:
    """For a terminal: without the methods."""
    summary = report.summary
    out = [
        f"{report.stand_in_note}\n" if report.stand_in_note else "",
        _lines(summary.title, [*summary.asked, *summary.found]),
        formats.as_text(report.every_table),
    ]
    if report.claims:
        out.append("The paper's claims\n\n" + "\n".join(map(formats.verdict_as_text, report.claims)))
    out.append(_lines("Limits", summary.limits))
    if report.collapsed:
        out.append(_lines("collapsed in pretraining (nearly the same output for every image):", report.collapsed))
    if report.damaged:
        out.append(_lines("damaged runs (launch --retry makes them again):", report.damaged))
    out += [f"{unsealed_text(report.unsealed)}\n"] if report.unsealed else []
    return "\n".join(filter(None, out))


def _lines(title: str, sentences: Sequence[str]) -> str:
    return "\n".join([visible(title), *(f"  {visible(each)}" for each in sentences)]) + "\n"


def as_markdown(report: Report) -> str:
    summary = report.summary
    methods = "\n\n".join(f"**{each.heading}.** {markdown(each.text)}" for each in report.methods)
    claims = "\n".join(map(formats.verdict_as_markdown, report.claims))
    sections = {
        "Asked": _bullets(summary.asked),
        "Found": _bullets([*report.warnings, *summary.found]),
        "Tables": formats.as_markdown(report.every_table).rstrip(),
        "The paper's claims": claims,
        "Methods (to be completed)": methods,
        "Limits": _bullets(summary.limits),
    }
    head = f"# {markdown(summary.title)}\n\n{markdown(summary.subtitle)}"
    return "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in sections.items() if text)]) + "\n"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(each)}" for each in sentences)


def as_latex(report: Report) -> str:
    """Tables and a methods section for a paper; they need only the booktabs package."""
    methods = [rf"\paragraph{{{formats.latex(each.heading)}.}} {formats.latex(each.text)}" for each in report.methods]
    return "\n".join([formats.as_latex(report.every_table), r"\section*{Methods}", *methods, ""])
