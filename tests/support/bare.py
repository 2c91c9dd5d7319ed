"""A machine on which only what the learning layer needs is installed, and what that needs."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from repository import ROOT

NEEDED = ("torch", "timm", "numpy", "pillow", "pyarrow", "scikit-learn")
OURS = ("pipeline", "cass_pipeline")
HIDE = """from importlib.machinery import PathFinder

found = PathFinder.find_spec
hidden = {hidden!r}
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else found(name, *rest)
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of processes that find nothing else; what hides it is written to the folder."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden()))
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def hidden() -> set[str]:
    """The names under which everything else that is installed here is imported."""
    there = {_plain(name) for name in with_dependencies(NEEDED)}
    names = metadata.packages_distributions().items()
    return {name for name, owners in names if there.isdisjoint(map(_plain, owners))} - {*OURS}


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """Distributions that are installed here, with all that they require."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = _plain(todo.pop())
        if name not in found and any(True for _ in metadata.distributions(name=name)):
            found.add(name)
            wanted = map(Requirement, metadata.requires(name) or [])
            todo += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
