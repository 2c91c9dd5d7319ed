"""Grids: named sets of runs. Each experiment of the paper is one; others are plugins in `grids/` or files of users."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipeline.core import plugins
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, datasets_of, entries_of, plain_entries
from pipeline.study.grids import GRIDS
from pipeline.study.paper import Preset
from pipeline.study.setting import DatasetInfo, TableEntry

Build = Callable[[Sequence[DatasetInfo], Sequence[int], Preset], Sequence[TableEntry | Spec]]

# What grid files of users may use under the names that it had before docs/renames.md.
RENAMED = {
    "pipeline.paper": "pipeline.study.paper",
    "pipeline.experiments": "pipeline.study.experiments",
    "pipeline.spec": "pipeline.runs.spec",
    "pipeline.grids": "pipeline.study.grids",
    "pipeline.datasets": "pipeline.data.datasets",
    "pipeline.lookup": "pipeline.core.plugins",
    "pipeline.study.paper.Card": "pipeline.study.setting.DatasetInfo",
    "pipeline.study.paper.cass": "pipeline.study.recipes.cass",
    "pipeline.study.paper.dino": "pipeline.study.recipes.dino",
    "pipeline.study.paper.dino_fb": "pipeline.study.recipes.dino with kind=recipes.FACEBOOK",
    "pipeline.study.paper.finetune": "pipeline.study.recipes.finetune",
    "pipeline.study.paper.arm_names": "pipeline.study.recipes.arm_names",
    "pipeline.study.paper.dino_fb_optim": "pipeline.study.paper.DINO_FB_OPTIM",
    "pipeline.study.experiments.Place": "pipeline.study.setting.TableEntry",
    "pipeline.study.experiments.places": "pipeline.study.experiments.entries_of",
    "pipeline.study.experiments.datasets": "pipeline.study.experiments.datasets_of",
    "pipeline.study.experiments.plain_places": "pipeline.study.experiments.plain_entries",
    "pipeline.study.experiments.TECHNIQUES": "pipeline.runs.methods.method_info",
    "pipeline.runs.spec.run_id": "pipeline.runs.identity.run_id",
    "pipeline.runs.spec.recipe": "pipeline.runs.identity.recipe",
    "pipeline.runs.spec.without_seed": "pipeline.runs.identity.without_seed",
}


@dataclass(frozen=True)
class Grid:
    """A named set of runs, with what it takes unless a command says otherwise."""

    name: str
    datasets: tuple[str, ...]
    seeds: int
    image_size: int
    """Pixels on a side; the shards of this size are used."""
    build: Build
    """The runs for some datasets, seeds and a preset: table entries, or specs alone."""

    def entries(self, datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
        """The table entries of its fine-tunes."""
        return self.runs(datasets, seeds, preset)[0]

    def runs(
        self, datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset
    ) -> tuple[list[TableEntry], list[PretrainSpec]]:
        """The table entries of its fine-tunes, and the pretraining runs that it wants for themselves."""
        built = self.build(datasets, seeds, preset)
        entries = [one for one in built if isinstance(one, TableEntry)]
        entries += plain_entries([one for one in built if isinstance(one, FinetuneSpec)])
        return entries, [one for one in built if isinstance(one, PretrainSpec)]


def known_grids() -> list[str]:
    """The names of all grids, sorted; no plugin is imported."""
    return sorted({*GRIDS.names(), *map(_grid_of, EXPERIMENTS)})


def load_grid(name: str) -> Grid:
    """A grid by name, or a user's own by the path of its Python file.

    A file has DATASETS (names), SEEDS (how many), IMAGE_SIZE and one of two functions of (datasets, seeds, preset):
    `entries`, which returns table entries, or `grid`, which returns specs. `ValueError` for an unknown name, a file
    that lacks any of these, and one that uses names of earlier versions.
    """
    if name.endswith(".py"):
        with _explained(name):
            module = plugins.load_file(Path(name))
        return _of_module(name, module)
    if name not in known_grids():
        raise ValueError(f"there is no {name!r} among grids; known: {', '.join(known_grids())}")
    if name in GRIDS.names():
        return _of_module(name, GRIDS.find(name))
    experiments = [experiment for experiment in EXPERIMENTS if _grid_of(experiment) == name]
    return Grid(name, datasets_of(*experiments), len(paper.SEEDS), paper.IMAGE_SIZE, entries_of(*experiments))


def _grid_of(experiment: str) -> str:
    return EXPERIMENTS[experiment].grid or experiment


def _of_module(name: str, module: ModuleType) -> Grid:
    """The grid that a module describes; `ValueError` if it lacks anything."""
    listing: Build | None = getattr(module, "entries", None) or getattr(module, "grid", None)
    if listing is None and hasattr(module, "places"):
        raise ValueError(
            f"{name} defines places(datasets, seeds, preset), which is now entries(datasets, seeds, preset) of values "
            "pipeline.study.setting.TableEntry; docs/renames.md lists the names that changed"
        )
    lacking = [item for item in ("DATASETS", "SEEDS", "IMAGE_SIZE") if not hasattr(module, item)]
    lacking += ["entries(datasets, seeds, preset)"] if listing is None else []
    if listing is None or lacking:
        raise ValueError(f"{name} lacks {', '.join(lacking)}; pipeline/study/grids/small.py is one to copy")

    def build(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> Sequence[TableEntry | Spec]:
        with _explained(name):
            return listing(datasets, seeds, preset)

    return Grid(Path(name).stem, tuple(module.DATASETS), module.SEEDS, module.IMAGE_SIZE, build)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the use of a name of the package that does not exist into a `ValueError` with its new name."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        missing = _missing(error)
        if not missing.startswith("pipeline."):
            raise
        new = f"is now {RENAMED[missing]}" if missing in RENAMED else "does not exist"
        raise ValueError(f"{name} uses {missing}, which {new}; docs/renames.md lists the names that changed") from error


def _missing(error: ImportError | AttributeError) -> str:
    """The dotted name that was not found; empty where it is not of a module."""
    if isinstance(error, ModuleNotFoundError):
        return error.name or ""
    if isinstance(error, ImportError):
        found = re.match(r"cannot import name '(\w+)'", str(error))
        return f"{error.name}.{found[1]}" if found else ""
    return f"{error.obj.__name__}.{error.name}" if isinstance(error.obj, ModuleType) else ""
