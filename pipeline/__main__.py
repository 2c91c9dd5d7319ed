"""List all commands: `python -m pipeline`. The installed command `cass-pipeline` also runs them."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import TextIO

GROUPS = {
    "start": ("init", "completion"),
    "get data": ("download", "verify", "standin", "shard"),
    "train": ("prefetch", "launch", "cancel"),
    "look": ("status", "logs", "report", "figures", "track"),
    "use": ("export", "predict", "evaluate", "embed"),
    "look after": ("clean", "bench"),
}
COMMANDS = [command for commands in GROUPS.values() for command in commands]


def listing() -> str:
    """Every command with one line about it, in groups."""
    lines = ["usage: python -m pipeline.COMMAND [--help] ...", "", "CASS-Pipeline, from raw images to results tables."]
    for group, commands in GROUPS.items():
        lines += ["", group, *(f"  {command:<10} {first_line(command)}" for command in commands)]
    return "\n".join(lines)


def first_line(command: str) -> str:
    """The first line of a command's docstring, read from its file: nothing is imported."""
    source = (Path(__file__).parent / f"{command}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.partition("\n")[0]


def version() -> str:
    """The version of the installed package."""
    from importlib import metadata  # the list does not wait for it

    try:
        return metadata.version("cass-pipeline")
    except metadata.PackageNotFoundError:  # a copied folder, such as a job's snapshot
        return "of an unknown version: it is not installed"


def main(arguments: list[str]) -> int:
    """Print the list; for a command's name or an unknown word, print how to call a command and return 2."""
    word = arguments[0] if arguments else "--help"
    if word in ("--help", "-h"):
        print(listing())
        return 0
    if word == "--version":
        print(f"cass-pipeline {version()}")
        return 0
    if word in COMMANDS:
        print(f"error: write a dot, not a space: python -m pipeline.{shlex.join(arguments)}", file=sys.stderr)
    else:
        print(f"error: there is no command {word!r}\n\n{listing()}", file=sys.stderr)
    return 2


def command() -> None:
    """`cass-pipeline COMMAND ...` is `python -m pipeline.COMMAND ...`, also where the current folder has a pipeline.py.

    Processes that it starts do not search the current folder either, from Python 3.11 on.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    for stream in (sys.stdout, sys.stderr):
        _say_as_called(stream)
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word not in COMMANDS:
        sys.exit(main(sys.argv[1:]))
    del sys.argv[1]
    runpy.run_module(f"pipeline.{word}", run_name="__main__", alter_sys=True)


def _say_as_called(stream: TextIO) -> None:
    """Let messages name commands as they are called here: this `python` may not be the one that has the package."""
    written, calls = stream.write, re.compile(r"python -m pipeline(?:\.|(?=\s|$|[`'\"]))")

    def write(text: str) -> int:
        written(calls.sub(lambda found: "cass-pipeline " if found[0].endswith(".") else "cass-pipeline", text))
        return len(text)

    stream.write = write  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
