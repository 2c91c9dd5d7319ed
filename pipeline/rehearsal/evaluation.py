"""What a run keeps in a pretended GPU's memory between its epochs and at its end, when nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.learn import probes
from pipeline.learn.finetune import Finetuning
from pipeline.learn.loop import Trainer
from pipeline.learn.pretrain import Pretraining
from pipeline.rehearsal.cuda import TURING, Gpu
from pipeline.rehearsal.programs import rehearsed, site
from pipeline.rehearsal.steps import KINDS, keep_averages, label
from pipeline.runs.spec import Spec

IMAGES = 2 * probes.BATCH  # of each split: two batches of every evaluation, which all have as many images


def rehearse_evaluation(
    spec: Spec, *, precision: str = "float32", gpu: Gpu = TURING, classes: int = 8
) -> Mapping[str, int]:
    """Device bytes by `steps.KINDS` at the moment when an evaluation needs most; gradients of the last step are there.

    Averaging, the collapse monitor, validation, the probes' features, batch-norm statistics of averaged weights.
    """
    with rehearsed(spec, precision, gpu, classes, images=max(IMAGES, 4 * spec.batch_size)) as (seen, trainer):
        program = trainer.program
        keep_averages(program)
        trainer.take_step()
        label(seen, program)
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
    judged = probes.of_run(program.spec, site(trainer.run.folder), trainer.hardware).train.samples
    for arms in (program.method.arms(), program.averaged_arms(program.epochs) or {}):
        for arm in arms.values():
            probes.features(arm, judged, program.spec.augment, trainer.hardware)
