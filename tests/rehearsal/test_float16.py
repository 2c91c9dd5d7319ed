"""float16 without a GPU: networks from random weights, stepped on a CPU under autocast with a gradient scaler."""

from __future__ import annotations

import dataclasses
import math
import os

import pytest
import torch
from tiny import BACKBONES, SIZE, make_cluster, make_shards, ref

from pipeline.learn.hardware import Hardware
from pipeline.learn.loop import Trainer
from pipeline.learn.pretrain import Pretraining
from pipeline.runs.folder import Run
from pipeline.study import paper, recipes

STEPS = 20
PAIR = paper.STANDARD if os.environ.get("CASS_REHEARSAL") == "full" else BACKBONES


@pytest.mark.slow
def test_twenty_steps_stay_finite_and_the_scale_settles(tmp_path):
    """On tiny networks; on the paper's with `CASS_REHEARSAL=full`. With `-s` the scaler's course is printed."""
    shards = make_shards(tmp_path)
    pair = [dataclasses.replace(backbone, weights="random") for backbone in PAIR]
    spec = recipes.cass(ref(shards), pair, preset=paper.preset("paper"), seed=77)
    spec = dataclasses.replace(spec, image_size=SIZE, batch_size=4)
    hardware = Hardware(device="cpu", model="any", precision="float16", threads=1)
    program = Pretraining(spec, make_cluster(tmp_path), hardware.torch_device)
    trainer = Trainer(program, Run(tmp_path), hardware, checkpoint_seconds=1e6, should_stop=lambda: False)
    scales, losses = [trainer.scaler.get_scale()], []
    counters = trainer.counters
    for _ in range(STEPS):
        if counters.step == program.steps_per_epoch:
            counters.epoch, counters.step = counters.epoch + 1, 0
        before = counters.sums.get("loss", 0.0)
        trainer.take_step()  # raises where a loss is not finite
        losses.append(counters.sums["loss"] - before)
        scales.append(trainer.scaler.get_scale())
    print(f"\nscales {scales}\nlosses {[round(loss, 3) for loss in losses]}")
    skipped = sum(later < earlier for earlier, later in zip(scales, scales[1:], strict=False))
    assert scales[0] == 65536 and all(math.log2(scale).is_integer() for scale in scales)
    assert skipped < STEPS / 2 and len(set(scales[-5:])) == 1
    assert all(0 <= loss <= 4 for loss in losses)
    assert all(parameter.isfinite().all() for parameter in program.module.parameters())
    assert all(torch.is_tensor(p.grad) and p.grad.dtype == torch.float32 for p in program.module.parameters())
