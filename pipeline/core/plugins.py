"""Plugins by name: each module of a plugin package is one plugin, and people ask for it by the module's name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType


class Plugins:
    """The plugins of a package: its modules. Shared code is in a package inside it (`support`) or outside of it."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.kind = package.rpartition(".")[2]

    def names(self) -> list[str]:
        """The names of all plugins, sorted; imports none of them."""
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        return sorted(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations) if not m.ispkg)

    def check(self, name: str) -> str:
        """Return the name; raise `ValueError` with the known names if there is no such plugin."""
        names = self.names()
        if name not in names:
            raise ValueError(f"there is no {name!r} among {self.kind}; known: {', '.join(names)}")
        return name

    def find(self, name: str) -> ModuleType:
        """Import and return the plugin's module; raises what `check` raises."""
        return importlib.import_module(f"{self.package}.{self.check(name)}")


def load_file(path: Path) -> ModuleType:
    """Import a user's own plugin from a Python file; raises `ValueError` if there is no such file."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of a Python file or one of the known names")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
