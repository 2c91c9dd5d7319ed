"""Self-distillation: a student learns from a teacher that is the moving average of itself (DINO, arXiv 2104.14294).

What the methods `dino` and `dino_fb` share. Everything is built at once and is part of the module's state.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.learn import average, backbones

EPSILON = 1e-6  # a zero feature is not divided by zero; the value of both reference implementations


class Features(nn.Module):
    """What fine-tuning builds on, for the collapse monitor: [n, 3, h, w] → [n, width].

    The projection would not do: it can give every image the same direction while the features spread, and with a CNN's
    batch norm at its initial statistics it does so before the first step.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return backbones.features(self.backbone, images)


class Projection(nn.Module):
    """A backbone's features through a few layers to L2-normalised vectors: [n, 3, h, w] → float32 [n, width]."""

    def __init__(self, backbone: nn.Module, layers: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        projected = self.layers(backbones.features(self.backbone, images))
        return nn.functional.normalize(projected.float(), dim=-1, eps=EPSILON)


class Encoder(nn.Module):
    """A projection and the last layer on it, which gives the logits of K dimensions: [n, 3, h, w] → [n, K]."""

    def __init__(self, projection: Projection, last: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.projection(images))
        return logits


class Distillation(nn.Module):
    """A student, its teacher (without gradients) and the centre [1, K] of the teacher's logits."""

    centre: Tensor
    latest: Tensor

    def __init__(self, student: Encoder, dimensions: int) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(1, dimensions))
        self.register_buffer("latest", torch.zeros(1, dimensions), persistent=False)  # between a loss and its step

    def loss(
        self,
        students: Sequence[Tensor],
        teachers: Sequence[Tensor],
        *,
        student_temperature: float,
        teacher_temperature: float,
    ) -> dict[str, Tensor]:
        """The scalars of a step from the logits [n, K] of both, one entry a view; keeps the teacher's mean for the
        centre.

        `teacher_entropy` is the mean entropy of the teacher's distributions as a part of log K: near 1 they have
        collapsed to the uniform distribution.
        """
        with torch.autocast(self.centre.device.type, enabled=False):
            targets = [((t.detach().float() - self.centre) / teacher_temperature).softmax(dim=-1) for t in teachers]
            self.latest.copy_(torch.cat([t.detach().float() for t in teachers]).mean(dim=0, keepdim=True))
            entropy = torch.stack([torch.special.entr(t).sum(dim=-1).mean() for t in targets]).mean()
            return {
                "loss": crossed_entropy(targets, [s.float() / student_temperature for s in students]),
                "teacher_entropy": entropy / math.log(self.centre.shape[1]),
            }

    @torch.no_grad()
    def update_teacher(self, momentum: float, centre_momentum: float, *, copy_buffers: bool) -> None:
        """Move the teacher's weights towards the student's, and the centre towards the last step's mean.

        With `copy_buffers` the teacher takes the student's batch-norm statistics; otherwise it has those of its own
        batches.
        """
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)
        if copy_buffers:
            average.copy_buffers(self.teacher, self.student)
        self.centre.lerp_(self.latest, 1 - centre_momentum)


def crossed_entropy(targets: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """The mean cross-entropy of every target [n, K] with the logits [n, K] of every view but its own."""
    log_p = [view.log_softmax(dim=-1) for view in logits]
    terms = [
        -(target * view).sum(dim=-1).mean()
        for i, target in enumerate(targets)
        for j, view in enumerate(log_p)
        if i != j
    ]
    return torch.stack(terms).mean()
