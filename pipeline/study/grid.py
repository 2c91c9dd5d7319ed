"""Grids: named sets of runs. Each experiment of the paper is one; others are plugins in `grids/` or files of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipeline.core import plugins
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, datasets_of, entries_of, plain_entries
from pipeline.study.grids import GRIDS
from pipeline.study.names import known_grids
from pipeline.study.paper import Preset
from pipeline.study.renames import explained
from pipeline.study.setting import DatasetInfo, TableEntry

Build = Callable[[Sequence[DatasetInfo], Sequence[int], Preset], Sequence[TableEntry | Spec]]


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


def load_grid(name: str) -> Grid:
    """A grid by name, or a user's own by the path of its Python file.

    A file has DATASETS (names), SEEDS (how many), IMAGE_SIZE and one of two functions of (datasets, seeds, preset):
    `entries`, which returns table entries, or `grid`, which returns specs. `ValueError` for an unknown name, a file
    that lacks any of these, and one that uses names of earlier versions.
    """
    if name.endswith(".py"):
        with explained(name):
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
    if hasattr(module, "places") and not hasattr(module, "entries"):
        raise ValueError(
            f"{name} defines places(datasets, seeds, preset), which is now entries(datasets, seeds, preset) of values "
            "pipeline.study.setting.TableEntry; docs/renames.md lists the names that changed"
        )
    lacking = [item for item in ("DATASETS", "SEEDS", "IMAGE_SIZE") if not hasattr(module, item)]
    lacking += ["entries(datasets, seeds, preset)"] if listing is None else []
    if listing is None or lacking:
        raise ValueError(f"{name} lacks {', '.join(lacking)}; pipeline/study/grids/small.py is one to copy")

    def build(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> Sequence[TableEntry | Spec]:
        with explained(name):
            return list(listing(datasets, seeds, preset))  # it may be a generator

    return Grid(Path(name).stem, tuple(module.DATASETS), module.SEEDS, module.IMAGE_SIZE, build)
