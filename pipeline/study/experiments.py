"""The experiments of the paper: which run stands in which cell of which table, at the paper's size or a smaller one.

An experiment is a function of a `Setting` (one dataset, seed, reading of the paper and scale) that lists places. Its
table is one of the paper's for the datasets that the paper tried it on; on any other it is the same experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.runs.identity import recipe
from pipeline.runs.spec import Augment, FinetuneSpec, Optim, PretrainSpec, method_of
from pipeline.study import paper
from pipeline.study.paper import Backbone, DatasetInfo, Preset

ARMS = ("CNN", "Transformer")
TECHNIQUES = {"cass": "CASS", "dino": "DINO", "dino_fb": "DINO (authors' recipe)", "supervised": "Supervised"}


@dataclass(frozen=True)
class TableEntry:
    """Where a fine-tuning run stands: one seed of one cell."""

    experiment: str
    row: tuple[str, ...]
    column: str
    spec: FinetuneSpec
    key: str
    """The row as the paper prints it, which a smaller scale may show otherwise."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the experiments are run: as the paper does, or shrunk so that all of it can be tried."""

    image_size: int = paper.IMAGE_SIZE
    stand_ins: Mapping[Backbone, Backbone] = field(default_factory=dict)
    weights: str | None = None
    """Start weights of every backbone; None: as the experiment says."""
    epochs: int = paper.PRETRAIN_EPOCHS
    """Of a standard pretraining run; the others keep their proportion to it."""
    pretrain_optim: Optim = paper.PRETRAIN_OPTIM
    dino_optim: Optim = paper.DINO_OPTIM
    finetune_optim: Optim = paper.FINETUNE_OPTIM
    finetune_epochs: int = paper.FINETUNE_EPOCHS
    pictures: int | None = None
    """Training images of a pretraining run at most."""
    dino_options: Mapping[str, int] = field(default_factory=dict)

    def backbone(self, wanted: Backbone) -> Backbone:
        return self.stand_ins.get(wanted, wanted) if self.stand_ins else wanted

    def epochs_of(self, epochs: int) -> int:
        return max(1, round(epochs * self.epochs / paper.PRETRAIN_EPOCHS))


FULL = Scale()


@dataclass(frozen=True)
class Setting:
    """One dataset, seed, reading of the paper and scale: what the runs of an experiment have in common."""

    dataset: DatasetInfo
    seed: int
    preset: Preset
    scale: Scale

    def cass(
        self,
        *pair: Backbone,
        epochs: int = paper.PRETRAIN_EPOCHS,
        batch_size: int = paper.PRETRAIN_BATCH,
        augment: Augment = paper.AUGMENT,
        weights: str | None = None,
    ) -> PretrainSpec:
        """CASS with the standard pair of backbones, or another."""
        scale = self.scale
        return paper.cass(
            self.dataset.ref,
            preset=self.preset,
            seed=self.seed,
            backbones=[scale.backbone(backbone) for backbone in pair or paper.STANDARD],
            weights=scale.weights or weights,
            optims=(scale.pretrain_optim, scale.pretrain_optim),
            augment=augment,
            epochs=scale.epochs_of(epochs),
            batch_size=batch_size,
            image_size=scale.image_size,
            pictures=scale.pictures,
        )

    def dino(self, backbone: Backbone) -> PretrainSpec:
        scale = self.scale
        return paper.dino(
            self.dataset.ref,
            preset=self.preset,
            seed=self.seed,
            backbone=scale.backbone(backbone),
            weights=scale.weights,
            optim=scale.dino_optim,
            epochs=scale.epochs_of(paper.PRETRAIN_EPOCHS),
            image_size=scale.image_size,
            pictures=scale.pictures,
            options=scale.dino_options,
        )

    def finetune(
        self,
        backbone: Backbone,
        pretrain: PretrainSpec | None,
        *,
        label_fraction: float = 1.0,
        arm: str | None = None,
        weights: str | None = None,
    ) -> FinetuneSpec:
        scale = self.scale
        return paper.finetune(
            self.dataset.ref,
            scale.backbone(backbone),
            pretrain=pretrain,
            label_fraction=label_fraction,
            preset=self.preset,
            seed=self.seed,
            arm=arm,
            weights=scale.weights or weights,
            optim=scale.finetune_optim,
            epochs=scale.finetune_epochs,
            image_size=scale.image_size,
        )

    def both(
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
                experiment, row, column, self.finetune(b, pretrain, arm=arm.name, weights=weights), key or _key(row)
            )
            for b, arm, column in zip(pair, pretrain.arms, columns, strict=True)
        ]

    def title(self, backbone: Backbone) -> str:
        return self.scale.backbone(backbone).title


def _key(row: Sequence[str]) -> str:
    return " | ".join(row)


# --- The experiments -------------------------------------------------------------------------------------------------


def main(s: Setting) -> list[TableEntry]:
    """Every technique, backbone and label fraction (Tables 3 to 6, and 1, which repeats them)."""
    out = []
    for backbone in paper.STANDARD:
        for technique, pretrain in (("DINO", s.dino(backbone)), ("CASS", s.cass()), ("Supervised", None)):
            row, key = (technique, s.title(backbone)), _key((technique, backbone.title))
            for fraction in s.dataset.label_fractions:
                spec = s.finetune(backbone, pretrain, label_fraction=fraction)
                out.append(TableEntry("main", row, percent(fraction), spec, key))
    return out


def batch_size(s: Setting) -> list[TableEntry]:
    """Pretraining with batches of 8, 16 and 32 (B.1, C.1)."""
    return [p for n in (8, 16, 32) for p in s.both("batch_size", (str(n),), s.cass(batch_size=n))]


def epochs(s: Setting) -> list[TableEntry]:
    """Pretraining for 50 to 300 epochs (B.2, C.2)."""
    out = []
    for n in (50, 100, 200, 300):
        pretrain = s.cass(epochs=n)
        out += s.both("epochs", (str(pretrain.epochs),), pretrain, key=str(n))
    return out


def augmentation(s: Setting) -> list[TableEntry]:
    """CASS's augmentation with blur and solarisation added (B.3)."""
    sets = {
        "CASS only": paper.AUGMENT,
        "CASS + Solarize": paper.augmentation(solarise=True),
        "CASS + Gaussian blur": paper.augmentation(blur=True),
        "CASS + Gaussian blur + Solarize": paper.augmentation(blur=True, solarise=True),
    }
    return [p for name, chosen in sets.items() for p in s.both("augmentation", (name,), s.cass(augment=chosen))]


def cnn_optimizer(s: Setting) -> list[TableEntry]:
    """The CNN trained by Adam and by SGD, the Transformer by Adam (B.4)."""
    adam = s.cass()
    first, second = adam.arms
    sgd = replace(first.optim, name="sgd", momentum=paper.SGD_MOMENTUM)
    by_sgd = replace(adam, arms=(replace(first, optim=sgd), second))
    return s.both("cnn_optimizer", ("Adam",), adam) + s.both("cnn_optimizer", ("SGD",), by_sgd)


def transformer(s: Setting) -> list[TableEntry]:
    """ResNet-50 with one Transformer and another (B.5.1, C.3.2)."""
    tried = [paper.DEIT_B16, paper.VIT_B16, paper.VIT_L16]
    if s.dataset.ref.name == "autoimmune":  # Table 11 has no DeiT
        tried = tried[1:]
    return _pairs(s, "transformer", [(paper.RESNET50, b) for b in tried])


def transformer_supervised(s: Setting) -> list[TableEntry]:
    """The same without pretraining (B.5.1)."""
    return _supervised(s, "transformer_supervised", (paper.RESNET50, paper.VIT_B16, paper.VIT_L16))


def cnn(s: Setting) -> list[TableEntry]:
    """One CNN and another with ViT-B/16 (B.5.2, C.3.1)."""
    return _pairs(s, "cnn", [(b, paper.VIT_B16) for b in (paper.RESNET18, paper.RESNET50, paper.RESNET200)])


def cnn_supervised(s: Setting) -> list[TableEntry]:
    """The same without pretraining (B.5.2)."""
    return _supervised(s, "cnn_supervised", (paper.RESNET18, paper.RESNET50, paper.RESNET200))


def two_cnns(s: Setting) -> list[TableEntry]:
    """ResNet-50 with a Transformer and with another CNN (C.3.3)."""
    pairs = [(paper.RESNET50, paper.VIT_B16), (paper.RESNET50, paper.DENSENET161)]
    return _pairs(s, "two_cnns", pairs, columns=("ResNet-50 arm", "arm 2"))


def two_transformers(s: Setting) -> list[TableEntry]:
    """ViT-B/16 with a CNN and with another Transformer (C.3.4)."""
    pairs = [(paper.RESNET50, paper.VIT_B16), (paper.SWIN_B, paper.VIT_B16)]
    return _pairs(s, "two_transformers", pairs, columns=("arm 1", "ViT-B/16 arm"))


def initialisation(s: Setting) -> list[TableEntry]:
    """Pretraining from random and from ImageNet weights (C.4)."""
    out = []
    for name, weights in (("Random", "random"), ("Imagenet", "imagenet")):
        out += s.both("initialisation", (name,), s.cass(weights=weights), weights=weights)
    return out


def _pairs(
    s: Setting, experiment: str, pairs: Sequence[tuple[Backbone, Backbone]], columns: Sequence[str] = ARMS
) -> list[TableEntry]:
    out = []
    for pair in pairs:
        row, key = tuple(map(s.title, pair)), _key([backbone.title for backbone in pair])
        out += s.both(experiment, row, s.cass(*pair), *pair, columns=columns, key=key)
    return out


def _supervised(s: Setting, experiment: str, backbones: Sequence[Backbone]) -> list[TableEntry]:
    return [TableEntry(experiment, (s.title(b),), "score", s.finetune(b, None), b.title) for b in backbones]


@dataclass(frozen=True)
class Experiment:
    """An experiment with what its tables say of it."""

    entries: Callable[[Setting], list[TableEntry]]
    title: str
    rows: tuple[str, ...]
    """What the columns before the scores are called."""
    tables: Mapping[str, int]
    """The paper's tables of it by dataset."""


EXPERIMENTS: Mapping[str, Experiment] = {
    "main": Experiment(
        main,
        "techniques and label fractions",
        ("technique", "backbone"),
        {"autoimmune": 3, "dermofit": 4, "brain_mri": 5, "isic": 6},
    ),
    "batch_size": Experiment(
        batch_size, "batch size of pretraining", ("batch size",), {"autoimmune": 7, "brain_mri": 15}
    ),
    "epochs": Experiment(epochs, "epochs of pretraining", ("epochs",), {"autoimmune": 8, "brain_mri": 16}),
    "augmentation": Experiment(augmentation, "augmentation of pretraining", ("augmentation set",), {"autoimmune": 9}),
    "cnn_optimizer": Experiment(
        cnn_optimizer, "optimizer of the CNN in pretraining", ("optimizer",), {"autoimmune": 10}
    ),
    "transformer": Experiment(
        transformer, "the Transformer, the CNN kept", ("CNN", "Transformer"), {"autoimmune": 11, "brain_mri": 18}
    ),
    "transformer_supervised": Experiment(
        transformer_supervised, "Transformers, supervised", ("architecture",), {"autoimmune": 12}
    ),
    "cnn": Experiment(
        cnn, "the CNN, the Transformer kept", ("CNN", "Transformer"), {"autoimmune": 13, "brain_mri": 17}
    ),
    "cnn_supervised": Experiment(cnn_supervised, "CNNs, supervised", ("architecture",), {"autoimmune": 14}),
    "two_cnns": Experiment(two_cnns, "a CNN in both arms", ("arm 1", "arm 2"), {"brain_mri": 19}),
    "two_transformers": Experiment(
        two_transformers, "a Transformer in both arms", ("arm 1", "arm 2"), {"brain_mri": 20}
    ),
    "initialisation": Experiment(initialisation, "start weights of pretraining", ("start weights",), {"brain_mri": 21}),
}
PLAIN = Experiment(lambda setting: [], "techniques and label fractions", ("technique", "backbone"), {})

Entries = Callable[[Sequence[DatasetInfo], Sequence[int], Preset], list[TableEntry]]


def datasets(*names: str) -> tuple[str, ...]:
    """The datasets that the paper tried these experiments on."""
    return tuple(name for name in paper.DATASETS if any(name in EXPERIMENTS[e].tables for e in names))


def entries(*names: str, scale: Scale = FULL) -> Entries:
    """What a grid of these experiments is: each on the datasets of its tables and on those that none of them has."""
    known = datasets(*names)

    def of(cards: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
        out = []
        for name in names:
            for card in cards:
                if card.ref.name in EXPERIMENTS[name].tables or card.ref.name not in known:
                    for seed in seeds:
                        out += EXPERIMENTS[name].entries(Setting(card, seed, preset, scale))
        return out

    return of


def plain_entries(wanted: Sequence[FinetuneSpec]) -> list[TableEntry]:
    """Entries for a grid that only lists runs: a row a technique and backbone, a column a label fraction."""
    alike: dict[tuple[str, ...], set[str]] = {}
    for spec in wanted:
        alike.setdefault(_row_of(spec), set()).add(recipe(spec))
    out = []
    for spec in wanted:
        _, technique, network = _row_of(spec)
        mark = f" #{recipe(spec)[-4:]}" if len(alike[_row_of(spec)]) > 1 else ""  # tells apart what looks alike
        out.append(TableEntry("plain", (technique, network + mark), percent(spec.label_fraction), spec, ""))
    return out


def _row_of(spec: FinetuneSpec) -> tuple[str, str, str]:
    """Dataset, technique and network of a run as a table shows them."""
    method = method_of(spec)
    return spec.dataset.name, TECHNIQUES.get(method, method), f"{spec.backbone.split('.')[0]} ({spec.arm})"


def percent(fraction: float) -> str:
    """`1%`, `100%`, `0.5%`."""
    return f"{fraction * 100:g}%"
