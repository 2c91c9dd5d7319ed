"""What a run keeps in a pretended GPU's memory between its epochs and at its end, when nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pipeline.learn import probes
from pipeline.learn.finetune import Finetuning
from pipeline.learn.loop import Trainer
from pipeline.learn.pretrain import Pretraining
from pipeline.rehearsal.cuda import TURING, Gpu
from pipeline.rehearsal.programs import rehearsed, site
from pipeline.rehearsal.steps import KINDS, keep_averages, label
from pipeline.runs.spec import Spec

IMAGES = probes.BATCH  # of each split: one batch of every evaluation, which all have as many images
STEPS = 2  # from which batch-norm statistics are estimated


def rehearse_evaluation(
    spec: Spec, *, precision: str = "float32", gpu: Gpu = TURING, classes: int = 8
) -> Mapping[str, int]:
    """Device bytes by `steps.KINDS` at the moment when an evaluation needs most, apart from the optimizer's.

    Averaging, the collapse monitor, validation, the probes' features, batch-norm statistics of averaged weights; the
    gradients of the last step are there, too.
    """
    with rehearsed(spec, precision, gpu, classes, images=max(IMAGES, 4 * spec.batch_size)) as (seen, trainer):
        program = trainer.program
        keep_averages(program)
        for parameter in program.module.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        label(seen, program)
        seen.memory.label((parameter.grad for parameter in program.module.parameters()), "gradients")
        seen.memory.reset_peak()
        evaluate(trainer)
        return {kind: seen.memory.peak.get(kind, 0) for kind in KINDS}


def evaluate(trainer: Trainer) -> None:
    """What follows the last epoch of a run."""
    program = trainer.program
    program.end_epoch(program.epochs - 1)
    if isinstance(program, Finetuning):
        for part in (program.val, program.test):
            program.logits(part)
        return
    assert isinstance(program, Pretraining)
    program.steps_per_epoch = STEPS
    judged = probes.of_run(program.spec, site(trainer.run.folder), trainer.hardware).train.samples
    for arm in (program.averaged_arms(program.epochs) or program.method.arms()).values():
        probes.features(arm, judged, program.spec.augment, trainer.hardware)
