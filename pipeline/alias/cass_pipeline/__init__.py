"""The Python interface under a name that is no common word: `from cass_pipeline import results`.

It is `pipeline.api`, whose documentation says what each name does. A `pipeline.py` of the user's own in the current
folder does not get in its way.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import *  # noqa: F403


def _find_package() -> None:
    """Make `pipeline` the package that this module came with, in this process and in those that it starts."""
    package = next(p / "pipeline" for p in Path(__file__).resolve().parents if (p / "pipeline" / "api").is_dir())
    loaded = sys.modules.get("pipeline")
    if loaded is None:
        found = importlib.util.find_spec("pipeline")
        if found is None or not found.origin or Path(found.origin).resolve().parent != package:
            sys.path.insert(0, str(package.parent))
            os.environ["PYTHONSAFEPATH"] = "1"  # `python -m` of processes that it starts; from Python 3.11 on
        return
    origin = getattr(loaded, "__file__", None)
    if not origin or Path(origin).resolve().parent != package:
        raise ImportError(f"a module `pipeline` is loaded from {origin}; import cass_pipeline before it, or rename it")


_find_package()

from pipeline import api as _api  # noqa: E402

__all__ = _api.__all__  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """The public name of `pipeline.api`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(_api, name)


def __dir__() -> list[str]:
    return list(__all__)
