"""What commands there are: `python -m pipeline`."""

from __future__ import annotations

import ast
from pathlib import Path

GROUPS = {
    "get data": ("download", "verify", "standin", "shard"),
    "train": ("prefetch", "launch", "cancel"),
    "look": ("status", "logs", "report", "figures"),
    "use": ("export", "predict"),
    "look after": ("clean", "bench"),
}


def described(command: str) -> str:
    """The first sentence of a command's docstring, read from its file: nothing is imported."""
    source = (Path(__file__).parent / f"{command}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.splitlines()[0].rstrip(".")


def main() -> None:
    """Print every command with one line on it."""
    print("usage: python -m pipeline.COMMAND [--help] ...\n\nCASS-Pipeline, from raw images to results tables.")
    for group, commands in GROUPS.items():
        print(f"\n{group}")
        for command in commands:
            print(f"  {command:<10} {described(command)}")


if __name__ == "__main__":
    main()
