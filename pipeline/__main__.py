"""List all commands: `python -m pipeline`."""

from __future__ import annotations

import ast
import shlex
import sys
from pathlib import Path

GROUPS = {
    "get data": ("download", "verify", "standin", "shard"),
    "train": ("prefetch", "launch", "cancel"),
    "look": ("status", "logs", "report", "figures"),
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


def main(arguments: list[str]) -> int:
    """Print the list; for a command's name or an unknown word, print how to call a command and return 2."""
    word = arguments[0] if arguments else "--help"
    if word in ("--help", "-h"):
        print(listing())
        return 0
    if word in COMMANDS:
        print(f"error: write a dot, not a space: python -m pipeline.{shlex.join(arguments)}", file=sys.stderr)
    else:
        print(f"error: there is no command {word!r}\n\n{listing()}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
