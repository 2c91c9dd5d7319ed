"""Reference pages made from the code: commands from their parsers, cluster keys and Spec fields from dataclasses."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import api
from pipeline.__main__ import COMMANDS, GROUPS, first_line
from pipeline.runs import cluster, spec

COMMANDS_FOLDER = "reference/commands"
SAID = 6  # lines of a cell's text that the page of the notebook shows
NOTEBOOK = Path(__file__).parents[1] / "own_images.ipynb"


def pages() -> dict[str, str]:
    """Every generated page: its path in the site and its Markdown."""
    out = {f"{COMMANDS_FOLDER}/index.md": _commands(), "reference/cluster.md": _cluster(), "reference/spec.md": _spec()}
    out |= {"reference/interface.md": _interface(), "own_images.md": _notebook()}
    return out | {f"{COMMANDS_FOLDER}/{name}.md": command_page(name) for name in COMMANDS}


def _commands() -> str:
    lines = [
        "# Commands",
        "",
        "`python -m pipeline` prints this list; an installed wheel has them as `cass-pipeline NAME`.",
    ]
    for group, names in GROUPS.items():
        lines += ["", f"## {group.capitalize()}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`{name}`](./{name}.md) | {_cell(first_line(name))} |" for name in names]
    return "\n".join(lines) + "\n"


def command_page(name: str) -> str:
    """A command's description, examples and options, as `--help` gives them."""
    parser = importlib.import_module(f"pipeline.{name}").parser()
    lines = [f"# {name}", ""]
    for block in re.split(r"\n\s*\n", (parser.description or "").strip()):
        lines += [*_block(block), ""]
    first, *others = parser.format_usage().removeprefix("usage: ").rstrip().splitlines()
    lines += [f"An installed wheel has it as `cass-pipeline {name}`.", ""]
    lines += ["```", first, *(f"    {line.strip()}" for line in others), "```", ""]
    lines += ["| option | what it does |", "|---|---|", *_options(parser)]
    if parser.epilog:
        lines += ["", "```", *parser.epilog.strip().splitlines(), "```"]
    return "\n".join(lines) + "\n"


def _block(block: str) -> list[str]:
    """A paragraph as it is; commands and other indented lines as code."""
    rows = block.splitlines()
    is_code = all(row.startswith(("    ", "python -m ")) for row in rows)
    return ["```", *(row.strip() for row in rows), "```"] if is_code else rows


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in sorted(parser._actions, key=lambda action: action.dest in ("quiet", "json")):  # those last
        if action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(f"`{text}`" for text in action.option_strings)
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if not names:
            names = f"`{value}`"
        elif action.nargs != 0:
            names += " " + (", ".join(f"`{choice}`" for choice in action.choices) if action.choices else f"`{value}`")
        yield f"| {_cell(names)} | {_cell(formatter._expand_help(action) if action.help else '')} |"


def _cluster() -> str:
    lines = [
        "# Cluster file",
        "",
        "A TOML file in `slurm/` says where runs happen; nothing in it changes a run's id. `--cluster NAME` names it.",
        "[The cluster file](../cluster_file.md) says how to write one.",
        "",
    ]
    tables = {
        field.name: kind for field in dataclasses.fields(cluster.Cluster) if (kind := _dataclass_of(field, cluster))
    }
    lines += ["## Keys", "", *_fields(cluster.Cluster, leave_out=set(tables))]
    for name, kind in tables.items():
        lines += ["", f"## [{name}]", "", inspect.getdoc(kind) or "", "", *_fields(kind)]
    return "\n".join(lines) + "\n"


def _spec() -> str:
    lines = ["# Spec of a run", "", inspect.getdoc(spec) or ""]
    kinds = [kind for kind in vars(spec).values() if inspect.isclass(kind) and dataclasses.is_dataclass(kind)]
    for kind in reversed([kind for kind in kinds if kind.__module__ == spec.__name__]):  # the whole before its parts
        lines += ["", f"## {kind.__name__}", "", inspect.getdoc(kind) or "", "", *_fields(kind)]
    return "\n".join(lines) + "\n"


def _interface() -> str:
    """Every public name of the Python interface: its signature and docstring, and those of a class's methods."""
    lines = ["# The interface in detail", "", inspect.getdoc(api) or ""]
    for name in api.__all__:
        value = getattr(api, name)
        lines += ["", f"## {name}", "", *_documented(name, value)]
        if inspect.isclass(value):
            for below, part in vars(value).items():
                if inspect.isfunction(part) and not below.startswith("_"):
                    lines += ["", f"### {name}.{below}", "", *_documented(f"{name}.{below}", part)]
    return "\n".join(lines) + "\n"


def _documented(name: str, value: Callable[..., object]) -> list[str]:
    try:
        call = f"{name}{inspect.signature(value)}"
    except ValueError:  # a class without one
        call = name
    return ["```python", call.replace("'", ""), "```", "", inspect.getdoc(value) or ""]


def _notebook() -> str:
    """The notebook's cells as a page, with the outputs that it is stored with."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    lines = []
    for cell in cells:
        text = "".join(cell["source"])
        lines += [text, ""] if cell["cell_type"] == "markdown" else ["```python", text, "```", ""]
        lines += _outputs(cell.get("outputs", []))
    return "\n".join(lines) + "\n"


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a cell gave: a figure, a table, or text, of which the last lines."""
    said = "".join("".join(each.get("text", "")) for each in outputs).splitlines()
    for data in (each["data"] for each in outputs if "data" in each):
        if "image/png" in data:
            encoded = "".join(data["image/png"]).replace("\n", "")
            yield f'<img alt="the figure that this cell draws" src="data:image/png;base64,{encoded}">\n'
        elif "text/html" in data:
            table = re.sub(r"<style.*?</style>|\n\s*", "", "".join(data["text/html"]), flags=re.DOTALL)
            yield re.sub(r"<table[^>]*>", "<table>", table) + "\n"
        else:
            said += "".join(data["text/plain"]).splitlines()
    if said:
        shown = said if len(said) <= SAID else ["…", *said[-SAID:]]
        yield "\n".join(["```text", *shown, "```", ""])


def _dataclass_of(field: dataclasses.Field[object], module: object) -> type | None:
    kind = getattr(module, str(field.type), None)
    return kind if inspect.isclass(kind) and dataclasses.is_dataclass(kind) else None


def _fields(kind: type, leave_out: set[str] = frozenset()) -> list[str]:
    """A table of a dataclass's fields: name, type, default, and the text below each in the source."""
    texts = field_texts(kind)
    lines = ["| key | type | default | what it says |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.name not in leave_out:
            values = (f"`{field.name}`", f"`{field.type}`", _default(field), texts.get(field.name, ""))
            lines.append("| " + " | ".join(map(_cell, values)) + " |")
    return lines


def field_texts(kind: type) -> dict[str, str]:
    """The text below each field of a class in its source."""
    [body] = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    out = {}
    for field, text in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            out[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    return out


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"


def _cell(text: str) -> str:
    """One cell of a Markdown table: in one line, with no character that ends it."""
    return " ".join(text.split()).replace("|", "\\|")
