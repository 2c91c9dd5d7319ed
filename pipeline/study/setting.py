"""The setting of an experiment (dataset, seed, preset, scale) and the table entries that its runs fill."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.runs.spec import DatasetRef, FinetuneSpec, Optim, PretrainSpec
from pipeline.study import paper, recipes
from pipeline.study.paper import Backbone, Preset

ARMS = ("CNN", "Transformer")
SPLIT_MODES = ("image", "grouped")  # of `shard --split`


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as a grid sees it; the fingerprint is empty while its shards are missing."""

    ref: DatasetRef
    label_fractions: tuple[float, ...]
    metric: str
    stand_in: bool = False
    """Whether its images are drawn and only have the files and folders of the dataset."""
    without_labels: tuple[str, ...] = ()
    """The splits without a labelled image: with any of them no fine-tuning can start."""
    gaps: tuple[str, ...] = ()
    """What scores do not cover: sentences about classes that a split has no image of."""
    split: str = ""
    """`image` or `grouped`, where a grid has both shards of its dataset."""
    version: str = ""
    """The first digits of its fingerprint, where a grid has several shards of one dataset and split."""
    grouped: bool = False
    """Whether its shards are split by groups, which is not the paper's split."""

    @property
    def title(self) -> str:
        """Its name in tables and files: `brain_mri`, or what tells it from others: `brain_mri-grouped-63075401`."""
        return "-".join(filter(None, (self.ref.name, self.split, self.version)))


@dataclass(frozen=True)
class Chosen:
    """Which shards of a dataset a grid is to have."""

    name: str
    split: str
    version: str = ""
    """The first digits of the fingerprint; empty: the newest shards."""
    several_splits: bool = False
    """Whether the grid has both splits of the dataset."""
    several_versions: bool = False
    """Whether it has several shards of this split."""
    usual: bool = field(default=False, compare=False)
    """Whether the split is the usual one because the text names none."""


def chosen_shards(datasets: Sequence[str], usual: str) -> list[Chosen]:
    """The shards that each text means: `brain_mri`, whose split is the usual one, `brain_mri:grouped`, or
    `brain_mri:grouped@63075401` with the first digits of a fingerprint. `ValueError` for an unknown split, and for what
    is no such digits.
    """
    out = []
    for text in datasets:
        rest, at, version = text.partition("@")
        name, _, split = rest.partition(":")
        if split not in ("", *SPLIT_MODES):
            raise ValueError(f"{text}: there is no split {split!r}; known: {', '.join(SPLIT_MODES)}")
        if at and not re.fullmatch("[0-9a-f]{4,16}", version):
            raise ValueError(f"{text}: {version!r} is not how a fingerprint begins; give 4 to 16 of its digits")
        out.append(Chosen(name, split or usual, version, usual=not split))
    out = list(dict.fromkeys(out))
    splits = {name: len({one.split for one in out if one.name == name}) for name in (one.name for one in out)}
    same = [(one.name, one.split) for one in out]
    return [
        replace(one, several_splits=splits[one.name] > 1, several_versions=same.count((one.name, one.split)) > 1)
        for one in out
    ]


@dataclass(frozen=True)
class TableEntry:
    """A fine-tuning run and where its score goes: one seed of one cell of a table."""

    experiment: str
    row: tuple[str, ...]
    column: str
    spec: FinetuneSpec
    key: str
    """The row as the paper prints it; a smaller scale may show other names."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size at which experiments run: the paper's, or smaller so that all of them can be tried."""

    image_size: int = paper.IMAGE_SIZE
    stand_ins: Mapping[Backbone, Backbone] = field(default_factory=dict)
    """Smaller backbones in place of the paper's."""
    weights: str | None = None
    """Start weights of every backbone without given ones; None: as the experiment says."""
    epochs: int = paper.PRETRAIN_EPOCHS
    """Of a standard pretraining run; the others keep their ratio to it."""
    pretrain_optim: Optim = paper.PRETRAIN_OPTIM
    dino_optim: Optim = paper.DINO_OPTIM
    finetune_optim: Optim = paper.FINETUNE_OPTIM
    finetune_epochs: int = paper.FINETUNE_EPOCHS
    pictures: int | None = None
    """The maximum number of training images of a pretraining run."""
    dino_options: Mapping[str, int] = field(default_factory=dict)
    guard_epochs: int | None = None
    """Epochs of CASS with a guard, on all training images; None: the paper's alone."""
    guard_rates: Mapping[str, float] = field(default_factory=lambda: recipes.GUARD_RATES)
    """Its learning rate by the role of a backbone."""
    controls: bool = False
    """Whether the main experiment has the controls of CASS."""

    def backbone(self, wanted: Backbone) -> Backbone:
        """The backbone that this scale takes in place of one of the paper's."""
        return self.stand_ins.get(wanted, wanted) if self.stand_ins else wanted

    def epochs_of(self, epochs: int) -> int:
        """The epochs of a pretraining run that has so many in the paper; at least one."""
        return max(1, round(epochs * self.epochs / paper.PRETRAIN_EPOCHS))


FULL = Scale()


@dataclass(frozen=True)
class Setting:
    """What the runs of an experiment have in common: one dataset, seed, preset and scale."""

    dataset: DatasetInfo
    seed: int
    preset: Preset
    scale: Scale

    def title(self, backbone: Backbone) -> str:
        """The name in tables of the backbone that this scale takes in place of one of the paper's."""
        return self.scale.backbone(backbone).title

    def cass(self, *pair: Backbone, weights: str | None = None) -> PretrainSpec:
        """CASS with the standard pair of backbones, or another; `weights` is what they start from."""
        backbones = [self._starting(backbone, weights) for backbone in pair or paper.STANDARD]
        spec = recipes.cass(self.dataset.ref, backbones, preset=self.preset, seed=self.seed)
        return self._scaled(spec, self.scale.pretrain_optim)

    def cass_vc(self, epochs: int) -> PretrainSpec:
        """CASS with a guard, with the standard pair of backbones."""
        backbones = [self._starting(backbone) for backbone in paper.STANDARD]
        spec = recipes.cass_vc(self.dataset.ref, backbones, seed=self.seed, rates=self.scale.guard_rates)
        return replace(spec, epochs=epochs, image_size=self.scale.image_size)

    def dino(self, backbone: Backbone) -> PretrainSpec:
        """DINO by the implementation that the paper names."""
        spec = recipes.dino(self.dataset.ref, self._starting(backbone), preset=self.preset, seed=self.seed)
        return recipes.with_options(self._scaled(spec, self.scale.dino_optim), self.scale.dino_options)

    def finetune(
        self,
        backbone: Backbone,
        pretrain: PretrainSpec | None,
        *,
        label_fraction: float = 1.0,
        arm: str | None = None,
        weights: str | None = None,
    ) -> FinetuneSpec:
        """The fine-tune of a backbone of the paper; supervised without a pretraining run."""
        spec = recipes.finetune(
            self.dataset.ref,
            self._starting(backbone, weights),
            pretrain,
            preset=self.preset,
            seed=self.seed,
            label_fraction=label_fraction,
            arm=arm,
        )
        scale = self.scale
        if scale is FULL:
            return spec
        return replace(spec, optim=scale.finetune_optim, epochs=scale.finetune_epochs, image_size=scale.image_size)

    def both_arms(
        self,
        experiment: str,
        row: tuple[str, ...],
        pretrain: PretrainSpec,
        *pair: Backbone,
        columns: Sequence[str] = ARMS,
        key: str = "",
        weights: str | None = None,
    ) -> list[TableEntry]:
        """A row of two cells: both arms of a pretraining run, fine-tuned with all labels."""
        pair = pair or paper.STANDARD
        return [
            TableEntry(
                experiment, row, column, self.finetune(b, pretrain, arm=arm.name, weights=weights), key or key_of(row)
            )
            for b, arm, column in zip(pair, pretrain.arms, columns, strict=True)
        ]

    def _starting(self, backbone: Backbone, weights: str | None = None) -> Backbone:
        """The backbone that this scale takes, with the weights that it starts from."""
        chosen = self.scale.backbone(backbone)
        weights = self.scale.weights or weights
        return replace(chosen, weights=weights) if weights and not chosen.given else chosen

    def _scaled(self, spec: PretrainSpec, optim: Optim) -> PretrainSpec:
        """A standard pretraining run at this scale."""
        scale = self.scale
        if scale is FULL:
            return spec
        smaller = replace(
            spec, epochs=scale.epochs_of(spec.epochs), image_size=scale.image_size, pictures=scale.pictures
        )
        return recipes.with_optim(smaller, optim)


def key_of(row: Sequence[str]) -> str:
    """A row's names as `results/printed.csv` writes them."""
    return " | ".join(row)


def percent(fraction: float) -> str:
    """`1%`, `100%`, `0.5%`."""
    return f"{fraction * 100:g}%"
