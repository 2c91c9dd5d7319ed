"""The Python interface, for notebooks and scripts: `from cass_pipeline import results`, or `from pipeline import api`.

Only the names in `__all__` are public. They keep their names, parameters and results within a major version;
CHANGELOG.md says when one changes. Importing this module imports nothing else: each name is found when it is first
used, and torch is imported by what needs a network. `cluster` is always a cluster file, by name or path, as
`--cluster` of the commands; its folders (shards, runs, weights) start at the current folder. What is wrong with an
argument is a `ValueError` whose text has the value and the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.images import shard_images, torch_dataset, web_dataset
    from pipeline.api.networks import TrainedNetwork, open_network, predict
    from pipeline.api.plans import GridPlan, grids, make_plan
    from pipeline.api.tables import RunRecord, open_run, predictions, results, summary

HOMES = {
    "shard_images": "images",
    "torch_dataset": "images",
    "web_dataset": "images",
    "grids": "plans",
    "make_plan": "plans",
    "GridPlan": "plans",
    "results": "tables",
    "summary": "tables",
    "predictions": "tables",
    "open_run": "tables",
    "RunRecord": "tables",
    "open_network": "networks",
    "predict": "networks",
    "TrainedNetwork": "networks",
}
"""The module of each public name."""
__all__ = [
    "GridPlan",
    "RunRecord",
    "TrainedNetwork",
    "grids",
    "make_plan",
    "open_network",
    "open_run",
    "predict",
    "predictions",
    "results",
    "shard_images",
    "summary",
    "torch_dataset",
    "web_dataset",
]


def __getattr__(name: str) -> Any:
    """The public name, from its module."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
