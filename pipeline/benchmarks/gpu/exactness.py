"""The tests that need a GPU, exact resume by kills, and every backbone's backward pass twice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from pipeline.benchmarks.gpu.programme import Found, Programme, Sheet
from pipeline.benchmarks.support.training import TOY, network, this_machine
from pipeline.learn import hardware
from pipeline.study import paper

TITLE = "bits: the GPU tests, exact resume, determinism"
MINUTES = 12.0
TESTS, KILLS, BACKWARD = "GPU tests", "resume after kills", "backward twice: "
ROOT = Path(__file__).parents[3]
TAIL = 2000  # characters of output that are kept
BATCH = 4  # images


def parts(programme: Programme) -> list[str]:
    backbones = TOY if programme.quick else paper.BACKBONES
    return [*(BACKWARD + backbone.title for backbone in backbones), KILLS, TESTS]


def run(programme: Programme, part: str) -> Found:
    if part == TESTS:
        return gpu_tests(programme)
    if part == KILLS:
        return kills(programme)
    title = part.removeprefix(BACKWARD)
    return backward_twice(programme, next(b for b in (*TOY, *paper.BACKBONES) if b.title == title))


def gpu_tests(programme: Programme) -> Found:
    """The tests of `tests/learn` that take a device, on this one; the rehearsal takes one module of them.

    Ten kills are a part of their own. A module that needs a package that is not here costs its own tests only.
    """
    if not find_spec("pytest"):
        return {"skipped": "pytest is not installed, so no test ran; the other parts of this step need none"}
    chosen = "tests/learn/test_checkpoint.py" if programme.quick else "tests/learn"
    command = [sys.executable, "-m", "pytest", chosen, "-k", f"{programme.device} and not ten_sigkills"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    return {"counts": counts, "code": done.returncode, "output": done.stdout[-TAIL:]}


def kills(programme: Programme) -> Found:
    """A tiny run of each kind, killed ten times, compared bit by bit with an undisturbed one (tests/support/kill)."""
    count = 1 if programme.quick else 10
    folder = programme.settings("exactness").scratch / "kills"
    if folder.exists():
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir()
    command = [sys.executable, "tests/support/kill.py", str(folder), str(count), programme.device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        print(done.stderr[-TAIL:], file=sys.stderr, flush=True)
        reason = done.stderr.strip().splitlines()[-1:] or [f"its process ended with code {done.returncode}"]
        raise RuntimeError(f"the killed runs could not be compared: {reason[0]}")
    return {"kills": count, "same": done.returncode == 0, "output": done.stdout[-TAIL:]}


def backward_twice(programme: Programme, backbone: paper.Backbone) -> Found:
    """The gradients of two backward passes from the same weights and images, compared bit by bit, in each precision."""
    chosen = hardware.choose(this_machine(programme.settings("exactness"), programme.device), "auto")
    hardware.make_deterministic(chosen)
    torch.manual_seed(0)
    size = 160 if backbone in TOY else programme.size
    module = network(backbone.tag, size).to(chosen.torch_device).train()
    images = torch.randn(BATCH, 3, size, size, device=chosen.torch_device)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    different: dict[str, list[str]] = {}
    for precision in dict.fromkeys(("float32", chosen.precision)):
        first, second = (_gradients(module, state, images, precision, chosen.device) for _ in range(2))
        different[precision] = [name for name, value in first.items() if not torch.equal(value, second[name])]
    return {"different": different, "parameters": len(first), "pixels": size}


def _gradients(
    module: torch.nn.Module, state: Mapping[str, Tensor], images: Tensor, precision: str, device: str
) -> dict[str, Tensor]:
    module.load_state_dict(state)
    module.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    dtype = getattr(torch, precision)
    with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        loss = module(images).float().square().mean()
    torch.autograd.backward(loss * 1024)
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def sheets(programme: Programme, found: Mapping[str, Found]) -> list[Sheet]:
    return [Sheet(title="Bits", header=("what", "found"), rows=[(part, said(part, f)) for part, f in found.items()])]


def said(part: str, found: Found) -> str:
    """A part's result in words."""
    if part == TESTS:
        counts = ", ".join(f"{n} {what}" for what, n in found.get("counts", {}).items())
        return found.get("skipped") or counts or f"pytest ended with {found['code']}"
    if part == KILLS:
        return f"{found['kills']} kills of each kind of run: " + ("the same bits" if found["same"] else found["output"])
    different = {precision: names for precision, names in found["different"].items() if names}
    if not different:
        return f"the same bits in {' and '.join(found['different'])}, {found['parameters']} gradients"
    return "; ".join(
        f"{precision}: {len(names)} of {found['parameters']} gradients differ, first {names[0]}"
        for precision, names in different.items()
    )
