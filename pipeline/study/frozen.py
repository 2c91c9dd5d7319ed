"""Rows of frozen features: what a table shows of networks that are not fine-tuned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.runs.methods import method_info
from pipeline.runs.spec import PretrainSpec
from pipeline.study import paper
from pipeline.study.paper import Backbone
from pipeline.study.setting import Setting, TableEntry, percent


def frozen_entries(
    s: Setting,
    *pretrained: PretrainSpec,
    weights: Iterable[Backbone] = (),
    experiment: str = "frozen",
    backbones: Sequence[Backbone] = paper.STANDARD,
) -> list[TableEntry]:
    """k-NN and a linear classifier on frozen features at every label fraction: of both start weights (or the scale's
    own), of the arms of these pretraining runs, and of networks with given `weights`. `experiment` says whose table the
    rows are in; `backbones` are those of the rows without given weights."""
    out = []
    for backbone in backbones:
        for source, chosen in (("random", "random"), ("ImageNet", "imagenet")):
            if s.scale.weights in (None, chosen):
                out += _frozen_rows(s, source, backbone, None, experiment, chosen)
        for run in pretrained:
            if backbone.role in [arm.name for arm in run.arms]:
                out += _frozen_rows(s, method_info(run.method.name).title, backbone, run, experiment)
    for backbone in weights:
        assert backbone.given is not None
        out += _frozen_rows(s, backbone.given.name, backbone, None, experiment)
    return out


def _frozen_rows(
    s: Setting, source: str, backbone: Backbone, run: PretrainSpec | None, experiment: str, weights: str | None = None
) -> list[TableEntry]:
    """The rows of one network, by classifier."""
    out = []
    for probe, title in (("knn", "k-NN"), ("linear", "linear")):
        row = (f"Frozen {source}, {title}", s.title(backbone))
        for fraction in s.dataset.label_fractions:
            spec = s.finetune(backbone, run, label_fraction=fraction, weights=weights)
            spec = replace(spec, probe=probe, epochs=1, val_fraction=1.0)  # nothing stops early
            out.append(TableEntry(experiment, row, percent(fraction), spec, ""))
    return out
