"""DINO as its authors run it (arXiv 2104.14294 and facebookresearch/dino; fidelity 3c), one backbone a run.

The student sees two global crops and many small local ones, the teacher the global ones; 18 terms. Teacher momentum,
learning rate and weight decay are functions of the run's progress. Fine-tuning takes the teacher's backbone, which the
authors evaluate. Small crops need a backbone that accepts them: convolutional networks and ViTs, not Swin.

Cost at 384 pixels: two passes of the student and two forward passes of the teacher an image at full size, and eight of
the student at 160 pixels (an area of 1.4 full ones in all).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from pipeline.learn.crops import Crop, cropped_then_recoloured
from pipeline.learn.distillation import Distillation, Encoder, Features, Projection
from pipeline.learn.method import Method, only_arm, read_options
from pipeline.learn.positions import Resized
from pipeline.runs.spec import PretrainSpec
from pipeline.runs.values import half_cosine, positive

GLOBAL = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a spec says about the method; the numbers stand in `pipeline/paper.py`."""

    out_dim: int
    """K, the dimensions of the teacher's distributions."""
    hidden: int
    layers: int
    """Linear layers of the projector, the bottleneck's counted."""
    bottleneck: int
    """Width of what is normalised."""
    student_temperature: float
    teacher_temperature: float
    teacher_momentum: float
    """At the start; 1 at the end, along half a cosine."""
    centre_momentum: float
    global_least: float
    local_crops: int
    local_side: int
    """Pixels."""
    local_least: float
    local_most: float
    second_blur: float
    """Probability of the blur in the second global view; the first's is the augmentation's."""
    second_solarise: float
    local_blur: float
    frozen_epochs: int
    """Epochs before the last layer is trained."""

    def __post_init__(self) -> None:
        if self.out_dim < 2 or self.layers < 2:
            raise ValueError(f"out_dim is {self.out_dim}, layers is {self.layers}; both are 2 or more")
        positive(hidden=self.hidden, bottleneck=self.bottleneck)
        positive(student_temperature=self.student_temperature, teacher_temperature=self.teacher_temperature)
        positive(local_crops=self.local_crops)


OPTIONS = tuple(item.name for item in fields(Options))


class DinoFb(Method):
    """One backbone, as a student and as its moving average, the teacher; crops of two sizes."""

    def __init__(self, arm: str, backbone: nn.Module, spec: PretrainSpec) -> None:
        super().__init__()
        self.arm = arm
        self.options = options = read_options(spec, Options)
        self.frozen_until = options.frozen_epochs / spec.epochs
        blur = spec.augment.blur
        if blur is None:
            raise ValueError("dino_fb blurs its crops; give PretrainSpec.augment a blur, as paper.DINO_FB_AUGMENT has")
        second = replace(spec.augment, blur=replace(blur, p=options.second_blur), solarise=options.second_solarise)
        local = replace(spec.augment, blur=replace(blur, p=options.local_blur))
        whole = Crop(options.global_least, 1.0, spec.image_size)
        self.global_views = ((spec.augment, whole), (second, whole))
        small = Crop(options.local_least, options.local_most, options.local_side)
        self.local_views = ((local, small),) * options.local_crops
        self.resized = Resized(backbone, options.local_side, "projection.backbone")
        width = int(backbone.head_hidden_size)  # type: ignore[arg-type]
        projection = Projection(backbone, projector(width, options.hidden, options.layers, options.bottleneck))
        self.pair = Distillation(Encoder(projection, Directions(options.bottleneck, options.out_dim)), options.out_dim)

    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """The global crops and the small ones, view by view: [views · n, 3, side, side] each."""
        self.pair.student.last.requires_grad_(progress >= self.frozen_until)
        whole = cropped_then_recoloured(pixels, self.global_views, draws)
        return whole, cropped_then_recoloured(pixels, self.local_views, draws)

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        whole, local = inputs
        student = self.pair.student(whole).chunk(GLOBAL) + self.resized(self.pair.student, local).chunk(
            self.options.local_crops
        )  # [n, K] each
        with torch.no_grad():
            teacher = self.pair.teacher(whole).chunk(GLOBAL)
        return self.pair.loss(
            student,
            teacher,
            student_temperature=self.options.student_temperature,
            teacher_temperature=self.options.teacher_temperature,
        )

    def after_step(self, progress: float) -> None:
        momentum = half_cosine(self.options.teacher_momentum, 1.0, progress)
        self.pair.update_teacher(momentum, self.options.centre_momentum, copy_buffers=False)

    def arms(self) -> Mapping[str, nn.Module]:
        return {self.arm: self.pair.teacher.projection.backbone}

    def monitored(self) -> Mapping[str, nn.Module]:
        return {self.arm: Features(self.pair.teacher.projection.backbone)}

    def parameters_of(self, arm: str) -> list[nn.Parameter]:
        return list(self.pair.student.parameters())


class Directions(nn.Module):
    """K unit vectors that a unit vector is multiplied with: a weight-normed linear layer whose g stays 1, no bias."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dimensions, width))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # nn.Linear's own

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1))


def projector(width: int, hidden: int, layers: int, bottleneck: int) -> nn.Sequential:
    """Linear layers with GELUs between them, none after the bottleneck; the authors' initial weights."""
    widths = [width, *[hidden] * (layers - 1), bottleneck]
    blocks: list[nn.Module] = []
    for first, second in zip(widths, widths[1:], strict=False):
        linear = nn.Linear(first, second)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        blocks += [linear, nn.GELU()]
    return nn.Sequential(*blocks[:-1])


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name one arm or the backbone takes no small crops."""
    return DinoFb(*only_arm(spec, arms), spec)


def outputs(spec: PretrainSpec) -> int:
    """No head: DINO works on the features."""
    return 0
