"""A grid of one's own as a TOML file: the main experiment with other datasets, methods, backbones and numbers.

What a file leaves out is the paper's (`paper.py`), so that the same setting has the same run ids, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipeline.core import toml
from pipeline.learn.weights import check_network
from pipeline.runs.methods import CONTROLS, method_info
from pipeline.runs.spec import DatasetRef, FinetuneSpec, Optim, PretrainSpec
from pipeline.runs.values import fraction, one_of, positive
from pipeline.study import paper, recipes
from pipeline.study.frozen import frozen_entries
from pipeline.study.paper import CNN, TRANSFORMER, Backbone, Options, Preset
from pipeline.study.setting import FULL, DatasetInfo, Scale, Setting, TableEntry, chosen_shards, key_of, percent

PAIRED = ("cass", "cass_vc", *CONTROLS)
"""Methods of two networks."""
DINOS = {"dino": recipes.VIT_PYTORCH, "dino_fb": recipes.FACEBOOK}
METHODS = (*PAIRED, *DINOS, "supervised", "frozen")
OPTIONS: Mapping[str, Options] = {
    "cass": {"head_dim": paper.HEAD_DIM},
    "cass_vc": recipes.GUARD_OPTIONS,
    **{name: kind.options for name, kind in DINOS.items()},
}

Rate = float | Mapping[str, float]
"""A learning rate, or one by role: `{ cnn = 3e-4, transformer = 3e-5 }`."""


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """[backbones]: the networks, as timm names them."""

    cnn: str | tuple[str, ...] = ()
    transformer: str | tuple[str, ...] = ()
    weights: str = "imagenet"
    """What they start from: `imagenet` or `random`."""

    def __post_init__(self) -> None:
        one_of("backbones.weights", self.weights, ("imagenet", "random"))
        tags = [backbone.tag for backbone in self.listed()]
        if not tags or not all(tags) or len(set(tags)) < len(tags):
            raise ValueError(f"backbones has the networks {tags}; name each once, by timm's name, at least one")

    def listed(self) -> tuple[Backbone, ...]:
        """The CNNs, then the Transformers; two that would have one title keep their whole tag."""
        known = {backbone.tag: backbone.title for backbone in paper.BACKBONES}
        found = []
        for role, named in ((CNN, self.cnn), (TRANSFORMER, self.transformer)):
            for tag in (named,) if isinstance(named, str) else named:
                found.append(Backbone(tag, known.get(tag, tag.split(".")[0]), role, weights=self.weights))
        titles = [backbone.title for backbone in found]
        return tuple(b if titles.count(b.title) == 1 else replace(b, title=b.tag) for b in found)


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """[pretrain.METHOD]: what is not as [pretrain] says; None: the paper's."""

    epochs: int | None = None
    batch_size: int | None = None
    images: int | None = None
    """At most so many training images, drawn by the seed."""
    lr: Rate | None = None
    min_lr: float | None = None
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Of the method, as its recipe names them."""

    def check(self, where: str, known: Options) -> None:
        """`ValueError` for an impossible value; `known` are the method's options in the recipe."""
        counts = {"epochs": self.epochs, "batch_size": self.batch_size, "images": self.images}
        positive(**{f"{where}.{name}": value for name, value in counts.items() if value is not None})
        _check_rates(where, self.lr, self.min_lr)
        for name, value in self.options.items():
            one_of(f"a key of {where}.options", name, tuple(known))
            wanted = type(known[name])
            if not (type(value) is wanted or (wanted is float and type(value) is int)):
                raise ValueError(f"{where}.options.{name} is {value!r}; it must be a {wanted.__name__}")
            if not isinstance(value, str) and value < 0:
                raise ValueError(f"{where}.options.{name} is {value}; it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """[pretrain]: every method's epochs and batch, and a table for each method."""

    epochs: int = paper.PRETRAIN_EPOCHS
    batch_size: int = paper.PRETRAIN_BATCH
    cass: MethodSettings = field(default_factory=MethodSettings)
    cass_vc: MethodSettings = field(default_factory=MethodSettings)
    dino: MethodSettings = field(default_factory=MethodSettings)
    dino_fb: MethodSettings = field(default_factory=MethodSettings)

    def __post_init__(self) -> None:
        positive(**{"pretrain.epochs": self.epochs, "pretrain.batch_size": self.batch_size})
        for method, known in OPTIONS.items():
            self.of(method).check(f"pretrain.{method}", known)

    def of(self, method: str) -> MethodSettings:
        found: MethodSettings = getattr(self, method)
        return found


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """[finetune]: fine-tunes of all methods, and supervised training."""

    epochs: int = paper.FINETUNE_EPOCHS
    patience: int = paper.FINETUNE_PATIENCE
    batch_size: int = paper.FINETUNE_BATCH
    lr: Rate | None = None
    min_lr: float | None = None
    class_weights: str | None = None
    """`minmax`, `inverse` or `none`; None: as the preset says."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            positive(**{f"finetune.{name}": getattr(self, name)})
        if self.class_weights is not None:
            one_of("finetune.class_weights", self.class_weights, ("minmax", "inverse", "none"))
        _check_rates("finetune", self.lr, self.min_lr)

    def optim(self, role: str) -> Optim:
        """The optimizer of a backbone of that role."""
        return _with_rate(paper.FINETUNE_OPTIM, self.lr, self.min_lr, role, "finetune")

    def tuned(self, spec: FinetuneSpec, role: str, image_size: int) -> FinetuneSpec:
        """The fine-tune of a backbone of that role, with these numbers."""
        loss = replace(spec.loss, class_weights=self.class_weights) if self.class_weights else spec.loss
        return replace(
            spec,
            optim=self.optim(role),
            loss=loss,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            image_size=image_size,
        )


@dataclass(frozen=True, kw_only=True)
class GridFile:
    """The whole file."""

    datasets: tuple[str, ...]
    """Names, each with its split where that is not the preset's: `brain_mri:grouped`."""
    methods: tuple[str, ...]
    """Rows of the table, in their order."""
    image_size: int
    """Pixels on a side: the `--size` of the shards."""
    seeds: int = len(paper.SEEDS)
    label_fractions: tuple[float, ...] = ()
    """Empty: each dataset's own."""
    backbones: Backbones
    pretrain: Pretraining = field(default_factory=Pretraining)
    finetune: Finetuning = field(default_factory=Finetuning)

    def __post_init__(self) -> None:
        positive(image_size=self.image_size, seeds=self.seeds)
        for name, known in (("datasets", self.datasets), ("methods", self.methods)):
            if not known or len(set(known)) < len(known):
                raise ValueError(f"{name} is {list(known)}; name at least one, and each once")
        chosen_shards(self.datasets, "image")
        for method in self.methods:
            one_of("methods", method, METHODS)
        for value in self.label_fractions:
            fraction(label_fractions=value)
        if len(set(self.label_fractions)) < len(self.label_fractions):
            raise ValueError(f"label_fractions is {list(self.label_fractions)}; name each once")
        paired = [method for method in self.methods if method in PAIRED]
        if paired and len(self.backbones.listed()) != 2:
            count = len(self.backbones.listed())
            raise ValueError(f"{paired[0]} trains two networks against each other, [backbones] names {count}; name two")
        for method in OPTIONS:
            needs = ("cass", *CONTROLS) if method == "cass" else (method,)
            if self.pretrain.of(method) != MethodSettings() and not set(needs) & set(self.methods):
                raise ValueError(f"[pretrain.{method}] is set, but methods does not name {method}; add or remove it")
        nobody = DatasetInfo(DatasetRef(name="", fingerprint=""), (1.0,), "")
        self.entries([nobody], paper.SEEDS[:1], paper.preset("paper"), {})  # numbers that do not fit each other

    def entries(
        self, datasets: Sequence[DatasetInfo], seeds: Sequence[int], preset: Preset, weights: Mapping[str, Backbone]
    ) -> list[TableEntry]:
        """The table entries of its fine-tunes; of networks with given weights rows of frozen features."""
        if weights and "frozen" not in self.methods:
            raise ValueError(f"weights ({', '.join(weights)}) make rows of frozen features; add 'frozen' to methods")
        out = []
        for dataset in datasets:
            own = replace(dataset, label_fractions=tuple(map(float, self.label_fractions or dataset.label_fractions)))
            for seed in seeds:
                for method in self.methods:
                    out += self._rows(method, own, seed, preset, list(weights.values()))
        return out

    def _rows(
        self, method: str, dataset: DatasetInfo, seed: int, preset: Preset, weights: Sequence[Backbone]
    ) -> list[TableEntry]:
        """The rows of a method, by backbone."""
        backbones = self.backbones.listed()
        if method == "frozen":
            return [e for b in (*backbones, *weights) for e in self._frozen(b, Setting(dataset, seed, preset, FULL))]
        pretrains: Sequence[PretrainSpec | None]
        pretrains, names = [None for _ in backbones], [backbone.role for backbone in backbones]
        if method != "supervised":
            pretrains = self._pretrains(method, dataset, seed, preset)
            names = list(recipes.arm_names(backbones)) if method in PAIRED else names
        out = []
        for backbone, name, pretrain in zip(backbones, names, pretrains, strict=True):
            row = (method_info(method).title, backbone.title)
            for part in dataset.label_fractions:
                spec = recipes.finetune(
                    dataset.ref, backbone, pretrain, preset=preset, seed=seed, label_fraction=part, arm=name
                )
                spec = self.finetune.tuned(spec, backbone.role, self.image_size)
                out.append(TableEntry("main", row, percent(part), spec, key_of(row)))
        return out

    def _frozen(self, backbone: Backbone, setting: Setting) -> list[TableEntry]:
        """The rows of a backbone's frozen features."""
        start, optim = self.backbones.weights, self.finetune.optim(backbone.role)
        chosen = replace(setting, scale=Scale(image_size=self.image_size, weights=start, finetune_optim=optim))
        given, named = ([backbone], []) if backbone.given else ([], [backbone])
        return frozen_entries(chosen, weights=given, experiment="main", backbones=named)

    def _pretrains(self, method: str, dataset: DatasetInfo, seed: int, preset: Preset) -> list[PretrainSpec]:
        """The pretraining run of each backbone; two of CASS share one."""
        backbones = self.backbones.listed()
        if method in CONTROLS:
            plain = self._pretrains("cass", dataset, seed, preset)[0]
            return [recipes.controls(plain)[method] for _ in backbones]
        chosen = self.pretrain.of(method)
        batch = chosen.batch_size or self.pretrain.batch_size

        def finished(spec: PretrainSpec) -> PretrainSpec:
            spec = recipes.with_options(spec, chosen.options)
            arms = [
                replace(arm, optim=_with_rate(arm.optim, chosen.lr, chosen.min_lr, role, f"pretrain.{method}"))
                for arm, role in ((arm, arm.name.removesuffix("_2")) for arm in spec.arms)
            ]
            return replace(
                spec,
                arms=tuple(arms),
                epochs=chosen.epochs or self.pretrain.epochs,
                batch_size=batch,
                image_size=self.image_size,
                pictures=chosen.images,
            )

        if method in DINOS:
            make = partial(recipes.dino, kind=DINOS[method], batch_size=batch, image_size=self.image_size)
            return [finished(make(dataset.ref, b, preset=preset, seed=seed)) for b in backbones]
        if method == "cass_vc":
            return [finished(recipes.cass_vc(dataset.ref, backbones, seed=seed))] * len(backbones)
        return [finished(recipes.cass(dataset.ref, backbones, preset=preset, seed=seed))] * len(backbones)


def _check_rates(where: str, lr: Rate | None, min_lr: float | None) -> None:
    """`ValueError` for a rate that is none, or is of a role that no network has."""
    for role, value in lr.items() if isinstance(lr, Mapping) else [("", lr)]:
        if role:
            one_of(f"a key of {where}.lr", role, (CNN, TRANSFORMER))
        if value is not None:
            positive(**{f"{where}.lr" + (f".{role}" if role else ""): value})
    if min_lr is not None and min_lr < 0:
        raise ValueError(f"{where}.min_lr is {min_lr}; it cannot be negative")


def _with_rate(optim: Optim, lr: Rate | None, min_lr: float | None, role: str, where: str) -> Optim:
    """An optimizer with this rate for that role; None: its own."""
    chosen = lr.get(role) if isinstance(lr, Mapping) else lr
    if min_lr is not None and optim.schedule == "constant":
        raise ValueError(f"{where}.min_lr is {min_lr}, but the rate of {where} is constant; remove it")
    out = replace(
        optim,
        lr=optim.lr if chosen is None else float(chosen),
        min_lr=optim.min_lr if min_lr is None else float(min_lr),
    )
    if out.min_lr > out.lr:
        raise ValueError(f"{where}.lr is {out.lr:g}, below {where}.min_lr, {out.min_lr:g}; give a smaller min_lr too")
    return out


def read_grid(path: Path) -> GridFile:
    """The grid in a file; `ValueError` that names the file, the key and the next move where anything is wrong."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of a TOML file or one of the known names")
    try:
        grid = toml.build(GridFile, toml.read(path))
        for backbone in grid.backbones.listed():
            check_network(backbone.tag)
        return grid
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
