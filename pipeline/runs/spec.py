"""What a run is: frozen values that say everything science must know of it, and nothing else.

Where and how fast a run happens is in `slurm/*.toml`, so neither can change an id (`identity.run_id`). A new field
enters through `later(default)`: while it holds that default it stays out of the hash, and old ids stay valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.runs.methods import METHOD_INFO
from pipeline.runs.start_weights import StartWeights, check_given
from pipeline.runs.values import fraction, half_cosine, later, one_of, positive

# Raised by one whenever the numbers that a part computes change: old results then belong to other runs.
REVISIONS = {**{name: info.revision for name, info in METHOD_INFO.items()}, "augment": 2, "focal": 1, "average": 1}

WEIGHTS = ("imagenet", "random", "given")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class DatasetRef:
    """A dataset by name and fingerprint; the latter covers sources, labels, splits, image size and codec."""

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
    """What `t_max` counts: `step` or `epoch`."""
    warmup: float = later(0.0)
    """The part of the run over which `once` first rises from 0 to lr."""
    last_weight_decay: float | None = later(None)
    """The weight decay at the end of the run, reached along half a cosine; None: it stays."""
    clip: float = later(0.0)
    """The maximum norm of each parameter's own gradient; 0: no limit."""

    def __post_init__(self) -> None:
        one_of("Optim.name", self.name, ("adam", "adamw", "sgd"))
        one_of("Optim.schedule", self.schedule, ("cosine", "once", "constant"))
        one_of("Optim.unit", self.unit, ("step", "epoch"))
        positive(lr=self.lr, t_max=self.t_max)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"Optim.warmup is {self.warmup}; it is a fraction of the run in [0, 1)")
        if not self.clip >= 0:
            raise ValueError(f"Optim.clip is {self.clip}; give the maximum norm of a gradient, or 0 for none")

    def lr_at(self, *, step: int, epoch: int, progress: float = 0.0) -> float:
        """The learning rate at a global step (from 0): a pure function, so there is no state to drift or to restore.

        `progress` is the part of the run that is done, in [0, 1); only `once` uses it.
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
        """The weight decay when this part of the run, in [0, 1], is done."""
        if self.last_weight_decay is None:
            return self.weight_decay
        return half_cosine(self.weight_decay, self.last_weight_decay, progress)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One network of a pretraining run: its role, timm tag, start weights and optimizer."""

    name: str
    backbone: str
    weights: str
    """`imagenet` (timm's for the tag), `random`, or `given`: those in the field of that name."""
    optim: Optim
    given: StartWeights | None = later(None)

    def __post_init__(self) -> None:
        one_of("Arm.weights", self.weights, WEIGHTS)
        check_given("Arm", self.weights, self.given)


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
            raise ValueError(f"{self} makes no sense; give an odd `side`, in pixels, and `least` at most `most`")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random augmentation, drawn per image: two jitters, perspective, rotation, flips; then normalisation."""

    first_jitter: Jitter
    second_jitter: Jitter
    perspective_p: float
    """Probability of the perspective warp where the first jitter was applied."""
    perspective: float
    """Strength of the distortion, 0 to 1."""
    degrees: float
    """Rotation uniform in [−degrees, degrees] where the second jitter was applied."""
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
        """The epochs (from 0) at whose ends a run of `epochs` epochs adds its weights to the average."""
        return range(min(int(self.start * epochs), epochs - 1), epochs)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Sigmoid focal loss; `class_weights` is minmax (the paper's), inverse (rare classes weigh more) or none."""

    name: str
    alpha: float
    gamma: float
    class_weights: str
    revision: int = REVISIONS["focal"]
    counted: str = later("train")
    """The images whose labels the class weights count: those of `train`, or of `train and val`."""

    def __post_init__(self) -> None:
        one_of("Loss.name", self.name, ("focal",))
        one_of("Loss.counted", self.counted, ("train", "train and val"))
        one_of("Loss.class_weights", self.class_weights, ("minmax", "inverse", "none"))


@dataclass(frozen=True, kw_only=True)
class Method:
    """A self-supervised method by name, with the options that its plugin in `pipeline/learn/methods/` knows."""

    name: str
    revision: int
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PretrainSpec:
    """A pretraining run: a method, its arms, all training images, no labels."""

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
    """Never set gradients to zero between steps, as the reference notebook does (fidelity 3a, 1)."""
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
        """The arm of that name; `ValueError` with the known names if there is none."""
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
    """The pretraining arm that is fine-tuned; in a supervised run, the role of its backbone."""
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
    """Patience counts epochs without a new best (`best`), or rises over the epoch before (`previous`: notebook)."""
    probe: str = later("")
    """Nothing is trained: what judges frozen features instead, `knn` or `linear`."""
    given: StartWeights | None = later(None)
    """As an arm's; of a pretrained arm, those that its pretraining started from. `augment` normalises as they want."""
    val_fraction: float = later(1.0)
    """The part of the labelled validation images that early stopping sees, drawn as the labels of training are."""

    def __post_init__(self) -> None:
        positive(epochs=self.epochs, batch_size=self.batch_size, image_size=self.image_size, patience=self.patience)
        one_of("FinetuneSpec.weights", self.weights, WEIGHTS)
        one_of("FinetuneSpec.precision", self.precision, PRECISIONS)
        one_of("FinetuneSpec.stopping", self.stopping, ("best", "previous"))
        one_of("FinetuneSpec.probe", self.probe, ("", "knn", "linear"))
        fraction(label_fraction=self.label_fraction, val_fraction=self.val_fraction)
        check_given("FinetuneSpec", self.weights, self.given)
        if self.given and self.given.normalisation != (self.augment.mean, self.augment.std):
            raise ValueError(f"`augment` does not normalise by {self.given.normalisation}, as {self.given.name} wants")
        if self.pretrain is not None:
            arm = self.pretrain.arm(self.arm)
            if arm.backbone != self.backbone:
                was = f"arm {self.arm!r} was pretrained as {arm.backbone}"
                raise ValueError(f"{was}, not {self.backbone}; name the same backbone")
            if arm.given != self.given:
                raise ValueError(f"the pretraining of arm {self.arm!r} started from other weights; give the same")


Spec = PretrainSpec | FinetuneSpec


def kind_of(spec: Spec) -> str:
    """`pretrain` or `finetune`."""
    return "pretrain" if isinstance(spec, PretrainSpec) else "finetune"


def method_of(spec: Spec) -> str:
    """`cass`, `dino`, … `supervised` or, where nothing is trained, `frozen`."""
    if isinstance(spec, FinetuneSpec) and spec.probe:
        return "frozen"
    pretrain = spec if isinstance(spec, PretrainSpec) else spec.pretrain
    return pretrain.method.name if pretrain else "supervised"
