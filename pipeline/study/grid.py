"""Grids: named sets of runs. Each experiment of the paper is one; others are plugins in `grids/` or users' files."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.core import plugins
from pipeline.learn import weights
from pipeline.runs.spec import FinetuneSpec, PretrainSpec, Spec
from pipeline.study import paper
from pipeline.study.experiments import EXPERIMENTS, datasets_of, entries_of, plain_entries
from pipeline.study.grid_file import read_grid
from pipeline.study.grids import GRIDS
from pipeline.study.names import known_grids
from pipeline.study.paper import Backbone, Preset
from pipeline.study.renames import explained
from pipeline.study.setting import DatasetInfo, TableEntry

Build = Callable[[Sequence[DatasetInfo], Sequence[int], Preset, Mapping[str, Backbone]], Sequence[TableEntry | Spec]]


@dataclass(frozen=True)
class Grid:
    """A named set of runs, with what it takes unless a command says otherwise."""

    name: str
    datasets: tuple[str, ...]
    seeds: int
    image_size: int
    """Pixels on a side; the shards of this size are used."""
    build: Build
    """The runs for some datasets, seeds, a preset and networks with given weights: table entries, or specs alone."""
    weights: tuple[str, ...] = ()
    """The names of the start weights that it gets as networks."""

    def entries(self, datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
        """The table entries of its fine-tunes, without networks with given weights."""
        return self.runs(datasets, seeds, preset)[0]

    def runs(
        self,
        datasets: Sequence[DatasetInfo],
        seeds: Sequence[int],
        preset: Preset,
        weights: Mapping[str, Backbone] | None = None,
    ) -> tuple[list[TableEntry], list[PretrainSpec]]:
        """The table entries of its fine-tunes, and the pretraining runs that it wants for themselves."""
        built = self.build(datasets, seeds, preset, weights or {})
        entries = [one for one in built if isinstance(one, TableEntry)]
        entries += plain_entries([one for one in built if isinstance(one, FinetuneSpec)])
        return entries, [one for one in built if isinstance(one, PretrainSpec)]


def load_grid(name: str) -> Grid:
    """A grid by name, or a user's own by the path of its TOML file (`grid_file`) or its Python file.

    A Python file has DATASETS (names), SEEDS (how many), IMAGE_SIZE and one of two functions of (datasets, seeds,
    preset): `entries`, which returns table entries, or `grid`, which returns specs. It may have WEIGHTS (names of start
    weights) and a fourth parameter `weights`, the networks with them by name. `ValueError` for an unknown name, a file
    that lacks any of these, one that uses names of earlier versions, and one whose code fails.
    """
    if name.endswith(".toml"):
        own = read_grid(Path(name))
        return Grid(Path(name).stem, own.datasets, own.seeds, own.image_size, own.entries)
    if name.endswith(".py"):
        with _own_code(name):
            module = plugins.load_file(Path(name))
        return _of_module(name, module)
    if name not in known_grids():
        raise ValueError(f"there is no {name!r} among grids; known: {', '.join(known_grids())}")
    if name in GRIDS.names():
        return _of_module(name, GRIDS.find(name))
    experiments = [experiment for experiment in EXPERIMENTS if _grid_of(experiment) == name]
    build = _with_weights(name, entries_of(*experiments))
    return Grid(name, datasets_of(*experiments), len(paper.SEEDS), paper.IMAGE_SIZE, build)


def network(name: str, folder: Path) -> Backbone:
    """The network with the start weights of that name in the site's folder; raises as `weights.known`."""
    found = weights.known(name, folder)
    tag = found.backbone
    return Backbone(tag, tag.split(".")[0], found.role, weights="given", given=found.weights)


@contextlib.contextmanager
def _own_code(name: str) -> Iterator[None]:
    """Turn an error in the code of a user's grid file into a `ValueError` that names its line."""
    try:
        with explained(name):
            yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        if not name.endswith(".py"):
            raise
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename) == Path(name)]
        where = f"{name}, line {lines[-1]}" if lines else name
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def _grid_of(experiment: str) -> str:
    return EXPERIMENTS[experiment].grid or experiment


def _of_module(name: str, module: ModuleType) -> Grid:
    """The grid that a module describes; `ValueError` if it lacks anything."""
    listing: Callable[..., Any] | None = getattr(module, "entries", None) or getattr(module, "grid", None)
    if hasattr(module, "places") and not hasattr(module, "entries"):
        raise ValueError(
            f"{name} defines places(datasets, seeds, preset), which is now entries(datasets, seeds, preset) of values "
            "pipeline.study.setting.TableEntry; docs/renames.md lists the names that changed"
        )
    lacking = [item for item in ("DATASETS", "SEEDS", "IMAGE_SIZE") if not hasattr(module, item)]
    lacking += ["entries(datasets, seeds, preset)"] if listing is None else []
    if listing is None or lacking:
        raise ValueError(f"{name} lacks {', '.join(lacking)}; pipeline/study/grids/small.py is one to copy")

    build, names = _with_weights(name, listing), tuple(getattr(module, "WEIGHTS", ()))
    return Grid(Path(name).stem, tuple(module.DATASETS), module.SEEDS, module.IMAGE_SIZE, build, names)


def _with_weights(name: str, listing: Callable[..., Any]) -> Build:
    """The function of a grid as one of four arguments; `ValueError` for weights where it does not take any."""
    takes = "weights" in inspect.signature(listing).parameters

    def build(
        datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset, weights: Mapping[str, Backbone]
    ) -> Sequence[TableEntry | Spec]:
        if weights and not takes:
            raise ValueError(
                f"the grid {name} takes no weights ({', '.join(weights)}); frozen, small and demo do, and a file of "
                "yours whose function has a fourth parameter `weights`"
            )
        with _own_code(name):
            return list(listing(datasets, seeds, preset, *([weights] if takes else [])))  # it may be a generator

    return build
