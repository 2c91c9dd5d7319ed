"""Names of earlier versions that grid files of users may use, and their names now (docs/renames.md)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from types import ModuleType

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
    "pipeline.cluster": "pipeline.runs.cluster",
    "pipeline.methods": "pipeline.learn.methods",
    "pipeline.seeds": "pipeline.core.seeds",
    "pipeline.files": "pipeline.core.files",
    "pipeline.console": "pipeline.core.console",
    "pipeline.weights": "pipeline.learn.weights",
    "pipeline.pretrain": "pipeline.learn.pretrain",
    "pipeline.finetune": "pipeline.learn.finetune",
    "pipeline.trained": "pipeline.models",
    "pipeline.benches": "pipeline.benchmarks",
    "pipeline.data.index": "pipeline.data.shards.index",
    "pipeline.data.read": "pipeline.data.shards.read",
    "pipeline.data.write": "pipeline.data.shards.write",
    "pipeline.data.cache": "pipeline.data.pixel_map",
    "pipeline.runs.Run": "pipeline.runs.folder.Run",
    "pipeline.runs.Result": "pipeline.runs.folder.Result",
    "pipeline.runs.find_run": "pipeline.runs.folder.find_run",
    "pipeline.study.paper.PICTURES": "pipeline.study.paper.IMAGES",
    "pipeline.runs.spec.milestone_of": "pipeline.runs.identity.milestone_of",
    "pipeline.runs.spec.to_json": "pipeline.runs.identity.to_json",
    "pipeline.runs.spec.from_json": "pipeline.runs.identity.from_json",
    "pipeline.runs.spec.imagenet_tags": "pipeline.learn.weights.imagenet_tags",
}


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
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
