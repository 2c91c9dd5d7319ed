"""The experiments of the paper: which run fills which cell of which table, at the paper's size or a smaller scale.

An experiment is a function of a `Setting` that lists table entries. On the datasets that the paper tried it on, it
makes one of the paper's tables; on any other dataset its table has no number.

Each experiment, with the supervised one that belongs to it, is a grid: `python -m pipeline.launch --grid NAME`. Counts
are for the grid's datasets and five seeds. "Of main" counts the pretraining runs that `main` wants too; they run once.

grid              tables      pretraining  of main           fine-tunes  printed in the paper
main              1 to 6      60           60                300         CASS: 0.9909 (brain MRI) and 0.5819 (ISIC)
batch_size        7, 15       30           10 of batch 16    60          0.8828 to 0.8894; brain MRI: 0.9176 to 0.9909
epochs            8, 16       40           10 of 100 epochs  80          0.8521 (50, CNN) to 0.9091 (300, Transformer)
augmentation      9           20           5                 40          0.8146 (solarised) to 0.8894 (Transformer)
cnn_optimizer     10          10           5                 20          the Transformer falls from 0.8894 to 0.8236
transformer       11, 12, 18  25           10                65          0.853 (ViT-L) to 0.8894; brain MRI: DeiT 0.9844
cnn               13, 14, 17  30           10                75          0.8517 (ResNet-200) to 0.8680 (ResNet-50)
two_cnns          19          10           5                 20          0.9743 and 0.9837; 5 h 24 min (C.3.3)
two_transformers  20          10           5                 20          0.9883 and 0.94; 10 hours (C.3.4)
initialisation    21          10           5                 20          0.9907 and 0.9316 from random weights
paper             1 to 21     180          60                555         all of these

Scores from `batch_size` to `cnn` are those of the autoimmune set unless it says brain MRI; those of `main` are of
ResNet-50 and of ViT-B/16. `main` pretrains CASS 20 times, and DINO 40 times: once for each backbone. By Table 2 that
takes some 900 GPU-hours on an RTX8000 in float32, or 1,600 if its hours of DINO are those of one backbone. In `paper`,
30 pretraining runs are published by longer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.runs.identity import recipe, run_id, without_seed
from pipeline.runs.methods import method_info
from pipeline.runs.spec import DatasetRef, FinetuneSpec, PretrainSpec, method_of
from pipeline.study import paper, recipes
from pipeline.study.frozen import frozen_entries
from pipeline.study.paper import Backbone, Preset
from pipeline.study.setting import ARMS, FULL, DatasetInfo, Scale, Setting, TableEntry, key_of, percent


def main(s: Setting) -> list[TableEntry]:
    """Every technique, backbone and label fraction (Tables 3 to 6, and 1, which repeats them).

    Where the scale says so, also CASS with a guard and the controls of CASS, which the paper does not have.
    """
    out = []
    techniques: dict[str, PretrainSpec | None] = {"CASS": s.cass()}
    if s.scale.guard_epochs:
        techniques[method_info("cass_vc").title] = s.cass_vc(s.scale.guard_epochs)
    if s.scale.controls:
        techniques |= {method_info(name).title: spec for name, spec in recipes.controls(s.cass()).items()}
    techniques["Supervised"] = None
    for backbone in paper.STANDARD:
        for technique, pretrain in {"DINO": s.dino(backbone), **techniques}.items():
            row, key = (technique, s.title(backbone)), key_of((technique, backbone.title))
            for fraction in s.dataset.label_fractions:
                spec = s.finetune(backbone, pretrain, label_fraction=fraction)
                out.append(TableEntry("main", row, percent(fraction), spec, key))
    return out


def batch_size(s: Setting) -> list[TableEntry]:
    """Pretraining with batches of 8, 16 and 32 (B.1, C.1)."""
    return [e for n in (8, 16, 32) for e in s.both_arms("batch_size", (str(n),), replace(s.cass(), batch_size=n))]


def epochs(s: Setting) -> list[TableEntry]:
    """Pretraining for 50 to 300 epochs (B.2, C.2)."""
    out = []
    for n in (50, 100, 200, 300):
        pretrain = replace(s.cass(), epochs=s.scale.epochs_of(n))
        out += s.both_arms("epochs", (str(pretrain.epochs),), pretrain, key=str(n))
    return out


def augmentation(s: Setting) -> list[TableEntry]:
    """CASS's augmentation with blur and solarisation added (B.3)."""
    sets = {
        "CASS only": paper.AUGMENT,
        "CASS + Solarize": paper.augmentation(solarise=True),
        "CASS + Gaussian blur": paper.augmentation(blur=True),
        "CASS + Gaussian blur + Solarize": paper.augmentation(blur=True, solarise=True),
    }
    out = []
    for name, chosen in sets.items():
        out += s.both_arms("augmentation", (name,), replace(s.cass(), augment=chosen))
    return out


def cnn_optimizer(s: Setting) -> list[TableEntry]:
    """The CNN trained by Adam and by SGD, the Transformer by Adam (B.4)."""
    adam = s.cass()
    first, second = adam.arms
    sgd = replace(first.optim, name="sgd", momentum=paper.SGD_MOMENTUM)
    by_sgd = replace(adam, arms=(replace(first, optim=sgd), second))
    return s.both_arms("cnn_optimizer", ("Adam",), adam) + s.both_arms("cnn_optimizer", ("SGD",), by_sgd)


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
        out += s.both_arms("initialisation", (name,), s.cass(weights=weights), weights=weights)
    return out


def _pairs(
    s: Setting, experiment: str, pairs: Sequence[tuple[Backbone, Backbone]], columns: Sequence[str] = ARMS
) -> list[TableEntry]:
    """A row for each pair of backbones of CASS."""
    out = []
    for pair in pairs:
        row, key = tuple(map(s.title, pair)), key_of([backbone.title for backbone in pair])
        out += s.both_arms(experiment, row, s.cass(*pair), *pair, columns=columns, key=key)
    return out


def _supervised(s: Setting, experiment: str, backbones: Sequence[Backbone]) -> list[TableEntry]:
    """A row of one score for each backbone, without pretraining."""
    return [TableEntry(experiment, (s.title(b),), "score", s.finetune(b, None), b.title) for b in backbones]


@dataclass(frozen=True)
class Experiment:
    """An experiment and what its tables say about it."""

    entries: Callable[[Setting], list[TableEntry]]
    title: str
    labels: tuple[str, ...]
    """The heads of the columns before the scores."""
    tables: Mapping[str, int]
    """The numbers of the paper's tables of it, by dataset."""
    grid: str = ""
    """The grid that it belongs to; empty: the one of its own name."""


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
        transformer_supervised, "Transformers, supervised", ("architecture",), {"autoimmune": 12}, grid="transformer"
    ),
    "cnn": Experiment(
        cnn, "the CNN, the Transformer kept", ("CNN", "Transformer"), {"autoimmune": 13, "brain_mri": 17}
    ),
    "cnn_supervised": Experiment(cnn_supervised, "CNNs, supervised", ("architecture",), {"autoimmune": 14}, grid="cnn"),
    "two_cnns": Experiment(two_cnns, "a CNN in both arms", ("arm 1", "arm 2"), {"brain_mri": 19}),
    "two_transformers": Experiment(
        two_transformers, "a Transformer in both arms", ("arm 1", "arm 2"), {"brain_mri": 20}
    ),
    "initialisation": Experiment(initialisation, "start weights of pretraining", ("start weights",), {"brain_mri": 21}),
}
PLAIN = Experiment(lambda setting: [], "techniques and label fractions", ("technique", "backbone"), {})
"""What tables say of the runs of a grid that only lists runs."""

Entries = Callable[[Sequence[DatasetInfo], Sequence[int], Preset], list[TableEntry]]


def datasets_of(*names: str) -> tuple[str, ...]:
    """The datasets on which the paper tried any of these experiments."""
    return tuple(name for name in paper.DATASETS if any(name in EXPERIMENTS[e].tables for e in names))


def entries_of(*names: str, scale: Scale = FULL) -> Entries:
    """The function `entries` of a grid of these experiments.

    Each experiment is on the datasets of its tables and on those that no table of these experiments has.
    """
    known = datasets_of(*names)

    def entries(datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset) -> list[TableEntry]:
        out = []
        for name in names:
            for dataset in datasets:
                if dataset.ref.name in EXPERIMENTS[name].tables or dataset.ref.name not in known:
                    for seed in seeds:
                        out += EXPERIMENTS[name].entries(Setting(dataset, seed, preset, scale))
        return out

    return entries


def paper_runs(entries: Sequence[TableEntry], datasets: Sequence[DatasetInfo], preset: Preset) -> set[str]:
    """The ids, without their seeds, of the paper's own runs in the experiments of `entries`: those on its datasets, at
    its size and on its split. Only next to them does a printed value say anything."""
    names = [name for name in dict.fromkeys(entry.experiment for entry in entries) if name in EXPERIMENTS]
    own = [info for info in datasets if not info.grouped and not info.stand_in]
    return {run_id(without_seed(entry.spec)) for entry in entries_of(*names)(own, (0,), preset)}


FrozenEntries = Callable[[Sequence[DatasetInfo], Sequence[int], Preset, Mapping[str, Backbone]], list[TableEntry]]


def with_frozen(entries: Entries, scale: Scale) -> FrozenEntries:
    """A grid's entries, and in the table of the main experiment the rows of `frozen_entries` at the same scale."""

    def both(
        datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset, weights: Mapping[str, Backbone]
    ) -> list[TableEntry]:
        settings = [Setting(dataset, seed, preset, scale) for dataset in datasets for seed in seeds]
        frozen = [e for s in settings for e in frozen_entries(s, weights=weights.values(), experiment="main")]
        return entries(datasets, seeds, preset) + frozen

    return both


def plain_entries(wanted: Sequence[FinetuneSpec]) -> list[TableEntry]:
    """Entries for a grid that only lists runs: a row for each technique and backbone, a column for each fraction."""
    alike: dict[tuple[DatasetRef, str, str], set[str]] = {}
    for spec in wanted:
        alike.setdefault(_row_of(spec), set()).add(recipe(spec))
    out = []
    for spec in wanted:
        _, technique, network = _row_of(spec)
        mark = f" #{recipe(spec)[-4:]}" if len(alike[_row_of(spec)]) > 1 else ""  # tells apart what looks alike
        out.append(TableEntry("plain", (technique, network + mark), percent(spec.label_fraction), spec, ""))
    return out


def _row_of(spec: FinetuneSpec) -> tuple[DatasetRef, str, str]:
    """Dataset, technique and network of a run as a table shows them."""
    network = f"{spec.backbone.split('.')[0]} ({spec.arm})"
    return spec.dataset, method_info(method_of(spec)).title, network
