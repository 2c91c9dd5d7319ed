"""What a run is: frozen values whose hash is the run's name, and their JSON, both ways.

Nothing here says where or how fast a run happens (slurm/*.toml does), so nothing but science can change an id.
A field that comes later enters through `later(default)`: while it holds that default it stays out of the hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

# Raised by one whenever the numbers a part computes change: old results then are another run's.
REVISIONS = {"cass": 1, "dino": 1, "dino_fb": 1, "augment": 2, "focal": 1, "average": 1}

# Where the number of epochs enters no step, so that a longer run passes through the very states of a shorter one.
ENDLESS_METHODS = ("cass",)
ENDLESS_SCHEDULES = ("cosine", "constant")

WEIGHTS = ("imagenet", "random")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def later(default: Any) -> Any:
    """A field added after the first ids were given: it enters the hash only when it differs from `default`."""
    return field(default=default, metadata={"later": True})


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} is {value!r}; known: {', '.join(known)}")


def positive(**values: float) -> None:
    for what, value in values.items():
        if not value > 0:
            raise ValueError(f"{what} is {value}; it must be above zero")


def half_cosine(first: float, last: float, progress: float) -> float:
    """From `first` at progress 0 to `last` at progress 1, along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class DatasetRef:
    """A dataset by name and by what its shards hold (sources, labels, splits, size, codec)."""

    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Optim:
    """An optimizer with its learning-rate schedule (a closed form of the global step or epoch)."""

    name: str
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "cosine"
    """`cosine` swings lr → min_lr → lr with half-period `t_max`; `once` falls to min_lr over the run; `constant`."""
    t_max: int = 16
    min_lr: float = 0.0
    unit: str = "step"
    warmup: float = later(0.0)
    """The part of the run over which `once` first rises from 0 to lr."""
    last_weight_decay: float | None = later(None)
    """What the weight decay goes to over the run, along half a cosine; None: it stays."""
    clip: float = later(0.0)
    """The greatest norm of each parameter's own gradient; 0: as it is."""

    def __post_init__(self) -> None:
        one_of("Optim.name", self.name, ("adam", "adamw", "sgd"))
        one_of("Optim.schedule", self.schedule, ("cosine", "once", "constant"))
        one_of("Optim.unit", self.unit, ("step", "epoch"))
        positive(lr=self.lr, t_max=self.t_max)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"Optim.warmup is {self.warmup}; it is a fraction of the run in [0, 1)")
        if not self.clip >= 0:
            raise ValueError(f"Optim.clip is {self.clip}; give the greatest norm of a gradient, or 0 for none")

    def lr_at(self, *, step: int, epoch: int, progress: float = 0.0) -> float:
        """The learning rate of a global step (from 0), without any state to drift or to restore.

        `progress` is the part of the run that is done, in [0, 1); only `once` looks at it.
        """
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "once":
            if progress < self.warmup:
                return self.lr * progress / self.warmup
            return half_cosine(self.lr, self.min_lr, (progress - self.warmup) / (1 - self.warmup))
        time = step if self.unit == "step" else epoch
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * time / self.t_max)) / 2

    def weight_decay_at(self, progress: float) -> float:
        """The weight decay when this part of the run is done."""
        if self.last_weight_decay is None:
            return self.weight_decay
        return half_cosine(self.weight_decay, self.last_weight_decay, progress)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One network of a pretraining run: its role, timm tag, start weights and optimizer."""

    name: str
    backbone: str
    weights: str
    optim: Optim

    def __post_init__(self) -> None:
        one_of("Arm.weights", self.weights, WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Colour jitter with probability `p`: factors uniform in [1 − x, 1 + x], hue shift in [−hue, hue]."""

    p: float
    brightness: float
    contrast: float
    saturation: float
    hue: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Gaussian blur with probability `p`, its σ uniform between two values, in pixels."""

    p: float
    least: float
    most: float
    side: int
    """Pixels on a side of the kernel, odd."""

    def __post_init__(self) -> None:
        positive(least=self.least, most=self.most, side=self.side)
        if self.side % 2 == 0 or self.most < self.least:
            raise ValueError(f"{self} makes no sense; side is an odd number of pixels, least at most `most`")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random augmentation, drawn per image: two jitters, perspective, rotation, flips; then normalisation."""

    first_jitter: Jitter
    second_jitter: Jitter
    perspective_p: float
    """Probability of the perspective warp where the first jitter was applied."""
    perspective: float
    """Degree of distortion, 0 to 1."""
    degrees: float
    """Rotation drawn from [−degrees, degrees] where the second jitter was applied."""
    vertical_flip: float
    horizontal_flip: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    revision: int = REVISIONS["augment"]
    grey: float = later(0.0)
    """Probability that the image loses its colours, after the jitters."""
    blur: Blur | None = later(None)
    """After `grey`."""
    solarise: float = later(0.0)
    """Probability that all values above one half are inverted, after `blur`."""


@dataclass(frozen=True, kw_only=True)
class Average:
    """Stochastic weight averaging over the ends of the epochs from `start` (a fraction of all epochs) on."""

    start: float
    revision: int = REVISIONS["average"]

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise ValueError(f"Average.start is {self.start}; it is a fraction of the epochs in [0, 1)")

    def window(self, epochs: int) -> range:
        """The epochs (from 0) at whose ends a run of so many takes in the weights."""
        return range(min(int(self.start * epochs), epochs - 1), epochs)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Sigmoid focal loss; `class_weights`: minmax (paper), inverse (rare classes weigh more), none."""

    name: str
    alpha: float
    gamma: float
    class_weights: str
    revision: int = REVISIONS["focal"]
    counted: str = later("train")
    """The images whose labels the class weights count: of the training split, or of `train and val`."""

    def __post_init__(self) -> None:
        one_of("Loss.name", self.name, ("focal",))
        one_of("Loss.counted", self.counted, ("train", "train and val"))
        one_of("Loss.class_weights", self.class_weights, ("minmax", "inverse", "none"))


@dataclass(frozen=True, kw_only=True)
class Method:
    """A self-supervised method by name, with the options its plugin in `methods/` knows."""

    name: str
    revision: int
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PretrainSpec:
    """A pretraining run: a method, its arms, all training pictures, no labels."""

    dataset: DatasetRef
    method: Method
    arms: tuple[Arm, ...]
    augment: Augment
    average: Average | None
    epochs: int
    batch_size: int
    image_size: int
    seed: int
    precision: str = later("auto")
    keep_gradients: bool = later(False)
    """Never set gradients to zero between steps: the reference notebook's behaviour (fidelity 3a, 1)."""
    pictures: int | None = later(None)
    """How many of the training images are used, drawn by the seed; None: all of them."""

    def __post_init__(self) -> None:
        positive(epochs=self.epochs, batch_size=self.batch_size, image_size=self.image_size)
        one_of("PretrainSpec.precision", self.precision, PRECISIONS)
        if self.pictures is not None:
            positive(pictures=self.pictures)
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"PretrainSpec.arms are named {names}; give each arm a name of its own")

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"there is no arm {name!r}; known: {', '.join(arm.name for arm in self.arms)}")


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """A fine-tuning run of one backbone on a fraction of the labels; `pretrain=None` is supervised."""

    dataset: DatasetRef
    backbone: str
    weights: str
    pretrain: PretrainSpec | None
    arm: str
    """The pretraining arm that is fine-tuned; for a supervised run, the role of its backbone."""
    label_fraction: float
    augment: Augment
    optim: Optim
    loss: Loss
    epochs: int
    patience: int
    batch_size: int
    image_size: int
    seed: int
    precision: str = later("auto")
    stopping: str = later("best")
    """`best`: patience counts epochs without a new best; `previous`: rises over the epoch before (notebook)."""

    def __post_init__(self) -> None:
        positive(epochs=self.epochs, batch_size=self.batch_size, image_size=self.image_size)
        positive(patience=self.patience)
        one_of("FinetuneSpec.weights", self.weights, WEIGHTS)
        one_of("FinetuneSpec.precision", self.precision, PRECISIONS)
        one_of("FinetuneSpec.stopping", self.stopping, ("best", "previous"))
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"label_fraction is {self.label_fraction}; it is a fraction in (0, 1]")
        if self.pretrain is not None and self.pretrain.arm(self.arm).backbone != self.backbone:
            raise ValueError(
                f"arm {self.arm!r} was pretrained as {self.pretrain.arm(self.arm).backbone}, "
                f"it cannot be fine-tuned as {self.backbone}; name the same backbone"
            )


Spec = PretrainSpec | FinetuneSpec
KINDS: dict[str, type[PretrainSpec] | type[FinetuneSpec]] = {
    "pretrain": PretrainSpec,
    "finetune": FinetuneSpec,
}


def kind_of(spec: Spec) -> str:
    return "pretrain" if isinstance(spec, PretrainSpec) else "finetune"


def method_of(spec: Spec) -> str:
    """`cass`, `dino`, … or `supervised`."""
    pretrain = spec if isinstance(spec, PretrainSpec) else spec.pretrain
    return pretrain.method.name if pretrain else "supervised"


def milestone_of(shorter: Spec, longer: Spec) -> bool:
    """Whether the longer run passes through the shorter one's end, and one accumulator can average for both.

    They differ in their epochs alone, no step depends on that number, and the weights of the longer are averaged only
    after the shorter's end.
    """
    if not isinstance(shorter, PretrainSpec) or dataclasses.replace(shorter, epochs=longer.epochs) != longer:
        return False
    optims = [arm.optim for arm in shorter.arms]
    endless = all(o.schedule in ENDLESS_SCHEDULES and o.last_weight_decay is None for o in optims)
    if not endless or shorter.method.name not in ENDLESS_METHODS or shorter.epochs >= longer.epochs:
        return False
    return shorter.average is None or shorter.epochs <= shorter.average.window(longer.epochs).start


def imagenet_tags(spec: Spec) -> set[str]:
    """The backbones a run itself starts from ImageNet weights."""
    if isinstance(spec, PretrainSpec):
        return {arm.backbone for arm in spec.arms if arm.weights == "imagenet"}
    return {spec.backbone} if spec.pretrain is None and spec.weights == "imagenet" else set()


def to_json(spec: Spec) -> dict[str, Any]:
    """The whole value as plain JSON, headed by its kind."""
    return {"kind": kind_of(spec), **dataclasses.asdict(spec)}


def from_json(value: dict[str, Any]) -> Spec:
    """The spec a JSON object describes; unknown kinds and fields are answered with the known ones."""
    rest = dict(value)
    kind = rest.pop("kind", None)
    one_of("a spec's kind", str(kind), tuple(KINDS))
    return _build(KINDS[str(kind)], rest)


def run_id(spec: Spec) -> str:
    """A readable name and 12 hex digits of the SHA-256 of the value: the same wish has the same id everywhere."""
    text = json.dumps({"kind": kind_of(spec), **_hashed(spec)}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    parts = [spec.dataset.name, method_of(spec)]
    if isinstance(spec, FinetuneSpec):
        parts += [spec.backbone.split(".")[0], f"{spec.label_fraction * 100:g}pct"]
    return "-".join([*parts, f"s{spec.seed}", digest])


def without_seed(spec: FinetuneSpec) -> FinetuneSpec:
    """What the seeds of one cell of a table have in common."""
    pretrain = spec.pretrain and dataclasses.replace(spec.pretrain, seed=0)
    return dataclasses.replace(spec, seed=0, pretrain=pretrain)


def recipe(spec: FinetuneSpec) -> str:
    """An id that all seeds and label fractions of one fine-tuning recipe share."""
    return run_id(dataclasses.replace(without_seed(spec), label_fraction=1.0))


_HINTS: dict[type, dict[str, Any]] = {}
_FIELDS: dict[type, list[tuple[str, Any, bool, Any]]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _fields(cls: Any) -> list[tuple[str, Any, bool, Any]]:
    """Name, hint, whether it came later, and default of each field of a dataclass."""
    if cls not in _FIELDS:
        hints, found = _hints(cls), dataclasses.fields(cls)
        _FIELDS[cls] = [(f.name, hints[f.name], bool(f.metadata.get("later")), f.default) for f in found]
    return _FIELDS[cls]


def _hashed(value: Any) -> dict[str, Any]:
    """What enters the hash; kept beside the fields, since specs are frozen and share most of their parts."""
    if (known := vars(value).get("_hashed")) is not None:
        return known  # type: ignore[no-any-return]
    kept: dict[str, Any] = {}
    for name, hint, later_one, default in _fields(type(value)):
        content = getattr(value, name)
        if not (later_one and content == default):
            kept[name] = _plain(content, hint)
    vars(value)["_hashed"] = kept
    return kept


def _plain(value: Any, hint: Any) -> Any:
    if hint is float:
        return float(value)
    if value is None or isinstance(value, (str, int, float)):  # most values are, so they come first
        return value
    if isinstance(value, (tuple, list)):
        part = typing.get_args(hint)[0]
        return [_plain(item, part) for item in value]
    return dict(value) if isinstance(value, Mapping) else _hashed(value)


T = TypeVar("T")


def _build(cls: type[T], value: Mapping[str, Any]) -> T:
    hints = _hints(cls)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}; known: {', '.join(hints)}")
    return cls(**{name: _value(hints[name], item) for name, item in value.items()})


def _value(hint: Any, item: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if item is None:
            return None
        return _value(next(option for option in typing.get_args(hint) if option is not type(None)), item)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), item)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], part) for part in item)
    return float(item) if hint is float else item
