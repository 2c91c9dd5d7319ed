"""The methods, and what the rest of the package must know of each one without importing torch.

A method is one file in `pipeline/learn/methods/` and one entry here; no other list has to name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """The facts of one method. The defaults are what is assumed of a method without an entry."""

    title: str
    """Its name in tables and figures."""
    revision: int = 1
    """Raised by one whenever the numbers that the method computes change: old results then belong to other runs."""
    epochs_enter_steps: bool = True
    """Whether a step depends on the number of epochs. If not, a longer run passes through the states of a shorter one
    (`identity.milestone_of`)."""
    has_teacher: bool = False
    """Whether a checkpoint holds a teacher: a second copy of the parameters, and a last layer of `out_dim` columns."""
    flops: float | None = 1.0
    """FLOPs of a training image, relative to one forward and backward pass of each arm; None: not counted."""


METHOD_INFO: Mapping[str, MethodInfo] = {
    "cass": MethodInfo(title="CASS", epochs_enter_steps=False),
    "cass_vc": MethodInfo(title="CASS + variance–covariance", epochs_enter_steps=False),
    "cass_shuffled": MethodInfo(title="CASS, shuffled", epochs_enter_steps=False),
    "bn_only": MethodInfo(title="Batch norm only", epochs_enter_steps=False, flops=1 / 3),  # forward passes alone
    # flops: two views through the student and, forward only, two through the teacher (2 + 2 / 3)
    "dino": MethodInfo(title="DINO", has_teacher=True, flops=8 / 3),
    "dino_fb": MethodInfo(title="DINO (authors' recipe)", has_teacher=True, flops=None),
}
CONTROLS = ("cass_shuffled", "bn_only")
"""Methods that do what CASS does, without the agreement on the same image."""
NO_METHOD = {"supervised": MethodInfo(title="Supervised"), "frozen": MethodInfo(title="Frozen features")}
"""What runs do that pretrain nothing."""


def method_info(name: str) -> MethodInfo:
    """The facts of a method, of `supervised` or `frozen`, or of a name without an entry: that name and the defaults."""
    return METHOD_INFO.get(name) or NO_METHOD.get(name) or MethodInfo(title=name)
