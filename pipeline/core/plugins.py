"""Finding a leaf by name: the module's name is the registry, an unknown name is answered with the known ones."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

SHARED = {"base", "folder", "limits", "load_peers", "paper_loader", "pictures", "plain", "training"}


def known(kind: str) -> list[str]:
    """The leaves of a package of leaves ("datasets", "methods", "grids"), sorted; what they share is none."""
    folder = Path(__file__).parent / kind
    names = {module.name for module in pkgutil.iter_modules([str(folder)])}
    return sorted(names - SHARED)


def checked(kind: str, name: str) -> str:
    """The name, if there is such a leaf; `ValueError` naming the known leaves when there is none."""
    names = known(kind)
    if name not in names:
        raise ValueError(f"there is no {name!r} among {kind}; known: {', '.join(names)}")
    return name


def find(kind: str, name: str) -> ModuleType:
    """The module `pipeline.<kind>.<name>`; raises as `checked`."""
    return importlib.import_module(f"pipeline.{kind}.{checked(kind, name)}")


def load(path: Path) -> ModuleType:
    """A leaf of one's own, from a Python file anywhere."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of a Python file or one of the known names")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
