"""The plan of one run, for a report of it alone: the run, and the pretraining run that it starts from."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.datasets import DATASETS
from pipeline.data.shards.index import shards_of
from pipeline.jobs.datasets import info_of
from pipeline.jobs.plan import Plan, PlannedRun, state_of
from pipeline.runs.cluster import Cluster
from pipeline.runs.folder import Run
from pipeline.runs.identity import run_id
from pipeline.runs.spec import DatasetRef, FinetuneSpec, Spec
from pipeline.study import paper
from pipeline.study.experiments import plain_entries
from pipeline.study.paper import Preset
from pipeline.study.setting import DatasetInfo


def plan_of_run(run: Run, cluster: Cluster) -> Plan:
    """A plan of that run; its grid is called as the run. The runs and shards are those of the cluster's folders.

    Raises `ValueError` where spec.json is not that of the run.
    """
    spec = run.spec
    info = _info(Path(cluster.shards), spec)
    out = Plan(run.id, cluster, _preset(spec), [info], [])
    parent = spec.pretrain if isinstance(spec, FinetuneSpec) else None
    if parent is not None:
        source = Run(run.folder.parent / run_id(parent))
        out.runs[source.id] = PlannedRun(source, parent, state_of(source, parent), None, children=1)
    if isinstance(spec, FinetuneSpec):
        out.entries = plain_entries([spec])
    else:
        out.pretrains = [spec]
    out.runs[run.id] = PlannedRun(run, spec, state_of(run, spec), run_id(parent) if parent else None)
    return out


def _info(root: Path, spec: Spec) -> DatasetInfo:
    """What the shards say; without them what the dataset's plugin says, and else F1 (macro)."""
    fraction = spec.label_fraction if isinstance(spec, FinetuneSpec) else 1.0
    try:
        return info_of(shards_of(root, spec.dataset, size=spec.image_size))
    except (ValueError, FileNotFoundError):
        return DatasetInfo(spec.dataset, (fraction,), _metric(spec.dataset))


def _metric(ref: DatasetRef) -> str:
    return DATASETS.find(ref.name).DATASET.metric if ref.name in DATASETS.names() else "f1_macro"


def _preset(spec: Spec) -> Preset:
    """The preset whose loss and stopping a fine-tune has: it says which metric its tables show. Else the paper's."""
    if isinstance(spec, FinetuneSpec):
        for preset in paper.PRESETS.values():
            if (preset.loss, preset.stopping) == (spec.loss, spec.stopping):
                return preset
    return paper.preset("paper")
