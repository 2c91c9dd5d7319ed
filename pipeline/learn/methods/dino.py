"""DINO as the paper's baseline has it: after vit-pytorch's `Dino` (paper E.2.1, fidelity 3c), one backbone a run.

The student sees two local crops, the teacher two global ones, all at the image's full size; each learns from the
other's. Departures from vit-pytorch: every image has its own draws (`batch_draws` gives vit-pytorch's), batch norm's
buffers are copied to the teacher, the feature is timm's pre-logits, and nothing is built in a mock forward pass.
Fine-tuning takes the student's backbone, the network that vit-pytorch's README saves.

Cost: two passes of the student and two of the teacher's forward an image, at full size. ISIC-2019, 100 epochs:
109 h 21 min on an RTX8000 (Table 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from pipeline.learn.crops import Crop, recoloured_crops
from pipeline.learn.distillation import Distillation, Encoder, Features, Projection
from pipeline.learn.method import Method, only_arm, read_options
from pipeline.runs.spec import PretrainSpec
from pipeline.runs.values import positive


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a spec says about the method; the numbers stand in `pipeline/paper.py`."""

    out_dim: int
    """K, the dimensions of the teacher's distributions."""
    hidden: int
    """Width of the projector's hidden layers, and of what is normalised."""
    layers: int
    """Linear layers of the projector, the last to K counted."""
    student_temperature: float
    teacher_temperature: float
    teacher_momentum: float
    centre_momentum: float
    local_least: float
    local_most: float
    global_least: float
    batch_draws: bool
    """One draw for the whole batch, as torchvision's transforms do on a batch tensor."""

    def __post_init__(self) -> None:
        if self.out_dim < 2 or self.layers < 2:
            raise ValueError(f"out_dim is {self.out_dim}, layers is {self.layers}; both are 2 or more")
        positive(hidden=self.hidden)
        positive(student_temperature=self.student_temperature, teacher_temperature=self.teacher_temperature)


OPTIONS = tuple(item.name for item in fields(Options))


class Dino(Method):
    """One backbone, as a student and as its moving average, the teacher."""

    def __init__(self, arm: str, backbone: nn.Module, spec: PretrainSpec) -> None:
        super().__init__()
        self.arm = arm
        self.options = options = read_options(spec, Options)
        self.augmentation = spec.augment
        self.crops = (
            Crop(options.local_least, options.local_most, spec.image_size),
            Crop(options.global_least, 1.0, spec.image_size),
        )
        width = int(backbone.head_hidden_size)  # type: ignore[arg-type]
        projection = Projection(backbone, projector(width, options.hidden, options.layers))
        last = nn.Linear(options.hidden, options.out_dim)
        self.pair = Distillation(Encoder(projection, last), options.out_dim)

    def inputs(self, pixels: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, ...]:
        """A local and a global crop, twice: [n, 3, h, w] each."""
        views = [
            recoloured_crops(pixels, self.augmentation, self.crops, draws, one_draw=self.options.batch_draws)
            for _ in range(2)
        ]
        return tuple(crop for view in views for crop in view)

    def loss(self, *inputs: Tensor) -> dict[str, Tensor]:
        students = [self.pair.student(local) for local in inputs[::2]]  # [n, K] each; batch norm sees one crop a time
        with torch.no_grad():
            teachers = [self.pair.teacher(whole) for whole in inputs[1::2]]
        return self.pair.loss(
            students,
            teachers,
            student_temperature=self.options.student_temperature,
            teacher_temperature=self.options.teacher_temperature,
        )

    def after_step(self, progress: float) -> None:
        self.pair.update_teacher(self.options.teacher_momentum, self.options.centre_momentum, copy_buffers=True)

    def arms(self) -> Mapping[str, nn.Module]:
        return {self.arm: self.pair.student.projection.backbone}

    def monitored(self) -> Mapping[str, nn.Module]:
        return {self.arm: Features(self.pair.student.projection.backbone)}

    def parameters_of(self, arm: str) -> list[nn.Parameter]:
        return list(self.pair.student.parameters())


def projector(width: int, hidden: int, layers: int) -> nn.Sequential:
    """All linear layers but the last, each with a GELU after it (vit-pytorch's has one there too)."""
    blocks: list[nn.Module] = []
    for number in range(layers - 1):
        blocks += [nn.Linear(hidden if number else width, hidden), nn.GELU()]
    return nn.Sequential(*blocks)


def build(spec: PretrainSpec, arms: Mapping[str, nn.Module]) -> Method:
    """The method of a spec; `ValueError` when it does not name one arm or an option is missing."""
    return Dino(*only_arm(spec, arms), spec)


def outputs(spec: PretrainSpec) -> int:
    """No head: DINO works on the features."""
    return 0
