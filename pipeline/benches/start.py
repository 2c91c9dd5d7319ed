"""Starting: what a person waits for before anything happens."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from pipeline.benches.base import Bench, Table, Way, compare, seconds

TITLE = "doors and imports, as whole processes"


def run(bench: Bench) -> list[Table]:
    """Seconds of whole processes: the doors that must answer at once, and what they therefore do not import."""
    doors = [["launch", "--help"], ["launch", "--grid", "main", "--dry-run"], ["status", "--grid", "main"]]
    imports = ["import torch", "import timm"] if bench.quick else ["import torch", "import timm", "import ray.tune"]

    def process(*arguments: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, *arguments], capture_output=True, cwd=bench.scratch))

    ways = [Way(name=" ".join(door), once=partial(process, "-m", f"pipeline.{door[0]}", *door[1:])) for door in doors]
    ways += [Way(name=line, once=partial(process, "-c", line), role="peer") for line in imports]
    ways += [Way(name="python alone", once=partial(process, "-c", "pass"), role="limit")]
    return [compare("start", "seconds", ways, bench, more_is_better=False)]
